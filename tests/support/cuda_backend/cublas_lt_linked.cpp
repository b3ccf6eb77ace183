// For tests, whose cuBLASLt runs on CPUs and is linked.
#include "kernels/cuda/libraries/cublas_lt.h"

namespace lamina::cuda {

const CublasLt& cublas_lt() {
  static const CublasLt library{.Create = &cublasLtCreate,
                                .Destroy = &cublasLtDestroy,
                                .GetStatusString = &cublasLtGetStatusString,
                                .GetVersion = &cublasLtGetVersion,
                                .Matmul = &cublasLtMatmul,
                                .MatmulAlgoGetHeuristic = &cublasLtMatmulAlgoGetHeuristic,
                                .MatmulAlgoCapGetAttribute = &cublasLtMatmulAlgoCapGetAttribute,
                                .MatmulDescCreate = &cublasLtMatmulDescCreate,
                                .MatmulDescDestroy = &cublasLtMatmulDescDestroy,
                                .MatmulDescSetAttribute = &cublasLtMatmulDescSetAttribute,
                                .MatmulPreferenceCreate = &cublasLtMatmulPreferenceCreate,
                                .MatmulPreferenceDestroy = &cublasLtMatmulPreferenceDestroy,
                                .MatmulPreferenceSetAttribute = &cublasLtMatmulPreferenceSetAttribute,
                                .MatrixLayoutCreate = &cublasLtMatrixLayoutCreate,
                                .MatrixLayoutDestroy = &cublasLtMatrixLayoutDestroy,
                                .MatrixLayoutSetAttribute = &cublasLtMatrixLayoutSetAttribute};
  return library;
}

}  // namespace lamina::cuda
