// Threads of a kernel wait for each other as CUDA says, and whoever breaks its rules hears of it.
#include <gtest/gtest.h>
#include <time.h>

#include <cmath>
#include <cstring>
#include <memory>
#include <numeric>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/cuda_on_cpu/kernel_test.h"

namespace cuda_on_cpu::test {
namespace {

using Threads = EmulatedGpu;
using Warps = EmulatedGpu;
using Cooperative = EmulatedGpu;
using Refusals = EmulatedGpu;

/// The last launch went wrong, for good, and says so.
void expect_failed(const std::string& why, cudaError_t error = cudaErrorLaunchFailure) {
  EXPECT_EQ(error, cudaPeekAtLastError());
  EXPECT_EQ(error, cudaDeviceSynchronize());
  EXPECT_NE(std::string::npos, last_complaint().find(why)) << last_complaint();
  forget_errors();
  EXPECT_EQ(cudaSuccess, cudaDeviceSynchronize());
}

// --- blocks
// -------------------------------------------------------------------------------------------------
__global__ void write_own_number(int* out) {
  const unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  const unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  const unsigned at = block * blockDim.x * blockDim.y * blockDim.z + thread;
  out[at] = static_cast<int>(at);
}

TEST_F(Threads, EveryThreadOfEveryBlockRunsOnce) {
  for (const unsigned seed : {0u, 1u, 2u}) {
    set_schedule_seed(seed);
    const Buffer<int> out(3 * 2 * 2 * 5 * 3 * 2);

    ASSERT_EQ(cudaSuccess, start({{3, 2, 2}, {5, 3, 2}}, write_own_number, out.data()));

    const auto values = out.values();
    for (std::size_t i = 0; i < values.size(); ++i) EXPECT_EQ(static_cast<int>(i), values[i]);
  }
}

__global__ void reverse_in_block(int* values) {
  auto* shared = static_cast<int*>(emulated_dynamic_shared_memory());
  int* const mine = values + blockIdx.x * blockDim.x;
  shared[threadIdx.x] = mine[threadIdx.x];
  __syncthreads();
  mine[threadIdx.x] = shared[blockDim.x - 1 - threadIdx.x];
}

TEST_F(Threads, SharedMemoryAndBarriersReverseBlocks) {
  for (const unsigned seed : {0u, 1u, 2u, 3u}) {
    set_schedule_seed(seed);
    std::vector<int> numbers(4 * 100);
    std::iota(numbers.begin(), numbers.end(), 0);
    const Buffer<int> values(numbers);

    ASSERT_EQ(cudaSuccess, start({4, 100, 100 * sizeof(int)}, reverse_in_block, values.data()));

    const auto reversed = values.values();
    for (int b = 0; b < 4; ++b)
      for (int t = 0; t < 100; ++t)
        EXPECT_EQ(b * 100 + 99 - t, reversed[static_cast<std::size_t>(b * 100 + t)]);
  }
}

__global__ void sum_of_block(const int* in, int* out) {
  __shared__ int values[128];
  values[threadIdx.x] = in[blockIdx.x * blockDim.x + threadIdx.x];
  for (unsigned half = blockDim.x / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half) values[threadIdx.x] += values[threadIdx.x + half];
  }
  if (threadIdx.x == 0) out[blockIdx.x] = values[0];
}

TEST_F(Threads, StaticSharedMemoryIsTheBlocks) {
  std::vector<int> numbers(3 * 128);
  std::iota(numbers.begin(), numbers.end(), 0);
  const Buffer<int> in(numbers), out(3);

  ASSERT_EQ(cudaSuccess, start({3, 128}, sum_of_block, in.data(), out.data()));

  EXPECT_EQ((std::vector<int>{8128, 8128 + 128 * 128, 8128 + 256 * 128}), out.values());
}

__global__ void read_shared(float* out) { *out = static_cast<float*>(emulated_dynamic_shared_memory())[0]; }

TEST_F(Threads, SharedMemoryBeginsAsNan) {
  const Buffer<float> out(1);
  ASSERT_EQ(cudaSuccess, start({1, 1, 4}, read_shared, out.data()));
  EXPECT_TRUE(std::isnan(out.values()[0]));
}

__global__ void votes(int* out) {
  const int one_in_three = threadIdx.x % 3 == 0;
  const int count = __syncthreads_count(one_in_three);
  const int any = __syncthreads_or(threadIdx.x == 70), all = __syncthreads_and(threadIdx.x < 71);
  if (threadIdx.x == 5) {
    out[0] = count;
    out[1] = any;
    out[2] = all;
  }
}

TEST_F(Threads, BarriersCountVotes) {
  const Buffer<int> out(3);
  ASSERT_EQ(cudaSuccess, start({1, 71}, votes, out.data()));
  EXPECT_EQ((std::vector<int>{24, 1, 1}), out.values());
}

__global__ void leave_early(int* out) {
  if (threadIdx.x >= 40) return;
  __syncthreads();
  out[threadIdx.x] = __shfl_sync(0xffffffffu, static_cast<int>(threadIdx.x), 1);
}

TEST_F(Threads, ThoseThatHaveEndedAreNotWaitedFor) {
  const Buffer<int> out(40);
  ASSERT_EQ(cudaSuccess, start({1, 64}, leave_early, out.data()));
  const auto values = out.values();
  for (std::size_t t = 0; t < 40; ++t) EXPECT_EQ(t < 32 ? 1 : 33, values[t]);
}

__global__ void note_order(int* next, int* order) {
  order[atomicAdd(next, 1)] = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
}

std::vector<int> order_with_seed(unsigned seed) {
  set_schedule_seed(seed);
  const Buffer<int> next(std::vector<int>{0}), order(64);
  std::thread([&] { start({4, 16}, note_order, next.data(), order.data()); }).join();  // its first launch
  return order.values();
}

TEST_F(Threads, SeedsChooseTheOrder) {
  std::vector<int> in_order(64);
  std::iota(in_order.begin(), in_order.end(), 0);
  EXPECT_EQ(in_order, order_with_seed(0));
  std::set<std::vector<int>> orders;
  for (const unsigned seed : {0u, 1u, 2u, 3u, 4u}) {
    orders.insert(order_with_seed(seed));
    EXPECT_EQ(order_with_seed(seed), order_with_seed(seed));
  }
  EXPECT_EQ(5u, orders.size());
}

__global__ void reverse_without_barrier(int* values) {
  auto* shared = static_cast<int*>(emulated_dynamic_shared_memory());
  shared[threadIdx.x] = static_cast<int>(threadIdx.x);
  values[threadIdx.x] = shared[blockDim.x - 1 - threadIdx.x];
}

TEST_F(Threads, AMissingBarrierShows) {
  for (const unsigned seed : {0u, 1u}) {
    set_schedule_seed(seed);
    const Buffer<int> values(64);
    ASSERT_EQ(cudaSuccess, start({1, 64, 64 * sizeof(int)}, reverse_without_barrier, values.data()));
    const auto found = values.values();
    EXPECT_NE(found.end(), std::find(found.begin(), found.end(), -1));
  }
}

TEST_F(Threads, HostThreadsRunKernelsAtOnce) {
  std::vector<std::thread> ranks;
  for (int rank = 0; rank < 4; ++rank) {
    ranks.emplace_back([rank] {
      std::vector<int> numbers(128, rank);
      for (int i = 0; i < 50; ++i) {
        const Buffer<int> in(numbers), out(1);
        ASSERT_EQ(cudaSuccess, start({1, 128}, sum_of_block, in.data(), out.data()));
        ASSERT_EQ(std::vector<int>{128 * rank}, out.values());
      }
    });
  }
  for (auto& rank : ranks) rank.join();
}

// --- warps
// --------------------------------------------------------------------------------------------------
constexpr unsigned kAll = 0xffffffffu;

template <class T>
__global__ void shuffle(const T* in, T* out, int width) {
  const unsigned t = threadIdx.x, size = blockDim.x;
  const T mine = in[t];
  out[t] = __shfl_sync(kAll, mine, 3, width);
  out[size + t] = __shfl_up_sync(kAll, mine, 2, width);
  out[2 * size + t] = __shfl_down_sync(kAll, mine, 2, width);
  out[3 * size + t] = __shfl_xor_sync(kAll, mine, 5, width);
}

template <class T>
void expect_shuffles(int width) {
  std::vector<T> numbers(96);
  for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] = static_cast<T>(3 * i + 1);
  const Buffer<T> in(numbers), out(4 * numbers.size());

