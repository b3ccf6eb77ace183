#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "kernels/backends.h"
#include "runtime/error.h"

namespace lamina {
namespace {

TEST(CudaBackend, SaysThatItIsAbsentAndWhatToDo) {
  try {
    make_cuda_backend();
    FAIL() << "made a CUDA backend";
  } catch (const UserError& error) {
    EXPECT_THAT(error.what(), ::testing::HasSubstr("use --device cpu"));
  }
}

}  // namespace
}  // namespace lamina
