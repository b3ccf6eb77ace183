#include "launch/commands/benchmark/checkpoint.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "io/checkpoint.h"
#include "launch/agreement.h"
#include "launch/commands/benchmark/figures_file.h"
#include "launch/commands/benchmark/model_memory.h"
#include "launch/commands/benchmark/quantiles.h"
#include "launch/commands/benchmark/raw_file.h"
#include "launch/commands/benchmark/table.h"
#include "launch/commands/output.h"

namespace lamina {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

/// One thing that is measured: its times, and what they are compared with.
struct Figure {
  std::string name;
  std::string key;
  std::string base;  ///< key of the raw figure; empty for a raw one
  std::vector<double> seconds;
};

/// A new folder in the one that a person gave: nothing there is written over, and it goes with this object.
class Scratch {
 public:
  /// Collective. Throws UserError.
  Scratch(const fs::path& parent, Communicator& world)
      : path_(from_root(world, [&] { return made_in(parent); })), is_own_(world.rank() == 0) {}
  ~Scratch() {
    std::error_code ignored;
    if (is_own_) fs::remove_all(path_, ignored);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  fs::path operator/(const std::string& name) const { return path_ / name; }

 private:
  static std::string made_in(const fs::path& parent) {
    std::string path = parent / "benchmark-XXXXXX";
    require(mkdtemp(path.data()) != nullptr,
            fmt::format("no folder can be made in {}: {}; give another --folder", parent.string(),
                        std::strerror(errno)));
    return path;
  }

  const fs::path path_;
  const bool is_own_;
};

class CheckpointBenchmark {
 public:
  CheckpointBenchmark(const CheckpointBenchmarkSettings& settings, Communicator& world)
      : settings_(settings),
        world_(world),
        io_(settings.io == "posix" ? CheckpointIo::posix : CheckpointIo::mpi_io),
        folder_(settings.folder, world),
        model_(settings.gigabytes, world),
        snapshot_(model_.all().size()),
        offset_(offset_of_share()) {}

  void run() {
    for (int i = 0; i < settings_.repetitions; ++i) repetition(static_cast<std::size_t>(i));
    if (world_.rank() == 0) print(table());
    if (!settings_.json.empty()) from_root(world_, [&] { return write_json(); });
  }

 private:
  /// Writes take turns at being the first: the disk may tire.
  void repetition(std::size_t number) {
    const fs::path checkpoint = folder_ / "benchmark.h5", shared = folder_ / "benchmark.raw";
    const fs::path own = folder_ / fmt::format("benchmark.raw-{}", world_.rank());
    const auto bytes = std::as_writable_bytes(model_.all());
    const auto read_model = [&] { read_checkpoint(checkpoint, model_.tensors(), world_); };
    const auto read_shared = [&] { read_raw(shared, offset_, bytes); };

    measure("copy to the snapshot", "copy", "", [&] { std::ranges::copy(model_.all(), snapshot_.begin()); });
    const std::vector<std::function<void()>> writes = {
        [&] {
          measure("write checkpoint", "write", "raw_write_shared",
                  [&] { write_checkpoint(checkpoint, record(), model_.written(), world_, io_); });
        },
        [&] {
          measure("raw write + fsync, one file", "raw_write_shared", "",
                  [&] { write_raw(shared, offset_, bytes); });
        },
        [&] {
          measure("raw write + fsync, file per rank", "raw_write_own", "", [&] { write_raw(own, 0, bytes); });
        }};
    for (std::size_t i = 0; i < writes.size(); ++i) writes[(i + number) % writes.size()]();
    measure("read checkpoint, cached", "read_cached", "raw_read_cached", read_model);
    measure("raw read, cached", "raw_read_cached", "", read_shared);
    for (const fs::path& file : {checkpoint, shared}) on_every_rank(world_, [&] { drop_from_cache(file); });
    measure("read checkpoint, from disk", "read_disk", "raw_read_disk", read_model);
    measure("raw read, from disk", "raw_read_disk", "", read_shared);
    remove_files({checkpoint, shared, own});
  }

  /// From when the first rank may begin until the last one has ended.
  void measure(const char* name, const char* key, const char* base, const std::function<void()>& work) {
    world_.barrier();
    const Clock::time_point start = Clock::now();
    on_every_rank(world_, work);
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    for (Figure& figure : figures_)
      if (figure.key == key) return figure.seconds.push_back(seconds);
    figures_.push_back({name, key, base, {seconds}});
  }

