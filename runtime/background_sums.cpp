#include "runtime/background_sums.h"

namespace lamina {

bool grow(std::span<float>& values, std::span<float> more) {
  const bool is_before = more.data() + more.size() == values.data();
  if (!is_before && values.data() + values.size() != more.data()) return false;
  values = {is_before ? more.data() : values.data(), values.size() + more.size()};
  return true;
}

// Backward passes add what lies before the last, or after it.
void DeferredSums::add(std::span<float> values) {
  if (grow(added_, values)) return;
  finish();
  added_ = values;
}

void DeferredSums::finish() {
  if (!added_.empty()) sum_(added_);
  added_ = {};
}

}  // namespace lamina
