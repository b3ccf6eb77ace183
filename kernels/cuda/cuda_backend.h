// The Backend of one NVIDIA GPU, used by one rank.
#pragma once

#include <map>
#include <memory>
#include <vector>

#include "kernels/cuda/device.h"
#include "kernels/cuda/exchange.h"
#include "kernels/cuda/tree_all_reduce.h"
#include "runtime/backend.h"

namespace lamina::cuda {

/// Layers must end before it, and the communicators that they are made with must outlive it. Making the first
/// layer of a communicator is collective.
class CudaBackend final : public Backend {
 public:
  /// `ordinal` < device_count().
  explicit CudaBackend(int ordinal) : device_(ordinal) {}

  std::string name() const override { return "cuda"; }
  std::string description() const override { return device_.description(); }

  Buffer<float> allocate(std::size_t size) override { return device_.allocate<float>(size); }
  void to_device(std::span<const float> host, std::span<float> device) override;
  void to_host(std::span<const float> device, std::span<float> host) override;
  void synchronize() override { device_.synchronize(); }

  std::unique_ptr<Recurrence> make_recurrence(const RecurrenceShape& shape,
                                              Communicator& model_axis) override;
  std::unique_ptr<Wavefront> make_wavefront(const std::vector<Recurrence*>& layers,
                                            Communicator& model_axis) override;
  std::unique_ptr<SoftmaxOutput> make_softmax_output(const SoftmaxShape& shape,
                                                     Communicator& model_axis) override;
  std::unique_ptr<EmbeddingLookup> make_embedding_lookup(const EmbeddingShape& shape,
                                                         Communicator& model_axis) override;

  void dropout_forward(const DropoutMask& mask, std::span<const float> x, std::span<float> out) override;
  void dropout_backward(const DropoutMask& mask, std::span<float> dx) override;

  void fill(std::span<float> x, float value) override;
  void copy(std::span<const float> from, std::span<float> to) override;
  void add(std::span<const float> x, std::span<float> y) override;
  /// Through NCCL on a stream of their own: at any time where `axis` is the only one over which this rank
  /// exchanges, else in turns with the layers.
  std::unique_ptr<BackgroundSums> make_background_sums(Communicator& axis, std::size_t most) override;
  std::vector<double> sums_of_squares(std::span<const std::span<const float>> arrays) override;
  bool all_finite(std::span<const float> x) override;
  std::unique_ptr<FiniteChecks> make_finite_checks(int places) override;
  void sgd(float learning_rate, float momentum, float weight_decay, float gradient_scale,
           std::span<const float> gradient, std::span<float> velocity, std::span<float> value) override;
  void adam(const AdamStep& step, std::span<const float> gradient, std::span<float> first_moment,
            std::span<float> second_moment, std::span<float> value) override;
  std::unique_ptr<ProductSeries> make_product_series(std::vector<Product> products) override;

 private:
  /// Null where there is none yet.
  Exchange* find_exchange(const Communicator& group) const;
  Exchange& exchange_over(Communicator& group);
  bool exchanges_elsewhere(const Exchange& exchange) const;
  void all_reduce(Communicator& axis, std::span<float> values);

  Device device_;
  struct GroupExchange {
    const Communicator* group;
    std::unique_ptr<Exchange> exchange;
  };
  /// In the order in which ranks make them, as they must end in one order on all ranks.
  std::vector<GroupExchange> exchanges_;
  std::map<const Communicator*, TreeAllReduce> sums_;
  bool has_side_sums_ = false;  ///< that take no turns
};

}  // namespace lamina::cuda
