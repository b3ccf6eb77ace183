#include "kernels/cpu/elementwise.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <vector>

#include "kernels/cpu/parallel.h"
#include "runtime/error.h"
#include "runtime/tree.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/elementwise.cpp"
#include <hwy/foreach_target.h>
// after foreach_target.h
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace lamina::elementwise::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Whole vectors, then single elements: step(tag, i) handles the elements [i, i + Lanes(tag)).
template <class Step>
HWY_INLINE void for_vectors(std::size_t size, const Step& step) {
  const hn::ScalableTag<float> wide;
  const hn::CappedTag<float, 1> single;
  std::size_t i = 0;
  for (; i + hn::Lanes(wide) <= size; i += hn::Lanes(wide)) step(wide, i);
  for (; i < size; ++i) step(single, i);
}

void add(const float* x, float* y, std::size_t size) {
  for_vectors(size, [=](auto d, std::size_t i) HWY_ATTR {
    hn::StoreU(hn::Add(hn::LoadU(d, y + i), hn::LoadU(d, x + i)), d, y + i);
  });
}

void sgd(const SgdStep& step, const float* gradient, float* velocity, float* value, std::size_t size) {
  for_vectors(size, [=](auto d, std::size_t i) HWY_ATTR {
    const auto old = hn::LoadU(d, value + i);
    const auto slope = hn::Add(hn::Mul(hn::Set(d, step.gradient_scale), hn::LoadU(d, gradient + i)),
                               hn::Mul(hn::Set(d, step.weight_decay), old));
    const auto speed = hn::Add(hn::Mul(hn::Set(d, step.momentum), hn::LoadU(d, velocity + i)), slope);
    hn::StoreU(speed, d, velocity + i);
    hn::StoreU(hn::Sub(old, hn::Mul(hn::Set(d, step.learning_rate), speed)), d, value + i);
  });
}

// beta * average + (1 - beta) * sample
template <class D, class V>
HWY_INLINE V moving_average(D d, float beta, V average, V sample) {
  return hn::Add(hn::Mul(hn::Set(d, beta), average), hn::Mul(hn::Set(d, 1 - beta), sample));
}

void adam(const AdamStep& step, const float* gradient, float* first_moment, float* second_moment,
          float* value, std::size_t size) {
  const float coupled_decay = step.decoupled ? 0 : step.weight_decay;
  const float decoupled_decay = step.decoupled ? step.weight_decay : 0;
  for_vectors(size, [=](auto d, std::size_t i) HWY_ATTR {
    const auto old = hn::LoadU(d, value + i);
    const auto slope = hn::Add(hn::Mul(hn::Set(d, step.gradient_scale), hn::LoadU(d, gradient + i)),
                               hn::Mul(hn::Set(d, coupled_decay), old));
    const auto first = moving_average(d, step.beta1, hn::LoadU(d, first_moment + i), slope);
    const auto second = moving_average(d, step.beta2, hn::LoadU(d, second_moment + i), hn::Mul(slope, slope));
    hn::StoreU(first, d, first_moment + i);
    hn::StoreU(second, d, second_moment + i);
    const auto root = hn::Sqrt(hn::Div(second, hn::Set(d, step.correction2)));
    const auto direction =
        hn::Div(hn::Div(first, hn::Set(d, step.correction1)), hn::Add(root, hn::Set(d, step.epsilon)));
    const auto update = hn::Add(direction, hn::Mul(hn::Set(d, decoupled_decay), old));
    hn::StoreU(hn::Sub(old, hn::Mul(hn::Set(d, step.learning_rate), update)), d, value + i);
  });
}

