// Work items over the threads of one rank.
#pragma once

#include <cstddef>
#include <functional>

namespace lamina {

/// Calls body(0) … body(count - 1), on up to `threads` threads. Items must not depend on each other; the
/// first exception is rethrown after all have ended. With one thread, or inside an item, it is a plain loop.
void parallel_for(int threads, std::size_t count, const std::function<void(std::size_t)>& body);

}  // namespace lamina
