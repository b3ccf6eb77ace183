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
  if (is_long_) return false;
  if (++rounds_ <= kSpins) {
    LAMINA_PAUSE();
    return true;
  }
  const auto start = std::chrono::steady_clock::now();
  std::this_thread::yield();
  is_long_ = rounds_ == kSpins + kYields || std::chrono::steady_clock::now() - start > kLate;
  return true;
}

void Backoff::pause() {
  if (!wait_on_core()) std::this_thread::sleep_for(kNap);
}

}  // namespace lamina
