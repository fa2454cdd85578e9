// Functions of one number in float32 and float64, written so that nothing cancels: what element-wise kernels
// compute. CUDA's own functions are within a few units of the last place.
#pragma once

#include <cuda_runtime.h>

namespace llmeff::cuda {

// A NaN in either operand stays.
template <class T>
__device__ __forceinline__ T nan_max(T x, T running) {
  return x > running || x != x ? x : running;
}
template <class T>
__device__ __forceinline__ T nan_min(T x, T running) {
  return x < running || x != x ? x : running;
}
// One instruction, which the language has no name for.
__device__ __forceinline__ float nan_max(float a, float b) {
  float larger;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(larger) : "f"(a), "f"(b));
  return larger;
}
__device__ __forceinline__ float nan_min(float a, float b) {
  float smaller;
  asm("min.NaN.f32 %0, %1, %2;" : "=f"(smaller) : "f"(a), "f"(b));
  return smaller;
}

template <class T>
__device__ __forceinline__ T infinity() {
  return static_cast<T>(__builtin_inff());
}

// 1 / d within a unit of the last place, for d that is neither subnormal nor very large.
__device__ __forceinline__ float inverse(float d) {
  float result;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(d));
  return result;
}
__device__ __forceinline__ double inverse(double d) {
  return 1.0 / d;
}

// sigmoid(x) and sigmoid(−x) = 1 − sigmoid(x).
template <class T>
struct Logistic {
  T value, complement;
};
template <class T>
__device__ __forceinline__ Logistic<T> logistic_pair(T x) {
  const T e = exp(-fabs(x)), large = inverse(T(1) + e), small = e * large;
  return x < T(0) ? Logistic<T>{small, large} : Logistic<T>{large, small};
}
// sigmoid(x) · sigmoid(−x), the slope of sigmoid.
template <class T>
__device__ __forceinline__ T logistic_slope(T x) {
  const T e = exp(-fabs(x)), d = inverse(T(1) + e);
  return e * d * d;
}

// gelu in the tanh form, x/2·(1 + tanh u) with u = √(2/π)·(x + 0.044715 x³), is x·sigmoid(2u). This is 2u, and its
// derivative.
template <class T>
__device__ __forceinline__ T gelu_argument(T x) {
  return T(1.5957691216057308) * (x + T(0.044715) * x * x * x);
}
template <class T>
__device__ __forceinline__ T gelu_argument_slope(T x) {
  return T(1.5957691216057308) * (T(1) + T(3 * 0.044715) * x * x);
}

// The normal distribution function, exact to a few roundings in the lower tail too:
//   Φ(−a) = ½ e^(−a²/2) · t · P(t),  t = 1 / (1 + a/√8),  a ≥ 0   (P minimax of degree 10, as cpu/kernels/vector_erf.h)
// What rounding takes from the square counts absolutely in the exponent and is put back.
__device__ __forceinline__ float normal_cdf(float x) {
  const float a = fminf(fabsf(x), 20.0f), t = inverse(fmaf(a, 0.3535533906f, 1.0f)), s = t - 0.5f;
  float p = 3.557361542e-2f;
  p = fmaf(p, s, -1.201632306e-2f);
  p = fmaf(p, s, -7.58477899e-2f);
  p = fmaf(p, s, 5.325198451e-2f);
  p = fmaf(p, s, 9.800336389e-2f);
  p = fmaf(p, s, -0.1036140601f);
  p = fmaf(p, s, -0.1720457768f);
  p = fmaf(p, s, 0.145767135f);
  p = fmaf(p, s, 0.5589435416f);
  p = fmaf(p, s, 0.6871606971f);
  p = fmaf(p, s, 0.5107913543f);
  const float square = a * a, lost = fmaf(a, a, -square), power = expf(-0.5f * square);
  const float tail = 0.5f * fmaf(power, -0.5f * lost, power) * (t * p);
  return x < 0.0f ? tail : x >= 0.0f ? 1.0f - tail : x;
}
__device__ __forceinline__ double normal_cdf(double x) {
  return normcdf(x);
}

template <class T>
__device__ __forceinline__ T relu(T x) {
  return x < T(0) ? T(0) : x;
}
template <class T>
__device__ __forceinline__ T silu(T x) {
  return x * logistic_pair(x).value;
}
template <class T>
__device__ __forceinline__ T gelu(T x) {
  return x * logistic_pair(gelu_argument(x)).value;
}
template <class T>
__device__ __forceinline__ T gelu_erf(T x) {
  return x * normal_cdf(x);
}
template <class T>
__device__ __forceinline__ T softplus(T x) {
  return (x < T(0) ? T(0) : x) + log1p(exp(-fabs(x)));
}

// Where the slopes of silu and gelu have long been 0 or 1; keeps ∞ · 0 out of them.
template <class T>
__device__ __forceinline__ T limited(T x) {
  return x > T(1000) ? T(1000) : x < T(-1000) ? T(-1000) : x;
}
template <class T>
__device__ __forceinline__ T silu_slope(T x) {
  const T near = limited(x);
  const Logistic<T> s = logistic_pair(near);
  return s.value * (T(1) + near * s.complement);
}
template <class T>
__device__ __forceinline__ T gelu_slope(T x) {
  const T near = limited(x);
  const Logistic<T> s = logistic_pair(gelu_argument(near));
  return s.value * (T(1) + near * s.complement * gelu_argument_slope(near));
}
template <class T>
__device__ __forceinline__ T gelu_erf_slope(T x) {
  const T near = limited(x);
  return normal_cdf(near) + near * (T(0.39894228040143268) * exp(T(-0.5) * near * near));
}

}  // namespace llmeff::cuda
