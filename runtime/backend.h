// What a device must do for training: memory, the recurrence over time, the output layer, and elementwise
// work. model/ and launch/ are written against this port; kernels/<device>/ implements it.
//
// Legend of shapes: T time steps, D lane groups of this rank, R lanes (rows) in a group, I inputs, H hidden
// units, G unit blocks of the layer, K unit blocks of this rank, U = H/G units in a block, V vocabulary, M
// model ranks. *Full* activations are [D, T, R, H]: complete on every rank of the model axis, lane groups
// outermost, units in global order. *Blocked* ones are [D, K, T*R, U]: this rank's unit blocks only. Forward
// passes hand full activations upwards, backward passes hand blocked gradients downwards.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/background_sums.h"
#include "runtime/buffer.h"
#include "runtime/communicator.h"
#include "runtime/error.h"
#include "runtime/product_series.h"
#include "runtime/random.h"
#include "runtime/tiling.h"

namespace lamina {

/// The normalizations of the recurrent cell: none (the baseline, eq. 17-19 of arXiv:1607.06450) and layer
/// normalization (eq. 20-22).
enum class Normalization { none, layer };

/// How per-step collectives are arranged. All compute the same function, with the same bits.
/// sharded: statistics by an all-reduce over the model axis, pointwise work split; 3 exchanges a step, with
/// LN. cell: c and the gate o are gathered instead of h, and LN(c) and h computed by every rank at full
/// width; 2. replicated: pre-activations gathered, all pointwise work done by every rank at full width; 1.
enum class Exchange { sharded, cell, replicated };

/// "sharded", "cell" or "replicated".
inline Exchange exchange_named(std::string_view name) {
  if (name == "cell") return Exchange::cell;
  if (name == "replicated") return Exchange::replicated;
  check(name == "sharded", "exchange: no such schedule");
  return Exchange::sharded;
}

/// Of the operands of a recurrent layer's matrix products; tf32, f32 with ten bits after the point, is for
/// GPUs. Their sums, the statistics of LN, the cell states and the parameters that are trained are f32 in any
/// case.
enum class Precision { f32, tf32, bf16 };

/// "f32", "tf32" or "bf16".
inline Precision precision_named(std::string_view name) {
  if (name == "tf32") return Precision::tf32;
  if (name == "bf16") return Precision::bf16;
  check(name == "f32", "precision: no such one");
  return Precision::f32;
}

/// How a device with many cores runs the steps of a sequence: as work for each step, or all of them in one
/// piece that keeps the weights on chip and exchanges by itself; automatic: in one piece where that fits and
/// the model axis has one rank. They differ in rounding.
enum class TimeLoop { steps, persistent, automatic };

/// "steps", "persistent" or "auto".
inline TimeLoop time_loop_named(std::string_view name) {
  if (name == "persistent") return TimeLoop::persistent;
  if (name == "auto") return TimeLoop::automatic;
  check(name == "steps", "time loop: no such one");
  return TimeLoop::steps;
}

struct RecurrenceShape {
  int inputs = 0;  ///< I
  int hidden = 0;  ///< H, a multiple of tiling.blocks.count
  int max_time_steps = 0;
  Tiling tiling;  ///< of one pass: groups.local lane groups
  Normalization normalization = Normalization::layer;
  Exchange exchange = Exchange::sharded;
  float epsilon = 1e-5f;  ///< inside the root of LN
  Precision precision = Precision::f32;
  TimeLoop time_loop = TimeLoop::steps;
  /// V: an input is a row of a table [V, I], chosen by a token; with Backend::takes_input_tables() only.
  /// 0: inputs come as they are.
  int table_rows = 0;
};

/// An LSTM layer's parameters, this rank's blocks; gate order f, i, o, g.
/// Without layer normalization the gains and bias_c are empty.
template <class T>
struct LstmParameters {
  std::span<T> W_x;     ///< [K, 4, U, I]
  std::span<T> W_h;     ///< [K, 4, U, H]
  std::span<T> gain_x;  ///< [K, 4, U]
  std::span<T> gain_h;  ///< [K, 4, U]
  std::span<T> bias;    ///< [K, 4, U]: the sum of the paper's two LN biases and b, whose gradients are equal
  std::span<T> gain_c;  ///< [K, U]
  std::span<T> bias_c;  ///< [K, U]
  std::span<T> table = {};  ///< [K, V, I/G], with table_rows: the inputs, split by column
};

/// h_last may be the memory of h_first, and c_last that of c_first: the state advances in place.
struct RecurrenceForward {
  int time_steps = 0;              ///< T <= max_time_steps
  std::span<const float> input;    ///< full [D, T, R, I]; empty with table_rows
  std::span<const float> h_first;  ///< [D, R, H], full
  std::span<const float> c_first;  ///< [D, K, R, U]
  /// Valid steps per lane, [D, R]; at t >= length h and c are copied from t-1. Empty: all T steps.
  std::span<const std::int32_t> lengths;
  std::span<float> output;                    ///< full [D, T, R, H]
  std::span<float> h_last;                    ///< [D, R, H], full
  std::span<float> c_last;                    ///< [D, K, R, U]
  std::span<const std::int32_t> tokens = {};  ///< with table_rows, [D, T, R]: which row each input is
};

/// How other work goes on beside a backward pass: sums of gradients, for instance, which exchange with other
/// ranks, too. So that exchanges come in one order on all ranks, a device that puts its own on streams calls
/// both, each once: what is begun by the one is over before what comes after the other.
struct SideWork {
  /// Called now and then by a device whose work keeps the caller's thread busy; by others where all that is
  /// to come before pause() is work without exchanges.
  std::function<void()> advance = [] {};
  /// Called where exchanges may come again.
  std::function<void()> pause = [] {};
};

struct RecurrenceBackward {
  std::span<const float> d_output;     ///< blocked [D, K, T*R, U]
  std::span<float> d_input;            ///< blocked [D, K, T*R, I/G]; empty: not wanted, or with table_rows
  LstmParameters<float> d_parameters;  ///< set (not added to) to the tree sum over this pass's D lane groups
  SideWork side_work{};
};

/// A recurrent layer over a whole sequence. The time loop and its exchanges over the model axis live inside,
/// so that a device may run them as it likes. The gradient into the first state is dropped (truncated BPTT).
class Recurrence {
 public:
  virtual ~Recurrence() = default;
  /// To be called when the parameters have changed (packs weights). Collective over the model axis.
  virtual void set_parameters(const LstmParameters<const float>& parameters) = 0;
  /// Keeps what backward() needs, until the next forward(); `f.input`, `f.tokens` and `f.output` must stay
  /// unchanged until then.
  virtual void forward(const RecurrenceForward& f) = 0;
  /// Of the latest forward(). Once.
  virtual void backward(const RecurrenceBackward& b) = 0;
  /// Elements of device memory kept for the backward pass.
  virtual std::size_t saved_size() const = 0;
};

/// Inverted dropout: kept elements are multiplied by 1 / (1 - p).
struct DropoutMask {
  const RandomStream* stream = nullptr;
  std::uint64_t step = 0;
  float probability = 0;
  bool variational = true;  ///< one mask per lane for all time steps (Gal & Ghahramani); else one per element
  int time_steps = 0;
  int width = 0;  ///< H: element (lane, t, unit) has index (lane * T + t) * H + unit, t = 0 when variational
  Tiling tiling;
};

/// Recurrent layers one above the other that go on beside each other, in waves: forward, layer l is at time
/// step t when layer l + 1 is at t - 1; backward the other way round. What the layers of a wave send travels
/// together, so the ranks wait for each other in T + L - 1 waves for L layers instead of T * L steps. The
/// bits are those of layer by layer. InternalError where layers or arguments do not fit on each other;
/// PeerError where a rank is lost.
class Wavefront {
 public:
  virtual ~Wavefront() = default;

