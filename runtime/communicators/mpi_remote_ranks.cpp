#include "runtime/communicators/mpi_remote_ranks.h"

namespace lamina {
namespace {

MpiComm duplicate_of(const MpiComm& world) {
  MPI_Comm comm = MPI_COMM_NULL;
  must(MPI_Comm_dup(world.get(), &comm), "MPI_Comm_dup");
  return MpiComm(comm);
}

int bytes_of(const RemoteRanks::Reports& reports) {
  return static_cast<int>(reports.size() * sizeof(RankReport));
}

}  // namespace

MpiRemoteRanks::MpiRemoteRanks(const MpiComm& world, std::vector<int> far)
    : comm_(duplicate_of(world)), far_(std::move(far)), heard_(static_cast<std::size_t>(world.size())) {}

// What MPI may still read or write stays.
MpiRemoteRanks::~MpiRemoteRanks() {
  for (auto& letter : sent_) static_cast<void>(letter.release());
  static_cast<void>(coming_.release());
}

void MpiRemoteRanks::ask(const Reports& own) {
  for (const int rank : far_) send(rank, kQuestion, own);
}

void MpiRemoteRanks::send(int to, Tag tag, const Reports& reports) {
  Letter& letter = *sent_.emplace_back(std::make_unique<Letter>());
  letter.reports = reports;
  must(MPI_Isend(letter.reports.data(), bytes_of(reports), MPI_BYTE, to, tag, comm_.get(), &letter.request),
       "MPI_Isend");
}

void MpiRemoteRanks::listen(const std::function<Reports()>& own) {
  std::erase_if(sent_, [](const auto& letter) { return is_done(letter->request); });
  while (receive()) {
    remember(coming_->reports);
    if (coming_->tag == kQuestion) send(coming_->from, kAnswer, own());
    coming_.reset();
  }
}

/// Whether a letter has come whole.
bool MpiRemoteRanks::receive() {
  if (!coming_) start_receiving();
  return coming_ && is_done(coming_->request);
}

void MpiRemoteRanks::start_receiving() {
  int has_letter = 0, bytes = 0;
  MPI_Status status;
  must(MPI_Iprobe(MPI_ANY_SOURCE, MPI_ANY_TAG, comm_.get(), &has_letter, &status), "MPI_Iprobe");
  if (has_letter == 0) return;
  must(MPI_Get_count(&status, MPI_BYTE, &bytes), "MPI_Get_count");
  coming_ = std::make_unique<Letter>();
  coming_->tag = status.MPI_TAG;
  coming_->from = status.MPI_SOURCE;
  coming_->reports.resize(static_cast<std::size_t>(bytes) / sizeof(RankReport));
  must(MPI_Irecv(coming_->reports.data(), bytes, MPI_BYTE, status.MPI_SOURCE, status.MPI_TAG, comm_.get(),
                 &coming_->request),
       "MPI_Irecv");
}

void MpiRemoteRanks::remember(const Reports& reports) {
  const std::lock_guard lock(mutex_);
  const auto now = std::chrono::steady_clock::now();
  for (const RankReport& report : reports)
    heard_.at(static_cast<std::size_t>(report.rank)) = Heard{report, now};
}

std::optional<RankReport> MpiRemoteRanks::latest(int rank,
                                                 std::chrono::steady_clock::time_point since) const {
  const std::lock_guard lock(mutex_);
  const auto& heard = heard_.at(static_cast<std::size_t>(rank));
  return heard && heard->when >= since ? std::optional(heard->report) : std::nullopt;
}

}  // namespace lamina
