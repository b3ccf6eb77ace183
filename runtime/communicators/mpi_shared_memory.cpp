// MPI ranks of one node: slots in a window of shared memory.
#include <exception>

#include "runtime/communicators/mpi_group.h"
#include "runtime/communicators/slot_communicator.h"

namespace lamina {
namespace {

SharedWindow prepared_window(const MpiGroup& group) {
  const std::size_t slot_bytes = group.job->options().slot_bytes;
  SharedWindow window(group.comm, Slots::segment_bytes(slot_bytes, group.size));
  Slots::prepare(window.segments()[static_cast<std::size_t>(group.rank)], slot_bytes, group.size);
  must(MPI_Barrier(group.comm.get()), "MPI_Barrier");
  return window;
}

class SharedMemoryCommunicator final : public SlotCommunicator {
 public:
  SharedMemoryCommunicator(MpiGroup group, SharedWindow window)
      : SlotCommunicator({window.segments(), group.rank, group.job->options().slot_bytes, group.watched()}),
        group_(std::move(group)),
        window_(std::move(window)) {}

  // Where a peer cannot come to free the window too, it stays.
  ~SharedMemoryCommunicator() override {
    if (std::uncaught_exceptions() == 0 && slots().leave_together()) return;
    window_.forget();
    group_.comm.forget();
  }

  std::string transport() const override { return "mpi+shared-memory"; }
  const void* native_handle() const override { return &group_.comm.get(); }

 private:
  std::unique_ptr<Communicator> do_split(int color, int key) override {
    slots().exchange({.operation = Operation::split});
    const BlindWait inside_mpi(slots().group(), {.operation = Operation::split});
    return make_mpi_communicator(group_.split(color, key, slots().group().next_child(color)));
  }

  MpiGroup group_;
  SharedWindow window_;
};

}  // namespace

std::unique_ptr<Communicator> make_shared_memory_communicator(MpiGroup group) {
  SharedWindow window = prepared_window(group);
  return std::make_unique<SharedMemoryCommunicator>(std::move(group), std::move(window));
}

}  // namespace lamina
