// Matrix products against plain double loops: every layout, odd sizes on both sides of each tile, batches, bias.
#include "isas.h"
#include "test.h"

namespace llmeff::test {
namespace {

struct Product {
  int64_t m, n, k;
};

constexpr Product kShapes[] = {
    {1, 1, 1},    {1, 7, 3},     {1, 300, 65},   {2, 129, 33},   {3, 64, 257},    {4, 131, 40},
    {5, 1, 5},    {13, 31, 255}, {14, 32, 256},  {15, 33, 257},  {16, 16, 16},    {28, 65, 31},
    {29, 17, 64}, {7, 11, 600},  {97, 101, 103}, {167, 47, 513}, {169, 1030, 70}, {200, 96, 300},
    {6, 16, 128}, {61, 4100, 9}, {1, 4099, 12},  {400, 3, 2},
};

template <class T>
void check_layouts(const Isa& isa, const Product& p, double tolerance) {
  Numbers random(static_cast<uint64_t>(p.m * 1000003 + p.n * 1009 + p.k));
  for (int layout = 0; layout < 8; ++layout) {
    const bool a_transposed = layout & 1, b_transposed = layout & 2, with_bias = layout & 4;
    const int64_t pad = layout % 3;  // rows need not touch
    const int64_t a_step = (a_transposed ? p.m : p.k) + pad, b_step = (b_transposed ? p.k : p.n) + pad,
                  c_step = p.n + pad;
    const auto a = random.vector<T>(a_step * (a_transposed ? p.k : p.m)),
               b = random.vector<T>(b_step * (b_transposed ? p.n : p.k));
    const auto bias = random.vector<T>(p.n);
    const auto before = random.vector<T>(c_step * p.m + 64);
    auto c = before;
    const auto va = view<In>(a.data(), {p.m, p.k},
                             a_transposed ? std::vector<int64_t>{1, a_step} : std::vector<int64_t>{a_step, 1});
    const auto vb = view<In>(b.data(), {p.k, p.n},
                             b_transposed ? std::vector<int64_t>{1, b_step} : std::vector<int64_t>{b_step, 1});
    isa.kernels->matmul(va, vb, with_bias ? view<In>(bias.data(), {p.n}) : In{},
                        view<Out>(c.data(), {p.m, p.n}, {c_step, 1}));
    auto want = before;
    double worst = 0;
    for (int64_t i = 0; i < p.m; ++i)
      for (int64_t j = 0; j < p.n; ++j) {
        double sum = with_bias ? bias[j] : 0;
        for (int64_t q = 0; q < p.k; ++q)
          sum +=
              static_cast<double>(a[i * va.strides[0] + q * va.strides[1]]) * b[q * vb.strides[0] + j * vb.strides[1]];
        want[i * c_step + j] = static_cast<T>(sum);
      }
    bool outside = true;
    for (size_t i = 0; i < c.size(); ++i) {
      const int64_t column = static_cast<int64_t>(i) % c_step, row = static_cast<int64_t>(i) / c_step;
      if (column < p.n && row < p.m)
        worst = std::fmax(worst, std::isnan(c[i]) ? INFINITY : std::fabs(c[i] - want[i]));
      else
        outside = outside && c[i] == before[i];
    }
    CHECK(worst <= tolerance * std::sqrt(static_cast<double>(p.k) + 1),
          "%s %d-byte m=%ld n=%ld k=%ld layout=%d error %g", isa.name, static_cast<int>(sizeof(T)),
          static_cast<long>(p.m), static_cast<long>(p.n), static_cast<long>(p.k), layout, worst);
    CHECK(outside, "%s m=%ld n=%ld k=%ld layout=%d wrote outside", isa.name, static_cast<long>(p.m),
          static_cast<long>(p.n), static_cast<long>(p.k), layout);
  }
}

TEST(matmul_float32) {
  for (const Isa& isa : isas())
    for (const Product& p : kShapes) check_layouts<float>(isa, p, 2e-6);
}
TEST(matmul_float64) {
  for (const Isa& isa : isas())
    for (const Product& p : kShapes) check_layouts<double>(isa, p, 4e-15);
}

// out[b0, b1, M, N] with a broadcast along b0, b along b1, or b along both (which is one larger product).
void check_batch(const Isa& isa, int64_t b0, int64_t b1, Product p, int broadcast) {
  Numbers random(static_cast<uint64_t>(b0 * 31 + b1 * 7 + broadcast));
  const auto a = random.vector<float>(b0 * b1 * p.m * p.k), b = random.vector<float>(b0 * b1 * p.k * p.n);
  std::vector<float> c(static_cast<size_t>(b0 * b1 * p.m * p.n), NAN);
  auto va = view<In>(a.data(), {b0, b1, p.m, p.k}), vb = view<In>(b.data(), {b0, b1, p.k, p.n});
  if (broadcast == 1) va.strides[0] = 0;
  if (broadcast == 2) vb.strides[1] = 0;
  if (broadcast == 3) vb.strides[0] = vb.strides[1] = 0;
  if (broadcast == 4) {  // heads between the rows, as in [B, T, H, D]
    va.strides[1] = p.k;
    va.strides[2] = b1 * p.k;
  }
  isa.kernels->matmul(va, vb, In{}, view<Out>(c.data(), {b0, b1, p.m, p.n}));
  double worst = 0;
  for (int64_t x = 0; x < b0; ++x)
    for (int64_t y = 0; y < b1; ++y)
      for (int64_t i = 0; i < p.m; ++i)
        for (int64_t j = 0; j < p.n; ++j) {
          double sum = 0;
          for (int64_t q = 0; q < p.k; ++q)
            sum += static_cast<double>(a[x * va.strides[0] + y * va.strides[1] + i * va.strides[2] + q]) *
                   b[x * vb.strides[0] + y * vb.strides[1] + q * p.n + j];
          const double got = c[((x * b1 + y) * p.m + i) * p.n + j];
          worst = std::fmax(worst, std::isnan(got) ? INFINITY : std::fabs(got - sum));
        }
  CHECK(worst <= 2e-5, "%s batch %ld×%ld broadcast %d: error %g", isa.name, static_cast<long>(b0),
        static_cast<long>(b1), broadcast, worst);
}

TEST(matmul_batches) {
  for (const Isa& isa : isas())
    for (int broadcast = 0; broadcast <= 4; ++broadcast) {
      check_batch(isa, 3, 5, {9, 17, 21}, broadcast);
      check_batch(isa, 2, 3, {1, 40, 33}, broadcast);
      check_batch(isa, 7, 9, {16, 33, 16}, broadcast);
      check_batch(isa, 1, 2, {170, 190, 260}, broadcast);
    }
}

// Infinities and NaN of the operands arrive; zero times them is not skipped, and padding never makes any.
TEST(matmul_not_finite) {
  for (const Isa& isa : isas()) {
    std::vector<float> a(20 * 5, 1), b(5 * 40, 1), c(20 * 40);
    a[3 * 5 + 2] = INFINITY;
    b[4 * 40 + 39] = NAN;
    a[0] = 0;
    isa.kernels->matmul(view<In>(a.data(), {20, 5}), view<In>(b.data(), {5, 40}), In{}, view<Out>(c.data(), {20, 40}));
    for (int64_t i = 0; i < 20; ++i)
      for (int64_t j = 0; j < 40; ++j) {
        const double want = j == 39 ? NAN : i == 3 ? INFINITY : i == 0 ? 4 : 5;
        CHECK(close(c[i * 40 + j], want, 0), "%s row %ld column %ld: %g", isa.name, static_cast<long>(i),
              static_cast<long>(j), c[i * 40 + j]);
      }
  }
}

}  // namespace
}  // namespace llmeff::test
