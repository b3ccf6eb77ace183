// Plain operators, one rounding each: this is compiled without fused products (nvcc --fmad=false).
#include <vector>

#include "kernels/cuda/elementwise.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/loops.cuh"
#include "runtime/error.h"
#include "runtime/tree.h"

namespace lamina::cuda::elementwise {
namespace {

__global__ void fill_elements(float* x, std::size_t size, float value) {
  for (std::size_t i = first_element(); i < size; i += element_stride()) x[i] = value;
}

__global__ void add_elements(const float* x, float* y, std::size_t size) {
  for (std::size_t i = first_element(); i < size; i += element_stride()) y[i] = y[i] + x[i];
}

constexpr std::size_t kPiece = 4096;  // of a sum: part of its definition
constexpr std::size_t kSums = 8;      // running sums of a piece: likewise

// sums[p * kSums + j]: of every eighth element of piece p, from its element j on.
__global__ void add_squares(const float* x, std::size_t size, double* sums) {
  const std::size_t count = (size + kPiece - 1) / kPiece * kSums;
  for (std::size_t s = first_element(); s < count; s += element_stride()) {
    const std::size_t first = s / kSums * kPiece;
    const std::size_t end = first + kPiece < size ? first + kPiece : size;
    double sum = 0;
    for (std::size_t i = first + s % kSums; i < end; i += kSums) sum += static_cast<double>(x[i]) * x[i];
    sums[s] = sum;
  }
}

__global__ void look_for_non_finite(const float* x, std::size_t size, int* found) {
  constexpr unsigned kExponent = 0x7f800000;
  bool mine = false;
  for (std::size_t i = first_element(); i < size; i += element_stride())
    mine |= (__float_as_uint(x[i]) & kExponent) == kExponent;
  if (mine) atomicExch(found, 1);
}

__global__ void update_by_sgd(SgdStep step, const float* gradient, float* velocity, float* value,
                              std::size_t size) {
  for (std::size_t i = first_element(); i < size; i += element_stride()) {
    const float slope = step.gradient_scale * gradient[i] + step.weight_decay * value[i];
    velocity[i] = step.momentum * velocity[i] + slope;
    value[i] = value[i] - step.learning_rate * velocity[i];
  }
}

__device__ float moving_average(float beta, float average, float sample) {
  return beta * average + (1 - beta) * sample;
}

__global__ void update_by_adam(AdamStep step, const float* gradient, float* first_moment,
                               float* second_moment, float* value, std::size_t size) {
  const float coupled_decay = step.decoupled ? 0 : step.weight_decay;
  const float decoupled_decay = step.decoupled ? step.weight_decay : 0;
  for (std::size_t i = first_element(); i < size; i += element_stride()) {
    const float slope = step.gradient_scale * gradient[i] + coupled_decay * value[i];
    const float first = moving_average(step.beta1, first_moment[i], slope);
    const float second = moving_average(step.beta2, second_moment[i], slope * slope);
    first_moment[i] = first;
    second_moment[i] = second;
    const float root = sqrtf(second / step.correction2);
    const float direction = first / step.correction1 / (root + step.epsilon);
    const float update = direction + decoupled_decay * value[i];
    value[i] = value[i] - step.learning_rate * update;
  }
}

class DeviceFiniteChecks final : public FiniteChecks {
 public:
  DeviceFiniteChecks(Device& device, int places)
      : device_(device), found_(device.allocate<int>(static_cast<std::size_t>(places))) {}

  void look(int place, std::span<const float> x) override {
    int* const found = found_.view(static_cast<std::size_t>(place), 1).data();
    if (!x.empty()) launch(device_, look_for_non_finite, for_elements(x.size()), x.data(), x.size(), found);
  }

  std::vector<bool> take_found() override {
    std::vector<int> found(found_.size());
    device_.to_host(found_.view().data(), found.data(), found.size() * sizeof(int));
    device_.clear(found_.view().data(), found.size() * sizeof(int));
    return {found.begin(), found.end()};
  }

 private:
  Device& device_;
  Buffer<int> found_;  ///< [places]
};

}  // namespace

void fill(Device& device, std::span<float> x, float value) {
  launch(device, fill_elements, for_elements(x.size()), x.data(), x.size(), value);
}

void copy(Device& device, std::span<const float> from, std::span<float> to) {
  check(from.size() == to.size(), "copy: sizes differ");
  if (!to.empty()) device.copy(from.data(), to.data(), to.size_bytes());
}

void add(Device& device, std::span<const float> x, std::span<float> y) {
  check(x.size() == y.size(), "add: sizes differ");
  launch(device, add_elements, for_elements(y.size()), x.data(), y.data(), y.size());
}

std::vector<double> sums_of_squares(Device& device, std::span<const std::span<const float>> arrays) {
  std::vector<std::size_t> first;  // of each array's sums, and of the last one's end
  first.push_back(0);
  for (const std::span<const float> x : arrays)
    first.push_back(first.back() + (x.size() + kPiece - 1) / kPiece * kSums);
  const std::size_t bytes = first.back() * sizeof(double);
  check(bytes <= Device::kWorkspaceBytes, "sums of squares: too many elements");
  auto* const on_device = static_cast<double*>(device.workspace());
  for (std::size_t i = 0; i < arrays.size(); ++i)
    launch(device, add_squares, for_elements(first[i + 1] - first[i]), arrays[i].data(), arrays[i].size(),
           on_device + first[i]);
  std::vector<double> sums(first.back());
  if (bytes > 0) device.to_host(on_device, sums.data(), bytes);

  const auto total = [&](std::size_t i) {
    const double* of_array = sums.data() + first[i];
    const std::size_t pieces = (first[i + 1] - first[i]) / kSums;
    return pieces == 0 ? 0 : tree_sum(pieces, [&](std::size_t piece) {
      return tree_sum(kSums, [&](std::size_t j) { return of_array[piece * kSums + j]; });
    });
  };
  std::vector<double> totals;
  for (std::size_t i = 0; i < arrays.size(); ++i) totals.push_back(total(i));
  return totals;
}

bool all_finite(Device& device, std::span<const float> x) {
  DeviceFiniteChecks check(device, 1);
  check.look(0, x);
  return !check.take_found().front();
}

std::unique_ptr<FiniteChecks> make_finite_checks(Device& device, int places) {
  return std::make_unique<DeviceFiniteChecks>(device, places);
}

void sgd(Device& device, const SgdStep& step, std::span<const float> gradient, std::span<float> velocity,
         std::span<float> value) {
  check(gradient.size() == value.size() && velocity.size() == value.size(), "sgd: sizes differ");
  launch(device, update_by_sgd, for_elements(value.size()), step, gradient.data(), velocity.data(),
         value.data(), value.size());
}

void adam(Device& device, const AdamStep& step, std::span<const float> gradient,
          std::span<float> first_moment, std::span<float> second_moment, std::span<float> value) {
  check(gradient.size() == value.size() && first_moment.size() == value.size() &&
            second_moment.size() == value.size(),
        "adam: sizes differ");
  launch(device, update_by_adam, for_elements(value.size()), step, gradient.data(), first_moment.data(),
         second_moment.data(), value.data(), value.size());
}

}  // namespace lamina::cuda::elementwise
