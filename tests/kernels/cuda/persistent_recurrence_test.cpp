// ctest: timeout=600
// All time steps in one kernel, against the reference in double precision that rounds to bf16 where the
// kernels do. So what is left is float's rounding, and the few values that it pushes to another bf16. And the
// same bits on GPUs that share the hidden units.
#include "kernels/cuda/recurrence/persistent_recurrence.h"

#include <cuda_bf16.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/backends.h"
#include "kernels/cuda/exchange.h"
#include "kernels/cuda/exchanges/alone.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/recurrence.h"
#include "kernels/cuda/recurrence/persistent_kernels.h"
#include "kernels/cuda/recurrence/persistent_member.cuh"
#include "kernels/cuda/recurrence/signals.cuh"
#include "kernels/cuda/shared_memory.cuh"
#include "runtime/error.h"
#include "tests/reference/layout.h"
#include "tests/reference/lstm.h"
#include "tests/support/close.h"
#include "tests/support/cuda_backend/gpu_ranks.h"
#include "tests/support/cuda_on_cpu/cuda_on_cpu.h"
#include "tests/support/layer_cases.h"
#include "tests/support/layer_conformance.h"
#include "tests/support/nccl_on_cpu/nccl_on_cpu.h"
#include "tests/support/random_values.h"

namespace lamina::cuda {
namespace {

using reference::SequenceLayout;
using reference::Vector;
using test::all_close;
using test::converted;
using test::random_integers;
using test::random_values;
using test::same_bits;
using Floats = std::vector<float>;
using Tensors = std::map<std::string, Floats>;

std::size_t size(int n) { return static_cast<std::size_t>(n); }

double rounded(double x) {
  return static_cast<double>(__bfloat162float(__float2bfloat16_rn(static_cast<float>(x))));
}
Vector rounded(Vector values) {
  for (double& value : values) value = rounded(value);
  return values;
}

struct Setting {
  std::string name;
  int multiprocessors = 8;
  int units = 8;      ///< of a member
  int row_tiles = 0;  ///< at a time; 0: what the plan says
  int steps = 4, groups = 1, rows = 5, blocks = 2, inputs = 16, hidden = 64;
  Normalization normalization = Normalization::layer;
  bool lengths = false;
  int rank = 0, ranks = 1;

  int lanes() const { return groups * rows; }
  bool is_normalized() const { return normalization == Normalization::layer; }
  Tiling tiling() const { return {{groups, 0, groups}, Share::of(blocks, rank, ranks), rows}; }
  /// As model rank `rank` of `ranks` sees it.
  Setting on_rank(int which, int of) const {
    Setting setting = *this;
    setting.rank = which;
    setting.ranks = of;
    return setting;
  }
  SequenceLayout sequence(int width) const { return {tiling(), steps, width}; }
  SequenceLayout states() const { return {tiling(), 1, hidden}; }
  BlockedShape parameter(const std::string& tensor) const {
    const int inner = tensor == "W_x" ? inputs : tensor == "W_h" ? hidden : 1;
    return {tensor.ends_with("_c") ? 1 : 4, hidden, inner, blocks};
  }
  std::vector<std::string> parameters() const {
    if (!is_normalized()) return {"W_x", "W_h", "bias"};
    return {"W_x", "W_h", "bias", "gain_x", "gain_h", "gain_c", "bias_c"};
  }
  RecurrenceShape shape() const {
    return {.inputs = inputs,
            .hidden = hidden,
            .max_time_steps = steps + 1,
            .tiling = tiling(),
            .normalization = normalization,
            .precision = Precision::bf16};
  }
};
void PrintTo(const Setting& s, std::ostream* out) { *out << s.name; }

/// Multiples of 1/128: exact in bf16. The lower half of the rows is the upper one negated, so that each
/// column has the mean 0.
Vector centred_weights(const Setting& s, const std::string& name) {
  const std::size_t half = size(static_cast<int>(s.parameter(name).size())) / 2;
  const auto numbers = random_integers(name, half, -20, 20);
  Vector W(2 * half);
  for (std::size_t i = 0; i < half; ++i) {
    W[i] = numbers[i] / 128.0;
    W[half + i] = -W[i];
  }
  return W;
}

/// What goes in, as global tensors.
Tensors inputs_of(const Setting& s) {
  Tensors in;
  for (const std::string& name : s.parameters())
    in[name] = random_values(name, size(static_cast<int>(s.parameter(name).size())), -0.5, 0.5);
  for (const char* gain : {"gain_x", "gain_h", "gain_c"})
    if (in.contains(gain))
      for (float& value : in[gain]) value += 1;
  in["W_h"] = converted<float>(centred_weights(s, "W_h"));
  if (s.is_normalized()) in["W_x"] = converted<float>(centred_weights(s, "W_x"));
  for (const char* name : {"W_x", "W_h"}) {
    if (!s.is_normalized()) break;  // LN does not see what all gates have in common
    const std::size_t width = in[name].size() / size(4 * s.hidden);
    const auto common = random_integers("common", width, -8, 8);
    for (std::size_t i = 0; i < in[name].size(); ++i)
      in[name][i] += static_cast<float>(common[i % width]) / 16;
  }
  in["x"] = random_values("x", s.sequence(s.inputs).global_size());
  in["d_output"] = random_values("d_output", s.sequence(s.hidden).global_size());
  in["h"] = random_values("h", s.states().global_size());
  in["c"] = random_values("c", s.states().global_size());
  return in;
}

std::vector<int> lengths_of(const Setting& s) {
  if (!s.lengths) return {};
  auto lengths = random_integers("lengths", size(s.lanes()), 0, s.steps);
  lengths.front() = s.steps;
  lengths.back() = 0;
  return {lengths.begin(), lengths.end()};
}

/// Device memory with host values.
class OnDevice {
 public:
  OnDevice(Device& device, const Floats& values)
      : device_(device), memory_(device.allocate<float>(values.size())) {
    device.to_device(values.data(), memory_.view().data(), values.size() * sizeof(float));
  }
  std::span<float> view() { return memory_.view(); }
  Floats host() {
    Floats values(memory_.size());
    device_.to_host(memory_.view().data(), values.data(), values.size() * sizeof(float));
    return values;
  }

