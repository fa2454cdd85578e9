// Eigenvalues and eigenvectors of symmetric matrices, by cuSOLVER: divide and conquer, or for a batch of small ones all
// at once. The lower triangle by rows is the upper one by columns.
//
// float32 matrices are decomposed in float64: in float32 the library's eigenvectors of a graded matrix (7×7, entries from
// 1 to 1e-24) are orthogonal to 2e-3 only.
#include "cuda/cusolver.h"
#include "cuda/kernels/cuda_kernels.h"
#include "cuda/kernels/matrices.cuh"

namespace llmeff::cuda {

void CudaKernels::eigh(const In& a, const Out& values, const Out& vectors) {
  Cusolver& library = cusolver_for(cuda_, "eigh");
  const int64_t n = a.dim(-1), batch = batches_of(a);
  with_real(a.dtype, [&]<class T>(T) {
    const Survey found = survey<T>(cuda_, a, Part::kLower, false);
    double* const work = cuda_.scratch<double>(batch * n * n);
    double* const spectrum = cuda_.scratch<double>(batch * n);
    int* const info = cuda_.scratch<int>(batch);
    move(cuda_, by_rows(a.as<T>(), n, n), by_rows(work, n, n), n, n, Part::kLower, found, Way::kIn, batch);
    library.eigh(cuda_, DType::kF64, n, work, spectrum, batch, info);
    move(cuda_, by_columns(work, n, n), by_rows(vectors.as<T>(), n, n), n, n, Part::kAll, found, Way::kOutUnscaled,
         batch);
    move(cuda_, by_rows(spectrum, 1, n), by_rows(values.as<T>(), 1, n), 1, n, Part::kAll, found, Way::kOut, batch);
    report(cuda_, info, found, batch, "[eigh] the eigenvalues");
  });
}

}  // namespace llmeff::cuda
