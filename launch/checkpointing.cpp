#include "launch/checkpointing.h"

#include <fmt/format.h>
#include <sched.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <thread>

#include "kernels/backends.h"
#include "launch/agreement.h"
#include "launch/checkpointing/staging.h"
#include "launch/setting.h"
#include "launch/stored_model.h"
#include "runtime/error.h"
#include "runtime/host_name.h"
#include "runtime/trace.h"

namespace lamina {
namespace {

constexpr int kMostThreads = 1024;

std::size_t count(std::int64_t value) { return static_cast<std::size_t>(value); }

/// This rank's number among the ranks of its host, and theirs.
struct PlaceOnHost {
  int rank = 0, ranks = 0;
};

/// By host name. Collective.
PlaceOnHost place_on_host(Communicator& world) {
  using Name = std::array<char, 256>;
  Name mine{};
  host_name().copy(mine.data(), mine.size() - 1);
  std::vector<char> all(mine.size() * count(world.size()));
  world.all_gather(std::span<const char>(mine), std::span(all));
  PlaceOnHost place;
  for (int rank = 0; rank < world.size(); ++rank) {
    const std::span<const char> name =
        std::span<const char>(all).subspan(mine.size() * count(rank), mine.size());
    if (!std::equal(mine.begin(), mine.end(), name.begin())) continue;
    if (rank < world.rank()) ++place.rank;
    ++place.ranks;
  }
  return place;
}

}  // namespace

RunSnapshot::RunSnapshot(RunTensors run, Backend& backend, ProcessGrid& grid)
    : staging_(std::make_unique<RunStaging>(run, backend, grid, RunStaging::Purpose::write)),
      world_(grid.world()) {}

RunSnapshot::~RunSnapshot() = default;

RunSave RunSnapshot::begin_save(const std::filesystem::path& file, const CheckpointRecord& record,
                                CheckpointIo io) {
  const Span span(SpanKind::other, "checkpoint snapshot");
  const auto start = std::chrono::steady_clock::now();
  staging_->collect();
  CheckpointSave save(file, record, staging_->written(), world_, io);
  const std::chrono::duration<double> stall = std::chrono::steady_clock::now() - start;
  return {std::move(save), stall.count()};
}

void load_run(const std::filesystem::path& file, RunTensors tensors, Backend& backend, ProcessGrid& grid) {
  RunStaging staging(tensors, backend, grid, RunStaging::Purpose::load);
  read_checkpoint(file, staging.tensors(), grid.world());
  staging.distribute();
  tensors.model.parameters_changed();
}

int threads_per_rank(int wanted, Communicator& world) {
  require(wanted <= kMostThreads, fmt::format("--threads must be at most {}, not {}", kMostThreads, wanted));
  const int ranks = place_on_host(world).ranks;
  if (wanted > 0) return wanted;
  cpu_set_t allowed;
  const bool known = sched_getaffinity(0, sizeof allowed, &allowed) == 0;
  const int cores = static_cast<int>(std::thread::hardware_concurrency());
  return std::max(1, std::min(known ? CPU_COUNT(&allowed) : cores, cores / ranks));
}

std::unique_ptr<Backend> make_backend(const std::string& device, int threads, Communicator& world) {
  const int local_rank = place_on_host(world).rank;
  return device == "cuda" ? make_cuda_backend(local_rank) : make_cpu_backend(threads);
}

TrainedModel load_trained_model(const std::filesystem::path& file_or_folder, const LoadSettings& settings,
                                Communicator& world) {
  const std::filesystem::path file =
      from_root(world, [&] { return checkpoints_at(file_or_folder).back().string(); });
  CheckpointRecord record;
  ModelSettings trained;
  on_every_rank(world, [&] {
    record = read_record(file);
    trained = stored_model(file, record);
    trained.time_loop = "steps";  // which takes any number of lanes and steps
    if (settings.device == "cpu" && trained.precision == "tf32")
      trained.precision = "f32";  // which is no less exact
    if (settings.device == "cuda" && trained.exchange == "cell")
      trained.exchange = "sharded";  // the same bits
    if (settings.device == "cuda" || settings.model_parallel == 1)
      trained.layer_order = "sequential";  // the same bits, and faster where no peers are waited for
  });
  Vocabulary vocabulary(record.vocabulary);

  const GridSettings layout{.model_parallel = settings.model_parallel, .unit_blocks = record.unit_blocks};
  auto grid = std::make_unique<ProcessGrid>(world, layout, settings.batch);
  auto backend = make_backend(settings.device, threads_per_rank(settings.threads, world), world);
  auto model = std::make_unique<LanguageModel>(trained, vocabulary.size(), settings.time_steps,
                                               grid->tiling(), *backend, grid->model(), record.seed);
  load_run(file, {*model}, *backend, *grid);
  return {
      file, std::move(record), std::move(vocabulary), std::move(grid), std::move(backend), std::move(model)};
}

}  // namespace lamina