 private:
  Device& device_;
  Buffer<float> memory_;
};

template <class T, class Map>
LstmParameters<T> spans_of(Map& values) {
  const auto of = [&](const char* name) {
    return values.contains(name) ? std::span<T>(values.at(name).view()) : std::span<T>();
  };
  return {of("W_x"), of("W_h"), of("gain_x"), of("gain_h"), of("bias"), of("gain_c"), of("bias_c")};
}

/// The recurrence on one emulated GPU with all that it reads and writes.
class RecurrenceOnDevice {
 public:
  RecurrenceOnDevice(Device& device, Exchange& model_axis, const Setting& s, const Tensors& in)
      : device_(device), s_(s), in_(in), lengths_(lengths_of(s)) {
    PersistentPlan plan = plan_persistent(s.shape(), device.properties(), s.units);
    if (s.row_tiles > 0) plan.grid.row_tiles = s.row_tiles;
    recurrence_ = make_persistent_recurrence(device, s.shape(), model_axis, plan);
    for (const std::string& name : s.parameters()) {
      const Floats values = reference::to_blocks<float>(in.at(name), s.parameter(name), s.tiling().blocks);
      parameters_.emplace(name, OnDevice(device, values));
      gradients_.emplace(name, OnDevice(device, Floats(values.size(), NAN)));
    }
    recurrence_->set_parameters(spans_of<const float>(parameters_));
  }

  void forward() {
    recurrence_->forward({.time_steps = s_.steps,
                          .input = x_.view(),
                          .h_first = h_.view(),
                          .c_first = c_.view(),
                          .lengths = lengths_,
                          .output = output_.view(),
                          .h_last = h_last_.view(),
                          .c_last = c_last_.view()});
  }
  void backward() {
    recurrence_->backward({.d_output = d_output_.view(),
                           .d_input = d_input_.view(),
                           .d_parameters = spans_of<float>(gradients_)});
  }

  /// What it has of global tensors, and NaN elsewhere.
  Tensors results() {
    const SequenceLayout outputs = s_.sequence(s_.hidden), inputs = s_.sequence(s_.inputs);
    Tensors out{{"output", Floats(outputs.global_size(), NAN)},
                {"d_x", Floats(inputs.global_size(), NAN)},
                {"h_last", Floats(s_.states().global_size(), NAN)},
                {"c_last", Floats(s_.states().global_size(), NAN)}};
    for (OnDevice* of_all_ranks : {&output_, &h_last_})
      EXPECT_THAT(of_all_ranks->host(), ::testing::Each(::testing::Not(::testing::IsNan())));
    outputs.from_full<float>(output_.host(), out["output"]);
    inputs.from_blocked<float>(d_input_.host(), out["d_x"]);
    s_.states().from_full<float>(h_last_.host(), out["h_last"]);
    s_.states().from_blocked<float>(c_last_.host(), out["c_last"]);
    for (auto& [name, gradient] : gradients_) {
      Floats& global = out["d_" + name];
      global.resize(in_.at(name).size(), NAN);
      reference::from_blocks<float>(gradient.host(), s_.parameter(name), s_.tiling().blocks, global);
    }
    return out;
  }

