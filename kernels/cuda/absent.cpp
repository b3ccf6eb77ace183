// Takes the place of the CUDA backend in builds without it.
#include "kernels/backends.h"
#include "runtime/error.h"

namespace lamina {

std::unique_ptr<Backend> make_cuda_backend() {
  throw UserError("--device cuda is not available: this build has no CUDA backend, use --device cpu");
}

}  // namespace lamina
