// Products of matrices are those of plain loops, and bfloat16 rounds as on a GPU.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "cublasLt.h"
#include "cuda_bf16.h"
#include "tests/support/cuda_on_cpu/kernel_test.h"

namespace cuda_on_cpu::test {
namespace {

using Bfloat16 = EmulatedGpu;

void succeed(cublasStatus_t status) {
  EXPECT_EQ(CUBLAS_STATUS_SUCCESS, status) << cublasLtGetStatusString(status) << ": " << last_complaint();
}

struct Case {
  int m = 5, n = 19, k = 7, batches = 1;
  bool turn_a = false, turn_b = false;
  cublasLtOrder_t order_a = CUBLASLT_ORDER_ROW, order_b = CUBLASLT_ORDER_ROW, order_d = CUBLASLT_ORDER_ROW;
  bool bf16 = false;
  float alpha = 1, beta = 0;
};

/// How a matrix lies in memory: with more room than needed between its lines and its batches.
struct Matrix {
  int rows, cols;
  cublasLtOrder_t order = CUBLASLT_ORDER_ROW;
  int batches = 1;

  int lines() const { return order == CUBLASLT_ORDER_ROW ? rows : cols; }
  int ld() const { return (order == CUBLASLT_ORDER_ROW ? cols : rows) + 3; }
  std::int64_t stride() const { return lines() * ld() + 5; }
  std::size_t size() const { return static_cast<std::size_t>(stride() * batches); }
  std::size_t at(int batch, int i, int j) const {
    return static_cast<std::size_t>(batch * stride() +
                                    (order == CUBLASLT_ORDER_ROW ? i * ld() + j : j * ld() + i));
  }
  /// Also between the lines.
  std::vector<float> random(unsigned seed, bool bf16) const {
    std::mt19937 dice(seed);
    std::uniform_real_distribution<float> uniform(-1, 1);
    std::vector<float> values(size());
    for (float& value : values)
      value = bf16 ? __bfloat162float(__float2bfloat16(uniform(dice))) : uniform(dice);
    return values;
  }
};

class Layout {
 public:
  Layout(const Matrix& matrix, cudaDataType type) {
    succeed(cublasLtMatrixLayoutCreate(&layout_, type, static_cast<std::uint64_t>(matrix.rows),
                                       static_cast<std::uint64_t>(matrix.cols), matrix.ld()));
    set(CUBLASLT_MATRIX_LAYOUT_ORDER, std::int32_t{matrix.order});
    set(CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, std::int32_t{matrix.batches});
    set(CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, matrix.stride());
  }
  ~Layout() { succeed(cublasLtMatrixLayoutDestroy(layout_)); }
  Layout(const Layout&) = delete;
  Layout& operator=(const Layout&) = delete;
  operator cublasLtMatrixLayout_t() const { return layout_; }

  template <class T>
  void set(cublasLtMatrixLayoutAttribute_t attribute, T value) {
    succeed(cublasLtMatrixLayoutSetAttribute(layout_, attribute, &value, sizeof value));
  }

