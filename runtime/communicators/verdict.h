// Why a wait for peers does not end, from what is known of all ranks.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "runtime/communicators/rank_status.h"

namespace lamina {

/// Both lists by rank in the world. Nothing is known of ranks on other hosts from which no word came.
struct Situation {
  int me = 0;
  std::chrono::milliseconds limit{};
  std::vector<std::optional<RankReport>> ranks{};
  std::vector<std::string> hosts{};
};

struct Verdict {
  std::string sentence{};
  std::vector<int> blamed{};  ///< ranks; all that wait when they wait for each other
};

/// Follows who waits for whom from rank `me`, which waits, to one that does not wait or cannot go on.
Verdict judge(const Situation& situation);

/// "rank 3", "ranks 0-2 and 7"; `ranks` in rising order, at least one.
std::string list_of_ranks(const std::vector<int>& ranks);

}  // namespace lamina
