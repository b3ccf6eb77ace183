// NVIDIA's header for host code; here the same as cuda_runtime.h.
#pragma once

#include "cuda_runtime.h"
