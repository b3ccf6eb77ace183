#include "tests/support/cuda_on_cpu/scheduler.h"

#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "cuda_on_cpu/device.h"
#include "tests/support/cuda_on_cpu/fibers.h"
#include "tests/support/cuda_on_cpu/host.h"
#include "tests/support/cuda_on_cpu/kernel_names.h"

// NOLINTBEGIN(readability-identifier-naming): NVIDIA's names
constinit thread_local uint3 threadIdx = {}, blockIdx = {};
constinit thread_local dim3 blockDim, gridDim;
const int warpSize = 32;
// NOLINTEND(readability-identifier-naming)

namespace cuda_on_cpu {

constinit thread_local unsigned lane_of_this_thread = 0;

namespace {

constexpr unsigned kLanes = 32;
constexpr unsigned kNoValue = 0xffffffffu;  // what a lane reads from one that is not there
using Clock = std::chrono::steady_clock;

std::string name_of(Collective kind) {
  static constexpr std::array kNames = {"__syncwarp",       "__shfl_sync",     "__shfl_up_sync",
                                        "__shfl_down_sync", "__shfl_xor_sync", "__ballot_sync",
                                        "__any_sync",       "__all_sync"};
  return kNames[static_cast<std::size_t>(kind)];
}

std::string in_brackets(const uint3& index) {
  return "(" + std::to_string(index.x) + "," + std::to_string(index.y) + "," + std::to_string(index.z) + ")";
}

std::string place(const Where& where) {
  return std::string(where.file_name()) + ":" + std::to_string(where.line());
}

std::string in_hex(unsigned mask) {
  std::array<char, 16> text;
  std::snprintf(text.data(), text.size(), "0x%08x", mask);
  return text.data();
}

bool same_place(const Where& one, const Where& other) {
  return one.line() == other.line() && one.column() == other.column();
}

/// A fast sequence of numbers, repeatable.
class Dice {
 public:
  void seed(std::uint64_t value) { state_ = value * 0x9e3779b97f4a7c15u + 1; }
  std::size_t below(std::size_t count) {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    state_ ^= state_ << 17;
    return static_cast<std::size_t>((state_ >> 16) % count);
  }

 private:
  std::uint64_t state_ = 1;
};

/// Lanes that wait for each other in one call.
struct Gathering {
  unsigned mask = 0, arrived = 0;
  Collective kind = Collective::syncwarp;
};

struct Block;

struct Warp {
  unsigned alive = 0;  ///< lanes that have not ended
  unsigned first = 0;  ///< the thread that is its lane 0
  unsigned gatherings_count = 0;
  std::array<Gathering, kLanes> gatherings;
  std::array<std::uint64_t, kLanes> values, results;
  std::array<unsigned char, kLanes> sources;

  Gathering& gathering_of(unsigned mask) {
    for (unsigned i = 0; i < gatherings_count; ++i)
      if (gatherings[i].mask == mask) return gatherings[i];
    gatherings[gatherings_count] = {.mask = mask};
    return gatherings[gatherings_count++];
  }
  void forget(Gathering& gathering) { gathering = gatherings[--gatherings_count]; }
};

enum class State : unsigned char { ready, at_barrier, in_collective, ended };

struct alignas(64) Thread {
  uint3 index = {};
  State state = State::ready;
  unsigned char lane = 0;
  Collective kind = Collective::syncwarp;
  unsigned mask = 0;
  Block* block = nullptr;
  Warp* warp = nullptr;
  Fiber* fiber = nullptr;  ///< from its beginning to its end
  Where where;
};

struct Block {
  uint3 index = {};
  int alive = 0, arrived = 0, votes = 0;
  Votes outcome = {};
  Where barrier;
  Thread* threads = nullptr;
  std::byte* shared = nullptr;
};

/// Dynamic shared memory: ends where a page begins that no one may touch.
class SharedMemory {
 public:
  SharedMemory() = default;
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;
  ~SharedMemory() {
    for (std::byte* region : regions_) munmap(region, kRegionBytes + kGuardBytes);
  }
  std::byte* of_block(std::size_t block, std::size_t bytes) {
    while (regions_.size() <= block) regions_.push_back(make());
    const std::size_t rounded = (bytes + 127) / 128 * 128;
    return regions_[block] + kRegionBytes - rounded;
  }

