#include "kernels/cpu/cpu_model.h"

#include <gtest/gtest.h>

#include <sstream>

namespace lamina {
namespace {

CpuModel model_of(const std::string& vendor, const std::string& flags) {
  std::istringstream text("processor\t: 0\nvendor_id\t: " + vendor +
                          "\nmodel name\t: Some CPU @ 2 GHz\npower management:\nflags\t\t: " + flags +
                          "\n\nprocessor\t: 1\nvendor_id\t: another\n");
  return read_cpu_model(text);
}

TEST(CpuModel, IsReadFromTheFirstProcessor) {
  const CpuModel model = model_of("AuthenticAMD", "fpu avx512_bf16 avx512f");

  EXPECT_EQ(model.name, "Some CPU @ 2 GHz");
  EXPECT_EQ(model.vendor, "AuthenticAMD");
  EXPECT_TRUE(model.has_avx512_bf16);
}

TEST(CpuModel, LooksForTheWholeFlag) {
  EXPECT_TRUE(model_of("AuthenticAMD", "avx512_bf16").has_avx512_bf16);
  EXPECT_FALSE(model_of("AuthenticAMD", "avx512_bf16x avx512f amx_bf16").has_avx512_bf16);
}

TEST(CpuModel, IsFastAtBf16WhereTheInstructionIs) {
  EXPECT_TRUE(model_of("AuthenticAMD", "avx512_bf16").is_fast_at_bf16());
  EXPECT_FALSE(model_of("AuthenticAMD", "avx512f").is_fast_at_bf16());
  EXPECT_FALSE(model_of("GenuineIntel", "avx512_bf16").is_fast_at_bf16());
}

TEST(CpuModel, IsUnknownWithoutAText) {
  std::istringstream nothing;
  EXPECT_EQ(read_cpu_model(nothing).name, "CPU of unknown model");
  EXPECT_FALSE(read_cpu_model(nothing).is_fast_at_bf16());
}

}  // namespace
}  // namespace lamina