 private:
  cublasLtMatrixLayout_t layout_ = nullptr;
};

/// A handle, a description and a preference.
class Products : public EmulatedGpu {
 protected:
  void SetUp() override {
    EmulatedGpu::SetUp();
    succeed(cublasLtCreate(&handle_));
    succeed(cublasLtMatmulDescCreate(&product_, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    succeed(cublasLtMatmulPreferenceCreate(&preference_));
  }
  void TearDown() override {
    succeed(cublasLtMatmulPreferenceDestroy(preference_));
    succeed(cublasLtMatmulDescDestroy(product_));
    succeed(cublasLtDestroy(handle_));
    EmulatedGpu::TearDown();
  }

  void turn(cublasLtMatmulDescAttributes_t which, bool turned) {
    const std::int32_t operation = turned ? CUBLAS_OP_T : CUBLAS_OP_N;
    succeed(cublasLtMatmulDescSetAttribute(product_, which, &operation, sizeof operation));
  }
  cublasLtMatmulAlgo_t algorithm(const Layout& a, const Layout& b, const Layout& d) {
    cublasLtMatmulHeuristicResult_t found[3] = {};
    int count = 0;
    succeed(cublasLtMatmulAlgoGetHeuristic(handle_, product_, a, b, d, d, preference_, 3, found, &count));
    EXPECT_EQ(1, count);
    EXPECT_EQ(CUBLAS_STATUS_SUCCESS, found[0].state);
    EXPECT_EQ(0u, found[0].workspaceSize);
    return found[0].algo;
  }
  cublasStatus_t multiply(const void* a, const Layout& a_layout, const void* b, const Layout& b_layout,
                          float* d, const Layout& d_layout, cudaStream_t stream = nullptr, float alpha = 1,
                          float beta = 0) {
    return cublasLtMatmul(handle_, product_, &alpha, a, a_layout, b, b_layout, &beta, d, d_layout, d,
                          d_layout, nullptr, nullptr, 0, stream);
  }
  void expect_product(const Case& what);

  cublasLtHandle_t handle_ = nullptr;
  cublasLtMatmulDesc_t product_ = nullptr;
  cublasLtMatmulPreference_t preference_ = nullptr;
};

std::vector<__nv_bfloat16> in_bf16(const std::vector<float>& values) {
  return std::vector<__nv_bfloat16>(values.begin(), values.end());
}

void Products::expect_product(const Case& what) {
  SCOPED_TRACE(::testing::Message() << what.m << "x" << what.n << "x" << what.k << " turn " << what.turn_a
                                    << what.turn_b << " orders " << what.order_a << what.order_b
                                    << what.order_d << " batches " << what.batches << " bf16 " << what.bf16);
  const Matrix a{what.turn_a ? what.k : what.m, what.turn_a ? what.m : what.k, what.order_a, what.batches};
  const Matrix b{what.turn_b ? what.n : what.k, what.turn_b ? what.k : what.n, what.order_b, what.batches};
  const Matrix d{what.m, what.n, what.order_d, what.batches};
  const auto a_values = a.random(1, what.bf16), b_values = b.random(2, what.bf16);
  auto expected = d.random(3, false);
  const Buffer<float> a_f32(a_values), b_f32(b_values), d_f32(expected);
  const Buffer<__nv_bfloat16> a_bf16(in_bf16(a_values)), b_bf16(in_bf16(b_values));
  const cudaDataType type = what.bf16 ? CUDA_R_16BF : CUDA_R_32F;
  const Layout a_layout(a, type), b_layout(b, type), d_layout(d, CUDA_R_32F);

  turn(CUBLASLT_MATMUL_DESC_TRANSA, what.turn_a);
  turn(CUBLASLT_MATMUL_DESC_TRANSB, what.turn_b);
  succeed(multiply(what.bf16 ? static_cast<const void*>(a_bf16.data()) : a_f32.data(), a_layout,
                   what.bf16 ? static_cast<const void*>(b_bf16.data()) : b_f32.data(), b_layout, d_f32.data(),
                   d_layout, nullptr, what.alpha, what.beta));

  for (int batch = 0; batch < what.batches; ++batch) {
    for (int i = 0; i < what.m; ++i) {
      for (int j = 0; j < what.n; ++j) {
        float sum = 0;
        for (int k = 0; k < what.k; ++k)
          sum = std::fma(a_values[what.turn_a ? a.at(batch, k, i) : a.at(batch, i, k)],
                         b_values[what.turn_b ? b.at(batch, j, k) : b.at(batch, k, j)], sum);
        float& element = expected[d.at(batch, i, j)];
        element = what.beta == 0 ? what.alpha * sum : std::fma(what.beta, element, what.alpha * sum);
      }
    }
  }
  EXPECT_EQ(expected, d_f32.values());
}

TEST_F(Products, TheyAreChainsInTheOrderOfK) {
  for (int bits = 0; bits < 128; ++bits) {
    const auto is_set = [&](int bit) { return (bits >> bit & 1) != 0; };
    const auto order = [&](int bit) { return is_set(bit) ? CUBLASLT_ORDER_ROW : CUBLASLT_ORDER_COL; };
    Case what;
    what.turn_a = is_set(0);
    what.turn_b = is_set(1);
    what.order_a = order(2);
    what.order_b = order(3);
    what.order_d = order(4);
    what.bf16 = is_set(5);
    what.batches = is_set(6) ? 3 : 1;
    expect_product(what);
  }
}

TEST_F(Products, SizesAndScalesOfAllKinds) {
  Case what;
  what.m = what.n = what.k = 1;
  expect_product(what);
  what.m = 33;
  what.n = 70;
  what.k = 129;
  what.alpha = 0.5f;
  what.beta = -2;
  expect_product(what);
}

TEST_F(Products, Tf32KeepsTenBits) {
  cublasLtMatmulDesc_t rounded = nullptr;
  succeed(cublasLtMatmulDescCreate(&rounded, CUBLAS_COMPUTE_32F_FAST_TF32, CUDA_R_32F));
  const Matrix matrix{1, 1};
  const Layout layout(matrix, CUDA_R_32F);
  const Buffer<float> one(std::vector<float>{1}), d(std::vector<float>{0});
  const auto kept = [&](float value) {
    const Buffer<float> a(std::vector<float>{value});
    const float alpha = 1, beta = 0;
    succeed(cublasLtMatmul(handle_, rounded, &alpha, a.data(), layout, one.data(), layout, &beta, d.data(),
                           layout, d.data(), layout, nullptr, nullptr, 0, nullptr));
    return d.values()[0];
  };

  EXPECT_EQ(kept(1 + 0x1p-10f), 1 + 0x1p-10f);
  EXPECT_EQ(kept(-1 - 0x1p-11f), -1 - 0x1p-10f);  // a tie
  EXPECT_EQ(kept(1 + 0x1p-11f - 0x1p-23f), 1);
  EXPECT_EQ(kept(std::numeric_limits<float>::infinity()), std::numeric_limits<float>::infinity());
  succeed(cublasLtMatmulDescDestroy(rounded));
}

TEST_F(Products, WhatIsOverwrittenIsNotRead) {
  const Matrix matrix{2, 2};
  const Buffer<float> a(matrix.random(1, false)), d(matrix.size());  // NaN
  const Layout layout(matrix, CUDA_R_32F);
  succeed(multiply(a.data(), layout, a.data(), layout, d.data(), layout));
  EXPECT_FALSE(std::isnan(d.values()[0]));
}

TEST_F(Products, GraphsRepeatThem) {
  const Matrix matrix{2, 2};
  const Buffer<float> a(std::vector<float>(matrix.size(), 1)), d(std::vector<float>(matrix.size(), 0));
  cudaStream_t stream = nullptr;
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;
  ASSERT_EQ(cudaSuccess, cudaStreamCreate(&stream));
  ASSERT_EQ(cudaSuccess, cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  {
    const Layout layout(matrix, CUDA_R_32F);
    succeed(multiply(a.data(), layout, a.data(), layout, d.data(), layout, stream, 1, 1));
  }
  ASSERT_EQ(cudaSuccess, cudaStreamEndCapture(stream, &graph));
  ASSERT_EQ(cudaSuccess, cudaGraphInstantiate(&executable, graph));
  for (int i = 0; i < 3; ++i) ASSERT_EQ(cudaSuccess, cudaGraphLaunch(executable, stream));
  ASSERT_EQ(cudaSuccess, cudaStreamSynchronize(stream));
  EXPECT_EQ(6, d.values()[0]);
  EXPECT_EQ(cudaSuccess, cudaGraphExecDestroy(executable));
  EXPECT_EQ(cudaSuccess, cudaGraphDestroy(graph));
  EXPECT_EQ(cudaSuccess, cudaStreamDestroy(stream));
}

TEST_F(Products, NonsenseIsRefused) {
  const Matrix matrix{4, 4};
  const Buffer<float> a(matrix.size()), short_by_lines(4 * 4);
  std::vector<float> host(matrix.size());
  const Layout good(matrix, CUDA_R_32F), other({4, 5}, CUDA_R_32F), halves(matrix, CUDA_R_16BF);
  Layout thin(matrix, CUDA_R_32F), empty(matrix, CUDA_R_32F), many(matrix, CUDA_R_32F);
  thin.set(CUBLASLT_MATRIX_LAYOUT_LD, std::int64_t{3});
  empty.set(CUBLASLT_MATRIX_LAYOUT_ROWS, std::uint64_t{0});
  many.set(CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, std::int32_t{2});
  const auto status = [&](const void* data, const Layout& layout) {
    return multiply(data, layout, a.data(), good, a.data(), good);
  };
  EXPECT_EQ(CUBLAS_STATUS_SUCCESS, status(a.data(), good));
  EXPECT_EQ(CUBLAS_STATUS_INVALID_VALUE, status(a.data(), other));
  EXPECT_EQ(CUBLAS_STATUS_INVALID_VALUE, status(a.data(), thin));
  EXPECT_EQ(CUBLAS_STATUS_INVALID_VALUE, status(a.data(), empty));
  EXPECT_EQ(CUBLAS_STATUS_INVALID_VALUE, status(a.data(), many));
  EXPECT_EQ(CUBLAS_STATUS_NOT_SUPPORTED, status(a.data(), halves));
  EXPECT_EQ(CUBLAS_STATUS_INVALID_VALUE, status(nullptr, good));
  EXPECT_EQ(CUBLAS_STATUS_INVALID_VALUE, status(host.data(), good));
  EXPECT_EQ(CUBLAS_STATUS_INVALID_VALUE, status(short_by_lines.data(), good));
  EXPECT_EQ("cublasLt: A is not all in one allocation of the device", last_complaint());
}

TEST_F(Products, TheAlgorithmSplitsNothing) {
  const Matrix matrix{4, 4};
  const Layout layout(matrix, CUDA_R_32F);
  const std::uint64_t workspace = 1 << 20;
  const std::uint32_t none = CUBLASLT_REDUCTION_SCHEME_NONE;
  succeed(cublasLtMatmulPreferenceSetAttribute(preference_, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                               &workspace, sizeof workspace));
  succeed(cublasLtMatmulPreferenceSetAttribute(preference_, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &none,
                                               sizeof none));
  const auto found = algorithm(layout, layout, layout);
  std::int32_t parts = 0;
  std::uint32_t scheme = 9, mask = 9;
  std::size_t written = 0;
  succeed(cublasLtMatmulAlgoConfigGetAttribute(&found, CUBLASLT_ALGO_CONFIG_SPLITK_NUM, &parts, sizeof parts,
                                               &written));
  EXPECT_EQ(1, parts);
  EXPECT_EQ(sizeof parts, written);
  succeed(cublasLtMatmulAlgoConfigGetAttribute(&found, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME, &scheme,
                                               sizeof scheme, nullptr));
  EXPECT_EQ(none, scheme);
  succeed(cublasLtMatmulAlgoCapGetAttribute(&found, CUBLASLT_ALGO_CAP_REDUCTION_SCHEME_MASK, &mask,
                                            sizeof mask, nullptr));
  EXPECT_EQ(none, mask);
}

// --- bfloat16
// -----------------------------------------------------------------------------------------------
float of_bits(std::uint32_t bits) { return std::bit_cast<float>(bits); }

TEST_F(Bfloat16, RoundsToTheNearestAndTiesToEven) {
  const auto rounded = [](std::uint32_t bits) {
    return std::bit_cast<std::uint32_t>(__bfloat162float(__float2bfloat16_rn(of_bits(bits))));
  };
  EXPECT_EQ(0x3f800000u, rounded(0x3f800000));
  EXPECT_EQ(0x3f800000u, rounded(0x3f807fff));
  EXPECT_EQ(0x3f800000u, rounded(0x3f808000));  // a tie
  EXPECT_EQ(0x3f810000u, rounded(0x3f808001));
  EXPECT_EQ(0x3f820000u, rounded(0x3f818000));  // a tie
  EXPECT_EQ(0xbf820000u, rounded(0xbf818000));
  EXPECT_EQ(0x7f800000u, rounded(0x7f7fffff));  // too large
  EXPECT_EQ(0xff800000u, rounded(0xff800000));
  EXPECT_EQ(0x80000000u, rounded(0x80000001));
  EXPECT_EQ(0x00010000u, rounded(0x00008001));  // subnormal
}

TEST_F(Bfloat16, NanStaysNan) {
  for (const std::uint32_t bits : {0x7fc00000u, 0x7f800001u, 0xffffffffu, 0xff80ffffu})
    EXPECT_TRUE(std::isnan(__bfloat162float(__float2bfloat16(of_bits(bits)))));
}

TEST_F(Bfloat16, EveryValueIsKept) {
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float value = of_bits(bits << 16);
    if (std::isnan(value)) continue;
    ASSERT_EQ(bits, __bfloat16_as_ushort(__float2bfloat16(value)));
  }
}

TEST_F(Bfloat16, RandomValuesRoundToTheNearerNeighbour) {
  std::mt19937 dice(5);
  for (int i = 0; i < 100000; ++i) {
    const std::uint32_t bits = static_cast<std::uint32_t>(dice()) & 0xbfffffffu;  // not near infinity
    const double value = of_bits(bits);
    const double below = of_bits(bits & 0xffff0000u), above = of_bits((bits & 0xffff0000u) + 0x10000u);
    const double chosen = __bfloat162float(__float2bfloat16(of_bits(bits)));
    ASSERT_LE(std::abs(chosen - value), std::min(std::abs(below - value), std::abs(above - value))) << bits;
  }
}

__global__ void halve(const __nv_bfloat162* in, __nv_bfloat162* out) {
  const float2 values = __bfloat1622float2(in[threadIdx.x]);
  out[threadIdx.x] = __floats2bfloat162_rn(values.x / 2, values.y / 2);
}

TEST_F(Bfloat16, PairsInKernels) {
  const Buffer<__nv_bfloat162> in(std::vector<__nv_bfloat162>{{1, 2}, {3, 4}}), out(2);
  ASSERT_EQ(cudaSuccess, start({1, 2}, halve, static_cast<const __nv_bfloat162*>(in.data()), out.data()));
  const auto values = out.values();
  EXPECT_EQ(0.5f, __low2float(values[0]));
  EXPECT_EQ(2.0f, __high2float(values[1]));
}

}  // namespace
}  // namespace cuda_on_cpu::test