 private:
  Device& device_;
  Setting s_;
  const Tensors& in_;
  std::vector<int> lengths_;
  std::unique_ptr<Recurrence> recurrence_;
  std::map<std::string, OnDevice> parameters_, gradients_;
  OnDevice x_{device_, s_.sequence(s_.inputs).to_full<float>(in_.at("x"))};
  OnDevice d_output_{device_, s_.sequence(s_.hidden).to_blocked<float>(in_.at("d_output"))};
  OnDevice h_{device_, s_.states().to_full<float>(in_.at("h"))};
  OnDevice c_{device_, s_.states().to_blocked<float>(in_.at("c"))};
  OnDevice h_last_{device_, Floats(in_.at("h").size(), NAN)};
  OnDevice c_last_{device_, Floats(s_.states().blocked_size(), NAN)};
  OnDevice output_{device_, Floats(s_.sequence(s_.hidden).full_size(), NAN)};
  OnDevice d_input_{device_, Floats(s_.sequence(s_.inputs).blocked_size(), NAN)};
};

/// Forward and backward on one emulated GPU, so often.
Tensors run_on(Device& device, Exchange& model_axis, const Setting& s, const Tensors& in, int times) {
  RecurrenceOnDevice recurrence(device, model_axis, s, in);
  for (int time = 0; time < times; ++time) {
    recurrence.forward();
    recurrence.backward();
  }
  return recurrence.results();
}

/// On one GPU; global tensors.
Tensors run(const Setting& s, const Tensors& in, int times = 1) {
  Device device(0);
  const auto self = make_self_communicator();
  const auto alone = make_exchange_alone(device, *self);
  return run_on(device, *alone, s, in, times);
}

/// On the GPUs of `ranks` model ranks; global tensors. A block of rank 0 may be slower than all others.
Tensors run_on_ranks(int ranks, const Setting& s, const Tensors& in, int times = 1, int slow = -1) {
  std::vector<Tensors> parts(size(ranks));
  run_on_gpus(ranks, Gpus::one_each, [&](Device& device, Communicator& world) {
    if (world.rank() == 0) slow_block = slow;
    const auto model_axis = make_exchange(device, world);
    parts[size(world.rank())] = run_on(device, *model_axis, s.on_rank(world.rank(), ranks), in, times);
  });
  return test::merged(parts);
}

/// The reference with bf16 operands.
class RoundingReference {
 public:
  RoundingReference(const Setting& s, const Tensors& in) : s_(s), in_(in) {
    shape_ = {s.inputs, s.hidden, s.normalization};
    for (auto [name, tensor] : (parameters_ = reference::zero_parameters(shape_)).tensors())
      *tensor = converted<double>(in.at(name));
    parameters_.W_x = s.is_normalized() ? centred_weights(s, "W_x") : rounded(parameters_.W_x);
    if (s.is_normalized()) parameters_.W_h = centred_weights(s, "W_h");
  }

  /// Of every step, from what `output` says of the step before it.
  void forward(const Floats& output) {
    Vector h = converted<double>(in_.at("h")), c = converted<double>(in_.at("c"));
    const Vector x = rounded(converted<double>(in_.at("x")));
    const std::vector<int> lengths = lengths_of(s_);
    const std::size_t of_step = h.size(), inputs = x.size() / size(s_.steps);
    for (int t = 0; t < s_.steps; ++t) {
      const auto x_begin = x.begin() + t * static_cast<std::ptrdiff_t>(inputs);
      reference::LstmInput step{
          1, s_.lanes(), {x_begin, x_begin + static_cast<std::ptrdiff_t>(inputs)}, rounded(h), c, {}};
      for (const int length : lengths) step.lengths.push_back(t < length ? 1 : 0);
      steps.push_back(reference::lstm_forward(shape_, parameters_, step));
      reference::LstmOutput& out = steps.back();
      for (std::size_t b = 0; b < size(s_.lanes()); ++b)
        if (!out.steps[b].valid)
          for (std::size_t u = b * size(s_.hidden); u < (b + 1) * size(s_.hidden); ++u) out.h[u] = h[u];
      c = out.c_last;
      h.assign(output.begin() + t * static_cast<std::ptrdiff_t>(of_step),
               output.begin() + (t + 1) * static_cast<std::ptrdiff_t>(of_step));
    }
  }

  /// Of the steps of forward().
  std::map<std::string, Vector> backward() {
    reference::LstmParameters d = reference::zero_parameters(shape_);
    Vector d_x(in_.at("x").size());
    for (std::size_t b = 0; b < size(s_.lanes()); ++b) {
      Vector dh(size(s_.hidden)), dc(size(s_.hidden));
      for (int t = s_.steps - 1; t >= 0; --t) step_backward(t, b, dh, dc, d, d_x);
    }
    std::map<std::string, Vector> all{{"d_x", d_x}};
    for (auto [name, tensor] : d.tensors()) all["d_" + name] = *tensor;
    return all;
  }

  std::vector<reference::LstmOutput> steps;

 private:
  /// da of an LN, without the part along the mean of dn.
  Vector through(const reference::Normalized& of, const Vector& dn, bool without_mean = false) const {
    if (!s_.is_normalized()) return dn;
    const double count = static_cast<double>(dn.size());
    double mean = 0, mean_n = 0;
    for (std::size_t j = 0; j < dn.size(); ++j) {
      mean += without_mean ? 0 : dn[j] / count;
      mean_n += dn[j] * of.n[j] / count;
    }
    Vector da(dn.size());
    for (std::size_t j = 0; j < dn.size(); ++j) da[j] = of.scale * (dn[j] - mean - of.n[j] * mean_n);
    return da;
  }
  double gain(const Vector& gains, std::size_t j) const { return gains.empty() ? 1 : gains[j]; }

