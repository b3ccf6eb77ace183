// ctest: labels=fault,mpi,program timeout=120
// Whole jobs that lose a rank: this program starts mpirun over itself. lost_hosts_test.py starts the same job
// over several hosts.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <thread>

#include "runtime/communicator.h"
#include "runtime/communicators/mpi.h"
#include "runtime/fault_point.h"
#include "runtime/host_name.h"

namespace lamina {
namespace {

using namespace std::chrono_literals;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;

void gather(Communicator& group, std::size_t count) {
  const std::vector<float> part(count);
  std::vector<float> out(count * static_cast<std::size_t>(group.size()));
  group.all_gather(std::span<const float>(part), std::span(out));
}

void sum(Communicator& group, std::size_t count) {
  std::vector<float> values(count);
  group.all_reduce(std::span(values));
}

/// Steps over a grid with model axes of two ranks, about a thousand a second.
void train(Communicator& world, int steps, Communicator* library) {
  const auto model = world.split(world.rank() / 2, 0, "model axis");
  const auto data = world.split(world.rank() % 2, 0, "data axis");
  for (int step = 0; step < steps; ++step) {
    world.note_step(step);
    fault_point(FaultPoint::step);
    gather(*model, 512);
    fault_point(FaultPoint::gradient_sync);
    sum(*data, 2000);
    fault_point(FaultPoint::before_rename);
    if (library != nullptr) world.in_library([&] { library->barrier(); });
    if (step == 100 && world.rank() == 0) {
      fmt::print("step 100\n");
      std::fflush(stdout);
    }
    std::this_thread::sleep_for(1ms);
  }
}

/// LAMINA_TEST_JOB: the deadline in seconds, the number of steps, and whether each ends in a library's wait,
/// as "2 1000 0".
int job(int argc, char** argv, const char* settings) {
  MpiSession session(&argc, &argv);
  Communicator& world = session.world();
  int seconds = 0, steps = 0, uses_library = 0;
  check(std::sscanf(settings, "%d %d %d", &seconds, &steps, &uses_library) == 3, "LAMINA_TEST_JOB is wrong");
  const auto library = make_mpi_world({.transport = Transport::mpi});  // waits by itself, for minutes
  try {
    world.set_deadline(std::chrono::seconds(seconds));
    train(world, steps, uses_library != 0 ? library.get() : nullptr);
    return 0;
  } catch (const PeerError& error) {
    if (!error.speaks_first()) std::this_thread::sleep_for(3s);
    fmt::print(stderr, "lamina: rank {} on {}: {}\n", world.rank(), host_name(), error.what());
    MpiSession::abort(static_cast<int>(ExitCode::peer_lost));
  }
}

struct Ending {
  int code;
  std::string output;
  std::chrono::steady_clock::duration lasted;
};

Ending run_job(int ranks, const std::string& environment, bool uses_library) {
  const std::string program = std::filesystem::read_symlink("/proc/self/exe");
  const std::string command = fmt::format(
      "OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_mpi_yield_when_idle=1 "
      "LAMINA_TEST_JOB='2 1000 {:d}' {} timeout -k 5 60 mpirun -n {} --oversubscribe --bind-to none {} 2>&1",
      uses_library, environment, ranks, program);
  const auto start = std::chrono::steady_clock::now();
  std::FILE* pipe = popen(command.c_str(), "r");
  Ending ending{};
  for (int c = std::fgetc(pipe); c != EOF; c = std::fgetc(pipe)) ending.output += static_cast<char>(c);
  const int status = pclose(pipe);
  ending.code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  ending.lasted = std::chrono::steady_clock::now() - start;
  return ending;
}

/// What the ranks said, of all that mpirun printed.
std::vector<std::string> sentences(const std::string& output) {
  std::vector<std::string> found;
  for (std::size_t begin = 0; (begin = output.find("lamina: ", begin)) != std::string::npos;) {
    const std::size_t end = std::min(output.find('\n', begin), output.size());
    found.push_back(output.substr(begin, end - begin));
    begin = end;
  }
  return found;
}

class LostRank : public ::testing::TestWithParam<const char*> {
 protected:
  Ending run(const std::string& fault, bool uses_library = false) {
    return run_job(4, fmt::format("LAMINA_TRANSPORT={} LAMINA_FAULTS={}", GetParam(), fault), uses_library);
  }
};

TEST_P(LostRank, StoppedOneIsNamedOnce) {
  const Ending ending = run("gradient_sync:stop:rank=3:count=50");

  EXPECT_EQ(5, ending.code) << ending.output;
  const auto said = sentences(ending.output);
  ASSERT_EQ(1u, said.size()) << ending.output;
  EXPECT_THAT(said[0],
              ContainsRegex("rank 3 on .* \\(process [0-9]+, stopped\\) did not come to all_reduce \\(sum\\) "
                            "of 2000 float32 \\(data axis, step 49\\) within 2 s; its last call was "
                            "all_gather of 512 float32 \\(model axis, step 49\\)"));
  EXPECT_THAT(said[0], HasSubstr("rank 1 waits in all_reduce (sum) of 2000 float32 (data axis, step 49)"));
  EXPECT_LT(ending.lasted, 15s);
}

TEST_P(LostRank, HangingOneIsNamed) {
  const Ending ending = run("step:hang:rank=0:count=20");

  EXPECT_EQ(5, ending.code) << ending.output;
  const auto said = sentences(ending.output);
  ASSERT_EQ(1u, said.size()) << ending.output;
  EXPECT_THAT(said[0],
              ContainsRegex("rank 0 on .* \\(process [0-9]+, asleep\\) did not come to all_(gather|reduce)"));
}

TEST_P(LostRank, IsNamedByThoseWhoHangInALibrary) {
  const Ending ending = run("before_rename:stop:rank=1:count=5", true);

  EXPECT_EQ(5, ending.code) << ending.output;
  const auto said = sentences(ending.output);
  ASSERT_EQ(1u, said.size()) << ending.output;
  EXPECT_THAT(said[0],
              ContainsRegex("rank 1 on .* \\(process [0-9]+, stopped\\) did not come to a library's call "
                            "\\(world, step 4\\) within 2 s"));
}

TEST_P(LostRank, KilledOneEndsTheJobByMpirun) {
  const Ending ending = run("step:kill:rank=2:count=20");

  EXPECT_EQ(137, ending.code) << ending.output;
  EXPECT_THAT(ending.output, HasSubstr("rank 2"));
}

TEST_P(LostRank, WithoutAFaultAllEndWell) {
  const Ending ending = run("step:kill:rank=9");

  EXPECT_EQ(0, ending.code) << ending.output;
  EXPECT_EQ(0u, sentences(ending.output).size()) << ending.output;
}

INSTANTIATE_TEST_SUITE_P(Transports, LostRank, ::testing::Values("shared-memory", "mpi"),
                         [](const auto& transport) {
                           return std::string(transport.param) == "mpi" ? "messages" : "shared_memory";
                         });

}  // namespace
}  // namespace lamina

int main(int argc, char** argv) {
  if (const char* settings = std::getenv("LAMINA_TEST_JOB")) return lamina::job(argc, argv, settings);
  ::testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
