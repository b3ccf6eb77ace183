// Names in a checkpoint file; io/README.md specifies them.
#pragma once

#include <string>

#include "io/checkpoint/digest.h"
#include "io/checkpoint/hdf5.h"

namespace lamina::checkpoint {

inline const std::string kVocabulary = "/vocabulary";
inline const std::string kDigests = "/digests";  ///< + path of a tensor: its box digests
inline const std::string kView = "view";         ///< attribute of digests: [outer, split, inner]
inline const std::string kFormatVersionName = "format_version";
inline const std::string kRootDigest = "root_digest";
inline const std::string kTextDigest = "text_digest";  ///< may be missing, and is not in the root digest

/// Bytes of an attribute's text: HDF5 keeps longer ones in a heap.
inline constexpr std::size_t kMaxText = 60'000;

/// Calls visitor(name, member) for every scalar attribute of the record, with the member of `record`, which
/// may be const: one list for writing and for reading.
template <class Record, class Visitor>
void visit_attributes(Record& record, const Visitor& visitor) {
  visitor("step", record.step);
  visitor("seed", record.seed);
  visitor("lane_groups", record.lane_groups);
  visitor("unit_blocks", record.unit_blocks);
  visitor("batch", record.batch);
  visitor("epoch", record.epoch);
  visitor("chunk", record.chunk);
  visitor("validation_loss", record.validation_loss);
  visitor("configuration", record.configuration);
  visitor("build", record.build);
}

}  // namespace lamina::checkpoint
