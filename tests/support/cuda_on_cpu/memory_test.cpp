// Device memory is the device's alone, NaN until it is written, and of limited size.
#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/cuda_on_cpu/kernel_test.h"

namespace cuda_on_cpu::test {
namespace {

class Memory : public EmulatedGpu {
 protected:
  void SetUp() override {
    EmulatedGpu::SetUp();
    set_separation(Separation::strict);
  }
};
using Faults = Memory;

__global__ void add_one(int* values, std::size_t count) {
  const std::size_t i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < count) ++values[i];
}

/// Reads it so that no compiler leaves it out.
int read(const int* pointer) { return *static_cast<const volatile int*>(pointer); }

// --- whose it is
// --------------------------------------------------------------------------------------------
TEST_F(Faults, TheHostCannotTouchIt) {
  const Buffer<int> values(std::vector<int>(100, 7));
  ASSERT_EQ(cudaSuccess, start({1, 128}, add_one, values.data(), std::size_t{100}));
  EXPECT_DEATH(read(values.data() + 3),
               "host code touched 0x.*, device memory: byte 12 of the allocation of 400 bytes");
  EXPECT_DEATH(values.data()[99] = 1, "byte 396 of the allocation of 400 bytes");
}

TEST_F(Faults, TheHostIsFoundOutAfterItHasWaited) {
  set_separation(Separation::at_synchronization);
  const Buffer<int> values(std::vector<int>(100, 7));
  ASSERT_EQ(cudaSuccess, start({1, 128}, add_one, values.data(), std::size_t{100}));
  ASSERT_EQ(cudaSuccess, cudaDeviceSynchronize());
  EXPECT_DEATH(read(values.data()), "host code touched");
}

TEST_F(Memory, TheHostCanTouchItWhereThatIsAllowed) {
  const Buffer<int> before(std::vector<int>(100, 7));
  set_separation(Separation::none);
  const Buffer<int> after(std::vector<int>(100, 8));
  EXPECT_EQ(15, read(before.data()) + read(after.data()));
}

TEST_F(Memory, KernelsTouchWhatOtherHostThreadsAllocated) {
  const Buffer<int> mine(std::vector<int>{1});
  std::thread([&] {
    const Buffer<int> theirs(std::vector<int>{1});
    ASSERT_EQ(cudaSuccess, start({1, 1}, add_one, mine.data(), std::size_t{1}));
    ASSERT_EQ(cudaSuccess, start({1, 1}, add_one, theirs.data(), std::size_t{1}));
    EXPECT_EQ(std::vector<int>{2}, mine.values());
    EXPECT_EQ(std::vector<int>{2}, theirs.values());
  }).join();
  EXPECT_EQ(std::vector<int>{2}, mine.values());
  EXPECT_DEATH(read(mine.data()), "host code touched");
}

TEST_F(Memory, MemoryOutlivesTheThreadThatAllocatedIt) {
  int* left = nullptr;
  std::thread([&] {
    ASSERT_EQ(cudaSuccess, cudaMalloc(&left, sizeof(int)));
    ASSERT_EQ(cudaSuccess, cudaMemset(left, 0, sizeof(int)));
  }).join();
  ASSERT_EQ(cudaSuccess, start({1, 1}, add_one, left, std::size_t{1}));
  int value = 0;
  EXPECT_EQ(cudaSuccess, cudaMemcpy(&value, left, sizeof value, cudaMemcpyDeviceToHost));
  EXPECT_EQ(1, value);
  EXPECT_EQ(cudaSuccess, cudaFree(left));
}

// --- beside buffers
// -----------------------------------------------------------------------------------------
__global__ void write_at(int* values, int at) { values[at] = 1; }

TEST_F(Faults, KernelsCannotTouchWhatIsNotAllocated) {
  const Buffer<int> values(64);
  EXPECT_DEATH(
      start({1, 1}, write_at, values.data(), 64),
      "device code touched 0x.*, freed or never allocated, 0 bytes after the end of the allocation of "
      "256 bytes.*: thread .0,0,0. of block .0,0,0. in launch .*write_at");
  EXPECT_DEATH(start({1, 1}, write_at, values.data(), -1024), "device code touched");
}

TEST_F(Faults, WritesBesideABufferShowWhenItIsFreed) {
  int* values = nullptr;
  ASSERT_EQ(cudaSuccess, cudaMalloc(&values, 3 * sizeof(int)));
  EXPECT_DEATH(
      {
        start({1, 1}, write_at, values, 3);
        cudaFree(values);
      },
      "something wrote after the end of the allocation of 12 bytes");
  EXPECT_DEATH(
      {
        start({1, 1}, write_at, values, -1);
        cudaFree(values);
      },
      "something wrote before the allocation of 12 bytes");
  EXPECT_EQ(cudaSuccess, cudaFree(values));
}

TEST_F(Faults, FreedMemoryIsGone) {
  int* freed = nullptr;
  ASSERT_EQ(cudaSuccess, cudaMalloc(&freed, 4096));
  ASSERT_EQ(cudaSuccess, cudaFree(freed));
  EXPECT_EQ(cudaErrorInvalidValue, cudaFree(freed));
  int* next = nullptr;
  ASSERT_EQ(cudaSuccess, cudaMalloc(&next, 4096));
  EXPECT_NE(freed, next);
  EXPECT_DEATH(start({1, 1}, write_at, next, static_cast<int>(freed - next)), "device code touched");
  EXPECT_DEATH(read(freed), "host code touched");
  EXPECT_EQ(cudaSuccess, cudaFree(next));
}

TEST_F(Memory, ItBeginsAsNan) {
  const Buffer<float> fresh(1000);
  for (const float value : fresh.values()) ASSERT_TRUE(std::isnan(value));
}

TEST_F(Memory, LargeBuffersBeginAsNanAndAreFilled) {
  constexpr std::size_t kCount = (std::size_t{9} << 20) / sizeof(float) + 100;
  const Buffer<float> large(kCount);
  for (const float value : large.values()) ASSERT_TRUE(std::isnan(value));
  for (const int value : {1, 0}) {
    ASSERT_EQ(cudaSuccess, cudaMemset(large.data() + 3, value, (kCount - 10) * sizeof(float)));
    const auto values = large.values();
    for (std::size_t i = 0; i < kCount; ++i) {
      const std::uint32_t bytes = i < 3 || i >= kCount - 7 ? 0xffffffffu : value == 1 ? 0x01010101u : 0u;
      ASSERT_EQ(bytes, std::bit_cast<std::uint32_t>(values[i])) << i;
    }
  }
}

// --- how much there is
// --------------------------------------------------------------------------------------
TEST_F(Memory, ItRunsOut) {
  const std::size_t before = memory_in_use();
  set_memory(before + 1000);
  float* data = nullptr;
  EXPECT_EQ(cudaErrorMemoryAllocation, cudaMalloc(&data, 1025));
  EXPECT_EQ(cudaErrorMemoryAllocation, cudaGetLastError());
  EXPECT_NE(std::string::npos, last_complaint().find("no 1025 bytes are left on device 0"))
      << last_complaint();
  EXPECT_EQ(cudaSuccess, cudaMalloc(&data, 700));
  std::size_t available = 0, total = 0;
  EXPECT_EQ(cudaSuccess, cudaMemGetInfo(&available, &total));
  EXPECT_EQ(before + 1000, total);
  EXPECT_EQ(1000u - 768, available);
  float* more = nullptr;
  EXPECT_EQ(cudaErrorMemoryAllocation, cudaMallocAsync(&more, 512, nullptr));
  EXPECT_EQ(nullptr, more);
  EXPECT_EQ(cudaSuccess, cudaFree(data));
  EXPECT_EQ(before, memory_in_use());
}

TEST_F(Memory, PoolsGiveTheMemoryOfTheirDevice) {
  set_device_count(2);
  cudaMemPoolProps properties = {};
  properties.allocType = cudaMemAllocationTypePinned;
  properties.location = {cudaMemLocationTypeDevice, 1};
  cudaMemPool_t pool = nullptr;
  ASSERT_EQ(cudaSuccess, cudaMemPoolCreate(&pool, &properties));
  unsigned long long threshold = ~0ull;
  EXPECT_EQ(cudaSuccess, cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &threshold));
  int* data = nullptr;
  ASSERT_EQ(cudaSuccess, cudaMallocFromPoolAsync(&data, 100, pool, nullptr));
  EXPECT_EQ(256u, memory_in_use(1));
  cudaPointerAttributes attributes = {};
  EXPECT_EQ(cudaSuccess, cudaPointerGetAttributes(&attributes, data));
  EXPECT_EQ(cudaMemoryTypeDevice, attributes.type);
  EXPECT_EQ(1, attributes.device);
  EXPECT_EQ(cudaSuccess, cudaFreeAsync(data, nullptr));
  EXPECT_EQ(0u, memory_in_use(1));
  EXPECT_EQ(cudaSuccess, cudaMemPoolDestroy(pool));
  EXPECT_EQ(cudaErrorInvalidValue, cudaMemPoolDestroy(pool));
}

