#include "runtime/communicators/mpi.h"

#include <fmt/format.h>

#include <array>
#include <cctype>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <new>

#include "runtime/communicators/mpi_group.h"

namespace lamina {
namespace {

MpiComm duplicate_of_world() {
  MPI_Comm world = MPI_COMM_NULL;
  must(MPI_Comm_dup(MPI_COMM_WORLD, &world), "MPI_Comm_dup");
  return MpiComm(world);
}

void finalize() {
  if (MPI_Finalize() != MPI_SUCCESS) std::fputs("lamina: MPI_Finalize failed\n", stderr);
}

}  // namespace

MpiJob::MpiJob(const MpiComm& world, const MpiOptions& options)
    : options_(options),
      node_(world.on_node()),
      window_(node_, sizeof(Shared)),
      has_one_node_(node_.size() == world.size()) {
  std::byte* place = window_.segments().front();
  if (node_.rank() == 0) new (place) Shared;
  must(MPI_Barrier(node_.get()), "MPI_Barrier");
  shared_ = std::launder(reinterpret_cast<Shared*>(place));
}

MpiJob::~MpiJob() {
  const bool is_unwinding = std::uncaught_exceptions() > 0;
  if (!is_unwinding &&
      shared_->farewell.all_leave(node_.size(), alarm(), [this] { make_progress(node_.get()); })) {
    return;
  }
  window_.forget();
  node_.forget();
}

MpiGroup MpiGroup::split(int color, int key) const {
  MPI_Comm part = MPI_COMM_NULL;
  must(MPI_Comm_split(comm.get(), color, key, &part), "MPI_Comm_split");
  return {MpiComm(part), job};
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
  return make_mpi_communicator({std::move(world), std::move(job)});
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
  try {
    world_ = make_mpi_world({.transport = transport_from_environment()});
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
  if (is_up != 0 && is_down == 0) MPI_Abort(MPI_COMM_WORLD, code);
  std::_Exit(code);
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
