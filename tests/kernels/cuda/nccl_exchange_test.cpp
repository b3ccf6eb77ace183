#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <string>
#include <thread>

#include "kernels/backends.h"
#include "kernels/cuda/exchange.h"
#include "kernels/cuda/exchanges/gpu_seats.h"
#include "kernels/cuda/exchanges/nccl.h"
#include "kernels/cuda/libraries/nccl.h"
#include "runtime/error.h"
#include "tests/support/cuda_backend/gpu_ranks.h"
#include "tests/support/cuda_on_cpu/cuda_on_cpu.h"
#include "tests/support/nccl_on_cpu/nccl_on_cpu.h"

namespace lamina::cuda {
namespace {

using namespace std::chrono_literals;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using Clock = std::chrono::steady_clock;

/// For as long as it lives.
class Environment {
 public:
  Environment(const char* name, const char* value) : name_(name) { setenv(name, value, 1); }
  ~Environment() { unsetenv(name_); }
  Environment(const Environment&) = delete;
  Environment& operator=(const Environment&) = delete;

 private:
  const char* name_;
};

class NcclExchangeTest : public ::testing::Test {
 protected:
  void SetUp() override {
    cuda_on_cpu::reset();
    nccl_on_cpu::reset();
  }
  void TearDown() override {
    cuda_on_cpu::reset();
    nccl_on_cpu::reset();
  }

