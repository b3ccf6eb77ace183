#include <fcntl.h>
#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "io/checkpoint.h"
#include "io/checkpoint/agreement.h"
#include "io/checkpoint/box_file.h"
#include "io/checkpoint/disk.h"
#include "io/checkpoint/hdf5.h"
#include "io/checkpoint/layout.h"
#include "io/checkpoint/structure.h"
#include "io/checkpoint/workers.h"
#include "runtime/error.h"

namespace lamina {
namespace {

namespace fs = std::filesystem;
using checkpoint::DescribedTensor;
using checkpoint::Structure;
using hdf5::Handle;

std::string cut_of(const TensorLayout& layout) {
  return fmt::format("[{}, {}, {}] in {} x {} boxes", layout.outer, layout.split, layout.inner,
                     layout.outer_parts, layout.split_parts);
}

/// The stored tensor that is wanted. Throws UserError when the file is of another model or another run.
const DescribedTensor& find_wanted(const fs::path& file, const Structure& structure,
                                   const TensorLayout& wanted) {
  const DescribedTensor* stored = structure.find(wanted.path);
  if (stored == nullptr)
    throw UserError(fmt::format(
        "checkpoint {} has no {}, which this run needs; give the model and optimizer settings that it "
        "was written with",
        file.string(), wanted.path));
  const TensorLayout& layout = stored->layout;
  if (layout.shape != wanted.shape)
    throw UserError(fmt::format(
        "checkpoint {} holds {} of shape {} and this run needs shape {}; give the settings and the "
        "data that it was written with",
        file.string(), wanted.path, checkpoint::to_string(layout.shape),
        checkpoint::to_string(wanted.shape)));
  if (cut_of(layout) != cut_of(wanted))
    throw UserError(fmt::format(
        "checkpoint {} cuts {} as {} and this run as {}; give its --lane-groups {} and --unit-blocks {}",
        file.string(), wanted.path, cut_of(layout), cut_of(wanted), structure.record.lane_groups,
        structure.record.unit_blocks));
  return *stored;
}

void fill(const checkpoint::Descriptor& file, const DescribedTensor& stored,
          const CheckpointTensor<float>& wanted) {
  for (const auto& box : wanted.boxes)
    check(static_cast<std::int64_t>(box.values.size()) ==
              stored.layout.box_size(box.outer_part, box.split_part),
          fmt::format("box ({}, {}) of {} has {} elements", box.outer_part, box.split_part,
                      stored.layout.path, box.values.size()));
  try {
    checkpoint::read_boxes(file, stored.place, wanted);
  } catch (const checkpoint::ReadError&) {
    throw;
  } catch (const std::runtime_error& error) {
    throw checkpoint::Damage(fmt::format("{}: {}", stored.layout.path, error.what()));
  }
  for (const auto& box : wanted.boxes) check_box(stored, box.outer_part, box.split_part, box.values);
}

/// Copies a box, row by row, to its places in the whole tensor.
void place_box(const TensorLayout& layout, const checkpoint::Region& box, std::span<const float> values,
               std::vector<float>& whole) {
  const std::int64_t run = box.split.count * layout.inner;
  for (std::int64_t o = 0; o < box.outer.count; ++o)
    std::copy_n(values.data() + o * run, run,
                whole.data() + ((box.outer.first + o) * layout.split + box.split.first) * layout.inner);
}

WholeTensor read_whole(hid_t file, const DescribedTensor& tensor) {
  const TensorLayout& layout = tensor.layout;
  const Handle dataset = hdf5::open_dataset(file, layout.path);
  WholeTensor whole{layout.path, layout.shape, {}};
  whole.values.resize(static_cast<std::size_t>(checkpoint::elements(layout.shape)));
  std::vector<float> values;
  for (int outer_part = 0; outer_part < layout.outer_parts; ++outer_part)
    for (int split_part = 0; split_part < layout.split_parts; ++split_part) {
      const checkpoint::Region box = checkpoint::box_region(layout, outer_part, split_part);
      values.resize(static_cast<std::size_t>(box.size()));
      read_checked_box(dataset, tensor, outer_part, split_part, values);
      place_box(layout, box, values, whole.values);
    }
  return whole;
}

TensorSummary summarize(hid_t file, const DescribedTensor& tensor) {
  const TensorLayout& layout = tensor.layout;
  TensorSummary summary;
  summary.path = layout.path;
  summary.shape = layout.shape;
  summary.minimum = std::numeric_limits<double>::infinity();
  summary.maximum = -summary.minimum;
  summary.digest = checkpoint::to_hex(checkpoint::digest_of(tensor.digests));

  const Handle dataset = hdf5::open_dataset(file, layout.path);
  std::vector<float> values;
  double sum = 0;
  for (int outer_part = 0; outer_part < layout.outer_parts; ++outer_part)
    for (int split_part = 0; split_part < layout.split_parts; ++split_part) {
      values.resize(static_cast<std::size_t>(layout.box_size(outer_part, split_part)));
      read_checked_box(dataset, tensor, outer_part, split_part, values);
      for (const double value : values) {
        summary.minimum = std::min(summary.minimum, value);
        summary.maximum = std::max(summary.maximum, value);
        sum += value;
      }
    }
  summary.mean = sum / static_cast<double>(checkpoint::elements(layout.shape));
  return summary;
}

}  // namespace

CheckpointRecord read_record(const fs::path& file) {
  CheckpointRecord record;
  checkpoint::with_checkpoint(file, [&](hid_t, const Structure& structure) { record = structure.record; });
  return record;
}

void read_checkpoint(const fs::path& file, const std::vector<CheckpointTensor<float>>& tensors,
                     Communicator& world) {
  checkpoint::agree(world, [&] {
    checkpoint::with_checkpoint(file, [&](hid_t, const Structure& structure) {
      const checkpoint::Descriptor open(file, O_RDONLY);
      std::vector<const DescribedTensor*> stored;
      for (const auto& tensor : tensors) stored.push_back(&find_wanted(file, structure, tensor.layout));
      checkpoint::work_in_parallel(checkpoint::workers_of_rank(world.size()), tensors.size(),
                                   [&](std::size_t i) { fill(open, *stored[i], tensors[i]); });
    });
  });
}

CheckpointSummary verify_checkpoint(const fs::path& file) {
  CheckpointSummary summary;
  checkpoint::with_checkpoint(file, [&](hid_t open, const Structure& structure) {
    summary.record = structure.record;
    summary.root_digest = checkpoint::to_hex(structure.root);
    for (const DescribedTensor& tensor : structure.tensors)
      summary.tensors.push_back(summarize(open, tensor));
  });
  return summary;
}

std::vector<TensorShape> tensors_of(const fs::path& file) {
  std::vector<TensorShape> tensors;
  checkpoint::with_checkpoint(file, [&](hid_t, const Structure& structure) {
    for (const DescribedTensor& tensor : structure.tensors)
      tensors.push_back({tensor.layout.path, tensor.layout.shape});
  });
  return tensors;
}

void read_tensors(const fs::path& file, const std::vector<std::string>& paths,
                  const std::function<void(const WholeTensor&)>& visit) {
  checkpoint::with_checkpoint(file, [&](hid_t open, const Structure& structure) {
    for (const std::string& path : paths) {
      const DescribedTensor* tensor = structure.find(path);
      check(tensor != nullptr, fmt::format("{} has no {}", file.string(), path));
      visit(read_whole(open, *tensor));
    }
  });
}

std::string hdf5_library() {
  const hdf5::Section section;
  unsigned major = 0, minor = 0, release = 0;
  hdf5::require(H5get_libversion(&major, &minor, &release), "HDF5 does not tell its version");
  return fmt::format("HDF5 {}.{}.{}, parallel", major, minor, release);
}

}  // namespace lamina
