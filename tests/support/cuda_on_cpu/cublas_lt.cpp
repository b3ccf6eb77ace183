// cublasLt: the one algorithm that gemm.h has, behind descriptors that are checked.
#include <array>
#include <cstring>
#include <memory>
#include <string>

#include "cublasLt.h"
#include "tests/support/cuda_on_cpu/gemm.h"
#include "tests/support/cuda_on_cpu/host.h"
#include "tests/support/cuda_on_cpu/memory.h"
#include "tests/support/cuda_on_cpu/streams.h"

using namespace cuda_on_cpu;  // NOLINT(google-build-using-namespace)

struct cublasLtContext {};
struct cublasLtMatmulDescOpaque_t {
  cublasComputeType_t compute;
  cudaDataType_t scale;
  std::int32_t pointer_mode = CUBLASLT_POINTER_MODE_HOST;
  std::int32_t op_a = CUBLAS_OP_N, op_b = CUBLAS_OP_N, op_c = CUBLAS_OP_N;
  std::uint32_t epilogue = CUBLASLT_EPILOGUE_DEFAULT;
};
struct cublasLtMatrixLayoutOpaque_t {
  std::uint32_t type;
  std::uint64_t rows, cols;
  std::int64_t ld;
  std::int32_t order = CUBLASLT_ORDER_COL;
  std::int32_t batches = 1;
  std::int64_t batch_stride = 0;
};
struct cublasLtMatmulPreferenceOpaque_t {
  std::uint64_t workspace = 0;
  std::uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_MASK;
};

