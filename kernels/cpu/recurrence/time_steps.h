// A layer's way through the time steps of a sequence, with stops where it needs its peers. So one time loop
// serves a layer by itself and layers that go on beside each other and share their messages.
#pragma once

#include <algorithm>
#include <coroutine>
#include <cstddef>
#include <span>
#include <utility>
#include <vector>

#include "kernels/cpu/exchange_round.h"

namespace lamina {

/// Where the coroutines of a layer live, one at a time; it grows to the largest of them.
class CoroutineMemory {
 public:
  void* take(std::size_t size) {
    values_.resize(std::max(values_.size(), (size + sizeof(Unit) - 1) / sizeof(Unit)));
    return values_.data();
  }

 private:
  using Unit = std::max_align_t;
  std::vector<Unit> values_;
};

/// A coroutine that hands in what it sends to an ExchangeRound and then says co_yield TimeSteps::exchange;
/// when it goes on, everything has come. After each time step it says co_yield TimeSteps::end_of_step. It is
/// a member function of a class with coroutine_memory(), and takes the round as its one argument.
class TimeSteps {
 public:
  enum Stop { exchange, end_of_step };

  struct promise_type {
    Stop stop = end_of_step;

    TimeSteps get_return_object() {
      return TimeSteps(std::coroutine_handle<promise_type>::from_promise(*this));
    }
    std::suspend_always initial_suspend() noexcept { return {}; }
    std::suspend_always final_suspend() noexcept { return {}; }
    std::suspend_always yield_value(Stop at) noexcept {
      stop = at;
      return {};
    }
    void return_void() noexcept {}
    template <class Layer>
    static void* operator new(std::size_t size, Layer& layer, ExchangeRound&) {
      return layer.coroutine_memory().take(size);
    }
    static void operator delete(void*) noexcept {}
    void unhandled_exception() { throw; }  // out of go_on()
  };

  TimeSteps(TimeSteps&& other) noexcept : coroutine_(std::exchange(other.coroutine_, {})) {}
  TimeSteps& operator=(TimeSteps&&) = delete;
  ~TimeSteps() {
    if (coroutine_) coroutine_.destroy();
  }

  /// To the next stop.
  void go_on() { coroutine_.resume(); }
  bool in_step() const { return coroutine_.promise().stop == exchange; }

 private:
  explicit TimeSteps(std::coroutine_handle<promise_type> coroutine) : coroutine_(coroutine) {}

  std::coroutine_handle<promise_type> coroutine_;
};

/// The next time step of each of `layers`. Collective over the round's axis.
inline void run_step(std::span<TimeSteps> layers, ExchangeRound& round) {
  for (TimeSteps& layer : layers) layer.go_on();
  for (bool in_step = true; in_step;) {
    round.exchange();
    in_step = false;
    for (TimeSteps& layer : layers) {
      if (!layer.in_step()) continue;
      layer.go_on();
      in_step = in_step || layer.in_step();
    }
  }
}

}  // namespace lamina
