// Products of rows packed by group against plain double loops, and sums of rows by number: empty groups and large ones,
// rows of no group, every layout and format, bad counts and ids.
#include <string>

#include "isas.h"
#include "llmeff/error.h"
#include "test.h"

namespace llmeff::test {
namespace {

struct Case {
  int64_t rows, k, n;
  std::vector<int32_t> counts;
};
const std::vector<Case> kCases = {
    {1, 1, 1, {1}},
    {5, 3, 2, {0, 5, 0}},
    {7, 4, 6, {0, 0, 0}},
    {40, 33, 70, {9, 8, 0, 1, 15}},    // few rows read a matrix in place
    {300, 30, 65, {127, 113, 0, 60}},  // a row more than tiles of the first group have
    {260, 1100, 45, {200, 13, 40}},    // several blocks of k
    {520, 40, 2100, {300, 3, 217}},    // several slabs of columns
    {700, 17, 5, std::vector<int32_t>(70, 10)},
    {30, 2100, 2050, {7, 0, 20}},  // one matrix packed at a time
};

struct Groups {
  const Isa& isa;
  const Case& c;
  int64_t E = static_cast<int64_t>(c.counts.size());

  In counts() const {
    In v = view<In>(reinterpret_cast<const float*>(c.counts.data()), {E});
    v.dtype = DType::kI32;
    return v;
  }
  // body(group, first row, row behind the last)
  template <class F>
  void each(const F& body) const {
    int64_t row = 0;
    for (int64_t e = 0; e < E; ++e) {
      body(e, row, row + c.counts[static_cast<size_t>(e)]);
      row += c.counts[static_cast<size_t>(e)];
    }
  }
};

template <class T>
void expect_close(const Isa& isa, const Case& c, const char* what, const std::vector<T>& got,
                  const std::vector<double>& want, double terms) {
  // A rounding of each partial sum; these are of about √terms / 3, so that the roundings' own sum is one of terms / 4
  // units. Six of its deviations, for the worst of many results.
  const double unit = sizeof(T) == 8 ? 0x1p-53 : 0x1p-24, tolerance = unit * (4 + 1.5 * terms);
  double worst = 0;
  for (size_t i = 0; i < got.size(); ++i)
    worst = std::fmax(worst, std::isnan(got[i]) ? INFINITY : std::fabs(static_cast<double>(got[i]) - want[i]));
  CHECK(worst <= tolerance, "%s %s %d-byte, %ld rows in %zu groups, k %ld, n %ld: error %g", isa.name, what,
        static_cast<int>(sizeof(T)), static_cast<long>(c.rows), c.counts.size(), static_cast<long>(c.k),
        static_cast<long>(c.n), worst);
}

// The sum of two products, the second of operands that lie by columns and have gaps.
template <class T>
void check_products(const Isa& isa, const Case& c) {
  if (!fits(c.rows * c.k * c.n)) return;
  const Groups groups{isa, c};
  Numbers random(static_cast<uint64_t>(c.rows * 1009 + c.k * 31 + c.n));
  const int64_t k2 = c.k > 1000 ? 5 : c.k / 2 + 1, pad = 3;  // much less deep than the first, or about half
  const auto x = random.vector<T>(c.rows * c.k), w = random.vector<T>(groups.E * c.k * c.n);
  const auto x2 = random.vector<T>((c.rows + pad) * k2), w2 = random.vector<T>(groups.E * c.n * (k2 + pad));
  const In xs[] = {view<In>(x.data(), {c.rows, c.k}), view<In>(x2.data(), {c.rows, k2}, {1, c.rows + pad})};
  const In ws[] = {view<In>(w.data(), {groups.E, c.k, c.n}),
                   view<In>(w2.data(), {groups.E, k2, c.n}, {c.n * (k2 + pad), 1, k2 + pad})};
  for (int64_t terms = 1; terms <= 2; ++terms) {
    std::vector<T> out(static_cast<size_t>(c.rows * c.n), static_cast<T>(NAN));
    isa.kernels->grouped_matmul({xs, terms}, {ws, terms}, groups.counts(), view<Out>(out.data(), {c.rows, c.n}));
    std::vector<double> want(out.size(), 0);
    groups.each([&](int64_t e, int64_t first, int64_t end) {
      for (int64_t i = first; i < end; ++i)
        for (int64_t j = 0; j < c.n; ++j) {
          long double sum = 0;
          for (int64_t q = 0; q < c.k; ++q)
            sum += static_cast<long double>(x[i * c.k + q]) * w[(e * c.k + q) * c.n + j];
          for (int64_t q = 0; q < k2 && terms == 2; ++q)
            sum += static_cast<long double>(x2[i + q * (c.rows + pad)]) * w2[(e * c.n + j) * (k2 + pad) + q];
          want[i * c.n + j] = static_cast<double>(sum);
        }
    });
    expect_close(isa, c, "product", out, want, static_cast<double>(c.k + k2));
  }
}

template <class T>
void check_gradients(const Isa& isa, const Case& c) {
  if (!fits(c.rows * c.k * c.n)) return;
  const Groups groups{isa, c};
  Numbers random(static_cast<uint64_t>(c.rows * 31 + c.k * 1009 + c.n));
  const auto a = random.vector<T>(c.rows * c.k), b = random.vector<T>(c.rows * (c.n + 2));
  std::vector<T> dw(static_cast<size_t>(groups.E * c.k * c.n), static_cast<T>(NAN));
  isa.kernels->grouped_matmul_grad(view<In>(a.data(), {c.rows, c.k}), view<In>(b.data(), {c.rows, c.n}, {c.n + 2, 1}),
                                   groups.counts(), view<Out>(dw.data(), {groups.E, c.k, c.n}));
  std::vector<double> want(dw.size(), 0);
  groups.each([&](int64_t e, int64_t first, int64_t end) {
    for (int64_t i = first; i < end; ++i)
      for (int64_t q = 0; q < c.k; ++q)
        for (int64_t j = 0; j < c.n; ++j)
          want[(e * c.k + q) * c.n + j] +=
              static_cast<double>(a[i * c.k + q]) * static_cast<double>(b[i * (c.n + 2) + j]);
  });
  expect_close(isa, c, "gradient", dw, want, static_cast<double>(c.rows));
}

TEST(grouped_matmul) {
  for (const Isa& isa : isas())
    for (const Case& c : kCases) {
      check_products<float>(isa, c);
      check_products<double>(isa, c);
    }
}
TEST(grouped_matmul_grad) {
  for (const Isa& isa : isas())
    for (const Case& c : kCases) {
      check_gradients<float>(isa, c);
      check_gradients<double>(isa, c);
    }
}

// Exact numbers, so that the result of any format is known to the bit.
TEST(grouped_matmul_of_16_bits) {
  for (const Isa& isa : isas())
    for (const DType dtype : {DType::kBF16, DType::kF16})
      for (const std::vector<int32_t>& counts : {std::vector<int32_t>{2, 0, 5}, std::vector<int32_t>{60, 0, 30}}) {
        const Case c{100, 6, 37, counts};
        const Groups groups{isa, c};
        std::vector<float> x(100 * 6), w(3 * 6 * 37), y(100 * 37);
        for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(static_cast<int>(i % 7) - 3);
        for (size_t i = 0; i < w.size(); ++i) w[i] = static_cast<float>(static_cast<int>(i % 5) - 2) / 4;
        for (size_t i = 0; i < y.size(); ++i) y[i] = static_cast<float>(static_cast<int>(i % 3) - 1);
        std::vector<uint16_t> x16(x.size()), w16(w.size()), y16(y.size()), out16(y.size(), 0xFFFF),
            dw16(w.size(), 0xFFFF);
        const auto narrow = [&](auto tag, const std::vector<uint16_t>& from, std::vector<int64_t> shape) {
          auto v = view<decltype(tag)>(reinterpret_cast<const float*>(from.data()), std::move(shape));
          v.dtype = dtype;
          return v;
        };
        isa.kernels->copy(view<In>(x.data(), {100, 6}), narrow(Out{}, x16, {100, 6}));
        isa.kernels->copy(view<In>(w.data(), {3, 6, 37}), narrow(Out{}, w16, {3, 6, 37}));
        isa.kernels->copy(view<In>(y.data(), {100, 37}), narrow(Out{}, y16, {100, 37}));
        const In xs[] = {narrow(In{}, x16, {100, 6}), narrow(In{}, x16, {100, 6})};
        const In ws[] = {narrow(In{}, w16, {3, 6, 37}), narrow(In{}, w16, {3, 6, 37})};
        isa.kernels->grouped_matmul({xs, 2}, {ws, 2}, groups.counts(), narrow(Out{}, out16, {100, 37}));
        isa.kernels->grouped_matmul_grad(xs[0], narrow(In{}, y16, {100, 37}), groups.counts(),
                                         narrow(Out{}, dw16, {3, 6, 37}));
        std::vector<float> out(y.size()), dw(w.size()), want(y.size(), 0), want_dw(w.size(), 0);
        isa.kernels->copy(narrow(In{}, out16, {100, 37}), view<Out>(out.data(), {100, 37}));
        isa.kernels->copy(narrow(In{}, dw16, {3, 6, 37}), view<Out>(dw.data(), {3, 6, 37}));
        groups.each([&](int64_t e, int64_t first, int64_t end) {
          for (int64_t i = first; i < end; ++i)
            for (int64_t q = 0; q < 6; ++q)
              for (int64_t j = 0; j < 37; ++j) {
                want[i * 37 + j] += 2 * x[i * 6 + q] * w[(e * 6 + q) * 37 + j];
                want_dw[(e * 6 + q) * 37 + j] += x[i * 6 + q] * y[i * 37 + j];
              }
        });
        CHECK(out == want, "%s product of dtype %d", isa.name, static_cast<int>(dtype));
        CHECK(dw == want_dw, "%s gradient of dtype %d", isa.name, static_cast<int>(dtype));
      }
}

template <class F>
std::string failure_of(const F& call) {
  try {
    call();
  } catch (const Error& error) {
    return std::string(error.code()) + " " + error.what();
  }
  return "no failure";
}

TEST(grouped_matmul_bad_counts) {
  for (const Isa& isa : isas()) {
    const std::vector<float> x(15, 1), w(18, 1);
    std::vector<float> out(10, 0), dw(18, 0);
    const In xs[] = {view<In>(x.data(), {5, 3})}, ws[] = {view<In>(w.data(), {3, 3, 2})};
    const auto check = [&](std::vector<int32_t> counts, const std::string& words) {
      const Case c{5, 3, 2, std::move(counts)};
      const Groups groups{isa, c};
      const std::string product = failure_of(
          [&] { isa.kernels->grouped_matmul({xs, 1}, {ws, 1}, groups.counts(), view<Out>(out.data(), {5, 2})); });
      const std::string gradient = failure_of([&] {
        isa.kernels->grouped_matmul_grad(xs[0], view<In>(out.data(), {5, 2}), groups.counts(),
                                         view<Out>(dw.data(), {3, 3, 2}));
      });
      CHECK(product.find("ERR_INDEX [groupedMatmul] " + words) == 0, "%s: %s", isa.name, product.c_str());
      CHECK(gradient.find("ERR_INDEX [groupedMatmulGrad] " + words) == 0, "%s: %s", isa.name, gradient.c_str());
    };
    check({2, -1, 3}, "counts[1] is -1");
    check({2, 2, 2}, "counts[2] is 2");
    check({INT32_MAX, INT32_MAX, 1}, "counts[0] is 2147483647");
  }
}

TEST(gather_sum) {
  struct Sizes {
    int64_t rows, sums, terms, width;
  };
  for (const Isa& isa : isas())
    for (const Sizes& s : {Sizes{1, 1, 1, 1}, Sizes{9, 5, 3, 7}, Sizes{50, 70, 1, 64}, Sizes{40, 300, 8, 1030}})
      for (const bool weighted : {false, true}) {
        Numbers random(static_cast<uint64_t>(s.rows + s.width));
        const auto x = random.vector<float>(s.rows * (s.width + 1)), weights = random.vector<float>(s.sums * s.terms),
                   dout = random.vector<float>(s.sums * s.width);
        std::vector<int32_t> list(static_cast<size_t>(s.sums * s.terms));
        for (int32_t& id : list) id = static_cast<int32_t>(random.bits() % static_cast<uint64_t>(s.rows + 1)) - 1;
        // Ids by columns, weights by rows.
        In ids = view<In>(reinterpret_cast<const float*>(list.data()), {s.sums, s.terms}, {1, s.sums});
        ids.dtype = DType::kI32;
        std::vector<float> out(dout.size(), NAN), dweights(weights.size(), NAN);
        const In rows = view<In>(x.data(), {s.rows, s.width}, {s.width + 1, 1});
        isa.kernels->gather_sum(rows, ids, weighted ? view<In>(weights.data(), {s.sums, s.terms}) : In{},
                                view<Out>(out.data(), {s.sums, s.width}));
        isa.kernels->gather_sum_grad(rows, ids, view<In>(dout.data(), {s.sums, s.width}),
                                     view<Out>(dweights.data(), {s.sums, s.terms}));
        double worst = 0, worst_slope = 0;
        for (int64_t n = 0; n < s.sums; ++n) {
          std::vector<double> sum(static_cast<size_t>(s.width), 0);
          for (int64_t j = 0; j < s.terms; ++j) {
            const int64_t id = list[static_cast<size_t>(n + j * s.sums)];
            double slope = 0;
            for (int64_t c = 0; c < s.width && id >= 0; ++c) {
              const double value = static_cast<double>(x[static_cast<size_t>(id * (s.width + 1) + c)]);
              sum[c] += (weighted ? static_cast<double>(weights[n * s.terms + j]) : 1.0) * value;
              slope += value * static_cast<double>(dout[n * s.width + c]);
            }
            const float got = dweights[n * s.terms + j];
            worst_slope = std::fmax(worst_slope, std::isnan(got) ? INFINITY : std::fabs(got - slope));
          }
          for (int64_t c = 0; c < s.width; ++c) {
            const float got = out[n * s.width + c];
            worst = std::fmax(worst, std::isnan(got) ? INFINITY : std::fabs(got - sum[c]));
          }
        }
        CHECK(worst <= 2e-6 * std::sqrt(static_cast<double>(s.terms) + 1), "%s %ld terms: error %g", isa.name,
              static_cast<long>(s.terms), worst);
        CHECK(worst_slope <= 2e-6 * std::sqrt(static_cast<double>(s.width) + 1), "%s width %ld: error %g", isa.name,
              static_cast<long>(s.width), worst_slope);
      }
}

TEST(gather_sum_bad_ids) {
  for (const Isa& isa : isas())
    for (const int32_t bad : {-2, 5, INT32_MAX}) {
      const std::vector<float> x(15, 1);
      std::vector<float> out(12, 0);
      const std::vector<int32_t> list = {0, -1, 4, 1, bad, 2, bad, 0};
      In ids = view<In>(reinterpret_cast<const float*>(list.data()), {4, 2});
      ids.dtype = DType::kI32;
      const std::string failure = failure_of(
          [&] { isa.kernels->gather_sum(view<In>(x.data(), {5, 3}), ids, In{}, view<Out>(out.data(), {4, 3})); });
      CHECK(failure.find("ERR_INDEX [gatherSum] id " + std::to_string(bad) + " at position 4 ") == 0, "%s: %s",
            isa.name, failure.c_str());
    }
}

}  // namespace
}  // namespace llmeff::test
