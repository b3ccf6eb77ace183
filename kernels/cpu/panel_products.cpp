#include "kernels/cpu/panel_products.h"

#include <algorithm>
#include <array>
#include <bit>

#include "kernels/cpu/cpu_model.h"
#include "runtime/error.h"
#include "runtime/trace.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/panel_products.cpp"
#include <hwy/foreach_target.h>
// after foreach_target.h
#include "kernels/cpu/dot_products-inl.h"
#include "kernels/cpu/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lamina::HWY_NAMESPACE {

// A tile of sums fills the registers but for a row of B and one element of A.
constexpr bool kManyRegisters = HWY_MAX_BYTES == 64 || HWY_ARCH_ARM_A64;
constexpr std::size_t kTileRows = kManyRegisters ? 8 : 4, kTileVectors = 3;
constexpr std::size_t kTileSize = kTileRows * kTileVectors * hn::MaxLanes(Floats());
constexpr std::size_t kLevels = 8;        // of the tree over blocks
constexpr std::size_t kRowsOfPiece = 64;  // of a product that sums over blocks

/// What is added to a tile before it is stored, one after another, from the left.
struct Addends {
  std::array<const float*, kLevels> tiles;
  std::size_t count = 0, stride = 0;

  void add(const float* tile) { tiles[count++] = tile; }
  Addends from(std::size_t row) const {
    Addends moved = *this;
    for (std::size_t i = 0; i < count; ++i) moved.tiles[i] += row * stride;
    return moved;
  }
};

/// c = a b (+ addends), what step k takes of a row of a at row * a_row + k * a_k. While it runs, it fetches
/// `ahead` into the caches.
struct Tile {
  const float* a;
  std::size_t a_row, a_k;
  const float* b;  ///< [k, vectors * lanes]
  std::size_t k;   ///< steps
  float* c;
  std::size_t c_stride, rows, columns;  ///< of c; there may be fewer columns than in registers
  const float* ahead;
  std::size_t ahead_step;  ///< for each k
};

template <class Dot, std::size_t kRows, std::size_t kVectors>
struct Sums {
  Vector of[kRows][kVectors];

  HWY_INLINE Sums() {
    each([](Vector& sum, std::size_t, std::size_t) HWY_ATTR { sum = constant(0); });
  }
  template <class Body>
  HWY_INLINE void each(const Body& body) {
#pragma GCC unroll 8
    for (std::size_t row = 0; row < kRows; ++row)
#pragma GCC unroll 4
      for (std::size_t v = 0; v < kVectors; ++v) body(of[row][v], row, v);
  }
  // += a column of A times a row of B
  template <std::size_t kPart = 0>
  HWY_INLINE void add_product(const float* a, std::size_t a_row, const float* b) {
    Vector right[kVectors];
#pragma GCC unroll 4
    for (std::size_t v = 0; v < kVectors; ++v)
      right[v] = Dot::template right<kPart>(hn::Load(Floats(), b + v * hn::Lanes(Floats())));
#pragma GCC unroll 8
    for (std::size_t row = 0; row < kRows; ++row) {
      const Vector left = Dot::template left<kPart>(a + row * a_row);
#pragma GCC unroll 4
      for (std::size_t v = 0; v < kVectors; ++v) of[row][v] = Dot::add(left, right[v], of[row][v]);
    }
    if constexpr (kPart + 1 < Dot::kParts) add_product<kPart + 1>(a, a_row, b);
  }
  HWY_INLINE void add(const float* tile, std::size_t stride) {
    each([=](Vector& sum, std::size_t row, std::size_t v) HWY_ATTR {
      sum = hn::Add(hn::LoadU(Floats(), tile + row * stride + v * hn::Lanes(Floats())), sum);
    });
  }
  HWY_INLINE void store(float* tile, std::size_t stride) {
    each([=](Vector& sum, std::size_t row, std::size_t v)
             HWY_ATTR { hn::StoreU(sum, Floats(), tile + row * stride + v * hn::Lanes(Floats())); });
  }
};

