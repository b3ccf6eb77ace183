#include "runtime/communicators/mpi_handles.h"

#include <fmt/format.h>

#include <array>
#include <cstring>
#include <exception>
#include <numeric>

#include "runtime/error.h"

namespace lamina {
namespace {

class NoncontiguousInfo {
 public:
  NoncontiguousInfo() {
    must(MPI_Info_create(&info_), "MPI_Info_create");
    // Each segment on pages of its own, which lie near the rank that touches them first.
    must(MPI_Info_set(info_, "alloc_shared_noncontig", "true"), "MPI_Info_set");
  }
  ~NoncontiguousInfo() { MPI_Info_free(&info_); }
  NoncontiguousInfo(const NoncontiguousInfo&) = delete;
  NoncontiguousInfo& operator=(const NoncontiguousInfo&) = delete;
  MPI_Info get() const { return info_; }

 private:
  MPI_Info info_ = MPI_INFO_NULL;
};

bool unwinding() { return std::uncaught_exceptions() > 0; }

}  // namespace

void must(int code, const char* call) {
  if (code == MPI_SUCCESS) return;
  std::array<char, MPI_MAX_ERROR_STRING> text{};
  int length = 0;
  MPI_Error_string(code, text.data(), &length);
  throw InternalError(fmt::format("{}: {}", call, text.data()));
}

bool is_done(MPI_Request& request) {
  int done = 0;
  must(MPI_Test(&request, &done, MPI_STATUS_IGNORE), "MPI_Test");
  return done != 0;
}

void make_progress(MPI_Comm comm) {
  int has_message = 0;
  must(MPI_Iprobe(MPI_ANY_SOURCE, MPI_ANY_TAG, comm, &has_message, MPI_STATUS_IGNORE), "MPI_Iprobe");
}

MpiComm::MpiComm(MPI_Comm comm) : comm_(comm) {
  must(MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
}

MpiComm::~MpiComm() {
  if (comm_ != MPI_COMM_NULL && !unwinding()) MPI_Comm_free(&comm_);
}

int MpiComm::rank() const {
  int rank = 0;
  must(MPI_Comm_rank(comm_, &rank), "MPI_Comm_rank");
  return rank;
}

int MpiComm::size() const {
  int size = 0;
  must(MPI_Comm_size(comm_, &size), "MPI_Comm_size");
  return size;
}

std::vector<int> MpiComm::world_ranks() const {
  std::vector<int> own(static_cast<std::size_t>(size())), world(own.size());
  std::iota(own.begin(), own.end(), 0);
  MPI_Group here = MPI_GROUP_NULL, all = MPI_GROUP_NULL;
  must(MPI_Comm_group(comm_, &here), "MPI_Comm_group");
  must(MPI_Comm_group(MPI_COMM_WORLD, &all), "MPI_Comm_group");
  must(MPI_Group_translate_ranks(here, size(), own.data(), all, world.data()), "MPI_Group_translate_ranks");
  must(MPI_Group_free(&here), "MPI_Group_free");
  must(MPI_Group_free(&all), "MPI_Group_free");
  return world;
}

MpiComm MpiComm::on_node() const {
  MPI_Comm node = MPI_COMM_NULL;
  must(MPI_Comm_split_type(comm_, MPI_COMM_TYPE_SHARED, rank(), MPI_INFO_NULL, &node), "MPI_Comm_split_type");
  return MpiComm(node);
}

SharedWindow::SharedWindow(const MpiComm& comm, std::size_t segment_bytes) {
  const NoncontiguousInfo info;
  void* own = nullptr;
  must(MPI_Win_allocate_shared(static_cast<MPI_Aint>(segment_bytes), 1, info.get(), comm.get(), &own,
                               &window_),
       "MPI_Win_allocate_shared");
  must(MPI_Win_set_errhandler(window_, MPI_ERRORS_RETURN), "MPI_Win_set_errhandler");
  must(MPI_Win_lock_all(MPI_MODE_NOCHECK, window_), "MPI_Win_lock_all");
  std::memset(own, 0, segment_bytes);
  for (int rank = 0; rank < comm.size(); ++rank) {
    MPI_Aint size = 0;
    int unit = 0;
    void* segment = nullptr;
    must(MPI_Win_shared_query(window_, rank, &size, &unit, &segment), "MPI_Win_shared_query");
    segments_.push_back(static_cast<std::byte*>(segment));
  }
}

SharedWindow::~SharedWindow() {
  if (window_ == MPI_WIN_NULL || unwinding()) return;
  MPI_Win_unlock_all(window_);
  MPI_Win_free(&window_);
}

}  // namespace lamina
