// The collectives of the library under a group, as it offers them to everyone: what the exchanges of
// Communicator are measured against. Nothing else should use them.
#pragma once

#include <memory>
#include <span>
#include <string>

#include "runtime/communicator.h"

namespace lamina {

/// Collective each, over the group, and without a watch of its own: call them inside
/// Communicator::in_library. Shapes as Communicator's; a sum has whatever order the library gives it.
class ReferenceCollectives {
 public:
  ReferenceCollectives() = default;
  virtual ~ReferenceCollectives() = default;
  ReferenceCollectives(const ReferenceCollectives&) = delete;
  ReferenceCollectives& operator=(const ReferenceCollectives&) = delete;

  /// Name and version, for people.
  virtual std::string library() const = 0;
  virtual void barrier() = 0;
  virtual void broadcast(std::span<float> values, int root) = 0;
  virtual void all_gather(std::span<const float> part, std::span<float> out) = 0;
  virtual void all_to_all(std::span<const float> in, std::span<float> out) = 0;
  virtual void all_reduce(std::span<float> values) = 0;
  virtual void reduce_scatter(std::span<const float> in, std::span<float> out) = 0;
};

/// Those of `group`, which must outlive them; null where there is nothing to compare with: ranks that are
/// threads, or a rank alone.
std::unique_ptr<ReferenceCollectives> make_reference_collectives(const Communicator& group);

}  // namespace lamina