template <class Dot, std::size_t kRows, std::size_t kVectors>
HWY_NOINLINE void run_tile(const Tile& t, const Addends& addends) {
  const std::size_t n = hn::Lanes(Floats()), a_row = t.a_row, a_k = t.a_k, ahead_step = t.ahead_step;
  Sums<Dot, kRows, kVectors> sums;
  const float *a = t.a, *b = t.b, *ahead = t.ahead;
#pragma GCC unroll 2
  for (std::size_t k = 0; k < t.k; ++k, a += a_k, b += kVectors * n, ahead += ahead_step) {
#pragma GCC unroll 4
    for (std::size_t line = 0; line < kTileVectors; ++line) __builtin_prefetch(ahead + line * n, 0, 2);
    sums.add_product(a, a_row, b);
  }
  if (t.columns == kVectors * n) {
    for (std::size_t i = 0; i < addends.count; ++i) sums.add(addends.tiles[i], addends.stride);
    return sums.store(t.c, t.c_stride);
  }
  // Behind the last column lies what is not ours, also of addends.
  HWY_ALIGN float whole[kTileSize] = {};
  const std::size_t width = kVectors * n;
  for (std::size_t i = 0; i < addends.count; ++i) {
    for (std::size_t row = 0; row < kRows; ++row)
      std::copy_n(addends.tiles[i] + row * addends.stride, t.columns, whole + row * width);
    sums.add(whole, width);
  }
  sums.store(whole, width);
  for (std::size_t row = 0; row < kRows; ++row)
    std::copy_n(whole + row * width, t.columns, t.c + row * t.c_stride);
}

template <class Dot, std::size_t kVectors, std::size_t kRows = kTileRows>
HWY_INLINE void run_tile_of_rows(const Tile& t, const Addends& addends) {
  if constexpr (kRows > 1)
    if (t.rows < kRows) return run_tile_of_rows<Dot, kVectors, kRows - 1>(t, addends);
  run_tile<Dot, kRows, kVectors>(t, addends);
}

template <class Dot>
HWY_INLINE void run_tile(std::size_t vectors, const Tile& t, const Addends& addends) {
  switch (vectors) {
    case 1:
      return run_tile_of_rows<Dot, 1>(t, addends);
    case 2:
      return run_tile_of_rows<Dot, 2>(t, addends);
    default:
      return run_tile_of_rows<Dot, 3>(t, addends);
  }
}

using Panel = PanelMatrices::Panel;

HWY_INLINE std::size_t width_of(const Panel& panel) { return panel.vectors * hn::Lanes(Floats()); }

// c = a * panel (+ addends), while `next` comes near. The rows are shared evenly between tiles.
template <class Dot>
HWY_INLINE void run_panel(const Rows& a, std::size_t k, const Panel& panel, const Panel& next, float* c,
                          std::size_t c_stride, std::size_t columns, const Addends& addends) {
  const std::size_t tiles = (a.count + kTileRows - 1) / kTileRows, step = width_of(next) / tiles;
  for (std::size_t i = 0; i < tiles; ++i) {
    const std::size_t row = a.count * i / tiles, rows = a.count * (i + 1) / tiles - row;
    run_tile<Dot>(panel.vectors,
                  {a.values + row * a.stride, a.stride, Dot::kElements, panel.values, k, c + row * c_stride,
                   c_stride, rows, columns, next.values + i * step * k, step},
                  addends.from(row));
  }
}

void multiply(const Rows& a, const PanelMatrices& b, std::size_t index, float* c, std::size_t c_stride) {
  with(b.operands(), [&]<class Dot>(Dot) HWY_ATTR {
    for (std::size_t p = 0; p < b.panels(); ++p) {
      const Panel panel = b.panel(index, p);
      const Panel next = p + 1 < b.panels() ? b.panel(index, p + 1) : b.panel((index + 1) % b.count(), 0);
      run_panel<Dot>(a, b.steps(), panel, next, c + panel.first_column, c_stride, panel.columns, {});
    }
  });
}

