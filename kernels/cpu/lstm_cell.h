// The LSTM cell's pointwise part on one tile (lane group x unit block) at one time step, forward and
// backward: the gates and the output of arXiv:1607.06450, eq. 20-22 with layer normalization and eq. 17-19
// without. What crosses unit blocks (statistics of LN, products with W_h) lies between these calls:
// recurrence/.
//
// R rows, U units; gate vectors are [R, 4, U] in the order f, i, o, g. n = (a - mean) * scale is a normalized
// value, computed wherever it is needed rather than kept; z = gain_h n_h + gain_x n_x + bias a gate before
// its nonlinearity, s = tanh(gain_c n_c + bias_c).
#pragma once

#include <cstddef>
#include <cstdint>

namespace lamina {

struct CellTile {
  std::size_t rows = 0, units = 0;
  bool normalized = false;                ///< layer normalization; members marked LN are used with it only
  const std::int32_t* lengths = nullptr;  ///< [R], or null: all rows are valid
  std::int32_t t = 0;
  /// [R], where x is a row of a table (token_rows.h): what is marked "tokens" is used, what is marked "x"
  /// not.
  const std::int32_t* tokens = nullptr;

  /// Otherwise h and c are copied from t-1 and no gradient comes from this step's gates.
  bool valid(std::size_t row) const { return lengths == nullptr || t < lengths[row]; }
};

/// Of one LN, [R] each.
struct NormalizedRows {
  const float *mean = nullptr, *scale = nullptr;
};

struct GatesForward {
  const float *a_h, *a_x;        ///< [R, 4, U] W_h h and W_x x; a_x: x
  const float* terms;            ///< tokens, [V, 4, U]: gain_x n_x + bias, or W_x x + bias without LN
  NormalizedRows of_h, of_x;     ///< LN; of_x: x
  const float *gain_h, *gain_x;  ///< LN, [4, U]; gain_x: x
  const float* bias;             ///< x, [4, U]
  const float* c_before;         ///< [R, U]
  float* gates;                  ///< out, after their nonlinearities; may be a_x without LN
  float* c;                      ///< out, [R, U]
};
void lstm_gates(const CellTile& tile, const GatesForward& g);

struct OutputForward {
  const float* o;  ///< [R, U], rows o_stride apart
  std::size_t o_stride;
  const float* c;
  NormalizedRows of_c;           ///< LN
  const float *gain_c, *bias_c;  ///< LN, [U]
  float* s;                      ///< out, [R, U]
  const float* h_before;         ///< [R, U] with h_stride from row to row
  float* h;                      ///< out, likewise; may be h_before
  std::size_t h_stride;
};
void lstm_output(const CellTile& tile, const OutputForward& o);

/// dL/dh to the cell; and dz_o, which needs nothing else.
struct OutputBackward {
  const float* d_output;  ///< [R, U], dL/dh from above
  const float* d_h;       ///< [R, U], from t+1 through W_h
  float* d_h_held;        ///< [R, U], past invalid steps: from t+1, to t-1; null where all rows are valid
  const float* c;         ///< LN
  NormalizedRows of_c;    ///< LN
  const float* gain_c;    ///< LN
  const float* o;         ///< [R, U], rows o_stride apart
  std::size_t o_stride;
  const float* s;
  float* dz;                   ///< [R, 4, U], out: its o; may hold o itself; null: not wanted
  float* d_n_c;                ///< [R, U], out: dL/dn_c with LN, else dL/dc through h
  float *sum_dn, *sum_dn_n;    ///< LN, out, [R]: over the units, of dL/dn_c and of its product with n_c
  float *d_gain_c, *d_bias_c;  ///< LN, [U], added to
};
void lstm_output_backward(const CellTile& tile, const OutputBackward& o);

/// Sums over a row, [R]: of dL/dn and of its product with n.
struct NormalizationSums {
  float *dn = nullptr, *dn_n = nullptr;
};

struct GatesBackward {
  const float* d_n_c;                ///< [R, U]
  const float *mean_dn, *mean_dn_n;  ///< LN, [R], the sums over all units of the layer / H
  const float *c, *c_before;         ///< c: LN
  NormalizedRows of_c;               ///< LN
  float* d_c;                        ///< [R, U], dL/dc from t+1, to t-1
  const float* gates;
  float* dz;                     ///< [R, 4, U]: its o in, all out; may be the gates
  const float *a_h, *a_x;        ///< LN; a_x: x
  NormalizedRows of_h, of_x;     ///< LN; of_x: x
  const float *gain_h, *gain_x;  ///< LN; gain_x: x
  NormalizationSums h, x;        ///< LN, out: over the 4U values of this block; x: x
  float* dz_sum;  ///< without LN, added to: [4, U], or with tokens [V, 4, U], each row to its token's
};
void lstm_gates_backward(const CellTile& tile, const GatesBackward& g);

/// da = scale (dn - mean_dn - n mean_dn_n) with dn = gain dz, and what dz gives the gain.
struct SideBackward {
  NormalizedRows of;
  const float* gain;                 ///< [4, U]
  const float *mean_dn, *mean_dn_n;  ///< [R], the sums over all gates of the layer / 4H
  float* a;                          ///< [R, 4, U], becomes da
  float* d_gain;                     ///< [4, U], added to
};

struct NormalizationBackward {
  const float* dz;    ///< [R, 4, U]
  SideBackward h, x;  ///< x: x
  float* dz_sum;      ///< added to: [4, U], or with tokens [V, 4, U], each row to its token's
};
void lstm_normalization_backward(const CellTile& tile, const NormalizationBackward& b);

}  // namespace lamina
