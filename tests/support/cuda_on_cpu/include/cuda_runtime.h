// Stands in for NVIDIA's header in builds without a GPU: kernels compiled by g++ run on the CPU.
// What it gives, what it checks and what it cannot do: tests/support/cuda_on_cpu/README.md.
#pragma once

#include "cuda_on_cpu/device.h"
#include "cuda_on_cpu/language.h"
#include "cuda_on_cpu/launch.h"
#include "cuda_on_cpu/runtime_api.h"
