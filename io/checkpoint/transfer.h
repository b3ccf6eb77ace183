// Boxes between memory and a dataset. Transfers are independent ones in pieces of at most 1 GiB: Open MPI's
// collective writes can corrupt silently, and one MPI-IO call cannot move 2 GiB.
#pragma once

#include <span>

#include "io/checkpoint/hdf5.h"
#include "io/checkpoint/layout.h"

namespace lamina::checkpoint {

void write_box(hid_t dataset, const TensorLayout& layout, int outer_part, int split_part,
               std::span<const float> values);
void read_box(hid_t dataset, const TensorLayout& layout, int outer_part, int split_part,
              std::span<float> values);

}  // namespace lamina::checkpoint
