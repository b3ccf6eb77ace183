#include "kernels/cuda/matrix_product.h"

#include <algorithm>
#include <array>
#include <utility>

#include "kernels/cuda/error.h"
#include "kernels/cuda/libraries/cublas_lt.h"
#include "runtime/error.h"

namespace lamina::cuda {
namespace {

/// A descriptor of cuBLASLt, made by `create` and freed by `destroy`.
template <class Handle, cublasStatus_t (*CublasLt::*destroy)(Handle)>
class Descriptor {
 public:
  Descriptor() = default;
  explicit Descriptor(Handle handle) : handle_(handle) {}
  ~Descriptor() {
    if (handle_ != nullptr) (cublas_lt().*destroy)(handle_);
  }
  Descriptor(Descriptor&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  Handle get() const { return handle_; }

 private:
  Handle handle_ = nullptr;
};

using Description = Descriptor<cublasLtMatmulDesc_t, &CublasLt::MatmulDescDestroy>;
using Layout = Descriptor<cublasLtMatrixLayout_t, &CublasLt::MatrixLayoutDestroy>;
using Preference = Descriptor<cublasLtMatmulPreference_t, &CublasLt::MatmulPreferenceDestroy>;

Description make_description(Operands operands, bool transposed_first, bool transposed_second) {
  const cublasComputeType_t compute =
      operands == Operands::tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
  cublasLtMatmulDesc_t made = nullptr;
  verify(cublas_lt().MatmulDescCreate(&made, compute, CUDA_R_32F), "cublasLtMatmulDescCreate");
  Description description(made);
  const auto transpose = [&](cublasLtMatmulDescAttributes_t which, bool transposed) {
    const cublasOperation_t operation = transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
    verify(cublas_lt().MatmulDescSetAttribute(made, which, &operation, sizeof operation),
           "cublasLtMatmulDescSetAttribute");
  };
  transpose(CUBLASLT_MATMUL_DESC_TRANSA, transposed_first);
  transpose(CUBLASLT_MATMUL_DESC_TRANSB, transposed_second);
  return description;
}

/// Of a column-major matrix.
Layout make_layout(cudaDataType_t type, std::int64_t rows, std::int64_t columns, std::int64_t stride) {
  cublasLtMatrixLayout_t made = nullptr;
  verify(cublas_lt().MatrixLayoutCreate(&made, type, static_cast<std::uint64_t>(rows),
                                        static_cast<std::uint64_t>(columns), stride),
         "cublasLtMatrixLayoutCreate");
  return Layout(made);
}

void set_batch(const Layout& layout, std::int32_t count, std::int64_t stride) {
  verify(cublas_lt().MatrixLayoutSetAttribute(layout.get(), CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count,
                                              sizeof count),
         "cublasLtMatrixLayoutSetAttribute");
  verify(cublas_lt().MatrixLayoutSetAttribute(layout.get(), CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET,
                                              &stride, sizeof stride),
         "cublasLtMatrixLayoutSetAttribute");
}

/// Alignment of the operands that holds wherever a tile lies: 16 bytes if all strides are multiples of it.
std::uint32_t alignment(const ProductShape& shape, std::int64_t element) {
  for (const std::int64_t stride : {shape.row_A, shape.row_B, shape.row_C, shape.batch_A, shape.batch_B,
                                    shape.batch_C, shape.m, shape.n, shape.k})
    if (stride * element % 16 != 0) return static_cast<std::uint32_t>(element);
  return 16;
}

std::uint32_t alignment_of_C(const ProductShape& shape, std::int64_t element) {
  const std::uint32_t least = sizeof(float);
  return shape.packed ? least : std::max(least, alignment(shape, element));
}

bool is_aligned(const void* pointer, std::uint32_t bytes) {
  return reinterpret_cast<std::uintptr_t>(pointer) % bytes == 0;
}

Preference make_preference(const ProductShape& shape, std::int64_t element) {
  cublasLtMatmulPreference_t made = nullptr;
  verify(cublas_lt().MatmulPreferenceCreate(&made), "cublasLtMatmulPreferenceCreate");
  Preference preference(made);
  const auto set = [&](cublasLtMatmulPreferenceAttributes_t which, auto value) {
    verify(cublas_lt().MatmulPreferenceSetAttribute(made, which, &value, sizeof value),
           "cublasLtMatmulPreferenceSetAttribute");
  };
  set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, std::uint64_t{Device::kWorkspaceBytes});
  set(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, std::uint32_t{CUBLASLT_REDUCTION_SCHEME_NONE});
  const std::uint32_t bytes = alignment(shape, element);
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, bytes);
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, bytes);
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, alignment_of_C(shape, element));
  set(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignment_of_C(shape, element));
  return preference;
}

