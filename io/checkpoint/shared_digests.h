// What all ranks of a save must know alike: the tensors, and the digests of all boxes.
#pragma once

#include <vector>

#include "io/checkpoint/digest.h"

namespace lamina::checkpoint {

/// Throws InternalError on every rank unless all describe the same checkpoint. Collective.
void require_same_description(const CheckpointRecord& record, const std::vector<DescribedTensor>& described,
                              Communicator& world);

/// Fills in every tensor's digests. `own[t]` are those of the boxes that this rank writes of tensor t, in
/// order. Throws InternalError on every rank unless each box has one writer. Collective.
void share_digests(const std::vector<CheckpointTensor<const float>>& tensors,
                   const std::vector<std::vector<Digest>>& own, std::vector<DescribedTensor>& described,
                   Communicator& world);

}  // namespace lamina::checkpoint
