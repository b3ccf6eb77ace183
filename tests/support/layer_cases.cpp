#include "tests/support/layer_cases.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <mutex>

#include "kernels/backends.h"
#include "model/lstm_layer.h"
#include "runtime/tree.h"
#include "tests/reference/bf16.h"
#include "tests/reference/language_model.h"
#include "tests/reference/layout.h"
#include "tests/support/device_tensor.h"
#include "tests/support/random_values.h"

namespace lamina::test {
namespace {

using reference::SequenceLayout;

std::size_t size(int n) { return static_cast<std::size_t>(n); }
std::size_t size(int a, int b, int c = 1) { return size(a) * size(b) * size(c); }

/// The lanes of this pass of an integer tensor [T, B], in the layout [D, T, R].
std::vector<std::int32_t> local_integers(const std::vector<std::int32_t>& global,
                                         const SequenceLayout& layout) {
  return layout.to_full<std::int32_t>(global);
}

/// The blocks of this rank of a parameter, from its global tensor and back.
struct ParameterBlocks {
  BlockedShape shape;
  Share share;

  std::vector<float> local(const std::vector<float>& global) const {
    return reference::to_blocks<float>(global, shape, share);
  }
  void write(const std::vector<float>& local, std::vector<float>& global) const {
    reference::from_blocks<float>(std::span(local), shape, share, global);
  }
};

// --- LSTM -------------------------------------------------------------------------------------------------

class LstmOnRank final : public LayerOnRank {
 public:
  /// `tokens` [T, B]: for a table, else empty.
  LstmOnRank(const LayerSizes& sizes, const LstmChoices& choices, std::vector<std::int32_t> lengths,
             std::vector<std::int32_t> tokens, Backend& backend, Communicator& model_axis, const Tiling& pass)
      : sizes_(sizes),
        pass_(pass),
        lengths_(std::move(lengths)),
        tokens_(std::move(tokens)),
        backend_(backend),
        inputs_(choices.table ? add_inputs() : -1),
        layer_("lstm",
               {.inputs = sizes.inputs,
                .hidden = sizes.hidden,
                .max_time_steps = sizes.time_steps,
                .tiling = pass,
                .normalization = choices.normalization,
                .exchange = choices.exchange,
                .epsilon = choices.epsilon,
                .precision = choices.time_loop == TimeLoop::persistent ? Precision::bf16 : choices.precision,
                .time_loop = choices.time_loop,
                .table_rows = choices.table ? sizes.classes : 0},
               table_, backend, model_axis, inputs_),
        x_(backend, layout(sizes.time_steps, sizes.inputs).full_size()),
        d_x_(backend, layout(sizes.time_steps, sizes.inputs).blocked_size()),
        output_(backend, layout(sizes.time_steps, sizes.hidden).full_size()),
        d_output_(backend, layout(sizes.time_steps, sizes.hidden).blocked_size()),
        h_(backend, layout(1, sizes.hidden).full_size()),
        c_(backend, layout(1, sizes.hidden).blocked_size()) {
    table_.allocate(backend, /*seed=*/1);
    backend.fill(table_.gradients(), kUnwritten);
  }

  void run(const Tensors& in, int time_steps, Tensors& out) override {
    set_parameters(in);
    forward(in, time_steps, out);
    backward(in, time_steps, out);
  }

 private:
  SequenceLayout layout(int time_steps, int width) const { return {pass_, time_steps, width}; }

  int add_inputs() {
    const std::int64_t V = sizes_.classes, I = sizes_.inputs;
    return table_.add("inputs/table", {V, I}, {V, I, 1, pass_.blocks.count}, pass_.blocks,
                      Initializer::constant(0), /*decay=*/false);
  }

