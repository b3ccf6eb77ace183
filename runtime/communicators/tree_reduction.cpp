#include "runtime/communicators/tree_reduction.h"

#include <algorithm>
#include <array>
#include <bit>

namespace lamina {
namespace {

// Elements merged at a time: the partial results of all levels of the tree stay in the first-level cache.
constexpr std::size_t kBlock = 512;

struct Sum {
  template <class T>
  T operator()(T a, T b) const {
    return a + b;
  }
};
struct Max {
  template <class T>
  T operator()(T a, T b) const {
    return a < b ? b : a;
  }
};
struct Min {
  template <class T>
  T operator()(T a, T b) const {
    return b < a ? b : a;
  }
};

template <class T, class Merge>
class BlockReducer {
 public:
  explicit BlockReducer(std::size_t first, std::size_t count) : first_(first), count_(count) {}

  void reduce(std::span<const std::byte* const> sources, T* out) const {
    if (sources.size() == 1) return static_cast<void>(std::copy_n(leaf(sources[0]), count_, out));
    if (sources.size() == 2) return merge(leaf(sources[0]), leaf(sources[1]), out);
    const std::size_t left = std::bit_floor(sources.size() - 1);
    reduce(sources.first(left), out);
    if (sources.size() - left == 1) return merge_into(out, leaf(sources[left]));
    std::array<T, kBlock> right;
    reduce(sources.subspan(left), right.data());
    merge_into(out, right.data());
  }

 private:
  const T* leaf(const std::byte* source) const { return reinterpret_cast<const T*>(source) + first_; }

  void merge(const T* __restrict a, const T* __restrict b, T* __restrict out) const {
    for (std::size_t i = 0; i < count_; ++i) out[i] = Merge{}(a[i], b[i]);
  }
  void merge_into(T* __restrict out, const T* __restrict b) const {
    for (std::size_t i = 0; i < count_; ++i) out[i] = Merge{}(out[i], b[i]);
  }

  std::size_t first_, count_;
};

template <class T, class Merge>
void reduce_blocks(std::span<const std::byte* const> sources, void* out, std::size_t count) {
  for (std::size_t first = 0; first < count; first += kBlock)
    BlockReducer<T, Merge>(first, std::min(kBlock, count - first))
        .reduce(sources, static_cast<T*>(out) + first);
}

template <class Ordered, class Summed>
void reduce_as(std::span<const std::byte* const> sources, void* out, std::size_t count, Reduction reduction) {
  switch (reduction) {
    case Reduction::sum:
      return reduce_blocks<Summed, Sum>(sources, out, count);
    case Reduction::max:
      return reduce_blocks<Ordered, Max>(sources, out, count);
    case Reduction::min:
      return reduce_blocks<Ordered, Min>(sources, out, count);
  }
}

}  // namespace

void reduce_in_tree(std::span<const std::byte* const> sources, void* out, std::size_t count, ElementType type,
                    Reduction reduction) {
  switch (type) {
    case ElementType::byte:
      check(reduction != Reduction::sum, "bytes have no sum");
      return reduction == Reduction::max ? reduce_blocks<std::uint8_t, Max>(sources, out, count)
                                         : reduce_blocks<std::uint8_t, Min>(sources, out, count);
    case ElementType::int32:
      return reduce_as<std::int32_t, std::uint32_t>(sources, out, count, reduction);
    case ElementType::int64:
      return reduce_as<std::int64_t, std::uint64_t>(sources, out, count, reduction);
    case ElementType::float32:
      return reduce_as<float, float>(sources, out, count, reduction);
    case ElementType::float64:
      return reduce_as<double, double>(sources, out, count, reduction);
  }
}

}  // namespace lamina
