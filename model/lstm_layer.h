// A recurrent layer: LN-LSTM (arXiv:1607.06450, eq. 20-22) or the plain LSTM (eq. 17-19), split by hidden
// unit.
#pragma once

#include <memory>
#include <string>

#include "runtime/backend.h"
#include "runtime/parameter.h"

namespace lamina {

class LstmLayer {
 public:
  /// Registers `name`/W_x [4H, I], W_h [4H, H], bias [4H] and, with layer normalization, gain_x, gain_h [4H],
  /// gain_c, bias_c [H]. `inputs`: with shape.table_rows, the parameter [V, I] whose rows are the inputs.
  LstmLayer(const std::string& name, const RecurrenceShape& shape, ParameterTable& table, Backend& backend,
            Communicator& model_axis, int inputs = -1);

  void parameters_changed(const ParameterTable& table);
  void forward(const RecurrenceForward& f) { recurrence_->forward(f); }
  /// d_output: blocked [D, K, T*R, U]; d_input: blocked [D, K, T*R, I/G], may be empty. With rows of a
  /// parameter as inputs that parameter's gradient is set, too.
  void backward(std::span<const float> d_output, std::span<float> d_input, ParameterTable& table,
                const SideWork& side_work = {});
  /// But for the one whose rows are the inputs.
  ParameterRange parameters() const { return parameters_; }
  std::size_t saved_size() const { return recurrence_->saved_size(); }

  // For who runs several layers beside each other.
  Recurrence& recurrence() { return *recurrence_; }
  /// What Recurrence::backward() takes, with the gradients of `table`.
  RecurrenceBackward backward_arguments(std::span<const float> d_output, std::span<float> d_input,
                                        ParameterTable& table, const SideWork& side_work) const;

 private:
  template <class T, class View>
  LstmParameters<T> views(const View& view) const;

  struct Indices {
    int W_x = -1, W_h = -1, gain_x = -1, gain_h = -1, bias = -1, gain_c = -1, bias_c = -1, inputs = -1;
  } index_;
  ParameterRange parameters_;
  std::unique_ptr<Recurrence> recurrence_;
};

}  // namespace lamina
