#include "tests/support/nccl_on_cpu/nccl_on_cpu.h"

#include <nccl_device/core.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "tests/support/cuda_on_cpu/memory.h"
#include "tests/support/cuda_on_cpu/streams.h"

namespace {

struct Transfer {
  int peer = 0;
  const std::byte* from = nullptr;  ///< sent, or
  std::byte* to = nullptr;          ///< received
  std::size_t bytes = 0;
};

/// What one rank calls: a gather, or sends and receives.
struct Operation {
  bool is_gather = false;
  std::vector<Transfer> sends, receives;
};

/// What one rank gives to a window.
struct Registration {
  char* memory = nullptr;
  std::size_t bytes = 0;
  ncclWindow_t on_device = nullptr;
  ncclWindow_t* window = nullptr;  ///< set when all ranks have come
};

struct Clique;

/// All state is guarded by one mutex.
struct State {
  std::mutex mutex;
  std::condition_variable changed;
  bool present = true, shared_gpu = false, abort_hangs = false, peer_access = true;
  int version = NCCL_VERSION_CODE;
  ncclResult_t error = ncclSuccess;
  int communicators = 0, aborted = 0, windows = 0;
  std::uint64_t ids = 0;
  std::map<std::uint64_t, std::weak_ptr<Clique>> cliques;
};
State& state() {
  static auto& of_the_process = *new State;
  return of_the_process;
}
using Lock = std::unique_lock<std::mutex>;

constexpr std::chrono::seconds kPatience{60};

}  // namespace

struct ncclComm {
  std::shared_ptr<Clique> clique;
  int rank = 0;
};

namespace {

/// The ranks of a communicator and what they are at.
struct Clique {
  explicit Clique(int ranks)
      : gpus(static_cast<std::size_t>(ranks), -1),
        posted(gpus.size()),
        registered(gpus.size()),
        ended(gpus.size()) {}

  bool has_begun() const { return std::find(gpus.begin(), gpus.end(), -1) == gpus.end(); }
  bool has_ended() const { return std::find(ended.begin(), ended.end(), false) == ended.end(); }
  bool is_busy(int rank) const {
    const auto place = static_cast<std::size_t>(rank);
    return posted[place].has_value() || registered[place].has_value();
  }

