// Waits of the host for what a GPU or peers must bring to an end. Nobody can interrupt NVIDIA's own waits, so
// where peers take part the host asks again and again, and now and then whether the end is still to be
// expected.
#pragma once

#include <chrono>
#include <functional>
#include <list>

namespace lamina::cuda {

/// Is told how long the wait has lasted; throws where it is in vain.
using WaitCheck = std::function<void(std::chrono::nanoseconds waited)>;

/// Until `is_done()`: on the core at first, then asleep between looks.
void wait_until(const std::function<bool()>& is_done, const WaitCheck& check);
/// The same for at most `limit`; whether it was done.
bool wait_within(std::chrono::milliseconds limit, const std::function<bool()>& is_done);

/// What is to be asked in waits for one stream, by those who have put work on it that depends on peers.
class WaitChecks {
 public:
  /// The check is asked while this lives.
  class Entry {
   public:
    Entry(WaitChecks& checks, WaitCheck check);
    ~Entry() { checks_.all_.erase(place_); }
    Entry(const Entry&) = delete;
    Entry& operator=(const Entry&) = delete;

   private:
    WaitChecks& checks_;
    std::list<WaitCheck>::iterator place_;
  };

  bool empty() const { return all_.empty(); }
  void ask(std::chrono::nanoseconds waited) const;

 private:
  std::list<WaitCheck> all_;
};

}  // namespace lamina::cuda
