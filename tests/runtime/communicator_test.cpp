// The front, and the communicator of one.
#include "runtime/communicator.h"

#include <gtest/gtest.h>

#include "tests/support/communicator_conformance.h"

namespace lamina {
namespace {

class SelfCommunicator : public ::testing::TestWithParam<CommunicatorCheck> {};

TEST_P(SelfCommunicator, Conforms) { GetParam().run(*make_self_communicator()); }

INSTANTIATE_TEST_SUITE_P(Checks, SelfCommunicator, ::testing::ValuesIn(communicator_checks()),
                         [](const auto& check) { return std::string(check.param.name); });

TEST(SelfCommunicator, HasNoTransport) {
  const auto self = make_self_communicator();

  EXPECT_EQ("self", self->transport());
  EXPECT_EQ(nullptr, self->native_handle());
}

class CommunicatorFront : public ::testing::Test {
 protected:
  std::unique_ptr<Communicator> self_ = make_self_communicator();
  std::vector<float> three_ = std::vector<float>(3), four_ = std::vector<float>(4);
  std::vector<std::uint8_t> bytes_ = std::vector<std::uint8_t>(3);
  std::vector<std::uint32_t> unsigned_ = std::vector<std::uint32_t>(3);
};

TEST_F(CommunicatorFront, RefusesSizesThatDoNotFit) {
  const std::span<const float> three = three_;

  EXPECT_THROW(self_->all_gather(three, std::span(four_)), InternalError);
  EXPECT_THROW(self_->all_to_all(three, std::span(four_)), InternalError);
  EXPECT_THROW(self_->reduce_scatter(three, std::span(four_)), InternalError);
  EXPECT_THROW(self_->broadcast(std::span(three_), 1), InternalError);
  EXPECT_THROW(self_->split(-1, 0), InternalError);
}

TEST_F(CommunicatorFront, RefusesOverlap) {
  const std::span<const float> first = std::span(four_).first(2);
  const std::span<float> shifted = std::span(four_).subspan(1, 2);

  EXPECT_THROW(self_->all_gather(first, shifted), InternalError);
  EXPECT_THROW(self_->all_to_all(first, shifted), InternalError);
  EXPECT_THROW(self_->reduce_scatter(first, shifted), InternalError);
}

TEST_F(CommunicatorFront, RefusesReductionsWithoutMeaning) {
  EXPECT_THROW(self_->all_reduce(std::span(bytes_), Reduction::sum), InternalError);
  EXPECT_THROW(self_->all_reduce(std::span(unsigned_), Reduction::max), InternalError);
  EXPECT_NO_THROW(self_->all_reduce(std::span(bytes_), Reduction::max));
  EXPECT_NO_THROW(self_->all_reduce(std::span(unsigned_), Reduction::sum));
}

}  // namespace
}  // namespace lamina
