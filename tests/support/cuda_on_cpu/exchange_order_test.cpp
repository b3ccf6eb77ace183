// Two groups' exchanges on two streams need an order; one group's, or one stream's, have it.
#include "tests/support/cuda_on_cpu/exchange_order.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/cuda_on_cpu/kernel_test.h"

namespace cuda_on_cpu::test {
namespace {

class ExchangeOrder : public TwoStreams {
 protected:
  void TearDown() override {
    forget_errors();
    TwoStreams::TearDown();
  }

  void order(cudaStream_t before, cudaStream_t after) {
    EXPECT_EQ(cudaSuccess, cudaEventRecord(event_, before));
    EXPECT_EQ(cudaSuccess, cudaStreamWaitEvent(after, event_));
  }
  cudaGraphExec_t graph_of_exchange(const int& group) {
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t executable = nullptr;
    EXPECT_EQ(cudaSuccess, cudaStreamBeginCapture(one_, cudaStreamCaptureModeThreadLocal));
    EXPECT_EQ(cudaSuccess, note_exchange(one_, &group));
    EXPECT_EQ(cudaSuccess, cudaStreamEndCapture(one_, &graph));
    EXPECT_EQ(cudaSuccess, cudaGraphInstantiate(&executable, graph));
    EXPECT_EQ(cudaSuccess, cudaGraphDestroy(graph));
    return executable;
  }

  int group_ = 0, other_group_ = 0;
};

TEST_F(ExchangeOrder, IsMissingBetweenStreams) {
  EXPECT_EQ(cudaSuccess, note_exchange(one_, &group_));

  EXPECT_EQ(cudaErrorLaunchFailure, note_exchange(other_, &other_group_));

  EXPECT_THAT(last_complaint(), ::testing::HasSubstr("nothing says which comes first"));
  EXPECT_EQ(cudaErrorLaunchFailure, cudaStreamSynchronize(one_));
}

TEST_F(ExchangeOrder, IsThatOfAStream) {
  EXPECT_EQ(cudaSuccess, note_exchange(one_, &group_));
  EXPECT_EQ(cudaSuccess, note_exchange(one_, &other_group_));
}

TEST_F(ExchangeOrder, IsTheBusinessOfAGroupWithinIt) {
  EXPECT_EQ(cudaSuccess, note_exchange(one_, &group_));
  EXPECT_EQ(cudaSuccess, note_exchange(other_, &group_));
}

TEST_F(ExchangeOrder, IsThatOfEvents) {
  EXPECT_EQ(cudaSuccess, note_exchange(one_, &group_));
  order(one_, other_);
  EXPECT_EQ(cudaSuccess, note_exchange(other_, &other_group_));
  order(other_, one_);
  EXPECT_EQ(cudaSuccess, note_exchange(one_, &group_));
}

TEST_F(ExchangeOrder, IsNotThatOfAnEarlierEvent) {
  EXPECT_EQ(cudaSuccess, note_exchange(one_, &group_));
  order(one_, other_);
  EXPECT_EQ(cudaSuccess, note_exchange(one_, &group_));

  EXPECT_EQ(cudaErrorLaunchFailure, note_exchange(other_, &other_group_));
}

TEST_F(ExchangeOrder, IsThatOfTheHostsWaits) {
  EXPECT_EQ(cudaSuccess, note_exchange(one_, &group_));
  EXPECT_EQ(cudaSuccess, cudaStreamSynchronize(one_));
  EXPECT_EQ(cudaSuccess, note_exchange(other_, &other_group_));
}

TEST_F(ExchangeOrder, IsMissingToAGraphWhenItIsLaunched) {
  const cudaGraphExec_t graph = graph_of_exchange(group_);
  EXPECT_EQ(cudaSuccess, note_exchange(other_, &other_group_));
  order(other_, one_);
  EXPECT_EQ(cudaSuccess, cudaGraphLaunch(graph, one_));

  EXPECT_EQ(cudaErrorLaunchFailure, note_exchange(other_, &other_group_));

  forget_errors();
  EXPECT_EQ(cudaSuccess, cudaGraphExecDestroy(graph));
}

}  // namespace
}  // namespace cuda_on_cpu::test
