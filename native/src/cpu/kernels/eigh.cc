// Eigenvalues and eigenvectors of symmetric matrices: Householder reflections to tridiagonal form, then implicit QL or
// QR sweeps (as LAPACK's steqr chooses them, for graded matrices), whose rotations the vectors take many sweeps at
// once. The tridiagonal matrix is in float64 whatever the dtype: its share of the time is small.
#include "cpu_kernels.h"
#include "householder.h"
#include "llmeff/error.h"
#include "rotations.h"

#include <Eigen/Eigenvalues>

namespace llmeff::cpu::LLMEFF_ISA {
namespace {

constexpr int64_t kSweepsPerValue = 30;  // LAPACK's limit; two are usual

// d on the diagonal, e beside it.
struct Tridiagonal {
  double *d, *e;
  double eps;

  bool splits(int64_t i) const {
    const double size = __builtin_sqrt(__builtin_fabs(d[i])) * __builtin_sqrt(__builtin_fabs(d[i + 1]));
    return __builtin_fabs(e[i]) <= eps * size || __builtin_fabs(e[i]) < 1e-300;
  }
};

// A sweep with Wilkinson's shift over the block of `size` + 1 rows, from its far end to the near end, where it
// converges: position j is row far + way·j.
template <class T>
void sweep(const Tridiagonal& t, int64_t far, int64_t way, int64_t size, RotatedColumns<T>& vectors) {
  const auto d = [&](int64_t j) -> double& { return t.d[far + way * j]; };
  const auto e = [&](int64_t j) -> double& { return t.e[way > 0 ? far + j : far - j - 1]; };
  vectors.begin(way > 0 ? far : far - 1, way, size);
  const double slope = (d(size - 1) - d(size)) / (2 * e(size - 1));
  double g = d(0) - d(size) + e(size - 1) / (slope + __builtin_copysign(__builtin_hypot(slope, 1), slope));
  double c = 1, s = 1, p = 0;
  for (int64_t j = 0; j < size; ++j) {
    const double f = s * e(j), b = c * e(j);
    const Rotation turn = rotation_of(g, f);
    c = turn.c, s = turn.s;
    if (j > 0) e(j - 1) = turn.r;
    g = d(j) - p;
    const double r = (d(j + 1) - g) * s + 2 * c * b;
    p = s * r;
    d(j) = g + p;
    g = c * r - b;
    vectors.add(c, way > 0 ? s : -s);
  }
  d(size) -= p;
  e(size - 1) = g;
}

// Leaves the eigenvalues in t.d; false if they don't converge.
template <class T>
bool iterate(const Tridiagonal& t, int64_t n, RotatedColumns<T>& vectors) {
  int64_t sweeps = kSweepsPerValue * n;
  for (int64_t last = n - 1, old_first = n, old_last = n, way = 1; last > 0;) {
    int64_t first = last;
    while (first > 0 && !t.splits(first - 1)) --first;
    if (first > 0) t.e[first - 1] = 0;
    if (first == last) {
      --last;
      continue;
    }
    // Towards the smaller end, and so on while parts of the same block are left.
    if (first > old_last || last < old_first || old_last == n)
      way = __builtin_fabs(t.d[last]) < __builtin_fabs(t.d[first]) ? 1 : -1;
    old_first = first, old_last = last;
    if (sweeps-- == 0) return false;
    sweep(t, way > 0 ? first : last, way, last - first, vectors);
  }
  return true;
}

template <class T>
void decompose(const T* a, T* values, T* vectors, int64_t n, int64_t batch, bool alone) {
  if (!lower_finite(a, n)) {
    fill_nan(values, n);
    return fill_nan(vectors, n * n);
  }
  // Scaled by a power of two, so that no square overflows or vanishes.
  Matrix<T> matrix = eigen::Map<const RowMatrix<T>>(a, n, n).template triangularView<eigen::Lower>();
  const int scale = exponent_of(matrix.cwiseAbs().maxCoeff());
  scale_by(matrix.data(), n * n, -scale);
  Vector<double> d = matrix.diagonal().template cast<double>(), e(n);
  Matrix<T> basis = Matrix<T>::Identity(n, n);
  if (n > 1) {
    Vector<T> taus(n - 1);
    eigen::internal::tridiagonalization_inplace(matrix, taus);
    d = matrix.diagonal().template cast<double>();
    e.head(n - 1) = matrix.template diagonal<-1>().template cast<double>();
    reflected_identity(matrix, taus, 1, basis);
  }
  RotatedColumns<T> columns(basis, alone);
  const double eps = sizeof(T) == 8 ? 0x1p-53 : 0x1p-24;
  if (!iterate(Tridiagonal{d.data(), e.data(), eps}, n, columns))
    fail("ERR_LINALG", "[eigh] the eigenvalues of matrix %lld of the batch did not converge.",
         static_cast<long long>(batch));
  Vector<int64_t> order(n);
  sort_positions(d.data(), false, order.data(), n);
  for (int64_t j = 0; j < n; ++j) values[j] = static_cast<T>(__builtin_ldexp(d[order[j]], scale));
  const Vector<double> signs = Vector<double>::Ones(n);
  columns.write(order.data(), signs.data(), vectors, n, 1);
}

}  // namespace

void CpuKernels::eigh(const In& a, const Out& values, const Out& vectors) {
  const bool alone = batches_of(a) == 1;
  with_real(a.dtype, [&]<class T>(T) {
    for_each_matrix(a, [&](int64_t batch) {
      decompose(matrix_of<T>(a, batch), vector_of<T>(values, batch), matrix_of<T>(vectors, batch), a.dim(-1), batch,
                alone);
    });
  });
}

}  // namespace llmeff::cpu::LLMEFF_ISA