  /// In: dL/dh and dL/dc from the later steps; out: to the earlier ones.
  void step_backward(int t, std::size_t b, Vector& dh, Vector& dc, reference::LstmParameters& d,
                     Vector& d_x) {
    const std::size_t H = size(s_.hidden), I = size(s_.inputs);
    const std::size_t row = size(t) * size(s_.lanes()) + b;
    const reference::LstmStep& s = steps[size(t)].steps[b];
    for (std::size_t u = 0; u < H; ++u) dh[u] += static_cast<double>(in_.at("d_output")[row * H + u]);
    if (!s.valid) return;

    Vector dn_c(H), dz(4 * H), dn_h(4 * H), dn_x(4 * H);
    for (std::size_t u = 0; u < H; ++u) {
      const double dy = dh[u] * s.o[u] * (1 - s.squashed[u] * s.squashed[u]);
      dn_c[u] = gain(parameters_.gain_c, u) * dy;
      if (s_.is_normalized()) d.gain_c[u] += dy * s.norm_c.n[u];
      if (s_.is_normalized()) d.bias_c[u] += dy;
    }
    const Vector dc_of_h = through(s.norm_c, dn_c);
    for (std::size_t u = 0; u < H; ++u) {
      dc[u] += dc_of_h[u];
      dz[u] = dc[u] * s.c_before[u] * s.f[u] * (1 - s.f[u]);
      dz[H + u] = dc[u] * s.g[u] * s.i[u] * (1 - s.i[u]);
      dz[2 * H + u] = dh[u] * s.squashed[u] * s.o[u] * (1 - s.o[u]);
      dz[3 * H + u] = dc[u] * s.i[u] * (1 - s.g[u] * s.g[u]);
      dc[u] *= s.f[u];
    }
    for (std::size_t j = 0; j < 4 * H; ++j) {
      d.bias[j] += dz[j];
      if (s_.is_normalized()) d.gain_x[j] += dz[j] * s.norm_x.n[j];
      if (s_.is_normalized()) d.gain_h[j] += dz[j] * s.norm_h.n[j];
      dn_x[j] = gain(parameters_.gain_x, j) * dz[j];
      dn_h[j] = gain(parameters_.gain_h, j) * dz[j];
    }
    const Vector da_x = rounded(through(s.norm_x, dn_x)), da_h = rounded(through(s.norm_h, dn_h));
    const Vector exchanged = rounded(through(s.norm_h, dn_h, true));
    dh.assign(H, 0);
    for (std::size_t j = 0; j < 4 * H; ++j) {
      for (std::size_t k = 0; k < H; ++k) {
        d.W_h[j * H + k] += da_h[j] * s.h_before[k];
        dh[k] += exchanged[j] * parameters_.W_h[j * H + k];
      }
      for (std::size_t k = 0; k < I; ++k) {
        d.W_x[j * I + k] += da_x[j] * s.x[k];
        d_x[row * I + k] += da_x[j] * parameters_.W_x[j * I + k];
      }
    }
  }

