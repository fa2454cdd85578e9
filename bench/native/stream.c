// The most bytes a second that the cores exchange with memory (or a cache, if the arrays fit), as three loops of
// float32:
//
//   in-place      a ← a·s + b: like an optimizer's step every byte written was read, and 12 bytes an element are all
//   triad         a ← b + s·c, McCalpin's STREAM: counted as 12 bytes, though the line of a is read before it is
//   written triadStream   the same with stores that bypass the caches, so that 12 bytes it is (x86 only)
//
//   stream THREADS BYTES      BYTES: of all arrays together; one JSON line, GB/s of each
#include <stdio.h>
#include <string.h>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "rounds.h"

typedef struct {
  float *a, *b, *c;
  size_t n;
} Arrays;

// A thread's part of n elements, in whole cache lines.
static void part(size_t n, int thread, int threads, size_t* begin, size_t* end) {
  *begin = n * (size_t)thread / (size_t)threads / 16 * 16;
  *end = thread + 1 == threads ? n : n * (size_t)(thread + 1) / (size_t)threads / 16 * 16;
}

static void scale_add(int thread, int threads, void* context) {
  const Arrays* x = context;
  size_t begin, end;
  part(x->n, thread, threads, &begin, &end);
  float* restrict a = x->a;
  const float* restrict b = x->b;
  for (size_t i = begin; i < end; ++i) a[i] = a[i] * 0.5f + b[i];
}

static void triad(int thread, int threads, void* context) {
  const Arrays* x = context;
  size_t begin, end;
  part(x->n, thread, threads, &begin, &end);
  float* restrict a = x->a;
  const float* restrict b = x->b, * restrict c = x->c;
  for (size_t i = begin; i < end; ++i) a[i] = b[i] + 0.5f * c[i];
}

#if defined(__SSE2__)
static void triad_stream(int thread, int threads, void* context) {
  const Arrays* x = context;
  size_t begin, end;
  part(x->n, thread, threads, &begin, &end);
  const __m128 s = _mm_set1_ps(0.5f);
  for (size_t i = begin; i < end; i += 4)
    _mm_stream_ps(x->a + i, _mm_add_ps(_mm_load_ps(x->b + i), _mm_mul_ps(s, _mm_load_ps(x->c + i))));
  _mm_sfence();
}
#endif

// Each thread touches first the pages that it will use.
static void first_touch(int thread, int threads, void* context) {
  const Arrays* x = context;
  size_t begin, end;
  part(x->n, thread, threads, &begin, &end);
  for (size_t i = begin; i < end; ++i) {
    x->a[i] = 1;
    x->b[i] = 2;
    if (x->c != NULL) x->c[i] = 3;
  }
}

static float* array(size_t n) {
  float* memory = aligned_alloc(64, n * sizeof(float));
  if (memory == NULL) exit(1);
  return memory;
}

// GB/s of `work` over `arrays` arrays of `bytes` together, 12 bytes counted an element.
static double rate(int threads, size_t bytes, int arrays, work_fn work) {
  const size_t n = bytes / (size_t)arrays / sizeof(float) / 16 * 16;
  if (n == 0) exit(1);
  Arrays x = {array(n), array(n), arrays > 2 ? array(n) : NULL, n};
  best_round(threads, 1, first_touch, &x);
  const double seconds = best_round(threads, n > 10000000 ? 20 : 200, work, &x);
  if (x.a[n / 2] != x.a[n / 2]) exit(1);
  free(x.a);
  free(x.b);
  free(x.c);
  return 12.0 * (double)n / seconds / 1e9;
}

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  const int threads = atoi(argv[1]);
  const size_t bytes = strtoull(argv[2], NULL, 10);
  printf("{\"gbs\": %.2f, \"triadGbs\": %.2f", rate(threads, bytes, 2, scale_add), rate(threads, bytes, 3, triad));
#if defined(__SSE2__)
  printf(", \"triadStreamGbs\": %.2f", rate(threads, bytes, 3, triad_stream));
#endif
  printf("}\n");
  return 0;
}