  /// By rank: its GPU, or -1 before it has come; the call in which it waits; whether it is done.
  std::vector<int> gpus;
  std::vector<std::optional<Operation>> posted;
  std::vector<std::optional<Registration>> registered;
  std::vector<bool> ended;
  ncclResult_t error = ncclSuccess;  ///< of all ranks, for good
};

thread_local std::string last_error;  // NOLINT(cppcoreguidelines-avoid-non-const-global-variables)

ncclResult_t refuse(ncclResult_t code, const char* why) {
  last_error = why;
  return code;
}

/// What a thread has called since ncclGroupStart.
struct Group {
  bool is_open = false;
  ncclComm_t communicator = nullptr;
  cudaStream_t stream = nullptr;
  Operation operation;
};
Group& group() {
  thread_local Group of_this_thread;
  return of_this_thread;
}

const Transfer* matching(const std::vector<Transfer>& transfers, int peer) {
  const auto found =
      std::find_if(transfers.begin(), transfers.end(), [&](const Transfer& t) { return t.peer == peer; });
  return found == transfers.end() ? nullptr : &*found;
}

/// Moves what all ranks have posted; false where their calls do not match.
bool move_values(const std::vector<std::optional<Operation>>& posted) {
  const cuda_on_cpu::DeviceAccess access;
  for (std::size_t rank = 0; rank < posted.size(); ++rank) {
    for (const Transfer& receive : posted[rank]->receives) {
      const Operation& peer = *posted[static_cast<std::size_t>(receive.peer)];
      const Transfer* send = matching(peer.sends, static_cast<int>(rank));
      if (send == nullptr || send->bytes != receive.bytes || peer.is_gather != posted[rank]->is_gather)
        return false;
      std::memmove(receive.to, send->from, send->bytes);
    }
  }
  return true;
}

/// With the lock held: the last rank to come does the work of all.
void post(Clique& clique, int rank, const Operation& operation) {
  clique.posted[static_cast<std::size_t>(rank)] = operation;
  const auto has_posted = [](const auto& each) { return each.has_value(); };
  if (!std::all_of(clique.posted.begin(), clique.posted.end(), has_posted)) return;
  if (!move_values(clique.posted)) clique.error = ncclInvalidUsage;
  for (auto& each : clique.posted) each.reset();
  state().changed.notify_all();
}

/// With the lock held: the last rank to come opens the window of all.
ncclResult_t post(Clique& clique, int rank, const Registration& registration) {
  clique.registered[static_cast<std::size_t>(rank)] = registration;
  auto& all = clique.registered;
  if (!std::all_of(all.begin(), all.end(), [](const auto& each) { return each.has_value(); }))
    return ncclInProgress;
  const cuda_on_cpu::DeviceAccess access;
  for (const auto& each : all) {
    if (each->bytes != registration.bytes) clique.error = ncclInvalidUsage;
    for (std::size_t peer = 0; peer < all.size(); ++peer) each->on_device->bases[peer] = all[peer]->memory;
    *each->window = each->on_device;
    ++state().windows;
  }
  for (auto& each : all) each.reset();
  return clique.error == ncclSuccess ? ncclInProgress : clique.error;
}

/// A node of a graph.
struct Captured {
  std::shared_ptr<Clique> clique;
  int rank;
  Operation operation;
};

void run_captured(void* data) {
  const auto& node = *static_cast<Captured*>(data);
  Lock lock(state().mutex);
  post(*node.clique, node.rank, node.operation);
  const auto is_over = [&] { return !node.clique->is_busy(node.rank) || node.clique->error != ncclSuccess; };
  if (!state().changed.wait_for(lock, kPatience, is_over)) node.clique->error = ncclRemoteError;
}

/// Graphs do not own them; they are few in a test.
Captured* keep(Captured captured) {
  static auto& of_the_process = *new std::deque<Captured>;
  const Lock lock(state().mutex);
  return &of_the_process.emplace_back(std::move(captured));
}

ncclResult_t capture(ncclComm_t communicator, cudaStream_t stream, Operation operation) {
  Captured* node = keep({communicator->clique, communicator->rank, std::move(operation)});
  return cudaLaunchHostFunc(stream, run_captured, node) == cudaSuccess ? ncclSuccess : ncclUnhandledCudaError;
}

ncclResult_t put_on(cudaStream_t stream, ncclComm_t communicator, Operation operation) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  if (cudaStreamIsCapturing(stream, &status) != cudaSuccess) return ncclUnhandledCudaError;
  if (cuda_on_cpu::note_exchange(stream, communicator->clique.get()) != cudaSuccess)
    return ncclUnhandledCudaError;
  if (status == cudaStreamCaptureStatusActive) return capture(communicator, stream, std::move(operation));
  if (cuda_on_cpu::run_all(stream) != cudaSuccess) return ncclUnhandledCudaError;
  const Lock lock(state().mutex);
  Clique& clique = *communicator->clique;
  if (!clique.has_begun() || clique.is_busy(communicator->rank))
    return refuse(ncclInvalidUsage, "the communicator is still in progress");
  post(clique, communicator->rank, operation);
  return ncclInProgress;
}

std::uint64_t number_of(const ncclUniqueId& id) {
  std::uint64_t number = 0;
  std::memcpy(&number, id.internal, sizeof number);
  return number;
}

/// With the lock held.
std::shared_ptr<Clique> join(const ncclUniqueId& id, int ranks) {
  std::weak_ptr<Clique>& known = state().cliques[number_of(id)];
  std::shared_ptr<Clique> clique = known.lock();
  if (!clique) known = clique = std::make_shared<Clique>(ranks);
  return clique;
}

bool some_share(const std::vector<int>& gpus) {
  for (auto gpu = gpus.begin(); gpu != gpus.end(); ++gpu)
    if (*gpu >= 0 && std::find(gpu + 1, gpus.end(), *gpu) != gpus.end()) return true;
  return false;
}

