// Waiting for another thread: a short time awake, because waking a thread takes longer than most work here, and then
// asleep, so that neither an idle engine nor a busy neighbour costs anything.
#pragma once

#include <chrono>

namespace llmeff {

inline void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Whether condition() came true within `time`.
template <class F>
bool spin_until(std::chrono::microseconds time, F&& condition) {
  if (condition()) return true;
  const auto end = std::chrono::steady_clock::now() + time;
  do {
    for (int i = 0; i < 8; ++i) {
      pause();
      if (condition()) return true;
    }
  } while (std::chrono::steady_clock::now() < end);
  return false;
}

}  // namespace llmeff
