#include "runtime/parameter.h"

#include <numeric>

#include "runtime/error.h"
#include "runtime/random.h"

namespace lamina {
namespace {

/// The first values of one block, [outer, split_k, inner], drawn per global index.
void draw_block(const Parameter& parameter, int block, const RandomStream& stream, std::span<float> out) {
  const BlockedShape& b = parameter.blocked;
  const Initializer& initializer = parameter.initializer;
  std::size_t at = 0;
  for (std::int64_t a = 0; a < b.outer; ++a) {
    for (std::int64_t s = b.bound(block); s < b.bound(block + 1); ++s) {
      for (std::int64_t c = 0; c < b.inner; ++c) {
        const auto index = static_cast<std::uint64_t>((a * b.split + s) * b.inner + c);
        const bool constant = initializer.kind == Initializer::Kind::constant;
        out[at++] = constant ? initializer.value : initializer.value * (2 * stream.uniform(0, index) - 1);
      }
    }
  }
}

std::int64_t size_of_blocks(const BlockedShape& shape, const Share& blocks) {
  std::int64_t size = 0;
  for (int k = blocks.first; k < blocks.first + blocks.local; ++k) size += shape.block_size(k);
  return size;
}

}  // namespace

int ParameterTable::add(std::string name, std::vector<std::int64_t> shape, BlockedShape blocked, Share blocks,
                        Initializer initializer, bool decay) {
  const std::int64_t product =
      std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>());
  check(product == blocked.size(), name + ": shape and blocked shape differ in size");
  check(blocks.count == blocked.blocks, name + ": the model axis splits another number of blocks");
  check(values_.size() == 0, name + ": registered after allocate()");

  const std::int64_t local = size_of_blocks(blocked, blocks);
  parameters_.push_back(
      {std::move(name), std::move(shape), blocked, blocks, initializer, decay, local, local_size_});
  local_size_ += local;
  return static_cast<int>(parameters_.size()) - 1;
}

void ParameterTable::allocate(Backend& backend, std::uint64_t seed) {
  values_ = backend.allocate(static_cast<std::size_t>(local_size_));
  gradients_ = backend.allocate(static_cast<std::size_t>(local_size_));
  std::vector<float> host(static_cast<std::size_t>(local_size_));
  std::span<float> rest(host);
  for (const Parameter& parameter : parameters_) {
    const RandomStream stream(seed, "initialize/" + parameter.name);
    for (int k = parameter.blocks.first; k < parameter.blocks.first + parameter.blocks.local; ++k) {
      const auto size = static_cast<std::size_t>(parameter.blocked.block_size(k));
      draw_block(parameter, k, stream, rest.first(size));
      rest = rest.subspan(size);
    }
  }
  backend.to_device(host, values_.view());
}

std::int64_t ParameterTable::global_size() const {
  std::int64_t size = 0;
  for (const Parameter& parameter : parameters_) size += parameter.size();
  return size;
}

std::span<float> ParameterTable::gradients(ParameterRange range) {
  check(0 <= range.first && range.first < range.last && range.last <= static_cast<int>(parameters_.size()),
        "no such range of parameters");
  const std::size_t first = offset(range.first);
  return gradients_.view(first, offset(range.last - 1) + length(range.last - 1) - first);
}

}  // namespace lamina