  void set_parameters(const Tensors& in) {
    for (int i = 0; i < static_cast<int>(table_.all().size()); ++i) {
      const Parameter& p = table_[i];
      const std::string name = p.name.substr(p.name.find('/') + 1);
      backend_.to_device(reference::to_blocks<float>(in.at(name), p.blocked, p.blocks), table_.value(i));
    }
    layer_.parameters_changed(table_);
  }

  void forward(const Tensors& in, int time_steps, Tensors& out) {
    const SequenceLayout inputs = layout(time_steps, sizes_.inputs),
                         units = layout(time_steps, sizes_.hidden);
    const SequenceLayout state = layout(1, sizes_.hidden);
    local_tokens_ = local_integers(tokens_, layout(tokens_.empty() ? 0 : time_steps, 1));
    if (tokens_.empty()) x_.set(inputs.to_full<float>(in.at("x")));
    h_.set(state.to_full<float>(in.at("h_first")));
    c_.set(state.to_blocked<float>(in.at("c_first")));
    if (!lengths_.empty()) local_lengths_ = local_integers(lengths_, layout(1, 1));
    for (std::int32_t& length : local_lengths_) length = std::min(length, time_steps);

    // As the language model does it: the state is carried in place.
    layer_.forward({.time_steps = time_steps,
                    .input = x_.first(tokens_.empty() ? inputs.full_size() : 0),
                    .h_first = h_.view(),
                    .c_first = c_.view(),
                    .lengths = local_lengths_,
                    .output = output_.first(units.full_size()),
                    .h_last = h_.view(),
                    .c_last = c_.view(),
                    .tokens = local_tokens_});

    units.from_full(std::span<const float>(output_.host(units.full_size())), out["output"]);
    state.from_full(std::span<const float>(h_.host(state.full_size())), out["h_last"]);
    state.from_blocked(std::span<const float>(c_.host(state.blocked_size())), out["c_last"]);
  }

  void backward(const Tensors& in, int time_steps, Tensors& out) {
    const SequenceLayout inputs = layout(time_steps, sizes_.inputs),
                         units = layout(time_steps, sizes_.hidden);
    d_output_.set(units.to_blocked<float>(in.at("d_output")));

    layer_.backward(d_output_.first(units.blocked_size()),
                    d_x_.first(tokens_.empty() ? inputs.blocked_size() : 0), table_);

    if (tokens_.empty())
      inputs.from_blocked(std::span<const float>(d_x_.host(inputs.blocked_size())), out["d_x"]);
    for (int i = 0; i < static_cast<int>(table_.all().size()); ++i) {
      const Parameter& p = table_[i];
      std::vector<float> gradient(size(static_cast<int>(p.local_size)));
      backend_.to_host(table_.gradient(i), gradient);
      reference::from_blocks(std::span<const float>(gradient), p.blocked, p.blocks,
                             out["d_" + p.name.substr(p.name.find('/') + 1)]);
    }
  }

  LayerSizes sizes_;
  Tiling pass_;
  std::vector<std::int32_t> lengths_, local_lengths_, tokens_, local_tokens_;
  Backend& backend_;
  ParameterTable table_;
  int inputs_;
  LstmLayer layer_;
  DeviceTensor x_, d_x_, output_, d_output_, h_, c_;
};

class LstmCase final : public LayerCase {
 public:
  LstmCase(const LayerSizes& sizes, const LstmChoices& choices) : LayerCase(sizes), choices_(choices) {
    if (choices.table)
      tokens_ = random_integers("tokens", size(sizes.time_steps, sizes.batch()), 0, sizes.classes - 1);
    if (!choices.lengths) return;
    lengths_ = random_integers("lengths", size(sizes.batch()), 0, sizes.time_steps);
    lengths_.front() = sizes.time_steps;
    lengths_.back() = 0;
  }

