// A character or word language model: embedding, recurrent layers, softmax output, dropout between them.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "model/lstm_layer.h"
#include "model/settings.h"
#include "runtime/backend.h"
#include "runtime/parameter.h"

namespace lamina {

/// A chunk of sequences for the lanes of one pass, layout [D, T, R].
struct Sequences {
  int time_steps = 0;
  std::span<const std::int32_t> tokens;
  std::span<const std::int32_t> targets;  ///< -1: no prediction
  std::span<const std::int32_t> lengths;  ///< [D, R], or empty: all T
};

/// What the lanes of this rank carry from chunk to chunk, per layer: h [D, R, H] full, c [D, K, R, U].
/// D counts all lane groups of the rank; a pass sees a slice.
class CarriedState {
 public:
  CarriedState(Backend& backend, int layers, int hidden, const Tiling& tiling);
  void reset(Backend& backend);  ///< zeros

  struct View {
    std::span<float> h, c;
  };
  View view(int layer, int first_group, int groups);
  int layers() const { return static_cast<int>(h_.size()); }
  int hidden() const { return hidden_; }
  const Tiling& tiling() const { return tiling_; }

 private:
  int hidden_;
  Tiling tiling_;
  std::vector<Buffer<float>> h_, c_;
};

/// What a backward pass calls on its way.
struct BackwardHooks {
  /// The gradients of these parameters are set, for the device's later work. Ranges come from the last
  /// parameters to the first, and make up the table.
  std::function<void(ParameterRange)> gradients_are_set = [](ParameterRange) {};
  SideWork side_work{};  ///< of every recurrent layer
};

class LanguageModel {
 public:
  /// `pass` is the tiling of one pass: pass.groups.local lane groups at a time. Throws UserError when the
  /// settings are out of range or the sizes do not divide into unit blocks.
  LanguageModel(const ModelSettings& settings, int vocabulary, int max_time_steps, const Tiling& pass,
                Backend& backend, Communicator& model_axis, std::uint64_t seed);
  ~LanguageModel();

  ParameterTable& parameters() { return table_; }
  const ModelSettings& settings() const { return settings_; }
  /// After the optimizer or a checkpoint wrote parameters().values(). Collective over the model axis.
  void parameters_changed();

  /// Runs the lane groups [first_group, first_group + D) of `state`, D = pass.groups.local; the state
  /// advances. `dropout_step`: draws dropout masks for that step; none: no dropout. A device may still be at
  /// it when this returns, and at backward().
  void forward(const Sequences& sequences, CarriedState& state, int first_group,
               std::optional<std::uint64_t> dropout_step);
  /// Of the latest forward(): [D], sums of -ln p in nats. Waits for the device.
  void losses(std::span<double> losses) { output_->losses(losses); }
  /// Of the latest forward(): sets parameters().gradients() to those of `scale` * the sum of its losses.
  void backward(float scale, const BackwardHooks& hooks = {});
  /// Of the latest forward(): [D*R, V] at time step t, host memory, on every rank.
  void logits(int t, std::span<float> out) { output_->logits(t, out); }

  std::size_t saved_size() const;  ///< elements kept for the backward pass on this rank

 private:
  struct Dropout;
  void set_masks(const Tiling& lanes, std::uint64_t dropout_step);
  std::span<const float> dropped(int place, std::span<const float> x);
  void undrop(int place);
  std::span<float> activation(int place);
  std::span<float> gradient(int place);
  // The layers; x: the input of the lowest one, unless that reads tokens. They return the highest one's
  // output after dropout.
  std::span<const float> forward_one_by_one(std::span<const float> x, CarriedState& state, int first_group);
  std::span<const float> forward_as_wavefront(std::span<const float> x, CarriedState& state, int first_group);
  RecurrenceForward forward_arguments(int layer, std::span<const float> x, CarriedState& state,
                                      int first_group);
  void backward_one_by_one(const BackwardHooks& hooks);
  void backward_as_wavefront(const BackwardHooks& hooks);
  /// Of a layer; empty where no gradient is wanted.
  std::span<float> input_gradient(int layer) {
    return layer > 0 || !reads_tokens() ? gradient(layer) : std::span<float>();
  }
  /// Of what comes from the layer below; null for the lowest layer, and without dropout.
  const DropoutMask* mask_between(int layer) const;
  /// Whether the first layer reads rows of the embedding by itself: there are no activations at place 0.
  bool reads_tokens() const { return embedding_ == nullptr; }

  ModelSettings settings_;
  int vocabulary_;
  Tiling pass_;
  Backend& backend_;
  ParameterTable table_;
  int table_index_ = -1, output_W_ = -1, output_bias_ = -1;
  std::unique_ptr<EmbeddingLookup> embedding_;  ///< null: reads_tokens()
  std::vector<LstmLayer> layers_;
  std::unique_ptr<Wavefront> wavefront_;  ///< null: layer by layer
  std::unique_ptr<SoftmaxOutput> output_;
  std::unique_ptr<Dropout> dropout_;

  // Activations, one per place between layers: 0 after the embedding, l+1 after layer l.
  std::vector<Buffer<float>> activations_;  ///< full
  std::vector<Buffer<float>> dropped_;      ///< full, after dropout
  std::vector<Buffer<float>> gradients_;    ///< blocked
  // The latest forward pass.
  Sequences latest_;
  bool latest_dropped_ = false;
};

}  // namespace lamina