  ASSERT_EQ(cudaSuccess, start({1, 96}, shuffle<T>, in.data(), out.data(), width));

  const auto values = out.values();
  for (int t = 0; t < 96; ++t) {
    const int first = t / width * width, last = first + width - 1;
    const auto number = [&](int of) { return numbers[static_cast<std::size_t>(of)]; };
    const auto value = [&](int kind) { return values[static_cast<std::size_t>(kind * 96 + t)]; };
    EXPECT_EQ(number(first + 3 % width), value(0)) << "thread " << t << " width " << width;
    EXPECT_EQ(number(t - 2 < first ? t : t - 2), value(1)) << "thread " << t << " width " << width;
    EXPECT_EQ(number(t + 2 > last ? t : t + 2), value(2)) << "thread " << t << " width " << width;
    EXPECT_EQ(number((t ^ 5) > last ? t : t ^ 5), value(3)) << "thread " << t << " width " << width;
  }
}

TEST_F(Warps, ShufflesGiveTheOtherLanesValues) {
  for (const unsigned seed : {0u, 1u, 2u}) {
    set_schedule_seed(seed);
    for (const int width : {1, 4, 16, 32}) {
      expect_shuffles<int>(width);
      expect_shuffles<unsigned>(width);
      expect_shuffles<float>(width);
      expect_shuffles<double>(width);
      expect_shuffles<long long>(width);
    }
  }
}

