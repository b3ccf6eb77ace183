// Floats that stay where they are for long: aligned to cache lines, zeroed, on huge pages where the system
// has them, because products stream through megabytes of weights and activations at every time step.
#pragma once

#include <cstddef>
#include <memory>
#include <span>

namespace lamina {

class LargeArray {
 public:
  LargeArray() = default;
  explicit LargeArray(std::size_t size);

  /// Keeps nothing of the values when it grows; memory is never given back before the end.
  void resize(std::size_t size);

  float* data() { return values_.get(); }
  const float* data() const { return values_.get(); }
  std::size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  float& operator[](std::size_t i) { return values_[i]; }
  const float& operator[](std::size_t i) const { return values_[i]; }
  operator std::span<float>() { return {data(), size_}; }
  operator std::span<const float>() const { return {data(), size_}; }

 private:
  struct Free {
    void operator()(float* values) const;
  };
  std::unique_ptr<float[], Free> values_;
  std::size_t size_ = 0, capacity_ = 0;
};

}  // namespace lamina
