// Eigen as the kernels use it: its whole namespace is one of this instruction set's, so that no function of it is
// shared between instruction sets. Its matrices are by columns; ours, by rows, are their transposes, and copies that
// are needed anyway turn them.
#pragma once

#define EIGEN_MPL2_ONLY
// Vectors of 512 bits gain its factorizations nothing over AVX2 and take three times as long to compile.
#undef __AVX512F__
#define EIGEN_DONT_PARALLELIZE
#define Eigen llmeff::cpu::LLMEFF_ISA::eigen
#include <Eigen/Core>

#include "llmeff/view.h"
#include "strided.h"

namespace llmeff::cpu::LLMEFF_ISA {

template <class T>
using Matrix = eigen::Matrix<T, eigen::Dynamic, eigen::Dynamic>;
template <class T>
using RowMatrix = eigen::Matrix<T, eigen::Dynamic, eigen::Dynamic, eigen::RowMajor>;
template <class T>
using Vector = eigen::Matrix<T, eigen::Dynamic, 1>;

// The matrices on the last two axes of contiguous arrays, or the vectors on the last.
template <class T>
LLMEFF_INLINE T* matrix_of(const View& v, int64_t batch) {
  return v.as<T>() + batch * v.dim(-2) * v.dim(-1);
}
template <class T>
LLMEFF_INLINE T* vector_of(const View& v, int64_t batch) {
  return v.as<T>() + batch * v.dim(-1);
}
LLMEFF_INLINE int64_t batches_of(const View& matrices) {
  return matrices.size() / (matrices.dim(-2) * matrices.dim(-1));
}

// body(batch) for every matrix; `steps` is about how many numbers one is worth.
template <class F>
LLMEFF_INLINE void for_each_matrix(const View& matrices, const F& body) {
  const int64_t m = matrices.dim(-2), n = matrices.dim(-1);
  parallel_items(batches_of(matrices), m * n * smaller(m, n), [&](int64_t batch, int) { body(batch); });
}

// f(tag of T) for the dtype of the arrays.
template <class F>
LLMEFF_INLINE void with_real(DType dtype, const F& f) {
  if (dtype == DType::kF64)
    f(double{});
  else
    f(float{});
}

// 2^exponent is just above x; 0 for 0.
template <class T>
LLMEFF_INLINE int exponent_of(T x) {
  int exponent = 0;
  if (x > 0) __builtin_frexp(static_cast<double>(x), &exponent);
  return exponent;
}
// x[i] ·= 2^exponent.
template <class T>
LLMEFF_INLINE void scale_by(T* x, int64_t count, int exponent) {
  if (exponent == 0) return;
  for (int64_t i = 0; i < count; ++i) x[i] = static_cast<T>(__builtin_ldexp(static_cast<double>(x[i]), exponent));
}

template <class T>
LLMEFF_INLINE bool all_finite(const T* x, int64_t count) {
  T zeros = 0;
  for (int64_t i = 0; i < count; ++i) zeros += x[i] * 0;
  return zeros == 0;
}
// Of the lower triangle of a matrix by rows.
template <class T>
LLMEFF_INLINE bool lower_finite(const T* a, int64_t n) {
  for (int64_t i = 0; i < n; ++i)
    if (!all_finite(a + i * n, i + 1)) return false;
  return true;
}
template <class T>
LLMEFF_INLINE void fill_nan(T* x, int64_t count) {
  for (int64_t i = 0; i < count; ++i) x[i] = static_cast<T>(__builtin_nan(""));
}

}  // namespace llmeff::cpu::LLMEFF_ISA
