// Host values on a device and back.
#pragma once

#include <limits>
#include <span>
#include <vector>

#include "runtime/backend.h"

namespace lamina::test {

constexpr float kUnwritten = std::numeric_limits<float>::quiet_NaN();

class DeviceTensor {
 public:
  /// Of elements that nobody has written.
  DeviceTensor(Backend& backend, std::size_t count) : backend_(&backend), memory_(backend.allocate(count)) {
    backend.fill(memory_.view(), kUnwritten);
  }
  DeviceTensor(Backend& backend, const std::vector<float>& host) : DeviceTensor(backend, host.size()) {
    set(host);
  }

  void set(const std::vector<float>& host) { backend_->to_device(host, first(host.size())); }
  std::span<float> first(std::size_t count) { return memory_.view(0, count); }
  std::span<float> view() { return memory_.view(); }
  std::vector<float> host(std::size_t count) {
    std::vector<float> values(count);
    backend_->to_host(first(count), values);
    return values;
  }
  std::vector<float> host() { return host(view().size()); }

 private:
  Backend* backend_;
  Buffer<float> memory_;
};

}  // namespace lamina::test
