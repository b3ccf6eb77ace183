// Work items over the threads of one rank.
#pragma once

#include <cstddef>

namespace lamina {

/// Calls body(0) … body(count - 1), on up to `threads` threads. Items must not depend on each other; the
/// first exception is rethrown after all have ended; UserError where there are not so many threads to be had.
/// With one thread, or inside an item, it is a plain loop.
template <class Body>
void parallel_for(int threads, std::size_t count, const Body& body);

namespace parallel {

/// A body without its type: no memory is taken for it.
struct Items {
  const void* body;
  void (*call)(const void* body, std::size_t item);

  void operator()(std::size_t item) const { call(body, item); }
};

/// On the team of the calling thread.
void run(int threads, std::size_t count, const Items& items);

}  // namespace parallel

template <class Body>
void parallel_for(int threads, std::size_t count, const Body& body) {
  if (threads > 1 && count > 1)
    return parallel::run(threads, count, {&body, [](const void* object, std::size_t item) {
                                            (*static_cast<const Body*>(object))(item);
                                          }});
  for (std::size_t i = 0; i < count; ++i) body(i);
}

}  // namespace lamina
