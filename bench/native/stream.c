// The most bytes a second that the cores exchange with memory (or a cache, if the arrays fit): a ← a·s + b, in place
// like an optimizer's step, so that every byte written was read and 12 bytes an element are all there are.
//
//   stream THREADS BYTES      BYTES: of both arrays together
#include <stdio.h>

#include "rounds.h"

typedef struct {
  float *a, *b;
  size_t n;
} Arrays;

static void scale_add(int thread, int threads, void* context) {
  const Arrays* x = context;
  const size_t begin = x->n * (size_t)thread / (size_t)threads / 16 * 16;
  const size_t end = thread + 1 == threads ? x->n : x->n * (size_t)(thread + 1) / (size_t)threads / 16 * 16;
  float* restrict a = x->a;
  const float* restrict b = x->b;
  for (size_t i = begin; i < end; ++i) a[i] = a[i] * 0.5f + b[i];
}

// Each thread touches first the pages that it will use.
static void first_touch(int thread, int threads, void* context) {
  const Arrays* x = context;
  const size_t begin = x->n * (size_t)thread / (size_t)threads / 16 * 16;
  const size_t end = thread + 1 == threads ? x->n : x->n * (size_t)(thread + 1) / (size_t)threads / 16 * 16;
  for (size_t i = begin; i < end; ++i) {
    x->a[i] = 1;
    x->b[i] = 2;
  }
}

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  const int threads = atoi(argv[1]);
  const size_t n = strtoull(argv[2], NULL, 10) / 2 / sizeof(float) / 16 * 16;
  Arrays x = {aligned_alloc(64, n * sizeof(float)), aligned_alloc(64, n * sizeof(float)), n};
  if (!x.a || !x.b || n == 0) return 1;
  best_round(threads, 1, first_touch, &x);
  const int rounds = n > 10000000 ? 20 : 200;
  const double seconds = best_round(threads, rounds, scale_add, &x);
  printf("{\"gbs\": %.2f, \"check\": %g}\n", 12.0 * (double)n / seconds / 1e9, (double)x.a[n / 2]);
  free(x.a);
  free(x.b);
  return 0;
}