// The tree as a binary counter: leaf i closes the subtrees of its trailing ones, the last leaf closes all.
template <class Dot>
HWY_INLINE void multiply_and_sum_panel(const Rows& a, std::size_t a_step, const PanelMatrices& b,
                                       std::size_t p, float* c, std::size_t c_stride) {
  HWY_ALIGN float nodes[kLevels][kRowsOfPiece * kTileVectors * hn::MaxLanes(Floats())];
  for (std::size_t i = 0; i < b.count(); ++i) {
    const Panel panel = b.panel(i, p);
    const bool last = i + 1 == b.count();
    const Panel next = last ? b.panel(0, (p + 1) % b.panels()) : b.panel(i + 1, p);
    const std::size_t level = static_cast<std::size_t>(std::countr_one(i)), width = width_of(panel);
    Addends addends{.tiles = {}, .stride = width};
    for (std::size_t l = 0; i >> l; ++l)
      if ((i >> l & 1) && (l < level || last)) addends.add(nodes[l]);
    const Rows a_i = {a.values + i * a_step, a.count, a.stride};
    if (last)
      run_panel<Dot>(a_i, b.steps(), panel, next, c + panel.first_column, c_stride, panel.columns, addends);
    else
      run_panel<Dot>(a_i, b.steps(), panel, next, nodes[level], width, width, addends);
  }
}

void multiply_and_sum(const Rows& a, std::size_t a_step, const PanelMatrices& b, std::size_t first,
                      std::size_t last, float* c, std::size_t c_stride) {
  with(b.operands(), [&]<class Dot>(Dot) HWY_ATTR {
    for (std::size_t row = 0; row < a.count; row += kRowsOfPiece)
      for (std::size_t p = first; p < last; ++p)
        multiply_and_sum_panel<Dot>(a.from(row, std::min(kRowsOfPiece, a.count - row)), a_step, b, p,
                                    c + row * c_stride, c_stride);
  });
}

// A [rows, m] as tiles of kTileRows columns, [tiles, rows, kTileRows]; behind the last column it is zero.
HWY_INLINE void lay_out_columns(F32, const Rows& a, std::size_t m, std::size_t tile_size, float* tiles) {
  const hn::CappedTag<float, kTileRows> part;
  const std::size_t whole = m / kTileRows * kTileRows;
  for (std::size_t row = 0; row < a.count; ++row) {
    const float* from = a.values + row * a.stride;
    float* to = tiles + row * kTileRows;
    for (std::size_t i = 0; i < whole; i += kTileRows, to += tile_size)
      for (std::size_t lane = 0; lane < kTileRows; lane += hn::Lanes(part))
        hn::Store(hn::LoadU(part, from + i + lane), part, to + lane);
    if (whole == m) continue;
    std::copy_n(from + whole, m - whole, to);
    std::fill_n(to + m - whole, kTileRows - (m - whole), 0.0f);
  }
}

// kTileRows columns of two rows that round_rows() wrote, as a step takes them.
HWY_INLINE void lay_out_step(Bf16Widened, const float* even, const float* odd, float* to) {
  const hn::CappedTag<float, kTileRows> part;
  for (std::size_t j = 0; j < kTileRows; j += hn::Lanes(part))
    hn::StoreInterleaved2(hn::LoadU(part, even + j), hn::LoadU(part, odd + j), part, to + 2 * j);
}
HWY_INLINE void lay_out_step(Bf16Pairs, const float* even, const float* odd, float* to) {
  const hn::CappedTag<float, kTileRows / 2> part;
  for (std::size_t j = 0; j < kTileRows / 2; j += hn::Lanes(part)) {
    const auto a = hn::LoadU(part, even + j), b = hn::LoadU(part, odd + j);
    hn::StoreInterleaved2(pair_of(part, even_of_pair(part, a), even_of_pair(part, b)),
                          pair_of(part, odd_of_pair(part, a), odd_of_pair(part, b)), part, to + 2 * j);
  }
}

