#include "runtime/gradient_sync.h"

#include <bit>

#include "runtime/error.h"
#include "runtime/trace.h"

namespace lamina {

GradientSync::GradientSync(int passes, ParameterTable& table, Backend& backend)
    : passes_(passes), table_(table), backend_(backend) {
  check(passes >= 1 && std::has_single_bit(static_cast<unsigned>(passes)), "passes must be a power of two");
  for (int waiting = 1; waiting < passes; waiting *= 2) {
    pending_.push_back(backend.allocate(static_cast<std::size_t>(table.local_size())));
  }
}

void GradientSync::add_pass() {
  const Span span(SpanKind::other, "sum over passes");
  std::size_t level = 0;
  for (int carry = added_++; carry & 1; carry >>= 1)
    backend_.add(pending_[level++].view(), table_.gradients());
  if (added_ < passes_) backend_.copy(table_.gradients(), pending_[level].view());
}

void GradientSync::finish(Communicator& data_axis) {
  const Span span(SpanKind::other, "gradient sync");
  check(added_ == passes_, "gradients of some passes are missing");
  added_ = 0;
  backend_.all_reduce(data_axis, table_.gradients());
}

}  // namespace lamina
