#include "tests/support/cuda_on_cpu/memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <string_view>
#include <utility>
#include <vector>

#include "tests/support/cuda_on_cpu/faults.h"
#include "tests/support/cuda_on_cpu/host.h"

namespace cuda_on_cpu {
namespace {

constexpr std::size_t kPage = 4096;
constexpr std::size_t kArenaBytes = std::size_t{16} << 30;
constexpr std::size_t kReuseBytes = std::size_t{1} << 30;  // an empty arena begins anew after so many
constexpr int kUnwritten = 0xff;                           // a NaN in floats, -1 in integers

std::size_t round_up(std::size_t bytes, std::size_t unit) { return (bytes + unit - 1) / unit * unit; }

[[noreturn]] void give_up(const char* what) {
  std::perror(what);
  std::abort();
}

/// An empty file: pages mapped to it cannot be touched, whatever their protection.
int empty_file() {
  static const int file = [] {
    const int made = memfd_create("lamina_no_memory", MFD_CLOEXEC);
    if (made < 0) give_up("cuda_on_cpu: memfd_create");
    return made;
  }();
  return file;
}

/// A file of unwritten memory: large buffers are private views of it, so that pages that no one touches take
/// neither memory nor time.
constexpr std::size_t kUnwrittenFileBytes = std::size_t{4} << 20;
constexpr std::size_t kLarge = std::size_t{64} << 10;
int unwritten_file() {
  static const int file = [] {
    const int made = memfd_create("lamina_unwritten", MFD_CLOEXEC);
    const std::vector<char> bytes(kUnwrittenFileBytes, static_cast<char>(kUnwritten));
    if (made < 0 || write(made, bytes.data(), bytes.size()) != static_cast<ssize_t>(bytes.size()))
      give_up("cuda_on_cpu: memfd_create");
    return made;
  }();
  return file;
}

void map(std::byte* pages, std::size_t bytes, int file) {
  const int kind = file < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_PRIVATE;
  if (mmap(pages, bytes, PROT_READ | PROT_WRITE, kind | MAP_FIXED | MAP_NORESERVE, file, 0) == MAP_FAILED)
    give_up("cuda_on_cpu: device memory");
}

/// Pages full of kUnwritten.
void map_unwritten(std::byte* pages, std::size_t bytes) {
  if (bytes < kLarge) {
    map(pages, bytes, -1);
    std::memset(pages, kUnwritten, bytes);
    return;
  }
  for (std::size_t at = 0; at < bytes; at += kUnwrittenFileBytes)
    map(pages + at, std::min(bytes - at, kUnwrittenFileBytes), unwritten_file());
}

class Arena {
 public:
  explicit Arena(bool closed) : doors_(closed ? 0 : 1) {
    void* base = mmap(nullptr, kArenaBytes, PROT_NONE, MAP_SHARED | MAP_NORESERVE, empty_file(), 0);
    if (base == MAP_FAILED) give_up("cuda_on_cpu: address space for device memory");
    base_ = static_cast<std::byte*>(base);
  }

  bool holds(const void* address) const { return address >= base_ && address < base_ + kArenaBytes; }
  bool is_empty() const { return live_ == 0; }

  /// Pages for the buffer with one that stays empty before and after; null where no room is left.
  std::byte* allocate(std::size_t bytes) {
    const std::lock_guard lock(mutex_);
    const std::size_t mapped = round_up(bytes, kPage);
    if (live_ == 0 && used_ > kReuseBytes) used_ = 0;
    if (mapped + 2 * kPage > kArenaBytes - used_) return nullptr;
    std::byte* pages = base_ + used_ + kPage;
    map_unwritten(pages, mapped);
    if (doors_ == 0) protect(pages, mapped, PROT_NONE);
    used_ += mapped + kPage;
    ++live_;
    return pages + mapped - bytes;
  }

