#include "launch/progress.h"

#include <fmt/format.h>

#include <cmath>
#include <cstdio>

#include "io/metrics.h"

namespace lamina {
namespace {

constexpr int kBarWidth = 20;

/// One line on standard output, at once.
void say(const std::string& line) {
  const std::string whole = line + '\n';
  std::fwrite(whole.data(), 1, whole.size(), stdout);
  std::fflush(stdout);
}

/// 1234567 -> "1,234,567"
std::string grouped(std::int64_t number) {
  const std::string digits = fmt::format("{}", number);
  std::string text;
  for (std::size_t at = 0; at < digits.size(); ++at) {
    if (at > 0 && (digits.size() - at) % 3 == 0) text += ',';
    text += digits[at];
  }
  return text;
}

std::string counted(std::int64_t count, const char* noun) {
  return fmt::format("{} {}{}", grouped(count), noun, count == 1 ? "" : "s");
}

/// Four significant characters: "950", "23.4k", "1.2M".
std::string compact(double number) {
  if (!std::isfinite(number)) return "?";
  if (number < 1e3) return fmt::format("{:.0f}", number);
  if (number < 1e6) return fmt::format("{:.1f}k", number / 1e3);
  return fmt::format("{:.1f}M", number / 1e6);
}

/// 1234.5e6 -> "1.2 GB"
std::string bytes_text(double bytes) {
  if (bytes < 1e6) return fmt::format("{:.1f} kB", bytes / 1e3);
  if (bytes < 1e9) return fmt::format("{:.1f} MB", bytes / 1e6);
  return fmt::format("{:.1f} GB", bytes / 1e9);
}

std::string bar(std::int64_t step, std::int64_t steps) {
  const std::int64_t done = steps > 0 ? kBarWidth * step / steps : kBarWidth;
  return fmt::format("[{:#<{}}{:-<{}}]", "", done, "", kBarWidth - done);
}

std::string norm_text(double norm) {
  return norm < 1000 ? fmt::format("{:6.2f}", norm) : fmt::format("{:6.0e}", norm);
}

std::string data_text(const RunSummary& s) {
  std::string text = fmt::format("{}: {} to learn", s.data, counted(s.training_characters, "character"));
  if (s.validation_characters > 0) text += fmt::format(", {} held out", grouped(s.validation_characters));
  return text + fmt::format(", {} different", s.vocabulary);
}

std::string lanes_text(const RunSummary& s) {
  std::string text = fmt::format("{} in {}, {} at a time", grouped(s.batch),
                                 counted(s.lane_groups, "lane group"), counted(s.time_steps, "character"));
  return s.passes == 1 ? text : text + fmt::format(", in {} passes", s.passes);
}

std::string steps_text(const RunSummary& s) {
  return s.first_step == 0 ? grouped(s.steps)
                           : fmt::format("{}, going on from {}", grouped(s.steps), grouped(s.first_step));
}

}  // namespace

std::string duration_text(double seconds) {
  if (!std::isfinite(seconds) || seconds < 0 || seconds > 1e9) return "?";
  const auto s = static_cast<std::int64_t>(std::ceil(seconds));
  const std::int64_t m = s / 60, h = m / 60, d = h / 24;
  if (d > 0) return fmt::format("{}d{:02}h", d, h % 24);
  if (h > 0) return fmt::format("{}h{:02}m", h, m % 60);
  if (m > 0) return fmt::format("{}m{:02}s", m, s % 60);
  return fmt::format("{}s", s);
}

std::string summary_text(const RunSummary& s) {
  std::string text;
  const auto fact = [&](const char* name, const std::string& value) {
    text += fmt::format("  {:<12} {}\n", name, value);
  };
  fact("task", s.task);
  fact("data", data_text(s));
  fact("model", fmt::format("{}, {}", s.model, counted(s.parameters, "parameter")));
  fact("grid", fmt::format("{} data x {} model ranks over {}, {} unit blocks", s.data_ranks, s.model_ranks,
                           s.transport, s.unit_blocks));
  fact("lanes", lanes_text(s));
  fact("device", s.device + " each rank");
  fact("memory", bytes_text(1e6 * s.megabytes_per_rank) + " each rank");
  fact("steps", steps_text(s));
  fact("checkpoints", s.checkpoint.empty() ? "none (--checkpoint FOLDER keeps them)" : s.checkpoint);
  return text;
}

std::string status_line(const Status& s) {
  const std::string steps = fmt::format("{}", s.steps);
  return fmt::format(
      "{} {:>{}}/{}  loss {:.3f} nats  {:.3f} bpc | {:>6} tok/s | norm {} | lr {:.1e} | comm {:2.0f}% "
      "| left {}",
      bar(s.step, s.steps), s.step, steps.size(), steps, s.loss, bits_per_character(s.loss),
      compact(s.tokens_per_second), norm_text(s.gradient_norm), s.learning_rate, 100 * s.communication_share,
      duration_text(s.seconds_left));
}

void Progress::summary(const RunSummary& summary) const {
  if (shown_) say(summary_text(summary));
}

void Progress::status(const Status& status) const {
  if (shown_) say(status_line(status));
}

void Progress::validation(std::int64_t step, double loss, std::int64_t predictions) const {
  if (shown_)
    say(fmt::format("validation at step {}: loss {:.3f} nats  {:.3f} bpc, {}", step, loss,
                    bits_per_character(loss), counted(predictions, "prediction")));
}

void Progress::checkpoint_written(const std::string& file, double seconds, double stall_seconds,
                                  std::int64_t bytes) const {
  if (shown_)
    say(fmt::format("checkpoint {}, {} in {:.2f} s, training waited {:.1f} ms", file,
                    bytes_text(static_cast<double>(bytes)), seconds, 1e3 * stall_seconds));
}

void Progress::note(const std::string& line) const {
  if (shown_) say(line);
}

void Progress::warning(const std::string& line) const {
  if (!shown_) return;
  std::fflush(stdout);
  std::fputs(fmt::format("lamina: warning: {}\n", line).c_str(),
             stderr);  // training survives a full disk here, too
}

}  // namespace lamina
