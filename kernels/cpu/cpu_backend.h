// The Backend of CPUs: device memory is host memory.
#pragma once

#include "runtime/backend.h"

namespace lamina {

class CpuBackend final : public Backend {
 public:
  explicit CpuBackend(int threads);

  std::string name() const override { return "cpu"; }
  std::string description() const override;

  Buffer<float> allocate(std::size_t size) override;
  void to_device(std::span<const float> host, std::span<float> device) override { copy(host, device); }
  void to_host(std::span<const float> device, std::span<float> host) override { copy(device, host); }
  void synchronize() override {}

  bool takes_input_tables() const override { return true; }
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
  std::unique_ptr<BackgroundSums> make_background_sums(Communicator& axis, std::size_t) override {
    return axis.make_background_sums();
  }
  std::vector<double> sums_of_squares(std::span<const std::span<const float>> arrays) override;
  bool all_finite(std::span<const float> x) override;
  std::unique_ptr<FiniteChecks> make_finite_checks(int places) override;
  void sgd(float learning_rate, float momentum, float weight_decay, float gradient_scale,
           std::span<const float> gradient, std::span<float> velocity, std::span<float> value) override;
  void adam(const AdamStep& step, std::span<const float> gradient, std::span<float> first_moment,
            std::span<float> second_moment, std::span<float> value) override;

  std::unique_ptr<ProductSeries> make_product_series(std::vector<Product> products) override;

 private:
  int threads_;
};

}  // namespace lamina