 private:
  static constexpr std::size_t kGuardBytes = 4096;
  static constexpr std::size_t kRegionBytes = (kSharedPerBlockOptin + 4095) / 4096 * 4096;

  static std::byte* make() {
    void* region =
        mmap(nullptr, kRegionBytes + kGuardBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (region == MAP_FAILED) std::abort();
    mprotect(static_cast<std::byte*>(region) + kRegionBytes, kGuardBytes, PROT_NONE);
    return static_cast<std::byte*>(region);
  }

  std::vector<std::byte*> regions_;
};

/// Threads whose turn may come: each at most once.
class Queue {
 public:
  void prepare(std::size_t threads) {
    const std::size_t size = std::bit_ceil(threads);
    if (ring_.size() < size) ring_.resize(size);
    mask_ = ring_.size() - 1;
    first_ = count_ = 0;
  }
  bool is_empty() const { return count_ == 0; }
  void push(Thread* thread) { at(count_++) = thread; }
  Thread* pop() {
    Thread* thread = at(0);
    ++first_;
    --count_;
    return thread;
  }
  Thread* pop_any(Dice& dice) {
    std::swap(at(0), at(dice.below(count_)));
    return pop();
  }

 private:
  Thread*& at(std::size_t i) { return ring_[(first_ + i) & mask_]; }

  std::vector<Thread*> ring_;
  std::size_t mask_ = 0, first_ = 0, count_ = 0;
};

[[noreturn]] void fiber_main();

class Scheduler {
 public:
  Scheduler() : fibers_(fiber_main) {}

  cudaError_t run(const Grid& grid);

  // What device code asks for.
  Votes barrier(bool vote, Where where);
  std::uint64_t exchange(Collective kind, unsigned mask, std::uint64_t value, int source, Where where);
  void yield();
  /// Why the launch ends: the current thread did something.
  void blame(const std::string& for_what);
  /// Ends it. What lives on the stacks then is lost: no strings.
  [[noreturn]] void stop(cudaError_t error);
  [[noreturn]] void run_threads();

  void forget_launches() { launches_ = 0; }
  Thread* current() const { return current_; }
  bool is_guard(const void* address) const { return fibers_.is_guard(address); }
  void describe(char* text, std::size_t size) const;

 private:
  void prepare(const Grid& grid, std::size_t blocks_at_once);
  void begin(Block& block, std::size_t slot, std::size_t number);
  bool run_prepared();
  void wait();
  Thread* take_next();
  void end_current();
  void release_barrier(Block& block);
  void complete(Warp& warp, Gathering& gathering);
  __attribute__((noinline)) void blame_barrier(Where where);
  __attribute__((noinline)) void blame_mask(Collective kind, unsigned mask, Where where);
  __attribute__((noinline)) void blame_exchange(Collective kind, const Gathering& others, Where where);
  __attribute__((noinline)) void blame_wait(double seconds);
  void wake(Thread& thread);
  void wake_lanes(const Warp& warp, unsigned lanes);
  void make_current(Thread& thread);
  void make_current_anywhere(Thread& thread);
  void check_progress();
  std::string launch_in_words() const;
  std::string words_for(const Thread& thread) const;
  std::string who_waits() const;
  std::string where_it_waits(const Thread& thread) const;