ncclResult_t true_state(const ncclComm& communicator) {
  const Clique& clique = *communicator.clique;
  if (state().error != ncclSuccess) return state().error;
  if (clique.error != ncclSuccess) return clique.error;
  const bool ends = clique.ended[static_cast<std::size_t>(communicator.rank)];
  if (!clique.has_begun() || clique.is_busy(communicator.rank) || (ends && !clique.has_ended()))
    return ncclInProgress;
  return ncclSuccess;
}

template <class Change>
void change(const Change& apply) {
  const Lock lock(state().mutex);
  apply(state());
  state().changed.notify_all();
}

}  // namespace

namespace nccl_on_cpu {

void reset() {
  change([](State& s) {
    s.present = true;
    s.shared_gpu = s.abort_hangs = false;
    s.peer_access = true;
    s.version = NCCL_VERSION_CODE;
    s.error = ncclSuccess;
    s.communicators = s.aborted = s.windows = 0;
  });
}
void set_present(bool present) {
  change([&](State& s) { s.present = present; });
}
void set_version(int version) {
  change([&](State& s) { s.version = version; });
}
void set_shared_gpu(bool allowed) {
  change([&](State& s) { s.shared_gpu = allowed; });
}
void set_error(ncclResult_t error) {
  change([&](State& s) { s.error = error; });
}
void set_peer_access(bool reach) {
  change([&](State& s) { s.peer_access = reach; });
}
void set_abort_hangs(bool hangs) {
  change([&](State& s) { s.abort_hangs = hangs; });
}
bool is_present() {
  const Lock lock(state().mutex);
  return state().present;
}
int communicators() {
  const Lock lock(state().mutex);
  return state().communicators;
}
int aborted() {
  const Lock lock(state().mutex);
  return state().aborted;
}
int windows() {
  const Lock lock(state().mutex);
  return state().windows;
}

}  // namespace nccl_on_cpu

ncclResult_t ncclGetVersion(int* version) {
  const Lock lock(state().mutex);
  *version = state().version;
  return ncclSuccess;
}

const char* ncclGetErrorString(ncclResult_t result) {
  constexpr std::array kTexts{"no error",
                              "unhandled cuda error",
                              "unhandled system error",
                              "internal error",
                              "invalid argument",
                              "invalid usage",
                              "remote process exited or there was a network error",
                              "NCCL operation in progress"};
  return kTexts.at(static_cast<std::size_t>(result));
}

const char* ncclGetLastError(ncclComm_t) { return last_error.c_str(); }

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  const Lock lock(state().mutex);
  *id = {};
  const std::uint64_t number = ++state().ids;
  std::memcpy(id->internal, &number, sizeof number);
  return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t* communicator, int ranks, ncclUniqueId id, int rank,
                                    ncclConfig_t* config) {
  int gpu = 0;
  if (config->blocking != 0) return refuse(ncclInvalidArgument, "only communicators that do not block");
  if (cudaGetDevice(&gpu) != cudaSuccess) return ncclUnhandledCudaError;
  const Lock lock(state().mutex);
  auto clique = join(id, ranks);
  clique->gpus.at(static_cast<std::size_t>(rank)) = gpu;
  if (!state().shared_gpu && some_share(clique->gpus)) clique->error = ncclInvalidUsage;
  *communicator = new ncclComm{std::move(clique), rank};
  ++state().communicators;
  return ncclInProgress;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t communicator, ncclResult_t* error) {
  const Lock lock(state().mutex);
  *error = true_state(*communicator);
  return ncclSuccess;
}

ncclResult_t ncclCommFinalize(ncclComm_t communicator) {
  const Lock lock(state().mutex);
  communicator->clique->ended[static_cast<std::size_t>(communicator->rank)] = true;
  return ncclInProgress;
}

ncclResult_t ncclCommDestroy(ncclComm_t communicator) {
  const Lock lock(state().mutex);
  if (true_state(*communicator) != ncclSuccess) return ncclInvalidUsage;
  --state().communicators;
  delete communicator;
  return ncclSuccess;
}

ncclResult_t ncclCommAbort(ncclComm_t communicator) {
  Lock lock(state().mutex);
  state().changed.wait(lock, [] { return !state().abort_hangs; });
  communicator->clique->posted[static_cast<std::size_t>(communicator->rank)].reset();
  --state().communicators;
  ++state().aborted;
  delete communicator;
  return ncclSuccess;
}

