#include "launch/commands/benchmark/exchange.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <optional>
#include <thread>
#include <vector>

#include "launch/agreement.h"
#include "launch/commands/benchmark/figures_file.h"
#include "launch/commands/benchmark/quantiles.h"
#include "launch/commands/output.h"
#include "runtime/reference_collectives.h"

namespace lamina {
namespace {

using Clock = std::chrono::steady_clock;

/// A sample shall not take longer than about this, so that all of them come in turn.
constexpr double kSampleMicroseconds = 2000;

/// Microseconds a call.
using Times = std::vector<double>;

/// One collective at one size.
struct Exchange {
  std::string name;
  std::size_t bytes;       ///< that a rank gives, or of one of its blocks where it gives one to each
  std::size_t read_bytes;  ///< of its own and of its peers, that its result is made of: the copy's size
  std::string reference;   ///< the library's call
  std::function<void()> ours, theirs;
  std::function<void()> copy;

  int calls = 1;
  Times our_times{}, their_times{}, copy_times{};
};

/// The arrays that all exchanges use.
struct Arrays {
  Arrays(std::size_t largest_bytes, int ranks)
      : in(largest_bytes / sizeof(float) * static_cast<std::size_t>(ranks), 0.0f), out(in), copied(in) {}

  std::vector<float> in, out, copied;
};

constexpr std::size_t kKilo = 1024;
const std::vector<std::size_t> kStatistics{64, 128, 256, 512, 1024, 2048};
const std::vector<std::size_t> kStates{2 * kKilo, 4 * kKilo, 8 * kKilo, 16 * kKilo, 32 * kKilo, 64 * kKilo};

/// The exchanges of a training step, each of the sizes that it has there. Must outlive them.
class ExchangeList {
 public:
  ExchangeList(Communicator& world, ReferenceCollectives* reference, Arrays& arrays)
      : world_(world), reference_(reference), arrays_(arrays) {}

  std::vector<Exchange> build() {
    add_barrier();
    for (const std::size_t bytes : kStatistics) add_all_reduce(bytes);
    for (const std::size_t bytes : kStatistics) add_statistics(bytes);
    for (const std::vector<std::size_t>* sizes : {&kStatistics, &kStates})
      for (const std::size_t bytes : *sizes)
        if (sizes == &kStatistics || bytes > kStatistics.back()) add_all_gather(bytes);
    for (const std::size_t bytes : kStates) add_reduce_scatter(bytes);
    for (const std::size_t bytes : kStates) add_all_to_all(bytes);
    for (const std::size_t bytes : {kStatistics.front(), kStatistics.back(), kStates.back()})
      add_broadcast(bytes);
    return std::move(list_);
  }

 private:
  using Part = std::span<const float>;
  using Whole = std::span<float>;

  void add_barrier() {
    add(
        "barrier", 0, 0, "MPI_Barrier", {}, [this] { world_.barrier(); }, [this] { reference_->barrier(); });
  }
  void add_all_reduce(std::size_t bytes) {
    const Whole values = whole(bytes);
    add(
        "all_reduce", bytes, bytes * ranks(), "MPI_Allreduce", values,
        [=, this] { world_.all_reduce(values); }, [=, this] { reference_->all_reduce(values); });
  }
  // What layer normalization needs of its shards: it gathers them, to merge them in its own tree. With MPI
  // one would reduce.
  void add_statistics(std::size_t bytes) {
    const Whole part = in(bytes);
    const Whole all = whole(bytes * ranks()), values = whole(bytes);
    add(
        "statistics", bytes, bytes * ranks(), "MPI_Allreduce", part,
        [=, this] { world_.all_gather(Part(part), all); }, [=, this] { reference_->all_reduce(values); });
  }
  void add_all_gather(std::size_t bytes) {
    const Whole part = in(bytes);
    const Whole all = whole(bytes * ranks());
    add(
        "all_gather", bytes, bytes * ranks(), "MPI_Allgather", part,
        [=, this] { world_.all_gather(Part(part), all); }, [=, this] { reference_->all_gather(part, all); });
  }
  void add_reduce_scatter(std::size_t bytes) {
    const Whole blocks = in(bytes * ranks());
    const Whole sum = whole(bytes);
    add(
        "reduce_scatter", bytes, bytes * ranks(), "MPI_Reduce_scatter_block", blocks,
        [=, this] { world_.reduce_scatter(Part(blocks), sum); },
        [=, this] { reference_->reduce_scatter(blocks, sum); });
  }
  void add_all_to_all(std::size_t bytes) {
    const Whole blocks = in(bytes * ranks());
    const Whole all = whole(bytes * ranks());
    add(
        "all_to_all", bytes, bytes * ranks(), "MPI_Alltoall", blocks,
        [=, this] { world_.all_to_all(Part(blocks), all); },
        [=, this] { reference_->all_to_all(blocks, all); });
  }
  void add_broadcast(std::size_t bytes) {
    const Whole values = whole(bytes);
    add(
        "broadcast", bytes, bytes, "MPI_Bcast", values, [=, this] { world_.broadcast(values, 0); },
        [=, this] { reference_->broadcast(values, 0); });
  }

