#include "kernels/cpu/lstm_cell.h"

#include <algorithm>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/lstm_cell.cpp"
#include <hwy/foreach_target.h>
// after foreach_target.h
#include <hwy/contrib/math/math-inl.h>

#include "kernels/cpu/lanes-inl.h"
#include "kernels/cpu/row_normalization-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lamina::HWY_NAMESPACE {

HWY_INLINE Vector tanh_of(Vector x) { return hn::Tanh(Floats(), x); }
HWY_INLINE Vector sigmoid_of(Vector x) {
  const Vector half = constant(0.5f);
  return hn::MulAdd(half, tanh_of(hn::Mul(half, x)), half);
}
HWY_INLINE Vector one_minus(Vector x) { return hn::Sub(constant(1), x); }

/// Of an array with a row [4, U] for each token, the row's; of one with a single row, that.
HWY_INLINE std::size_t token_row(const CellTile& tile, std::size_t row) {
  return tile.tokens == nullptr ? 0 : static_cast<std::size_t>(tile.tokens[row]) * 4 * tile.units;
}

// One gate of one row before its nonlinearity; `j` within [4, U], `i` within [R, 4, U].
template <class Lanes>
HWY_INLINE Vector normalized_gate(const Lanes& lanes, const GatesForward& g, const RowNormalization& of_h,
                                  const RowNormalization& of_x, std::size_t j, std::size_t i) {
  const Vector x_term = of_x.term(lanes, g.a_x + i, g.gain_x + j, lanes.load(g.bias + j));
  return of_h.term(lanes, g.a_h + i, g.gain_h + j, x_term);
}

// z(lanes, j, i) gives the gate at `j` of [4, U], `i` of [R, 4, U].
template <class Gate>
HWY_INLINE void gates_of_row(const CellTile& tile, const GatesForward& g, std::size_t row, const Gate& z) {
  const std::size_t units = tile.units, first = row * 4 * units;
  for_each_vector(units, [&](auto lanes, std::size_t u) HWY_ATTR {
    const Vector f = sigmoid_of(z(lanes, u, first + u));
    const Vector i = sigmoid_of(z(lanes, units + u, first + units + u));
    const Vector o = sigmoid_of(z(lanes, 2 * units + u, first + 2 * units + u));
    const Vector c_new = tanh_of(z(lanes, 3 * units + u, first + 3 * units + u));
    float* gates = g.gates + first + u;
    lanes.store(f, gates);
    lanes.store(i, gates + units);
    lanes.store(o, gates + 2 * units);
    lanes.store(c_new, gates + 3 * units);
    const Vector c_before = lanes.load(g.c_before + row * units + u);
    lanes.store(hn::MulAdd(f, c_before, hn::Mul(i, c_new)), g.c + row * units + u);
  });
}

// With the x side of a row of a table.
HWY_INLINE void gates_of_token(const CellTile& tile, const GatesForward& g, std::size_t row) {
  const float* terms = g.terms + token_row(tile, row);
  if (tile.normalized) {
    const RowNormalization of_h(g.of_h, row);
    gates_of_row(tile, g, row, [&](auto lanes, std::size_t j, std::size_t i) HWY_ATTR {
      return of_h.term(lanes, g.a_h + i, g.gain_h + j, lanes.load(terms + j));
    });
  } else {
    gates_of_row(tile, g, row, [&](auto lanes, std::size_t j, std::size_t i) HWY_ATTR {
      return hn::Add(lanes.load(g.a_h + i), lanes.load(terms + j));
    });
  }
}

void lstm_gates(const CellTile& tile, const GatesForward& g) {
  for (std::size_t row = 0; row < tile.rows; ++row) {
    if (!tile.valid(row)) {
      std::copy_n(g.c_before + row * tile.units, tile.units, g.c + row * tile.units);
    } else if (tile.tokens != nullptr) {
      gates_of_token(tile, g, row);
    } else if (tile.normalized) {
      const RowNormalization of_h(g.of_h, row), of_x(g.of_x, row);
      gates_of_row(tile, g, row, [&](auto lanes, std::size_t j, std::size_t i) HWY_ATTR {
        return normalized_gate(lanes, g, of_h, of_x, j, i);
      });
    } else {
      gates_of_row(tile, g, row, [&](auto lanes, std::size_t j, std::size_t i) HWY_ATTR {
        return hn::Add(lanes.load(g.a_h + i), hn::Add(lanes.load(g.a_x + i), lanes.load(g.bias + j)));
      });
    }
  }
}