ncclResult_t ncclGroupStart() {
  group() = {.is_open = true, .communicator = nullptr, .stream = nullptr, .operation = {}};
  return ncclSuccess;
}

ncclResult_t ncclGroupEnd() {
  Group called = std::exchange(group(), {});
  if (!called.is_open || called.communicator == nullptr) return ncclInvalidUsage;
  return put_on(called.stream, called.communicator, std::move(called.operation));
}

ncclResult_t ncclAllGather(const void* part, void* all, std::size_t count, ncclDataType_t,
                           ncclComm_t communicator, cudaStream_t stream) {
  Operation operation{.is_gather = true, .sends = {}, .receives = {}};
  const std::size_t bytes = count * sizeof(float);
  const int ranks = static_cast<int>(communicator->clique->gpus.size());
  for (int peer = 0; peer < ranks; ++peer) {
    operation.sends.push_back({peer, static_cast<const std::byte*>(part), nullptr, bytes});
    operation.receives.push_back(
        {peer, nullptr, static_cast<std::byte*>(all) + static_cast<std::size_t>(peer) * bytes, bytes});
  }
  return put_on(stream, communicator, std::move(operation));
}

ncclResult_t ncclSend(const void* values, std::size_t count, ncclDataType_t, int peer,
                      ncclComm_t communicator, cudaStream_t stream) {
  group().communicator = communicator;
  group().stream = stream;
  group().operation.sends.push_back(
      {peer, static_cast<const std::byte*>(values), nullptr, count * sizeof(float)});
  return group().is_open ? ncclSuccess : refuse(ncclInvalidUsage, "only within a group");
}

ncclResult_t ncclRecv(void* values, std::size_t count, ncclDataType_t, int peer, ncclComm_t communicator,
                      cudaStream_t stream) {
  group().communicator = communicator;
  group().stream = stream;
  group().operation.receives.push_back(
      {peer, nullptr, static_cast<std::byte*>(values), count * sizeof(float)});
  return group().is_open ? ncclSuccess : refuse(ncclInvalidUsage, "only within a group");
}

ncclResult_t ncclMemAlloc(void** memory, std::size_t bytes) {
  return cudaMalloc(memory, bytes) == cudaSuccess ? ncclSuccess : ncclUnhandledCudaError;
}
ncclResult_t ncclMemFree(void* memory) {
  return cudaFree(memory) == cudaSuccess ? ncclSuccess : ncclUnhandledCudaError;
}

ncclResult_t ncclCommWindowRegister(ncclComm_t communicator, void* memory, std::size_t bytes,
                                    ncclWindow_t* window, int flags) {
  if (flags != NCCL_WIN_COLL_SYMMETRIC) return refuse(ncclInvalidArgument, "only symmetric windows");
  *window = nullptr;
  void* on_device = nullptr;
  {
    const Lock lock(state().mutex);
    if (!state().peer_access) return ncclSuccess;  // as NCCL 2.28 does
  }
  if (cudaMalloc(&on_device, sizeof(ncclWindow_vidmem)) != cudaSuccess) return ncclUnhandledCudaError;
  const Lock lock(state().mutex);
  if (communicator->clique->is_busy(communicator->rank))
    return refuse(ncclInvalidUsage, "the communicator is still in progress");
  return post(*communicator->clique, communicator->rank,
              Registration{static_cast<char*>(memory), bytes, static_cast<ncclWindow_t>(on_device), window});
}

ncclResult_t ncclCommWindowDeregister(ncclComm_t, ncclWindow_t window) {
  if (cudaFree(window) != cudaSuccess) return ncclUnhandledCudaError;
  const Lock lock(state().mutex);
  --state().windows;
  return ncclSuccess;
}

ncclTeam_t ncclTeamLsa(ncclComm_t communicator) {
  const Lock lock(state().mutex);
  const Clique& clique = *communicator->clique;
  return {state().peer_access ? static_cast<int>(clique.gpus.size()) : 1, communicator->rank, 1};
}
