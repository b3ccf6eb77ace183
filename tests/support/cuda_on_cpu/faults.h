// A sentence about a touch of device memory that no one may touch, before the program dies of it.
#pragma once

namespace cuda_on_cpu {

/// From now on, and on this thread also where its stack is used up.
void explain_faults();

}  // namespace cuda_on_cpu
