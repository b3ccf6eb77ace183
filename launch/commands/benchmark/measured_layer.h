// A recurrent layer of random numbers, and the matrix products that it cannot do without.
#pragma once

#include <memory>
#include <vector>

#include "runtime/backend.h"
#include "runtime/process_grid.h"

namespace lamina {

/// What is measured of a layer, in seconds, one value per repetition.
struct LayerTimes {
  std::vector<double> forward, backward, both, packing;
  std::vector<double> products_forward, products_backward, products_both;
};

class MeasuredLayer {
 public:
  /// `shape.tiling` is set here.
  MeasuredLayer(RecurrenceShape shape, int batch, Backend& backend, ProcessGrid& grid);

  /// Runs everything once to warm up and then once for its time. Collective.
  void measure();

  const LayerTimes& times() const { return times_; }
  /// Floating-point operations of all ranks.
  double forward_flops() const { return forward_flops_; }
  double backward_flops() const { return backward_flops_; }
  int hidden() const { return shape_.hidden; }
  int inputs() const { return shape_.inputs; }
  int batch() const { return batch_; }
  int time_steps() const { return shape_.max_time_steps; }

 private:
  Buffer<float> random(std::size_t size, float low, float high);
  void make_parameters();
  LstmParameters<const float> parameters() const;
  LstmParameters<float> gradients();
  template <class Work>
  double seconds_of(const Work& work);
  void warm_up();
  void pack() { layer_->set_parameters(parameters()); }
  void forward();
  void backward();

  Backend& backend_;
  ProcessGrid& grid_;
  int batch_;
  RecurrenceShape shape_;
  std::unique_ptr<Recurrence> layer_;
  std::vector<Buffer<float>> values_, gradients_;  ///< in the order of LstmParameters
  Buffer<float> input_, output_, h_, c_, h_last_, c_last_, d_output_, d_input_;
  std::unique_ptr<ProductSeries> forward_products_, backward_products_;
  double forward_flops_, backward_flops_;
  std::uint64_t drawn_ = 0;  ///< arrays of random numbers
  LayerTimes times_;
};

}  // namespace lamina