// The same of rounded rows, as [tiles, pairs of rows, kTileRows, what a step takes].
template <class Dot>
HWY_INLINE void lay_out_columns(Dot dot, const Rows& a, std::size_t m, std::size_t tile_size, float* tiles) {
  constexpr std::size_t kStep = kTileRows * Dot::kElements, kFloats = kStep / 2;  // of a row, of a tile
  const std::size_t whole = m / kTileRows, rest = rounded_stride(m % kTileRows) * Dot::kElements / 2;
  const float zeros[kTileRows] = {};
  for (std::size_t row = 0; row < a.count; row += 2) {
    const bool has_odd = row + 1 < a.count;
    const float *even = a.values + row * a.stride, *odd = has_odd ? even + a.stride : zeros;
    float* to = tiles + row / 2 * kStep;
    for (std::size_t i = 0; i < whole; ++i, even += kFloats, odd += has_odd ? kFloats : 0, to += tile_size)
      lay_out_step(dot, even, odd, to);
    if (rest == 0) continue;
    float padded[2][kTileRows] = {};
    std::copy_n(even, rest, padded[0]);
    std::copy_n(odd, rest, padded[1]);
    lay_out_step(dot, padded[0], padded[1], to);
  }
}

template <class Dot>
HWY_INLINE void multiply_transposed_of(Dot dot, const Rows& a, std::size_t m, const PanelMatrices& b,
                                       bool accumulate, LargeArray& scratch, float* c, std::size_t c_stride) {
  constexpr std::size_t kApart = 16;  // tiles a power of two apart would meet in the same lines of a cache
  constexpr std::size_t kStep = kTileRows * Dot::kElements;
  const std::size_t steps = is_bf16(b.operands()) ? (a.count + 1) / 2 : a.count;
  const std::size_t tiles = (m + kTileRows - 1) / kTileRows, tile_size = steps * kStep + kApart;
  scratch.resize(tiles * tile_size);
  lay_out_columns(dot, a, m, tile_size, scratch.data());
  for (std::size_t p = 0; p < b.panels(); ++p) {
    const Panel panel = b.panel(0, p);
    for (std::size_t i = 0; i < tiles; ++i) {
      const std::size_t row = i * kTileRows, rows = std::min(kTileRows, m - row);
      float* sums = c + row * c_stride + panel.first_column;
      for (std::size_t j = 0; j < rows; ++j)
        for (std::size_t v = 0; v < panel.vectors; ++v)
          __builtin_prefetch(sums + j * c_stride + std::min(v * hn::Lanes(Floats()), panel.columns - 1), 1);
      Addends addends{.tiles = {}, .stride = c_stride};
      if (accumulate) addends.add(sums);
      const float* tile = scratch.data() + i * tile_size;
      run_tile<Dot>(panel.vectors,
                    {tile, Dot::kElements, kStep, panel.values, steps, sums, c_stride, rows, panel.columns,
                     tile + tile_size, kStep},
                    addends);
    }
  }
}

void multiply_transposed(const Rows& a, std::size_t m, const PanelMatrices& b, bool accumulate,
                         LargeArray& scratch, float* c, std::size_t c_stride) {
  with(b.operands(), [&]<class Dot>(Dot dot) HWY_ATTR {
    multiply_transposed_of(dot, a, m, b, accumulate, scratch, c, c_stride);
  });
}

/// put(lanes, values, place in the panel's row) for all vectors of a row, minus `centre` if there is one.
template <class Put>
HWY_INLINE void for_each_centred_vector(const float* row, const float* centre, std::size_t size,
                                        const Put& put) {
  for_each_vector(size, [=](auto lanes, std::size_t j) HWY_ATTR {
    const Vector values = lanes.load(row + j);
    put(lanes, centre == nullptr ? values : hn::Sub(values, lanes.load(centre + j)), j);
  });
}

void set_rows(const Rows& b, std::size_t first_row, const float* centre, const PanelMatrices& matrices,
              std::size_t index) {
  const bool in_pairs = is_bf16(matrices.operands());
  for (std::size_t i = 0; i < b.count; ++i)
    for (std::size_t p = 0; p < matrices.panels(); ++p) {
      const Panel panel = matrices.panel(index, p);
      const std::size_t row = first_row + i;
      const float* from = b.values + i * b.stride + panel.first_column;
      const float* middle = centre == nullptr ? nullptr : centre + panel.first_column;
      float* to = panel.values + (in_pairs ? row / 2 : row) * width_of(panel);
      for_each_centred_vector(from, middle, panel.columns, [=](auto lanes, Vector v, std::size_t j) HWY_ATTR {
        if (!in_pairs) return lanes.store(v, to + j);
        const Floats floats;
        const Vector bf16 = rounded(floats, v);
        if (row % 2 == 0) return lanes.store(pair_of(floats, bf16, constant(0)), to + j);
        lanes.store(pair_of(floats, even_of_pair(floats, lanes.load(to + j)), bf16), to + j);
      });
    }
}

