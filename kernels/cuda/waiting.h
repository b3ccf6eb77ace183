// Waits of the host for what a GPU or peers must bring to an end. Nobody can interrupt NVIDIA's own waits, so
// where peers take part the host asks again and again, and now and then whether the end is still to be
// expected.
#pragma once

#include <chrono>
#include <functional>
#include <list>
#include <utility>

namespace lamina::cuda {

/// Is told how long the wait has lasted; throws where it is in vain.
using WaitCheck = std::function<void(std::chrono::nanoseconds waited)>;

/// Until `is_done()`: on the core at first, then asleep between looks.
void wait_until(const std::function<bool()>& is_done, const WaitCheck& check);
/// The same for at most `limit`; whether it was done.
bool wait_within(std::chrono::milliseconds limit, const std::function<bool()>& is_done);

/// What is to be asked of those who have put work on a stream, by who waits for it.
template <class... Facts>
class Checks {
 public:
  using Check = std::function<void(Facts...)>;

  /// The check is asked while this lives.
  class Entry {
   public:
    Entry(Checks& checks, Check check)
        : checks_(checks), place_(checks.all_.insert(checks.all_.end(), std::move(check))) {}
    ~Entry() { checks_.all_.erase(place_); }
    Entry(const Entry&) = delete;
    Entry& operator=(const Entry&) = delete;

   private:
    Checks& checks_;
    typename std::list<Check>::iterator place_;
  };

  bool empty() const { return all_.empty(); }
  void ask(Facts... facts) const {
    for (const Check& check : all_) check(facts...);
  }

 private:
  std::list<Check> all_;
};

/// Of work that depends on peers; see WaitCheck.
using WaitChecks = Checks<std::chrono::nanoseconds>;
/// Of work that may have failed; each throws where it has.
using EndChecks = Checks<>;

}  // namespace lamina::cuda
