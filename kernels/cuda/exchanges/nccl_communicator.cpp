#include "kernels/cuda/exchanges/nccl_communicator.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <exception>
#include <future>
#include <memory>
#include <span>
#include <thread>
#include <utility>

#include "kernels/cuda/waiting.h"
#include "runtime/error.h"

namespace lamina::cuda {
namespace {

using std::chrono::milliseconds;
using namespace std::chrono_literals;

constexpr milliseconds kRollCall = 30s, kEndLimit = 10s;
/// An abort can hang, too. Less than what a job has left once the alarm is raised.
constexpr milliseconds kAbortLimit = 5s;

/// What rank 0 sends to all: where to meet, unless it could not say.
struct Invitation {
  ncclUniqueId id{};
  ncclResult_t code = ncclSuccess;
};

ncclUniqueId common_id(Communicator& group) {
  Invitation invitation;
  if (group.rank() == 0) invitation.code = nccl().GetUniqueId(&invitation.id);
  group.broadcast(std::as_writable_bytes(std::span(&invitation, 1)), 0);
  verify(invitation.code, "ncclGetUniqueId");
  return invitation.id;
}

void say(const std::string& sentence) { std::fprintf(stderr, "lamina: %s\n", sentence.c_str()); }

/// Whether ncclCommAbort returned; by a thread of its own, which is left behind where it did not.
bool abort_within(milliseconds limit, ncclComm_t communicator) {
  const auto done = std::make_shared<std::promise<void>>();
  const std::future<void> is_done = done->get_future();
  std::thread([communicator, done] {
    nccl().CommAbort(communicator);
    done->set_value();
  }).detach();
  return is_done.wait_for(limit) == std::future_status::ready;
}

}  // namespace

NcclCommunicator::NcclCommunicator(Communicator& group) : group_(group) { begin(); }

NcclCommunicator::~NcclCommunicator() {
  if (!is_alive()) return;
  try {
    std::uncaught_exceptions() > 0 ? abort() : end();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "lamina: NCCL did not end in order: %s\n", error.what());
  }
}

void NcclCommunicator::begin() {
  const ncclUniqueId id = common_id(group_);
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  settle(nccl().CommInitRankConfig(&communicator_, group_.size(), id, group_.rank(), &config));
}

void NcclCommunicator::end() {
  ncclResult_t code = nccl().CommFinalize(communicator_);
  const auto has_ended = [&] { return (code = state()) != ncclInProgress; };
  if (code == ncclInProgress) static_cast<void>(wait_within(kEndLimit, has_ended));
  if (code == ncclSuccess) {
    code = nccl().CommDestroy(std::exchange(communicator_, nullptr));
    if (code == ncclSuccess || code == ncclInProgress) return;
  }
  say(fmt::format("{} did not end in order: {}", place(), nccl().GetErrorString(code)));
  abort();
}

void NcclCommunicator::settle(ncclResult_t code) {
  const auto is_settled = [&] { return (code = state()) != ncclInProgress; };
  if (code == ncclInProgress)
    wait_until(is_settled, [this](std::chrono::nanoseconds waited) { require_peers(waited); });
  if (code != ncclSuccess) fail_with(code);
}

void NcclCommunicator::look(std::chrono::nanoseconds waited) {
  require_alive();
  const ncclResult_t code = state();
  if (code != ncclSuccess && code != ncclInProgress) fail_with(code);
  require_peers(waited);
}

ncclResult_t NcclCommunicator::state() const {
  ncclResult_t state = ncclSuccess;
  const ncclResult_t code = nccl().CommGetAsyncError(communicator_, &state);
  return code == ncclSuccess ? state : code;
}

void NcclCommunicator::require_alive() const {
  if (!is_alive()) throw PeerError(failure_);
}

void NcclCommunicator::require_peers(std::chrono::nanoseconds waited) {
  try {
    group_.require_peers();
  } catch (const PeerError& error) {
    failure_ = error.what();
    abort();
    throw;
  }
  const milliseconds limit = group_.deadline();
  if (limit.count() > 0 && waited > limit) fail_late();
}

/// Who is late, the group knows of those who do not come to a barrier now.
void NcclCommunicator::fail_late() {
  const milliseconds limit = group_.deadline();
  std::string why = "all ranks answer, so NCCL or a link between GPUs is stuck: NCCL_DEBUG=INFO tells more";
  bool speaks_first = group_.rank() == 0;
  try {
    const DeadlineScope roll_call(group_, std::min(limit, kRollCall));
    group_.barrier();
  } catch (const PeerError& error) {
    why = error.what();
    speaks_first = error.speaks_first();
  }
  fail(fmt::format("{} did not end within {:g} s: {}", place(), static_cast<double>(limit.count()) / 1000,
                   why),
       speaks_first);
}

void NcclCommunicator::fail_with(ncclResult_t code) {
  const char* advice = code == ncclRemoteError ? "see what the other ranks say"
                                               : "run again with NCCL_DEBUG=WARN, which tells more";
  fail(fmt::format("{} failed: {} ({}); {}", place(), nccl().GetErrorString(code),
                   nccl().GetLastError(communicator_), advice),
       code != ncclRemoteError);
}

void NcclCommunicator::fail(const std::string& sentence, bool speaks_first) {
  failure_ = sentence;
  group_.abandon(sentence);
  abort();
  throw PeerError(sentence, speaks_first);
}

void NcclCommunicator::abort() {
  if (!is_alive()) return;
  if (failure_.empty()) failure_ = place() + " was aborted";
  if (!abort_within(kAbortLimit, std::exchange(communicator_, nullptr)))
    say("ncclCommAbort does not return, its thread is left behind");
}

std::string NcclCommunicator::place() const {
  const std::string what =
      latest_.count == 0 ? latest_.name : fmt::format("{} of {} float32", latest_.name, latest_.count);
  return fmt::format("{} over NCCL ({})", what, group_.name());
}

}  // namespace lamina::cuda
