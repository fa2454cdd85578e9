// float32 matrix products of the system's OpenBLAS, timed as the engine's are: samples of at least SAMPLE_MS, the
// fastest counts.
//
//   openblas SAMPLES SAMPLE_MS (M N K TRANSPOSED_A TRANSPOSED_B)…       threads: OPENBLAS_NUM_THREADS
#include <cblas.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

extern char* openblas_get_corename(void);

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static float* random_array(size_t n) {
  float* x = malloc(n * sizeof(float));
  if (!x) exit(1);
  for (size_t i = 0; i < n; ++i) x[i] = (float)rand() / (float)RAND_MAX - 0.5f;
  return x;
}

int main(int argc, char** argv) {
  if (argc < 8 || (argc - 3) % 5 != 0) return 2;
  const int samples = atoi(argv[1]);
  const double sample_seconds = atof(argv[2]) / 1e3;
  for (int at = 3; at < argc; at += 5) {
    const int m = atoi(argv[at]), n = atoi(argv[at + 1]), k = atoi(argv[at + 2]);
    const int ta = atoi(argv[at + 3]), tb = atoi(argv[at + 4]);
    float *a = random_array((size_t)m * k), *b = random_array((size_t)k * n), *c = random_array((size_t)m * n);
    double best = INFINITY, sum = 0;
    int count = 1;
    for (int i = -2; i < samples; ++i) {
      const double start = now();
      for (int r = 0; r < count; ++r)
        cblas_sgemm(CblasRowMajor, ta ? CblasTrans : CblasNoTrans, tb ? CblasTrans : CblasNoTrans, m, n, k, 1, a,
                    ta ? m : k, b, tb ? k : n, 0, c, n);
      const double seconds = (now() - start) / count;
      if (i == -1) count = (int)fmax(1, sample_seconds / seconds + 0.5);
      if (i >= 0 && seconds < best) best = seconds;
    }
    for (size_t i = 0; i < (size_t)m * n; ++i) sum += c[i];
    printf("{\"gflops\": %.2f, \"core\": \"%s\", \"check\": %g}\n", 2.0 * m * n * k / best / 1e9,
           openblas_get_corename(), sum);
    free(a);
    free(b);
    free(c);
  }
  return 0;
}
