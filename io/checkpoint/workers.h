// Tensors of a rank, worked on by a few threads at once.
#pragma once

#include <cstddef>
#include <functional>

namespace lamina::checkpoint {

/// How many threads a rank may use beside `ranks` - 1 others: its share of the cores, at most 4.
int workers_of_rank(int ranks);

/// task(0), …, task(count - 1), each once, on up to `workers` threads; returns when all have ended. The
/// failure of the lowest task that failed is rethrown. Where no thread can be had, the caller's does the
/// work.
void work_in_parallel(int workers, std::size_t count, const std::function<void(std::size_t)>& task);

}  // namespace lamina::checkpoint
