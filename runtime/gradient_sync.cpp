#include "runtime/gradient_sync.h"

#include <bit>

#include "runtime/error.h"
#include "runtime/trace.h"

namespace lamina {

GradientSync::GradientSync(int passes, ParameterTable& table, Backend& backend, Communicator& data_axis)
    : passes_(passes),
      table_(table),
      backend_(backend),
      sums_(backend.make_background_sums(data_axis, table.gradients().size())),
      checks_(backend.make_finite_checks(static_cast<int>(table.all().size()))) {
  check(passes >= 1 && std::has_single_bit(static_cast<unsigned>(passes)), "passes must be a power of two");
  for (int waiting = 1; waiting < passes; waiting *= 2) {
    pending_.push_back(backend.allocate(static_cast<std::size_t>(table.local_size())));
  }
}

void GradientSync::add(ParameterRange range) {
  check(added_ < passes_, "more passes than a step has");
  if (passes_ > 1) merge_pass(range);
  if (added_ + 1 == passes_) {
    for (int i = range.first; i < range.last; ++i) checks_->look(i, table_.gradient(i));
    sums_->add(table_.gradients(range));
  }
  covered_ += range.count();
  if (covered_ < static_cast<int>(table_.all().size())) return;
  covered_ = 0;
  ++added_;
}

void GradientSync::merge_pass(ParameterRange range) {
  const Span span(SpanKind::other, "sum over passes");
  const std::span<float> gradients = table_.gradients(range);
  const auto first = static_cast<std::size_t>(gradients.data() - table_.gradients().data());
  std::size_t level = 0;
  for (int carry = added_; carry & 1; carry >>= 1)
    backend_.add(pending_[level++].view(first, gradients.size()), gradients);
  if (added_ + 1 < passes_) backend_.copy(gradients, pending_[level].view(first, gradients.size()));
}

std::vector<bool> GradientSync::non_finite_of_rank() {
  check(added_ == passes_, "gradients of some passes are missing");
  return checks_->take_found();
}

void GradientSync::finish() {
  const Span span(SpanKind::other, "gradient sync");
  check(added_ == passes_, "gradients of some passes are missing");
  added_ = 0;
  sums_->finish();
}

}  // namespace lamina
