#include "io/checkpoint/digest.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <xxhash.h>

#include <cstring>

#include "runtime/error.h"

namespace lamina::checkpoint {
namespace {

/// The bytes that a root digest is taken over.
class Description {
 public:
  void raw(const void* data, std::size_t size) { bytes_.append(static_cast<const char*>(data), size); }
  void number(std::uint64_t value) { raw(&value, sizeof value); }
  void number(std::int64_t value) { raw(&value, sizeof value); }
  void text(const std::string& value) {
    number(static_cast<std::uint64_t>(value.size()));
    bytes_ += value;
  }
  Digest digest() const { return digest_of(std::as_bytes(std::span(bytes_))); }

 private:
  std::string bytes_;
};

void describe(const CheckpointRecord& record, Description& out) {
  out.number(kFormatVersion);
  out.number(record.step);
  out.number(record.seed);
  for (const std::int64_t value : {std::int64_t{record.lane_groups}, std::int64_t{record.unit_blocks},
                                   std::int64_t{record.batch}, record.epoch, record.chunk})
    out.number(value);
  out.text(record.configuration);
  out.text(record.build);
  out.number(static_cast<std::uint64_t>(record.vocabulary.size()));
  out.raw(record.vocabulary.data(), record.vocabulary.size() * sizeof(char32_t));
}

void describe(const DescribedTensor& tensor, Description& out) {
  const TensorLayout& layout = tensor.layout;
  out.text(layout.path);
  out.number(static_cast<std::uint64_t>(layout.shape.size()));
  for (const std::int64_t size : layout.shape) out.number(size);
  for (const std::int64_t value : {layout.outer, layout.split, layout.inner, std::int64_t{layout.outer_parts},
                                   std::int64_t{layout.split_parts}})
    out.number(value);
  out.raw(tensor.digests.data(), tensor.digests.size() * sizeof(Digest));
}

Digest canonical(const XXH128_hash_t& hash) {
  XXH128_canonical_t bytes;
  XXH128_canonicalFromHash(&bytes, hash);
  Digest digest;
  static_assert(sizeof digest == sizeof bytes.digest);
  std::memcpy(digest.data(), bytes.digest, sizeof digest);
  return digest;
}

}  // namespace

Digest digest_of(std::span<const std::byte> bytes) {
  return canonical(XXH3_128bits(bytes.data(), bytes.size()));
}

Digest digest_of(std::span<const float> values) { return digest_of(std::as_bytes(values)); }

Digest digest_of(const std::vector<Digest>& digests) { return digest_of(std::as_bytes(std::span(digests))); }

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
  return canonical(XXH3_128bits_digest(static_cast<const XXH3_state_t*>(state_.get())));
}

std::string to_hex(const Digest& digest) { return fmt::format("{:02x}", fmt::join(digest, "")); }

Digest root_digest(const CheckpointRecord& record, const std::vector<DescribedTensor>& tensors) {
  Description description;
  describe(record, description);
  description.number(static_cast<std::uint64_t>(tensors.size()));
  for (const DescribedTensor& tensor : tensors) describe(tensor, description);
  return description.digest();
}

}  // namespace lamina::checkpoint
