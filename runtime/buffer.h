// Memory of a device, owned by one holder. Only the backend that made it reads or writes it; views are spans.
#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <utility>

namespace lamina {

/// `size` elements of device memory, zeroed, aligned to 64 bytes. Moves, never copies.
template <class T>
class Buffer {
 public:
  using Release = std::function<void(T*)>;

  Buffer() = default;
  Buffer(T* data, std::size_t size, Release release)
      : data_(data), size_(size), release_(std::move(release)) {}
  Buffer(Buffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)),
        size_(std::exchange(other.size_, 0)),
        release_(std::move(other.release_)) {}
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(release_, other.release_);
    return *this;
  }
  ~Buffer() {
    if (data_ != nullptr) release_(data_);
  }

  std::size_t size() const { return size_; }
  std::span<T> view() { return {data_, size_}; }
  std::span<const T> view() const { return {data_, size_}; }
  std::span<T> view(std::size_t offset, std::size_t count) { return view().subspan(offset, count); }
  std::span<const T> view(std::size_t offset, std::size_t count) const {
    return view().subspan(offset, count);
  }

 private:
  T* data_ = nullptr;
  std::size_t size_ = 0;
  Release release_;
};

}  // namespace lamina