/// Elements of a row in pairs: put(place of the pair, even, odd), vectors or single ones.
template <class Put>
HWY_INLINE void for_each_pair(const float* row, const float* centre, std::size_t k, const Put& put) {
  const hn::CappedTag<float, 1> single;
  const auto pairs = [=](auto floats, std::size_t i, const float* from, const float* middle) HWY_ATTR {
    hn::Vec<decltype(floats)> even, odd, even_middle, odd_middle;
    hn::LoadInterleaved2(floats, from, even, odd);
    if (middle != nullptr) {
      hn::LoadInterleaved2(floats, middle, even_middle, odd_middle);
      even = hn::Sub(even, even_middle);
      odd = hn::Sub(odd, odd_middle);
    }
    put(floats, i / 2, even, odd);
  };
  const auto from = [=](std::size_t i) { return centre == nullptr ? nullptr : centre + i; };
  std::size_t i = 0;
  for (; i + 2 * hn::Lanes(Floats()) <= k; i += 2 * hn::Lanes(Floats())) pairs(Floats(), i, row + i, from(i));
  for (; i + 2 <= k; i += 2) pairs(single, i, row + i, from(i));
  if (i == k) return;
  const float value = centre == nullptr ? row[i] : row[i] - centre[i];
  put(single, i / 2, hn::Set(single, value), hn::Zero(single));
}

void set_transposed_pairs(const float* b, const float* centre, const PanelMatrices& matrices,
                          std::size_t index) {
  const std::size_t k = matrices.k(), piece = 2 * hn::Lanes(Floats());  // a vector of pairs at a time
  for (std::size_t p = 0; p < matrices.panels(); ++p) {
    const Panel panel = matrices.panel(index, p);
    const std::size_t width = width_of(panel);
    for (std::size_t first = 0; first < k; first += piece)
      for (std::size_t j = 0; j < panel.columns; ++j) {
        const float* row = b + (panel.first_column + j) * k + first;
        float* column = panel.values + first / 2 * width + j;
        for_each_pair(row, centre == nullptr ? nullptr : centre + first, std::min(piece, k - first),
                      [=](auto floats, std::size_t i, auto even, auto odd) HWY_ATTR {
                        HWY_ALIGN float words[hn::MaxLanes(Floats())];
                        hn::Store(pair_of(floats, rounded(floats, even), rounded(floats, odd)), floats,
                                  words);
                        for (std::size_t lane = 0; lane < hn::Lanes(floats); ++lane)
                          column[(i + lane) * width] = words[lane];
                      });
      }
  }
}

void round_rows(const Rows& a, std::size_t k, bool widened, float* to, std::size_t to_stride) {
  for (std::size_t row = 0; row < a.count; ++row) {
    float* rounded_row = to + row * to_stride;
    for_each_pair(
        a.values + row * a.stride, nullptr, k, [=](auto floats, std::size_t i, auto even, auto odd) HWY_ATTR {
          if (widened)
            hn::StoreInterleaved2(rounded(floats, even), rounded(floats, odd), floats, rounded_row + 2 * i);
          else
            hn::StoreU(pair_of(floats, rounded(floats, even), rounded(floats, odd)), floats, rounded_row + i);
        });
  }
}

bool has_bf16_instruction() { return Bf16Instruction::kExists; }
std::size_t panel_lanes() { return hn::Lanes(Floats()); }
std::size_t panel_vectors() { return kTileVectors; }

}  // namespace lamina::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lamina {

