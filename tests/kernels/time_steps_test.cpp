// Coroutines of layers, run beside each other.
#include "kernels/cpu/recurrence/time_steps.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "runtime/error.h"

namespace lamina {
namespace {

/// Writes down what it does, with as many exchanges in each step as it is told.
class Layer {
 public:
  Layer(char name, std::vector<int> exchanges, std::string& log)
      : name_(name), exchanges_(std::move(exchanges)), log_(log) {}

  TimeSteps steps(ExchangeRound& round) {
    for (const int exchanges : exchanges_) {
      for (int i = 0; i < exchanges; ++i) {
        if (i == trouble_at_) throw UserError("trouble");
        log_ += name_;
        round.gather(std::span(&value_, 1),
                     [this](int, std::size_t, std::span<const float>) { log_ += '.'; });
        co_yield TimeSteps::exchange;
      }
      log_ += '|';
      co_yield TimeSteps::end_of_step;
    }
  }
  CoroutineMemory& coroutine_memory() { return memory_; }
  void have_trouble_at(int exchange) { trouble_at_ = exchange; }

 private:
  char name_;
  std::vector<int> exchanges_;
  std::string& log_;
  int trouble_at_ = -1;
  float value_ = 1;
  CoroutineMemory memory_;
};

class Steps : public testing::Test {
 protected:
  std::vector<TimeSteps> beside(Layer& a, Layer& b) {
    std::vector<TimeSteps> both;
    for (Layer* layer : {&a, &b}) both.push_back(layer->steps(round_));
    return both;
  }

  std::unique_ptr<Communicator> self_ = make_self_communicator();
  ExchangeRound round_{*self_};
  std::string log_;
};

TEST_F(Steps, HaveTheirExchangesInCommonRounds) {
  Layer a('a', {2, 2}, log_), b('b', {2, 2}, log_);
  std::vector<TimeSteps> both = beside(a, b);

  run_step(both, round_);
  EXPECT_EQ(log_, "ab..ab..||");
  run_step(both, round_);
  EXPECT_EQ(log_, "ab..ab..||ab..ab..||");
}

TEST_F(Steps, WaitForWhoHasMoreExchanges) {
  Layer a('a', {1, 0}, log_), b('b', {3, 1}, log_);
  std::vector<TimeSteps> both = beside(a, b);

  run_step(both, round_);
  EXPECT_EQ(log_, "ab..|b.b.|");
  log_.clear();
  run_step(both, round_);
  EXPECT_EQ(log_, "|b.|");
}

TEST_F(Steps, PassAnExceptionOn) {
  Layer a('a', {2}, log_), b('b', {2}, log_);
  b.have_trouble_at(1);
  {
    std::vector<TimeSteps> both = beside(a, b);

    EXPECT_THROW(run_step(both, round_), UserError);
  }
  round_.clear();

  TimeSteps again = a.steps(round_);
  log_.clear();
  run_step({&again, 1}, round_);
  EXPECT_EQ(log_, "a.a.|");
}

}  // namespace
}  // namespace lamina
