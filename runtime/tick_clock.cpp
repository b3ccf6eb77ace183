#include "runtime/tick_clock.h"

#if defined(__x86_64__)
#include <x86intrin.h>
#endif

namespace lamina {

std::uint64_t TickClock::now() noexcept {
#if defined(__x86_64__)
  return __rdtsc();
#elif defined(__aarch64__)
  std::uint64_t ticks;
  asm volatile("mrs %0, cntvct_el0" : "=r"(ticks));
  return ticks;
#else
  return static_cast<std::uint64_t>(System::now().time_since_epoch().count());
#endif
}

double TickClock::seconds(std::uint64_t ticks) const {
  const std::uint64_t life = now() - first_;
  if (life == 0) return 0;
  const double life_seconds = std::chrono::duration<double>(System::now() - start_).count();
  return life_seconds * static_cast<double>(ticks) / static_cast<double>(life);
}

}  // namespace lamina
