#include "runtime/communicators/mpi.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <new>

#include "runtime/communicators/mpi_group.h"
#include "runtime/communicators/watchdog.h"
#include "runtime/host_name.h"

namespace lamina {
namespace {

constexpr std::chrono::seconds kAbortLimit{5}, kFinalizeLimit{60};

MpiComm duplicate_of_world() {
  MPI_Comm world = MPI_COMM_NULL;
  must(MPI_Comm_dup(MPI_COMM_WORLD, &world), "MPI_Comm_dup");
  return MpiComm(world);
}

/// By rank of `world`. Collective.
std::vector<std::string> host_names(const MpiComm& world) {
  using Name = std::array<char, 64>;
  Name own{};
  host_name().copy(own.data(), own.size() - 1);
  std::vector<Name> all(static_cast<std::size_t>(world.size()));
  must(MPI_Allgather(own.data(), sizeof own, MPI_CHAR, all.data(), sizeof own, MPI_CHAR, world.get()),
       "MPI_Allgather");
  std::vector<std::string> names;
  for (const Name& name : all) names.emplace_back(name.data());
  return names;
}

std::vector<int> ranks_elsewhere(const MpiComm& world, const MpiComm& node) {
  const std::vector<int> here = node.world_ranks();
  std::vector<int> elsewhere;
  for (int rank = 0; rank < world.size(); ++rank)
    if (std::find(here.begin(), here.end(), rank) == here.end()) elsewhere.push_back(rank);
  return elsewhere;
}

int rank_in_mpi() {
  int rank = 0;
  must(MPI_Comm_rank(MPI_COMM_WORLD, &rank), "MPI_Comm_rank");
  return rank;
}

void finalize() {
  const LastResort limit(kFinalizeLimit, static_cast<int>(ExitCode::peer_lost),
                         fmt::format("rank {} on {}: MPI_Finalize does not return, another rank must be lost",
                                     rank_in_mpi(), host_name()));
  if (MPI_Finalize() != MPI_SUCCESS) std::fputs("lamina: MPI_Finalize failed\n", stderr);
}

}  // namespace

// In the segment of each rank is its status; in the first, before it, what is common.
MpiJob::MpiJob(const MpiComm& world, const MpiOptions& options)
    : options_(options),
      node_(world.on_node()),
      window_(node_, sizeof(Shared) + sizeof(RankStatus)),
      has_one_node_(node_.size() == world.size()) {
  std::byte* common = window_.segments().front();
  std::byte* own = window_.segments()[static_cast<std::size_t>(node_.rank())];
  if (node_.rank() == 0) new (common) Shared;
  (new (own + sizeof(Shared)) RankStatus)->introduce(world.rank());
  must(MPI_Barrier(node_.get()), "MPI_Barrier");
  shared_ = std::launder(reinterpret_cast<Shared*>(common));
  watch_ = std::make_shared<Watch>(lookout(world));
  watch_->set_deadline(kDefaultDeadline);
  if (options_.watchdog == nullptr) return;
  options_.watchdog->watch_over(watch_);
  crash_notice_.emplace(watch_->status());
}

Lookout MpiJob::lookout(const MpiComm& world) {
  Lookout seen;
  seen.own = static_cast<std::size_t>(node_.rank());
  seen.alarm = &shared_->alarm;
  seen.asker = &shared_->asker;
  for (std::byte* segment : window_.segments())
    seen.node.push_back(std::launder(reinterpret_cast<RankStatus*>(segment + sizeof(Shared))));
  seen.hosts = host_names(world);
  seen.idle = [comm = node_.get()] { make_progress(comm); };
  if (has_one_node_) return seen;
  remote_ = std::make_unique<MpiRemoteRanks>(world, ranks_elsewhere(world, node_));
  seen.remote = remote_.get();
  return seen;
}

MpiJob::~MpiJob() {
  const bool is_unwinding = std::uncaught_exceptions() > 0;
  if (!is_unwinding) watch_->status().enter(kWorldPlace, {.operation = Operation::leave}, 0);
  const bool is_orderly = !is_unwinding && shared_->farewell.all_leave(node_.size(), *watch_);
  crash_notice_.reset();
  if (options_.watchdog != nullptr) options_.watchdog->look_away();
  if (is_orderly) return;
  if (remote_) remote_->forget();
  window_.forget();
  node_.forget();
}

MpiGroup MpiGroup::split(int color, int key, std::uint64_t child_id) const {
  MPI_Comm part = MPI_COMM_NULL;
  must(MPI_Comm_split(comm.get(), color, key, &part), "MPI_Comm_split");
  return {MpiComm(part), job, child_id};
}

std::unique_ptr<Communicator> make_mpi_communicator(MpiGroup group) {
  const bool is_on_one_node = group.job->has_one_node() || group.comm.on_node().size() == group.size;
  const bool shares_memory =
      group.size > 1 && is_on_one_node && group.job->options().transport != Transport::mpi;
  return shares_memory ? make_shared_memory_communicator(std::move(group))
                       : make_message_communicator(std::move(group));
}

std::unique_ptr<Communicator> make_mpi_world(const MpiOptions& options) {
  MpiComm world = duplicate_of_world();
  auto job = std::make_shared<MpiJob>(world, options);
  if (options.transport == Transport::shared_memory && !job->has_one_node()) {
    throw UserError(
        "LAMINA_TRANSPORT is shared-memory but the ranks are on several nodes: unset it, and groups use "
        "shared "
        "memory where they can");
  }
  return make_mpi_communicator({std::move(world), std::move(job), kWorldGroup});
}

Transport transport_from_environment() {
  std::array<char, 64> word{};
  if (const char* value = std::getenv("LAMINA_TRANSPORT"))
    std::snprintf(word.data(), word.size(), "%s", value);
  // mpirun passes the environment on to its own node only.
  must(MPI_Bcast(word.data(), static_cast<int>(word.size()), MPI_CHAR, 0, MPI_COMM_WORLD), "MPI_Bcast");
  const std::string transport = word.data();
  if (transport.empty()) return Transport::automatic;
  if (transport == "mpi") return Transport::mpi;
  if (transport == "shared-memory") return Transport::shared_memory;
  throw UserError(fmt::format(
      "LAMINA_TRANSPORT is \"{}\": use mpi or shared-memory, or unset it to let each group choose",
      transport));
}

MpiSession::MpiSession(int* argc, char*** argv) {
  int provided = MPI_THREAD_SINGLE;
  must(MPI_Init_thread(argc, argv, MPI_THREAD_SERIALIZED, &provided), "MPI_Init_thread");
  check(provided >= MPI_THREAD_SERIALIZED, "MPI cannot be called from more than one thread");
  must(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
  watchdog_ = std::make_unique<Watchdog>(rank_in_mpi());
  try {
    world_ = make_mpi_world({.transport = transport_from_environment(), .watchdog = watchdog_.get()});
  } catch (const UserError&) {  // of all ranks alike: they end in order
    finalize();
    throw;
  }
}

MpiSession::~MpiSession() {
  world_.reset();
  // A rank that unwinds ends without MPI_Finalize, in which its peers might never join it.
  if (std::uncaught_exceptions() == 0) finalize();
}

void MpiSession::abort(int code) {
  int is_up = 0, is_down = 0;
  MPI_Initialized(&is_up);
  MPI_Finalized(&is_down);
  // Each step of the end has a limit, for each can hang; the last cannot.
  const LastResort limit(kAbortLimit, code, "");
  if (is_up != 0 && is_down == 0) MPI_Abort(MPI_COMM_WORLD, code);
  std::_Exit(code);
}

void MpiSession::abort(ExitCode code, int rank, const std::string& sentence) {
  say_last(fmt::format("rank {} on {}: {}", rank, host_name(), sentence));
  abort(static_cast<int>(code));
}

std::string mpi_library() {
  std::array<char, MPI_MAX_LIBRARY_VERSION_STRING> text{};
  int length = 0;
  must(MPI_Get_library_version(text.data(), &length), "MPI_Get_library_version");
  std::string version = text.data();
  while (!version.empty() && std::isspace(static_cast<unsigned char>(version.back()))) version.pop_back();
  return version;
}

}  // namespace lamina
