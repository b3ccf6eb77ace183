// MPI's handles, owned, and its codes, checked.
#pragma once

#include <mpi.h>

#include <cstddef>
#include <utility>
#include <vector>

namespace lamina {

/// InternalError with MPI's own words unless `code` is success.
void must(int code, const char* call);

/// Whether the request has come to its end; moves MPI's messages on.
bool is_done(MPI_Request& request);

/// Moves MPI's messages on that this rank has still to forward; for long waits outside MPI.
void make_progress(MPI_Comm comm);

/// A communicator that returns its errors. Not freed when an exception passes, or after forget(): peers may
/// not come to free it too, and the job is about to end.
class MpiComm {
 public:
  explicit MpiComm(MPI_Comm comm);
  MpiComm(MpiComm&& other) noexcept : comm_(std::exchange(other.comm_, MPI_COMM_NULL)) {}
  ~MpiComm();

  const MPI_Comm& get() const { return comm_; }
  int rank() const;
  int size() const;
  /// Rank in MPI_COMM_WORLD of each of its ranks.
  std::vector<int> world_ranks() const;
  /// Those of its ranks that share this rank's node. Collective.
  MpiComm on_node() const;
  void forget() { comm_ = MPI_COMM_NULL; }

 private:
  MPI_Comm comm_;
};

/// Memory shared by the ranks of `comm`, which share a node: a zeroed segment per rank, touched first by its
/// owner. Freed as MpiComm.
class SharedWindow {
 public:
  SharedWindow(const MpiComm& comm, std::size_t segment_bytes);
  SharedWindow(SharedWindow&& other) noexcept
      : window_(std::exchange(other.window_, MPI_WIN_NULL)), segments_(std::move(other.segments_)) {}
  ~SharedWindow();

  const std::vector<std::byte*>& segments() const { return segments_; }
  void forget() { window_ = MPI_WIN_NULL; }

 private:
  MPI_Win window_ = MPI_WIN_NULL;
  std::vector<std::byte*> segments_;
};

}  // namespace lamina