namespace {

Handles<cublasLtContext>& contexts() {
  static auto& of_the_process = *new Handles<cublasLtContext>;
  return of_the_process;
}
Handles<cublasLtMatmulDescOpaque_t>& products() {
  static auto& of_the_process = *new Handles<cublasLtMatmulDescOpaque_t>;
  return of_the_process;
}
Handles<cublasLtMatrixLayoutOpaque_t>& layouts() {
  static auto& of_the_process = *new Handles<cublasLtMatrixLayoutOpaque_t>;
  return of_the_process;
}
Handles<cublasLtMatmulPreferenceOpaque_t>& preferences() {
  static auto& of_the_process = *new Handles<cublasLtMatmulPreferenceOpaque_t>;
  return of_the_process;
}

cublasStatus_t refuse(cublasStatus_t status, const std::string& why) {
  host_thread().complaint = "cublasLt: " + why;
  return status;
}
cublasStatus_t invalid(const std::string& why) { return refuse(CUBLAS_STATUS_INVALID_VALUE, why); }

template <class T>
cublasStatus_t set(T& to, const void* value, std::size_t bytes) {
  if (value == nullptr || bytes != sizeof to) return invalid("an attribute of another size");
  std::memcpy(&to, value, bytes);
  return CUBLAS_STATUS_SUCCESS;
}

template <class T>
cublasStatus_t get(T answer, void* value, std::size_t bytes, std::size_t* written) {
  if (written != nullptr) *written = sizeof answer;
  if (bytes == 0 && written != nullptr) return CUBLAS_STATUS_SUCCESS;
  if (value == nullptr || bytes != sizeof answer) return invalid("an attribute of another size");
  std::memcpy(value, &answer, bytes);
  return CUBLAS_STATUS_SUCCESS;
}

using Layout = cublasLtMatrixLayoutOpaque_t;

bool is_operation(std::int32_t op) { return op >= CUBLAS_OP_N && op <= CUBLAS_OP_C; }

std::size_t bytes_of(const Layout& layout) { return layout.type == CUDA_R_16BF ? 2 : 4; }

/// Elements from the first to the last.
std::int64_t extent(const Layout& layout) {
  const bool by_rows = layout.order == CUBLASLT_ORDER_ROW;
  const auto lines = static_cast<std::int64_t>(by_rows ? layout.rows : layout.cols);
  const auto line = static_cast<std::int64_t>(by_rows ? layout.cols : layout.rows);
  return (lines - 1) * layout.ld + line + (layout.batches - 1) * layout.batch_stride;
}

cublasStatus_t check_layout(const Layout& layout, const std::string& name) {
  const bool by_rows = layout.order == CUBLASLT_ORDER_ROW;
  if (layout.type != CUDA_R_32F && layout.type != CUDA_R_16BF)
    return refuse(CUBLAS_STATUS_NOT_SUPPORTED, name + " is neither float nor bfloat16");
  if (layout.order != CUBLASLT_ORDER_COL && layout.order != CUBLASLT_ORDER_ROW)
    return refuse(CUBLAS_STATUS_NOT_SUPPORTED, name + " lies in neither columns nor rows");
  if (layout.rows == 0 || layout.cols == 0) return invalid(name + " is empty");
  if (layout.ld < static_cast<std::int64_t>(by_rows ? layout.cols : layout.rows))
    return invalid(name + " has a leading dimension shorter than its lines");
  if (layout.batches < 1 || layout.batch_stride < 0) return invalid(name + " has no possible batches");
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t check_memory(const Layout& layout, const void* pointer, const std::string& name) {
  if (reinterpret_cast<std::uintptr_t>(pointer) % bytes_of(layout) != 0)
    return invalid(name + " is not aligned");
  if (!is_device(pointer, static_cast<std::size_t>(extent(layout)) * bytes_of(layout)))
    return invalid(name + " is not all in one allocation of the device");
  return CUBLAS_STATUS_SUCCESS;
}

Strides strides_of(const Layout& layout, std::int32_t op, bool drops_bits = false) {
  const bool is_bf16 = layout.type == CUDA_R_16BF, by_rows = layout.order == CUBLASLT_ORDER_ROW;
  const Strides strides{by_rows ? layout.ld : 1, by_rows ? 1 : layout.ld, is_bf16, drops_bits};
  return op == CUBLAS_OP_N ? strides : strides.transposed();
}

/// What a product was described as: held by value, descriptors may go before it is done.
struct Product {
  cublasLtMatmulDescOpaque_t how;
  Layout a, b, c, d;

  cublasStatus_t check() const {
    for (const auto& [layout, name] : {std::pair{&a, "A"}, {&b, "B"}, {&c, "C"}, {&d, "D"}})
      if (const auto status = check_layout(*layout, name)) return status;
    if (how.compute != CUBLAS_COMPUTE_32F && how.compute != CUBLAS_COMPUTE_32F_PEDANTIC && !uses_tf32())
      return refuse(CUBLAS_STATUS_NOT_SUPPORTED, "only CUBLAS_COMPUTE_32F and _FAST_TF32 are there");
    if (how.scale != CUDA_R_32F || how.pointer_mode != CUBLASLT_POINTER_MODE_HOST ||
        how.epilogue != CUBLASLT_EPILOGUE_DEFAULT || how.op_c != CUBLAS_OP_N)
      return refuse(CUBLAS_STATUS_NOT_SUPPORTED, "scales are floats of the host, and there is no epilogue");
    if (!is_operation(how.op_a) || !is_operation(how.op_b)) return invalid("no such operation");
    if (a.type != b.type || c.type != d.type || (a.type == CUDA_R_32F && d.type != CUDA_R_32F))
      return refuse(CUBLAS_STATUS_NOT_SUPPORTED, "types that do not go together");
    if (a.batches != d.batches || b.batches != d.batches || c.batches != d.batches)
      return invalid("batches of different sizes");
    const bool turned_a = how.op_a != CUBLAS_OP_N, turned_b = how.op_b != CUBLAS_OP_N;
    if ((turned_a ? a.cols : a.rows) != d.rows || (turned_b ? b.rows : b.cols) != d.cols ||
        (turned_a ? a.rows : a.cols) != (turned_b ? b.cols : b.rows) || c.rows != d.rows || c.cols != d.cols)
      return invalid("sizes that do not go together");
    return CUBLAS_STATUS_SUCCESS;
  }

  bool uses_tf32() const { return how.compute == CUBLAS_COMPUTE_32F_FAST_TF32; }

  Gemm gemm(float alpha, float beta) const {
    return {.m = static_cast<std::int64_t>(d.rows),
            .n = static_cast<std::int64_t>(d.cols),
            .k = static_cast<std::int64_t>(how.op_a == CUBLAS_OP_N ? a.cols : a.rows),
            .a = strides_of(a, how.op_a, uses_tf32()),
            .b = strides_of(b, how.op_b, uses_tf32()),
            .c = strides_of(c, CUBLAS_OP_N),
            .d = strides_of(d, CUBLAS_OP_N),
            .alpha = alpha,
            .beta = beta};
  }
};

/// Where element 0 of a batch lies.
template <class Byte>
Byte* batch_of(Byte* pointer, const Layout& layout, std::int64_t batch) {
  return pointer + batch * layout.batch_stride * static_cast<std::int64_t>(bytes_of(layout));
}

struct Operands {
  const std::byte *a, *b, *c;
  std::byte* d;
};

cudaError_t run(const Product& product, const Operands& at, float alpha, float beta) {
  const Gemm gemm = product.gemm(alpha, beta);
  for (std::int64_t batch = 0; batch < product.d.batches; ++batch)
    multiply(gemm, batch_of(at.a, product.a, batch), batch_of(at.b, product.b, batch),
             batch_of(at.c, product.c, batch), batch_of(at.d, product.d, batch));
  return cudaSuccess;
}

cublasStatus_t find_product(Product& product, cublasLtHandle_t handle, cublasLtMatmulDesc_t how,
                            const std::array<cublasLtMatrixLayout_t, 4>& of) {
  if (!contexts().find(handle)) return refuse(CUBLAS_STATUS_NOT_INITIALIZED, "no handle");
  const auto found = products().find(how);
  if (!found) return invalid("no description of the product");
  product.how = *found;
  Layout* const to[] = {&product.a, &product.b, &product.c, &product.d};
  for (std::size_t i = 0; i < of.size(); ++i) {
    const auto layout = layouts().find(of[i]);
    if (!layout) return invalid("no layout");
    *to[i] = *layout;
  }
  return product.check();
}

constexpr std::uint64_t kOurAlgorithm = 0x4c616d696e61;  // what a valid cublasLtMatmulAlgo_t begins with

bool is_ours(const cublasLtMatmulAlgo_t* algorithm) {
  return algorithm != nullptr && algorithm->data[0] == kOurAlgorithm;
}

struct StatusText {
  cublasStatus_t status;
  const char *name, *text;
};
const StatusText& text_of(cublasStatus_t status) {
  static constexpr StatusText kTexts[] = {
      {CUBLAS_STATUS_SUCCESS, "CUBLAS_STATUS_SUCCESS", "success"},
      {CUBLAS_STATUS_NOT_INITIALIZED, "CUBLAS_STATUS_NOT_INITIALIZED", "the library was not initialized"},
      {CUBLAS_STATUS_ALLOC_FAILED, "CUBLAS_STATUS_ALLOC_FAILED", "the resource allocation failed"},
      {CUBLAS_STATUS_INVALID_VALUE, "CUBLAS_STATUS_INVALID_VALUE", "an invalid value was given"},
      {CUBLAS_STATUS_EXECUTION_FAILED, "CUBLAS_STATUS_EXECUTION_FAILED", "the function failed on the device"},
      {CUBLAS_STATUS_NOT_SUPPORTED, "CUBLAS_STATUS_NOT_SUPPORTED", "the function is not supported"},
      {CUBLAS_STATUS_INTERNAL_ERROR, "CUBLAS_STATUS_INTERNAL_ERROR", "an internal operation failed"},
  };
  for (const StatusText& known : kTexts)
    if (known.status == status) return known;
  return kTexts[std::size(kTexts) - 1];
}

}  // namespace

const char* cublasGetStatusString(cublasStatus_t status) { return text_of(status).text; }
const char* cublasGetStatusName(cublasStatus_t status) { return text_of(status).name; }
const char* cublasLtGetStatusString(cublasStatus_t status) { return text_of(status).text; }
const char* cublasLtGetStatusName(cublasStatus_t status) { return text_of(status).name; }
std::size_t cublasLtGetVersion() { return 130000; }
std::size_t cublasLtGetCudartVersion() { return CUDART_VERSION; }

cublasStatus_t cublasLtCreate(cublasLtHandle_t* handle) {
  if (obstacle() != cudaSuccess) return refuse(CUBLAS_STATUS_NOT_INITIALIZED, "there is no working device");
  *handle = contexts().add(std::make_shared<cublasLtContext>());
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) {
  return contexts().remove(handle) ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_INITIALIZED;
}

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t* product, cublasComputeType_t compute,
                                        cudaDataType_t scale) {
  *product = products().add(std::make_shared<cublasLtMatmulDescOpaque_t>(
      cublasLtMatmulDescOpaque_t{.compute = compute, .scale = scale}));
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t handle,
                                              cublasLtMatmulDescAttributes_t attribute, const void* value,
                                              std::size_t bytes) {
  const auto product = products().find(handle);
  if (!product) return invalid("no description of the product");
  switch (attribute) {
    case CUBLASLT_MATMUL_DESC_POINTER_MODE:
      return set(product->pointer_mode, value, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSA:
      return set(product->op_a, value, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSB:
      return set(product->op_b, value, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSC:
      return set(product->op_c, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
      return set(product->epilogue, value, bytes);
    default:
      return invalid("an attribute of products that cannot be set");
  }
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t product) {
  return products().remove(product) ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t* layout, cudaDataType type,
                                          std::uint64_t rows, std::uint64_t cols, std::int64_t ld) {
  *layout = layouts().add(std::make_shared<Layout>(
      Layout{.type = static_cast<std::uint32_t>(type), .rows = rows, .cols = cols, .ld = ld}));
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t handle,
                                                cublasLtMatrixLayoutAttribute_t attribute, const void* value,
                                                std::size_t bytes) {
  const auto layout = layouts().find(handle);
  if (!layout) return invalid("no layout");
  switch (attribute) {
    case CUBLASLT_MATRIX_LAYOUT_TYPE:
      return set(layout->type, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_ORDER:
      return set(layout->order, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_ROWS:
      return set(layout->rows, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_COLS:
      return set(layout->cols, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_LD:
      return set(layout->ld, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT:
      return set(layout->batches, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET:
      return set(layout->batch_stride, value, bytes);
  }
  return invalid("an attribute of layouts that cannot be set");
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) {
  return layouts().remove(layout) ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t* preference) {
  *preference = preferences().add(std::make_shared<cublasLtMatmulPreferenceOpaque_t>());
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t handle,
                                                    cublasLtMatmulPreferenceAttributes_t attribute,
                                                    const void* value, std::size_t bytes) {
  const auto preference = preferences().find(handle);
  if (!preference) return invalid("no preference");
  if (attribute == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES) return set(preference->workspace, value, bytes);
  if (attribute == CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK)
    return set(preference->reductions, value, bytes);
  return value == nullptr ? invalid("no value")
                          : CUBLAS_STATUS_SUCCESS;  // one algorithm suits all the others
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) {
  return preferences().remove(preference) ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t how,
                                              cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
                                              cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d,
                                              cublasLtMatmulPreference_t preference, int most,
                                              cublasLtMatmulHeuristicResult_t results[], int* count) {
  *count = 0;
  Product product;
  if (const auto status = find_product(product, handle, how, {a, b, c, d})) return status;
  if (!preferences().find(preference)) return invalid("no preference");
  if (most < 1) return invalid("no algorithm is asked for");
  results[0] = {};
  results[0].algo.data[0] = kOurAlgorithm;
  results[0].state = CUBLAS_STATUS_SUCCESS;
  results[0].wavesCount = 1;
  *count = 1;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasLtMatmulAlgoConfigGetAttribute(const cublasLtMatmulAlgo_t* algorithm,
                                                    cublasLtMatmulAlgoConfigAttributes_t attribute,
                                                    void* value, std::size_t bytes, std::size_t* written) {
  if (!is_ours(algorithm)) return invalid("no algorithm");
  switch (attribute) {
    case CUBLASLT_ALGO_CONFIG_SPLITK_NUM:
      return get(std::int32_t{1}, value, bytes, written);
    case CUBLASLT_ALGO_CONFIG_ID:
      return get(std::int32_t{0}, value, bytes, written);
    case CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME:
      return get(static_cast<std::uint32_t>(CUBLASLT_REDUCTION_SCHEME_NONE), value, bytes, written);
    default:
      return get(std::uint32_t{0}, value, bytes, written);
  }
}

cublasStatus_t cublasLtMatmulAlgoConfigSetAttribute(cublasLtMatmulAlgo_t* algorithm,
                                                    cublasLtMatmulAlgoConfigAttributes_t attribute,
                                                    const void* value, std::size_t bytes) {
  if (!is_ours(algorithm)) return invalid("no algorithm");
  std::uint32_t wanted = 0;
  if (const auto status = set(wanted, value, bytes)) return status;
  const std::uint32_t only = attribute == CUBLASLT_ALGO_CONFIG_SPLITK_NUM ? 1 : 0;
  return wanted == only ? CUBLAS_STATUS_SUCCESS : invalid("the algorithm cannot be configured so");
}

cublasStatus_t cublasLtMatmulAlgoCapGetAttribute(const cublasLtMatmulAlgo_t* algorithm,
                                                 cublasLtMatmulAlgoCapAttributes_t attribute, void* value,
                                                 std::size_t bytes, std::size_t* written) {
  if (!is_ours(algorithm)) return invalid("no algorithm");
  switch (attribute) {
    case CUBLASLT_ALGO_CAP_SPLITK_SUPPORT:
      return get(std::int32_t{0}, value, bytes, written);
    case CUBLASLT_ALGO_CAP_STRIDED_BATCH_SUPPORT:
      return get(std::int32_t{1}, value, bytes, written);
    case CUBLASLT_ALGO_CAP_REDUCTION_SCHEME_MASK:
      return get(std::uint32_t{0}, value, bytes, written);
    case CUBLASLT_ALGO_CAP_NUMERICAL_IMPL_FLAGS:
      return get(std::uint64_t{0}, value, bytes, written);
  }
  return invalid("an unknown capability");
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t how, const void* alpha,
                              const void* a, cublasLtMatrixLayout_t a_layout, const void* b,
                              cublasLtMatrixLayout_t b_layout, const void* beta, const void* c,
                              cublasLtMatrixLayout_t c_layout, void* d, cublasLtMatrixLayout_t d_layout,
                              const cublasLtMatmulAlgo_t* algorithm, void* workspace,
                              std::size_t workspace_bytes, cudaStream_t stream) {
  Product product;
  if (const auto status = find_product(product, handle, how, {a_layout, b_layout, c_layout, d_layout}))
    return status;
  if (algorithm != nullptr && !is_ours(algorithm)) return invalid("no algorithm");
  if (alpha == nullptr || beta == nullptr || in_device_space(alpha) || in_device_space(beta))
    return invalid("alpha and beta are no pointers of the host");
  if (workspace_bytes > 0 && !is_device(workspace, workspace_bytes))
    return invalid("the workspace is not all in one allocation of the device");
  const float by = *static_cast<const float*>(alpha), before = *static_cast<const float*>(beta);
  if (const auto status = check_memory(product.a, a, "A")) return status;
  if (const auto status = check_memory(product.b, b, "B")) return status;
  if (const auto status = before == 0 ? CUBLAS_STATUS_SUCCESS : check_memory(product.c, c, "C"))
    return status;
  if (const auto status = check_memory(product.d, d, "D")) return status;
  const Operands at{static_cast<const std::byte*>(a), static_cast<const std::byte*>(b),
                    static_cast<const std::byte*>(before == 0 ? d : c), static_cast<std::byte*>(d)};
  const cudaError_t error = issue(stream, [product, at, by, before] { return run(product, at, by, before); });
  return error == cudaSuccess ? CUBLAS_STATUS_SUCCESS
                              : refuse(CUBLAS_STATUS_EXECUTION_FAILED, "the stream failed");
}
