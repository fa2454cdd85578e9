// Work sharing for CPU kernels: one pool of native threads that sleep when there is nothing to do.
#pragma once

#include <cstddef>
#include <cstdint>

#include "llmeff/view.h"

namespace llmeff {

// Threads that share a kernel's tasks, the calling one included (LLMEFF_NUM_THREADS, else the cores this process may
// use; fewer if the system starts no more).
int num_threads();

// Runs task(context, i, worker) for every i in [0, count), each exactly once, in any order, and returns when all are
// done. `worker` in [0, num_threads()) is the same for all tasks that one thread runs. A task that throws ends the
// rest; the first exception is thrown again here. Not reentrant: a task must not start tasks.
void run_tasks(int64_t count, void (*task)(void* context, int64_t i, int worker), void* context);

// Results must not depend on the number of threads: cut work by size, never by num_threads(), and let tasks write
// disjoint memory; add partial results afterwards in task order.
template <class F>
LLMEFF_INLINE void parallel_for(int64_t count, const F& body) {
  if (count == 1) return body(int64_t{0}, 0);
  run_tasks(
      count, [](void* context, int64_t i, int worker) { (*static_cast<const F*>(context))(i, worker); },
      const_cast<void*>(static_cast<const void*>(&body)));
}

// Memory for the length of one kernel, 64-byte aligned, uninitialised, kept and grown from call to call.
// `worker_scratch` belongs to one worker (every call with the same worker returns the same block, so take all you need
// in one call); `shared_scratch` is one block for the whole kernel, to be taken before parallel_for.
void* worker_scratch_bytes(int worker, size_t bytes);
void* shared_scratch_bytes(size_t bytes);

template <class T>
LLMEFF_INLINE T* worker_scratch(int worker, int64_t count) {
  return static_cast<T*>(worker_scratch_bytes(worker, static_cast<size_t>(count) * sizeof(T)));
}
template <class T>
LLMEFF_INLINE T* shared_scratch(int64_t count) {
  return static_cast<T*>(shared_scratch_bytes(static_cast<size_t>(count) * sizeof(T)));
}

}  // namespace llmeff
