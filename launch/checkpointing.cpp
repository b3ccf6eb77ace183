#include "launch/checkpointing.h"

#include <fmt/format.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <functional>
#include <thread>

#include "kernels/backends.h"
#include "launch/agreement.h"
#include "launch/stored_model.h"
#include "runtime/error.h"

namespace lamina {
namespace {

using Tensors = std::vector<CheckpointTensor<float>>;

std::size_t count(std::int64_t value) { return static_cast<std::size_t>(value); }

/// A run's tensors in host memory, between the device and a file. `collect` and `distribute` move them.
class Staging {
 public:
  Staging(RunTensors run, Backend& backend, ProcessGrid& grid) : run_(run), backend_(backend), grid_(grid) {
    ParameterTable& table = run.model.parameters();
    add_table("/parameters/", table.values());
    if (run.optimizer != nullptr) {
      for (Optimizer::Slot& slot : run.optimizer->slots()) {
        add_table("/optimizer/" + slot.name + "/", slot.values.view());
      }
    }
    if (run.state != nullptr) {
      for (int layer = 0; layer < run.state->layers(); ++layer) add_state(layer);
    }
  }

  /// Every box this rank holds or wants.
  const Tensors& tensors() const { return tensors_; }

  /// The boxes this rank writes: each box of the run has one writer.
  std::vector<CheckpointTensor<const float>> written() const {
    std::vector<CheckpointTensor<const float>> mine;
    for (std::size_t i = 0; i < tensors_.size(); ++i) {
      auto& tensor = mine.emplace_back(CheckpointTensor<const float>{tensors_[i].layout, {}});
      for (const TensorBox<float>& box : tensors_[i].boxes) {
        if (writes_[i](box)) tensor.boxes.push_back({box.outer_part, box.split_part, box.values});
      }
    }
    return mine;
  }

  void collect() {
    for (Copy& copy : copies_) {
      backend_.to_host(copy.device, copy.host);
      if (copy.full_h) columns_to_boxes(copy.host);
    }
  }

  void distribute() {
    for (Copy& copy : copies_) {
      if (copy.full_h) boxes_to_columns(copy.host);
      backend_.to_device(copy.host, copy.device);
    }
  }

 private:
  struct Copy {
    std::span<float> device;
    std::vector<float> host;
    bool full_h;
  };

  /// Parameters, or an optimizer slot: an arena laid out like the parameter table. The replicas along the
  /// data axis are equal; they share the writing.
  void add_table(const std::string& prefix, std::span<float> arena) {
    std::span<float> rest = stage(arena, false);
    for (const Parameter& parameter : run_.model.parameters().all()) {
      const BlockedShape& b = parameter.blocked;
      CheckpointTensor<float> tensor{
          {prefix + parameter.name, parameter.shape, b.outer, b.split, b.inner, 1, b.blocks}, {}};
      for (int k = parameter.blocks.first; k < parameter.blocks.first + parameter.blocks.local; ++k) {
        const std::size_t size = count(b.block_size(k));
        tensor.boxes.push_back({0, k, rest.first(size)});
        rest = rest.subspan(size);
      }
      const int index = static_cast<int>(tensors_.size());
      writes_.push_back([this, index](const TensorBox<float>& box) {
        return (index + box.split_part) % grid_.data().size() == grid_.data().rank();
      });
      tensors_.push_back(std::move(tensor));
    }
  }

  /// h and c by lane, [B, H]. Every rank wants all units of h, and writes its own.
  void add_state(int layer) {
    const Share blocks = grid_.tiling().blocks;
    const CarriedState::View state = run_.state->view(layer, 0, grid_.tiling().groups.local);
    add_lanes(fmt::format("/state/lstm{}/h", layer), stage(state.h, true),
              Share{blocks.count, 0, blocks.count});
    add_lanes(fmt::format("/state/lstm{}/c", layer), stage(state.c, false), blocks);
  }

  void add_lanes(const std::string& path, std::span<float> boxes, const Share& wanted) {
    const Tiling& tiling = grid_.tiling();
    const std::int64_t B = tiling.batch(), H = run_.state->hidden();
    CheckpointTensor<float> tensor{{path, {B, H}, B, H, 1, tiling.groups.count, tiling.blocks.count}, {}};
    const std::size_t size = count(tiling.rows) * count(H / tiling.blocks.count);
    for (int d = 0; d < tiling.groups.local; ++d) {
      for (int k = 0; k < wanted.local; ++k) {
        tensor.boxes.push_back({tiling.groups.first + d, wanted.first + k, boxes.first(size)});
        boxes = boxes.subspan(size);
      }
    }
    writes_.push_back([own = tiling.blocks](const TensorBox<float>& box) {
      return box.split_part >= own.first && box.split_part < own.first + own.local;
    });
    tensors_.push_back(std::move(tensor));
  }