// --- copies
// -------------------------------------------------------------------------------------------------
TEST_F(Memory, CopiesGoWhereTheirKindSays) {
  const Buffer<int> device(std::vector<int>{1, 2, 3});
  std::array<int, 4> host = {};
  int* locked = nullptr;
  ASSERT_EQ(cudaSuccess, cudaMallocHost(&locked, 12));
  EXPECT_EQ(cudaSuccess, cudaMemcpy(locked, device.data(), 12, cudaMemcpyDeviceToHost));
  EXPECT_EQ(3, locked[2]);
  EXPECT_EQ(cudaSuccess, cudaMemcpy(host.data(), device.data() + 1, 8, cudaMemcpyDefault));
  EXPECT_EQ(2, host[0]);

  EXPECT_EQ(cudaErrorInvalidValue, cudaMemcpy(host.data(), device.data(), 13, cudaMemcpyDeviceToHost));
  EXPECT_EQ(cudaErrorInvalidValue, cudaMemcpy(host.data(), device.data(), 12, cudaMemcpyHostToDevice));
  EXPECT_EQ(cudaErrorInvalidValue, cudaMemcpy(host.data(), locked, 12, cudaMemcpyDeviceToHost));
  EXPECT_EQ(cudaErrorInvalidValue, cudaMemcpy(host.data(), device.data(), 12, cudaMemcpyHostToHost));
  EXPECT_EQ(cudaErrorInvalidValue, cudaMemset(host.data(), 0, 4));
  EXPECT_EQ(cudaErrorInvalidValue, cudaMemset(device.data() + 1, 0, 12));
  EXPECT_EQ(cudaErrorInvalidValue, cudaGetLastError());
  EXPECT_EQ(cudaSuccess, cudaMemset(device.data() + 1, 0, 8));
  EXPECT_EQ((std::vector<int>{1, 0, 0}), device.values());
  EXPECT_EQ(cudaSuccess, cudaFreeHost(locked));
}

