#include "io/metrics.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <numbers>
#include <utility>

#include "runtime/error.h"

namespace lamina {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

/// What a full disk refuses waits up to this size; records beyond it are lost.
constexpr std::size_t kMostWaiting = std::size_t{1} << 20;
constexpr std::int64_t kBeforeAll = -1;  // steps begin at 0

std::string system_reason() { return errno != 0 ? std::strerror(errno) : "unknown error"; }

[[noreturn]] void refuse(const fs::path& file, const std::string& what, const char* allowed) {
  throw UserError(fmt::format("the metrics file {} {}; give --metrics {}", file.string(), what, allowed));
}

/// The step of a metrics record; none when `line` is not one.
std::optional<std::int64_t> step_of(const std::string& line) {
  const Json record = Json::parse(line, nullptr, false);
  if (!record.is_object() || !record.contains("step") || !record["step"].is_number_integer())
    return std::nullopt;
  return record["step"].get<std::int64_t>();
}

/// Whether `line`, the last and without its end, is what a write that was cut off leaves.
bool is_torn_record(const std::string& line) {
  const std::string start = R"({"step")";
  return line.starts_with(start) || start.starts_with(line);
}

/// How long `file` is before its first record of a step after `last_step`, or before a torn one. Every record
/// is looked at: nobody's notes are to be cut.
std::uintmax_t size_until(const fs::path& file, std::int64_t last_step) {
  errno = 0;
  std::ifstream in(file, std::ios::binary);
  std::uintmax_t size = 0;
  bool is_kept = true;
  std::string line;
  for (int number = 1; std::getline(in, line); ++number) {
    const bool is_torn = in.eof();
    const auto step = is_torn ? std::nullopt : step_of(line);
    if (is_torn ? !is_torn_record(line) : !step)
      throw UserError(
          fmt::format("{} is not a metrics file: line {} has no step; give --metrics another path",
                      file.string(), number));
    is_kept = is_kept && !is_torn && *step <= last_step;
    if (is_kept) size += line.size() + 1;
  }
  if (!in.eof()) refuse(file, "cannot be read: " + system_reason(), "a path that can");
  return size;
}

}  // namespace

double bits_per_character(double nats) { return nats / std::numbers::ln2; }

MetricsFile::MetricsFile(const fs::path& file, std::optional<std::int64_t> resumed_step) : path_(file) {
  if (path_.empty()) return;
  std::error_code none;
  if (fs::is_regular_file(path_, none)) kept_ = size_until(path_, resumed_step.value_or(kBeforeAll));
  errno = 0;
  file_.reset(std::fopen(path_.c_str(), "ab"));
  if (!file_) refuse(path_, "cannot be written: " + system_reason(), "a writable path");
  std::setvbuf(file_.get(), nullptr, _IONBF, 0);  // so that it is known how much was written
}

std::string MetricsFile::write(const TrainingRecord& record) {
  const Json fields{{"step", record.step},
                    {"loss", record.loss},
                    {"bits_per_character", bits_per_character(record.loss)},
                    {"gradient_norm", record.gradient_norm},
                    {"learning_rate", record.learning_rate},
                    {"tokens_per_second", record.tokens_per_second},
                    {"communication_share", record.communication_share},
                    {"seconds", record.seconds}};
  return write_line(fields.dump());
}

std::string MetricsFile::write(const ValidationRecord& record) {
  const Json fields{{"step", record.step},
                    {"validation_loss", record.loss},
                    {"validation_bits_per_character", bits_per_character(record.loss)},
                    {"predictions", record.predictions},
                    {"seconds", record.seconds}};
  return write_line(fields.dump());
}

std::string MetricsFile::write_line(const std::string& line) {
  if (path_.empty()) return "";
  if (waiting_.size() < kMostWaiting) waiting_ += line + '\n';
  const bool was_failing = std::exchange(is_failing_, !write_waiting());
  if (!is_failing_ || was_failing) return "";
  return fmt::format("the metrics file {} cannot be written: {}", path_.string(), system_reason());
}

/// Whether all is written. What fits of a record is not written again.
bool MetricsFile::write_waiting() {
  errno = 0;
  if (kept_) {
    std::error_code error;
    fs::resize_file(path_, *kept_, error);
    errno = error.value();
    if (error) return false;
    kept_.reset();
  }
  waiting_.erase(0, std::fwrite(waiting_.data(), 1, waiting_.size(), file_.get()));
  return waiting_.empty();
}

}  // namespace lamina
