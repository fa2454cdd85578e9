// QR by Householder reflections, by cuSOLVER. Each column is scaled on its own: that changes no bit of q.
#include "cuda/cusolver.h"
#include "cuda/kernels/cuda_kernels.h"
#include "cuda/kernels/matrices.cuh"

namespace llmeff::cuda {

void CudaKernels::qr(const In& a, const Out& q, const Out& r) {
  Cusolver& library = cusolver_for(cuda_, "qr");
  const int64_t m = a.dim(-2), n = a.dim(-1), k = m < n ? m : n, batch = batches_of(a);
  with_real(a.dtype, [&]<class T>(T) {
    const Survey found = survey<T>(cuda_, a, Part::kAll, true);
    T* const work = cuda_.scratch<T>(batch * m * n);
    T* const tau = cuda_.scratch<T>(batch * k);
    int* const info = cuda_.scratch<int>(batch);
    move(cuda_, by_rows(a.as<T>(), m, n), by_columns(work, m, n), m, n, Part::kAll, found, Way::kIn, batch);
    library.qr(cuda_, a.dtype, m, n, work, tau, batch, info);
    move(cuda_, by_columns(work, m, n), by_rows(r.as<T>(), k, n), k, n, Part::kUpper, found, Way::kOut, batch);
    library.orthonormal(cuda_, a.dtype, m, k, work, m * n, tau, batch, info);
    move(cuda_, by_columns(work, m, n), by_rows(q.as<T>(), m, k), m, k, Part::kAll, found, Way::kOutUnscaled, batch);
  });
}

}  // namespace llmeff::cuda
