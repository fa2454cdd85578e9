// The most float32 operations a second that the cores reach: independent multiply-adds that never leave the registers.
//
//   fma THREADS          compiled with -DWIDTH=<bytes of a vector register>
//
// 12 accumulators hide the latency of 4 clocks of two units; with two constants they fit the 16 registers of SSE and
// AVX2.
#include <stdio.h>

#include "rounds.h"

typedef float vec __attribute__((vector_size(WIDTH)));
enum { kAccumulators = 12, kLanes = WIDTH / sizeof(float), kSteps = 2000000 };

static void multiply_add(int thread, int threads, void* context) {
  (void)threads;
  const vec zero = {0};
  vec scale = zero + 0.999f, shift = zero + 1e-3f;
  __asm__ volatile("" ::"m"(scale), "m"(shift) : "memory");
  vec a[kAccumulators];
  for (int i = 0; i < kAccumulators; ++i) a[i] = zero + (float)i;
  for (int step = 0; step < kSteps; ++step)
#pragma GCC unroll 12
    for (int i = 0; i < kAccumulators; ++i) a[i] = a[i] * scale + shift;
  vec sum = zero;
  for (int i = 0; i < kAccumulators; ++i) sum += a[i];
  ((float*)context)[16 * thread] = sum[0];
}

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  const int threads = atoi(argv[1]);
  float* sums = calloc((size_t)threads * 16, sizeof(float));
  const double seconds = best_round(threads, 25, multiply_add, sums);
  const double operations = 2.0 * kLanes * kAccumulators * (double)kSteps * threads;
  printf("{\"gflops\": %.2f, \"check\": %g}\n", operations / seconds / 1e9, (double)sums[0]);
  free(sums);
  return 0;
}
