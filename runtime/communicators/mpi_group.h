// What the communicators over MPI have in common: the group, and the job whose fate it shares.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "runtime/communicators/alarm.h"
#include "runtime/communicators/crash_notice.h"
#include "runtime/communicators/farewell.h"
#include "runtime/communicators/mpi.h"
#include "runtime/communicators/mpi_handles.h"
#include "runtime/communicators/mpi_remote_ranks.h"
#include "runtime/communicators/watch.h"

namespace lamina {

/// Shared by all groups that come from one world. The alarm is one per node, as is what ranks see of each
/// other.
class MpiJob {
 public:
  MpiJob(const MpiComm& world, const MpiOptions& options);
  ~MpiJob();
  MpiJob(const MpiJob&) = delete;
  MpiJob& operator=(const MpiJob&) = delete;

  const MpiOptions& options() const { return options_; }
  Alarm& alarm() { return shared_->alarm; }
  const std::shared_ptr<Watch>& watch() const { return watch_; }
  bool has_one_node() const { return has_one_node_; }

 private:
  struct Shared {
    Alarm alarm;
    Farewell farewell;
    std::atomic<std::int32_t> asker{kNobody};
  };

  Lookout lookout(const MpiComm& world);

  MpiOptions options_;
  MpiComm node_;
  SharedWindow window_;
  Shared* shared_ = nullptr;
  bool has_one_node_;
  std::unique_ptr<MpiRemoteRanks> remote_;
  std::shared_ptr<Watch> watch_;
  std::optional<CrashNotice> crash_notice_;
};

struct MpiGroup {
  MpiComm comm;
  std::shared_ptr<MpiJob> job;
  std::uint64_t id;
  int rank = comm.rank();
  int size = comm.size();
  std::vector<int> names = comm.world_ranks();

  WatchedGroup watched() const { return {job->watch(), id, names}; }
  MpiGroup split(int color, int key, std::uint64_t child_id) const;
};

/// Over shared memory or MPI, as the job's options and the group's nodes have it. Collective over the group.
std::unique_ptr<Communicator> make_mpi_communicator(MpiGroup group);
std::unique_ptr<Communicator> make_message_communicator(MpiGroup group);
std::unique_ptr<Communicator> make_shared_memory_communicator(MpiGroup group);

}  // namespace lamina