  struct Forward {
    RecurrenceForward layer;            ///< input: the output of the layer below, or `dropped`
    const DropoutMask* mask = nullptr;  ///< of the input, if any; not of the lowest layer
    std::span<float> dropped = {};      ///< with a mask: the layer's input, full [D, T, R, H], set here
  };
  /// As Recurrence::forward() of all layers, from the lowest on. Collective over the model axis.
  virtual void forward(std::span<const Forward> layers) = 0;

  struct Backward {
    RecurrenceBackward layer;           ///< d_input: the memory of d_output of the layer below
    const DropoutMask* mask = nullptr;  ///< of the input, as in forward()
  };
  /// As Recurrence::backward() of all layers; only the highest one's d_output is given, and only the lowest
  /// one's d_input is a result: what lies between is left undefined. `side_work` is the highest one's while
  /// the waves run, then each layer's own. `gradients_are_set`, of a layer's parameters, is called from the
  /// highest on.
  virtual void backward(std::span<const Backward> layers,
                        const std::function<void(std::size_t layer)>& gradients_are_set) = 0;
};

struct SoftmaxShape {
  int inputs = 0;   ///< H, a multiple of tiling.blocks.count
  int classes = 0;  ///< V; block k owns classes [k*ceil(V/G), …)
  int max_time_steps = 0;
  Tiling tiling;
};

/// Output layer and softmax cross-entropy, the classes split over the model axis.
class SoftmaxOutput {
 public:
  virtual ~SoftmaxOutput() = default;
  /// W: this rank's blocks, [classes of this rank, H]; bias: [classes of this rank].
  virtual void set_parameters(std::span<const float> W, std::span<const float> bias) = 0;
  /// input: full [D, T, R, H]; targets: [D, T, R], -1 where nothing is predicted. Collective over the model
  /// axis. A device may still be at it when this returns.
  virtual void forward(int time_steps, std::span<const float> input,
                       std::span<const std::int32_t> targets) = 0;
  /// Of the latest forward(), [D], host memory: the sum of -ln p(target) over the group's predictions, summed
  /// over lanes within a time step, then over time. Waits for the device.
  virtual void losses(std::span<double> losses) = 0;
  /// Of the latest forward(): gradients of scale * sum of losses. d_input: blocked [D, K, T*R, H/G]; d_W and
  /// d_bias are set to the tree sum over the lane groups.
  virtual void backward(float scale, std::span<float> d_input, std::span<float> d_W,
                        std::span<float> d_bias) = 0;
  /// Of the latest forward(): the logits of time step `t`, [D*R, V], host memory, complete on every rank.
  virtual void logits(int t, std::span<float> out) = 0;
};

struct EmbeddingShape {
  int vocabulary = 0;  ///< V
  int width = 0;       ///< E, a multiple of tiling.blocks.count
  int max_time_steps = 0;
  Tiling tiling;
};

/// Rows of a table [V, E] that is split by column over the model axis.
class EmbeddingLookup {
 public:
  virtual ~EmbeddingLookup() = default;
  /// table: [K, V, E/G]; tokens: [D, T, R]; output: full [D, T, R, E]. Collective over the model axis.
  virtual void forward(int time_steps, std::span<const float> table, std::span<const std::int32_t> tokens,
                       std::span<float> output) = 0;
  /// d_output: blocked [D, K, T*R, E/G]; d_table: [K, V, E/G], set to the tree sum over the lane groups.
  virtual void backward(int time_steps, std::span<const float> d_output, std::span<const std::int32_t> tokens,
                        std::span<float> d_table) = 0;
};

struct AdamStep {
  float learning_rate, beta1, beta2, epsilon;
  float weight_decay;              ///< added to the gradient (Adam) or applied to the value (AdamW)
  bool decoupled;                  ///< AdamW
  float correction1, correction2;  ///< 1 - beta^step
  float gradient_scale;            ///< clipping
};

/// Looks for numbers that are not finite in arrays that other work changes later.
class FiniteChecks {
 public:
  virtual ~FiniteChecks() = default;
  /// At `x` as it is now, for `place`. Does not wait for the device.
  virtual void look(int place, std::span<const float> x) = 0;
  /// [places]: whether something infinite or NaN was seen there since the last call. Waits for the device.
  virtual std::vector<bool> take_found() = 0;
};

class Backend {
 public:
  virtual ~Backend() = default;
  virtual std::string name() const = 0;         ///< "cpu", "cuda"
  virtual std::string description() const = 0;  ///< device, instruction set, threads: for people