void lstm_output(const CellTile& tile, const OutputForward& o) {
  const std::size_t units = tile.units;
  const auto output_of_row = [&](std::size_t row, const auto& squashed) HWY_ATTR {
    for_each_vector(units, [&](auto lanes, std::size_t u) HWY_ATTR {
      const Vector s = tanh_of(squashed(lanes, lanes.load(o.c + row * units + u), u));
      lanes.store(s, o.s + row * units + u);
      lanes.store(hn::Mul(lanes.load(o.o + row * o.o_stride + u), s), o.h + row * o.h_stride + u);
    });
  };
  for (std::size_t row = 0; row < tile.rows; ++row) {
    if (!tile.valid(row)) {
      if (o.h != o.h_before) std::copy_n(o.h_before + row * o.h_stride, units, o.h + row * o.h_stride);
    } else if (tile.normalized) {
      const RowNormalization of_c(o.of_c, row);
      output_of_row(row, [&](auto lanes, Vector c, std::size_t u) HWY_ATTR {
        return hn::MulAdd(lanes.load(o.gain_c + u), of_c.of(c), lanes.load(o.bias_c + u));
      });
    } else {
      output_of_row(row, [](auto, Vector c, std::size_t) HWY_ATTR { return c; });
    }
  }
}

// dz_o = dh s o (1 - o), where it is wanted; returns dL/d(argument of tanh) = dh o (1 - s^2).
template <class Lanes>
HWY_INLINE Vector output_gradient(const Lanes& lanes, Vector d_h, Vector s, Vector o, float* dz_o) {
  if (dz_o != nullptr) lanes.store(hn::Mul(hn::Mul(d_h, s), hn::Mul(o, one_minus(o))), dz_o);
  return hn::Mul(hn::Mul(d_h, o), hn::NegMulAdd(s, s, constant(1)));
}

HWY_INLINE void hold_output_gradient(const CellTile& tile, const OutputBackward& o, std::size_t row) {
  const std::size_t units = tile.units;
  for_each_vector(units, [&](auto lanes, std::size_t u) HWY_ATTR {
    const std::size_t i = row * units + u;
    const Vector d_h = hn::Add(lanes.load(o.d_output + i), lanes.load(o.d_h + i));
    add_to(lanes, o.d_h_held + i, d_h);
    lanes.store(constant(0), o.d_n_c + i);
  });
  if (tile.normalized) o.sum_dn[row] = o.sum_dn_n[row] = 0;
}

void lstm_output_backward(const CellTile& tile, const OutputBackward& o) {
  const std::size_t units = tile.units;
  // through(lanes, dL/d(argument of tanh), u, i) gives what goes to the cell.
  const auto backward_of_row = [&](std::size_t row, const auto& through) HWY_ATTR {
    float* dz_o = o.dz == nullptr ? nullptr : o.dz + row * 4 * units + 2 * units;
    for_each_vector(units, [&](auto lanes, std::size_t u) HWY_ATTR {
      const std::size_t i = row * units + u;
      Vector d_h = hn::Add(lanes.load(o.d_output + i), lanes.load(o.d_h + i));
      if (o.d_h_held != nullptr) {
        d_h = hn::Add(d_h, lanes.load(o.d_h_held + i));
        lanes.store(constant(0), o.d_h_held + i);
      }
      const Vector gate = lanes.load(o.o + row * o.o_stride + u);
      const Vector d_y =
          output_gradient(lanes, d_h, lanes.load(o.s + i), gate, dz_o == nullptr ? nullptr : dz_o + u);
      lanes.store(through(lanes, d_y, u, i), o.d_n_c + i);
    });
  };
  for (std::size_t row = 0; row < tile.rows; ++row) {
    if (!tile.valid(row)) {
      hold_output_gradient(tile, o, row);
    } else if (tile.normalized) {
      const RowNormalization of_c(o.of_c, row);
      Vector sum_dn = constant(0), sum_dn_n = constant(0);
      backward_of_row(row, [&](auto lanes, Vector d_y, std::size_t u, std::size_t i) HWY_ATTR {
        const Vector n = of_c.of(lanes.load(o.c + i)), d_n = hn::Mul(lanes.load(o.gain_c + u), d_y);
        add_to(lanes, o.d_bias_c + u, d_y);
        lanes.store(hn::MulAdd(d_y, n, lanes.load(o.d_gain_c + u)), o.d_gain_c + u);
        sum_dn = hn::Add(sum_dn, d_n);
        sum_dn_n = hn::MulAdd(d_n, n, sum_dn_n);
        return d_n;
      });
      o.sum_dn[row] = sum_of_lanes(sum_dn);
      o.sum_dn_n[row] = sum_of_lanes(sum_dn_n);
    } else {
      backward_of_row(row, [](auto, Vector d_y, std::size_t, std::size_t) HWY_ATTR { return d_y; });
    }
  }
}

