// What is learned, registered once: optimizer, gradient synchronization, clipping, checkpoint, summary and
// gradient check all read this one table.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "runtime/backend.h"
#include "runtime/tiling.h"

namespace lamina {

/// How a global tensor is cut into blocks. Seen as [outer, split, inner] in row-major order, block k holds
/// the indices [bound(k), bound(k+1)) of `split`; W_x [4H, E] is [4, H, E], the embedding table [V, E] is [V,
/// E, 1]. A rank stores its blocks one after another, each as a contiguous [outer, split_k, inner].
struct BlockedShape {
  std::int64_t outer = 1, split = 1, inner = 1;
  int blocks = 1;

  /// Blocks are ceil(split / blocks) wide, the last ones shorter or empty.
  std::int64_t width() const { return (split + blocks - 1) / blocks; }
  std::int64_t bound(int block) const { return std::min(split, width() * block); }
  std::int64_t block_size(int block) const { return outer * (bound(block + 1) - bound(block)) * inner; }
  std::int64_t size() const { return outer * split * inner; }
};

/// First values of a parameter, drawn per global index.
struct Initializer {
  enum class Kind { constant, uniform } kind = Kind::constant;
  float value = 0;  ///< the constant, or the bound of uniform [-value, value)

  static Initializer constant(float value) { return {Kind::constant, value}; }
  static Initializer uniform(float bound) { return {Kind::uniform, bound}; }
};

struct Parameter {
  std::string name;                 ///< "lstm0/W_h": also its path in a checkpoint
  std::vector<std::int64_t> shape;  ///< global, as in a checkpoint
  BlockedShape blocked;
  Share blocks;  ///< which blocks this rank owns
  Initializer initializer;
  bool decay = false;  ///< weight decay applies

  std::int64_t local_size = 0;
  std::int64_t offset = 0;  ///< of this rank's blocks in the table's arenas

  std::int64_t size() const { return blocked.size(); }
};

/// Neighbours in a ParameterTable: the indices [first, last).
struct ParameterRange {
  int first = 0, last = 0;

  int count() const { return last - first; }
};

/// All parameters of a model. Values and gradients of this rank lie in one arena each, in order of
/// registration.
class ParameterTable {
 public:
  /// Register before allocate(). `blocks` must be the model axis's share of `blocked.blocks`.
  /// The returned index names the parameter in value() and gradient().
  int add(std::string name, std::vector<std::int64_t> shape, BlockedShape blocked, Share blocks,
          Initializer initializer, bool decay);
  /// Makes the arenas and draws the first values from (seed, name, global index).
  void allocate(Backend& backend, std::uint64_t seed);

  const std::vector<Parameter>& all() const { return parameters_; }
  const Parameter& operator[](int index) const { return parameters_[static_cast<std::size_t>(index)]; }
  std::int64_t global_size() const;  ///< elements of the whole model
  std::int64_t local_size() const { return local_size_; }

  std::span<float> value(int index) { return values_.view(offset(index), length(index)); }
  std::span<const float> value(int index) const { return values_.view(offset(index), length(index)); }
  std::span<float> gradient(int index) { return gradients_.view(offset(index), length(index)); }
  std::span<float> gradients(ParameterRange range);
  std::span<float> values() { return values_.view(); }
  std::span<float> gradients() { return gradients_.view(); }

 private:
  std::size_t offset(int index) const { return static_cast<std::size_t>((*this)[index].offset); }
  std::size_t length(int index) const { return static_cast<std::size_t>((*this)[index].local_size); }

  std::vector<Parameter> parameters_;
  std::int64_t local_size_ = 0;
  Buffer<float> values_, gradients_;
};

}  // namespace lamina
