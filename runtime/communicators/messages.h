// One exchange at a time over MPI, begun and then waited for or asked after. It only moves bytes.
#pragma once

#include <memory>
#include <vector>

#include "runtime/communicators/call.h"
#include "runtime/communicators/mpi_group.h"

namespace lamina {

class Messages {
 public:
  /// Both outlive it.
  Messages(MpiGroup& group, WatchedGroup& watched) : group_(group), watched_(watched) {}
  /// Where an exchange is on its way, what MPI may still write to stays for ever.
  ~Messages();
  Messages(const Messages&) = delete;
  Messages& operator=(const Messages&) = delete;

  std::size_t ranks() const { return static_cast<std::size_t>(group_.size); }
  /// Bytes of one block of start_gather() and start_transpose(), at most; whole elements of any type.
  std::size_t block_capacity() const;
  std::size_t piece_bytes() const { return group_.job->options().piece_bytes; }

  std::vector<std::byte>& sent() { return transfer_->sent; }
  std::vector<std::byte>& received() { return transfer_->received; }
  /// Of received(): [ranks, bytes].
  std::vector<const std::byte*> blocks(std::size_t bytes) const;

  // Each begins an exchange; the one before must be done.
  /// What the ranks are about to call. Data moves only after it, so that no rank begins an exchange that a
  /// peer will never enter.
  void start_agreement(const Call& call);
  void start_gather(const void* part, std::size_t bytes);  ///< part [bytes] of each rank -> received
  void start_transpose(std::size_t bytes);  ///< sent [ranks, bytes], block r to rank r -> received likewise
  void start_broadcast(int root, std::size_t bytes);  ///< received [bytes] of the root -> received

  bool is_idle() const { return transfer_->request == MPI_REQUEST_NULL; }

  // How an exchange ends; `call` is what the rank tells others that it is in.
  /// Asks only: whether it is done. PeerError where a rank has abandoned the job.
  bool ask(const Call& call);
  /// PeerError where the wait is in vain.
  void wait(const Call& call);
  /// After an agreement: ends the job where the ranks disagree.
  void require_agreement();

 private:
  /// MPI reads and writes here until the request is done.
  struct Transfer {
    Call mine;
    std::vector<Call> calls;
    std::vector<std::byte> sent, received;
    MPI_Request request = MPI_REQUEST_NULL;
  };
  bool is_done();
  void abandon_transfer();

  MpiGroup& group_;
  WatchedGroup& watched_;
  std::unique_ptr<Transfer> transfer_ = std::make_unique<Transfer>();
};

}  // namespace lamina