HWY_EXPORT(panel_lanes);
HWY_EXPORT(panel_vectors);
HWY_EXPORT(multiply);
HWY_EXPORT(multiply_and_sum);
HWY_EXPORT(multiply_transposed);
HWY_EXPORT(set_rows);
HWY_EXPORT(set_transposed_pairs);
HWY_EXPORT(round_rows);
HWY_EXPORT(has_bf16_instruction);

bool has_bf16_pairs() { return HWY_DYNAMIC_DISPATCH(has_bf16_instruction)() && cpu_model().has_avx512_bf16; }

Operands bf16_operands() {
  return has_bf16_pairs() && cpu_model().is_fast_at_bf16() ? Operands::bf16_pairs : Operands::bf16_widened;
}

void round_rows(const Rows& a, std::size_t k, Operands operands, float* to, std::size_t to_stride) {
  check(is_bf16(operands), "panel products: only bf16 is rounded");
  HWY_DYNAMIC_DISPATCH(round_rows)(a, k, operands == Operands::bf16_widened, to, to_stride);
}

PanelMatrices::PanelMatrices(std::size_t count, std::size_t k, std::size_t n, Operands operands)
    : count_(count),
      k_(k),
      n_(n),
      steps_(is_bf16(operands) ? (k + 1) / 2 : k),
      operands_(operands),
      lanes_(HWY_DYNAMIC_DISPATCH(panel_lanes)()),
      vectors_((n + lanes_ - 1) / lanes_) {
  const std::size_t most = HWY_DYNAMIC_DISPATCH(panel_vectors)();
  panels_ = (vectors_ + most - 1) / most;
  values_.resize(count * steps_ * vectors_ * lanes_);
}

// All panels are about as wide.
PanelMatrices::Panel PanelMatrices::panel(std::size_t index, std::size_t panel) const {
  const std::size_t first = vectors_ * panel / panels_, next = vectors_ * (panel + 1) / panels_;
  return {values_.data() + (index * vectors_ + first) * lanes_ * steps_, next - first, first * lanes_,
          std::min(next * lanes_, n_) - first * lanes_};
}

void PanelMatrices::set_rows(std::size_t index, std::size_t first_row, const Rows& b, const float* centre) {
  HWY_DYNAMIC_DISPATCH(set_rows)(b, first_row, centre, *this, index);
}

void PanelMatrices::set_transposed(std::size_t index, const float* b, const float* centre) {
  if (is_bf16(operands_)) return HWY_DYNAMIC_DISPATCH(set_transposed_pairs)(b, centre, *this, index);
  constexpr std::size_t kPiece = 16;  // of k: a line of the cache at a time from each row of B^T
  for (std::size_t p = 0; p < panels_; ++p) {
    const Panel to = panel(index, p);
    const std::size_t width = to.vectors * lanes_;
    for (std::size_t first = 0; first < k_; first += kPiece)
      for (std::size_t j = 0; j < to.columns; ++j) {
        const float* from = b + (to.first_column + j) * k_;
        for (std::size_t i = first; i < std::min(first + kPiece, k_); ++i)
          to.values[i * width + j] = centre == nullptr ? from[i] : from[i] - centre[i];
      }
  }
}

void multiply(const Rows& a, const PanelMatrices& b, std::size_t index, float* c, std::size_t c_stride) {
  const Span span(SpanKind::gemm, "multiply");
  HWY_DYNAMIC_DISPATCH(multiply)(a, b, index, c, c_stride);
}

void multiply_and_sum(const Rows& a, std::size_t a_step, const PanelMatrices& b, std::size_t first,
                      std::size_t last, float* c, std::size_t c_stride) {
  const Span span(SpanKind::gemm, "multiply and sum");
  HWY_DYNAMIC_DISPATCH(multiply_and_sum)(a, a_step, b, first, last, c, c_stride);
}

void multiply_transposed(const Rows& a, std::size_t m, const PanelMatrices& b, bool accumulate,
                         LargeArray& scratch, float* c, std::size_t c_stride) {
  const Span span(SpanKind::gemm, "multiply transposed");
  HWY_DYNAMIC_DISPATCH(multiply_transposed)(a, m, b, accumulate, scratch, c, c_stride);
}

}  // namespace lamina
#endif
