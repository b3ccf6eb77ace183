// ctest: timeout=600
// Whole trainings on emulated GPUs that exchange over NCCL: the layers over the model axis, and sums of
// gradients over the data axis beside them. That no rank can begin one before the other of the two is for the
// emulated GPUs to find out; here the bits are those of one GPU.
#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/backends.h"
#include "model/language_model.h"
#include "tests/support/close.h"
#include "tests/support/cuda_on_cpu/cuda_on_cpu.h"
#include "tests/support/nccl_on_cpu/nccl_on_cpu.h"
#include "tests/support/training_run.h"

namespace lamina::test {
namespace {

class GpuTraining : public ::testing::Test {
 protected:
  void SetUp() override {
    cuda_on_cpu::reset();
    nccl_on_cpu::reset();
    cuda_on_cpu::set_device_count(8);
    cuda_on_cpu::set_multiprocessors(8);
  }
  void TearDown() override {
    EXPECT_EQ(nccl_on_cpu::communicators(), 0);
    EXPECT_EQ(nccl_on_cpu::aborted(), 0) << "ranks ended their communicators in different orders";
    cuda_on_cpu::reset();
    nccl_on_cpu::reset();
  }

  static ModelSettings settings(int hidden, const char* precision, const char* time_loop = "steps") {
    ModelSettings settings;
    settings.layers = 2;
    settings.hidden = hidden;
    settings.embedding = 8;
    settings.precision = precision;
    settings.time_loop = time_loop;
    return settings;
  }
  static TrainingCase small_case(const ModelSettings& model) {
    TrainingCase what;
    what.model = model;
    what.optimizer.clip_norm = 0.5;
    what.time_steps = 3;
    what.steps = 3;
    return what;
  }
  static Placement on_gpus(int data_ranks, int model_ranks, int passes = 1) {
    return {.data_ranks = data_ranks,
            .model_ranks = model_ranks,
            .passes = passes,
            .make_backend = make_cuda_backend};
  }

  static void expect_same_run(const TrainingTrace& left, const TrainingTrace& right) {
    EXPECT_TRUE(same_bits(left.losses, right.losses)) << "losses";
    EXPECT_TRUE(same_bits(left.gradient_norms, right.gradient_norms)) << "gradient norms";
    for (const auto& [name, values] : left.parameters)
      EXPECT_TRUE(same_bits(values, right.parameters.at(name))) << name;
  }
  static void expect_same_on_every_grid(const TrainingCase& what) {
    const TrainingTrace alone = train_on(what, on_gpus(1, 1));

    for (const bool lazy : {false, true}) {
      cuda_on_cpu::set_lazy_streams(lazy);
      for (const auto& [data, model] : {std::pair{4, 1}, {2, 2}}) {
        SCOPED_TRACE(std::to_string(data) + " x " + std::to_string(model) + (lazy ? ", lazy" : ""));
        expect_same_run(alone, train_on(what, on_gpus(data, model)));
      }
    }
    expect_same_run(alone, train_on(what, on_gpus(2, 2, /*passes=*/2)));
    nccl_on_cpu::set_present(false);  // then sums are made at the end
    expect_same_run(alone, train_on(what, on_gpus(2, 2)));
  }
};

TEST_F(GpuTraining, HasTheSameBitsOnEveryGrid) {
  TrainingCase what = small_case(settings(16, "f32"));
  what.model.dropout = 0.2;
  expect_same_on_every_grid(what);
}

TEST_F(GpuTraining, HasTheSameBitsWithTheReplicatedSchedule) {
  TrainingCase what = small_case(settings(16, "bf16"));
  what.model.exchange = "replicated";
  expect_same_on_every_grid(what);
}

TEST_F(GpuTraining, HasTheSameBitsWithAllStepsInOneKernel) {
  const TrainingCase what = small_case(settings(64, "bf16", "persistent"));
  const TrainingTrace alone = train_on(what, on_gpus(1, 1));

  expect_same_run(alone, train_on(what, on_gpus(2, 1)));
  expect_same_run(alone, train_on(what, on_gpus(2, 2)));
}

// Between the two a layer works on gradients without exchanges, and sums of those of the layer above go on.
TEST_F(GpuTraining, GivesOtherExchangesOneTurnInEachLayer) {
  const Tiling tiling{Share{2, 0, 2}, Share{2, 0, 2}, 2};
  const std::vector<std::int32_t> tokens(3 * 4, 2);
  const auto alone = make_self_communicator();
  for (const char* loop : {"steps", "persistent"}) {
    const auto backend = make_cuda_backend(0);
    LanguageModel model(settings(32, "bf16", loop), /*vocabulary=*/5, /*max_time_steps=*/3, tiling, *backend,
                        *alone, 1);
    CarriedState state(*backend, /*layers=*/2, /*hidden=*/32, tiling);
    std::string calls;

    model.forward({3, tokens, tokens, {}}, state, 0, std::nullopt);
    model.backward(
        1, {.gradients_are_set = [&](ParameterRange) { calls += "set "; },
            .side_work = {.advance = [&] { calls += "advance "; }, .pause = [&] { calls += "pause "; }}});

    EXPECT_EQ(calls, "set advance pause set advance pause set set ") << loop;
  }
}

}  // namespace
}  // namespace lamina::test