  Tensors inputs() const override {
    const int T = sizes_.time_steps, B = sizes_.batch(), I = sizes_.inputs, H = sizes_.hidden;
    Tensors in = {choices_.table
                      ? std::pair("table", random_values("rows of the table", size(sizes_.classes, I)))
                      : std::pair("x", random_values("x", size(T, B, I))),
                  {"h_first", random_values("h_first", size(B, H))},
                  {"c_first", random_values("c_first", size(B, H))},
                  {"d_output", random_values("d_output", size(T, B, H))}};
    if (choices_.zero_state)
      for (const char* name : {"h_first", "c_first"}) std::ranges::fill(in[name], 0.0f);
    reference::LstmParameters parameters = reference::zero_parameters(shape());
    for (const auto& [name, values] : parameters.tensors()) {
      const bool gain = name.starts_with("gain");
      in[name] = random_values(name, values->size(), gain ? 0.5 : -0.5, gain ? 1.5 : 0.5);
    }
    return in;
  }

  std::unique_ptr<LayerOnRank> on_rank(Backend& backend, Communicator& model_axis,
                                       const Tiling& pass) const override {
    return std::make_unique<LstmOnRank>(sizes_, choices_, lengths_, tokens_, backend, model_axis, pass);
  }

  ReferenceTensors reference(const Tensors& in) const override {
    reference::LstmParameters parameters = reference::zero_parameters(shape());
    for (const auto& [name, values] : parameters.tensors()) *values = converted<double>(in.at(name));
    const reference::LstmInput input{sizes_.time_steps,
                                     sizes_.batch(),
                                     inputs_of(in),
                                     converted<double>(in.at("h_first")),
                                     converted<double>(in.at("c_first")),
                                     {lengths_.begin(), lengths_.end()}};
    const reference::LstmOutput forward = lstm_forward(shape(), parameters, input);
    reference::LstmGradients backward =
        lstm_backward(shape(), parameters, input, forward, converted<double>(in.at("d_output")));

    ReferenceTensors out = {{"output", forward.h}, {"h_last", forward.h_last}, {"c_last", forward.c_last}};
    if (choices_.table)
      out["d_table"] = reference::embed_backward(backward.x, tokens_, sizes_.classes, sizes_.inputs);
    else
      out["d_x"] = backward.x;
    for (const auto& [name, values] : backward.parameters.tensors()) out["d_" + name] = *values;
    return out;
  }

  // The reference rounds as the layer does, but for a value that float's rounding pushes across a tie: it is
  // off by 2^-8 of itself. The means of columns push weights, so there are some where they are taken out; and
  // with a table the layer rounds sums of what the reference rounds one by one.
  double tolerance() const override {
    const bool rounds_otherwise = choices_.normalization == Normalization::layer || choices_.table;
    const bool is_rounded = choices_.precision == Precision::bf16 && rounds_otherwise;
    return is_rounded ? 1.0 / 256 : LayerCase::tolerance();
  }

 private:
  reference::LstmShape shape() const {
    return {sizes_.inputs, sizes_.hidden, choices_.normalization, static_cast<double>(choices_.epsilon),
            choices_.precision == Precision::bf16 ? reference::rounded_to_bf16 : nullptr};
  }
  reference::Vector inputs_of(const Tensors& in) const {
    if (!choices_.table) return converted<double>(in.at("x"));
    return reference::embed(converted<double>(in.at("table")), tokens_, sizes_.inputs);
  }

  LstmChoices choices_;
  std::vector<std::int32_t> lengths_, tokens_;
};

// --- embedding --------------------------------------------------------------------------------------------

class EmbeddingOnRank final : public LayerOnRank {
 public:
  EmbeddingOnRank(const LayerSizes& sizes, std::vector<std::int32_t> tokens, Backend& backend,
                  Communicator& model_axis, const Tiling& pass)
      : sizes_(sizes),
        pass_(pass),
        tokens_(std::move(tokens)),
        blocks_{{sizes.classes, sizes.hidden, 1, sizes.blocks}, pass.blocks},
        layer_(
            backend.make_embedding_lookup({sizes.classes, sizes.hidden, sizes.time_steps, pass}, model_axis)),
        table_(backend, size(sizes.classes, sizes.hidden / sizes.blocks, pass.blocks.local)),
        d_table_(backend, table_.view().size()),
        output_(backend, layout(sizes.time_steps, sizes.hidden).full_size()),
        d_output_(backend, layout(sizes.time_steps, sizes.hidden).blocked_size()) {}