  /// Gives the pages back, after `check` has seen them: their start, the buffer's, and their end.
  template <class Check>
  void free(std::byte* start, std::size_t bytes, Check check) {
    const std::lock_guard lock(mutex_);
    const std::size_t mapped = round_up(bytes, kPage);
    std::byte* pages = start + bytes - mapped;
    if (doors_ == 0) protect(pages, mapped, PROT_READ);
    check(pages, start + bytes);
    const auto offset = static_cast<off_t>(pages - base_);
    if (mmap(pages, mapped, doors_ == 0 ? PROT_NONE : PROT_READ | PROT_WRITE,
             MAP_SHARED | MAP_FIXED | MAP_NORESERVE, empty_file(), offset) == MAP_FAILED)
      give_up("cuda_on_cpu: freed device memory");
    --live_;
  }

  /// Puts fresh zeros where pages were; false while the arena is closed.
  bool renew(std::byte* pages, std::size_t bytes) {
    const std::lock_guard lock(mutex_);
    if (doors_ == 0) return false;
    map(pages, bytes, -1);
    return true;
  }

  void open() {
    const std::lock_guard lock(mutex_);
    if (doors_++ == 0) protect(base_, used_, PROT_READ | PROT_WRITE);
  }
  void close() {
    const std::lock_guard lock(mutex_);
    if (--doors_ == 0) protect(base_, used_, PROT_NONE);
  }

 private:
  static void protect(std::byte* pages, std::size_t bytes, int protection) {
    if (bytes != 0 && mprotect(pages, bytes, protection) != 0) give_up("cuda_on_cpu: mprotect");
  }

  std::mutex mutex_;
  std::byte* base_ = nullptr;
  std::size_t used_ = 0;
  std::atomic<int> live_ = 0;
  int doors_;  ///< open while there are any: works of the device, and one for "never closed"
};

/// All arenas, those that no thread has any more among them.
struct Arenas {
  static constexpr std::size_t kMost = 4096;

  std::mutex mutex;
  std::array<std::atomic<Arena*>, kMost> all = {};
  std::atomic<std::size_t> count = 0;
  std::vector<Arena*> idle;
  std::atomic<Separation> separation = first_separation();

  Arena* of(const void* address) const {
    for (std::size_t i = 0; i < count; ++i) {
      Arena* arena = all[i];
      if (arena->holds(address)) return arena;
    }
    return nullptr;
  }
};
Arenas& arenas() {
  static Arenas& of_the_process = *new Arenas;  // outlives every thread
  return of_the_process;
}

using Clock = std::chrono::steady_clock;

/// What all threads took to close arenas and to open them again.
class ClosingTime {
 public:
  void add(Clock::duration took) { nanoseconds_ += std::chrono::nanoseconds(took).count(); }
  /// Less than a tenth of the time since the beginning, or than what a test may take anyway.
  bool is_small() const {
    return std::chrono::nanoseconds(nanoseconds_) <
           std::chrono::milliseconds(200) + (Clock::now() - begin_) / 10;
  }

 private:
  const Clock::time_point begin_ = Clock::now();
  std::atomic<std::int64_t> nanoseconds_ = 0;
};
ClosingTime& closing_time() {
  static ClosingTime of_the_process;
  return of_the_process;
}

/// What a host thread has open.
class ThreadMemory {
 public:
  ~ThreadMemory() {
    close_if_left_open();
    const std::lock_guard lock(arenas().mutex);
    arenas().idle.insert(arenas().idle.end(), own_.begin(), own_.end());
  }

  std::byte* allocate(std::size_t bytes) {
    std::byte* start = own_.empty() ? nullptr : own_.back()->allocate(bytes);
    return start != nullptr ? start : add_arena().allocate(bytes);
  }

  void begin_work() {
    if (works_++ == 0 && !std::exchange(left_open_, false)) open();
  }
  void end_work() {
    if (--works_ > 0) return;
    for (; by_fault_count_ > 0; --by_fault_count_) by_fault_[by_fault_count_ - 1]->close();
    left_open_ = true;
    if (arenas().separation == Separation::strict || ++works_done_ % kWorksUntilClosed == 0) close_in_time();
  }
  /// Closes what was left open, unless that takes too much of the time.
  void close_in_time() {
    if (arenas().separation == Separation::strict || closing_time().is_small()) close_if_left_open();
  }
  void close_if_left_open() {
    if (std::exchange(left_open_, false)) close();
  }
  bool works() const { return works_ > 0; }

