// Stands in for NVIDIA's header, as nccl.h beside it.
#pragma once

#include <nccl.h>

// NOLINTBEGIN(readability-identifier-naming, modernize-use-using): NVIDIA's names
struct ncclTeam {
  int nRanks, rank, stride;
};
typedef struct ncclTeam ncclTeam_t;
extern "C" ncclTeam_t ncclTeamLsa(ncclComm_t comm);

/// In device memory.
struct ncclWindow_vidmem {
  static constexpr int kMostRanks = 64;
  char* bases[kMostRanks];
};
// NOLINTEND(readability-identifier-naming, modernize-use-using)