  void run(const Tensors& in, int time_steps, Tensors& out) override {
    const SequenceLayout units = layout(time_steps, sizes_.hidden);
    const auto tokens = local_integers(tokens_, layout(time_steps, 1));
    table_.set(blocks_.local(in.at("table")));
    d_output_.set(units.to_blocked<float>(in.at("d_output")));

    layer_->forward(time_steps, table_.view(), tokens, output_.first(units.full_size()));
    layer_->backward(time_steps, d_output_.first(units.blocked_size()), tokens, d_table_.view());

    units.from_full(std::span<const float>(output_.host(units.full_size())), out["output"]);
    blocks_.write(d_table_.host(d_table_.view().size()), out["d_table"]);
  }

 private:
  SequenceLayout layout(int time_steps, int width) const { return {pass_, time_steps, width}; }

  LayerSizes sizes_;
  Tiling pass_;
  std::vector<std::int32_t> tokens_;
  ParameterBlocks blocks_;
  std::unique_ptr<EmbeddingLookup> layer_;
  DeviceTensor table_, d_table_, output_, d_output_;
};

class EmbeddingCase final : public LayerCase {
 public:
  explicit EmbeddingCase(const LayerSizes& sizes)
      : LayerCase(sizes),
        tokens_(random_integers("tokens", size(sizes.time_steps, sizes.batch()), 0, sizes.classes - 1)) {}

  Tensors inputs() const override {
    return {{"table", random_values("table", size(sizes_.classes, sizes_.hidden))},
            {"d_output", random_values("d_output", size(sizes_.time_steps, sizes_.batch(), sizes_.hidden))}};
  }
  std::unique_ptr<LayerOnRank> on_rank(Backend& backend, Communicator& model_axis,
                                       const Tiling& pass) const override {
    return std::make_unique<EmbeddingOnRank>(sizes_, tokens_, backend, model_axis, pass);
  }
  ReferenceTensors reference(const Tensors& in) const override {
    return {{"output", reference::embed(converted<double>(in.at("table")), tokens_, sizes_.hidden)},
            {"d_table", reference::embed_backward(converted<double>(in.at("d_output")), tokens_,
                                                  sizes_.classes, sizes_.hidden)}};
  }

 private:
  std::vector<std::int32_t> tokens_;
};

// --- dropout ----------------------------------------------------------------------------------------------

constexpr double kDropProbability = 0.3;
constexpr std::uint64_t kDropStep = 17;

class DropoutOnRank final : public LayerOnRank {
 public:
  DropoutOnRank(const LayerSizes& sizes, bool variational, Backend& backend, const Tiling& pass)
      : sizes_(sizes),
        pass_(pass),
        variational_(variational),
        backend_(backend),
        x_(backend, layout(sizes.time_steps).full_size()),
        output_(backend, layout(sizes.time_steps).full_size()),
        dx_(backend, layout(sizes.time_steps).blocked_size()) {}

