// Cholesky factors and triangular systems, by cuSOLVER and cuBLAS. A triangle by rows is the other one by columns.
#include "cuda/cusolver.h"
#include "cuda/kernels/cuda_kernels.h"
#include "cuda/kernels/matrices.cuh"

namespace llmeff::cuda {
namespace {

// The first pivot that isn't positive: the library's, or one that it let pass because it is no number.
template <class T>
__global__ void pivots_kernel(const T* l, int64_t n, const int* info, const int* bad, int64_t batch, ValueCheck check) {
  const int64_t at = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x, b = at / n, i = at % n;
  if (b >= batch || bad[b] != 0) return;
  if (i == 0 && info[b] > 0) check.bad(b, info[b] - 1);
  const T pivot = l[b * n * n + i * (n + 1)];
  if (info[b] == 0 && !(pivot > 0 && pivot <= static_cast<T>(INFINITY))) check.bad(b, static_cast<int32_t>(i));
}

}  // namespace

void CudaKernels::cholesky(const In& a, const Out& l) {
  Cusolver& library = cusolver_for(cuda_, "cholesky");
  const int64_t n = a.dim(-1), batch = batches_of(a);
  with_real(a.dtype, [&]<class T>(T) {
    const Survey found = survey<T>(cuda_, a, Part::kLower, false);
    int* const info = cuda_.scratch<int>(batch);
    LLMEFF_CUDA(cudaMemsetAsync(info, 0, static_cast<size_t>(batch) * sizeof(int), cuda_.stream));
    T* const work = cuda_.scratch<T>(batch * n * n);
    move(cuda_, by_rows(a.as<T>(), n, n), by_rows(work, n, n), n, n, Part::kLower, found, Way::kInUnscaled, batch);
    library.cholesky(cuda_, a.dtype, n, work, batch, info);
    move(cuda_, by_rows(work, n, n), by_rows(l.as<T>(), n, n), n, n, Part::kLower, found, Way::kOutUnscaled, batch);
    const ValueCheck check = cuda_.check_values(
        [](int64_t b, int32_t pivot) {
          return "[cholesky] matrix " + std::to_string(b) + " of the batch is not positive definite: pivot " +
                 std::to_string(pivot) + " is not positive. Add a multiple of the identity.";
        },
        "ERR_LINALG");
    pivots_kernel<<<static_cast<unsigned>((batch * n + 255) / 256), 256, 0, cuda_.stream>>>(work, n, info, found.bad,
                                                                                            batch, check);
    LLMEFF_LAUNCHED("pivots_kernel");
  });
}

// By columns x and b are transposed: xᵀ·op(l)ᵀ = bᵀ for l on the left.
void CudaKernels::triangular_solve(const In& l, const In& b, bool upper, bool transposed, bool left, const Out& x) {
  Cusolver& library = cusolver_for(cuda_, "triangularSolve");
  LLMEFF_CUDA(cudaMemcpyAsync(x.data, b.data, static_cast<size_t>(b.size() * item_size(b.dtype)),
                              cudaMemcpyDeviceToDevice, cuda_.stream));
  library.solve(cuda_, b.dtype, b.dim(-1), b.dim(-2), l.data, !upper, transposed, !left, x.data, batches_of(b));
}

}  // namespace llmeff::cuda
