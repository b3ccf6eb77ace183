#include "runtime/communicators/messages.h"

#include <algorithm>
#include <exception>

#include "runtime/communicators/backoff.h"
#include "runtime/communicators/pieces.h"

namespace lamina {
namespace {

constexpr std::size_t kLargestElement = 8;

}  // namespace

Messages::~Messages() {
  if (!is_idle()) static_cast<void>(transfer_.release());
}

std::size_t Messages::block_capacity() const {
  return std::max(piece_bytes() / ranks() / kLargestElement * kLargestElement, kLargestElement);
}

std::vector<const std::byte*> Messages::blocks(std::size_t bytes) const {
  std::vector<const std::byte*> all;
  for (std::size_t r = 0; r < ranks(); ++r) all.push_back(transfer_->received.data() + r * bytes);
  return all;
}

void Messages::start_agreement(const Call& call) {
  group_.job->alarm().throw_if_raised();
  Transfer& t = *transfer_;
  t.mine = call;
  t.calls.resize(ranks());
  must(MPI_Iallgather(&t.mine, sizeof(Call), MPI_BYTE, t.calls.data(), sizeof(Call), MPI_BYTE,
                      group_.comm.get(), &t.request),
       "MPI_Iallgather");
}

void Messages::require_agreement() {
  if (const auto text = disagreement(transfer_->calls, group_.names)) watched_.watch().give_up(*text);
}

void Messages::start_gather(const void* part, std::size_t bytes) {
  Transfer& t = *transfer_;
  t.sent.resize(std::max(t.sent.size(), bytes));
  copy_bytes(t.sent.data(), part, bytes);
  t.received.resize(bytes * ranks());
  must(MPI_Iallgather(t.sent.data(), static_cast<int>(bytes), MPI_BYTE, t.received.data(),
                      static_cast<int>(bytes), MPI_BYTE, group_.comm.get(), &t.request),
       "MPI_Iallgather");
}

void Messages::start_transpose(std::size_t bytes) {
  Transfer& t = *transfer_;
  t.received.resize(bytes * ranks());
  must(MPI_Ialltoall(t.sent.data(), static_cast<int>(bytes), MPI_BYTE, t.received.data(),
                     static_cast<int>(bytes), MPI_BYTE, group_.comm.get(), &t.request),
       "MPI_Ialltoall");
}

void Messages::start_broadcast(int root, std::size_t bytes) {
  Transfer& t = *transfer_;
  must(MPI_Ibcast(t.received.data(), static_cast<int>(bytes), MPI_BYTE, root, group_.comm.get(), &t.request),
       "MPI_Ibcast");
}

bool Messages::is_done() {
  group_.job->alarm().throw_if_raised();
  return lamina::is_done(transfer_->request);
}

// The ranks of a group count the same exchanges, those that they did not have to wait for, too.
bool Messages::ask(const Call& call) {
  if (!is_done()) return false;
  watched_.enter(call);
  watched_.leave();
  return true;
}

void Messages::wait(const Call& call) {
  const Span span(SpanKind::waiting, "wait for peers");
  watched_.enter(call);
  try {
    Backoff backoff;
    LongWait wait(watched_.watch());
    while (!is_done()) {
      backoff.pause();
      if (backoff.is_long()) wait.look();
    }
  } catch (const std::exception&) {
    abandon_transfer();
    throw;
  }
  watched_.leave();
}

void Messages::abandon_transfer() {
  static_cast<void>(transfer_.release());
  transfer_ = std::make_unique<Transfer>();
}

}  // namespace lamina
