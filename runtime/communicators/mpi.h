// The world over MPI with chosen transport and sizes; tests use it to reach every path in one program.
#pragma once

#include <memory>

#include "runtime/communicator.h"
#include "runtime/communicators/slots.h"

namespace lamina {

class Watchdog;

/// How groups exchange: through shared memory where their ranks share a node, else through MPI; or MPI
/// everywhere; or a UserError where not all ranks share a node.
enum class Transport { automatic, mpi, shared_memory };

struct MpiOptions {
  Transport transport = Transport::automatic;
  std::size_t slot_bytes = kDefaultSlotBytes;  ///< per rank and slot in shared memory
  std::size_t piece_bytes = 64u << 20;         ///< that all ranks together pass through one call of MPI
  Watchdog* watchdog = nullptr;                ///< to be told of the job; outlives it
};

/// What LAMINA_TRANSPORT says on rank 0. UserError on every rank when it is none of the words. Collective.
Transport transport_from_environment();

/// A new group of all processes. Each such world has a fate of its own. Between MpiSession's begin and end.
/// Collective.
std::unique_ptr<Communicator> make_mpi_world(const MpiOptions& options);

}  // namespace lamina
