// What every layer must do on every backend, as one list of checks, and every kind of layer.
#pragma once

#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "tests/support/layer_cases.h"

namespace lamina::test {

struct LayerKind {
  std::string name;
  std::function<std::unique_ptr<LayerCase>(const LayerSizes&)> make;
  bool of_cpus = false;  ///< and of no other device
};

const std::vector<LayerKind>& layer_kinds();
/// For backends that take input tables.
const std::vector<LayerKind>& input_table_kinds();
/// With bf16 operands, the columns of normalized weights centred before they are rounded.
const std::vector<LayerKind>& bf16_layer_kinds();

/// Sizes to check a kind with; the first is the one for slow checks.
const std::vector<LayerSizes>& layer_sizes();

/// Reports by EXPECT_*. Of `choices`, what the check does not choose itself.
struct LayerCheck {
  const char* name;
  void (*run)(const LayerKind& kind, const RunChoices& choices);
};

const std::vector<LayerCheck>& layer_checks();
/// A loss that comes from rounded operands is a staircase, without differences to compare gradients with.
const std::vector<LayerCheck>& bf16_layer_checks();

inline std::ostream& operator<<(std::ostream& out, const LayerKind& kind) { return out << kind.name; }
inline std::ostream& operator<<(std::ostream& out, const LayerCheck& check) { return out << check.name; }

/// check(case, its inputs) for each of `sizes`.
void for_each_size(const LayerKind& kind, const std::vector<LayerSizes>& sizes,
                   const std::function<void(const LayerCase& layer, const Tensors& in)>& check);

void expect_same_bits(const Tensors& left, const Tensors& right);

}  // namespace lamina::test
