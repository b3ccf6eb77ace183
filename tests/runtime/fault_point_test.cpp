// The settings are of a process: every case runs in a child of its own.
#include "runtime/fault_point.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <functional>

#include "runtime/error.h"
#include "tests/io/temporary_folder.h"

namespace lamina {
namespace {

/// How a child with LAMINA_FAULTS=`faults`, as rank 2, that does `work` ended: its signal, or its code +
/// 1000.
int ending(const std::string& faults, const std::function<int()>& work) {
  const pid_t child = fork();
  if (child == 0) {
    setenv("LAMINA_FAULTS", faults.c_str(), 1);
    setenv("OMPI_COMM_WORLD_RANK", "2", 1);
    _exit(work());
  }
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, WUNTRACED), child);
  if (WIFSTOPPED(status)) {
    kill(child, SIGKILL);
    waitpid(child, nullptr, 0);
    return SIGSTOP;
  }
  return WIFSIGNALED(status) ? WTERMSIG(status) : 1000 + WEXITSTATUS(status);
}

int pass_sync() {
  fault_point(FaultPoint::gradient_sync);
  return 0;
}

TEST(FaultPoint, DoesWhatIsOrdered) {
  EXPECT_EQ(ending("gradient_sync:kill", pass_sync), SIGKILL);
  EXPECT_EQ(ending("gradient_sync:crash", pass_sync), SIGSEGV);
  EXPECT_EQ(ending("gradient_sync:stop", pass_sync), SIGSTOP);
  EXPECT_EQ(ending("file_write:eio", [] { return injected_error(FaultPoint::file_write); }), 1000 + EIO);
  EXPECT_EQ(ending("file_write:enospc", [] { return injected_error(FaultPoint::file_write); }),
            1000 + ENOSPC);
  EXPECT_EQ(ending("gradient:corrupt", [] { return injected_corruption(FaultPoint::gradient) ? 1 : 0; }),
            1001);
}

TEST(FaultPoint, OrdersTakeThePlaceOfEarlierOnes) {
  EXPECT_EQ(ending("file_write:eio:times=0",
                   [] {
                     order_faults("file_write:enospc");
                     const int first = injected_error(FaultPoint::file_write);
                     order_faults("");
                     return first + 100 * injected_error(FaultPoint::file_write);
                   }),
            1000 + ENOSPC);
}

TEST(FaultPoint, HappensToItsRankAndPlaceOnly) {
  EXPECT_EQ(ending("gradient_sync:kill:rank=1", pass_sync), 1000);
  EXPECT_EQ(ending("gradient_sync:kill:rank=2", pass_sync), SIGKILL);
  EXPECT_EQ(ending("step:kill;file_write:kill", pass_sync), 1000);
  EXPECT_EQ(ending("", pass_sync), 1000);
}

TEST(FaultPoint, CountsPassages) {
  const auto errors = [] {  // a bit per passage that fails
    int bits = 0;
    for (int i = 0; i < 6; ++i) bits |= (injected_error(FaultPoint::file_write) != 0) << i;
    return bits;
  };
  EXPECT_EQ(ending("file_write:eio:count=3", errors), 1000 + 0b000100);
  EXPECT_EQ(ending("file_write:eio:count=2:times=3", errors), 1000 + 0b001110);
  EXPECT_EQ(ending("file_write:eio:count=2;file_write:eio:count=4", errors), 1000 + 0b001010);
  EXPECT_EQ(ending("file_write:eio:count=5:times=0", errors), 1000 + 0b110000);
}

TEST(FaultPoint, HappensOnceOverAllProcesses) {
  const TemporaryFolder folder;
  const std::string fault = "gradient_sync:kill:once=" + (folder.path() / "happened").string();
  EXPECT_EQ(ending(fault, pass_sync), SIGKILL);
  EXPECT_EQ(ending(fault, pass_sync), 1000);
}

TEST(FaultPoint, RefusesWhatItDoesNotKnow) {
  for (const char* wrong : {"nowhere:kill", "step:explode", "step", "step:kill:count=x", "step:kill:size=2",
                            "step:kill:count", "step:kill:count=-1"}) {
    const auto refused = [] {
      try {
        return faults_are_set() ? 0 : 1;
      } catch (const UserError&) {
        return 7;
      }
    };
    EXPECT_EQ(ending(wrong, refused), 1007) << wrong;
  }
}

}  // namespace
}  // namespace lamina
