#include "kernels/cuda/cuda_backend.h"

#include <algorithm>

#include "kernels/backends.h"
#include "kernels/cuda/dropout.h"
#include "kernels/cuda/elementwise.h"
#include "kernels/cuda/embedding_lookup.h"
#include "kernels/cuda/product_series.h"
#include "kernels/cuda/recurrence.h"
#include "kernels/cuda/side_sums.h"
#include "kernels/cuda/softmax_output.h"
#include "runtime/error.h"
#include "runtime/trace.h"

namespace lamina {
namespace cuda {
namespace {

constexpr int kMostParts = 64;  // that kernels merge in a tree

void require_parts(int parts, const char* name, const char* advice) {
  if (parts <= kMostParts) return;
  throw UserError("--device cuda takes at most " + std::to_string(kMostParts) + " " + name +
                  " at once, not " + std::to_string(parts) + ": " + advice);
}

void require_parts(const Tiling& tiling) {
  require_parts(tiling.groups.local, "lane groups", "use fewer --lane-groups, more --passes or more ranks");
  require_parts(tiling.blocks.count, "unit blocks", "use fewer --unit-blocks");
}

}  // namespace

void CudaBackend::to_device(std::span<const float> host, std::span<float> device) {
  check(host.size() == device.size(), "to_device: sizes differ");
  if (!host.empty()) device_.to_device(host.data(), device.data(), host.size_bytes());
}

void CudaBackend::to_host(std::span<const float> device, std::span<float> host) {
  check(host.size() == device.size(), "to_host: sizes differ");
  if (!host.empty()) device_.to_host(device.data(), host.data(), host.size_bytes());
}

Exchange* CudaBackend::find_exchange(const Communicator& group) const {
  const auto found = std::ranges::find(exchanges_, &group, &GroupExchange::group);
  return found == exchanges_.end() ? nullptr : found->exchange.get();
}

Exchange& CudaBackend::exchange_over(Communicator& group) {
  Exchange* exchange = find_exchange(group);
  if (exchange == nullptr) {
    check(!has_side_sums_ || group.size() == 1, "layers that exchange come before the sums of gradients");
    exchanges_.push_back({&group, make_exchange(device_, group)});
    exchange = exchanges_.back().exchange.get();
  }
  check(exchange->size() == group.size(), "a communicator has taken the place of another");
  return *exchange;
}

std::unique_ptr<Recurrence> CudaBackend::make_recurrence(const RecurrenceShape& shape,
                                                         Communicator& model_axis) {
  require_parts(shape.tiling);
  check(shape.table_rows == 0, "this backend takes no input tables");
  return make_cuda_recurrence(device_, shape, exchange_over(model_axis));
}

std::unique_ptr<Wavefront> CudaBackend::make_wavefront(const std::vector<Recurrence*>&, Communicator&) {
  throw UserError(
      "--layer-order wavefront is only for CPUs: with --device cuda use --layer-order sequential");
}

std::unique_ptr<SoftmaxOutput> CudaBackend::make_softmax_output(const SoftmaxShape& shape,
                                                                Communicator& model_axis) {
  require_parts(shape.tiling);
  return make_cuda_softmax_output(device_, shape, exchange_over(model_axis));
}

std::unique_ptr<EmbeddingLookup> CudaBackend::make_embedding_lookup(const EmbeddingShape& shape,
                                                                    Communicator& model_axis) {
  require_parts(shape.tiling);
  return make_cuda_embedding_lookup(device_, shape, exchange_over(model_axis));
}

void CudaBackend::dropout_forward(const DropoutMask& mask, std::span<const float> x, std::span<float> out) {
  const Span span(SpanKind::pointwise, "dropout forward");
  dropout::forward(device_, mask, x, out);
}

void CudaBackend::dropout_backward(const DropoutMask& mask, std::span<float> dx) {
  const Span span(SpanKind::pointwise, "dropout backward");
  dropout::backward(device_, mask, dx);
}

void CudaBackend::fill(std::span<float> x, float value) { elementwise::fill(device_, x, value); }

void CudaBackend::copy(std::span<const float> from, std::span<float> to) {
  elementwise::copy(device_, from, to);
}

void CudaBackend::add(std::span<const float> x, std::span<float> y) { elementwise::add(device_, x, y); }

std::unique_ptr<BackgroundSums> CudaBackend::make_background_sums(Communicator& axis, std::size_t most) {
  Exchange& exchange = exchange_over(axis);
  if (axis.size() == 1 || !exchange.is_capturable())
    return std::make_unique<DeferredSums>(
        [this, &axis](std::span<float> values) { all_reduce(axis, values); });
  if (exchanges_elsewhere(exchange)) return std::make_unique<SideSumsInTurns>(device_, exchange, most);
  has_side_sums_ = true;
  return std::make_unique<SideSums>(device_, exchange, most);
}

bool CudaBackend::exchanges_elsewhere(const Exchange& exchange) const {
  return std::ranges::any_of(exchanges_, [&](const auto& other) {
    return other.exchange.get() != &exchange && other.exchange->size() > 1;
  });
}

void CudaBackend::all_reduce(Communicator& axis, std::span<float> values) {
  if (axis.size() == 1) return;
  sums_.try_emplace(&axis, device_, exchange_over(axis)).first->second.sum(values);
}

std::vector<double> CudaBackend::sums_of_squares(std::span<const std::span<const float>> arrays) {
  return elementwise::sums_of_squares(device_, arrays);
}

bool CudaBackend::all_finite(std::span<const float> x) { return elementwise::all_finite(device_, x); }

std::unique_ptr<FiniteChecks> CudaBackend::make_finite_checks(int places) {
  return elementwise::make_finite_checks(device_, places);
}

void CudaBackend::sgd(float learning_rate, float momentum, float weight_decay, float gradient_scale,
                      std::span<const float> gradient, std::span<float> velocity, std::span<float> value) {
  elementwise::sgd(device_, {learning_rate, momentum, weight_decay, gradient_scale}, gradient, velocity,
                   value);
}

void CudaBackend::adam(const AdamStep& step, std::span<const float> gradient, std::span<float> first_moment,
                       std::span<float> second_moment, std::span<float> value) {
  elementwise::adam(device_, step, gradient, first_moment, second_moment, value);
}

std::unique_ptr<ProductSeries> CudaBackend::make_product_series(std::vector<Product> products) {
  return make_cuda_product_series(device_, std::move(products));
}

}  // namespace cuda

std::unique_ptr<Backend> make_cuda_backend(int local_rank) {
  check(local_rank >= 0, "make_cuda_backend: no such rank");
  const int devices = cuda::device_count();
  if (devices == 0)
    throw UserError(
        "--device cuda: this machine shows no NVIDIA GPU, use --device cpu or a machine that has one");
  return std::make_unique<cuda::CudaBackend>(local_rank % devices);
}

}  // namespace lamina
