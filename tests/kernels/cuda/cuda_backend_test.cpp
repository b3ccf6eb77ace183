// What a machine has and lacks: on the emulated GPU.
#include "kernels/cuda/cuda_backend.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>

#include "kernels/backends.h"
#include "runtime/error.h"
#include "tests/support/cuda_on_cpu/cuda_on_cpu.h"
#include "tests/support/device_tensor.h"

namespace lamina::test {
namespace {

using ::testing::HasSubstr;
using Floats = std::vector<float>;

class CudaBackendTest : public ::testing::Test {
 protected:
  CudaBackendTest() { cuda_on_cpu::reset(); }
  ~CudaBackendTest() override { cuda_on_cpu::reset(); }

  template <class Work>
  static std::string complaint_of(const Work& work) {
    try {
      work();
    } catch (const UserError& error) {
      return error.what();
    }
    return "none";
  }
};

TEST_F(CudaBackendTest, SaysThatThereIsNoGpuAndWhatToDo) {
  cuda_on_cpu::set_device_count(0);

  EXPECT_THAT(complaint_of([] { make_cuda_backend(0); }), HasSubstr("no NVIDIA GPU, use --device cpu"));
}

TEST_F(CudaBackendTest, DealsTheGpusOfAHostToItsRanks) {
  cuda_on_cpu::set_device_count(2);
  for (const int rank : {0, 1, 2, 3}) {
    const std::size_t first = cuda_on_cpu::memory_in_use(0), second = cuda_on_cpu::memory_in_use(1);

    const auto backend = make_cuda_backend(rank);

    EXPECT_EQ(cuda_on_cpu::memory_in_use(0) > first, rank % 2 == 0);
    EXPECT_EQ(cuda_on_cpu::memory_in_use(1) > second, rank % 2 == 1);
  }
}

TEST_F(CudaBackendTest, SaysWhenMemoryIsShort) {
  const auto backend = make_cuda_backend(0);
  cuda_on_cpu::set_memory(std::size_t{1} << 30);

  EXPECT_THAT(complaint_of([&] { backend->allocate(std::size_t{1} << 29); }), HasSubstr("out of memory"));
}

TEST_F(CudaBackendTest, AllocatesZeroedAlignedMemory) {
  const auto backend = make_cuda_backend(0);
  for (const std::size_t size : {1, 17, 100003}) {
    backend->fill(backend->allocate(size).view(), 1);  // leaves used memory behind
    Buffer<float> buffer = backend->allocate(size);
    Floats host(size, 1);

    backend->to_host(buffer.view(), host);

    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(buffer.view().data()) % 64, 0u);
    EXPECT_EQ(host, Floats(size, 0.0f));
  }
  EXPECT_EQ(backend->allocate(0).size(), 0u);
}

TEST_F(CudaBackendTest, RefusesMorePartsThanKernelsMerge) {
  const auto backend = make_cuda_backend(0);
  const auto self = make_self_communicator();
  const auto make = [&](const Tiling& tiling) {
    return complaint_of([&] {
      backend->make_embedding_lookup({.vocabulary = 3, .width = 128, .max_time_steps = 1, .tiling = tiling},
                                     *self);
    });
  };

  EXPECT_EQ(make({.groups = {64, 0, 64}, .blocks = {64, 0, 64}}), "none");
  EXPECT_THAT(make({.groups = {128, 0, 128}, .blocks = {}}), HasSubstr("more --passes"));
  EXPECT_THAT(make({.groups = {}, .blocks = {128, 0, 128}}), HasSubstr("fewer --unit-blocks"));
}

// Nothing is taken after the first pass.
TEST_F(CudaBackendTest, LayersTakeNoMemoryInASecondPass) {
  const auto backend = make_cuda_backend(0);
  const auto self = make_self_communicator();
  const Tiling tiling{.groups = {2, 0, 2}, .blocks = {2, 0, 2}, .rows = 2};
  const auto lookup = backend->make_embedding_lookup({5, 4, 3, tiling}, *self);
  const auto output = backend->make_softmax_output({4, 5, 3, tiling}, *self);
  DeviceTensor table(*backend, Floats(20, 1)), bias(*backend, Floats(5)), x(*backend, 48), d_x(*backend, 48);
  const std::vector<std::int32_t> tokens(12, 2);
  std::vector<double> losses(2);
  const auto pass = [&] {
    lookup->forward(3, table.view(), tokens, x.view());
    output->set_parameters(table.view(), bias.view());
    output->forward(3, x.view(), tokens);
    output->losses(losses);
    output->backward(1, d_x.view(), table.view(), bias.view());
    lookup->backward(3, d_x.view(), tokens, table.view());
    backend->sum_of_squares(table.view());
    return cuda_on_cpu::memory_in_use(0);
  };

  const std::size_t after_first = pass();

  EXPECT_EQ(pass(), after_first);
}

TEST_F(CudaBackendTest, DescribesItself) {
  const auto backend = make_cuda_backend(0);

  EXPECT_EQ(backend->name(), "cuda");
  EXPECT_THAT(backend->description(), HasSubstr(" SMs, "));
}

}  // namespace
}  // namespace lamina::test
