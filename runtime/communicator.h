// Collectives over a group of ranks. A thin typed front checks sizes and forwards to one virtual do_* per
// operation; a group of one is the identity, so no caller asks "am I distributed?".
//
// Sums are exact in this sense: they follow the fixed binary tree of runtime/tree.h over the ranks, on every
// implementation, so that the bits of a result do not depend on the transport.
#pragma once

#include <algorithm>
#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "runtime/background_sums.h"
#include "runtime/error.h"
#include "runtime/tick_clock.h"
#include "runtime/trace.h"

namespace lamina {

class Watchdog;

enum class ElementType : std::uint8_t { byte, int32, int64, float32, float64 };
enum class Reduction : std::uint8_t { sum, max, min };

std::size_t size_of(ElementType type);

/// Element type of T; the five listed are all that travel.
template <class T>
constexpr ElementType element_type() {
  using U = std::remove_const_t<T>;
  if constexpr (std::same_as<U, float>)
    return ElementType::float32;
  else if constexpr (std::same_as<U, double>)
    return ElementType::float64;
  else if constexpr (std::same_as<U, std::int32_t> || std::same_as<U, std::uint32_t>)
    return ElementType::int32;
  else if constexpr (std::same_as<U, std::int64_t> || std::same_as<U, std::uint64_t>)
    return ElementType::int64;
  else {
    static_assert(sizeof(U) == 1, "only bytes, 32 and 64 bit integers, float and double travel");
    return ElementType::byte;
  }
}

/// Where this rank's time in collectives goes; for the status line and the benchmarks.
struct CommunicationTime {
  double seconds = 0;
  std::int64_t calls = 0;
};

class Communicator {
 public:
  virtual ~Communicator() = default;
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;

  virtual int rank() const = 0;
  virtual int size() const = 0;
  /// "self", "threads", "mpi", "mpi+shared-memory": for people.
  virtual std::string transport() const = 0;
  /// "model axis", "world": for people.
  const std::string& name() const { return name_; }

  /// Ranks of equal `color` (0 or more) form a new group, ordered by (key, rank). Collective. A group shares
  /// the fate of the one it came from: who abandons one abandons both. Groups end on all their ranks alike.
  /// `name` is for people, who read it where a rank waits in vain.
  std::unique_ptr<Communicator> split(int color, int key, const std::string& name = "group");

  /// No rank waits longer than `limit` for the others in one exchange, of this group or of any that comes
  /// from the same world; 0: for ever. Then all ranks get PeerError, which names the one that did not come.
  /// Over MPI it is kDefaultDeadline at first. Not collective, but the same on all ranks: see DeadlineScope.
  virtual void set_deadline(std::chrono::milliseconds limit) { static_cast<void>(limit); }
  virtual std::chrono::milliseconds deadline() const { return std::chrono::milliseconds(0); }
  /// The training step that this rank is in, for the same sentence.
  virtual void note_step(std::int64_t step) { static_cast<void>(step); }

  void barrier();

  /// The barrier at the end of a job. No other call is like it: where a rank is at its end while its peers
  /// still work with each other, all get PeerError, and none takes the other's numbers for its own.
  void conclude();

  /// `values` of `root` reach every rank.
  template <class T>
  void broadcast(std::span<T> values, int root) {
    check(root >= 0 && root < size(), "broadcast: root is not a rank of the group");
    if (size() > 1)
      timed("broadcast", [&] { do_broadcast(values.data(), values.size(), element_type<T>(), root); });
  }

  /// part: [n], n equal on all ranks; out: [size * n], the part of rank r at r * n. `part` may be this rank's
  /// own place in `out`; else they are apart.
  template <class T>
  void all_gather(std::span<const T> part, std::span<T> out) {
    check(out.size() == part.size() * static_cast<std::size_t>(size()),
          "all_gather: out must hold size() parts");
    check(apart(part, std::span<const T>(out)) || part.data() == out.data() + offset(part.size()),
          "all_gather: part must be apart from out, or lie at its place in it");
    if (size() == 1) return copy(part, out);
    const auto take = [&](int rank, std::size_t first, std::span<const T> values) {
      copy(values, out.subspan(static_cast<std::size_t>(rank) * part.size() + first, values.size()));
    };
    all_gather_pieces(part, take);
  }

