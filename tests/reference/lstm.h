// The LSTM and the layer-normalized LSTM in plain double loops, one example and one time step at a time:
// slow, and meant to be read beside the paper (arXiv:1607.06450, eq. 17-22 of the supplement).
//
// Layouts are global and row-major: T time steps, B examples, I inputs, H units; rows of W_x, W_h, the gains
// and the bias are ordered by gate f, i, o, g.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "runtime/backend.h"

namespace lamina::reference {

using Vector = std::vector<double>;

struct LstmShape {
  int inputs = 0;
  int hidden = 0;
  Normalization normalization = Normalization::layer;
  double epsilon = 1e-5;  ///< inside the root
  /// What is done to each operand of a matrix product, to x, h, da and to W_x and W_h, of which the mean of
  /// each column has been taken out before where there is normalization. Null: nothing.
  double (*rounding)(double) = nullptr;
};

/// Parameters, or their gradients. Without normalization gain_x, gain_h, gain_c and bias_c are empty.
struct LstmParameters {
  Vector W_x;     ///< [4H, I]
  Vector W_h;     ///< [4H, H]
  Vector gain_x;  ///< [4H]
  Vector gain_h;  ///< [4H]
  Vector bias;    ///< [4H]
  Vector gain_c;  ///< [H]
  Vector bias_c;  ///< [H]

  /// Every tensor with its name: "W_x", … Empty ones are left out.
  std::vector<std::pair<std::string, Vector*>> tensors();
};

/// All of a layer's tensors, zero.
LstmParameters zero_parameters(const LstmShape& shape);

struct LstmInput {
  int time_steps = 0;
  int batch = 0;
  Vector x;                  ///< [T, B, I]
  Vector h_first, c_first;   ///< [B, H]; empty: zeros
  std::vector<int> lengths;  ///< [B] valid steps; later ones copy h and c. Empty: all T
};

/// n = (a - mean) / sqrt(variance + epsilon), the variance biased; scale is the factor 1 / sqrt(…).
struct Normalized {
  Vector n;
  double scale = 1;
};

/// What one example's step computed. With no normalization `n` of each is what came in.
struct LstmStep {
  bool valid = true;
  Vector x, h_before, c_before;
  Normalized norm_x, norm_h, norm_c;
  Vector f, i, o, g;      ///< after their sigmoid or tanh
  Vector c, squashed, h;  ///< squashed: tanh of the (normalized) cell
};

struct LstmOutput {
  Vector h;                     ///< [T, B, H]
  Vector c;                     ///< [T, B, H]
  Vector h_last, c_last;        ///< [B, H]
  std::vector<LstmStep> steps;  ///< [T, B], for the backward pass
};

LstmOutput lstm_forward(const LstmShape& shape, const LstmParameters& parameters, const LstmInput& input);

struct LstmGradients {
  LstmParameters parameters;
  Vector x;                 ///< [T, B, I]
  Vector h_first, c_first;  ///< [B, H]
};

/// Gradients of a loss whose gradient by the output h is d_output [T, B, H].
LstmGradients lstm_backward(const LstmShape& shape, const LstmParameters& parameters, const LstmInput& input,
                            const LstmOutput& output, const Vector& d_output);

}  // namespace lamina::reference
