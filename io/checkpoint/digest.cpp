#include "io/checkpoint/digest.h"

#include <bit>
#include <limits>
#include <string>

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

double stored_loss(const std::optional<double>& loss) {
  return loss.value_or(std::numeric_limits<double>::quiet_NaN());
}

void describe(const CheckpointRecord& record, Description& out) {
  out.number(kFormatVersion);
  out.number(record.step);
  out.number(record.seed);
  for (const std::int64_t value : {std::int64_t{record.lane_groups}, std::int64_t{record.unit_blocks},
                                   std::int64_t{record.batch}, record.epoch, record.chunk})
    out.number(value);
  out.number(std::bit_cast<std::uint64_t>(stored_loss(record.validation_loss)));
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

}  // namespace

Digest digest_of(const std::vector<Digest>& digests) { return digest_of(std::as_bytes(std::span(digests))); }

Digest root_digest(const CheckpointRecord& record, const std::vector<DescribedTensor>& tensors) {
  Description description;
  describe(record, description);
  description.number(static_cast<std::uint64_t>(tensors.size()));
  for (const DescribedTensor& tensor : tensors) describe(tensor, description);
  return description.digest();
}

}  // namespace lamina::checkpoint
