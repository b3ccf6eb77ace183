#include "runtime/background_sums.h"

namespace lamina {

// Backward passes add what lies before the last, or after it.
void DeferredSums::add(std::span<float> values) {
  if (values.data() + values.size() == added_.data())
    added_ = {values.data(), values.size() + added_.size()};
  else if (added_.data() + added_.size() == values.data())
    added_ = {added_.data(), added_.size() + values.size()};
  else {
    finish();
    added_ = values;
  }
}

void DeferredSums::finish() {
  if (!added_.empty()) sum_(added_);
  added_ = {};
}

}  // namespace lamina
