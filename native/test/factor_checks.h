// What factors of matrices are held to, in float64: products give the matrix back, columns are orthonormal. All by
// rows.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

namespace llmeff::test {

using Numbers64 = std::vector<double>;

// [m, k] · [k, n]; `transposed`: the second is [n, k].
inline Numbers64 product_of(const double* a, const double* b, int64_t m, int64_t k, int64_t n,
                            bool transposed = false) {
  Numbers64 out(static_cast<size_t>(m * n));
  for (int64_t i = 0; i < m; ++i)
    for (int64_t j = 0; j < n; ++j) {
      double sum = 0;
      for (int64_t p = 0; p < k; ++p) sum += a[i * k + p] * (transposed ? b[j * k + p] : b[p * n + j]);
      out[static_cast<size_t>(i * n + j)] = sum;
    }
  return out;
}

inline double distance_of(const double* a, const double* b, int64_t count) {
  double most = 0;
  for (int64_t i = 0; i < count; ++i) {
    const double d = std::fabs(a[i] - b[i]);
    if (!(d <= most)) most = d;  // NaN stays
  }
  return most;
}

// From aᵀ·a of a [m, n] to the identity.
inline double distance_from_orthonormal(const double* a, int64_t m, int64_t n) {
  Numbers64 gram(static_cast<size_t>(n * n)), identity(gram.size());
  for (int64_t i = 0; i < n; ++i) {
    identity[static_cast<size_t>(i * (n + 1))] = 1;
    for (int64_t j = 0; j < n; ++j)
      for (int64_t p = 0; p < m; ++p) gram[static_cast<size_t>(i * n + j)] += a[p * n + i] * a[p * n + j];
  }
  return distance_of(gram.data(), identity.data(), n * n);
}

inline Numbers64 transpose_of(const double* a, int64_t m, int64_t n) {
  Numbers64 out(static_cast<size_t>(m * n));
  for (int64_t i = 0; i < m; ++i)
    for (int64_t j = 0; j < n; ++j) out[static_cast<size_t>(j * m + i)] = a[i * n + j];
  return out;
}

// a · diag(s) of a [m, n].
inline Numbers64 scaled_columns(const double* a, const double* s, int64_t m, int64_t n) {
  Numbers64 out(a, a + m * n);
  for (int64_t i = 0; i < m * n; ++i) out[static_cast<size_t>(i)] *= s[i % n];
  return out;
}

// Of factors of n columns, where `eps` is the distance between 1 and the next number.
inline double factor_bound(int64_t n, double eps) {
  return 16 * static_cast<double>(n < 4 ? 4 : n) * eps;
}

}  // namespace llmeff::test
