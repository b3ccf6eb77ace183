#include "kernels/cuda/libraries/cublas_lt.h"
#include "kernels/cuda/libraries/shared_library.h"
#include "runtime/error.h"

namespace lamina::cuda {
namespace {

CublasLt load() {
  const std::string name = "libcublasLt.so." + std::to_string(CUBLAS_VER_MAJOR);
  const SharedLibrary library(name);
  if (!library)
    throw UserError("--device cuda needs " + name + ", which cannot be loaded (" + library.error() +
                    "): install cuBLAS or set LD_LIBRARY_PATH to where it is");
  CublasLt found{};
  library.find("cublasLtCreate", found.Create);
  library.find("cublasLtDestroy", found.Destroy);
  library.find("cublasLtGetStatusString", found.GetStatusString);
  library.find("cublasLtGetVersion", found.GetVersion);
  library.find("cublasLtMatmul", found.Matmul);
  library.find("cublasLtMatmulAlgoGetHeuristic", found.MatmulAlgoGetHeuristic);
  library.find("cublasLtMatmulAlgoCapGetAttribute", found.MatmulAlgoCapGetAttribute);
  library.find("cublasLtMatmulDescCreate", found.MatmulDescCreate);
  library.find("cublasLtMatmulDescDestroy", found.MatmulDescDestroy);
  library.find("cublasLtMatmulDescSetAttribute", found.MatmulDescSetAttribute);
  library.find("cublasLtMatmulPreferenceCreate", found.MatmulPreferenceCreate);
  library.find("cublasLtMatmulPreferenceDestroy", found.MatmulPreferenceDestroy);
  library.find("cublasLtMatmulPreferenceSetAttribute", found.MatmulPreferenceSetAttribute);
  library.find("cublasLtMatrixLayoutCreate", found.MatrixLayoutCreate);
  library.find("cublasLtMatrixLayoutDestroy", found.MatrixLayoutDestroy);
  library.find("cublasLtMatrixLayoutSetAttribute", found.MatrixLayoutSetAttribute);
  return found;
}

}  // namespace

const CublasLt& cublas_lt() {
  static const CublasLt library = load();
  return library;
}

}  // namespace lamina::cuda