__global__ void warp_votes(unsigned* out) {
  const unsigned lane = threadIdx.x % 32;
  const unsigned even = __ballot_sync(kAll, lane % 2 == 0);
  const int any = __any_sync(kAll, lane == 7), none = __any_sync(kAll, lane == 99);
  const int all = __all_sync(kAll, lane < 32), not_all = __all_sync(kAll, lane != 7);
  out[threadIdx.x] = even ^ static_cast<unsigned>(any | none << 1 | all << 2 | not_all << 3);
}

TEST_F(Warps, VotesAreThoseOfAllLanes) {
  const Buffer<unsigned> out(64);
  ASSERT_EQ(cudaSuccess, start({1, 64}, warp_votes, out.data()));
  EXPECT_EQ(std::vector<unsigned>(64, 0x55555555u ^ 5u), out.values());
}

__global__ void halves(int* out) {
  const bool lower = threadIdx.x < 16;
  const unsigned mask = lower ? 0xffffu : 0xffff0000u;
  int sum = 1;
  for (int step = 0; step < (lower ? 1 : 3); ++step) sum += __shfl_xor_sync(mask, sum, 8);
  __syncwarp();
  out[threadIdx.x] = sum;
}

TEST_F(Warps, PartsOfAWarpExchangeApart) {
  for (const unsigned seed : {0u, 1u, 2u, 3u}) {
    set_schedule_seed(seed);
    const Buffer<int> out(32);
    ASSERT_EQ(cudaSuccess, start({1, 32}, halves, out.data()));
    std::vector<int> expected(16, 2);
    expected.insert(expected.end(), 16, 8);
    EXPECT_EQ(expected, out.values());
  }
}

__global__ void count_with_lock(int* lock, volatile int* count) {
  for (bool done = false; !done;) {
    if (atomicCAS(lock, 0, 1) != 0) continue;
    const int old = *count;
    __threadfence();
    *count = old + 1;
    atomicExch(lock, 0);
    done = true;
  }
}

