// Causal dot-product attention as one writes it with a BLAS: per batch and head a matrix product, a softmax by rows, a
// matrix product. Arrays are [B, T, H, D]; the whole T×T square is computed, as libraries without a fused kernel do.
// Threads share out the heads, each with a BLAS of one thread, which is faster than the other way round.
//
//   OPENBLAS_NUM_THREADS=1 openblas_attention SAMPLES THREADS B T H D
#include <cblas.h>
#include <math.h>
#include <stdio.h>

#include "rounds.h"

extern char* openblas_get_corename(void);

typedef struct {
  float *q, *k, *v, *out, *scores;  // scores: [threads, T, T]
  int B, T, H, D;
} Attention;

// e^x for x ≤ 0 by 2^n · 2^f with a polynomial of degree 5: about 2e-7, and the compiler can vectorise it.
static inline float fast_exp(float x) {
  const float t = fmaxf(x, -87.0f) * 1.44269504f;
  const float n = floorf(t + 0.5f), f = t - n;
  const float p =
      1 + f * (0.693147182f + f * (0.240226462f + f * (0.0555034652f + f * (0.00961813331f + f * 0.00133395616f))));
  union {
    int i;
    float f;
  } power = {((int)n + 127) << 23};
  return p * power.f;
}

static void softmax_rows(float* scores, int T) {
  for (int i = 0; i < T; ++i) {
    float* row = scores + (size_t)i * T;
    float most = row[0], sum = 0;
    for (int j = 1; j <= i; ++j) most = fmaxf(most, row[j]);
    for (int j = 0; j <= i; ++j) row[j] = fast_exp(row[j] - most);
    for (int j = 0; j <= i; ++j) sum += row[j];
    for (int j = 0; j <= i; ++j) row[j] /= sum;
    for (int j = i + 1; j < T; ++j) row[j] = 0;
  }
}

static void heads(int thread, int threads, void* context) {
  const Attention* x = context;
  const int T = x->T, D = x->D, stride = x->H * D;
  float* scores = x->scores + (size_t)thread * T * T;
  for (int head = thread; head < x->B * x->H; head += threads) {
    const size_t at = (size_t)(head / x->H) * T * stride + (size_t)(head % x->H) * D;
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, T, T, D, 1 / sqrtf((float)D), x->q + at, stride, x->k + at,
                stride, 0, scores, T);
    softmax_rows(scores, T);
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, T, D, T, 1, scores, T, x->v + at, stride, 0, x->out + at,
                stride);
  }
}

static float* random_array(size_t n) {
  float* x = malloc(n * sizeof(float));
  if (!x) exit(1);
  for (size_t i = 0; i < n; ++i) x[i] = (float)rand() / (float)RAND_MAX - 0.5f;
  return x;
}

int main(int argc, char** argv) {
  if (argc != 7) return 2;
  const int samples = atoi(argv[1]), threads = atoi(argv[2]);
  Attention x = {.B = atoi(argv[3]), .T = atoi(argv[4]), .H = atoi(argv[5]), .D = atoi(argv[6])};
  const size_t n = (size_t)x.B * x.T * x.H * x.D;
  x.q = random_array(n), x.k = random_array(n), x.v = random_array(n), x.out = random_array(n);
  x.scores = random_array((size_t)threads * x.T * x.T);
  const double best = best_round(threads, samples + 1, heads, &x);  // the first warms up
  double sum = 0;
  for (size_t i = 0; i < n; ++i) sum += x.out[i];
  printf("{\"seconds\": %.9f, \"core\": \"%s\", \"check\": %g}\n", best, openblas_get_corename(), sum);
  return 0;
}
