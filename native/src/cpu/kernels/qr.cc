// QR by Householder reflections: the diagonal of r has the signs that LAPACK gives it.
#include "cpu_kernels.h"
#include "householder.h"

#include <Eigen/Householder>
#include <Eigen/QR>

namespace llmeff::cpu::LLMEFF_ISA {
namespace {

template <class T>
void factor(const T* a, T* q, T* r, int64_t m, int64_t n) {
  const int64_t k = smaller(m, n);
  if (!all_finite(a, m * n)) {
    fill_nan(q, m * k);
    return fill_nan(r, k * n);
  }
  Matrix<T> work = eigen::Map<const RowMatrix<T>>(a, m, n);
  eigen::Matrix<int, eigen::Dynamic, 1> scale(n);
  // Each column by a power of two, so that no square overflows or vanishes; that changes no bit of q.
  for (int64_t j = 0; j < n; ++j) {
    scale[j] = exponent_of(work.col(j).cwiseAbs().maxCoeff());
    scale_by(work.col(j).data(), m, -scale[j]);
  }
  Vector<T> taus(k), scratch(n);
  eigen::internal::householder_qr_inplace_blocked<Matrix<T>, Vector<T>>::run(work, taus, 48, scratch.data());
  for (int64_t i = 0; i < k; ++i)
    for (int64_t j = 0; j < n; ++j) r[i * n + j] = j < i ? 0 : static_cast<T>(__builtin_ldexp(work(i, j), scale[j]));
  Matrix<T> basis(m, k);
  reflected_identity(work, taus, 0, basis);
  eigen::Map<RowMatrix<T>>(q, m, k) = basis;
}

}  // namespace

void CpuKernels::qr(const In& a, const Out& q, const Out& r) {
  with_real(a.dtype, [&]<class T>(T) {
    for_each_matrix(a, [&](int64_t batch) {
      factor(matrix_of<T>(a, batch), matrix_of<T>(q, batch), matrix_of<T>(r, batch), a.dim(-2), a.dim(-1));
    });
  });
}

}  // namespace llmeff::cpu::LLMEFF_ISA