  std::span<float> stage(std::span<float> device, bool full_h) {
    copies_.push_back({device, std::vector<float>(device.size()), full_h});
    return copies_.back().host;
  }

  /// [D, R, H] <-> [D, G, R, U].
  void reorder(std::vector<float>& values, bool to_boxes) const {
    const Tiling& tiling = grid_.tiling();
    const std::size_t R = count(tiling.rows), G = count(tiling.blocks.count), H = count(run_.state->hidden());
    const std::size_t U = H / G;
    const std::vector<float> from = values;
    for (std::size_t d = 0; d < count(tiling.groups.local); ++d) {
      for (std::size_t g = 0; g < G; ++g) {
        for (std::size_t r = 0; r < R; ++r) {
          const std::size_t column = (d * R + r) * H + g * U, box = ((d * G + g) * R + r) * U;
          std::copy_n(&from[to_boxes ? column : box], U, &values[to_boxes ? box : column]);
        }
      }
    }
  }
  void columns_to_boxes(std::vector<float>& values) const { reorder(values, true); }
  void boxes_to_columns(std::vector<float>& values) const { reorder(values, false); }

  RunTensors run_;
  Backend& backend_;
  ProcessGrid& grid_;
  Tensors tensors_;
  std::vector<std::function<bool(const TensorBox<float>&)>> writes_;
  std::vector<Copy> copies_;  // moving a vector keeps its elements in place, so spans into them stay valid
};

/// Ranks of the world on this rank's host, by host name.
int ranks_on_host(Communicator& world) {
  using Name = std::array<char, 256>;
  Name mine{};
  gethostname(mine.data(), mine.size() - 1);
  std::vector<char> all(mine.size() * count(world.size()));
  world.all_gather(std::span<const char>(mine), std::span(all));
  int same = 0;
  for (std::size_t at = 0; at < all.size(); at += mine.size()) {
    same += std::equal(mine.begin(), mine.end(), all.begin() + static_cast<std::ptrdiff_t>(at));
  }
  return same;
}

std::filesystem::path newest_of(const std::filesystem::path& file_or_folder) {
  if (!std::filesystem::is_directory(file_or_folder)) return file_or_folder;
  const auto files = CheckpointFolder(file_or_folder).list();
  if (files.empty()) {
    throw UserError(fmt::format("{} holds no checkpoint: give a checkpoint file or the folder of a run",
                                file_or_folder.string()));
  }
  return files.back();
}

}  // namespace

CheckpointCost save_run(const std::filesystem::path& file, const CheckpointRecord& record, RunTensors tensors,
                        Backend& backend, ProcessGrid& grid) {
  Staging staging(tensors, backend, grid);
  staging.collect();
  return write_checkpoint(file, record, staging.written(), grid.world());
}

void load_run(const std::filesystem::path& file, RunTensors tensors, Backend& backend, ProcessGrid& grid) {
  Staging staging(tensors, backend, grid);
  read_checkpoint(file, staging.tensors(), grid.world());
  staging.distribute();
  tensors.model.parameters_changed();
}

int threads_per_rank(int wanted, Communicator& world) {
  const int ranks = ranks_on_host(world);
  if (wanted > 0) return wanted;
  cpu_set_t allowed;
  const bool known = sched_getaffinity(0, sizeof allowed, &allowed) == 0;
  const int cores = static_cast<int>(std::thread::hardware_concurrency());
  return std::max(1, std::min(known ? CPU_COUNT(&allowed) : cores, cores / ranks));
}

std::unique_ptr<Backend> make_backend(const std::string& device, int threads) {
  return device == "cuda" ? make_cuda_backend() : make_cpu_backend(threads);
}

TrainedModel load_trained_model(const std::filesystem::path& file_or_folder, const LoadSettings& settings,
                                Communicator& world) {
  const std::filesystem::path file = from_root(world, [&] { return newest_of(file_or_folder).string(); });
  CheckpointRecord record;
  ModelSettings trained;
  on_every_rank(world, [&] {
    record = read_record(file);
    trained = stored_model(file, record);
  });
  Vocabulary vocabulary(record.vocabulary);

  const GridSettings layout{.model_parallel = settings.model_parallel, .unit_blocks = record.unit_blocks};
  auto grid = std::make_unique<ProcessGrid>(world, layout, settings.batch);
  auto backend = make_backend(settings.device, threads_per_rank(settings.threads, world));
  auto model = std::make_unique<LanguageModel>(trained, vocabulary.size(), settings.time_steps,
                                               grid->tiling(), *backend, grid->model(), record.seed);
  load_run(file, {*model}, *backend, *grid);
  return {
      file, std::move(record), std::move(vocabulary), std::move(grid), std::move(backend), std::move(model)};
}

}  // namespace lamina
