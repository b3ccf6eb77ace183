// Which CPU this is, as the system tells it.
#pragma once

#include <istream>
#include <string>

namespace lamina {

struct CpuModel {
  std::string name = "CPU of unknown model", vendor;
  bool has_avx512_bf16 = false;

  /// Whether its VDPBF16PS is faster than the two fused multiply-adds that it stands for. Intel's is not:
  /// where it was measured, it takes the time of six (BENCHMARKS.md).
  bool is_fast_at_bf16() const { return has_avx512_bf16 && vendor != "GenuineIntel"; }
};

/// From the text of /proc/cpuinfo; the first processor stands for all.
CpuModel read_cpu_model(std::istream& text);
/// Of this machine.
const CpuModel& cpu_model();

}  // namespace lamina
