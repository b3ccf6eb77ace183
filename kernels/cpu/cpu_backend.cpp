#include "kernels/cpu/cpu_backend.h"

#include <cstddef>
#include <cstdlib>
#include <limits>
#include <utility>

#include "kernels/backends.h"
#include "kernels/cpu/dropout.h"
#include "kernels/cpu/elementwise.h"
#include "kernels/cpu/embedding_lookup.h"
#include "kernels/cpu/product_series.h"
#include "kernels/cpu/recurrence.h"
#include "kernels/cpu/softmax_output.h"
#include "runtime/error.h"
#include "runtime/trace.h"

namespace lamina {
namespace {

constexpr std::size_t kAlignment = 64;

float* aligned_floats(std::size_t size) {
  constexpr std::size_t kLargest = std::numeric_limits<std::ptrdiff_t>::max() / sizeof(float) - kAlignment;
  const std::size_t bytes = (size * sizeof(float) + kAlignment - 1) / kAlignment * kAlignment;
  void* memory = size <= kLargest ? std::aligned_alloc(kAlignment, bytes) : nullptr;
  if (memory == nullptr)
    throw UserError("out of memory: " + std::to_string(size) +
                    " numbers do not fit on this machine, use a smaller model or batch, or more ranks");
  return static_cast<float*>(memory);
}

class CpuFiniteChecks final : public FiniteChecks {
 public:
  CpuFiniteChecks(int threads, int places) : threads_(threads), found_(static_cast<std::size_t>(places)) {}

  void look(int place, std::span<const float> x) override {
    if (!elementwise::all_finite(threads_, x)) found_.at(static_cast<std::size_t>(place)) = true;
  }
  std::vector<bool> take_found() override { return std::exchange(found_, std::vector<bool>(found_.size())); }

 private:
  int threads_;
  std::vector<bool> found_;
};

}  // namespace

CpuBackend::CpuBackend(int threads) : threads_(threads) {
  check(threads >= 1, "the CPU backend needs at least one thread");
}

std::string CpuBackend::description() const {
  return cpu_description() + ", " + std::to_string(threads_) + (threads_ == 1 ? " thread" : " threads");
}

Buffer<float> CpuBackend::allocate(std::size_t size) {
  if (size == 0) return {};
  Buffer<float> buffer(aligned_floats(size), size, [](float* data) { std::free(data); });
  fill(buffer.view(), 0);
  return buffer;
}

std::unique_ptr<Recurrence> CpuBackend::make_recurrence(const RecurrenceShape& shape,
                                                        Communicator& model_axis) {
  if (shape.precision == Precision::tf32)
    throw UserError("--precision tf32 is only for --device cuda: on CPUs use --precision f32 or bf16");
  if (shape.time_loop == TimeLoop::persistent)
    throw UserError("--time-loop persistent is only for --device cuda: on CPUs use --time-loop steps");
  return make_cpu_recurrence(shape, model_axis, threads_);
}

std::unique_ptr<Wavefront> CpuBackend::make_wavefront(const std::vector<Recurrence*>& layers,
                                                      Communicator& model_axis) {
  return make_cpu_wavefront(layers, model_axis);
}

std::unique_ptr<SoftmaxOutput> CpuBackend::make_softmax_output(const SoftmaxShape& shape,
                                                               Communicator& model_axis) {
  return make_cpu_softmax_output(shape, model_axis, threads_);
}

std::unique_ptr<EmbeddingLookup> CpuBackend::make_embedding_lookup(const EmbeddingShape& shape,
                                                                   Communicator& model_axis) {
  return make_cpu_embedding_lookup(shape, model_axis, threads_);
}

void CpuBackend::dropout_forward(const DropoutMask& mask, std::span<const float> x, std::span<float> out) {
  const Span span(SpanKind::pointwise, "dropout forward");
  dropout::forward(threads_, mask, x, out);
}

void CpuBackend::dropout_backward(const DropoutMask& mask, std::span<float> dx) {
  const Span span(SpanKind::pointwise, "dropout backward");
  dropout::backward(threads_, mask, dx);
}

void CpuBackend::fill(std::span<float> x, float value) { elementwise::fill(threads_, x, value); }

void CpuBackend::copy(std::span<const float> from, std::span<float> to) {
  elementwise::copy(threads_, from, to);
}

void CpuBackend::add(std::span<const float> x, std::span<float> y) { elementwise::add(threads_, x, y); }

std::vector<double> CpuBackend::sums_of_squares(std::span<const std::span<const float>> arrays) {
  std::vector<double> sums;
  for (const std::span<const float> x : arrays)
    sums.push_back(x.empty() ? 0 : elementwise::sum_of_squares(threads_, x));
  return sums;
}

bool CpuBackend::all_finite(std::span<const float> x) { return elementwise::all_finite(threads_, x); }

std::unique_ptr<FiniteChecks> CpuBackend::make_finite_checks(int places) {
  return std::make_unique<CpuFiniteChecks>(threads_, places);
}

void CpuBackend::sgd(float learning_rate, float momentum, float weight_decay, float gradient_scale,
                     std::span<const float> gradient, std::span<float> velocity, std::span<float> value) {
  elementwise::sgd(threads_, {learning_rate, momentum, weight_decay, gradient_scale}, gradient, velocity,
                   value);
}

void CpuBackend::adam(const AdamStep& step, std::span<const float> gradient, std::span<float> first_moment,
                      std::span<float> second_moment, std::span<float> value) {
  elementwise::adam(threads_, step, gradient, first_moment, second_moment, value);
}

std::unique_ptr<ProductSeries> CpuBackend::make_product_series(std::vector<Product> products) {
  return make_cpu_product_series(std::move(products), threads_);
}

std::unique_ptr<Backend> make_cpu_backend(int threads) { return std::make_unique<CpuBackend>(threads); }

}  // namespace lamina