TEST_F(Warps, AtomicsMakeALock) {
  for (const unsigned seed : {0u, 1u}) {
    set_schedule_seed(seed);
    const Buffer<int> lock(std::vector<int>{0}), count(std::vector<int>{0});
    ASSERT_EQ(cudaSuccess,
              start({2, 50}, count_with_lock, lock.data(), static_cast<volatile int*>(count.data())));
    EXPECT_EQ(std::vector<int>{100}, count.values());
  }
}

__global__ void all_atomics(float* sum, unsigned* most, unsigned long long* count, int* bits) {
  atomicAdd(sum, 0.5f);
  atomicMax(most, threadIdx.x);
  atomicAdd(count, 1);
  atomicOr(bits, 1 << threadIdx.x % 3);
}

TEST_F(Warps, AtomicsOfEveryType) {
  const Buffer<float> sum(std::vector<float>{0});
  const Buffer<unsigned> most(std::vector<unsigned>{0});
  const Buffer<unsigned long long> count(std::vector<unsigned long long>{1ull << 40});
  const Buffer<int> bits(std::vector<int>{8});
  ASSERT_EQ(cudaSuccess, start({1, 64}, all_atomics, sum.data(), most.data(), count.data(), bits.data()));
  EXPECT_EQ(32.0f, sum.values()[0]);
  EXPECT_EQ(63u, most.values()[0]);
  EXPECT_EQ((1ull << 40) + 64, count.values()[0]);
  EXPECT_EQ(15, bits.values()[0]);
}

// --- cooperative launches
// -----------------------------------------------------------------------------------
__global__ void pass_on(int* tokens, int* out, int rounds) {
  auto* own = static_cast<int*>(emulated_dynamic_shared_memory());
  const unsigned block = blockIdx.x, next = (block + 1) % gridDim.x;
  if (threadIdx.x == 0) own[0] = 0;
  for (int round = 1; round <= rounds; ++round) {
    if (threadIdx.x == 0) {
      const int wanted = block == 0 ? round - 1 : round;
      while (*static_cast<volatile int*>(tokens + block) < wanted) __nanosleep(20);
      own[0] += round;
      __threadfence();
      atomicExch(tokens + next, round);
    }
    __syncthreads();
  }
  out[block * blockDim.x + threadIdx.x] = own[0];
}

TEST_F(Cooperative, BlocksWaitForEachOther) {
  for (const unsigned seed : {0u, 1u, 2u}) {
    set_schedule_seed(seed);
    const Buffer<int> tokens(std::vector<int>(8, 0)), out(8 * 40);
    Shape shape{8, 40, sizeof(int)};
    shape.cooperative = true;
    ASSERT_EQ(cudaSuccess, start(shape, pass_on, tokens.data(), out.data(), 10));
    EXPECT_EQ(std::vector<int>(8 * 40, 55), out.values());
  }
}

__global__ void wait_with_cached_loads(int* flag) {
  if (blockIdx.x == 0) {
    while (__ldcg(flag) == 0) {
    }
  } else {
    __stcg(flag, 1);
  }
}

TEST_F(Cooperative, LoadsInALoopLetOthersRun) {
  const Buffer<int> flag(std::vector<int>{0});
  Shape shape{2, 1};
  shape.cooperative = true;
  ASSERT_EQ(cudaSuccess, start(shape, wait_with_cached_loads, flag.data()));
  EXPECT_EQ(std::vector<int>{1}, flag.values());
}

TEST_F(Cooperative, MoreBlocksThanRunAtOnceAreRefused) {
  set_multiprocessors(2);
  const Buffer<int> flag(std::vector<int>{0});
  Shape shape{2 * 2 + 1, 1024};
  shape.cooperative = true;
  int blocks = 0;
  EXPECT_EQ(cudaSuccess,
            cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, wait_with_cached_loads, 1024, 0));
  EXPECT_EQ(2, blocks);
  EXPECT_EQ(cudaErrorCooperativeLaunchTooLarge, start(shape, wait_with_cached_loads, flag.data()));
  EXPECT_EQ(cudaErrorCooperativeLaunchTooLarge, cudaGetLastError());
  EXPECT_EQ(cudaSuccess, cudaGetLastError());
}

