#include "kernels/cpu/large_array.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <new>

namespace lamina {
namespace {

constexpr std::size_t kCacheLine = 64, kHugePage = std::size_t{2} << 20;

std::size_t round_up(std::size_t bytes, std::size_t unit) { return (bytes + unit - 1) / unit * unit; }

}  // namespace

LargeArray::LargeArray(std::size_t size) { resize(size); }

void LargeArray::resize(std::size_t size) {
  size_ = size;
  if (size <= capacity_) return;
  const std::size_t bytes = size * sizeof(float);
  const bool huge = bytes >= kHugePage;
  const std::size_t unit = huge ? kHugePage : kCacheLine, room = round_up(bytes, unit);
  values_.reset(static_cast<float*>(std::aligned_alloc(unit, room)));
  if (!values_) throw std::bad_alloc();
  capacity_ = room / sizeof(float);
  if (huge) madvise(values_.get(), room, MADV_HUGEPAGE);  // only a wish: without it the pages are small ones
  std::fill_n(values_.get(), capacity_, 0.0f);
}

void LargeArray::Free::operator()(float* values) const { std::free(values); }

}  // namespace lamina