  const Setting& s_;
  const Tensors& in_;
  reference::LstmShape shape_;
  reference::LstmParameters parameters_;
};

void expect_agreement(const Setting& s) {
  cuda_on_cpu::set_multiprocessors(s.multiprocessors);
  const Tensors in = inputs_of(s);
  const std::size_t of_step = s.states().global_size();

  const Tensors out = run(s, in);

  RoundingReference reference(s, in);
  reference.forward(out.at("output"));
  for (std::size_t t = 0; t < size(s.steps); ++t) {
    const std::span<const float> h(out.at("output").data() + t * of_step, of_step);
    EXPECT_TRUE(all_close(h, reference.steps[t].h, 1e-5, 1)) << "h of step " << t;
  }
  EXPECT_TRUE(all_close(out.at("c_last"), reference.steps.back().c_last, 1e-5, 1));
  const std::span<const float> last(out.at("output").data() + size(s.steps - 1) * of_step, of_step);
  EXPECT_TRUE(same_bits(out.at("h_last"), Floats(last.begin(), last.end())));
  // A da that float's rounding pushes to the next bf16 is off by 2^-8 of itself. To dL/dh it is one of 4H, to
  // dW perhaps the only one that counts.
  for (const auto& [name, expected] : reference.backward())
    EXPECT_TRUE(all_close(out.at(name), expected, name.starts_with("d_W") ? 1.0 / 256 : 1e-3)) << name;
}

class PersistentRecurrenceTest : public ::testing::TestWithParam<Setting> {
 protected:
  void SetUp() override {
    cuda_on_cpu::reset();
    nccl_on_cpu::reset();
  }
  void TearDown() override { cuda_on_cpu::reset(); }
};

TEST_P(PersistentRecurrenceTest, AgreesWithTheReference) { expect_agreement(GetParam()); }

TEST_P(PersistentRecurrenceTest, GivesTheSameBitsWhoeverComesFirst) {
  cuda_on_cpu::set_multiprocessors(GetParam().multiprocessors);
  const Tensors in = inputs_of(GetParam());
  const Tensors expected = run(GetParam(), in);

  for (const unsigned seed : {1u, 2u}) {
    cuda_on_cpu::set_schedule_seed(seed);
    for (const auto& [name, values] : run(GetParam(), in))
      EXPECT_TRUE(same_bits(values, expected.at(name))) << name;
  }
}

TEST_P(PersistentRecurrenceTest, GivesTheSameBitsOnEveryModelAxis) {
  const Setting& s = GetParam();
  cuda_on_cpu::set_multiprocessors(s.multiprocessors);
  const Tensors in = inputs_of(s);
  const Tensors expected = run(s, in);

  for (int ranks = 2; ranks <= s.blocks && s.hidden / ranks % s.units == 0; ranks *= 2)
    for (const auto& [name, values] : run_on_ranks(ranks, s, in))
      EXPECT_TRUE(same_bits(values, expected.at(name))) << name << ", " << ranks << " ranks";
  EXPECT_EQ(nccl_on_cpu::windows(), 0);
}

INSTANTIATE_TEST_SUITE_P(
    Cuts, PersistentRecurrenceTest,
    ::testing::Values(
        Setting{.name = "OneTeam"}, Setting{.name = "OneStep", .steps = 1},
        Setting{
            .name = "TwoTeamsAndLengths", .multiprocessors = 17, .groups = 2, .rows = 11, .lengths = true},
        Setting{.name = "TilesAtATime", .steps = 3, .rows = 70, .lengths = true},
        Setting{.name = "OneTileAtATime", .row_tiles = 1, .steps = 3, .rows = 40},
        Setting{.name = "ThreeTilesAtATime", .row_tiles = 3, .steps = 2, .rows = 70, .lengths = true},
        Setting{
            .name = "SixteenUnits", .multiprocessors = 6, .units = 16, .rows = 40, .blocks = 8, .hidden = 96},
        Setting{.name = "ThirtyTwoUnits", .multiprocessors = 2, .units = 32, .groups = 4, .rows = 7},
        Setting{.name = "EightBlocks", .groups = 2, .rows = 9, .blocks = 8, .lengths = true},
        Setting{.name = "Plain", .rows = 18, .normalization = Normalization::none, .lengths = true}),
    [](const auto& setting) { return setting.param.name; });

TEST(PersistentRecurrence, LosesNothingToBlocksThatAreAhead) {
  for (const Normalization normalization : {Normalization::layer, Normalization::none}) {
    const Setting s{.name = "", .multiprocessors = 4, .hidden = 32, .normalization = normalization};
    cuda_on_cpu::set_multiprocessors(s.multiprocessors);
    const Tensors in = inputs_of(s);
    const Tensors expected = run(s, in);

    for (const int slow : {0, 3}) {
      slow_block = slow;
      for (const auto& [name, values] : run(s, in))
        EXPECT_TRUE(same_bits(values, expected.at(name))) << name << ", block " << slow;
    }
    slow_block = -1;
    for (const int slow : {0, 1})
      for (const auto& [name, values] : run_on_ranks(2, s, in, /*times=*/2, slow))
        EXPECT_TRUE(same_bits(values, expected.at(name))) << name << ", block " << slow << " of rank 0";
  }
  cuda_on_cpu::reset();
}

TEST(PersistentRecurrence, RemembersNothingOfAnEarlierPass) {
  const Setting s{.name = "", .rows = 20, .lengths = true};
  cuda_on_cpu::set_multiprocessors(s.multiprocessors);
  const Tensors in = inputs_of(s);
  const Tensors expected = run(s, in);

  for (const auto& [name, values] : run(s, in, /*times=*/2))
    EXPECT_TRUE(same_bits(values, expected.at(name))) << name;
  for (const auto& [name, values] : run_on_ranks(2, s, in, /*times=*/3))
    EXPECT_TRUE(same_bits(values, expected.at(name))) << name << ", two ranks";
  cuda_on_cpu::reset();
}

TEST(PersistentRecurrence, TakesMoreMembersThanAWarpHasLanes) {
  expect_agreement({.name = "", .multiprocessors = 40, .steps = 2, .hidden = 288});
  cuda_on_cpu::reset();
}

/// What a member hears of all members, in every row: sums of one number and of two.
__global__ void hear_kernel(PersistentArrays arrays, float* sum, RowPair* sums) {
  int* lengths = shared_memory<int>();
  const Member<8> me(arrays, lengths, reinterpret_cast<LanePlace*>(lengths + arrays.grid.rows));
  Watch watch(arrays.stall, arrays.spin_limit);
  me.sum_of_members(watch, /*epoch=*/1, /*step=*/0, [&](int row, float heard) { sum[row] = heard; });
  me.sums_of_members(watch, 1, 0, [&](int row, const RowPair& heard) { sums[row] = heard; });
}

// A team of 256 threads for each of them would be too many here.
TEST(PersistentKernels, HearMoreMembersThanOneGpuHas) {
  constexpr int kMembers = 200, kRows = 16;
  static_assert(kMembers > 32 * kUsualWordsOfLane && kMembers <= kMostMembers);
  cuda_on_cpu::reset();
  Device device(0);
  auto words = device.allocate<Word>(2 * kRows * kMembers);
  auto pairs = device.allocate<WordPair>(2 * kRows * kMembers);
  auto stall = device.allocate<Stall>(1);
  auto sum = device.allocate<float>(kRows);
  auto sums = device.allocate<RowPair>(kRows);
  std::vector<Word> said(words.size());
  std::vector<WordPair> said_twice(pairs.size());
  for (std::size_t i = 0; i < said.size() / 2; ++i) {  // the places of odd epochs are the second half
    said[said.size() / 2 + i] = {static_cast<float>(i), 1};
    said_twice[said.size() / 2 + i] = {{static_cast<float>(2 * i), 1}, {static_cast<float>(3 * i), 1}};
  }
  device.to_device(said.data(), words.view().data(), said.size() * sizeof(Word));
  device.to_device(said_twice.data(), pairs.view().data(), said_twice.size() * sizeof(WordPair));
  PersistentArrays arrays;
  arrays.at = {
      .groups = 1, .rows = kRows, .units = 8 * kMembers, .blocks = 1, .own_blocks = 1, .all_blocks = 1};
  arrays.grid = {.units = 8, .members = kMembers, .teams = 1, .rows = kRows, .row_tiles = 1};
  arrays.gate_words = words.view().data();
  arrays.cell_words = pairs.view().data();
  arrays.stall = stall.view().data();

  launch(device, hear_kernel,
         {.grid = dim3(1), .block = dim3(kPersistentThreads), .shared_bytes = 3 * kRows * sizeof(int)},
         arrays, sum.view().data(), sums.view().data());

  std::vector<float> heard(kRows);
  std::vector<RowPair> heard_twice(kRows);
  device.to_host(sum.view().data(), heard.data(), kRows * sizeof(float));
  device.to_host(sums.view().data(), heard_twice.data(), kRows * sizeof(RowPair));
  for (int row = 0; row < kRows; ++row) {
    const int first = row * kMembers;
    const auto expected = static_cast<float>(kMembers * first + kMembers * (kMembers - 1) / 2);  // exact
    EXPECT_EQ(heard[size(row)], expected) << row;
    EXPECT_EQ(heard_twice[size(row)].first, 2 * expected) << row;
    EXPECT_EQ(heard_twice[size(row)].second, 3 * expected) << row;
  }
}

TEST(PersistentRecurrence, SaysWhyItCannotBe) {
  cuda_on_cpu::reset();
  Device device(0);
  RecurrenceShape shape = Setting{}.shape();
  shape.precision = Precision::f32;
  const auto self = make_self_communicator();
  const auto alone = make_exchange_alone(device, *self);

  try {
    make_persistent_recurrence(device, shape, *alone, plan_persistent(shape, device.properties()));
    FAIL() << "no error";
  } catch (const InternalError& error) {
    EXPECT_THAT(error.what(), ::testing::HasSubstr("its weights are bf16, and --precision is f32"));
  }
}

// Through the backend and the model's layer, as the program does.
TEST(PersistentRecurrence, PassesTheChecksOfLayersThatAskForBits) {
  const test::LayerSizes sizes{
      .time_steps = 3, .groups = 4, .rows = 3, .blocks = 8, .inputs = 8, .hidden = 64};
  const test::LayerKind kind{"PersistentLnLstm", [](const test::LayerSizes& of) {
                               return test::make_lstm_case(of, {.exchange = lamina::Exchange::replicated,
                                                                .lengths = true,
                                                                .time_loop = TimeLoop::persistent});
                             }};
  cuda_on_cpu::reset();
  nccl_on_cpu::reset();
  cuda_on_cpu::set_device_count(8);
  cuda_on_cpu::set_multiprocessors(8);
  int found = 0;
  for (const test::LayerCheck& check : test::bf16_layer_checks()) {
    if (std::string_view(check.name) == "MatchesTheReference") continue;
    SCOPED_TRACE(check.name);
    check.run(kind, {.make_backend = make_cuda_backend, .sizes = {sizes}});
    ++found;
  }
  EXPECT_EQ(found, 4);
  cuda_on_cpu::reset();
}

/// What both ranks are told where they ask for it; `change` is for rank 1.
std::string refusal(Gpus gpus, const std::function<void(RecurrenceShape&)>& change = {}) {
  std::vector<std::string> told(2);
  run_on_gpus(2, gpus, [&](Device& device, Communicator& world) {
    const auto model_axis = make_exchange(device, world);
    RecurrenceShape shape = Setting{}.on_rank(world.rank(), 2).shape();
    shape.time_loop = TimeLoop::persistent;
    if (change && world.rank() == 1) change(shape);
    try {
      make_cuda_recurrence(device, shape, *model_axis);
    } catch (const UserError& error) {
      told[size(world.rank())] = error.what();
    }
  });
  if (!change) {
    EXPECT_EQ(told[0], told[1]);
  }
  EXPECT_FALSE(told[1].empty());
  return told[0];
}

TEST(PersistentRecurrence, IsMadeOrRefusedByAllModelRanksTogether) {
  constexpr auto kEach = Gpus::one_each;
  const auto needs = [](const std::string& why_not) {
    return "--time-loop persistent over 2 model ranks needs GPUs that store into each other's memory: " +
           why_not + "; use --time-loop steps";
  };
  const auto begin = [] {
    cuda_on_cpu::reset();
    nccl_on_cpu::reset();
    cuda_on_cpu::set_multiprocessors(8);
  };
  begin();
  EXPECT_EQ(
      refusal(Gpus::one),
      needs("they exchange through the hosts' memory, as NCCL is missing or off, or as ranks share a GPU"));
  nccl_on_cpu::set_version(NCCL_VERSION(2, 27, 7));
  EXPECT_EQ(refusal(kEach), needs("NCCL 2.27.7 is older than 2.28"));
  nccl_on_cpu::set_version(NCCL_VERSION(2, 29, 2));
  EXPECT_EQ(refusal(kEach),
            needs("this program was built with NCCL 2.28.9, whose windows are not those of 2.29.2"));
  begin();
  nccl_on_cpu::set_peer_access(false);
  EXPECT_EQ(refusal(kEach), needs("NCCL opens no window, as GPUs do not reach each other or "
                                  "NCCL_CUMEM_ENABLE=0 or NCCL_WIN_ENABLE=0 is set"));
  begin();
  EXPECT_EQ(refusal(kEach, [](RecurrenceShape& shape) { shape.tiling.rows = 40; }),
            "--time-loop persistent does not fit here: model rank 1 has another kind of GPU; "
            "use --time-loop steps");
  EXPECT_THAT(refusal(kEach, [](RecurrenceShape& shape) { shape.precision = Precision::f32; }),
              ::testing::HasSubstr("model rank 1 has another kind of GPU"));
  EXPECT_EQ(nccl_on_cpu::windows(), 0);
  EXPECT_EQ(nccl_on_cpu::communicators(), 0);
}

void note_arrival(void* has_come) { *static_cast<bool*>(has_come) = true; }

// The host goes on while the GPU is at a step.
TEST(PersistentRecurrence, WaitsForNothingInItsPasses) {
  const Setting s{.name = ""};
  cuda_on_cpu::reset();
  cuda_on_cpu::set_multiprocessors(s.multiprocessors);
  const Tensors in = inputs_of(s);
  Device device(0);
  const auto self = make_self_communicator();
  const auto alone = make_exchange_alone(device, *self);
  RecurrenceOnDevice recurrence(device, *alone, s, in);
  recurrence.forward();
  recurrence.backward();  // it makes products, and takes memory, the first time
  bool has_come = false;
  device.synchronize();
  cuda_on_cpu::set_lazy_streams(true);
  verify(cudaLaunchHostFunc(device.stream(), note_arrival, &has_come), "cudaLaunchHostFunc");

  recurrence.forward();
  recurrence.backward();

  EXPECT_FALSE(has_come);
  device.synchronize();
  EXPECT_TRUE(has_come);
  cuda_on_cpu::reset();
}

// --- what must not hang -----------------------------------------------------------------------------------

TEST(PersistentRecurrence, GivesUpBeforeItsGroupDoes) {
  using namespace std::chrono_literals;
  EXPECT_EQ(spin_limit_within(20s), 15'000'000'000u);
  EXPECT_EQ(spin_limit_within(1ms), 750'000u);
  EXPECT_EQ(spin_limit_within(0s), spin_limit_within(kDefaultDeadline)) << "somebody should say so at last";
}

// The deadline is that of the group when a pass begins, although it has no peers.
TEST(PersistentRecurrence, SaysAtTheNextWaitThatABlockIsTooLateForTheDeadline) {
  const Setting s{.name = ""};
  const Tensors in = inputs_of(s);
  cuda_on_cpu::reset();
  cuda_on_cpu::set_multiprocessors(s.multiprocessors);
  run_on_gpus(1, Gpus::one, [&](Device& device, Communicator& world) {
    const auto alone = make_exchange(device, world);
    RecurrenceOnDevice recurrence(device, *alone, s, in);
    slow_block = 0;
    recurrence.forward();
    EXPECT_NO_THROW(device.synchronize());

    slow_turns = 1 << 12;
    world.set_deadline(std::chrono::milliseconds(1));
    EXPECT_NO_THROW(recurrence.forward());
    EXPECT_NO_THROW(recurrence.backward());

    EXPECT_THAT([&] { device.synchronize(); },
                ::testing::ThrowsMessage<InternalError>(
                    ::testing::AllOf(::testing::HasSubstr("persistent recurrence, forward: block "),
                                     ::testing::HasSubstr(" waited too long in step "))));
  });
  cuda_on_cpu::reset();
}

/// A forward pass of 32 units in members of 8, which is soon tired of waiting; on a rank of so many.
class ImpatientForward {
 public:
  ImpatientForward(Device& device, Exchange& group)
      : device_(device), rank_(group.rank()), ranks_(group.size()) {
    grid_ = {.units = 8, .members = 4, .ranks = ranks_, .teams = 1, .rows = 16, .row_tiles = 1};
    window_ = group.make_peer_memory(kWindow).memory;
    device.clear(in_window<unsigned char>(0), kWindow);
    device.synchronize();
  }

  /// What the rank saw, with so many of its blocks missing.
  Stall run(int missing) {
    run_persistent(device_, forward(), grid_.blocks() - missing);
    Stall seen;
    device_.to_host(stall_.view().data(), &seen, sizeof seen);
    return seen;
  }
  std::string error_of(const Stall& stall) const {
    try {
      check_no_stall(stall, grid_, rank_, "forward");
    } catch (const InternalError& error) {
      return error.what();
    }
    return "no error";
  }

 private:
  static constexpr std::size_t kCount = 4 * 5 * 5 * 32, kWindow = 4 << 12;

  template <class T>
  T* in_window(std::size_t offset) {
    return reinterpret_cast<T*>(window_->windows().base[rank_] + offset);
  }
  PersistentForward forward() {
    float *const zero = zeros_.view().data(), *const any = any_.view().data();
    const SavedNormals normals{any, any};
    PersistentForward f{.arrays = {},
                        .a_x = zero,
                        .of_x = {zero, zero},
                        .h_first = zero,
                        .output = any,
                        .rounded_h = rounded_h_.view().data()};
    f.arrays = {.at = {.groups = 1,
                       .rows = 5,
                       .units = 32 / ranks_,
                       .blocks = 1,
                       .own_blocks = 1,
                       .all_blocks = ranks_,
                       .max_steps = 4,
                       .normalized = true,
                       .epsilon = 1e-5f},
                .grid = grid_,
                .steps = 4,
                .parameters = {zero, zero, zero, zero, zero},
                .weights = reinterpret_cast<const uint4*>(zero),
                .peers = window_->windows(),
                .exchanged = in_window<__nv_bfloat16>(0),
                .flags = in_window<unsigned>(1 << 12),
                .gate_words = in_window<Word>(2 << 12),
                .cell_words = in_window<WordPair>(3 << 12),
                .stall = stall_.view().data(),
                .spin_limit = 20'000'000,
                .a_h = any,
                .gates = any,
                .c = any,
                .s = any,
                .of_h = normals,
                .of_c = normals};
    return f;
  }

  Device& device_;
  int rank_, ranks_;
  PersistentGrid grid_;
  std::unique_ptr<PeerMemory> window_;
  Buffer<float> zeros_ = device_.allocate<float>(kCount), any_ = device_.allocate<float>(kCount);
  Buffer<__nv_bfloat16> rounded_h_ = device_.allocate<__nv_bfloat16>(kCount);
  Buffer<Stall> stall_ = device_.allocate<Stall>(1);
};

TEST(PersistentKernels, GiveUpOnABlockThatDoesNotCome) {
  cuda_on_cpu::reset();
  Device device(0);
  const auto self = make_self_communicator();
  const auto alone = make_exchange_alone(device, *self);
  ImpatientForward forward(device, *alone);

  const Stall seen = forward.run(/*missing=*/1);

  EXPECT_EQ(seen.is_claimed, 1);
  EXPECT_LT(seen.block, 3);
  EXPECT_EQ(seen.step, 0);
  EXPECT_EQ(seen.signal, Signal::gate_numbers);
  EXPECT_THAT(forward.error_of(seen), ::testing::HasSubstr("waited too long in step 0 for sums over gates"));
  EXPECT_EQ(forward.error_of(Stall{}), "no error");
}

TEST(PersistentKernels, GiveUpOnARankThatDoesNotCome) {
  cuda_on_cpu::reset();
  nccl_on_cpu::reset();
  run_on_gpus(2, Gpus::one_each, [](Device& device, Communicator& world) {
    const auto group = make_exchange(device, world);
    ImpatientForward forward(device, *group);
    if (world.rank() == 1) {
      const Stall seen = forward.run(/*missing=*/0);
      EXPECT_EQ(seen.is_claimed, 1);
      EXPECT_EQ(seen.signal, Signal::gate_numbers);
      EXPECT_THAT(forward.error_of(seen),
                  ::testing::AllOf(::testing::HasSubstr(" of model rank 1 of 2 (team 0, member "),
                                   ::testing::HasSubstr(", or is a model rank gone?")));
    }
    world.barrier();
  });
}

TEST(PersistentKernels, GiveUpOnAllRanksWhereABlockOfOneDoesNotCome) {
  cuda_on_cpu::reset();
  nccl_on_cpu::reset();
  run_on_gpus(2, Gpus::one_each, [](Device& device, Communicator& world) {
    const auto group = make_exchange(device, world);
    ImpatientForward forward(device, *group);
    world.barrier();
    EXPECT_EQ(forward.run(/*missing=*/world.rank()).is_claimed, 1) << "rank " << world.rank();
    world.barrier();
  });
}

TEST(PersistentKernels, AreRefusedWhereTheyCannotAllRunAtOnce) {
  cuda_on_cpu::reset();
  cuda_on_cpu::set_multiprocessors(4);
  Device device(0);
  PersistentPlan plan;
  plan.grid = {.units = 8, .members = 8, .teams = 1, .rows = 16, .row_tiles = 1};
  plan.forward_bytes = plan.backward_bytes = 200 << 10;  // one block on each multiprocessor

  EXPECT_THROW(check_residency(plan, device.properties()), InternalError);
  plan.grid.members = 4;
  EXPECT_NO_THROW(check_residency(plan, device.properties()));
}

}  // namespace
}  // namespace lamina::cuda
