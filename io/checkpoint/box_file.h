// Boxes between memory and their places in a file, by the system's calls: no library in between that may cut,
// gather or buffer them. Boxes of one tensor that lie side by side travel together.
#pragma once

#include <functional>
#include <vector>

#include "io/checkpoint/digest.h"
#include "io/checkpoint/disk.h"

namespace lamina::checkpoint {

/// Writes the boxes of a tensor whose numbers begin at byte `place`. The disk may begin before this returns.
void write_boxes(const Descriptor& file, std::int64_t place, const CheckpointTensor<const float>& tensor);
void read_boxes(const Descriptor& file, std::int64_t place, const CheckpointTensor<float>& tensor);
/// Of each box as the file has it, in the order of tensor.boxes; their memory is not used.
std::vector<Digest> digests_in_file(const Descriptor& file, std::int64_t place,
                                    const CheckpointTensor<const float>& tensor);

}  // namespace lamina::checkpoint