// d_c at (lanes, i) is dL/dc complete; gate(lanes, dz, j, i) sees each gate's dz.
template <class CellGradient, class Gate>
HWY_INLINE void gates_backward_of_row(const CellTile& tile, const GatesBackward& g, std::size_t row,
                                      const CellGradient& cell_gradient, const Gate& gate) {
  const std::size_t units = tile.units, first = row * 4 * units;
  for_each_vector(units, [&](auto lanes, std::size_t u) HWY_ATTR {
    const std::size_t cell = row * units + u;
    const auto finish = [&](std::size_t which, Vector dz) HWY_ATTR {
      const std::size_t j = which * units + u;
      lanes.store(dz, g.dz + first + j);
      gate(lanes, dz, j, first + j);
    };
    const auto value = [&](std::size_t which)
                           HWY_ATTR { return lanes.load(g.gates + first + which * units + u); };
    const Vector f = value(0), i = value(1), c_new = value(3);
    const Vector d_c = cell_gradient(lanes, cell);
    lanes.store(hn::Mul(d_c, f), g.d_c + cell);
    finish(0, hn::Mul(hn::Mul(d_c, lanes.load(g.c_before + cell)), hn::Mul(f, one_minus(f))));
    finish(1, hn::Mul(hn::Mul(d_c, c_new), hn::Mul(i, one_minus(i))));
    gate(lanes, lanes.load(g.dz + first + 2 * units + u), 2 * units + u, first + 2 * units + u);
    finish(3, hn::Mul(hn::Mul(d_c, i), hn::NegMulAdd(c_new, c_new, constant(1))));
  });
}

HWY_INLINE void skip_gates(const CellTile& tile, const GatesBackward& g, std::size_t row) {
  std::fill_n(g.dz + row * 4 * tile.units, 4 * tile.units, 0.0f);
  if (!tile.normalized) return;
  g.h.dn[row] = g.h.dn_n[row] = 0;
  if (tile.tokens == nullptr) g.x.dn[row] = g.x.dn_n[row] = 0;
}

HWY_INLINE void normalized_gates_backward(const CellTile& tile, const GatesBackward& g, std::size_t row) {
  const RowNormalization of_c(g.of_c, row);
  const Vector mean_dn = constant(g.mean_dn[row]), mean_dn_n = constant(g.mean_dn_n[row]);
  const auto cell_gradient = [&](auto lanes, std::size_t i) HWY_ATTR {
    const Vector centred = hn::Sub(lanes.load(g.d_n_c + i), mean_dn);
    const Vector d_n = hn::NegMulAdd(of_c.of(lanes.load(g.c + i)), mean_dn_n, centred);
    return hn::MulAdd(of_c.scale, d_n, lanes.load(g.d_c + i));
  };
  SideSums h(g.of_h, row);
  if (tile.tokens != nullptr) {
    gates_backward_of_row(tile, g, row, cell_gradient,
                          [&](auto lanes, Vector dz, std::size_t j, std::size_t i) HWY_ATTR {
                            h.add(lanes.only(dz), lanes.load(g.gain_h + j), lanes.load(g.a_h + i));
                          });
  } else {
    SideSums x(g.of_x, row);
    gates_backward_of_row(tile, g, row, cell_gradient,
                          [&](auto lanes, Vector dz, std::size_t j, std::size_t i) HWY_ATTR {
                            const Vector dz_of_row = lanes.only(dz);
                            h.add(dz_of_row, lanes.load(g.gain_h + j), lanes.load(g.a_h + i));
                            x.add(dz_of_row, lanes.load(g.gain_x + j), lanes.load(g.a_x + i));
                          });
    x.store(g.x, row);
  }
  h.store(g.h, row);
}

