#include "runtime/shape_checks.h"

#include <algorithm>

#include "runtime/error.h"

namespace lamina {
namespace {

std::size_t size(int n) { return static_cast<std::size_t>(n); }

std::size_t own_units(const RecurrenceShape& s) {
  return size(s.tiling.blocks.local) * size(s.hidden / s.tiling.blocks.count);
}

bool are_within(std::span<const std::int32_t> tokens, int vocabulary) {
  return std::ranges::all_of(tokens, [=](std::int32_t token) { return token >= 0 && token < vocabulary; });
}

void check_input(const RecurrenceShape& s, const RecurrenceForward& f, std::size_t rows) {
  const bool has_table = s.table_rows > 0;
  check(f.input.size() == (has_table ? 0 : rows * size(s.inputs)),
        "recurrence: input must be [D, T, R, I], and empty with a table");
  check(f.tokens.size() == (has_table ? rows : 0),
        "recurrence: tokens must be [D, T, R] with a table, and else empty");
  check(are_within(f.tokens, s.table_rows), "recurrence: a token is outside the table");
}

void check_gradients(const RecurrenceShape& s, const LstmParameters<float>& d) {
  const std::size_t units = own_units(s);
  check(d.W_x.size() == 4 * units * size(s.inputs) && d.W_h.size() == 4 * units * size(s.hidden) &&
            d.bias.size() == 4 * units,
        "recurrence: the gradients do not fit the shape");
  if (s.normalization == Normalization::layer)
    check(d.gain_x.size() == 4 * units && d.gain_h.size() == 4 * units && d.gain_c.size() == units &&
              d.bias_c.size() == units,
          "recurrence: the gradients of gains or biases do not fit the shape");
}

}  // namespace

void check_fits(const RecurrenceShape& s, const RecurrenceForward& f) {
  check(f.time_steps >= 1 && f.time_steps <= s.max_time_steps, "recurrence: time steps out of range");
  const std::size_t lanes = size(s.tiling.local_lanes()), rows = lanes * size(f.time_steps);
  check(f.output.size() == rows * size(s.hidden), "recurrence: output must be [D, T, R, H]");
  check(f.h_first.size() == lanes * size(s.hidden) && f.h_last.size() == f.h_first.size(),
        "recurrence: h_first and h_last must be [D, R, H]");
  check(f.c_first.size() == lanes * own_units(s) && f.c_last.size() == f.c_first.size(),
        "recurrence: c_first and c_last must be [D, K, R, U]");
  check(f.lengths.empty() || f.lengths.size() == lanes, "recurrence: lengths must be [D, R]");
  check_input(s, f, rows);
}

void check_fits(const RecurrenceShape& s, int time_steps, const RecurrenceBackward& b) {
  const std::size_t rows = size(s.tiling.local_lanes()) * size(time_steps);
  check(b.d_output.size() == rows * own_units(s), "recurrence: d_output must be [D, K, T*R, U]");
  const int blocks = s.tiling.blocks.count;
  check(b.d_input.empty() || (s.table_rows == 0 && s.inputs % blocks == 0 &&
                              b.d_input.size() == rows * size(s.inputs / blocks * s.tiling.blocks.local)),
        "recurrence: d_input must be [D, K, T*R, I/G], of inputs that divide into blocks, and no table");
  check_gradients(s, b.d_parameters);
}

void check_fits(const EmbeddingShape& s, int time_steps, std::size_t table,
                std::span<const std::int32_t> tokens) {
  check(time_steps >= 1 && time_steps <= s.max_time_steps, "embedding: time steps out of range");
  const Share& blocks = s.tiling.blocks;
  check(table == size(blocks.local) * size(s.vocabulary) * size(s.width / blocks.count),
        "embedding: the table must be [K, V, E/G]");
  check(tokens.size() == size(s.tiling.local_lanes()) * size(time_steps),
        "embedding: tokens must be [D, T, R]");
  check(are_within(tokens, s.vocabulary), "embedding: a token is outside the vocabulary");
}

}  // namespace lamina