TEST_F(Memory, CopiesOfParts) {
  const Buffer<int> device(std::vector<int>{1, 2, 3, 4, 5, 6});
  std::array<int, 4> host = {};
  EXPECT_EQ(cudaSuccess,
            cudaMemcpy2DAsync(host.data(), 8, device.data() + 1, 12, 8, 2, cudaMemcpyDeviceToHost));
  EXPECT_EQ((std::array<int, 4>{2, 3, 5, 6}), host);
}

__global__ void add_from_host(int* to, const int* from) { *to += *from; }

TEST_F(Memory, KernelsReadPageLockedMemory) {
  const Buffer<int> sum(std::vector<int>{1});
  int* locked = nullptr;
  ASSERT_EQ(cudaSuccess, cudaHostAlloc(&locked, sizeof(int), cudaHostAllocMapped));
  *locked = 41;
  EXPECT_EQ(cudaSuccess, start({}, add_from_host, sum.data(), static_cast<const int*>(locked)));
  EXPECT_EQ(std::vector<int>{42}, sum.values());
  EXPECT_EQ(cudaSuccess, cudaFreeHost(locked));
}

// --- devices
// ------------------------------------------------------------------------------------------------
TEST_F(Memory, NoDeviceFailsEverything) {
  set_device_count(0);
  int count = -1;
  EXPECT_EQ(cudaErrorNoDevice, cudaGetDeviceCount(&count));
  EXPECT_EQ(0, count);
  int* data = nullptr;
  EXPECT_EQ(cudaErrorNoDevice, cudaMalloc(&data, 4));
  EXPECT_EQ(cudaErrorNoDevice, cudaSetDevice(0));
  cudaStream_t stream = nullptr;
  EXPECT_EQ(cudaErrorNoDevice, cudaStreamCreate(&stream));
  EXPECT_STREQ("cudaErrorNoDevice", cudaGetErrorName(cudaGetLastError()));
}

TEST_F(Memory, DevicesAreAsTestsSetThem) {
  set_device_count(2);
  set_multiprocessors(7);
  cudaDeviceProp properties = {};
  ASSERT_EQ(cudaSuccess, cudaGetDeviceProperties(&properties, 1));
  EXPECT_EQ(7, properties.multiProcessorCount);
  EXPECT_EQ(9, properties.major);
  int shared = 0, device = -1;
  EXPECT_EQ(cudaSuccess, cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0));
  EXPECT_EQ(227 << 10, shared);
  EXPECT_EQ(cudaErrorInvalidDevice, cudaSetDevice(2));
  EXPECT_EQ(cudaSuccess, cudaSetDevice(1));
  EXPECT_EQ(cudaSuccess, cudaGetDevice(&device));
  EXPECT_EQ(1, device);
  EXPECT_EQ(cudaSuccess, cudaSetDevice(0));
}

}  // namespace
}  // namespace cuda_on_cpu::test
