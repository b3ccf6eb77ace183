#include "launch/replicas.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "io/digest.h"
#include "launch/agreement.h"
#include "runtime/error.h"

namespace lamina {
namespace {

/// A digest for each tensor of a rank, in an order that all replicas share.
struct Digests {
  std::vector<std::string> names;
  std::vector<Digest> digests;
};

class ReplicaDigests {
 public:
  ReplicaDigests(ParameterTable& table, Optimizer& optimizer, Backend& backend)
      : table_(table), backend_(backend), host_(static_cast<std::size_t>(table.local_size())) {
    add("/parameters/", table.values());
    for (Optimizer::Slot& slot : optimizer.slots()) add("/optimizer/" + slot.name + "/", slot.values.view());
  }

  const Digests& all() const { return all_; }

 private:
  void add(const std::string& prefix, std::span<const float> arena) {
    backend_.to_host(arena, host_);
    for (const Parameter& parameter : table_.all()) {
      all_.names.push_back(prefix + parameter.name);
      all_.digests.push_back(digest_of(std::span<const float>(host_).subspan(
          static_cast<std::size_t>(parameter.offset), static_cast<std::size_t>(parameter.local_size))));
    }
  }

  ParameterTable& table_;
  Backend& backend_;
  std::vector<float> host_;
  Digests all_;
};

/// The positions in `values` whose value is not that of a majority; all of them where there is no majority.
std::vector<int> outsiders(const std::vector<Digest>& values) {
  std::map<Digest, std::size_t> counts;
  for (const Digest& value : values) ++counts[value];
  const auto most = std::ranges::max_element(counts, {}, [](const auto& entry) { return entry.second; });
  std::vector<int> found;
  for (std::size_t i = 0; i < values.size(); ++i)
    if (2 * most->second <= values.size() || values[i] != most->first) found.push_back(static_cast<int>(i));
  return found;
}

/// World ranks of the data axis, by data rank.
std::vector<int> names_of_replicas(ProcessGrid& grid) {
  const int mine = grid.world().rank();
  std::vector<int> names(static_cast<std::size_t>(grid.data().size()));
  grid.data().all_gather(std::span<const int>(&mine, 1), std::span(names));
  return names;
}

std::string difference_text(const std::string& tensor, const std::vector<int>& suspects, bool majority,
                            std::int64_t step) {
  const std::string what =
      fmt::format("{} differs between ranks that must hold it alike, at step {}: ", tensor, step);
  const std::string who =
      majority ? fmt::format("rank{} {} against the others", suspects.size() == 1 ? "" : "s",
                             fmt::join(suspects, ", "))
               : fmt::format("ranks {}, of which no majority is right", fmt::join(suspects, ", "));
  return what + who +
         "; memory, a core or a sum went wrong there: --resume goes on from the newest checkpoint, whose "
         "replicas were equal; look at that host first";
}

/// The first difference among the replicas of this rank; empty where there is none.
std::string first_difference(const Digests& mine, const std::vector<int>& names, std::int64_t step,
                             Communicator& data) {
  const std::size_t count = mine.digests.size(), bytes = count * sizeof(Digest);
  std::vector<Digest> all(count * static_cast<std::size_t>(data.size()));
  data.all_gather(std::span(reinterpret_cast<const unsigned char*>(mine.digests.data()), bytes),
                  std::span(reinterpret_cast<unsigned char*>(all.data()), all.size() * sizeof(Digest)));
  for (std::size_t tensor = 0; tensor < count; ++tensor) {
    std::vector<Digest> of_tensor;
    for (std::size_t r = 0; r < names.size(); ++r) of_tensor.push_back(all[r * count + tensor]);
    if (std::ranges::count(of_tensor, of_tensor.front()) == std::ssize(of_tensor)) continue;
    std::vector<int> suspects;
    for (const int position : outsiders(of_tensor))
      suspects.push_back(names[static_cast<std::size_t>(position)]);
    return difference_text(mine.names[tensor], suspects, suspects.size() < names.size(), step);
  }
  return "";
}

}  // namespace

void require_equal_replicas(ParameterTable& table, Optimizer& optimizer, std::int64_t step, Backend& backend,
                            ProcessGrid& grid) {
  if (grid.data().size() == 1) return;
  const ReplicaDigests mine(table, optimizer, backend);
  const std::string difference = first_difference(mine.all(), names_of_replicas(grid), step, grid.data());
  on_every_rank(grid.world(), [&] {
    if (!difference.empty()) throw UserError(difference, ExitCode::replicas_differ);
  });
}

}  // namespace lamina
