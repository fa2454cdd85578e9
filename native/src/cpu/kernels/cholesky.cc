// Cholesky factors and triangular systems.
#include "cpu_kernels.h"
#include "eigen.h"
#include "llmeff/error.h"

#include <Eigen/Cholesky>

namespace llmeff::cpu::LLMEFF_ISA {
namespace {

constexpr int64_t kColumns = 64;  // right-hand sides of a task

template <class T>
void factor(const T* a, T* l, int64_t n, int64_t batch) {
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j <= i; ++j) l[i * n + j] = a[i * n + j];
    for (int64_t j = i + 1; j < n; ++j) l[i * n + j] = 0;
  }
  if (!lower_finite(l, n)) return fill_nan(l, n * n);
  eigen::Map<RowMatrix<T>> matrix(l, n, n);
  int64_t pivot = eigen::internal::llt_inplace<T, eigen::Lower>::blocked(matrix);
  // The library lets pivots pass that are no number, as an overflow leaves them.
  for (int64_t i = 0; pivot < 0 && i < n; ++i)
    if (!(l[i * n + i] <= __builtin_huge_val())) pivot = i;
  if (pivot >= 0)
    fail("ERR_LINALG",
         "[cholesky] matrix %lld of the batch is not positive definite: pivot %lld is not positive. Add a multiple of "
         "the identity.",
         static_cast<long long>(batch), static_cast<long long>(pivot));
}

// Solves in place, on a matrix by columns that is the transpose of ours: x·t = b for l·x = b, t·x = b for x·l = b, with
// t the transpose of l.
template <class T, int Mode, class Triangle, class Side>
void solve_by(const Triangle& triangle, Side x, bool left) {
  if (left)
    triangle.template triangularView<Mode>().template solveInPlace<eigen::OnTheRight>(x);
  else
    triangle.template triangularView<Mode>().template solveInPlace<eigen::OnTheLeft>(x);
}

template <class T, class Side>
void solve(const T* l, int64_t n, bool upper, bool transposed, bool left, Side x) {
  const eigen::Map<const Matrix<T>> turned(l, n, n);
  const eigen::Map<const RowMatrix<T>> straight(l, n, n);
  if (transposed)
    upper ? solve_by<T, eigen::Upper>(straight, x, left) : solve_by<T, eigen::Lower>(straight, x, left);
  else
    upper ? solve_by<T, eigen::Lower>(turned, x, left) : solve_by<T, eigen::Upper>(turned, x, left);
}

}  // namespace

void CpuKernels::cholesky(const In& a, const Out& l) {
  const int64_t n = a.dim(-1);
  with_real(a.dtype, [&]<class T>(T) {
    for_each_matrix(a, [&](int64_t batch) { factor(matrix_of<T>(a, batch), matrix_of<T>(l, batch), n, batch); });
  });
}

void CpuKernels::triangular_solve(const In& l, const In& b, bool upper, bool transposed, bool left, const Out& x) {
  const int64_t n = l.dim(-1), rows = b.dim(-2), columns = b.dim(-1), sides = left ? columns : rows;
  const int64_t pieces = ceil_div(sides, kColumns);
  with_real(b.dtype, [&]<class T>(T) {
    parallel_items(batches_of(b) * pieces, n * n * smaller(sides, kColumns), [&](int64_t item, int) {
      const int64_t batch = item / pieces, first = item % pieces * kColumns, count = smaller(kColumns, sides - first);
      using Piece = eigen::Map<Matrix<T>, 0, eigen::OuterStride<>>;
      const int64_t at = batch * rows * columns + (left ? first : first * columns);
      Piece out(x.as<T>() + at, left ? count : columns, left ? rows : count, eigen::OuterStride<>(columns));
      out = Piece(b.as<T>() + at, out.rows(), out.cols(), eigen::OuterStride<>(columns));
      solve<T>(matrix_of<T>(l, batch), n, upper, transposed, left, out);
    });
  });
}

}  // namespace llmeff::cpu::LLMEFF_ISA