void lstm_gates_backward(const CellTile& tile, const GatesBackward& g) {
  for (std::size_t row = 0; row < tile.rows; ++row) {
    if (!tile.valid(row)) {
      skip_gates(tile, g, row);
    } else if (tile.normalized) {
      normalized_gates_backward(tile, g, row);
    } else {
      float* dz_sum = g.dz_sum + token_row(tile, row);
      gates_backward_of_row(
          tile, g, row,
          [&](auto lanes, std::size_t i)
              HWY_ATTR { return hn::Add(lanes.load(g.d_c + i), lanes.load(g.d_n_c + i)); },
          [&](auto lanes, Vector dz, std::size_t j, std::size_t) HWY_ATTR { add_to(lanes, dz_sum + j, dz); });
    }
  }
}

HWY_INLINE RowBackward row_backward(const SideBackward& side, std::size_t row) {
  return {side.of, side.mean_dn, side.mean_dn_n, row};
}

template <class Lanes>
HWY_INLINE void run(const RowBackward& backward, const Lanes& lanes, const SideBackward& side, Vector dz,
                    std::size_t j, std::size_t i) {
  backward.run(lanes, dz, side.a + i, side.gain + j, side.d_gain + j, side.a + i);
}

void lstm_normalization_backward(const CellTile& tile, const NormalizationBackward& b) {
  const std::size_t width = 4 * tile.units;
  for (std::size_t row = 0; row < tile.rows; ++row) {
    if (!tile.valid(row)) {
      std::fill_n(b.h.a + row * width, width, 0.0f);
      if (tile.tokens == nullptr) std::fill_n(b.x.a + row * width, width, 0.0f);
      continue;
    }
    const RowBackward h = row_backward(b.h, row);
    float* dz_sum = b.dz_sum + token_row(tile, row);
    if (tile.tokens != nullptr) {
      for_each_vector(width, [&](auto lanes, std::size_t j) HWY_ATTR {
        const Vector dz = lanes.load(b.dz + row * width + j);
        run(h, lanes, b.h, dz, j, row * width + j);
        add_to(lanes, dz_sum + j, dz);
      });
      continue;
    }
    const RowBackward x = row_backward(b.x, row);
    for_each_vector(width, [&](auto lanes, std::size_t j) HWY_ATTR {
      const std::size_t i = row * width + j;
      const Vector dz = lanes.load(b.dz + i);
      run(h, lanes, b.h, dz, j, i);
      run(x, lanes, b.x, dz, j, i);
      add_to(lanes, dz_sum + j, dz);
    });
  }
}

}  // namespace lamina::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lamina {

HWY_EXPORT(lstm_gates);
HWY_EXPORT(lstm_output);
HWY_EXPORT(lstm_output_backward);
HWY_EXPORT(lstm_gates_backward);
HWY_EXPORT(lstm_normalization_backward);

void lstm_gates(const CellTile& tile, const GatesForward& g) { HWY_DYNAMIC_DISPATCH(lstm_gates)(tile, g); }

void lstm_output(const CellTile& tile, const OutputForward& o) { HWY_DYNAMIC_DISPATCH(lstm_output)(tile, o); }

void lstm_output_backward(const CellTile& tile, const OutputBackward& o) {
  HWY_DYNAMIC_DISPATCH(lstm_output_backward)(tile, o);
}

void lstm_gates_backward(const CellTile& tile, const GatesBackward& g) {
  HWY_DYNAMIC_DISPATCH(lstm_gates_backward)(tile, g);
}

void lstm_normalization_backward(const CellTile& tile, const NormalizationBackward& b) {
  HWY_DYNAMIC_DISPATCH(lstm_normalization_backward)(tile, b);
}

}  // namespace lamina
#endif