  virtual Buffer<float> allocate(std::size_t size) = 0;  ///< zeroed
  virtual void to_device(std::span<const float> host, std::span<float> device) = 0;
  virtual void to_host(std::span<const float> device, std::span<float> host) = 0;
  /// Returns when all work that was handed to the device is done.
  virtual void synchronize() = 0;

  /// Whether its recurrent layers can read rows of a table by themselves (RecurrenceShape::table_rows).
  virtual bool takes_input_tables() const { return false; }
  virtual std::unique_ptr<Recurrence> make_recurrence(const RecurrenceShape& shape,
                                                      Communicator& model_axis) = 0;
  /// Of recurrent layers that this backend made over `model_axis`, from the lowest on, which must outlive it.
  /// UserError on a device that has none.
  virtual std::unique_ptr<Wavefront> make_wavefront(const std::vector<Recurrence*>& layers,
                                                    Communicator& model_axis) = 0;
  virtual std::unique_ptr<SoftmaxOutput> make_softmax_output(const SoftmaxShape& shape,
                                                             Communicator& model_axis) = 0;
  virtual std::unique_ptr<EmbeddingLookup> make_embedding_lookup(const EmbeddingShape& shape,
                                                                 Communicator& model_axis) = 0;

  /// out = x * mask; x and out full [D, T, R, H], may be the same memory.
  virtual void dropout_forward(const DropoutMask& mask, std::span<const float> x, std::span<float> out) = 0;
  /// dx *= mask on blocked gradients [D, K, T*R, H/G].
  virtual void dropout_backward(const DropoutMask& mask, std::span<float> dx) = 0;