__global__ void wait_forever(int* flag) {
  while (__ldcv(flag) == 0) __nanosleep(1);
}

TEST_F(Cooperative, PatienceEnds) {
  set_patience(0.05);
  const Buffer<int> flag(std::vector<int>{0});
  start({1, 2}, wait_forever, flag.data());
  expect_failed("no thread has done anything but wait", cudaErrorLaunchTimeout);
}

// --- rules broken
// -------------------------------------------------------------------------------------------
__global__ void two_barriers() {
  if (threadIdx.x < 16) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}

TEST_F(Refusals, ThreadsAtDifferentBarriers) {
  for (const unsigned seed : {0u, 1u}) {
    set_schedule_seed(seed);
    EXPECT_EQ(cudaSuccess, start({2, 32}, two_barriers));
    expect_failed("while other threads of the block wait in the one at");
  }
}

__global__ void barrier_against_shuffle() {
  if (threadIdx.x < 16) {
    __syncthreads();
  } else {
    __syncwarp();
  }
}

TEST_F(Refusals, ThreadsThatWaitForEachOther) {
  start({1, 32}, barrier_against_shuffle);
  const std::string why = last_complaint();
  EXPECT_NE(std::string::npos, why.find("barrier_against_shuffle")) << why;
  EXPECT_NE(std::string::npos, why.find("16 in __syncthreads at ")) << why;
  EXPECT_NE(std::string::npos, why.find("(first thread (16,0,0) of block (0,0,0))")) << why;
  expect_failed("16 in __syncwarp at ");
}

__global__ void lane_that_never_comes(int* out) {
  if (threadIdx.x == 3) return;
  if (threadIdx.x < 3) *out = __shfl_sync(0xfu << 2, 1, 2);
}

TEST_F(Refusals, ALaneThatTheMaskDoesNotName) {
  const Buffer<int> out(1);
  start({1, 32}, lane_that_never_comes, out.data());
  expect_failed("does not name its own lane 0");
}

__global__ void different_exchanges(int* out) {
  const int mine = static_cast<int>(threadIdx.x);
  *out = mine < 8 ? __shfl_down_sync(kAll, mine, 1) : __shfl_up_sync(kAll, mine, 1);
}

TEST_F(Refusals, LanesInDifferentExchanges) {
  const Buffer<int> out(1);
  start({1, 32}, different_exchanges, out.data());
  expect_failed("calls __shfl_up_sync");
}

__global__ void odd_width(int* out) { *out = __shfl_sync(kAll, 1, 0, 12); }

TEST_F(Refusals, AnImpossibleWidth) {
  const Buffer<int> out(1);
  start({1, 32}, odd_width, out.data());
  expect_failed("in segments of 12 lanes");
}

__global__ void trap_in_one(int* done) {
  if (blockIdx.x == 1 && threadIdx.x == 2) __trap();
  done[blockIdx.x] = 1;
}

TEST_F(Refusals, ATrapEndsTheKernelAndAllThatFollows) {
  const Buffer<int> done(std::vector<int>{0, 0, 0});
  EXPECT_EQ(cudaSuccess, start({3, 4}, trap_in_one, done.data()));
  int* more = nullptr;
  EXPECT_EQ(cudaErrorLaunchFailure, cudaMalloc(&more, 4));
  EXPECT_EQ(cudaErrorLaunchFailure, cudaGetLastError());
  EXPECT_EQ(cudaErrorLaunchFailure, cudaGetLastError());
  expect_failed("thread (2,0,0) of block (1,0,0) called __trap at ");
  EXPECT_EQ((std::vector<int>{1, 1, 0}), done.values());
}

__global__ void nothing() {}