  static std::string transport_on(Gpus gpus) {
    std::string transport;
    run_on_gpus(2, gpus, [&](Device& device, Communicator& world) {
      const auto exchange = make_exchange(device, world);
      if (world.rank() == 0) transport = exchange->transport();
    });
    return transport;
  }
};

/// What `work` throws as `Error`.
template <class Error, class Work>
std::string error_of(const Work& work) {
  try {
    work();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

TEST_F(NcclExchangeTest, IsNotMadeForRanksThatShareAGpu) {
  EXPECT_EQ(transport_on(Gpus::one), "staged");
  EXPECT_EQ(nccl_on_cpu::communicators(), 0);
}

TEST_F(NcclExchangeTest, IsTriedOnASharedGpuWhenAskedFor) {
  const Environment asks("LAMINA_NCCL_SHARED_GPU", "1");
  nccl_on_cpu::set_shared_gpu(true);

  EXPECT_EQ(transport_on(Gpus::one), "nccl");
}

TEST_F(NcclExchangeTest, SaysWhatNcclSaysOfASharedGpu) {
  const Environment asks("LAMINA_NCCL_SHARED_GPU", "1");

  EXPECT_THAT(error_of<PeerError>([] { transport_on(Gpus::one); }),
              AllOf(HasSubstr("invalid usage"), HasSubstr("NCCL_DEBUG=WARN"), HasSubstr("world")));
  EXPECT_EQ(nccl_on_cpu::communicators(), 0);
}

TEST_F(NcclExchangeTest, IsNotMadeWithoutTheLibraryOrWhenTurnedOff) {
  {
    const Environment off("LAMINA_NCCL", "0");
    EXPECT_EQ(transport_on(Gpus::one_each), "staged");
  }
  nccl_on_cpu::set_present(false);
  EXPECT_EQ(transport_on(Gpus::one_each), "staged");
  EXPECT_THAT(nccl_description(), HasSubstr("not found"));
}

TEST_F(NcclExchangeTest, RefusesOldVersionsOnEveryRank) {
  nccl_on_cpu::set_version(NCCL_VERSION(2, 18, 3));
  std::atomic<int> refused = 0;

  const std::string sentence = error_of<UserError>([&] {
    run_on_gpus(2, Gpus::one_each, [&](Device& device, Communicator& world) {
      try {
        make_exchange(device, world);
      } catch (const UserError&) {
        ++refused;
        throw;
      }
    });
  });

  EXPECT_EQ(refused, 2);
  EXPECT_THAT(sentence, AllOf(HasSubstr("NCCL 2.18.3 on "), HasSubstr("install 2.19.0 or newer"),
                              HasSubstr("LAMINA_NCCL=0")));
}

TEST_F(NcclExchangeTest, RefusesVersionsThatDiffer) {
  GpuSeat one{.nccl_version = NCCL_VERSION(2, 28, 9)}, other{.nccl_version = NCCL_VERSION(2, 27, 1)};
  one.host[0] = 'a';
  other.host[0] = 'b';

  EXPECT_THAT(error_of<UserError>([&] {
                can_use_nccl({one, other});
              }),
              HasSubstr("2.27.1 on b, 2.28.9 on a"));
}

TEST_F(NcclExchangeTest, DescribesTheLibrary) { EXPECT_EQ(nccl_description(), "2.28.9"); }

// Rank 1 does not come until the others have given up.
TEST_F(NcclExchangeTest, NamesThePeerThatDoesNotCome) {
  std::atomic<int> gave_up = 0;
  std::array<std::string, 3> heard;
  const Clock::time_point start = Clock::now();

  const auto body = [&](Device& device, Communicator& world) {
    const auto group = world.split(0, world.rank(), "data axis");
    const auto exchange = make_nccl_exchange(device, *group);
    auto memory = device.allocate<float>(4);
    world.set_deadline(300ms);
    if (world.rank() == 1) {
      while (gave_up < 2) std::this_thread::sleep_for(1ms);
      return;
    }
    heard[static_cast<std::size_t>(world.rank())] =
        error_of<PeerError>([&] { exchange->all_gather(memory.view().data(), memory.view().data() + 1, 1); });
    ++gave_up;
    throw PeerError("as was said");
  };
  EXPECT_THROW(run_on_gpus(3, Gpus::one_each, body), PeerError);

  EXPECT_LT(Clock::now() - start, 20s);
  for (const int rank : {0, 2}) EXPECT_THAT(heard[static_cast<std::size_t>(rank)], HasSubstr("rank 1 on "));
  EXPECT_THAT(heard[0] + heard[2],
              AllOf(HasSubstr("all_gather of 1 float32 over NCCL (data axis) did not end within 0.3 s"),
                    HasSubstr("did not come to barrier")));
  EXPECT_EQ(nccl_on_cpu::communicators(), 0);
}

TEST_F(NcclExchangeTest, HearsOfAPeerThatFailed) {
  std::string heard;
  std::atomic<bool> ready = false;  // making an exchange would hear of it, too
  const auto body = [&](Device& device, Communicator& world) {
    const auto exchange = make_nccl_exchange(device, world);
    if (world.rank() == 1) {
      while (!ready) std::this_thread::yield();
      throw UserError("no such file");
    }
    ready = true;
    auto memory = device.allocate<float>(4);
    heard =
        error_of<PeerError>([&] { exchange->all_to_all(memory.view().data(), memory.view().data() + 2, 1); });
    EXPECT_THAT(
        error_of<PeerError>([&] { exchange->all_to_all(memory.view().data(), memory.view().data() + 2, 1); }),
        HasSubstr("no such file"));
  };

  EXPECT_THROW(run_on_gpus(2, Gpus::one_each, body), UserError);

  EXPECT_THAT(heard, HasSubstr("no such file"));
  EXPECT_EQ(nccl_on_cpu::communicators(), 0);
}

void nap(void*) { std::this_thread::sleep_for(5ms); }

// The stream has work for half a second when NCCL's helpers find the network broken.
TEST_F(NcclExchangeTest, FindsErrorsWhileItWaitsForTheStream) {
  cuda_on_cpu::set_lazy_streams(true);
  std::string heard;
  const auto body = [&](Device& device, Communicator& world) {
    const auto exchange = make_nccl_exchange(device, world);
    world.barrier();
    if (world.rank() == 0) nccl_on_cpu::set_error(ncclRemoteError);
    world.barrier();
    for (int i = 0; i < 100; ++i)
      verify(cudaLaunchHostFunc(device.stream(), nap, nullptr), "cudaLaunchHostFunc");
    const std::string error = error_of<PeerError>([&] { device.synchronize(); });
    if (world.rank() == 0) heard = error;
  };

  run_on_gpus(2, Gpus::one_each, body);

  EXPECT_THAT(heard, AnyOf(HasSubstr("remote process exited"), HasSubstr("failed")));
  EXPECT_EQ(nccl_on_cpu::communicators(), 0);
  EXPECT_EQ(nccl_on_cpu::aborted(), 2);
}

// Two ranks wait for the stream past the deadline, and both answer the roll call.
TEST_F(NcclExchangeTest, BlamesNcclWhereAllRanksWait) {
  cuda_on_cpu::set_lazy_streams(true);
  std::array<std::string, 2> heard;
  const auto body = [&](Device& device, Communicator& world) {
    const auto exchange = make_nccl_exchange(device, world);
    for (int i = 0; i < 100; ++i)
      verify(cudaLaunchHostFunc(device.stream(), nap, nullptr), "cudaLaunchHostFunc");
    world.set_deadline(100ms);
    heard[static_cast<std::size_t>(world.rank())] = error_of<PeerError>([&] { device.synchronize(); });
    world.set_deadline(0ms);
  };

  run_on_gpus(2, Gpus::one_each, body);

  EXPECT_THAT(heard[0] + heard[1],
              AllOf(HasSubstr("did not end within 0.1 s"), HasSubstr("NCCL_DEBUG=INFO")));
}

TEST_F(NcclExchangeTest, LeavesAnAbortBehindThatDoesNotReturn) {
  const auto body = [](Device& device, Communicator& world) {
    const auto exchange = make_nccl_exchange(device, world);
    nccl_on_cpu::set_abort_hangs(true);
    world.barrier();
    throw UserError("no such file");
  };

  EXPECT_THROW(run_on_gpus(2, Gpus::one_each, body), UserError);

  nccl_on_cpu::set_abort_hangs(false);
}

}  // namespace
}  // namespace lamina::cuda