  virtual void fill(std::span<float> x, float value) = 0;
  virtual void copy(std::span<const float> from, std::span<float> to) = 0;
  virtual void add(std::span<const float> x, std::span<float> y) = 0;  ///< y += x
  /// Sums of this device's arrays over the ranks of `axis`, at most `most` elements each; to be made after
  /// the layers. The backend must outlive it, and `axis` the backend. Collective over `axis`.
  virtual std::unique_ptr<BackgroundSums> make_background_sums(Communicator& axis, std::size_t most) = 0;
  /// Sums of squares in double precision, over fixed pieces: the bits do not depend on threads.
  virtual std::vector<double> sums_of_squares(std::span<const std::span<const float>> arrays) = 0;
  double sum_of_squares(std::span<const float> x) { return sums_of_squares({&x, 1}).front(); }
  /// Whether no element is infinite or NaN.
  virtual bool all_finite(std::span<const float> x) = 0;
  virtual std::unique_ptr<FiniteChecks> make_finite_checks(int places) = 0;
  /// velocity = momentum * velocity + (scale * gradient + decay * value); value -= learning_rate * velocity.
  virtual void sgd(float learning_rate, float momentum, float weight_decay, float gradient_scale,
                   std::span<const float> gradient, std::span<float> velocity, std::span<float> value) = 0;
  virtual void adam(const AdamStep& step, std::span<const float> gradient, std::span<float> first_moment,
                    std::span<float> second_moment, std::span<float> value) = 0;

  /// For benchmarks. The backend must outlive it.
  virtual std::unique_ptr<ProductSeries> make_product_series(std::vector<Product> products) = 0;
};

}  // namespace lamina
