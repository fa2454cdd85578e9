// What the kernels for products of few rows share: their arguments, which row of which matrix an output is made of, and
// what is done with its sum.
#pragma once

#include "cuda/context.h"
#include "cuda/kernels/activation.cuh"
#include "cuda/kernels/rows.cuh"

namespace llmeff::cuda {

constexpr int kMostMatrices = 8, kMostMmaRows = 32;

struct Gemv {
  const void* weights[kMostMatrices];
  int64_t weight_strides[kMostMatrices];
  int64_t ends[kMostMatrices];             // of their outputs
  const void *x, *bias, *norm, *residual;  // the last three may be null
  void *out, *pre;                         // laid out alike; pre may be null
  int64_t x_stride, out_stride, residual_stride, outputs;
  int rows, packs;  // packs of 16 bytes in a row
  Activation activation;
  float norm_offset, eps;
  bool settled;  // no kernel that is under way writes the weights, those of the norm included
};

// For several rows of 16-bit numbers; returns whether it took the product.
bool gemv_mma(Context& cuda, const Gemv& a, DType dtype, bool gated);

#ifdef __CUDACC__

// The weights of an output. Matrices that gate each other have one of each; of others outputs are side by side.
template <class T>
__device__ __forceinline__ const T* weights_of_gated(const Gemv& a, int matrix, int64_t n) {
  return static_cast<const T*>(a.weights[matrix]) + n * a.weight_strides[matrix];
}
template <class T>
__device__ __forceinline__ const T* weights_of(const Gemv& a, int64_t n) {
  int matrix = 0;
  while (n >= a.ends[matrix]) ++matrix;
  return weights_of_gated<T>(a, matrix, matrix == 0 ? n : n - a.ends[matrix - 1]);
}

// What is added to an output: before the activation, and after it.
struct Added {
  float bias = 0, residual = 0;
};
template <class T>
__device__ __forceinline__ Added added_to(const Gemv& a, int m, int64_t n) {
  Added added;
  if (a.bias != nullptr) added.bias = widen<float>(static_cast<const T*>(a.bias)[n]);
  if (a.residual != nullptr)
    added.residual = widen<float>(static_cast<const T*>(a.residual)[m * a.residual_stride + n]);
  return added;
}

template <class T>
__device__ __forceinline__ void write(const Gemv& a, int m, int64_t n, float sum, Added added) {
  const int64_t at = m * a.out_stride + n;
  const float biased = a.bias == nullptr ? sum : sum + added.bias;
  if (a.pre != nullptr) static_cast<T*>(a.pre)[at] = narrow<T>(biased);
  const T result = narrow<T>(activate(a.activation, biased));
  static_cast<T*>(a.out)[at] = a.residual == nullptr ? result : narrow<T>(added.residual + widen<float>(result));
}
// silu of the one times the other, both rounded before.
template <class T>
__device__ __forceinline__ void write_gated(const Gemv& a, int m, int64_t n, float of_gate, float of_up) {
  const float gate = widen<float>(narrow<T>(of_gate)), up = widen<float>(narrow<T>(of_up));
  static_cast<T*>(a.out)[m * a.out_stride + n] = narrow<T>(gate / (1 + __expf(-gate)) * up);
}

#endif

}  // namespace llmeff::cuda
