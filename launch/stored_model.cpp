#include "launch/stored_model.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "launch/configuration.h"
#include "launch/setting.h"
#include "runtime/error.h"

namespace lamina {
namespace {

using Shape = std::vector<std::int64_t>;

class StoredShapes {
 public:
  explicit StoredShapes(const std::filesystem::path& file) : file_(file), tensors_(tensors_of(file)) {}

  void require(const std::string& path, const Shape& shape) const {
    const auto found = std::ranges::find(tensors_, path, &TensorShape::path);
    if (found == tensors_.end() || found->shape != shape)
      throw UserError(
          fmt::format("checkpoint {} does not hold the model that its configuration describes: {} of shape "
                      "[{}] is missing; give a checkpoint that lamina train wrote",
                      file_.string(), path, fmt::join(shape, ", ")));
  }

 private:
  const std::filesystem::path& file_;
  const std::vector<TensorShape> tensors_;
};

}  // namespace

ModelSettings stored_model(const std::filesystem::path& file, const CheckpointRecord& record) {
  const ModelSettings model = from_toml(record.configuration, file.string()).model;
  const StoredShapes shapes(file);
  const std::int64_t V = static_cast<std::int64_t>(record.vocabulary.size()), E = model.embedding,
                     H = model.hidden;
  shapes.require("/parameters/embedding/table", {V, E});
  shapes.require("/parameters/output/W", {V, H});
  at_least("layers", model.layers, 1);
  for (int layer = 0; layer < model.layers; ++layer)
    shapes.require(fmt::format("/parameters/lstm{}/W_h", layer), {4 * H, H});
  for (const auto& [name, width] : {std::pair{"hidden", H}, {"embedding", E}})
    require(width % record.unit_blocks == 0,
            fmt::format("checkpoint {} has --{} {} in {} unit blocks, which does not come out even; give a "
                        "checkpoint that lamina train wrote",
                        file.string(), name, width, record.unit_blocks));
  return model;
}

}  // namespace lamina