const char* instruction_set() { return hwy::TargetName(HWY_TARGET); }

}  // namespace lamina::elementwise::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lamina::elementwise {
namespace {

HWY_EXPORT(add);
HWY_EXPORT(sgd);
HWY_EXPORT(adam);
HWY_EXPORT(instruction_set);

constexpr std::size_t kPiece = 4096;   // of a sum: part of its definition
constexpr std::size_t kChunk = 65536;  // of work for one thread: no bit depends on it

// body(first, size) over chunks of [0, size).
template <class Body>
void for_chunks(int threads, std::size_t size, const Body& body) {
  parallel_for(threads, (size + kChunk - 1) / kChunk, [&](std::size_t chunk) {
    const std::size_t first = chunk * kChunk;
    body(first, std::min(kChunk, size - first));
  });
}

// Eight running sums whatever the vector width.
double piece_of_squares(std::span<const float> x) {
  constexpr std::size_t kSums = 8;
  std::array<double, kSums> sums{};
  const std::size_t whole = x.size() / kSums * kSums;
  for (std::size_t i = 0; i < whole; i += kSums)
    for (std::size_t j = 0; j < kSums; ++j) sums[j] += static_cast<double>(x[i + j]) * x[i + j];
  for (std::size_t i = whole; i < x.size(); ++i) sums[i - whole] += static_cast<double>(x[i]) * x[i];
  return tree_sum(kSums, [&](std::size_t j) { return sums[j]; });
}

}  // namespace

void fill(int threads, std::span<float> x, float value) {
  for_chunks(threads, x.size(),
             [&](std::size_t first, std::size_t size) { std::ranges::fill(x.subspan(first, size), value); });
}

void copy(int threads, std::span<const float> from, std::span<float> to) {
  check(from.size() == to.size(), "copy: sizes differ");
  for_chunks(threads, to.size(), [&](std::size_t first, std::size_t size) {
    std::ranges::copy(from.subspan(first, size), to.begin() + static_cast<std::ptrdiff_t>(first));
  });
}

void add(int threads, std::span<const float> x, std::span<float> y) {
  check(x.size() == y.size(), "add: sizes differ");
  for_chunks(threads, y.size(), [&](std::size_t first, std::size_t size) {
    HWY_DYNAMIC_DISPATCH(add)(x.data() + first, y.data() + first, size);
  });
}

double sum_of_squares(int threads, std::span<const float> x) {
  if (x.empty()) return 0;
  std::vector<double> pieces((x.size() + kPiece - 1) / kPiece);
  constexpr std::size_t kPiecesOfChunk = kChunk / kPiece;
  for_chunks(threads, x.size(), [&](std::size_t first, std::size_t) {
    const std::size_t end = std::min(pieces.size(), first / kPiece + kPiecesOfChunk);
    for (std::size_t p = first / kPiece; p < end; ++p)
      pieces[p] = piece_of_squares(x.subspan(p * kPiece, std::min(kPiece, x.size() - p * kPiece)));
  });
  return tree_sum(pieces.size(), [&](std::size_t p) { return pieces[p]; });
}

bool all_finite(int threads, std::span<const float> x) {
  std::atomic<bool> finite{true};
  for_chunks(threads, x.size(), [&](std::size_t first, std::size_t size) {
    constexpr std::uint32_t kExponent = 0x7f800000;
    std::uint32_t found = 0;  // no branch in the loop: it runs at the memory's speed
    for (const float value : x.subspan(first, size))
      found |= static_cast<std::uint32_t>((std::bit_cast<std::uint32_t>(value) & kExponent) == kExponent);
    if (found != 0) finite = false;
  });
  return finite;
}

void sgd(int threads, const SgdStep& step, std::span<const float> gradient, std::span<float> velocity,
         std::span<float> value) {
  check(gradient.size() == value.size() && velocity.size() == value.size(), "sgd: sizes differ");
  for_chunks(threads, value.size(), [&](std::size_t first, std::size_t size) {
    HWY_DYNAMIC_DISPATCH(sgd)
    (step, gradient.data() + first, velocity.data() + first, value.data() + first, size);
  });
}

void adam(int threads, const AdamStep& step, std::span<const float> gradient, std::span<float> first_moment,
          std::span<float> second_moment, std::span<float> value) {
  check(gradient.size() == value.size() && first_moment.size() == value.size() &&
            second_moment.size() == value.size(),
        "adam: sizes differ");
  for_chunks(threads, value.size(), [&](std::size_t first, std::size_t size) {
    HWY_DYNAMIC_DISPATCH(adam)
    (step, gradient.data() + first, first_moment.data() + first, second_moment.data() + first,
     value.data() + first, size);
  });
}

std::string instruction_set() { return HWY_DYNAMIC_DISPATCH(instruction_set)(); }

}  // namespace lamina::elementwise
#endif
