#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/backends.h"
#include "runtime/error.h"

namespace lamina {
namespace {

TEST(CudaBackend, SaysThatItIsAbsentAndWhatToDo) {
  try {
    make_cuda_backend(/*local_rank=*/0);
    FAIL() << "made a CUDA backend";
  } catch (const UserError& error) {
    EXPECT_THAT(error.what(), ::testing::HasSubstr("use --device cpu"));
  }
}

TEST(CudaBackend, DescribesItsAbsence) {
  EXPECT_EQ(cuda_description(), "not built in");
  EXPECT_EQ(nccl_description(), "not built in");
}

}  // namespace
}  // namespace lamina