  void run(const Tensors& in, int time_steps, Tensors& out) override {
    const SequenceLayout units = layout(time_steps);
    const DropoutMask mask{.stream = &stream_,
                           .step = kDropStep,
                           .probability = static_cast<float>(kDropProbability),
                           .variational = variational_,
                           .time_steps = time_steps,
                           .width = sizes_.hidden,
                           .tiling = pass_};
    x_.set(units.to_full<float>(in.at("x")));
    dx_.set(units.to_blocked<float>(in.at("d_output")));

    backend_.dropout_forward(mask, x_.first(units.full_size()), output_.first(units.full_size()));
    backend_.dropout_forward(mask, x_.first(units.full_size()), x_.first(units.full_size()));
    backend_.dropout_backward(mask, dx_.first(units.blocked_size()));

    units.from_full(std::span<const float>(output_.host(units.full_size())), out["output"]);
    units.from_full(std::span<const float>(x_.host(units.full_size())), out["output_in_place"]);
    units.from_blocked(std::span<const float>(dx_.host(units.blocked_size())), out["d_x"]);
  }

 private:
  SequenceLayout layout(int time_steps) const { return {pass_, time_steps, sizes_.hidden}; }

  LayerSizes sizes_;
  Tiling pass_;
  bool variational_;
  RandomStream stream_{5, "dropout/0"};
  Backend& backend_;
  DeviceTensor x_, output_, dx_;
};

class DropoutCase final : public LayerCase {
 public:
  DropoutCase(const LayerSizes& sizes, bool variational) : LayerCase(sizes), variational_(variational) {}

  Tensors inputs() const override {
    const std::size_t count = size(sizes_.time_steps, sizes_.batch(), sizes_.hidden);
    return {{"x", random_values("x", count)}, {"d_output", random_values("d_output", count)}};
  }
  std::unique_ptr<LayerOnRank> on_rank(Backend& backend, Communicator&, const Tiling& pass) const override {
    return std::make_unique<DropoutOnRank>(sizes_, variational_, backend, pass);
  }
  ReferenceTensors reference(const Tensors& in) const override {
    const auto factors =
        reference::dropout_factors(RandomStream(5, "dropout/0"), kDropStep, kDropProbability, variational_,
                                   sizes_.time_steps, sizes_.batch(), sizes_.hidden);
    const auto output = reference::dropped(converted<double>(in.at("x")), factors);
    return {{"output", output},
            {"output_in_place", output},
            {"d_x", reference::dropped(converted<double>(in.at("d_output")), factors)}};
  }

 private:
  bool variational_;
};

// --- softmax output ---------------------------------------------------------------------------------------

class SoftmaxOnRank final : public LayerOnRank {
 public:
  SoftmaxOnRank(const LayerSizes& sizes, std::vector<std::int32_t> targets, Backend& backend,
                Communicator& model_axis, const Tiling& pass)
      : sizes_(sizes),
        pass_(pass),
        targets_(std::move(targets)),
        W_blocks_{{1, sizes.classes, sizes.hidden, sizes.blocks}, pass.blocks},
        bias_blocks_{{1, sizes.classes, 1, sizes.blocks}, pass.blocks},
        layer_(
            backend.make_softmax_output({sizes.hidden, sizes.classes, sizes.time_steps, pass}, model_axis)),
        x_(backend, layout(sizes.time_steps).full_size()),
        d_x_(backend, layout(sizes.time_steps).blocked_size()),
        W_(backend, local_classes() * size(sizes.hidden)),
        d_W_(backend, local_classes() * size(sizes.hidden)),
        bias_(backend, local_classes()),
        d_bias_(backend, local_classes()) {}

  void run(const Tensors& in, int time_steps, Tensors& out) override {
    const SequenceLayout units = layout(time_steps);
    const auto targets = local_integers(targets_, {pass_, time_steps, 1});
    x_.set(units.to_full<float>(in.at("x")));
    W_.set(W_blocks_.local(in.at("W")));
    bias_.set(bias_blocks_.local(in.at("bias")));

    std::vector<double> losses(size(pass_.groups.local));
    layer_->set_parameters(W_.view(), bias_.view());
    layer_->forward(time_steps, x_.first(units.full_size()), targets);
    layer_->losses(losses);
    write_logits(time_steps, out);
    layer_->backward(static_cast<float>(kSoftmaxLossScale), d_x_.first(units.blocked_size()), d_W_.view(),
                     d_bias_.view());

    for (int d = 0; d < pass_.groups.local; ++d)
      out["losses"][size(pass_.groups.first + d)] = static_cast<float>(losses[size(d)]);
    units.from_blocked(std::span<const float>(d_x_.host(units.blocked_size())), out["d_x"]);
    W_blocks_.write(d_W_.host(d_W_.view().size()), out["d_W"]);
    bias_blocks_.write(d_bias_.host(d_bias_.view().size()), out["d_bias"]);
  }

