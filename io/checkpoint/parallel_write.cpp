#include "io/checkpoint/parallel_write.h"

#include <exception>
#include <functional>
#include <optional>
#include <string>

#include "io/checkpoint/agreement.h"
#include "io/checkpoint/disk.h"
#include "io/checkpoint/hdf5.h"
#include "io/checkpoint/transfer.h"
#include "runtime/fault_point.h"

namespace lamina::checkpoint {
namespace {

using hdf5::Handle;

/// What went wrong; empty when nothing did.
std::string failure_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const std::exception& error) {
    return error.what();
  }
  return "";
}

void write_own_boxes(hid_t file, const std::vector<CheckpointTensor<const float>>& tensors) {
  for (const auto& tensor : tensors) {
    fault_point(FaultPoint::checkpoint_write);
    if (tensor.boxes.empty()) continue;
    Handle dataset = hdf5::open_dataset(file, tensor.layout.path);
    for (const auto& box : tensor.boxes)
      write_box(dataset, tensor.layout, box.outer_part, box.split_part, box.values);
    dataset.close("cannot close " + tensor.layout.path);
  }
}

}  // namespace

void write_in_parallel(const std::filesystem::path& partial,
                       const std::vector<CheckpointTensor<const float>>& tensors, Communicator& world) {
  const hdf5::Section section;
  std::optional<Handle> file;
  agree(world, [&] {
    world.in_library([&] {
      const Handle access = hdf5::parallel_access(world.native_handle());
      file.emplace(hdf5::open_file(partial, H5F_ACC_RDWR, access));
    });
  });
  agree(world, [&] {
    const std::string writing = failure_of([&] { write_own_boxes(*file, tensors); });
    std::string finishing;
    world.in_library(
        [&] { finishing = failure_of([&] { hdf5::finish(*file); }); });  // collective: in any case
    const std::string failure = writing.empty() ? finishing : writing;
    if (!failure.empty()) throw std::runtime_error(failure + free_space_note(partial));
    synchronize(partial);
  });
}

}  // namespace lamina::checkpoint