  /// all_gather() for who puts the parts elsewhere: take(rank, first, values) is given them where they lie,
  /// in pieces that are not empty, elements [first, first + values.size()) of a rank's part, each rank's from
  /// front to back, the ranks in any order. `values` are valid within the call of `take`, which must not use
  /// this group.
  template <class T, class Take>
  void all_gather_pieces(std::span<const T> part, const Take& take) {
    if (size() == 1 && !part.empty()) take(0, std::size_t{0}, part);
    if (size() == 1) return;
    const auto take_bytes = [&](int rank, std::size_t first, const std::byte* values, std::size_t count) {
      if (count > 0) take(rank, first, std::span<const T>(reinterpret_cast<const T*>(values), count));
    };
    timed("all_gather",
          [&] { do_all_gather(part.data(), part.size(), element_type<T>(), std::ref(take_bytes)); });
  }

  /// in: [size * n], block r goes to rank r; out: [size * n], apart from in, block r came from rank r.
  template <class T>
  void all_to_all(std::span<const T> in, std::span<T> out) {
    check(in.size() == out.size() && in.size() % static_cast<std::size_t>(size()) == 0,
          "all_to_all: in and out must hold size() equal blocks");
    check(apart(in, std::span<const T>(out)), "all_to_all: in and out must be apart");
    if (size() == 1) return copy(in, out);
    timed("all_to_all", [&] {
      do_all_to_all(in.data(), out.data(), in.size() / static_cast<std::size_t>(size()), element_type<T>());
    });
  }

  /// Every rank gets the reduction of all ranks' `values` (sum: fixed tree order; bytes have none).
  template <class T>
  void all_reduce(std::span<T> values, Reduction reduction = Reduction::sum) {
    check(reduction == Reduction::sum ? sizeof(T) > 1 : keeps_order<T>(),
          "all_reduce: no such reduction of this type");
    if (size() > 1)
      timed("all_reduce", [&] { do_all_reduce(values.data(), values.size(), element_type<T>(), reduction); });
  }

  /// in: [size * n]; out: [n], apart from in, the sum over ranks of their block `rank()` (fixed tree order).
  template <class T>
  void reduce_scatter(std::span<const T> in, std::span<T> out) {
    static_assert(sizeof(T) > 1, "bytes have no sum");
    check(in.size() == out.size() * static_cast<std::size_t>(size()),
          "reduce_scatter: in must hold size() parts");
    check(apart(in, std::span<const T>(out)), "reduce_scatter: in and out must be apart");
    if (size() == 1) return copy(in, out);
    timed("reduce_scatter", [&] { do_reduce_scatter(in.data(), out.data(), out.size(), element_type<T>()); });
  }

  /// Sums of floats over this group, which outlives them. Over MPI's messages they go on in the background;
  /// ranks that share memory add up at the end. The time in them counts as spent in this group. Collective.
  std::unique_ptr<BackgroundSums> make_background_sums();

  /// Text of any length from `root` to all.
  void broadcast(std::string& text, int root);

  /// This rank cannot go on: peers that wait, or will wait, get a PeerError with `reason` instead of hanging.
  /// Reaches the groups that this one came from or was split into; over MPI the ranks of this node (the
  /// others end with MpiSession::abort). After this, or a PeerError, no call of these groups succeeds.
  /// Not collective, never throws.
  virtual void abandon(const std::string& reason) noexcept = 0;

  /// PeerError where a rank has abandoned the job: to be asked now and then by who waits for peers in another
  /// way than through this class. Not collective.
  virtual void require_peers() {}

  /// Runs `work`, in which a library makes the ranks of this group wait for each other by itself. Where that
  /// takes longer than the deadline nobody can throw: the process says who is late and ends, over MPI.
  /// Collective.
  void in_library(const std::function<void()>& work);

  /// For libraries that need the transport's own handle (parallel HDF5): points to the MPI_Comm, or null
  /// where there is none. Valid as long as this object.
  virtual const void* native_handle() const { return nullptr; }

  CommunicationTime time_spent() const { return {clock_.seconds(ticks_), calls_}; }

 protected:
  Communicator() = default;

