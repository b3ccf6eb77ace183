#include "launch/checkpointing/staging.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>

namespace lamina {
namespace {

std::size_t count(std::int64_t value) { return static_cast<std::size_t>(value); }

}  // namespace

RunStaging::RunStaging(RunTensors run, Backend& backend, ProcessGrid& grid, Purpose purpose)
    : run_(run), backend_(backend), grid_(grid), purpose_(purpose) {
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

void RunStaging::collect() {
  for (Copy& copy : copies_) {
    backend_.to_host(copy.device, copy.host);
    if (copy.full_h) reorder(copy.host, true);
  }
}

void RunStaging::distribute() {
  for (Copy& copy : copies_) {
    if (copy.full_h) reorder(copy.host, false);
    backend_.to_device(copy.host, copy.device);
  }
}

/// Parameters, or an optimizer slot: an arena laid out like the parameter table. The replicas along the
/// data axis are equal; they share the writing.
void RunStaging::add_table(const std::string& prefix, std::span<float> arena) {
  std::span<float> host = allocate(count(staged_size()));
  int number = 0;
  for (const Parameter& parameter : run_.model.parameters().all()) {
    const BlockedShape& b = parameter.blocked;
    CheckpointTensor<float> tensor{
        {prefix + parameter.name, parameter.shape, b.outer, b.split, b.inner, 1, b.blocks}, {}};
    for (int k = 0; k < parameter.blocks.local; ++k) {
      const std::size_t size = count(b.block_size(parameter.blocks.first + k));
      if (is_staged(number, parameter, k)) {
        tensor.boxes.push_back({0, parameter.blocks.first + k, host.first(size)});
        add_copy(arena.first(size), host.first(size));
        host = host.subspan(size);
      }
      arena = arena.subspan(size);
    }
    tensors_.push_back(std::move(tensor));
    ++number;
  }
}

/// Neighbouring blocks have one writer, another one in each parameter.
bool RunStaging::is_staged(int number, const Parameter& parameter, int block) const {
  const int replicas = grid_.data().size();
  return purpose_ == Purpose::load ||
         (block * replicas / parameter.blocks.local + number) % replicas == grid_.data().rank();
}

std::int64_t RunStaging::staged_size() const {
  std::int64_t size = 0;
  int number = 0;
  for (const Parameter& parameter : run_.model.parameters().all()) {
    for (int k = 0; k < parameter.blocks.local; ++k)
      if (is_staged(number, parameter, k)) size += parameter.blocked.block_size(parameter.blocks.first + k);
    ++number;
  }
  return size;
}

/// h and c by lane, [B, H]. Every rank wants all units of h, and writes its own.
void RunStaging::add_state(int layer) {
  const Share own = grid_.tiling().blocks;
  const Share all{own.count, 0, own.count};
  const CarriedState::View state = run_.state->view(layer, 0, grid_.tiling().groups.local);
  add_lanes(fmt::format("/state/lstm{}/h", layer), state.h, all, purpose_ == Purpose::load ? all : own);
  add_lanes(fmt::format("/state/lstm{}/c", layer), state.c, own, own);
}

void RunStaging::add_lanes(const std::string& path, std::span<float> device, const Share& held,
                           const Share& wanted) {
  const Tiling& tiling = grid_.tiling();
  const std::int64_t B = tiling.batch(), H = run_.state->hidden();
  CheckpointTensor<float> tensor{{path, {B, H}, B, H, 1, tiling.groups.count, tiling.blocks.count}, {}};
  std::span<float> boxes = allocate(device.size());
  copies_.push_back({device, boxes, path.ends_with("/h")});
  const std::size_t size = count(tiling.rows) * count(H / tiling.blocks.count);
  for (int d = 0; d < tiling.groups.local; ++d) {
    for (int k = held.first; k < held.first + held.local; ++k) {
      if (k >= wanted.first && k < wanted.first + wanted.local)
        tensor.boxes.push_back({tiling.groups.first + d, k, boxes.first(size)});
      boxes = boxes.subspan(size);
    }
  }
  tensors_.push_back(std::move(tensor));
}

/// Zeroed, so that its pages are there before the first copy.
std::span<float> RunStaging::allocate(std::size_t size) { return memory_.emplace_back(size); }

/// One copy for what lies side by side on both sides.
void RunStaging::add_copy(std::span<float> device, std::span<float> host) {
  if (copies_.empty() || copies_.back().full_h ||
      std::to_address(copies_.back().device.end()) != device.data() ||
      std::to_address(copies_.back().host.end()) != host.data()) {
    copies_.push_back({device, host, false});
    return;
  }
  Copy& last = copies_.back();
  last = {{last.device.data(), last.device.size() + device.size()},
          {last.host.data(), last.host.size() + host.size()},
          false};
}

/// [D, R, H] <-> [D, G, R, U].
void RunStaging::reorder(std::span<float> values, bool to_boxes) const {
  const Tiling& tiling = grid_.tiling();
  const std::size_t R = count(tiling.rows), G = count(tiling.blocks.count), H = count(run_.state->hidden());
  const std::size_t U = H / G;
  const std::vector<float> from(values.begin(), values.end());
  for (std::size_t d = 0; d < count(tiling.groups.local); ++d) {
    for (std::size_t g = 0; g < G; ++g) {
      for (std::size_t r = 0; r < R; ++r) {
        const std::size_t column = (d * R + r) * H + g * U, box = ((d * G + g) * R + r) * U;
        std::copy_n(&from[to_boxes ? column : box], U, &values[to_boxes ? box : column]);
      }
    }
  }
}
}  // namespace lamina