  FiberPool fibers_;
  SharedMemory shared_;
  Context host_;
  Queue ready_;
  Dice dice_;
  std::vector<Thread> threads_;
  std::vector<Warp> warps_;
  std::vector<Block> blocks_;
  std::size_t threads_in_use_ = 0;  ///< of `threads_`: those of the blocks that run
  const Grid* grid_ = nullptr;
  Thread* current_ = nullptr;
  bool shuffled_ = false;
  std::uint64_t launches_ = 0;
  std::uint64_t completions_ = 0;  ///< of exchanges in warps
  Thread* urgent_warp_ = nullptr;  ///< whose turn comes before those that are ready: its lanes
  unsigned urgent_lanes_ = 0;
  std::size_t idle_turns_ = 0;  ///< yields since something happened
  Clock::time_point idle_since_;
  cudaError_t error_ = cudaSuccess;
  std::string why_;
};

/// A scheduler for a host thread. They and their stacks are kept for threads to come: tests start many.
class Lease {
 public:
  Lease() {
    const std::lock_guard lock(mutex());
    if (idle().empty()) idle().push_back(std::make_unique<Scheduler>());
    scheduler_ = std::move(idle().back());
    idle().pop_back();
    scheduler_->forget_launches();
  }
  ~Lease() {
    const std::lock_guard lock(mutex());
    idle().push_back(std::move(scheduler_));
  }
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;
  Scheduler& operator*() const { return *scheduler_; }

 private:
  static std::mutex& mutex() {
    static auto& of_the_process = *new std::mutex;
    return of_the_process;
  }
  static std::vector<std::unique_ptr<Scheduler>>& idle() {
    static auto& of_the_process = *new std::vector<std::unique_ptr<Scheduler>>;
    return of_the_process;
  }

