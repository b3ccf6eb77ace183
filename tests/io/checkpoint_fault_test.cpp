// ctest: ranks=1,2 labels=fault
// The disk refuses one call after another, on each rank: nothing is committed, nothing is left behind, every
// rank hears why, and the next save is whole.
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "io/checkpoint.h"
#include "runtime/fault_point.h"
#include "tests/io/sample_checkpoint.h"
#include "tests/io/shared_folder.h"
#include "tests/support/mpi_main.h"

namespace lamina {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;

CheckpointRecord record_of(std::int64_t step) {
  CheckpointRecord record = sample_record();
  record.step = step;
  return record;
}

enum class Form { at_once, staged };

void save(const fs::path& file, std::int64_t step, Form form) {
  Communicator& world = mpi_test_world();
  const SampleBoxes boxes(sample_layouts(), in_runs(world.size()), world.rank());
  if (form == Form::at_once) {
    write_checkpoint(file, record_of(step), boxes.to_write(), world);
    return;
  }
  CheckpointSave staged(file, record_of(step), boxes.to_write(), world);
  while (!staged.is_complete()) {
    std::int32_t idle = staged.is_idle() ? 1 : 0;
    world.all_reduce(std::span(&idle, 1), Reduction::min);
    if (idle == 1) staged.advance();
  }
}

/// The message of the CheckpointWriteError that all ranks must see; empty when it was written.
std::string save_error(const fs::path& file, std::int64_t step, Form form) {
  std::string message;
  try {
    save(file, step, form);
  } catch (const CheckpointWriteError& error) {
    message = error.what();
  }
  std::string first = message;
  mpi_test_world().broadcast(first, 0);
  EXPECT_EQ(message, first);
  return first;
}

struct Refusal {
  const char* point;
  const char* error;
  const char* text;
};

/// Refuses the first passage of the point, then the second, …, until a save meets none: how many failed.
int saves_refused(const SharedFolder& folder, const Refusal& refusal, int rank, Form form) {
  Communicator& world = mpi_test_world();
  const std::string older = bytes_of(folder / "older.h5");
  for (int passage = 1;; ++passage) {
    world.barrier();
    order_faults(fmt::format("{}:{}:rank={}:count={}", refusal.point, refusal.error, rank, passage));
    const std::string message = save_error(folder / "new.h5", passage, form);
    order_faults("");
    EXPECT_FALSE(fs::exists(folder / "new.h5.partial"));
    EXPECT_EQ(bytes_of(folder / "older.h5"), older);
    if (message.empty()) return passage - 1;
    EXPECT_THAT(message, AllOf(HasSubstr((folder / "new.h5").string()), HasSubstr(refusal.text)));
  }
}

class RefusedCalls : public ::testing::TestWithParam<Refusal> {};

TEST_P(RefusedCalls, OnEachRankLeaveEverythingAsItWas) {
  const SharedFolder folder;
  Communicator& world = mpi_test_world();
  save(folder / "older.h5", 1, Form::at_once);

  for (int rank = 0; rank < world.size(); ++rank)
    for (const Form form : {Form::at_once, Form::staged}) {
      const int refused = saves_refused(folder, GetParam(), rank, form);
      const bool renames = std::string(GetParam().point) == "file_rename";
      EXPECT_GE(refused, rank == 0 || !renames ? 1 : 0) << "rank " << rank;
      EXPECT_EQ(read_record(folder / "new.h5").step, refused + 1);
      EXPECT_NO_THROW(verify_checkpoint(folder / "new.h5"));
      world.barrier();
    }
}

INSTANTIATE_TEST_SUITE_P(CheckpointFault, RefusedCalls,
                         ::testing::Values(Refusal{"file_open", "enospc", "No space left on device"},
                                           Refusal{"file_open", "eio", "Input/output error"},
                                           Refusal{"file_write", "enospc", "No space left on device"},
                                           Refusal{"file_write", "eio", "Input/output error"},
                                           Refusal{"file_sync", "enospc", "No space left on device"},
                                           Refusal{"file_sync", "eio", "Input/output error"},
                                           Refusal{"file_rename", "enospc", "No space left on device"},
                                           Refusal{"file_rename", "eio", "Input/output error"}),
                         [](const auto& parameter) {
                           return std::string(parameter.param.point) + "_" + parameter.param.error;
                         });

TEST(CheckpointFault, ManyRefusalsInARowDoNoHarm) {
  const SharedFolder folder;
  Communicator& world = mpi_test_world();
  save(folder / "older.h5", 1, Form::at_once);
  order_faults(fmt::format("file_write:enospc:rank={}:times=0", world.size() - 1));

  for (int step = 2; step < 12; ++step)
    EXPECT_NE(save_error(folder / "new.h5", step, step % 2 == 0 ? Form::at_once : Form::staged), "");
  order_faults("");

  EXPECT_FALSE(fs::exists(folder / "new.h5"));
  EXPECT_EQ(save_error(folder / "new.h5", 12, Form::staged), "");
  EXPECT_EQ(read_record(folder / "older.h5").step, 1);
}

}  // namespace
}  // namespace lamina

int main(int argc, char** argv) { return lamina::mpi_main(argc, argv); }
