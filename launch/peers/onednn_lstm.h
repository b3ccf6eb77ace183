// oneDNN's own LSTM primitive, plain and without layer normalization: what Lamina's layer is timed against.
// It trains on its own layouts; changes of layout are not part of forward() and backward().
#pragma once

#include <memory>
#include <vector>

namespace lamina {

/// T time steps, B examples, I inputs, H units.
struct PeerShape {
  int steps = 0, batch = 0, inputs = 0, hidden = 0;
};

/// Tensors in plain row-major layouts. The gates are in oneDNN's order: i, f, g, o.
struct PeerParameters {
  std::vector<float> W_x;   ///< [I, 4, H]
  std::vector<float> W_h;   ///< [H, 4, H]
  std::vector<float> bias;  ///< [4, H]
};

struct PeerInput {
  std::vector<float> x;                 ///< [T, B, I]
  std::vector<float> h_first, c_first;  ///< [B, H]
  std::vector<float> d_h;               ///< [T, B, H] gradient by the output
};

struct PeerGradients {
  PeerParameters parameters;
  std::vector<float> x;                 ///< [T, B, I]
  std::vector<float> h_first, c_first;  ///< [B, H]
};

class OneDnnLstm {
 public:
  /// Throws InternalError with oneDNN's message where it has no such primitive.
  explicit OneDnnLstm(const PeerShape& shape);
  ~OneDnnLstm();

  /// Copies everything into the layouts that oneDNN prefers.
  void set(const PeerParameters& parameters, const PeerInput& input);
  void forward();
  /// Of the latest forward(). oneDNN adds to the gradients of the parameters: see clear_gradients().
  void backward();
  void clear_gradients();

  std::vector<float> h() const;  ///< [T, B, H]
  PeerGradients gradients() const;

 private:
  struct Primitives;
  std::unique_ptr<Primitives> primitives_;
};

}  // namespace lamina
