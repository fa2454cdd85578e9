// Factorizations on every instruction set: the factors give the matrix back and are orthonormal, batches have the bits
// of single matrices, and what isn't finite or has no factors is told.
#include <limits>
#include <string>

#include "factor_checks.h"
#include "isas.h"
#include "llmeff/error.h"
#include "test.h"

namespace llmeff::test {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

template <class T>
Numbers64 wide(const std::vector<T>& x) {
  return Numbers64(x.begin(), x.end());
}
template <class T>
constexpr double kEps = std::numeric_limits<T>::epsilon();

template <class T>
void expect_eigh(const Isa& isa, int64_t n, int64_t batch) {
  Numbers random(static_cast<uint64_t>(n));
  auto a = random.vector<T>(batch * n * n);
  for (int64_t b = 0; b < batch; ++b)
    for (int64_t i = 0; i < n; ++i)
      for (int64_t j = 0; j < i; ++j) a[b * n * n + j * n + i] = a[b * n * n + i * n + j];
  std::vector<T> values(batch * n), vectors(batch * n * n);
  isa.kernels->eigh(view<In>(a.data(), {batch, n, n}), view<Out>(values.data(), {batch, n}),
                    view<Out>(vectors.data(), {batch, n, n}));
  const Numbers64 wa = wide(a), wl = wide(values), wv = wide(vectors);
  for (int64_t b = 0; b < batch; ++b) {
    const double* const v = wv.data() + b * n * n;
    const Numbers64 back = product_of(scaled_columns(v, wl.data() + b * n, n, n).data(), v, n, n, n, true);
    CHECK(distance_of(back.data(), wa.data() + b * n * n, n * n) <= factor_bound(n, kEps<T>), "%s eigh %lld of %lld",
          isa.name, static_cast<long long>(b), static_cast<long long>(n));
    CHECK(distance_from_orthonormal(v, n, n) <= factor_bound(n, kEps<T>), "%s eigh of %lld", isa.name,
          static_cast<long long>(n));
    for (int64_t i = 1; i < n; ++i)
      CHECK(wl[b * n + i] >= wl[b * n + i - 1], "%s eigh order at %lld", isa.name, static_cast<long long>(i));
    // The last alone: the same bits.
    std::vector<T> one(n), columns(n * n);
    isa.kernels->eigh(view<In>(a.data() + b * n * n, {n, n}), view<Out>(one.data(), {n}),
                      view<Out>(columns.data(), {n, n}));
    CHECK(std::equal(one.begin(), one.end(), values.begin() + b * n), "%s eigh of %lld alone", isa.name,
          static_cast<long long>(n));
    CHECK(std::equal(columns.begin(), columns.end(), vectors.begin() + b * n * n), "%s eigh of %lld alone", isa.name,
          static_cast<long long>(n));
  }
}

template <class T>
void expect_svd_and_qr(const Isa& isa, int64_t m, int64_t n) {
  const int64_t k = m < n ? m : n, long_side = m < n ? n : m;
  Numbers random(static_cast<uint64_t>(m * 1000 + n));
  const auto a = random.vector<T>(m * n);
  std::vector<T> u(m * k), s(k), vh(k * n), q(m * k), r(k * n);
  isa.kernels->svd(view<In>(a.data(), {m, n}), view<Out>(u.data(), {m, k}), view<Out>(s.data(), {k}),
                   view<Out>(vh.data(), {k, n}));
  isa.kernels->qr(view<In>(a.data(), {m, n}), view<Out>(q.data(), {m, k}), view<Out>(r.data(), {k, n}));
  const Numbers64 wa = wide(a), wu = wide(u), ws = wide(s), wv = wide(vh), wq = wide(q), wr = wide(r);
  const double bound = factor_bound(long_side, kEps<T>);
  const Numbers64 usv = product_of(scaled_columns(wu.data(), ws.data(), m, k).data(), wv.data(), m, k, n);
  const Numbers64 qr = product_of(wq.data(), wr.data(), m, k, n);
  const std::string what = std::string(isa.name) + " [" + std::to_string(m) + ", " + std::to_string(n) + "]";
  CHECK(distance_of(usv.data(), wa.data(), m * n) <= bound, "svd %s", what.c_str());
  CHECK(distance_of(qr.data(), wa.data(), m * n) <= bound, "qr %s", what.c_str());
  CHECK(distance_from_orthonormal(wu.data(), m, k) <= bound, "svd u %s", what.c_str());
  CHECK(distance_from_orthonormal(transpose_of(wv.data(), k, n).data(), n, k) <= bound, "svd vh %s", what.c_str());
  CHECK(distance_from_orthonormal(wq.data(), m, k) <= bound, "qr q %s", what.c_str());
  for (int64_t i = 1; i < k; ++i) CHECK(ws[i] <= ws[i - 1] && ws[i] >= 0, "svd order %s", what.c_str());
  for (int64_t i = 0; i < k; ++i)
    for (int64_t j = 0; j < i; ++j) CHECK(wr[i * n + j] == 0, "qr triangle %s", what.c_str());
}

template <class T>
void expect_cholesky(const Isa& isa, int64_t n) {
  Numbers random(static_cast<uint64_t>(n));
  const auto x = random.vector<double>(n * n);
  Numbers64 square = product_of(x.data(), x.data(), n, n, n, true);
  for (int64_t i = 0; i < n; ++i) square[i * (n + 1)] += 1;
  const std::vector<T> a(square.begin(), square.end());
  std::vector<T> l(n * n);
  isa.kernels->cholesky(view<In>(a.data(), {n, n}), view<Out>(l.data(), {n, n}));
  const Numbers64 wa = wide(a), wl = wide(l);
  const Numbers64 back = product_of(wl.data(), wl.data(), n, n, n, true);
  CHECK(distance_of(back.data(), wa.data(), n * n) <= factor_bound(n, kEps<T>) * static_cast<double>(n), "%s %lld",
        isa.name, static_cast<long long>(n));

  const int64_t k = 70;
  for (const bool left : {true, false})
    for (const bool transposed : {true, false}) {
      const int64_t rows = left ? n : k, columns = left ? k : n;
      const auto b = random.vector<T>(rows * columns);
      std::vector<T> solved(b.size());
      isa.kernels->triangular_solve(view<In>(l.data(), {n, n}), view<In>(b.data(), {rows, columns}), false, transposed,
                                    left, view<Out>(solved.data(), {rows, columns}));
      const Numbers64 op = transposed ? transpose_of(wl.data(), n, n) : wl, wx = wide(solved), wb = wide(b);
      const Numbers64 product =
          left ? product_of(op.data(), wx.data(), n, n, k) : product_of(wx.data(), op.data(), k, n, n);
      CHECK(distance_of(product.data(), wb.data(), rows * columns) <= factor_bound(n, kEps<T>) * static_cast<double>(n),
            "%s %d %d %lld", isa.name, left, transposed, static_cast<long long>(n));
    }
}

template <class T>
void expect_all(const Isa& isa) {
  for (const int64_t n : {1, 2, 3, 7, 16, 17, 40, 65, 129}) {
    expect_eigh<T>(isa, n, 3);
    expect_cholesky<T>(isa, n);
    for (const int64_t m : {1, 5, 33, 70}) expect_svd_and_qr<T>(isa, m, n);
  }
}

TEST(factorizations) {
  for (const Isa& isa : isas()) {
    expect_all<float>(isa);
    expect_all<double>(isa);
  }
}

TEST(factorizations_that_fail) {
  for (const Isa& isa : isas()) {
    // A NaN in one matrix of two leaves the other alone.
    std::vector<double> a{2, 0, 0, 1, kNan, 0, 0, 1}, values(4), vectors(8);
    isa.kernels->eigh(view<In>(a.data(), {2, 2, 2}), view<Out>(values.data(), {2, 2}),
                      view<Out>(vectors.data(), {2, 2, 2}));
    CHECK(values[0] == 1 && values[1] == 2 && std::isnan(values[2]) && std::isnan(values[3]), "%s", isa.name);
    for (int i = 0; i < 8; ++i) CHECK(std::isnan(vectors[i]) == (i >= 4), "%s %d", isa.name, i);

    std::string told;
    const std::vector<float> indefinite{1, 0, 0, 1, 1, 0, 2, 1};
    std::vector<float> l(8);
    try {
      isa.kernels->cholesky(view<In>(indefinite.data(), {2, 2, 2}), view<Out>(l.data(), {2, 2, 2}));
    } catch (const Error& error) {
      told = error.code() + " " + error.what();
    }
    CHECK(told.rfind("ERR_LINALG [cholesky] matrix 1 of the batch is not positive definite: pivot 1", 0) == 0, "%s %s",
          isa.name, told.c_str());
  }
}

}  // namespace
}  // namespace llmeff::test
