#include "launch/peers/onednn_lstm.h"

#include <algorithm>
#include <dnnl.hpp>
#include <string>
#include <unordered_map>

#include "runtime/error.h"

namespace lamina {
namespace {

using dnnl::memory;
using Tag = memory::format_tag;
using Arguments = std::unordered_map<int, memory>;

constexpr auto kDirection = dnnl::rnn_direction::unidirectional_left2right;

memory::desc describe(const memory::dims& dims, Tag tag) { return {dims, memory::data_type::f32, tag}; }

/// Of an LSTM of one layer and one direction.
struct Layouts {
  memory::dims src_layer, state, src_weights, state_weights, bias, dst_layer;

  explicit Layouts(const PeerShape& shape)
      : src_layer{shape.steps, shape.batch, shape.inputs},
        state{1, 1, shape.batch, shape.hidden},
        src_weights{1, 1, shape.inputs, 4, shape.hidden},
        state_weights{1, 1, shape.hidden, 4, shape.hidden},
        bias{1, 1, 4, shape.hidden},
        dst_layer{shape.steps, shape.batch, shape.hidden} {}

  memory::desc x() const { return describe(src_layer, Tag::tnc); }
  memory::desc h_and_c() const { return describe(state, Tag::ldnc); }
  memory::desc W_x(Tag tag = Tag::any) const { return describe(src_weights, tag); }
  memory::desc W_h(Tag tag = Tag::any) const { return describe(state_weights, tag); }
  memory::desc b() const { return describe(bias, Tag::ldgo); }
  memory::desc h() const { return describe(dst_layer, Tag::tnc); }
};

dnnl::lstm_forward::primitive_desc describe_forward(const Layouts& l, const dnnl::engine& engine) {
  return {dnnl::lstm_forward::desc(dnnl::prop_kind::forward_training, kDirection, l.x(), l.h_and_c(),
                                   l.h_and_c(), l.W_x(), l.W_h(), l.b(), l.h(), l.h_and_c(), l.h_and_c()),
          engine};
}

dnnl::lstm_backward::primitive_desc describe_backward(const Layouts& l, const dnnl::engine& engine,
                                                      const dnnl::lstm_forward::primitive_desc& forward) {
  return {dnnl::lstm_backward::desc(dnnl::prop_kind::backward, kDirection, l.x(), l.h_and_c(), l.h_and_c(),
                                    l.W_x(), l.W_h(), l.b(), l.h(), l.h_and_c(), l.h_and_c(),  //
                                    l.x(), l.h_and_c(), l.h_and_c(), l.W_x(), l.W_h(), l.b(),  //
                                    l.h(), l.h_and_c(), l.h_and_c()),
          engine, forward};
}

template <class Call>
auto translate_errors(const Call& call) {
  try {
    return call();
  } catch (const dnnl::error& e) {
    throw InternalError(std::string("oneDNN's LSTM primitive: ") + e.what());
  }
}

void clear(const memory& m) {
  std::fill_n(static_cast<char*>(m.get_data_handle()), m.get_desc().get_size(), char{0});
}

}  // namespace

struct OneDnnLstm::Primitives {
  explicit Primitives(const PeerShape& shape)
      : layouts(shape),
        engine(dnnl::engine::kind::cpu, 0),
        stream(engine),
        forward_description(describe_forward(layouts, engine)),
        backward_description(describe_backward(layouts, engine, forward_description)),
        forward(forward_description),
        backward(backward_description) {
    make_forward_arguments();
    make_backward_arguments();
  }

  memory zeros(const memory::desc& description) {
    memory made(description, engine);
    clear(made);
    return made;
  }

  void make_forward_arguments() {
    const auto& d = forward_description;
    forward_arguments = {{DNNL_ARG_SRC_LAYER, zeros(d.src_layer_desc())},
                         {DNNL_ARG_SRC_ITER, zeros(d.src_iter_desc())},
                         {DNNL_ARG_SRC_ITER_C, zeros(d.src_iter_c_desc())},
                         {DNNL_ARG_WEIGHTS_LAYER, zeros(d.weights_layer_desc())},
                         {DNNL_ARG_WEIGHTS_ITER, zeros(d.weights_iter_desc())},
                         {DNNL_ARG_BIAS, zeros(d.bias_desc())},
                         {DNNL_ARG_DST_LAYER, zeros(d.dst_layer_desc())},
                         {DNNL_ARG_DST_ITER, zeros(d.dst_iter_desc())},
                         {DNNL_ARG_DST_ITER_C, zeros(d.dst_iter_c_desc())},
                         {DNNL_ARG_WORKSPACE, zeros(d.workspace_desc())}};
  }

