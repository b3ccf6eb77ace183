#include "kernels/cpu/cpu_model.h"

#include <fstream>

namespace lamina {

CpuModel read_cpu_model(std::istream& text) {
  CpuModel model;
  for (std::string line; std::getline(text, line) && !line.empty();) {
    const std::size_t colon = line.find(": ");
    if (colon == std::string::npos) continue;
    const std::string value = line.substr(colon + 2);
    if (line.starts_with("model name")) model.name = value;
    if (line.starts_with("vendor_id")) model.vendor = value;
    if (line.starts_with("flags"))
      model.has_avx512_bf16 = (' ' + value + ' ').find(" avx512_bf16 ") != std::string::npos;
  }
  return model;
}

const CpuModel& cpu_model() {
  static const CpuModel model = [] {
    std::ifstream text("/proc/cpuinfo");
    return read_cpu_model(text);
  }();
  return model;
}

}  // namespace lamina
