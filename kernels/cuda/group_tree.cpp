#include "kernels/cuda/group_tree.h"

#include "kernels/cuda/elementwise.h"
#include "runtime/error.h"

namespace lamina::cuda {

void GroupTree::sum(int groups, std::span<float> out,
                    const std::function<void(int d, std::span<float> to)>& compute) {
  check(groups >= 1 && (groups & (groups - 1)) == 0, "group tree: groups must be a power of two");
  for (int d = 0; d < groups; ++d) {
    compute(d, out);
    std::size_t level = 0;
    for (int carry = d; (carry & 1) != 0; carry >>= 1)
      elementwise::add(device_, waiting_[level++].view().first(out.size()), out);
    if (d + 1 == groups) return;
    if (waiting_.size() <= level) waiting_.resize(level + 1);
    if (waiting_[level].size() < out.size()) waiting_[level] = device_.allocate<float>(out.size());
    elementwise::copy(device_, out, waiting_[level].view().first(out.size()));
  }
}

}  // namespace lamina::cuda
