// Singular values and vectors, by cuSOLVER, which takes square and tall matrices by columns: a wide one by rows is that
// already, of its transpose; others are turned.
#include "cuda/cusolver.h"
#include "cuda/kernels/cuda_kernels.h"
#include "cuda/kernels/matrices.cuh"

namespace llmeff::cuda {

void CudaKernels::svd(const In& a, const Out& u, const Out& s, const Out& vh) {
  Cusolver& library = cusolver_for(cuda_, "svd");
  const int64_t m = a.dim(-2), n = a.dim(-1), k = m < n ? m : n, batch = batches_of(a);
  const bool turned = m > n;
  with_real(a.dtype, [&]<class T>(T) {
    const Survey found = survey<T>(cuda_, a, Part::kAll, false);
    T* const work = cuda_.scratch<T>(batch * m * n);
    T* const left = cuda_.scratch<T>(batch * (turned ? m : n) * k);
    T* const right = cuda_.scratch<T>(batch * k * k);
    T* const sizes = cuda_.scratch<T>(batch * k);
    int* const info = cuda_.scratch<int>(batch);
    const auto placed = turned ? by_columns(work, m, n) : by_rows(work, m, n);
    move(cuda_, by_rows(a.as<T>(), m, n), placed, m, n, Part::kAll, found, Way::kIn, batch);
    library.svd(cuda_, a.dtype, turned ? m : n, k, work, left, sizes, right, batch, info);
    // Of the transpose the left vectors are ours on the right.
    const auto us = turned ? by_columns(left, m, k) : by_rows(right, m, k);
    const auto vs = turned ? by_columns(right, k, n) : by_rows(left, k, n);
    move(cuda_, us, by_rows(u.as<T>(), m, k), m, k, Part::kAll, found, Way::kOutUnscaled, batch);
    move(cuda_, vs, by_rows(vh.as<T>(), k, n), k, n, Part::kAll, found, Way::kOutUnscaled, batch);
    move(cuda_, by_rows(sizes, 1, k), by_rows(s.as<T>(), 1, k), 1, k, Part::kAll, found, Way::kOut, batch);
    report(cuda_, info, found, batch, "[svd] the singular values");
  });
}

}  // namespace llmeff::cuda
