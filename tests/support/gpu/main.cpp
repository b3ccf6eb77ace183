// Runs tests on a GPU, or says why it does not.
#include <gtest/gtest.h>

#include <cstdio>

#include "kernels/backends.h"
#include "runtime/error.h"

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  try {
    lamina::make_cuda_backend(/*local_rank=*/0);
  } catch (const lamina::UserError& error) {
    std::printf("SKIPPED-ALL: %s\n", error.what());
    return 0;
  }
  return RUN_ALL_TESTS();
}
