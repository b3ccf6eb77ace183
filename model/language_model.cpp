#include "model/language_model.h"

#include <fmt/format.h>

#include <cmath>
#include <string>

#include "runtime/error.h"
#include "runtime/trace.h"

namespace lamina {
namespace {

Normalization normalization_of(const ModelSettings& settings) {
  return settings.normalization == "layer" ? Normalization::layer : Normalization::none;
}

void require_blocks(const char* flag, int width, int blocks) {
  if (width >= 1 && width % blocks == 0) return;
  throw UserError(fmt::format("--{} {} cannot be split into {} unit blocks: use a multiple of {}", flag,
                              width, blocks, blocks));
}

/// Of what lies at a place between layers, 0 being after the embedding.
int width_at(const ModelSettings& settings, int place) {
  return place == 0 ? settings.embedding : settings.hidden;
}

std::size_t count(std::int64_t value) { return static_cast<std::size_t>(value); }

/// Whether the first layer's input side is worked out once for each row of the embedding instead of for each
/// character: the rows must be its inputs as they are, and at most half as many as a lane group's (with as
/// many it costs as much). Sums are in another order then, so no size of the grid may come in here.
bool pays_by_token(const ModelSettings& settings, int vocabulary, int max_time_steps, const Tiling& pass) {
  return settings.dropout == 0 && 2 * std::int64_t{vocabulary} <= std::int64_t{max_time_steps} * pass.rows;
}

}  // namespace

CarriedState::CarriedState(Backend& backend, int layers, int hidden, const Tiling& tiling)
    : hidden_(hidden), tiling_(tiling) {
  const std::size_t full = count(tiling.local_lanes()) * count(hidden);
  const std::size_t blocked = full / count(tiling.blocks.count) * count(tiling.blocks.local);
  for (int l = 0; l < layers; ++l) {
    h_.push_back(backend.allocate(full));
    c_.push_back(backend.allocate(blocked));
  }
}

void CarriedState::reset(Backend& backend) {
  for (auto& h : h_) backend.fill(h.view(), 0);
  for (auto& c : c_) backend.fill(c.view(), 0);
}

CarriedState::View CarriedState::view(int layer, int first_group, int groups) {
  const auto slice = [&](Buffer<float>& all) {
    const std::size_t per_group = all.size() / count(tiling_.groups.local);
    return all.view(per_group * count(first_group), per_group * count(groups));
  };
  return {slice(h_[count(layer)]), slice(c_[count(layer)])};
}

// One stream per place between layers, and the masks of the latest forward pass.
struct LanguageModel::Dropout {
  std::vector<RandomStream> streams;
  std::vector<DropoutMask> masks;
};

LanguageModel::LanguageModel(const ModelSettings& settings, int vocabulary, int max_time_steps,
                             const Tiling& pass, Backend& backend, Communicator& model_axis,
                             std::uint64_t seed)
    : settings_(settings),
      vocabulary_(vocabulary),
      pass_(pass),
      backend_(backend),
      dropout_(std::make_unique<Dropout>()) {
  require_blocks("hidden", settings.hidden, pass.blocks.count);
  require_blocks("embedding", settings.embedding, pass.blocks.count);
  const Share blocks = pass.blocks;
  const std::int64_t V = vocabulary, E = settings.embedding, H = settings.hidden;

  table_index_ = table_.add("embedding/table", {V, E}, {V, E, 1, blocks.count}, blocks,
                            Initializer::uniform(1 / std::sqrt(static_cast<float>(E))), /*decay=*/false);
  const bool by_token =
      backend.takes_input_tables() && pays_by_token(settings, vocabulary, max_time_steps, pass);
  if (!by_token)
    embedding_ =
        backend.make_embedding_lookup({vocabulary, settings.embedding, max_time_steps, pass}, model_axis);

  for (int l = 0; l < settings.layers; ++l) {
    const RecurrenceShape shape{.inputs = l == 0 ? settings.embedding : settings.hidden,
                                .hidden = settings.hidden,
                                .max_time_steps = max_time_steps,
                                .tiling = pass,
                                .normalization = normalization_of(settings),
                                .exchange = exchange_named(settings.exchange),
                                .precision = precision_named(settings.precision),
                                .time_loop = time_loop_named(settings.time_loop),
                                .table_rows = by_token && l == 0 ? vocabulary : 0};
    layers_.emplace_back("lstm" + std::to_string(l), shape, table_, backend, model_axis,
                         shape.table_rows > 0 ? table_index_ : -1);
  }

  if (settings.layer_order == "wavefront") {
    std::vector<Recurrence*> recurrences;
    for (LstmLayer& layer : layers_) recurrences.push_back(&layer.recurrence());
    wavefront_ = backend.make_wavefront(recurrences, model_axis);
  }

  output_W_ = table_.add("output/W", {V, H}, {1, V, H, blocks.count}, blocks,
                         Initializer::uniform(1 / std::sqrt(static_cast<float>(H))), /*decay=*/true);
  output_bias_ = table_.add("output/bias", {V}, {1, V, 1, blocks.count}, blocks, Initializer::constant(0),
                            /*decay=*/false);
  output_ = backend.make_softmax_output({settings.hidden, vocabulary, max_time_steps, pass}, model_axis);

  const std::size_t rows = count(max_time_steps) * count(pass.local_lanes());
  for (int place = 0; place <= settings.layers; ++place) {
    const std::size_t size = place > 0 ? rows * count(H) : by_token ? 0 : rows * count(E);
    activations_.push_back(backend.allocate(size));
    if (settings.dropout > 0) dropped_.push_back(backend.allocate(size));
    gradients_.push_back(backend.allocate(size / count(blocks.count) * count(blocks.local)));
    dropout_->streams.emplace_back(seed, "dropout/" + std::to_string(place));
  }
  table_.allocate(backend, seed);
  parameters_changed();
}

LanguageModel::~LanguageModel() = default;

void LanguageModel::parameters_changed() {
  const Span span(SpanKind::optimizer, "pack weights");
  for (LstmLayer& layer : layers_) layer.parameters_changed(table_);
  output_->set_parameters(table_.value(output_W_), table_.value(output_bias_));
}

std::span<const float> LanguageModel::dropped(int place, std::span<const float> x) {
  if (!latest_dropped_) return x;
  const std::span<float> out = dropped_[count(place)].view().first(x.size());
  backend_.dropout_forward(dropout_->masks[count(place)], x, out);
  return out;
}

void LanguageModel::set_masks(const Tiling& lanes, std::uint64_t dropout_step) {
  dropout_->masks.clear();
  for (int place = 0; place <= settings_.layers; ++place)
    dropout_->masks.push_back({.stream = &dropout_->streams[count(place)],
                               .step = dropout_step,
                               .probability = static_cast<float>(settings_.dropout),
                               .variational = settings_.dropout_kind == "variational",
                               .time_steps = latest_.time_steps,
                               .width = width_at(settings_, place),
                               .tiling = lanes});
}

const DropoutMask* LanguageModel::mask_between(int layer) const {
  return latest_dropped_ && layer > 0 ? &dropout_->masks[count(layer)] : nullptr;
}

std::span<float> LanguageModel::activation(int place) {
  const int width = width_at(settings_, place);
  return activations_[count(place)].view().first(count(latest_.time_steps) * count(pass_.local_lanes()) *
                                                 count(width));
}

std::span<float> LanguageModel::gradient(int place) {
  const int width = width_at(settings_, place);
  return gradients_[count(place)].view().first(count(latest_.time_steps) * count(pass_.local_lanes()) *
                                               count(width / pass_.blocks.count * pass_.blocks.local));
}

void LanguageModel::forward(const Sequences& sequences, CarriedState& state, int first_group,
                            std::optional<std::uint64_t> dropout_step) {
  const Span span(SpanKind::other, "forward");
  latest_ = sequences;
  latest_dropped_ = dropout_step.has_value() && settings_.dropout > 0;
  Tiling lanes = pass_;
  lanes.groups.first = state.tiling().groups.first + first_group;
  set_masks(lanes, dropout_step.value_or(0));

  // x = table[token], unless the first layer reads the tokens itself
  std::span<const float> x;
  if (!reads_tokens()) {
    embedding_->forward(sequences.time_steps, table_.value(table_index_), sequences.tokens, activation(0));
    x = dropped(0, activation(0));
  }
  x = wavefront_ ? forward_as_wavefront(x, state, first_group) : forward_one_by_one(x, state, first_group);
  // loss = -ln softmax(W x + b)[target]
  output_->forward(sequences.time_steps, x, sequences.targets);
}

RecurrenceForward LanguageModel::forward_arguments(int layer, std::span<const float> x, CarriedState& state,
                                                   int first_group) {
  const CarriedState::View carried = state.view(layer, first_group, pass_.groups.local);
  return {.time_steps = latest_.time_steps,
          .input = x,
          .h_first = carried.h,
          .c_first = carried.c,
          .lengths = latest_.lengths,
          .output = activation(layer + 1),
          .h_last = carried.h,
          .c_last = carried.c,
          .tokens = layer == 0 && reads_tokens() ? latest_.tokens : std::span<const std::int32_t>()};
}

// x = dropout(lstm(x))
std::span<const float> LanguageModel::forward_one_by_one(std::span<const float> x, CarriedState& state,
                                                         int first_group) {
  for (int l = 0; l < settings_.layers; ++l) {
    layers_[count(l)].forward(forward_arguments(l, x, state, first_group));
    x = dropped(l + 1, activation(l + 1));
  }
  return x;
}

std::span<const float> LanguageModel::forward_as_wavefront(std::span<const float> x, CarriedState& state,
                                                           int first_group) {
  std::vector<Wavefront::Forward> layers;
  for (int l = 0; l < settings_.layers; ++l) {
    const DropoutMask* mask = mask_between(l);
    std::span<float> after_dropout;
    if (mask != nullptr) after_dropout = dropped_[count(l)].view().first(activation(l).size());
    if (l > 0) x = mask != nullptr ? after_dropout : activation(l);
    layers.push_back({forward_arguments(l, x, state, first_group), mask, after_dropout});
  }
  wavefront_->forward(layers);
  return dropped(settings_.layers, activation(settings_.layers));
}

void LanguageModel::undrop(int place) {
  if (latest_dropped_) backend_.dropout_backward(dropout_->masks[count(place)], gradient(place));
}

void LanguageModel::backward(float scale, const BackwardHooks& hooks) {
  const Span span(SpanKind::other, "backward");
  output_->backward(scale, gradient(settings_.layers), table_.gradient(output_W_),
                    table_.gradient(output_bias_));
  hooks.gradients_are_set({output_W_, output_bias_ + 1});
  if (wavefront_)
    backward_as_wavefront(hooks);
  else
    backward_one_by_one(hooks);
  if (!reads_tokens()) {
    undrop(0);
    embedding_->backward(latest_.time_steps, gradient(0), latest_.tokens, table_.gradient(table_index_));
  }
  hooks.gradients_are_set({table_index_, table_index_ + 1});
}

void LanguageModel::backward_one_by_one(const BackwardHooks& hooks) {
  for (int l = settings_.layers - 1; l >= 0; --l) {
    undrop(l + 1);
    layers_[count(l)].backward(gradient(l + 1), input_gradient(l), table_, hooks.side_work);
    hooks.gradients_are_set(layers_[count(l)].parameters());
  }
}

void LanguageModel::backward_as_wavefront(const BackwardHooks& hooks) {
  undrop(settings_.layers);
  std::vector<Wavefront::Backward> layers;
  for (int l = 0; l < settings_.layers; ++l)
    layers.push_back(
        {layers_[count(l)].backward_arguments(gradient(l + 1), input_gradient(l), table_, hooks.side_work),
         mask_between(l)});
  wavefront_->backward(layers, [&](std::size_t l) { hooks.gradients_are_set(layers_[l].parameters()); });
}

std::size_t LanguageModel::saved_size() const {
  std::size_t size = 0;
  for (const LstmLayer& layer : layers_) size += layer.saved_size();
  for (const auto* buffers : {&activations_, &dropped_, &gradients_}) {
    for (const Buffer<float>& buffer : *buffers) size += buffer.size();
  }
  return size;
}

}  // namespace lamina
