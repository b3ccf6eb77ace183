// Every kind of layer behind one face, so that one list of checks holds for all of them. A case has named
// global tensors as inputs ("x", "W_h", …); running it gives its outputs ("output", …) and the gradients
// ("d_x", "d_W_h", …) of the loss <d_output, output>, by the program's layers or by the reference.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "runtime/backend.h"

namespace lamina::test {

using Tensors = std::map<std::string, std::vector<float>>;
using ReferenceTensors = std::map<std::string, std::vector<double>>;

struct LayerSizes {
  int time_steps = 5;
  int groups = 4;  ///< lane groups
  int rows = 3;    ///< lanes in a group
  int blocks = 8;  ///< unit blocks
  int inputs = 16;
  int hidden = 32;
  int classes = 11;  ///< or the vocabulary

  int batch() const { return groups * rows; }
};

/// A layer on one rank, for one pass: some of the lane groups, some of the unit blocks.
class LayerOnRank {
 public:
  virtual ~LayerOnRank() = default;
  /// Forward and backward over the first `time_steps` steps. Writes to `out` what this rank has of each
  /// tensor, where it belongs in the global one; leaves the rest. May be called again.
  virtual void run(const Tensors& in, int time_steps, Tensors& out) = 0;
};

class LayerCase {
 public:
  explicit LayerCase(const LayerSizes& sizes) : sizes_(sizes) {}
  virtual ~LayerCase() = default;

  virtual Tensors inputs() const = 0;
  virtual std::unique_ptr<LayerOnRank> on_rank(Backend& backend, Communicator& model_axis,
                                               const Tiling& pass) const = 0;
  virtual ReferenceTensors reference(const Tensors& in) const = 0;
  /// Of the reference, relative to a tensor's largest value.
  virtual double tolerance() const { return 2e-5; }
  const LayerSizes& sizes() const { return sizes_; }

 protected:
  LayerSizes sizes_;
};

struct LstmChoices {
  Normalization normalization = Normalization::layer;
  Exchange exchange = Exchange::sharded;
  bool lengths = false;  ///< lanes of different lengths, 0 and all steps among them
  float epsilon = 1e-5f;
  bool zero_state = false;  ///< h and c begin at 0
  bool table = false;       ///< inputs are rows of "table" [classes, inputs] instead of "x"
  Precision precision = Precision::f32;
  TimeLoop time_loop = TimeLoop::steps;  ///< persistent: in bf16, and on GPUs only
};

std::unique_ptr<LayerCase> make_lstm_case(const LayerSizes& sizes, const LstmChoices& choices);
std::unique_ptr<LayerCase> make_embedding_case(const LayerSizes& sizes);
std::unique_ptr<LayerCase> make_dropout_case(const LayerSizes& sizes, bool variational);
std::unique_ptr<LayerCase> make_softmax_case(const LayerSizes& sizes);
/// The softmax case's gradients are those of this times the sum of its losses.
inline constexpr double kSoftmaxLossScale = 0.375;

struct RunChoices {
  int model_ranks = 1;
  int threads = 1;
  int passes = 1;     ///< shares of the lane groups, one after another; gradients are added in the tree
  bool used = false;  ///< run the layer on other values first, over fewer time steps
  /// Of a rank. Empty: the CPU backend, on `threads`.
  std::function<std::unique_ptr<Backend>(int rank)> make_backend = {};
  std::vector<LayerSizes> sizes = {};  ///< for checks of conformance; empty: their own
  /// Of bf16 operands: the device adds in an order of its own, which can push a value that is rounded
  /// afterwards across a tie.
  bool may_cross_ties = false;
};

/// Runs a case on thread ranks, each with a backend of its own; assembles the global tensors. Adds a test
/// failure where ranks that hold copies disagree or where an element was never written.
Tensors run(const LayerCase& layer, const Tensors& in, const RunChoices& choices = {});

/// What ranks hold of global tensors, put together: NaN where a rank holds nothing. Adds a test failure where
/// copies disagree or an element is missing everywhere.
Tensors merged(const std::vector<Tensors>& parts);

}  // namespace lamina::test
