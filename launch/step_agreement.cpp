#include "launch/step_agreement.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <tuple>

#include "runtime/trace.h"

namespace lamina {
namespace {

using Place = NonFinite::Place;
using Words = std::array<std::int32_t, 4>;

Words words_of(const StepNote& note) {
  return {note.stop, note.save_is_idle, static_cast<std::int32_t>(note.non_finite.place),
          note.non_finite.parameter};
}

/// Whether `a` comes before `b` in a step. Of gradients the later parameter's comes first.
bool is_earlier(const NonFinite& a, const NonFinite& b) {
  if (b.place == Place::nowhere) return a.place != Place::nowhere;
  if (a.place != b.place) return a.place != Place::nowhere && a.place < b.place;
  return a.place == Place::gradient ? a.parameter > b.parameter : a.parameter < b.parameter;
}

}  // namespace

StepAgreement::StepAgreement(const StepNote& mine, Communicator& world) {
  const Span span(SpanKind::other, "agreement");
  const Words own = words_of(mine);
  std::vector<std::int32_t> all(own.size() * static_cast<std::size_t>(world.size()));
  world.all_gather(std::span<const std::int32_t>(own), std::span(all));
  for (int rank = 0; rank < world.size(); ++rank) {
    const std::int32_t* words = &all[own.size() * static_cast<std::size_t>(rank)];
    stop_ |= words[0] != 0;
    save_is_idle_ &= words[1] != 0;
    const NonFinite found{static_cast<Place>(words[2]), words[3]};
    if (is_earlier(found, first_)) std::tie(first_, first_rank_) = std::tuple(found, rank);
  }
}

std::string StepAgreement::non_finite_text(const ParameterTable& table) const {
  const auto name = [&] { return table[first_.parameter].name; };
  switch (first_.place) {
    case Place::parameter:
      return fmt::format("the parameter {} is not finite on rank {}", name(), first_rank_);
    case Place::loss:
      return fmt::format("the loss is not finite on rank {}", first_rank_);
    case Place::gradient:
      return fmt::format("the gradient of {} is not finite on rank {}", name(), first_rank_);
    case Place::gradient_norm:
      return "the gradient norm is not finite, though every rank's gradients are";
    case Place::nowhere:
      break;
  }
  return "every number is finite";
}

NonFinite find_non_finite(ParameterTable& table, std::span<const double> losses,
                          const std::vector<bool>& gradients, Backend& backend) {
  const Span span(SpanKind::other, "check for finite numbers");
  const bool losses_are_finite = std::ranges::all_of(losses, [](double loss) { return std::isfinite(loss); });
  const auto last = std::find(gradients.rbegin(), gradients.rend(), true);
  if (losses_are_finite && last == gradients.rend()) return {};
  const int count = static_cast<int>(table.all().size());
  for (int i = 0; i < count; ++i)
    if (!backend.all_finite(table.value(i))) return {Place::parameter, i};
  if (!losses_are_finite) return {Place::loss, 0};
  return {Place::gradient, static_cast<std::int32_t>(gradients.rend() - last) - 1};
}

}  // namespace lamina