TEST_F(Refusals, LaunchesThatCannotBe) {
  EXPECT_EQ(cudaErrorInvalidConfiguration, start({1, 1025}, nothing));
  EXPECT_EQ(cudaErrorInvalidConfiguration, start({1, {1, 1, 65}}, nothing));
  EXPECT_EQ(cudaErrorInvalidConfiguration, start({{1, 65536, 1}, 1}, nothing));
  EXPECT_EQ(cudaErrorInvalidConfiguration, start({0, 1}, nothing));
  EXPECT_EQ(cudaErrorInvalidConfiguration, cudaGetLastError());
  EXPECT_EQ(cudaSuccess, start({1, 1024}, nothing));
}

TEST_F(Refusals, MuchSharedMemoryIsAskedForFirst) {
  constexpr int kLarge = 200 << 10;
  EXPECT_EQ(cudaErrorInvalidValue, start({1, 1, kLarge}, nothing));
  EXPECT_EQ(cudaErrorInvalidValue,
            cudaFuncSetAttribute(nothing, cudaFuncAttributeMaxDynamicSharedMemorySize, 228 << 10));
  EXPECT_EQ(cudaSuccess, cudaFuncSetAttribute(nothing, cudaFuncAttributeMaxDynamicSharedMemorySize, kLarge));
  EXPECT_EQ(cudaSuccess, start({1, 1, kLarge}, nothing));
  cudaFuncAttributes attributes = {};
  EXPECT_EQ(cudaSuccess, cudaFuncGetAttributes(&attributes, nothing));
  EXPECT_EQ(kLarge, attributes.maxDynamicSharedSizeBytes);
}

__global__ void write_one(int* to) { *to = 1; }

TEST_F(Refusals, PointersOfTheHost) {
  int on_host = 0;
  start({}, write_one, &on_host);
  expect_failed("its pointer argument 1", cudaErrorIllegalAddress);
  EXPECT_EQ(0, on_host);
}

__device__ void recurse(volatile char* caller, int depth) {
  volatile char frame[16384];
  frame[0] = static_cast<char>(*caller + 1);
  if (depth > 0) recurse(frame, depth - 1);
  *caller = frame[1];
}

__global__ void use_stack(char* out, int depth) { recurse(out, depth); }

TEST_F(Refusals, StacksEnd) {
  const Buffer<char> out(1);
  EXPECT_EQ(cudaSuccess, start({1, 4}, use_stack, out.data(), 5));
  EXPECT_DEATH(start({1, 4}, use_stack, out.data(), 100),
               "the stack is used up: thread .0,0,0. of block .0,0,0.");
}

// --- cost
// ---------------------------------------------------------------------------------------------------
__global__ void launch_with_shuffles(float* out) {
  float sum = static_cast<float>(threadIdx.x);
  for (int round = 0; round < 2; ++round)
    for (int mask = 16; mask > 0; mask /= 2) sum += __shfl_xor_sync(kAll, sum, mask);
  out[threadIdx.x] = sum;
}

double cpu_seconds() {
  timespec now = {};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

/// Prints what launches cost; run it by hand.
TEST_F(Warps, DISABLED_TimeOfLaunches) {
  for (const auto separation : {Separation::none, Separation::at_synchronization, Separation::strict}) {
    set_separation(separation);
    for (const std::size_t count : {0, 50, 200}) {
      const Buffer<float> out(256);
      std::vector<std::unique_ptr<Buffer<float>>> others;
      while (others.size() < count) others.push_back(std::make_unique<Buffer<float>>(16384));
      for (const bool shuffles : {false, true}) {
        constexpr int kLaunches = 3000;
        const double begin = cpu_seconds();
        for (int i = 0; i < kLaunches; ++i) {
          if (shuffles) {
            start({1, 256}, launch_with_shuffles, out.data());
          } else {
            start({1, 256}, write_own_number, reinterpret_cast<int*>(out.data()));
          }
        }
        std::printf("separation %d, %zu other allocations, %s: %.2f us\n", static_cast<int>(separation),
                    count, shuffles ? "10 shuffles" : "no shuffle",
                    (cpu_seconds() - begin) * 1e6 / kLaunches);
      }
    }
  }
}

}  // namespace
}  // namespace cuda_on_cpu::test
