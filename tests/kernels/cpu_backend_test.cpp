#include "kernels/cpu/cpu_backend.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <vector>

#include "kernels/backends.h"
#include "runtime/error.h"

namespace lamina {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using Floats = std::vector<float>;

// What each operation computes is tested beside it; here, that the backend hands it the right arguments.
class CpuBackendTest : public ::testing::TestWithParam<int> {
 protected:
  const std::unique_ptr<Backend> backend = make_cpu_backend(GetParam());
};
INSTANTIATE_TEST_SUITE_P(Threads, CpuBackendTest, ::testing::Values(1, 3));

TEST_P(CpuBackendTest, AllocatesZeroedAlignedMemory) {
  for (const std::size_t size : {1, 16, 17, 100003}) {
    backend->fill(backend->allocate(size).view(), 1);  // leaves used memory behind

    Buffer<float> buffer = backend->allocate(size);

    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(buffer.view().data()) % 64, 0u);
    EXPECT_EQ(Floats(buffer.view().begin(), buffer.view().end()), Floats(size, 0.0f));
  }
}

TEST_P(CpuBackendTest, AllocatesNothingForNothing) { EXPECT_EQ(backend->allocate(0).size(), 0u); }

TEST_P(CpuBackendTest, SaysWhenMemoryIsShort) {
  for (const std::size_t size :
       {std::numeric_limits<std::size_t>::max(), std::numeric_limits<std::size_t>::max() / 8}) {
    try {
      backend->allocate(size);
      FAIL() << "allocated the impossible";
    } catch (const UserError& error) {
      EXPECT_THAT(error.what(), HasSubstr("out of memory"));
    }
  }
}

TEST_P(CpuBackendTest, SumsOverRanks) {
  run_on_threads(3, [](Communicator& world) {
    const auto own = make_cpu_backend(GetParam());
    Floats values{1, static_cast<float>(world.rank())};

    const auto sums = own->make_background_sums(world, values.size());
    sums->add(values);
    sums->finish();

    EXPECT_EQ(values, (Floats{3, 3}));
  });
}

TEST_P(CpuBackendTest, RemembersWhereNumbersWereNotFinite) {
  const auto checks = backend->make_finite_checks(3);
  Floats good(100, 1.0f), bad = good;
  bad[70] = std::numeric_limits<float>::infinity();

  checks->look(0, good);
  checks->look(2, bad);
  bad[70] = 0;
  checks->look(2, bad);

  EXPECT_EQ(checks->take_found(), (std::vector<bool>{false, false, true}));
  EXPECT_EQ(checks->take_found(), std::vector<bool>(3));
}

TEST_P(CpuBackendTest, MovesValuesToAndFromTheDevice) {
  Buffer<float> device = backend->allocate(3);
  Floats back(3);

  backend->to_device(Floats{1, 2, 3}, device.view());
  backend->to_host(device.view(), back);

  EXPECT_EQ(back, (Floats{1, 2, 3}));
}

TEST_P(CpuBackendTest, DoesElementwiseWork) {
  Floats x(3), y(3);

  backend->fill(x, 2);
  backend->copy(x, y);
  backend->add(x, y);

  EXPECT_EQ(y, Floats(3, 4.0f));
  EXPECT_EQ(backend->sum_of_squares(y), 48);
}

TEST_P(CpuBackendTest, UpdatesByMomentum) {
  Floats velocity = {8}, value = {4};

  backend->sgd(/*learning_rate=*/0.5f, /*momentum=*/0.25f, /*weight_decay=*/2, /*gradient_scale=*/3,
               Floats{1}, velocity, value);

  EXPECT_EQ(velocity, Floats{0.25f * 8 + (3 * 1 + 2 * 4)});
  EXPECT_EQ(value, Floats{4 - 0.5f * 13});
}

TEST_P(CpuBackendTest, UpdatesByAdam) {
  Floats first = {8}, second = {12}, value = {4};

  backend->adam({.learning_rate = 0.5f,
                 .beta1 = 0.5f,
                 .beta2 = 0.75f,
                 .epsilon = 0.5f,
                 .weight_decay = 0,
                 .decoupled = false,
                 .correction1 = 0.5f,
                 .correction2 = 0.25f,
                 .gradient_scale = 2},
                Floats{2}, first, second, value);

  EXPECT_EQ(first, Floats{0.5f * 8 + 0.5f * 4});
  EXPECT_EQ(second, Floats{0.75f * 12 + 0.25f * 16});
  EXPECT_FLOAT_EQ(value[0], 4 - 0.5f * (6 / 0.5f) / (std::sqrt(13 / 0.25f) + 0.5f));
}

TEST_P(CpuBackendTest, DropsUnits) {
  const RandomStream stream(1, "dropout");
  const DropoutMask mask{.stream = &stream,
                         .step = 1,
                         .probability = 0.5f,
                         .variational = true,
                         .time_steps = 1,
                         .width = 64,
                         .tiling = {}};
  const Floats ones(64, 1.0f);
  Floats out(64), dx(64, 1.0f);

  backend->dropout_forward(mask, ones, out);
  backend->dropout_backward(mask, dx);

  EXPECT_THAT(out, AllOf(::testing::Contains(0.0f), ::testing::Contains(2.0f)));
  EXPECT_EQ(out, dx);
}

TEST_P(CpuBackendTest, MakesLayers) {
  const auto self = make_self_communicator();

  EXPECT_NE(backend->make_recurrence({.inputs = 2, .hidden = 4, .max_time_steps = 1, .tiling = {}}, *self),
            nullptr);
  EXPECT_NE(
      backend->make_softmax_output({.inputs = 4, .classes = 3, .max_time_steps = 1, .tiling = {}}, *self),
      nullptr);
  EXPECT_NE(
      backend->make_embedding_lookup({.vocabulary = 3, .width = 2, .max_time_steps = 1, .tiling = {}}, *self),
      nullptr);
}

TEST_P(CpuBackendTest, DescribesItself) {
  EXPECT_EQ(backend->name(), "cpu");
  EXPECT_THAT(backend->description(),
              AllOf(HasSubstr(cpu_description()), HasSubstr(GetParam() == 1 ? ", 1 thread" : ", 3 threads")));
  EXPECT_THAT(cpu_description(), HasSubstr("oneDNN "));
}

TEST(CpuBackend, NeedsAThread) { EXPECT_THROW(make_cpu_backend(0), InternalError); }

}  // namespace
}  // namespace lamina