 private:
  SequenceLayout layout(int time_steps) const { return {pass_, time_steps, sizes_.hidden}; }
  std::size_t local_classes() const {
    std::size_t count = 0;
    for (int k = 0; k < pass_.blocks.local; ++k)
      count += static_cast<std::size_t>(bias_blocks_.shape.block_size(pass_.blocks.first + k));
    return count;
  }

  void write_logits(int time_steps, Tensors& out) {
    const std::size_t V = size(sizes_.classes), lanes = size(pass_.local_lanes());
    std::vector<float> logits(lanes * V);
    for (int t = 0; t < time_steps; ++t) {
      layer_->logits(t, logits);
      const std::size_t first = size(t, sizes_.batch()) + size(pass_.first_lane());
      std::ranges::copy(logits, out["logits"].begin() + static_cast<std::ptrdiff_t>(first * V));
    }
  }

  LayerSizes sizes_;
  Tiling pass_;
  std::vector<std::int32_t> targets_;
  ParameterBlocks W_blocks_, bias_blocks_;
  std::unique_ptr<SoftmaxOutput> layer_;
  DeviceTensor x_, d_x_, W_, d_W_, bias_, d_bias_;
};

class SoftmaxCase final : public LayerCase {
 public:
  explicit SoftmaxCase(const LayerSizes& sizes)
      : LayerCase(sizes),
        targets_(random_integers("targets", size(sizes.time_steps, sizes.batch()), -1, sizes.classes - 1)) {}

  Tensors inputs() const override {
    return {{"x", random_values("x", size(sizes_.time_steps, sizes_.batch(), sizes_.hidden))},
            {"W", random_values("W", size(sizes_.classes, sizes_.hidden))},
            {"bias", random_values("bias", size(sizes_.classes))}};
  }
  std::unique_ptr<LayerOnRank> on_rank(Backend& backend, Communicator& model_axis,
                                       const Tiling& pass) const override {
    return std::make_unique<SoftmaxOnRank>(sizes_, targets_, backend, model_axis, pass);
  }
  ReferenceTensors reference(const Tensors& in) const override {
    const auto result = reference::softmax_cross_entropy(
        {sizes_.classes, converted<double>(in.at("x")), converted<double>(in.at("W")),
         converted<double>(in.at("bias")), targets_},
        kSoftmaxLossScale);
    std::vector<double> losses(size(sizes_.groups));
    for (std::size_t n = 0; n < result.losses.size(); ++n)
      losses[n % size(sizes_.batch()) / size(sizes_.rows)] += result.losses[n];
    return {{"losses", losses},
            {"logits", result.logits},
            {"d_x", result.d_x},
            {"d_W", result.d_W},
            {"d_bias", result.d_bias}};
  }