  void add(const char* name, std::size_t bytes, std::size_t read_bytes, const char* call, Whole sent,
           std::function<void()> ours, std::function<void()> theirs) {
    const Part from = in(read_bytes);
    const auto copy = [this, from] { std::copy(from.begin(), from.end(), arrays_.copied.begin()); };
    list_.push_back(
        {name, bytes, read_bytes, call, of_new_numbers(sent, std::move(ours)),
         reference_ == nullptr ? std::function<void()>() : of_new_numbers(sent, std::move(theirs)),
         read_bytes == 0 ? std::function<void()>() : std::function<void()>(copy)});
  }

  /// As in training, where what is sent has just been computed: a line of memory that peers have read before
  /// and that nobody wrote since would not have to move again.
  static std::function<void()> of_new_numbers(Whole sent, std::function<void()> call) {
    return [sent, call = std::move(call)] {
      constexpr std::size_t kFloatsOfLine = 64 / sizeof(float);
      for (std::size_t i = 0; i < sent.size(); i += kFloatsOfLine) sent[i] = 1;
      call();
    };
  }

  Whole in(std::size_t bytes) { return Whole(arrays_.in).first(bytes / sizeof(float)); }
  Whole whole(std::size_t bytes) { return Whole(arrays_.out).first(bytes / sizeof(float)); }
  std::size_t ranks() const { return static_cast<std::size_t>(world_.size()); }

  Communicator& world_;
  ReferenceCollectives* reference_;
  Arrays& arrays_;
  std::vector<Exchange> list_;
};

class ExchangeBenchmark {
 public:
  ExchangeBenchmark(const ExchangeBenchmarkSettings& settings, Communicator& world)
      : settings_(settings),
        world_(world),
        reference_(make_reference_collectives(world)),
        arrays_(kStates.back(), world.size()),
        calls_(world, reference_.get(), arrays_),
        exchanges_(calls_.build()) {}

  void run() {
    for (Exchange& exchange : exchanges_) warm_up(exchange);
    for (int sample = 0; sample < settings_.samples; ++sample)
      for (Exchange& exchange : exchanges_) measure(exchange, sample);
    for (Exchange& exchange : exchanges_)
      for (Times* times : {&exchange.our_times, &exchange.their_times, &exchange.copy_times})
        world_.all_reduce(std::span(*times), Reduction::max);
    if (world_.rank() == 0) print(table());
    if (!settings_.json.empty()) from_root(world_, [&] { return write_json(); });
  }

 private:
  /// Memory is touched and the library has made its connections before anything counts. Chooses the calls of
  /// a sample, the same on all ranks.
  void warm_up(Exchange& exchange) {
    exchange.calls = settings_.calls;
    const int first = std::min(settings_.calls, 3);
    double slowest = 0;
    for (int round = 0; round < 2; ++round) {
      slowest = timed(exchange.ours, first);
      if (exchange.theirs) slowest = std::max(slowest, timed_in_library(exchange.theirs, first));
    }
    world_.all_reduce(std::span(&slowest, 1), Reduction::max);
    if (slowest * settings_.calls > kSampleMicroseconds)
      exchange.calls = std::clamp(static_cast<int>(kSampleMicroseconds / slowest), 1, settings_.calls);
  }

  /// Each goes first as often as the others: what one leaves in the caches is another's gain.
  void measure(Exchange& exchange, int sample) {
    for (int turn = sample; turn < sample + 3; ++turn) {
      world_.barrier();
      if (turn % 3 == 0) exchange.our_times.push_back(timed(exchange.ours, exchange.calls));
      if (turn % 3 == 1 && exchange.theirs)
        exchange.their_times.push_back(timed_in_library(exchange.theirs, exchange.calls));
      if (turn % 3 == 2 && exchange.copy) exchange.copy_times.push_back(timed(exchange.copy, exchange.calls));
    }
  }

