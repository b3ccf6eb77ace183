// Takes the place of the CUDA backend in builds without it.
#include "kernels/backends.h"
#include "runtime/error.h"

namespace lamina {

std::unique_ptr<Backend> make_cuda_backend(int) {
  throw UserError("--device cuda is not available: this build has no CUDA backend, use --device cpu");
}

std::string cuda_description() { return "not built in"; }
std::string nccl_description() { return "not built in"; }

}  // namespace lamina
