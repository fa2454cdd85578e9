// cuSOLVER's factorizations and cuBLAS's triangular solves, opened at run time: one binary serves machines with and
// without them.
#pragma once

#include "cuda/context.h"
#include "llmeff/view.h"

namespace llmeff::cuda {

// Matrices are float32 or float64 and by columns, without gaps, one after another; they are overwritten. Of each matrix
// info receives 0, or a number that says what went wrong.
class Cusolver {
 public:
  // Null when the libraries are not to be had; why_missing() tells.
  static Cusolver* open(Context& cuda);
  static const char* why_missing();
  ~Cusolver();

  // a [n, n], by its upper triangle, becomes the eigenvectors; values [n] ascend.
  void eigh(Context& cuda, DType dtype, int64_t n, void* a, void* values, int64_t batch, int* info);
  // a [m, n] becomes r, on and above its diagonal, and reflections; tau [min(m, n)].
  void qr(Context& cuda, DType dtype, int64_t m, int64_t n, void* a, void* tau, int64_t batch, int* info);
  // Of what qr left, the first k columns become q [m, k]; matrices lie `stride` numbers apart.
  void orthonormal(Context& cuda, DType dtype, int64_t m, int64_t k, void* a, int64_t stride, const void* tau,
                   int64_t batch, int* info);
  // a [m, n], m ≥ n, is lost; u [m, n], s [n], vt [n, n].
  void svd(Context& cuda, DType dtype, int64_t m, int64_t n, void* a, void* u, void* s, void* vt, int64_t batch,
           int* info);
  // a [n, n], by its upper triangle, becomes r with rᵀ·r = a there.
  void cholesky(Context& cuda, DType dtype, int64_t n, void* a, int64_t batch, int* info);
  // b [m, n] becomes op(t)⁻¹·b, or b·op(t)⁻¹ where t stands right.
  void solve(Context& cuda, DType dtype, int64_t m, int64_t n, const void* t, bool upper, bool transposed, bool left,
             void* b, int64_t batch);

 private:
  Cusolver() = default;
  struct State;
  State* state_ = nullptr;
};

// Throws Error(ERR_DEVICE) where it is missing.
Cusolver& cusolver_for(Context& cuda, const char* op);

}  // namespace llmeff::cuda