  /// Everything of the forward pass too, the weights in a layout of their own.
  void make_backward_arguments() {
    const auto& d = backward_description;
    backward_arguments = forward_arguments;
    for (auto& [argument, made] : Arguments{{DNNL_ARG_WEIGHTS_LAYER, zeros(d.weights_layer_desc())},
                                            {DNNL_ARG_WEIGHTS_ITER, zeros(d.weights_iter_desc())},
                                            {DNNL_ARG_DIFF_SRC_LAYER, zeros(d.diff_src_layer_desc())},
                                            {DNNL_ARG_DIFF_SRC_ITER, zeros(d.diff_src_iter_desc())},
                                            {DNNL_ARG_DIFF_SRC_ITER_C, zeros(d.diff_src_iter_c_desc())},
                                            {DNNL_ARG_DIFF_WEIGHTS_LAYER, zeros(d.diff_weights_layer_desc())},
                                            {DNNL_ARG_DIFF_WEIGHTS_ITER, zeros(d.diff_weights_iter_desc())},
                                            {DNNL_ARG_DIFF_BIAS, zeros(d.diff_bias_desc())},
                                            {DNNL_ARG_DIFF_DST_LAYER, zeros(d.diff_dst_layer_desc())},
                                            {DNNL_ARG_DIFF_DST_ITER, zeros(d.diff_dst_iter_desc())},
                                            {DNNL_ARG_DIFF_DST_ITER_C, zeros(d.diff_dst_iter_c_desc())}})
      backward_arguments[argument] = made;
  }

  /// From a plain layout into that of `into`.
  void set(const memory& into, const memory::desc& plain, const std::vector<float>& values) {
    check(values.size() * sizeof(float) == plain.get_size(), "OneDnnLstm: a tensor has another size");
    memory from(plain, engine, const_cast<float*>(values.data()));
    reorder(from, into);
  }

  std::vector<float> get(const memory& from, const memory::desc& plain) {
    std::vector<float> values(plain.get_size() / sizeof(float));
    reorder(from, memory(plain, engine, values.data()));
    return values;
  }

  void reorder(memory from, memory into) {
    dnnl::reorder(from, into).execute(stream, from, into);
    stream.wait();
  }

  Layouts layouts;
  dnnl::engine engine;
  dnnl::stream stream;
  dnnl::lstm_forward::primitive_desc forward_description;
  dnnl::lstm_backward::primitive_desc backward_description;
  dnnl::lstm_forward forward;
  dnnl::lstm_backward backward;
  Arguments forward_arguments, backward_arguments;
};

OneDnnLstm::OneDnnLstm(const PeerShape& shape)
    : primitives_(translate_errors([&] { return std::make_unique<Primitives>(shape); })) {}
OneDnnLstm::~OneDnnLstm() = default;

void OneDnnLstm::set(const PeerParameters& parameters, const PeerInput& input) {
  Primitives& p = *primitives_;
  const Layouts& plain = p.layouts;
  translate_errors([&] {
    p.set(p.forward_arguments[DNNL_ARG_SRC_LAYER], plain.x(), input.x);
    p.set(p.forward_arguments[DNNL_ARG_SRC_ITER], plain.h_and_c(), input.h_first);
    p.set(p.forward_arguments[DNNL_ARG_SRC_ITER_C], plain.h_and_c(), input.c_first);
    p.set(p.forward_arguments[DNNL_ARG_BIAS], plain.b(), parameters.bias);
    p.set(p.backward_arguments[DNNL_ARG_DIFF_DST_LAYER], plain.h(), input.d_h);
    for (Arguments* arguments : {&p.forward_arguments, &p.backward_arguments}) {
      p.set(arguments->at(DNNL_ARG_WEIGHTS_LAYER), plain.W_x(Tag::ldigo), parameters.W_x);
      p.set(arguments->at(DNNL_ARG_WEIGHTS_ITER), plain.W_h(Tag::ldigo), parameters.W_h);
    }
  });
}

void OneDnnLstm::forward() {
  translate_errors([&] {
    primitives_->forward.execute(primitives_->stream, primitives_->forward_arguments);
    primitives_->stream.wait();
  });
}

void OneDnnLstm::backward() {
  translate_errors([&] {
    primitives_->backward.execute(primitives_->stream, primitives_->backward_arguments);
    primitives_->stream.wait();
  });
}

void OneDnnLstm::clear_gradients() {
  for (const int argument : {DNNL_ARG_DIFF_WEIGHTS_LAYER, DNNL_ARG_DIFF_WEIGHTS_ITER, DNNL_ARG_DIFF_BIAS})
    clear(primitives_->backward_arguments[argument]);
}

std::vector<float> OneDnnLstm::h() const {
  return primitives_->get(primitives_->forward_arguments[DNNL_ARG_DST_LAYER], primitives_->layouts.h());
}

PeerGradients OneDnnLstm::gradients() const {
  const Layouts& plain = primitives_->layouts;
  const auto get = [&](int argument, const memory::desc& layout) {
    return primitives_->get(primitives_->backward_arguments[argument], layout);
  };
  return {{get(DNNL_ARG_DIFF_WEIGHTS_LAYER, plain.W_x(Tag::ldigo)),
           get(DNNL_ARG_DIFF_WEIGHTS_ITER, plain.W_h(Tag::ldigo)), get(DNNL_ARG_DIFF_BIAS, plain.b())},
          get(DNNL_ARG_DIFF_SRC_LAYER, plain.x()),
          get(DNNL_ARG_DIFF_SRC_ITER, plain.h_and_c()),
          get(DNNL_ARG_DIFF_SRC_ITER_C, plain.h_and_c())};
}

}  // namespace lamina
