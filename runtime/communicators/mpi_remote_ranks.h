// Word between hosts about where ranks are, over MPI messages of its own, so that a collective that hangs
// does not stop it.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "runtime/communicators/mpi_handles.h"
#include "runtime/communicators/watch.h"

namespace lamina {

class MpiRemoteRanks final : public RemoteRanks {
 public:
  /// `far`: the ranks of `world` that do not share this rank's memory. Collective over `world`.
  MpiRemoteRanks(const MpiComm& world, std::vector<int> far);
  ~MpiRemoteRanks() override;

  void ask(const Reports& own) override;
  void listen(const std::function<Reports()>& own) override;
  std::optional<RankReport> latest(int rank, std::chrono::steady_clock::time_point since) const override;

  /// The job's end is not orderly: peers may not come to free the messages' communicator too.
  void forget() { comm_.forget(); }

 private:
  enum Tag { kQuestion = 1, kAnswer = 2 };
  /// On its way. MPI reads or writes here until the request is done.
  struct Letter {
    Reports reports;
    MPI_Request request = MPI_REQUEST_NULL;
    int tag = 0, from = 0;
  };
  struct Heard {
    RankReport report;
    std::chrono::steady_clock::time_point when;
  };

  void send(int to, Tag tag, const Reports& reports);
  bool receive();
  void start_receiving();
  void remember(const Reports& reports);

  MpiComm comm_;
  std::vector<int> far_;
  std::vector<std::unique_ptr<Letter>> sent_;
  std::unique_ptr<Letter> coming_;
  mutable std::mutex mutex_;  ///< guards heard_
  std::vector<std::optional<Heard>> heard_;
};

}  // namespace lamina
