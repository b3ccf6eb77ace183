// What a rank says when it crashes: its rank and host, the step, and the call it was in or made last.
#pragma once

#include "runtime/communicators/rank_status.h"

namespace lamina {

/// While it lives, SIGSEGV, SIGBUS, SIGFPE, SIGILL and SIGABRT first print that, then have their former
/// effect. One per process; `status` outlives it.
class CrashNotice {
 public:
  explicit CrashNotice(const RankStatus& status);
  ~CrashNotice();
  CrashNotice(const CrashNotice&) = delete;
  CrashNotice& operator=(const CrashNotice&) = delete;
};

}  // namespace lamina
