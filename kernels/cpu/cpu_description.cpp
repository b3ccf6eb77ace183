#include <dnnl.h>

#include <string>

#include "kernels/backends.h"
#include "kernels/cpu/cpu_model.h"
#include "kernels/cpu/elementwise.h"
#include "kernels/cpu/panel_products.h"

namespace lamina {
namespace {

std::string onednn_version() {
  const dnnl_version_t& version = *dnnl_version();
  return std::to_string(version.major) + "." + std::to_string(version.minor) + "." +
         std::to_string(version.patch);
}

}  // namespace

std::string cpu_description() {
  const char* bf16 = cpu_multiplies_bf16() ? ", bf16 by AVX512-BF16" : ", bf16 widened to f32";
  return cpu_model().name + ", " + elementwise::instruction_set() + bf16 + ", oneDNN " + onednn_version();
}

bool cpu_multiplies_bf16() { return bf16_operands() == Operands::bf16_pairs; }

}  // namespace lamina