  virtual std::unique_ptr<Communicator> do_split(int color, int key) = 0;
  virtual void do_rename(const std::string& name) { static_cast<void>(name); }
  /// Null where the group has none but those of its all_reduce.
  virtual std::unique_ptr<BackgroundSums> do_make_background_sums() { return nullptr; }
  // Called only for groups of two or more. Counts are in elements of `type`.
  virtual void do_barrier() = 0;
  virtual void do_conclude() { do_barrier(); }
  virtual void do_in_library(const std::function<void()>& work) { work(); }
  virtual void do_broadcast(void* values, std::size_t count, ElementType type, int root) = 0;
  using TakePiece =
      std::function<void(int rank, std::size_t first, const std::byte* values, std::size_t count)>;
  virtual void do_all_gather(const void* part, std::size_t count, ElementType type,
                             const TakePiece& take) = 0;
  virtual void do_all_to_all(const void* in, void* out, std::size_t count, ElementType type) = 0;
  virtual void do_all_reduce(void* values, std::size_t count, ElementType type, Reduction reduction) = 0;
  virtual void do_reduce_scatter(const void* in, void* out, std::size_t count, ElementType type) = 0;

 private:
  class TimedSums;

  /// The exchanges of a time step take less than two looks at the system's clock.
  class Timer {
   public:
    explicit Timer(Communicator& group) : group_(group) {}
    ~Timer() {
      group_.ticks_ += TickClock::now() - start_;
      ++group_.calls_;
    }
    Timer(const Timer&) = delete;
    Timer& operator=(const Timer&) = delete;

   private:
    Communicator& group_;
    std::uint64_t start_ = TickClock::now();
  };

  template <class Operation>
  void timed(const char* name, const Operation& operation) {
    const Span span(SpanKind::exchange, name);
    const Timer timer(*this);
    operation();
  }

  template <class T>
  static void copy(std::span<const T> from, std::span<T> to) {
    copy_values(std::as_bytes(from), to.data());
  }
  static void copy_values(std::span<const std::byte> from, void* to);
  template <class T>
  static bool apart(std::span<const T> a, std::span<const T> b) {
    const std::less_equal<> before;
    return a.empty() || b.empty() || before(a.data() + a.size(), b.data()) ||
           before(b.data() + b.size(), a.data());
  }
  // Integers travel as signed, bytes as unsigned; others would be compared wrongly.
  template <class T>
  static constexpr bool keeps_order() {
    return std::is_floating_point_v<T> || std::is_signed_v<T> == (sizeof(T) > 1);
  }
  std::size_t offset(std::size_t part) const { return part * static_cast<std::size_t>(rank()); }

  std::string name_ = "world";
  TickClock clock_;
  std::uint64_t ticks_ = 0;
  std::int64_t calls_ = 0;
};

constexpr std::chrono::minutes kDefaultDeadline{5};

/// Another deadline for as long as this lives; for a part of the program in which ranks may be late.
class DeadlineScope {
 public:
  DeadlineScope(Communicator& group, std::chrono::milliseconds limit) : group_(group) {
    group.set_deadline(limit);
  }
  ~DeadlineScope() { group_.set_deadline(before_); }
  DeadlineScope(const DeadlineScope&) = delete;
  DeadlineScope& operator=(const DeadlineScope&) = delete;

 private:
  Communicator& group_;
  std::chrono::milliseconds before_ = group_.deadline();
};

/// A group of this rank alone.
std::unique_ptr<Communicator> make_self_communicator();

/// Runs `body` once per rank, each on a thread of its own, over one communicator of threads. When a rank
/// throws, or ends while others wait for it, they get PeerError; after all have ended the error of the lowest
/// rank is rethrown, one of its own before a PeerError.
void run_on_threads(int ranks, const std::function<void(Communicator& world)>& body);

/// MPI for the lifetime of this object: MPI_Init_thread … MPI_Finalize. One per process, made in main().
/// In a program started without mpirun it is a world of one.
///
/// Groups whose ranks share a node exchange through shared memory, others through MPI. The environment
/// variable LAMINA_TRANSPORT, read here on rank 0, overrides: "mpi" for MPI everywhere, "shared-memory" to
/// insist that all ranks share a node. Other values are a UserError on every rank.
class MpiSession {
 public:
  MpiSession(int* argc, char*** argv);
  ~MpiSession();
  MpiSession(const MpiSession&) = delete;
  MpiSession& operator=(const MpiSession&) = delete;

  Communicator& world() { return *world_; }
  /// Ends the whole job at once with `code`; for a rank that failed.
  [[noreturn]] static void abort(int code);
  /// The same, saying why on stderr, for the rank `rank` on this host.
  [[noreturn]] static void abort(ExitCode code, int rank, const std::string& sentence);

 private:
  std::unique_ptr<Watchdog> watchdog_;
  std::unique_ptr<Communicator> world_;
};

/// MPI's version string as the library reports it.
std::string mpi_library();

}  // namespace lamina