  std::unique_ptr<Scheduler> scheduler_;
};

Scheduler& scheduler() {
  thread_local const Lease of_this_thread;
  return *of_this_thread;
}
thread_local constinit Scheduler* running = nullptr;

[[noreturn]] void fiber_main() {
  Context::arrived();
  running->run_threads();
}

/// The indices of `count` threads or blocks in order of their numbers.
uint3 index_of(std::size_t number, const dim3& extent) {
  const auto n = static_cast<unsigned>(number);
  return {n % extent.x, n / extent.x % extent.y, n / extent.x / extent.y};
}

std::size_t count_of(const dim3& extent) { return static_cast<std::size_t>(extent.x) * extent.y * extent.z; }

cudaError_t Scheduler::run(const Grid& grid) {
  if (running != nullptr) {
    std::fputs("cuda_on_cpu: a kernel may not use the host's interface\n", stderr);
    std::abort();
  }
  running = this;
  ++launches_;
  const unsigned seed = settings().seed;
  shuffled_ = seed != 0;
  dice_.seed((std::uint64_t{seed} << 32) + launches_);
  const std::size_t blocks = count_of(grid.blocks);
  prepare(grid, grid.cooperative ? blocks : 1);
  error_ = cudaSuccess;

  if (grid.cooperative) {
    for (std::size_t b = 0; b < blocks; ++b) begin(blocks_[b], b, b);
    run_prepared();
  } else {
    // Shuffled: the first of the blocks is any, and so is the step from one to the next.
    const std::size_t first = shuffled_ ? dice_.below(blocks) : 0;
    const bool backward = shuffled_ && dice_.below(2) == 1;
    for (std::size_t i = 0; i < blocks; ++i) {
      const std::size_t b = (first + (backward ? blocks - i : i)) % blocks;
      ready_.prepare(threads_in_use_);
      begin(blocks_[0], 0, b);
      if (!run_prepared()) break;
    }
  }
  running = nullptr;
  grid_ = nullptr;
  if (error_ != cudaSuccess) fail_for_good(error_, why_);
  return error_;
}

void Scheduler::prepare(const Grid& grid, std::size_t blocks_at_once) {
  grid_ = &grid;
  blockDim = grid.threads;
  gridDim = grid.blocks;
  const std::size_t threads = count_of(grid.threads), warps = (threads + kLanes - 1) / kLanes;
  threads_in_use_ = threads * blocks_at_once;
  if (threads_.size() < threads_in_use_) threads_.resize(threads_in_use_);
  if (warps_.size() < warps * blocks_at_once) warps_.resize(warps * blocks_at_once);
  if (blocks_.size() < blocks_at_once) blocks_.resize(blocks_at_once);
  ready_.prepare(threads_in_use_);
}

/// Block `number` of the grid gets the `slot`-th share of threads, warps and shared memory.
void Scheduler::begin(Block& block, std::size_t slot, std::size_t number) {
  const std::size_t threads = count_of(grid_->threads), warps = (threads + kLanes - 1) / kLanes;
  block.index = index_of(number, grid_->blocks);
  block.alive = static_cast<int>(threads);
  block.arrived = block.votes = 0;
  block.threads = &threads_[slot * threads];
  if (grid_->shared_bytes > 0) {
    block.shared = shared_.of_block(slot, grid_->shared_bytes);
    std::memset(block.shared, 0xff, grid_->shared_bytes);
  } else {
    block.shared = nullptr;
  }
  for (std::size_t w = 0; w < warps; ++w) {
    Warp& warp = warps_[slot * warps + w];
    const std::size_t lanes = std::min<std::size_t>(kLanes, threads - w * kLanes);
    warp.alive = lanes == kLanes ? ~0u : (1u << lanes) - 1;
    warp.first = static_cast<unsigned>(w * kLanes);
    warp.gatherings_count = 0;
  }
  uint3 index = {0, 0, 0};
  for (std::size_t t = 0; t < threads; ++t) {
    Thread& thread = block.threads[t];
    thread.index = index;
    thread.state = State::ready;
    thread.lane = static_cast<unsigned char>(t % kLanes);
    thread.block = &block;
    thread.warp = &warps_[slot * warps + t / kLanes];
    thread.fiber = nullptr;
    ready_.push(&thread);
    if (++index.x == grid_->threads.x) {
      index.x = 0;
      if (++index.y == grid_->threads.y) {
        index.y = 0;
        ++index.z;
      }
    }
  }
}

/// Runs the threads in the queue, and those that they wake, to their end. False when that failed.
bool Scheduler::run_prepared() {
  idle_turns_ = 0;
  urgent_lanes_ = 0;
  Thread* next = take_next();
  next->fiber = &fibers_.take();
  make_current(*next);
  host_.switch_to(next->fiber->context);
  current_ = nullptr;
  if (error_ == cudaSuccess) {
    const bool all_ended =
        std::all_of(threads_.begin(), threads_.begin() + static_cast<long>(threads_in_use_),
                    [](const Thread& thread) { return thread.state == State::ended; });
    if (all_ended) return true;
    error_ = cudaErrorLaunchFailure;
    why_ = launch_in_words() + ": its threads wait for each other: " + who_waits();
  }
  fibers_.abandon_all();
  return false;
}

/// What a fiber does: runs threads, from one to the next without a switch where that has not begun yet.
void Scheduler::run_threads() {
  Fiber& own = *current_->fiber;
  while (true) {
    grid_->body();
    end_current();
    Thread* next = take_next();
    if (next != nullptr && next->fiber == nullptr) {
      next->fiber = &own;
      make_current_anywhere(*next);
      continue;
    }
    fibers_.give_back(own);
    if (next != nullptr) {
      make_current_anywhere(*next);
      own.context.switch_to(next->fiber->context);
    } else {
      own.context.switch_to(host_);
    }
    // Taken from the pool again: for the thread that is current now.
  }
}

inline Thread* Scheduler::take_next() {
  if (urgent_lanes_ != 0) {
    const int lane = std::countr_zero(urgent_lanes_);
    urgent_lanes_ &= urgent_lanes_ - 1;
    return urgent_warp_ + lane;
  }
  if (ready_.is_empty()) return nullptr;
  return shuffled_ ? ready_.pop_any(dice_) : ready_.pop();
}

inline void Scheduler::make_current(Thread& thread) {
  current_ = &thread;
  threadIdx = thread.index;
  blockIdx = thread.block->index;
  lane_of_this_thread = thread.lane;
}

// Not inline: a fiber that waits for its next thread may go on in another host thread than before, and may
// keep no address of such a variable.
__attribute__((noinline)) void Scheduler::make_current_anywhere(Thread& thread) { make_current(thread); }

/// Lets others run until someone makes the current thread ready, and its turn comes.
void Scheduler::wait() {
  Thread& self = *current_;
  Thread* next = take_next();
  if (next == &self) return;
  if (next == nullptr) {
    self.fiber->context.switch_to(host_);  // does not return: the launch has failed
    std::abort();
  }
  if (next->fiber == nullptr) next->fiber = &fibers_.take();
  make_current(*next);
  self.fiber->context.switch_to(next->fiber->context);
}

void Scheduler::wake(Thread& thread) {
  thread.state = State::ready;
  ready_.push(&thread);
}

void Scheduler::end_current() {
  Thread& self = *current_;
  self.state = State::ended;
  self.fiber = nullptr;
  idle_turns_ = 0;
  Block& block = *self.block;
  if (--block.alive == block.arrived && block.arrived > 0) release_barrier(block);
  Warp& warp = *self.warp;
  warp.alive &= ~(1u << self.lane);
  for (unsigned i = 0; i < warp.gatherings_count;) {
    Gathering& gathering = warp.gatherings[i];
    if (gathering.arrived == (gathering.mask & warp.alive)) {
      complete(warp, gathering);
    } else {
      ++i;
    }
  }
}

Votes Scheduler::barrier(bool vote, Where where) {
  Thread& self = *current_;
  Block& block = *self.block;
  if (block.arrived > 0 && !same_place(block.barrier, where)) {
    blame_barrier(where);
    stop(cudaErrorLaunchFailure);
  }
  block.barrier = where;
  block.votes += vote ? 1 : 0;
  ++block.arrived;
  self.where = where;
  self.state = State::at_barrier;
  if (block.arrived == block.alive) release_barrier(block);
  wait();
  return block.outcome;
}

/// All that came to the barrier go on; in the order of the threads, or any.
void Scheduler::release_barrier(Block& block) {
  idle_turns_ = 0;
  block.outcome = {block.votes, block.arrived};
  block.arrived = block.votes = 0;
  const std::size_t threads = count_of(grid_->threads);
  for (std::size_t t = 0; t < threads; ++t)
    if (block.threads[t].state == State::at_barrier) wake(block.threads[t]);
}

std::uint64_t Scheduler::exchange(Collective kind, unsigned mask, std::uint64_t value, int source,
                                  Where where) {
  Thread& self = *current_;
  Warp& warp = *self.warp;
  const unsigned bit = 1u << self.lane;
  if ((mask & bit) == 0) {
    blame_mask(kind, mask, where);
    stop(cudaErrorLaunchFailure);
  }
  Gathering& gathering = warp.gathering_of(mask);
  if (gathering.arrived != 0 && gathering.kind != kind) {
    blame_exchange(kind, gathering, where);
    stop(cudaErrorLaunchFailure);
  }
  gathering.kind = kind;
  gathering.arrived |= bit;
  warp.values[self.lane] = value;
  warp.sources[self.lane] = static_cast<unsigned char>(source);
  self.state = State::in_collective;
  self.kind = kind;
  self.mask = mask;
  self.where = where;
  if (gathering.arrived == (mask & warp.alive)) complete(warp, gathering);
  wait();
  self.state = State::ready;
  return warp.results[self.lane];
}

void Scheduler::complete(Warp& warp, Gathering& gathering) {
  idle_turns_ = 0;
  const unsigned arrived = gathering.arrived;
  const Collective kind = gathering.kind;
  warp.forget(gathering);
  std::uint64_t votes = 0;
  if (kind >= Collective::ballot) {
    for (unsigned rest = arrived; rest != 0; rest &= rest - 1) {
      const int lane = std::countr_zero(rest);
      votes |= warp.values[static_cast<std::size_t>(lane)] << lane;
    }
    if (kind == Collective::any) votes = votes != 0;
    if (kind == Collective::all) votes = votes == arrived;
  }
  for (unsigned rest = arrived; rest != 0; rest &= rest - 1) {
    const auto lane = static_cast<std::size_t>(std::countr_zero(rest));
    if (kind >= Collective::ballot) {
      warp.results[lane] = votes;
    } else {
      const std::size_t source = warp.sources[lane];
      const bool is_there = (arrived >> source & 1) != 0;
      warp.results[lane] = is_there ? warp.values[source] : (std::uint64_t{kNoValue} << 32 | kNoValue);
    }
  }
  wake_lanes(warp, arrived);
}

/// A warp goes on before others, as its stacks are in the cache - but not forever: it may wait for them.
void Scheduler::wake_lanes(const Warp& warp, unsigned lanes) {
  Thread* const first = current_->block->threads + warp.first;
  if (!shuffled_ && urgent_lanes_ == 0 && ++completions_ % 64 != 0) {
    urgent_warp_ = first;
    urgent_lanes_ = lanes;
    return;
  }
  for (unsigned rest = lanes; rest != 0; rest &= rest - 1) wake(first[std::countr_zero(rest)]);
}

void Scheduler::yield() {
  check_progress();
  if (ready_.is_empty() && urgent_lanes_ == 0) return;
  ready_.push(current_);
  wait();
}

/// Where all threads have only waited for a while, others must run: first of the machine, then nobody.
void Scheduler::check_progress() {
  if (idle_turns_++ == 0) idle_since_ = Clock::now();
  if (idle_turns_ % 1024 != 0) return;
  std::this_thread::yield();
  const std::chrono::duration<double> idle = Clock::now() - idle_since_;
  if (idle.count() > settings().patience) {
    blame_wait(idle.count());
    stop(cudaErrorLaunchTimeout);
  }
}

void Scheduler::blame(const std::string& for_what) {
  why_ = launch_in_words() + ": " + words_for(*current_) + " " + for_what;
}

// Functions of their own: their many strings would make the stacks larger of threads that do nothing wrong.
void Scheduler::blame_barrier(Where where) {
  blame("came to __syncthreads at " + place(where) + " while other threads of the block wait in the one at " +
        place(current_->block->barrier));
}
void Scheduler::blame_mask(Collective kind, unsigned mask, Where where) {
  blame("calls " + name_of(kind) + " at " + place(where) + " with the mask " + in_hex(mask) +
        ", which does not name its own lane " + std::to_string(current_->lane));
}
void Scheduler::blame_exchange(Collective kind, const Gathering& others, Where where) {
  blame("calls " + name_of(kind) + " at " + place(where) + " while lanes " + in_hex(others.arrived) +
        " of its warp wait in " + name_of(others.kind) + " with the same mask " + in_hex(others.mask));
}
void Scheduler::blame_wait(double seconds) {
  blame("runs while for " + std::to_string(static_cast<int>(seconds)) +
        " seconds no thread has done anything but wait for others: " + who_waits());
}

void Scheduler::stop(cudaError_t error) {
  error_ = error;
  current_->fiber->context.switch_to(host_);
  std::abort();
}

std::string Scheduler::words_for(const Thread& thread) const {
  return "thread " + in_brackets(thread.index) + " of block " + in_brackets(thread.block->index);
}

std::string Scheduler::launch_in_words() const {
  std::ostringstream text;
  const dim3 &b = grid_->blocks, &t = grid_->threads;
  text << "launch " << launches_ << " of this host thread, " << kernel_name(grid_->function) << " of "
       << in_brackets(b) << " blocks of " << in_brackets(t) << " threads";
  return text.str();
}

std::string Scheduler::where_it_waits(const Thread& thread) const {
  switch (thread.state) {
    case State::ended:
      return "ended";
    case State::ready:
      return "not waiting";
    case State::at_barrier:
      return "in __syncthreads at " + place(thread.where);
    case State::in_collective:
      return "in " + name_of(thread.kind) + " at " + place(thread.where) + " for lanes " +
             in_hex(thread.mask);
  }
  return "";
}

/// Of each place, the first thread of the first block that has one there and how many there are.
std::string Scheduler::who_waits() const {
  struct Crowd {
    const Thread* first;
    int count;
  };
  std::map<std::string, Crowd> crowds;
  for (std::size_t t = 0; t < threads_in_use_; ++t)
    ++crowds.try_emplace(where_it_waits(threads_[t]), Crowd{&threads_[t], 0}).first->second.count;
  std::string text;
  for (const auto& [where, crowd] : crowds) {
    if (!text.empty()) text += "; ";
    text += std::to_string(crowd.count) + " " + where + " (first " + words_for(*crowd.first) + ")";
  }
  return text;
}

void Scheduler::describe(char* text, std::size_t size) const {
  const uint3 &t = current_->index, &b = current_->block->index;
  const char* kernel = kernel_symbol(grid_->function);
  std::snprintf(text, size, "thread (%u,%u,%u) of block (%u,%u,%u) in launch %llu of this host thread, %s",
                t.x, t.y, t.z, b.x, b.y, b.z, static_cast<unsigned long long>(launches_),
                kernel == nullptr ? "of a kernel without a name" : kernel);
}

}  // namespace

cudaError_t run(const Grid& grid) { return scheduler().run(grid); }

void describe_running_thread(char* text, std::size_t size) {
  if (running == nullptr || running->current() == nullptr) {
    std::snprintf(text, size, "in a copy, a fill or a product");
    return;
  }
  running->describe(text, size);
}

bool is_stack_guard(const void* address) { return running != nullptr && running->is_guard(address); }

namespace {

Scheduler& of_device_code(const char* what) {
  if (running == nullptr) {
    std::fprintf(stderr, "cuda_on_cpu: %s is for kernels only\n", what);
    std::abort();
  }
  return *running;
}

}  // namespace

void* emulated_dynamic_shared_memory() { return of_device_code("shared memory").current()->block->shared; }

void yield() {
  if (running != nullptr) running->yield();
}

void yield_sometimes() {
  thread_local constinit unsigned calls = 0;
  if (++calls % 64 == 0) yield();
}

void fence() {
  static constinit std::atomic<unsigned> fences = 0;  // ThreadSanitizer knows no fences, but counts
  fences.fetch_add(1);
}

void trap(Where where) {
  Scheduler& scheduler = of_device_code("__trap");
  scheduler.blame("called __trap at " + place(where));
  scheduler.stop(cudaErrorLaunchFailure);
}

Votes barrier(bool vote, Where where) { return of_device_code("__syncthreads").barrier(vote, where); }

std::uint64_t exchange(Collective kind, unsigned mask, std::uint64_t value, int source, Where where) {
  return of_device_code("an exchange in a warp").exchange(kind, mask, value, source, where);
}

unsigned lanes_not_ended() { return of_device_code("a warp").current()->warp->alive; }

void refuse_width(int width, Where where) {
  Scheduler& scheduler = of_device_code("a shuffle");
  scheduler.blame("shuffles at " + place(where) + " in segments of " + std::to_string(width) +
                  " lanes, which is no power of 2 up to 32");
  scheduler.stop(cudaErrorLaunchFailure);
}

}  // namespace cuda_on_cpu
