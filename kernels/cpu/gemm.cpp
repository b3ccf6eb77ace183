#include "kernels/cpu/gemm.h"

#include <omp.h>

#include <dnnl.hpp>
#include <mutex>
#include <string>

#include "runtime/error.h"
#include "runtime/trace.h"

namespace lamina {
namespace {

using dnnl::memory;

/// oneDNN takes as many threads as OpenMP would give it: when a primitive is made, and some when it runs.
class OneThread {
 public:
  OneThread() : before_(omp_get_max_threads()) {
    if (before_ != 1) omp_set_num_threads(1);
  }
  ~OneThread() {
    if (before_ != 1) omp_set_num_threads(before_);
  }
  OneThread(const OneThread&) = delete;
  OneThread& operator=(const OneThread&) = delete;

 private:
  int before_;
};

std::string describe(std::int64_t m, std::int64_t n, std::int64_t k) {
  return "matrix product m=" + std::to_string(m) + " n=" + std::to_string(n) + " k=" + std::to_string(k);
}

template <class Call>
auto translate_errors(const std::string& what, const Call& call) {
  try {
    return call();
  } catch (const dnnl::error& e) {
    throw InternalError("oneDNN, " + what + ": " + e.what());
  }
}

memory::desc strided(std::int64_t rows, std::int64_t columns, Strides strides) {
  return {{rows, columns}, memory::data_type::f32, memory::dims{strides.row, strides.column}};
}

memory::desc any_layout(std::int64_t rows, std::int64_t columns) {
  return {{rows, columns}, memory::data_type::f32, memory::format_tag::any};
}

/// One for all: oneDNN runs a primitive only on a stream and memory of the very engine it was made with.
const dnnl::engine& cpu_engine() {
  static const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}

dnnl::matmul::primitive_desc describe_matmul(const memory::desc& a, const memory::desc& b,
                                             const memory::desc& c, bool accumulate) {
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  dnnl::post_ops post;
  if (accumulate) post.append_sum();
  attributes.set_post_ops(post);
  return {dnnl::matmul::desc(a, b, c), attributes, cpu_engine()};
}

/// A matmul primitive. Several threads may run it at a time, each on its own set of arguments.
class Matmul {
 public:
  explicit Matmul(const dnnl::matmul::primitive_desc& description)
      : stream_(cpu_engine()), description_(description), primitive_(description) {
    idle_.push_back(make_arguments());
  }

  void run(const float* a, const float* b, float* c) {
    execute(a, c, [b](Arguments& arguments) {
      arguments.b.set_data_handle(const_cast<float*>(b));
      return arguments.b.get();
    });
  }

  void run(const float* a, const memory& b, float* c) {
    execute(a, c, [&b](Arguments&) { return b.get(); });
  }

 private:
  struct Arguments {
    memory a, b, c, scratch;
  };

  std::unique_ptr<Arguments> make_arguments() const {
    const dnnl::engine& engine = cpu_engine();
    return std::make_unique<Arguments>(Arguments{memory(description_.src_desc(), engine, nullptr),
                                                 memory(description_.weights_desc(), engine, nullptr),
                                                 memory(description_.dst_desc(), engine, nullptr),
                                                 memory(description_.scratchpad_desc(), engine)});
  }

  std::unique_ptr<Arguments> take_arguments() {
    const std::lock_guard lock(mutex_);
    if (idle_.empty()) return make_arguments();
    auto arguments = std::move(idle_.back());
    idle_.pop_back();
    return arguments;
  }

  void give_back(std::unique_ptr<Arguments> arguments) {
    const std::lock_guard lock(mutex_);
    idle_.push_back(std::move(arguments));
  }

  template <class BindB>
  void execute(const float* a, float* c, const BindB& bind_b) {
    const OneThread one_thread;
    auto arguments = take_arguments();
    arguments->a.set_data_handle(const_cast<float*>(a));
    arguments->c.set_data_handle(c);
    const dnnl_exec_arg_t list[] = {{DNNL_ARG_SRC, arguments->a.get()},
                                    {DNNL_ARG_WEIGHTS, bind_b(*arguments)},
                                    {DNNL_ARG_DST, arguments->c.get()},
                                    {DNNL_ARG_SCRATCHPAD, arguments->scratch.get()}};
    dnnl::error::wrap_c_api(dnnl_primitive_execute(primitive_.get(), stream_.get(), 4, list),
                            "could not run a matmul primitive");
    give_back(std::move(arguments));
  }

