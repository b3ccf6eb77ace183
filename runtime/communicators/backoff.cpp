#include "runtime/communicators/backoff.h"

#include <thread>

#if defined(__x86_64__)
#include <immintrin.h>
#define LAMINA_PAUSE() _mm_pause()
#else
#define LAMINA_PAUSE() static_cast<void>(0)
#endif

namespace lamina {

bool Backoff::wait_on_core() {
  if (stage_ == Stage::spin)
    spin();
  else if (stage_ == Stage::yield)
    yield();
  else
    return false;
  return true;
}

void Backoff::spin() {
  LAMINA_PAUSE();
  if (rounds_++ % kRoundsPerLook != 0) return;
  const Clock::time_point now = Clock::now();
  if (start_ == Clock::time_point{}) start_ = now;
  if (now - start_ >= spin_) stage_ = Stage::yield;
}

void Backoff::yield() {
  const Clock::time_point before = Clock::now();
  std::this_thread::yield();
  const Clock::time_point after = Clock::now();
  if (after - before > kLate || after - start_ > kYields) stage_ = Stage::sleep;
}

void Backoff::pause() {
  if (!wait_on_core()) std::this_thread::sleep_for(kNap);
}

}  // namespace lamina
