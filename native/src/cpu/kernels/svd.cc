// Singular values and vectors: Householder reflections to bidiagonal form, then implicit QR sweeps (as LAPACK's bdsqr:
// without a shift where that would cost the small singular values their digits), whose rotations the vectors take many
// sweeps at once. The bidiagonal matrix is in float64 whatever the dtype.
#include "cpu_kernels.h"
#include "householder.h"
#include "llmeff/error.h"
#include "rotations.h"

#include <Eigen/SVD>

namespace llmeff::cpu::LLMEFF_ISA {
namespace {

constexpr int64_t kSweepsPerValue = 30;  // two are usual

LLMEFF_INLINE double size_of(double x) {
  return __builtin_fabs(x);
}

// The smaller singular value of [[f, g], [0, h]].
double smaller_singular_value(double f, double g, double h) {
  const double fa = size_of(f), ga = size_of(g), ha = size_of(h);
  const double low = fa < ha ? fa : ha, high = fa < ha ? ha : fa;
  if (low == 0) return 0;
  const double as = 1 + low / high, at = (high - low) / high;
  if (ga < high) {
    const double au = (ga / high) * (ga / high);
    return low * (2 / (__builtin_sqrt(as * as + au) + __builtin_sqrt(at * at + au)));
  }
  const double au = high / ga;
  if (au == 0) return low * high / ga;
  const double sum = __builtin_sqrt(1 + as * au * as * au) + __builtin_sqrt(1 + at * au * at * au);
  return 2 * (low / sum * au);
}

// A block of `size` + 1 rows of a bidiagonal matrix, walked from its far end to the near one, where it converges:
// position j is row far + way·j. Walked backwards, it is the transpose that is upper bidiagonal.
struct Block {
  double *d_, *e_;
  int64_t far, way, size;

  double& d(int64_t j) const { return d_[far + way * j]; }
  double& e(int64_t j) const { return e_[way > 0 ? far + j : far - j - 1]; }
};

// Both rotations of a step; the first is the right vectors' when walked forwards.
template <class T>
struct Sides {
  RotatedColumns<T>&first, &second;
  double sign;

  Sides(const Block& b, RotatedColumns<T>& left, RotatedColumns<T>& right)
      : first(b.way > 0 ? right : left), second(b.way > 0 ? left : right), sign(static_cast<double>(b.way)) {
    first.begin(b.way > 0 ? b.far : b.far - 1, b.way, b.size);
    second.begin(b.way > 0 ? b.far : b.far - 1, b.way, b.size);
  }
  LLMEFF_INLINE void add(const Rotation& a, const Rotation& b) {
    first.add(a.c, sign * a.s);
    second.add(b.c, sign * b.s);
  }
};

// Without a shift, every number keeps its relative precision (Demmel and Kahan 1990).
template <class T>
void plain_sweep(const Block& b, Sides<T> sides) {
  Rotation one = {1, 0, 0}, two = {1, 0, 0};
  for (int64_t j = 0; j < b.size; ++j) {
    one = rotation_of(b.d(j) * one.c, b.e(j));
    if (j > 0) b.e(j - 1) = two.s * one.r;
    two = rotation_of(two.c * one.r, b.d(j + 1) * one.s);
    b.d(j) = two.r;
    sides.add(one, two);
  }
  const double h = b.d(b.size) * one.c;
  b.d(b.size) = h * two.c;
  b.e(b.size - 1) = h * two.s;
}

template <class T>
void shifted_sweep(const Block& b, double shift, Sides<T> sides) {
  double f = (size_of(b.d(0)) - shift) * (__builtin_copysign(1, b.d(0)) + shift / b.d(0)), g = b.e(0);
  for (int64_t j = 0; j < b.size; ++j) {
    const Rotation one = rotation_of(f, g);
    if (j > 0) b.e(j - 1) = one.r;
    f = one.c * b.d(j) + one.s * b.e(j);
    b.e(j) = one.c * b.e(j) - one.s * b.d(j);
    g = one.s * b.d(j + 1);
    b.d(j + 1) *= one.c;
    const Rotation two = rotation_of(f, g);
    b.d(j) = two.r;
    f = two.c * b.e(j) + two.s * b.d(j + 1);
    b.d(j + 1) = two.c * b.d(j + 1) - two.s * b.e(j);
    if (j < b.size - 1) {
      g = two.s * b.e(j + 1);
      b.e(j + 1) *= two.c;
    }
    sides.add(one, two);
  }
  b.e(b.size - 1) = f;
}

struct Bidiagonal {
  double *d, *e;  // the diagonal, and what is above it
  int64_t n;
  double eps, tolerance, threshold;

