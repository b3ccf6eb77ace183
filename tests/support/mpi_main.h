// Tests under mpirun: every rank runs every test, rank 0 prints the failures of all, and all end with one
// code.
//
//   int main(int argc, char** argv) { return lamina::mpi_main(argc, argv); }
#pragma once

#include "runtime/communicator.h"

namespace lamina {

/// 0 when all tests passed on all ranks, else 1, on every rank; 2 for a wrong LAMINA_TRANSPORT.
int mpi_main(int argc, char** argv);

/// The world of the running test: all ranks, a fresh communicator in each test. When a test fails fatally on
/// a rank (ASSERT_*, an exception), its peers in a collective of this world, or of groups split from it, get
/// a PeerError.
Communicator& mpi_test_world();

/// Whether `mine` holds on every rank. Collective. For ASSERT_TRUE(agreed(world, …)) before further
/// collectives.
bool agreed(Communicator& world, bool mine);

}  // namespace lamina
