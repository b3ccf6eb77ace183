#include "io/checkpoint/memory_file.h"

#include <algorithm>
#include <memory>

namespace lamina::checkpoint {
namespace {

/// An open file as HDF5's virtual file layer knows it; `base` comes first, as that layer wants it.
struct OpenFile {
  H5FD_t base;
  MemoryFile* memory;
  haddr_t end_of_addresses;
};

struct DriverInfo {
  MemoryFile* memory;
};

OpenFile& opened(H5FD_t* file) { return *reinterpret_cast<OpenFile*>(file); }
const OpenFile& opened(const H5FD_t* file) { return *reinterpret_cast<const OpenFile*>(file); }

H5FD_t* open_memory(const char*, unsigned, hid_t access, haddr_t) {
  const auto* info = static_cast<const DriverInfo*>(H5Pget_driver_info(access));
  return info == nullptr ? nullptr
                         : &std::make_unique<OpenFile>(H5FD_t{}, info->memory, haddr_t{0}).release()->base;
}

herr_t close_memory(H5FD_t* file) {
  const std::unique_ptr<OpenFile> closing(&opened(file));
  return 0;
}

herr_t query_memory(const H5FD_t*, unsigned long* flags) {
  *flags = H5FD_FEAT_AGGREGATE_METADATA | H5FD_FEAT_ACCUMULATE_METADATA | H5FD_FEAT_AGGREGATE_SMALLDATA;
  return 0;
}

haddr_t end_of_addresses(const H5FD_t* file, H5FD_mem_t) { return opened(file).end_of_addresses; }

herr_t set_end_of_addresses(H5FD_t* file, H5FD_mem_t, haddr_t end) {
  opened(file).end_of_addresses = end;
  return 0;
}

haddr_t end_of_file(const H5FD_t* file, H5FD_mem_t) { return opened(file).memory->size; }

herr_t read_memory(H5FD_t* file, H5FD_mem_t, hid_t, haddr_t place, size_t size, void* bytes) {
  opened(file).memory->read(place, {static_cast<std::byte*>(bytes), size});
  return 0;
}

/// Exceptions must not pass through HDF5; the only one possible is that memory is out.
herr_t write_memory(H5FD_t* file, H5FD_mem_t, hid_t, haddr_t place, size_t size, const void* bytes) try {
  opened(file).memory->write(place, {static_cast<const std::byte*>(bytes), size});
  return 0;
} catch (const std::bad_alloc&) {
  return -1;
}

herr_t truncate_memory(H5FD_t* file, hid_t, hbool_t) {
  opened(file).memory->size = opened(file).end_of_addresses;
  return 0;
}

H5FD_class_t memory_driver() {
  H5FD_class_t driver{};
  driver.name = "sparse memory";
  driver.maxaddr = haddr_t{1} << 62;
  driver.fc_degree = H5F_CLOSE_WEAK;
  driver.fapl_size = sizeof(DriverInfo);
  driver.open = open_memory;
  driver.close = close_memory;
  driver.query = query_memory;
  driver.get_eoa = end_of_addresses;
  driver.set_eoa = set_end_of_addresses;
  driver.get_eof = end_of_file;
  driver.read = read_memory;
  driver.write = write_memory;
  driver.truncate = truncate_memory;
  constexpr H5FD_mem_t kTypes[] = H5FD_FLMAP_DICHOTOMY;
  std::ranges::copy(kTypes, driver.fl_map);
  return driver;
}

/// Calls visit(page number, begin in the page, part of `bytes`) for each page that `bytes` at `place` touch.
template <class Bytes, class Visit>
void for_each_page(std::uint64_t place, Bytes bytes, std::uint64_t page, const Visit& visit) {
  while (!bytes.empty()) {
    const std::size_t begin = place % page, count = std::min<std::size_t>(bytes.size(), page - begin);
    visit(place / page, begin, bytes.first(count));
    place += count;
    bytes = bytes.subspan(count);
  }
}

}  // namespace

void MemoryFile::write(std::uint64_t place, std::span<const std::byte> bytes) {
  for_each_page(place, bytes, kPage,
                [&](std::uint64_t page, std::size_t begin, std::span<const std::byte> part) {
                  std::ranges::copy(part, pages_[page].begin() + static_cast<std::ptrdiff_t>(begin));
                });
  size = std::max(size, place + bytes.size());
}

void MemoryFile::read(std::uint64_t place, std::span<std::byte> bytes) const {
  for_each_page(place, bytes, kPage, [&](std::uint64_t page, std::size_t begin, std::span<std::byte> part) {
    const auto found = pages_.find(page);
    if (found == pages_.end())
      std::ranges::fill(part, std::byte{0});
    else
      std::copy_n(found->second.begin() + static_cast<std::ptrdiff_t>(begin), part.size(), part.begin());
  });
}

void MemoryFile::copy_to(const Descriptor& file) const {
  for (const auto& [page, bytes] : pages_) write_at(file, static_cast<std::int64_t>(page * kPage), bytes);
}

hdf5::Handle memory_access(MemoryFile& file) {
  const H5FD_class_t driver = memory_driver();
  const hdf5::Handle registered(H5FDregister(&driver), H5FDunregister, "memory driver");
  hdf5::Handle access = hdf5::serial_access();
  const DriverInfo info = {&file};
  hdf5::require(H5Pset_driver(access, registered, &info), "memory driver");
  return access;
}

}  // namespace lamina::checkpoint
