#include "io/checkpoint/transfer.h"

#include <fmt/format.h>

namespace lamina::checkpoint {
namespace {

using hdf5::Handle;
using hdf5::require;

constexpr std::int64_t kMaxPiece = (std::int64_t{1} << 30) / static_cast<std::int64_t>(sizeof(float));

void select(hid_t space, const Hyperslab& slab, const std::string& attempt) {
  require(H5Sselect_hyperslab(space, H5S_SELECT_SET, slab.start.data(), slab.stride.data(), slab.count.data(),
                              slab.block.data()),
          attempt);
}

/// Calls move(memory space, file space, elements from the start of the box) for each piece of a box.
template <class Move>
void for_each_piece(hid_t dataset, const TensorLayout& layout, const Region& box, const std::string& attempt,
                    const Move& move) {
  const Handle file_space(H5Dget_space(dataset), H5Sclose, attempt);
  std::int64_t done = 0;
  for (const Region& piece : pieces_of(box, kMaxPiece)) {
    const auto size = static_cast<hsize_t>(piece.size());
    const Handle memory_space(H5Screate_simple(1, &size, nullptr), H5Sclose, attempt);
    select(file_space, hyperslab_of(layout, piece), attempt);
    require(move(memory_space, file_space, done), attempt);
    done += piece.size();
  }
}

}  // namespace

void write_box(hid_t dataset, const TensorLayout& layout, int outer_part, int split_part,
               std::span<const float> values) {
  const Region box = box_region(layout, outer_part, split_part);
  for_each_piece(dataset, layout, box, fmt::format("cannot write {}", layout.path),
                 [&](hid_t memory, hid_t file, std::int64_t done) {
                   return H5Dwrite(dataset, H5T_NATIVE_FLOAT, memory, file, H5P_DEFAULT,
                                   values.data() + done);
                 });
}

void read_box(hid_t dataset, const TensorLayout& layout, int outer_part, int split_part,
              std::span<float> values) {
  const Region box = box_region(layout, outer_part, split_part);
  for_each_piece(dataset, layout, box, fmt::format("cannot read {}", layout.path),
                 [&](hid_t memory, hid_t file, std::int64_t done) {
                   return H5Dread(dataset, H5T_NATIVE_FLOAT, memory, file, H5P_DEFAULT, values.data() + done);
                 });
}

}  // namespace lamina::checkpoint