 private:
  std::vector<std::int32_t> targets_;
};

// --- running a case ---------------------------------------------------------------------------------------

/// Parameter gradients are sums over lanes; all else belongs to lanes.
bool is_summed(const std::string& name) { return name.starts_with("d_") && name != "d_x"; }

/// Empty global tensors of everything that the case gives.
Tensors outputs_of(const LayerCase& layer, const Tensors& in) {
  Tensors out;
  for (const auto& [name, values] : layer.reference(in)) out[name].resize(values.size(), kUnwritten);
  return out;
}

Tensors other_values(const Tensors& in) {
  Tensors other;
  for (const auto& [name, values] : in) other[name] = random_values("other " + name, values.size(), 0.1, 2);
  return other;
}

std::vector<float> sum(const std::vector<float>& left, const std::vector<float>& right) {
  std::vector<float> total(left.size());
  for (std::size_t i = 0; i < left.size(); ++i) total[i] = left[i] + right[i];
  return total;
}

/// What one rank has of the global tensors, after all passes.
Tensors run_rank(const LayerCase& layer, const Tensors& in, const RunChoices& choices,
                 Communicator& model_axis, const Tensors& empty) {
  const LayerSizes& sizes = layer.sizes();
  const auto backend =
      choices.make_backend ? choices.make_backend(model_axis.rank()) : make_cpu_backend(choices.threads);
  std::map<std::string, TreeMerger<std::vector<float>, decltype(&sum)>> sums;
  Tensors out = empty;

  for (int pass = 0; pass < choices.passes; ++pass) {
    const Tiling tiling{Share::of(sizes.groups, pass, choices.passes),
                        Share::of(sizes.blocks, model_axis.rank(), model_axis.size()), sizes.rows};
    const auto on_rank = layer.on_rank(*backend, model_axis, tiling);
    if (choices.used) {
      Tensors ignored = empty;
      on_rank->run(other_values(in), sizes.time_steps / 2 + 1, ignored);
    }
    on_rank->run(in, sizes.time_steps, out);
    for (auto& [name, values] : out)
      if (is_summed(name)) sums.try_emplace(name, &sum).first->second.add(values);
  }
  for (auto& [name, merger] : sums) out[name] = merger.take();
  return out;
}

/// Adds a rank's elements to the whole; copies of one element must agree.
void merge(const std::vector<float>& part, std::vector<float>& whole, const std::string& name) {
  std::size_t disagreeing = 0;
  for (std::size_t i = 0; i < part.size(); ++i) {
    if (std::isnan(part[i])) continue;
    if (std::isnan(whole[i])) whole[i] = part[i];
    if (std::bit_cast<std::uint32_t>(whole[i]) != std::bit_cast<std::uint32_t>(part[i])) ++disagreeing;
  }
  EXPECT_EQ(disagreeing, 0u) << "elements of " << name << " whose copies differ between ranks";
}

}  // namespace

std::unique_ptr<LayerCase> make_lstm_case(const LayerSizes& sizes, const LstmChoices& choices) {
  return std::make_unique<LstmCase>(sizes, choices);
}
std::unique_ptr<LayerCase> make_embedding_case(const LayerSizes& sizes) {
  return std::make_unique<EmbeddingCase>(sizes);
}
std::unique_ptr<LayerCase> make_dropout_case(const LayerSizes& sizes, bool variational) {
  return std::make_unique<DropoutCase>(sizes, variational);
}
std::unique_ptr<LayerCase> make_softmax_case(const LayerSizes& sizes) {
  return std::make_unique<SoftmaxCase>(sizes);
}

Tensors merged(const std::vector<Tensors>& parts) {
  Tensors whole = parts.front();
  for (const Tensors& part : parts)
    for (const auto& [name, values] : part) merge(values, whole.at(name), name);
  for (const auto& [name, values] : whole) {
    const auto missing = std::ranges::count_if(values, [](float value) { return std::isnan(value); });
    EXPECT_EQ(missing, 0) << "elements of " << name << " that no rank wrote, or NaN";
  }
  return whole;
}

Tensors run(const LayerCase& layer, const Tensors& in, const RunChoices& choices) {
  const Tensors empty = outputs_of(layer, in);
  std::vector<Tensors> parts(size(choices.model_ranks));
  run_on_threads(choices.model_ranks, [&](Communicator& model_axis) {
    parts[size(model_axis.rank())] = run_rank(layer, in, choices, model_axis, empty);
  });

  return merged(parts);
}

}  // namespace lamina::test