  void open() {
    const auto begin = Clock::now();
    for (Arena* arena : own_) arena->open();
    closing_time().add(Clock::now() - begin);
  }
  void close() {
    const auto begin = Clock::now();
    for (Arena* arena : own_) arena->close();
    closing_time().add(Clock::now() - begin);
  }

  bool open_by_fault(Arena& arena) {
    if (by_fault_count_ == by_fault_.size()) return false;
    arena.open();
    by_fault_[by_fault_count_++] = &arena;
    return true;
  }

 private:
  static constexpr unsigned kWorksUntilClosed = 32;

  Arena& add_arena() {
    Arenas& shared = arenas();
    const std::lock_guard lock(shared.mutex);
    const auto empty = std::find_if(shared.idle.begin(), shared.idle.end(),
                                    [](const Arena* arena) { return arena->is_empty(); });
    Arena* arena = nullptr;
    if (empty != shared.idle.end()) {
      arena = *empty;
      shared.idle.erase(empty);
    } else {
      arena = new Arena(shared.separation != Separation::none);
      if (shared.count == Arenas::kMost) give_up("cuda_on_cpu: too many host threads hold device memory");
      shared.all[shared.count] = arena;
      ++shared.count;
    }
    if (works_ > 0 || left_open_) arena->open();
    own_.push_back(arena);
    return *arena;
  }

  std::vector<Arena*> own_;
  int works_ = 0;           ///< that this thread does, one within another
  bool left_open_ = false;  ///< after the last of them
  unsigned works_done_ = 0;
  std::array<Arena*, 64> by_fault_ = {};
  std::size_t by_fault_count_ = 0;
};
ThreadMemory& thread_memory() {
  thread_local ThreadMemory memory;
  return memory;
}

/// What is allocated, by address.
struct Registry {
  std::mutex mutex;
  std::map<const std::byte*, Allocation> device;
  std::map<const std::byte*, std::size_t> host;
  std::array<std::size_t, kMaxDevices> in_use = {};
  std::uint64_t count = 0;