  Bidiagonal(double* d, double* e, int64_t n, double eps) : d(d), e(e), n(n), eps(eps) {
    const double grown = __builtin_pow(eps, -0.125);
    tolerance = (grown < 10 ? 10 : grown > 100 ? 100 : grown) * eps;
    // Below the smallest singular value by so much that it may be taken for 0.
    double mu = size_of(d[0]), least = mu;
    for (int64_t i = 1; i < n && least > 0; ++i) {
      mu = size_of(d[i]) * (mu / (mu + size_of(e[i - 1])));
      if (mu < least) least = mu;
    }
    threshold = tolerance * least / __builtin_sqrt(static_cast<double>(n));
    if (!(threshold > 1e-290)) threshold = 1e-290;
  }
};

// Looks for an entry beside the diagonal that is 0 beside its neighbours; if there is none, `least` is about the
// smallest singular value.
bool split_block(const Block& b, double tolerance, double& least) {
  if (size_of(b.e(b.size - 1)) <= tolerance * size_of(b.d(b.size))) {
    b.e(b.size - 1) = 0;
    return true;
  }
  double mu = least = size_of(b.d(0));
  for (int64_t j = 0; j < b.size; ++j) {
    if (size_of(b.e(j)) <= tolerance * mu) {
      b.e(j) = 0;
      return true;
    }
    mu = size_of(b.d(j + 1)) * (mu / (mu + size_of(b.e(j))));
    if (mu < least) least = mu;
  }
  return false;
}

double shift_of(const Bidiagonal& m, const Block& b, double least, double largest) {
  const double floor = m.eps > 0.01 * m.tolerance ? m.eps : 0.01 * m.tolerance;
  if (static_cast<double>(m.n) * m.tolerance * (least / largest) <= floor) return 0;
  const double shift = smaller_singular_value(b.d(b.size - 1), b.e(b.size - 1), b.d(b.size));
  const double ratio = shift / size_of(b.d(0));
  return ratio * ratio < m.eps ? 0 : shift;
}

// Leaves the singular values, with signs, in m.d; false if they don't converge.
template <class T>
bool iterate(const Bidiagonal& m, RotatedColumns<T>& left, RotatedColumns<T>& right) {
  int64_t sweeps = kSweepsPerValue * m.n;
  for (int64_t last = m.n - 1, old_first = m.n, old_last = m.n, way = 1; last > 0;) {
    double largest = size_of(m.d[last]);
    if (largest <= m.threshold) m.d[last] = 0;
    int64_t first = last;
    for (; first > 0; --first) {
      if (size_of(m.d[first - 1]) <= m.threshold) m.d[first - 1] = 0;
      if (size_of(m.e[first - 1]) <= m.threshold) break;
      for (const double x : {size_of(m.d[first - 1]), size_of(m.e[first - 1])}) largest = x > largest ? x : largest;
    }
    if (first > 0) m.e[first - 1] = 0;
    if (first == last) {
      --last;
      continue;
    }
    if (first > old_last || last < old_first || old_last == m.n)
      way = size_of(m.d[first]) >= size_of(m.d[last]) ? 1 : -1;
    old_first = first, old_last = last;
    const Block block{m.d, m.e, way > 0 ? first : last, way, last - first};
    double least = 0;
    if (split_block(block, m.tolerance, least)) continue;
    if (sweeps-- == 0) return false;
    const double shift = shift_of(m, block, least, largest);
    if (shift == 0)
      plain_sweep(block, Sides<T>(block, left, right));
    else
      shifted_sweep(block, shift, Sides<T>(block, left, right));
  }
  return true;
}

// Of a square or tall matrix by columns; left [rows, columns] and right [columns, columns] are written by the strides.
template <class T>
struct Result {
  T* out;
  int64_t row, column;
};
template <class T>
bool decompose(Matrix<T>& a, Result<T> left, T* values, Result<T> right, bool alone) {
  const int64_t m = a.rows(), n = a.cols();
  const int scale = exponent_of(a.cwiseAbs().maxCoeff());
  scale_by(a.data(), m * n, -scale);
  eigen::internal::UpperBidiagonalization<Matrix<T>> reduced(a);
  const Matrix<T>& packed = reduced.householder();
  // The library's rows of a band matrix: what is above the diagonal, shifted by one, then the diagonal.
  const auto& band = reduced.bidiagonal().coeffs();
  Vector<double> d = band.row(1).template cast<double>(), e(n);
  e.head(n - 1) = band.row(0).tail(n - 1).template cast<double>();
  // Reflections of the left side lie in the columns, those of the right in the rows, and their factors in the place of
  // the two diagonals.
  Matrix<T> basis(m, n);
  reflected_identity(packed, packed.diagonal(), 0, basis);
  RotatedColumns<T> lefts(basis, alone);
  basis.resize(n, n);
  reflected_identity(packed.topRows(n).transpose(), packed.template diagonal<1>().head(n - 1), 1, basis);
  RotatedColumns<T> rights(basis, alone);
  const double eps = sizeof(T) == 8 ? 0x1p-53 : 0x1p-24;
  if (!iterate(Bidiagonal(d.data(), e.data(), n, eps), lefts, rights)) return false;
  Vector<double> signs = Vector<double>::Ones(n);
  const Vector<double> sizes = d.cwiseAbs();
  Vector<int64_t> order(n);
  sort_positions(sizes.data(), true, order.data(), n);
  for (int64_t j = 0; j < n; ++j) values[j] = static_cast<T>(__builtin_ldexp(sizes[order[j]], scale));
  lefts.write(order.data(), signs.data(), left.out, left.row, left.column);
  for (int64_t j = 0; j < n; ++j) signs[j] = __builtin_copysign(1, d[order[j]]);
  rights.write(order.data(), signs.data(), right.out, right.row, right.column);
  return true;
}

template <class T>
void decompose(const T* a, T* u, T* s, T* vh, int64_t m, int64_t n, int64_t batch, bool alone) {
  const int64_t k = smaller(m, n);
  if (!all_finite(a, m * n)) {
    fill_nan(u, m * k), fill_nan(s, k);
    return fill_nan(vh, k * n);
  }
  // The transpose of a wide matrix is tall, and ours by rows is that by columns.
  Matrix<T> tall(m < n ? n : m, k);
  if (m < n)
    tall = eigen::Map<const Matrix<T>>(a, n, m);
  else
    tall = eigen::Map<const RowMatrix<T>>(a, m, n);
  const Result<T> left{u, k, 1}, right{vh, 1, n};
  if (!decompose(tall, m < n ? right : left, s, m < n ? left : right, alone))
    fail("ERR_LINALG", "[svd] the singular values of matrix %lld of the batch did not converge.",
         static_cast<long long>(batch));
}

}  // namespace

void CpuKernels::svd(const In& a, const Out& u, const Out& s, const Out& vh) {
  const bool alone = batches_of(a) == 1;
  with_real(a.dtype, [&]<class T>(T) {
    for_each_matrix(a, [&](int64_t batch) {
      decompose(matrix_of<T>(a, batch), matrix_of<T>(u, batch), vector_of<T>(s, batch), matrix_of<T>(vh, batch),
                a.dim(-2), a.dim(-1), batch, alone);
    });
  });
}

}  // namespace llmeff::cpu::LLMEFF_ISA
