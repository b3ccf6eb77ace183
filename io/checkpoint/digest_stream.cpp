#include "io/checkpoint/digest_stream.h"

#include <xxhash.h>

#include <cstring>

#include "runtime/error.h"

namespace lamina::checkpoint {

void DigestStream::Free::operator()(void* state) const { XXH3_freeState(static_cast<XXH3_state_t*>(state)); }

DigestStream::DigestStream() : state_(XXH3_createState()) {
  auto* state = static_cast<XXH3_state_t*>(state_.get());
  check(state != nullptr && XXH3_128bits_reset(state) == XXH_OK, "no digest can be begun");
}

void DigestStream::add(std::span<const std::byte> bytes) {
  auto* state = static_cast<XXH3_state_t*>(state_.get());
  check(XXH3_128bits_update(state, bytes.data(), bytes.size()) == XXH_OK, "no digest can go on");
}

Digest DigestStream::digest() const {
  XXH128_canonical_t canonical;
  XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(static_cast<const XXH3_state_t*>(state_.get())));
  Digest digest;
  static_assert(sizeof digest == sizeof canonical.digest);
  std::memcpy(digest.data(), canonical.digest, sizeof digest);
  return digest;
}

}  // namespace lamina::checkpoint