bool takes_batches(const cublasLtMatmulAlgo_t& algorithm) {
  std::int32_t yes = 0;
  std::size_t written = 0;
  verify(cublas_lt().MatmulAlgoCapGetAttribute(&algorithm, CUBLASLT_ALGO_CAP_STRIDED_BATCH_SUPPORT, &yes,
                                               sizeof yes, &written),
         "cublasLtMatmulAlgoCapGetAttribute");
  return yes != 0;
}

}  // namespace

// cuBLASLt is column-major: it sees C^T = B^T A^T, so B comes first.
struct MatrixProduct::Plan {
  Plan(Device& of, const ProductShape& product, Operands operands)
      : device(&of),
        shape(product),
        description(make_description(operands, product.transposed_B, product.transposed_A)) {
    check(shape.m > 0 && shape.n > 0 && shape.k > 0, "matrix product: empty");
    const cudaDataType_t type = operands == Operands::bf16 ? CUDA_R_16BF : CUDA_R_32F;
    const auto stored = [&](bool transposed, std::int64_t rows, std::int64_t columns, std::int64_t stride) {
      return transposed ? make_layout(type, rows, columns, stride) : make_layout(type, columns, rows, stride);
    };
    A = stored(shape.transposed_A, shape.m, shape.k, shape.row_A);
    B = stored(shape.transposed_B, shape.k, shape.n, shape.row_B);
    C = make_layout(CUDA_R_32F, shape.n, shape.m, shape.row_C);
    const std::int64_t element = operands == Operands::bf16 ? 2 : 4;
    alignment = lamina::cuda::alignment(shape, element);
    alignment_of_result = alignment_of_C(shape, element);
    choose_algorithm(element);
  }

  void choose_algorithm(std::int64_t element) {
    constexpr int kCandidates = 8;
    std::array<cublasLtMatmulHeuristicResult_t, kCandidates> found{};
    const Preference preference = make_preference(shape, element);
    int count = 0;
    verify(
        cublas_lt().MatmulAlgoGetHeuristic(device->matrices(), description.get(), B.get(), A.get(), C.get(),
                                           C.get(), preference.get(), kCandidates, found.data(), &count),
        "cublasLtMatmulAlgoGetHeuristic");
    for (int i = 0; i < count; ++i)
      if (takes_batches(found[static_cast<std::size_t>(i)].algo)) {
        algorithm = found[static_cast<std::size_t>(i)].algo;
        return;
      }
    check(false, "matrix product: cuBLASLt has no algorithm for this shape");
  }

  Device* device;
  ProductShape shape;
  Description description;
  Layout A, B, C;
  cublasLtMatmulAlgo_t algorithm{};
  std::uint32_t alignment = 1, alignment_of_result = 1;  ///< of operands and of C, in bytes
  int batch = 1;                                         ///< that the layouts are set to
};

MatrixProduct::MatrixProduct(Device& device, const ProductShape& shape, Operands operands)
    : plan_(std::make_unique<Plan>(device, shape, operands)) {}
MatrixProduct::~MatrixProduct() = default;
MatrixProduct::MatrixProduct(MatrixProduct&&) noexcept = default;
MatrixProduct& MatrixProduct::operator=(MatrixProduct&&) noexcept = default;

void MatrixProduct::run(const float* A, const float* B, float* C, int count) const {
  run(static_cast<const void*>(A), static_cast<const void*>(B), C, count);
}

void MatrixProduct::run(const __nv_bfloat16* A, const __nv_bfloat16* B, float* C, int count) const {
  run(static_cast<const void*>(A), static_cast<const void*>(B), C, count);
}

void MatrixProduct::run(const void* A, const void* B, float* C, int count) const {
  Plan& plan = *plan_;
  check(is_aligned(A, plan.alignment) && is_aligned(B, plan.alignment) &&
            is_aligned(C, plan.alignment_of_result),
        "matrix product: an operand is not aligned as its shape promises");
  if (count != plan.batch) {
    set_batch(plan.A, count, plan.shape.batch_A);
    set_batch(plan.B, count, plan.shape.batch_B);
    set_batch(plan.C, count, plan.shape.batch_C);
    plan.batch = count;
  }
  const float alpha = 1, beta = plan.shape.adds ? 1 : 0;
  verify(cublas_lt().Matmul(plan.device->matrices(), plan.description.get(), &alpha, B, plan.B.get(), A,
                            plan.A.get(), &beta, C, plan.C.get(), C, plan.C.get(), &plan.algorithm,
                            plan.device->workspace(), Device::kWorkspaceBytes, plan.device->stream()),
         "cublasLtMatmul");
}

}  // namespace lamina::cuda