  dnnl::stream stream_;
  dnnl::matmul::primitive_desc description_;
  dnnl::matmul primitive_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<Arguments>> idle_;
};

/// The layout that oneDNN prefers for B; it does not depend on the rows of A (tests/kernels/gemm_test.cpp).
memory::desc packed_layout(std::int64_t k, std::int64_t n) {
  constexpr std::int64_t kRows = 16;
  return describe_matmul(strided(kRows, k, {k, 1}), any_layout(k, n), strided(kRows, n, {n, 1}), false)
      .weights_desc();
}

}  // namespace

struct Gemm::Primitive {
  std::string name;
  Matmul matmul;
};

Gemm::Gemm(const GemmShape& shape) {
  const OneThread one_thread;
  const std::string name = describe(shape.m, shape.n, shape.k);
  translate_errors(name, [&] {
    const auto description =
        describe_matmul(strided(shape.m, shape.k, shape.a), strided(shape.k, shape.n, shape.b),
                        strided(shape.m, shape.n, {shape.c_row, 1}), shape.accumulate);
    primitive_.reset(new Primitive{name, Matmul(description)});
  });
}

Gemm::~Gemm() = default;
Gemm::Gemm(Gemm&&) noexcept = default;
Gemm& Gemm::operator=(Gemm&&) noexcept = default;

void Gemm::run(const float* a, const float* b, float* c) const {
  const Span span(SpanKind::gemm, primitive_->name.c_str());
  translate_errors(primitive_->name, [&] { primitive_->matmul.run(a, b, c); });
}

struct PackedMatrix::Layout {
  std::int64_t k, n;
  memory packed;
};

PackedMatrix::PackedMatrix(std::int64_t k, std::int64_t n) {
  const OneThread one_thread;
  translate_errors(describe(0, n, k), [&] {
    layout_.reset(new Layout{k, n, memory(packed_layout(k, n), cpu_engine())});
  });
}

PackedMatrix::~PackedMatrix() = default;
PackedMatrix::PackedMatrix(PackedMatrix&&) noexcept = default;
PackedMatrix& PackedMatrix::operator=(PackedMatrix&&) noexcept = default;

std::int64_t PackedMatrix::k() const { return layout_->k; }
std::int64_t PackedMatrix::n() const { return layout_->n; }

void PackedMatrix::set(const float* b, Strides strides) {
  const OneThread one_thread;
  translate_errors(describe(0, n(), k()), [&] {
    memory plain(strided(k(), n(), strides), cpu_engine(), const_cast<float*>(b));
    dnnl::stream stream(cpu_engine());
    dnnl::reorder(plain, layout_->packed).execute(stream, plain, layout_->packed);
  });
}

struct PackedGemm::Primitive {
  std::string name;
  std::int64_t k, n;
  Matmul matmul;
};

PackedGemm::PackedGemm(std::int64_t m, std::int64_t n, std::int64_t k, std::int64_t a_row,
                       std::int64_t c_row) {
  const OneThread one_thread;
  const std::string name = describe(m, n, k);
  translate_errors(name, [&] {
    const auto description =
        describe_matmul(strided(m, k, {a_row, 1}), packed_layout(k, n), strided(m, n, {c_row, 1}), false);
    primitive_.reset(new Primitive{name, k, n, Matmul(description)});
  });
}

PackedGemm::~PackedGemm() = default;
PackedGemm::PackedGemm(PackedGemm&&) noexcept = default;
PackedGemm& PackedGemm::operator=(PackedGemm&&) noexcept = default;

void PackedGemm::run(const float* a, const PackedMatrix& b, float* c) const {
  const Span span(SpanKind::gemm, primitive_->name.c_str());
  check(b.k() == primitive_->k && b.n() == primitive_->n, "PackedGemm: B has another shape than the product");
  translate_errors(primitive_->name, [&] { primitive_->matmul.run(a, b.layout_->packed, c); });
}

}  // namespace lamina
