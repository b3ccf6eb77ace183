#include "launch/commands/checkpoint.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <exception>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "io/checkpoint.h"
#include "io/npy.h"
#include "io/text.h"
#include "launch/commands/output.h"
#include "runtime/error.h"

namespace lamina {
namespace {

std::string shape_of(const TensorSummary& tensor) { return fmt::format("{}", tensor.shape); }

std::string tensor_table(const std::vector<TensorSummary>& tensors) {
  std::size_t path = 0, shape = 0;
  for (const TensorSummary& tensor : tensors) {
    path = std::max(path, tensor.path.size());
    shape = std::max(shape, shape_of(tensor).size());
  }
  std::string table = fmt::format("  {:<{}}  {:>{}}  {:>12}  {:>12}  {:>12}\n", "tensor", path, "shape",
                                  shape, "min", "max", "mean");
  for (const TensorSummary& t : tensors)
    table += fmt::format("  {:<{}}  {:>{}}  {:>12.5g}  {:>12.5g}  {:>12.5g}\n", t.path, path, shape_of(t),
                         shape, t.minimum, t.maximum, t.mean);
  return table;
}

std::string indented(const std::string& lines) {
  std::string text;
  for (std::size_t begin = 0; begin < lines.size();) {
    const std::size_t end = std::min(lines.find('\n', begin), lines.size());
    text += "  " + lines.substr(begin, end - begin) + '\n';
    begin = end + 1;
  }
  return text;
}

std::string as_text(const std::filesystem::path& file, const CheckpointSummary& summary) {
  const CheckpointRecord& record = summary.record;
  return fmt::format(
      "{}\n"
      "  step         {} (epoch {}, chunk {} of each lane)\n"
      "  seed         {}\n"
      "  lanes        {} in {} lane group{}\n"
      "  unit blocks  {}\n"
      "  vocabulary   {} characters\n"
      "  written by   {}\n"
      "  root digest  {}\n\n{}\nconfiguration\n{}",
      file.string(), record.step, record.epoch, record.chunk, record.seed, record.batch, record.lane_groups,
      record.lane_groups == 1 ? "" : "s", record.unit_blocks, record.vocabulary.size(), record.build,
      summary.root_digest, tensor_table(summary.tensors), indented(record.configuration));
}

std::string as_json(const std::filesystem::path& file, const CheckpointSummary& summary) {
  const CheckpointRecord& record = summary.record;
  nlohmann::ordered_json json{{"file", file.string()},
                              {"step", record.step},
                              {"epoch", record.epoch},
                              {"chunk", record.chunk},
                              {"seed", record.seed},
                              {"batch", record.batch},
                              {"lane_groups", record.lane_groups},
                              {"unit_blocks", record.unit_blocks},
                              {"vocabulary", encode_utf8(record.vocabulary)},
                              {"build", record.build},
                              {"root_digest", summary.root_digest},
                              {"configuration", record.configuration}};
  for (const TensorSummary& tensor : summary.tensors)
    json["tensors"].push_back({{"path", tensor.path},
                               {"shape", tensor.shape},
                               {"min", tensor.minimum},
                               {"max", tensor.maximum},
                               {"mean", tensor.mean},
                               {"digest", tensor.digest}});
  return json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + '\n';
}

/// Prints that `file` is whole; else what is wrong with it is returned.
std::exception_ptr verify(const std::filesystem::path& file) {
  try {
    const CheckpointSummary summary = verify_checkpoint(file);
    print(fmt::format("{}: whole, step {}, {} tensors\n", file.string(), summary.record.step,
                      summary.tensors.size()));
    return nullptr;
  } catch (const DamagedCheckpoint&) {
    print(fmt::format("{}: damaged\n", file.string()));
    return std::current_exception();
  } catch (const UserError&) {
    print(fmt::format("{}: cannot be read\n", file.string()));
    return std::current_exception();
  }
}

/// Whether `path` is the tensor, or lies in the group, that `name` names; the first / may be left out.
bool is_named(const std::string& path, const std::string& name) {
  const std::size_t first = name.starts_with('/') ? 1 : 0;
  const std::string wanted = "/" + name.substr(first, name.find_last_not_of('/') + 1 - first);
  return wanted == "/" || path == wanted || path.starts_with(wanted + "/");
}

/// The paths that are exported. Throws UserError when there is none, or are too many for the output.
std::vector<std::string> paths_to_export(const std::filesystem::path& file, const ExportSettings& settings,
                                         bool one) {
  std::vector<std::string> paths;
  for (const TensorShape& tensor : tensors_of(file))
    if (is_named(tensor.path, settings.tensor)) paths.push_back(tensor.path);
  if (paths.empty())
    throw UserError(fmt::format("{} has no tensor and no group {}; lamina checkpoint inspect {} lists them",
                                file.string(), settings.tensor, file.string()));
  if (one && paths.size() > 1)
    throw UserError(fmt::format(
        "{} tensors are to be written and the .npy {} holds one; give the path of one with --tensor, or an "
        "output that ends in .npz",
        paths.size(), settings.output));
  return paths;
}

}  // namespace

void inspect_checkpoint(const std::string& file_or_folder, bool json) {
  const std::filesystem::path file = checkpoints_at(file_or_folder).back();
  const CheckpointSummary summary = verify_checkpoint(file);
  print(json ? as_json(file, summary) : as_text(file, summary));
}

void verify_checkpoints(const std::vector<std::string>& files_or_folders) {
  std::exception_ptr first;
  for (const std::string& name : files_or_folders) {
    for (const std::filesystem::path& file : checkpoints_at(name)) {
      const std::exception_ptr error = verify(file);
      if (!first) first = error;
    }
  }
  if (first) std::rethrow_exception(first);
}

void export_checkpoint(const ExportSettings& settings) {
  const std::filesystem::path file = checkpoints_at(settings.checkpoint).back();
  NumpyWriter writer(settings.output, settings.overwrite);
  const std::vector<std::string> paths = paths_to_export(file, settings, writer.holds_one());
  read_tensors(file, paths, [&](const WholeTensor& tensor) {
    writer.add(tensor.path.substr(1), tensor.shape, tensor.values);
  });
  writer.commit();
  print(fmt::format("{}: {} tensor{} of {}\n", settings.output, paths.size(), paths.size() == 1 ? "" : "s",
                    file.string()));
}

}  // namespace lamina