  void remove_files(const std::vector<fs::path>& files) {
    world_.barrier();
    std::error_code ignored;
    for (const fs::path& file : files) fs::remove(file, ignored);
    world_.barrier();
  }

  CheckpointRecord record() const {
    CheckpointRecord record;
    record.unit_blocks = model_.unit_blocks();
    record.build = "lamina benchmark checkpoint";
    return record;
  }

  std::int64_t offset_of_share() {
    std::vector<std::int64_t> sizes(static_cast<std::size_t>(world_.size()));
    const auto own = static_cast<std::int64_t>(model_.all().size_bytes());
    world_.all_gather(std::span<const std::int64_t>(&own, 1), std::span(sizes));
    for (const std::int64_t size : sizes) bytes_ += size;
    std::int64_t offset = 0;
    for (int rank = 0; rank < world_.rank(); ++rank) offset += sizes[static_cast<std::size_t>(rank)];
    return offset;
  }

  double rate(const Figure& figure) const {
    return static_cast<double>(bytes_) / (1 << 20) / median(figure.seconds);
  }

  /// Of the rates of a figure and its base: of the medians, or of the best of each.
  double ratio(const Figure& figure, bool best) const {
    const auto base = std::ranges::find(figures_, figure.base, &Figure::key);
    if (base == figures_.end()) return 0;
    return best ? least(base->seconds) / least(figure.seconds)
                : median(base->seconds) / median(figure.seconds);
  }

  std::string table() const {
    const std::string text = fmt::format("{:.2f} GiB, {} tensors, {} hidden units, {} ranks, {}, {} times\n",
                                         static_cast<double>(bytes_) / (1 << 30), model_.tensors().size(),
                                         model_.hidden(), world_.size(), settings_.io, settings_.repetitions);
    Table table({"", "seconds", "best", "MiB/s", "of raw", "best"});
    for (const Figure& figure : figures_) {
      std::vector<std::string> row{figure.name, fmt::format("{:.3f}", median(figure.seconds)),
                                   fmt::format("{:.3f}", least(figure.seconds)),
                                   fmt::format("{:.0f}", rate(figure))};
      if (!figure.base.empty())
        row.insert(row.end(),
                   {fmt::format("{:.2f}", ratio(figure, false)), fmt::format("{:.2f}", ratio(figure, true))});
      table.add(std::move(row));
    }
    return text + table.text();
  }

  std::string write_json() const {
    Json json{{"bytes", bytes_},
              {"ranks", world_.size()},
              {"io", settings_.io},
              {"tensors", model_.tensors().size()}};
    for (const Figure& figure : figures_) {
      json[figure.key] = {{"seconds", figure.seconds}, {"mib_per_second", rate(figure)}};
      if (!figure.base.empty()) {
        json[figure.key]["ratio_to_raw"] = ratio(figure, false);
        json[figure.key]["ratio_to_raw_of_the_best"] = ratio(figure, true);
      }
    }
    write_figures(settings_.json, json);
    return "";
  }

  const CheckpointBenchmarkSettings settings_;
  Communicator& world_;
  const CheckpointIo io_;
  const Scratch folder_;
  ModelMemory model_;
  std::vector<float> snapshot_;
  std::int64_t bytes_ = 0;  ///< of all ranks
  const std::int64_t offset_;
  std::vector<Figure> figures_;
};

}  // namespace

void CheckpointBenchmarkSettings::validate() const {
  require(!folder.empty(), "--folder is missing: give a folder on the disk that is to be measured");
  require(gigabytes > 0 && gigabytes <= 1024,
          fmt::format("--gigabytes is {}: give more than 0 and at most 1024", gigabytes));
  at_least("repetitions", repetitions, 1);
}

void benchmark_checkpoint(const CheckpointBenchmarkSettings& settings, Communicator& world) {
  settings.validate();
  from_root(world, [&] {
    require_writable(settings.json);
    CheckpointFolder(settings.folder).prepare("--folder");
    return std::string();
  });
  CheckpointBenchmark(settings, world).run();
}

}  // namespace lamina
