#include "io/metrics.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <numbers>
#include <string>
#include <vector>

#include "runtime/error.h"

namespace lamina {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

[[noreturn]] void throw_unwritable(const fs::path& file) {
  throw UserError(fmt::format("the metrics file {} cannot be written: {}; give --metrics a writable path",
                              file.string(), errno != 0 ? std::strerror(errno) : "unknown error"));
}

/// The step of a metrics record; none when `line` is not one.
std::optional<std::int64_t> step_of(const std::string& line) {
  const Json record = Json::parse(line, nullptr, false);
  if (!record.is_object() || !record.contains("step") || !record["step"].is_number_integer())
    return std::nullopt;
  return record["step"].get<std::int64_t>();
}

/// The lines of `file` up to `last_step`. A last line without its end is a torn write and is dropped.
std::string records_until(const fs::path& file, std::int64_t last_step) {
  std::ifstream in(file, std::ios::binary);
  std::string kept, line;
  for (int number = 1; std::getline(in, line) && !in.eof(); ++number) {
    const auto step = step_of(line);
    if (!step)
      throw UserError(
          fmt::format("{} is not a metrics file: line {} has no step; give --metrics another path",
                      file.string(), number));
    if (*step <= last_step) kept += line + '\n';
  }
  return kept;
}

/// Replaces a regular file at once, so that no record is lost if the program ends here.
void replace_file(const fs::path& file, const std::string& content) {
  fs::path fresh = file;
  fresh += ".partial";
  errno = 0;
  std::ofstream out(fresh, std::ios::binary | std::ios::trunc);
  out << content << std::flush;
  if (!out) throw_unwritable(file);
  out.close();
  std::error_code error;
  fs::rename(fresh, file, error);
  errno = error.value();
  if (error) throw_unwritable(file);
}

}  // namespace

double bits_per_character(double nats) { return nats / std::numbers::ln2; }

MetricsFile::MetricsFile(const fs::path& file, std::optional<std::int64_t> resumed_step) : path_(file) {
  if (path_.empty()) return;
  const bool go_on = resumed_step && fs::is_regular_file(path_);
  if (go_on) replace_file(path_, records_until(path_, *resumed_step));
  errno = 0;
  file_.open(path_, std::ios::binary | (go_on ? std::ios::app : std::ios::trunc));
  if (!file_) throw_unwritable(path_);
}

void MetricsFile::write(const TrainingRecord& record) {
  write_line(Json{{"step", record.step},
                  {"loss", record.loss},
                  {"bits_per_character", bits_per_character(record.loss)},
                  {"gradient_norm", record.gradient_norm},
                  {"learning_rate", record.learning_rate},
                  {"tokens_per_second", record.tokens_per_second},
                  {"communication_share", record.communication_share},
                  {"seconds", record.seconds}}
                 .dump());
}

void MetricsFile::write(const ValidationRecord& record) {
  write_line(Json{{"step", record.step},
                  {"validation_loss", record.loss},
                  {"validation_bits_per_character", bits_per_character(record.loss)},
                  {"predictions", record.predictions},
                  {"seconds", record.seconds}}
                 .dump());
}

void MetricsFile::write_line(const std::string& line) {
  if (path_.empty()) return;
  errno = 0;
  file_ << line << '\n' << std::flush;
  if (!file_) throw_unwritable(path_);
}

}  // namespace lamina
