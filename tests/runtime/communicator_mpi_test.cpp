// ctest: ranks=1,2,3,4,8
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "runtime/communicators/mpi.h"
#include "tests/support/communicator_conformance.h"
#include "tests/support/mpi_main.h"

namespace lamina {
namespace {

struct Variant {
  const char* name;
  MpiOptions options;
};
std::ostream& operator<<(std::ostream& out, const Variant& variant) { return out << variant.name; }

const Variant kVariants[] = {
    {"shared_memory", {.transport = Transport::shared_memory}},
    {"shared_memory_small_slots", {.transport = Transport::shared_memory, .slot_bytes = 4096}},
    {"messages", {.transport = Transport::mpi}},
    {"messages_in_small_pieces", {.transport = Transport::mpi, .piece_bytes = 5000}},
};

using Parameters = std::tuple<Variant, CommunicatorCheck>;
class MpiCommunicator : public ::testing::TestWithParam<Parameters> {};

TEST_P(MpiCommunicator, Conforms) {
  const auto& [variant, check] = GetParam();
  const auto world = make_mpi_world(variant.options);

  check.run(*world);
}

std::string name_of(const ::testing::TestParamInfo<Parameters>& info) {
  const auto& [variant, check] = info.param;
  return std::string(variant.name) + "_" + check.name;
}

INSTANTIATE_TEST_SUITE_P(Checks, MpiCommunicator,
                         ::testing::Combine(::testing::ValuesIn(kVariants),
                                            ::testing::ValuesIn(communicator_checks())),
                         name_of);

TEST(MpiTransport, IsSharedMemoryOnOneNodeUnlessToldOtherwise) {
  const auto chosen = make_mpi_world({});
  const auto told = make_mpi_world({.transport = Transport::mpi});

  const bool is_alone = chosen->size() == 1;
  EXPECT_EQ(is_alone ? "self" : "mpi+shared-memory", chosen->transport());
  EXPECT_EQ(is_alone ? "self" : "mpi", told->transport());
  EXPECT_EQ(told->transport(), told->split(0, 0)->transport());
}

TEST(MpiTransport, GivesItsHandle) {
  EXPECT_NE(nullptr, mpi_test_world().native_handle());
  EXPECT_NE(nullptr, mpi_test_world().split(0, 0)->native_handle());
}

TEST(MpiTransport, GroupsComeAndGoWithoutFillingMemory) {
  for (int repeat = 0; repeat < 200; ++repeat) {
    const auto group = mpi_test_world().split(0, repeat % 2 == 0 ? mpi_test_world().rank() : 0);
    group->barrier();
  }
}

TEST(MpiLibrary, TellsItsName) { EXPECT_THAT(mpi_library(), ::testing::HasSubstr("MPI")); }

TEST(Agreed, NeedsEveryRank) {
  Communicator& world = mpi_test_world();

  EXPECT_TRUE(agreed(world, true));
  EXPECT_FALSE(agreed(world, world.rank() != world.size() - 1));
  EXPECT_FALSE(agreed(world, false));
}

}  // namespace
}  // namespace lamina

int main(int argc, char** argv) { return lamina::mpi_main(argc, argv); }
