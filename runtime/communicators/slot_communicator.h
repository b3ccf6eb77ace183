// The collectives of ranks that share memory, over Slots. What makes a group differs: threads.cpp, mpi.cpp.
#pragma once

#include "runtime/communicators/slots.h"

namespace lamina {

class SlotCommunicator : public Communicator {
 public:
  int rank() const final { return slots_.rank(); }
  int size() const final { return slots_.size(); }
  void abandon(const std::string& reason) noexcept final {
    slots_.alarm().raise_failure(slots_.name(), reason.c_str());
  }
  void require_peers() final { slots_.alarm().throw_if_raised(); }

  void set_deadline(std::chrono::milliseconds limit) final { slots_.group().watch().set_deadline(limit); }
  std::chrono::milliseconds deadline() const final { return slots_.group().watch().deadline(); }
  void note_step(std::int64_t step) final { slots_.group().watch().status().note_step(step); }

 protected:
  explicit SlotCommunicator(Slots slots) : slots_(std::move(slots)) {}
  Slots& slots() { return slots_; }

 private:
  void do_rename(const std::string& name) final { slots_.group().rename(name); }
  void do_in_library(const std::function<void()>& work) final;
  void do_barrier() final;
  void do_conclude() final;
  void do_broadcast(void* values, std::size_t count, ElementType type, int root) final;
  void do_all_gather(const void* part, std::size_t count, ElementType type, const TakePiece& take) final;
  void do_all_to_all(const void* in, void* out, std::size_t count, ElementType type) final;
  void do_all_reduce(void* values, std::size_t count, ElementType type, Reduction reduction) final;
  void do_reduce_scatter(const void* in, void* out, std::size_t count, ElementType type) final;

  std::span<const std::byte* const> exchange_blocks(const Call& call, const void* in, std::size_t stride,
                                                    std::size_t first, std::size_t bytes);
  void reduce_whole(const Call& call, std::byte* values, std::size_t count);
  void reduce_by_shares(const Call& call, std::byte* values, std::size_t count);
  std::span<const std::byte* const> incoming_at(std::size_t offset, const std::byte* own);
  std::size_t ranks() const { return static_cast<std::size_t>(slots_.size()); }
  std::size_t block_capacity() const;

  Slots slots_;
  std::vector<const std::byte*> sources_;  ///< of incoming_at()
};

}  // namespace lamina