  /// Microseconds a call.
  static double timed(const std::function<void()>& call, int calls) {
    const Clock::time_point start = Clock::now();
    for (int i = 0; i < calls; ++i) call();
    return std::chrono::duration<double, std::micro>(Clock::now() - start).count() / calls;
  }
  double timed_in_library(const std::function<void()>& call, int calls) {
    double time = 0;
    world_.in_library([&] { time = timed(call, calls); });
    return time;
  }

  /// Why there is nothing to compare with, or with what.
  std::string reference_line() const {
    if (reference_ != nullptr) return "compared with " + reference_->library();
    return world_.size() == 1 ? "one rank has nobody to exchange with: no MPI to compare with"
                              : "ranks are threads: no MPI to compare with";
  }

  std::string table() const {
    std::string text = fmt::format("{} ranks on {} cores, {}; {}\n", world_.size(),
                                   std::thread::hardware_concurrency(), world_.transport(), reference_line());
    text += fmt::format(
        "microseconds a call, of the slowest rank; {} samples of up to {} calls in turn; bytes that a rank "
        "gives, or that it gives to each, of\nwhich each call finds new numbers; copy: memcpy of all that "
        "its "
        "result is made of\n",
        settings_.samples, settings_.calls);
    text +=
        fmt::format("  {:<15}{:>8}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}{:>9}{:>10}{:>10}  {}\n", "", "bytes",
                    "median", "min", "p90", "MPI", "min", "p90", "of MPI", "copy", "of copy", "");
    for (const Exchange& exchange : exchanges_) text += row(exchange);
    return text;
  }

  static std::string row(const Exchange& e) {
    std::string text = fmt::format("  {:<15}{:>8}{}", e.name, e.bytes, columns(e.our_times));
    if (e.theirs)
      text += fmt::format("{}{:>9.2f}", columns(e.their_times), ratio(e, e.their_times));
    else
      text += fmt::format("{:>10}{:>10}{:>10}{:>9}", "-", "-", "-", "-");
    if (e.copy)
      text += fmt::format("{:>10.3f}{:>10.1f}", median(e.copy_times), ratio(e, e.copy_times));
    else
      text += fmt::format("{:>10}{:>10}", "-", "-");
    return text + (e.theirs ? "  " + e.reference : "") + "\n";
  }
  static std::string columns(const Times& times) {
    return fmt::format("{:>10.3f}{:>10.3f}{:>10.3f}", median(times), least(times), quantile(times, 0.9));
  }
  static double ratio(const Exchange& e, const Times& base) { return median(e.our_times) / median(base); }

  std::string write_json() const {
    Json json{{"ranks", world_.size()},          {"cores", std::thread::hardware_concurrency()},
              {"transport", world_.transport()}, {"reference", nullptr},
              {"samples", settings_.samples},    {"exchanges", Json::array()}};
    if (reference_ != nullptr) json["reference"] = reference_->library();
    for (const Exchange& exchange : exchanges_) json["exchanges"].push_back(json_of(exchange));
    write_figures(settings_.json, json);
    return "";
  }

  static Json json_of(const Exchange& e) {
    Json json{{"name", e.name},       {"bytes", e.bytes},
              {"calls", e.calls},     {"microseconds", json_of(e.our_times)},
              {"reference", nullptr}, {"copy", nullptr}};
    if (e.theirs)
      json["reference"] = {{"call", e.reference},
                           {"microseconds", json_of(e.their_times)},
                           {"ratio", ratio(e, e.their_times)}};
    if (e.copy)
      json["copy"] = {{"bytes", e.read_bytes},
                      {"microseconds", json_of(e.copy_times)},
                      {"ratio", ratio(e, e.copy_times)}};
    return json;
  }
  static Json json_of(const Times& times) {
    return {{"median", median(times)}, {"minimum", least(times)}, {"percentile_90", quantile(times, 0.9)}};
  }

  const ExchangeBenchmarkSettings settings_;
  Communicator& world_;
  std::unique_ptr<ReferenceCollectives> reference_;
  Arrays arrays_;
  ExchangeList calls_;  ///< to which exchanges_ refer
  std::vector<Exchange> exchanges_;
};

}  // namespace

void ExchangeBenchmarkSettings::validate() const {
  at_least("samples", samples, 1);
  at_least("calls", calls, 1);
}

void benchmark_exchange(const ExchangeBenchmarkSettings& settings, Communicator& world) {
  settings.validate();
  from_root(world, [&] {
    require_writable(settings.json);
    return std::string();
  });
  ExchangeBenchmark(settings, world).run();
}

}  // namespace lamina
