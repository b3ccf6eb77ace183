// A digest of bytes that come piece by piece.
#pragma once

#include <cstddef>
#include <memory>
#include <span>

#include "io/checkpoint/digest.h"

namespace lamina::checkpoint {

class DigestStream {
 public:
  DigestStream();
  void add(std::span<const std::byte> bytes);
  Digest digest() const;  ///< as digest_of() of all that was added

 private:
  struct Free {
    void operator()(void* state) const;
  };
  std::unique_ptr<void, Free> state_;
};

}  // namespace lamina::checkpoint