  /// The last that begins at the address or before.
  const Allocation* before(const void* pointer) const {
    const auto after = device.upper_bound(static_cast<const std::byte*>(pointer));
    return after == device.begin() ? nullptr : &std::prev(after)->second;
  }
};
Registry& registry() {
  static Registry& of_the_process = *new Registry;
  return of_the_process;
}

bool is_unwritten(const std::byte* begin, const std::byte* end) {
  return std::all_of(begin, end, [](std::byte b) { return b == static_cast<std::byte>(kUnwritten); });
}

void complain_of_writes(const Allocation& allocation, const char* where) {
  std::fprintf(stderr,
               "cuda_on_cpu: something wrote %s the allocation of %zu bytes (number %llu), seen when it was "
               "freed\n",
               where, allocation.bytes, static_cast<unsigned long long>(allocation.number));
  std::abort();
}

}  // namespace

Separation first_separation() {
  const char* open = std::getenv("LAMINA_CUDA_ON_CPU_OPEN");
  return open != nullptr && std::string_view(open) == "1" ? Separation::none : Separation::at_synchronization;
}

void* allocate_device(std::size_t bytes, int device) {
  explain_faults();
  Allocation made{.bytes = bytes, .device = device};
  Registry& all = registry();
  std::size_t& in_use = all.in_use[static_cast<std::size_t>(device)];
  {
    const std::lock_guard lock(all.mutex);
    if (made.rounded() > settings().memory || in_use > settings().memory - made.rounded()) return nullptr;
    in_use += made.rounded();
    made.number = ++all.count;
  }
  if (made.rounded() + 2 * kPage > kArenaBytes) give_up("cuda_on_cpu: one allocation of more than 16 GiB");
  made.start = thread_memory().allocate(made.rounded());
  const std::lock_guard lock(all.mutex);
  all.device.emplace(made.start, made);
  return made.start;
}

bool free_device(void* pointer) {
  Registry& all = registry();
  Allocation old;
  {
    const std::lock_guard lock(all.mutex);
    const auto found = all.device.find(static_cast<std::byte*>(pointer));
    if (found == all.device.end()) return false;
    old = found->second;
    all.device.erase(found);
    all.in_use[static_cast<std::size_t>(old.device)] -= old.rounded();
  }
  arenas().of(pointer)->free(old.start, old.rounded(), [&](const std::byte* first, const std::byte* last) {
    if (!is_unwritten(first, old.start)) complain_of_writes(old, "before");
    if (!is_unwritten(old.start + old.bytes, last)) complain_of_writes(old, "after the end of");
  });
  return true;
}

std::optional<Allocation> find_device(const void* pointer) {
  const std::lock_guard lock(registry().mutex);
  const Allocation* found = registry().before(pointer);
  if (found == nullptr || static_cast<const std::byte*>(pointer) > found->start + found->bytes)
    return std::nullopt;
  return *found;
}

bool is_device(const void* pointer, std::size_t bytes) {
  const auto found = find_device(pointer);
  return found && bytes <= static_cast<std::size_t>(found->start + found->bytes -
                                                    static_cast<const std::byte*>(pointer));
}

bool in_device_space(const void* pointer) { return arenas().of(pointer) != nullptr; }

void fill_device(void* pointer, int value, std::size_t bytes) {
  auto* begin = static_cast<std::byte*>(pointer);
  std::byte* const end = begin + bytes;
  if (value == 0 && bytes >= kLarge && is_device(pointer, bytes)) {
    std::byte* const first = begin + (kPage - reinterpret_cast<std::uintptr_t>(begin) % kPage) % kPage;
    std::byte* const last = end - reinterpret_cast<std::uintptr_t>(end) % kPage;
    if (arenas().of(pointer)->renew(first, static_cast<std::size_t>(last - first))) {
      std::memset(begin, 0, static_cast<std::size_t>(first - begin));
      begin = last;
    }
  }
  std::memset(begin, value, static_cast<std::size_t>(end - begin));
}

std::size_t device_bytes_in_use(int device) {
  const std::lock_guard lock(registry().mutex);
  return registry().in_use[static_cast<std::size_t>(device)];
}

void* allocate_host(std::size_t bytes) {
  void* memory = std::aligned_alloc(kPage, round_up(std::max<std::size_t>(bytes, 1), kPage));
  if (memory == nullptr) return nullptr;
  std::memset(memory, kUnwritten, bytes);
  const std::lock_guard lock(registry().mutex);
  registry().host.emplace(static_cast<std::byte*>(memory), bytes);
  return memory;
}

bool free_host(void* pointer) {
  {
    const std::lock_guard lock(registry().mutex);
    if (registry().host.erase(static_cast<std::byte*>(pointer)) == 0) return false;
  }
  std::free(pointer);
  return true;
}

bool is_page_locked(const void* pointer) {
  const std::lock_guard lock(registry().mutex);
  const auto* byte = static_cast<const std::byte*>(pointer);
  const auto after = registry().host.upper_bound(byte);
  return after != registry().host.begin() && byte < std::prev(after)->first + std::prev(after)->second;
}

DeviceAccess::DeviceAccess() { thread_memory().begin_work(); }
DeviceAccess::~DeviceAccess() { thread_memory().end_work(); }
HostAccess::HostAccess() { thread_memory().close(); }
HostAccess::~HostAccess() { thread_memory().open(); }

void close_own_memory() { thread_memory().close_in_time(); }

void separate_memory(Separation separation) {
  thread_memory().close_if_left_open();
  Arenas& shared = arenas();
  const std::lock_guard lock(shared.mutex);
  const bool was_open = shared.separation == Separation::none, is_open = separation == Separation::none;
  shared.separation = separation;
  for (std::size_t i = 0; i < shared.count && was_open != is_open; ++i) {
    Arena* arena = shared.all[i];
    if (is_open) {
      arena->open();
    } else {
      arena->close();
    }
  }
}

bool at_work_on_this_thread() { return thread_memory().works(); }

bool open_by_fault(const void* address) {
  Arena* arena = arenas().of(address);
  return arena != nullptr && thread_memory().open_by_fault(*arena);
}

std::optional<Allocation> nearest_without_waiting(const void* address) {
  const std::unique_lock lock(registry().mutex, std::try_to_lock);
  if (!lock) return std::nullopt;
  const Allocation* found = registry().before(address);
  return found == nullptr ? std::nullopt : std::optional(*found);
}

}  // namespace cuda_on_cpu
