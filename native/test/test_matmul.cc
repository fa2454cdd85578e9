// Matrix products against plain double loops: every layout, odd sizes on both sides of each tile, batches, bias,
// activations, 16-bit formats.
#include "isas.h"
#include "test.h"

namespace llmeff::test {
namespace {

struct Product {
  int64_t m, n, k;
};

constexpr Product kShapes[] = {
    {1, 1, 1},      {1, 7, 3},      {1, 300, 65},    {2, 129, 33},   {3, 64, 257},   {4, 131, 40},   {5, 1, 5},
    {13, 31, 255},  {14, 32, 256},  {15, 33, 257},   {16, 16, 16},   {28, 65, 31},   {29, 17, 64},   {7, 11, 600},
    {97, 101, 103}, {167, 47, 513}, {169, 1030, 70}, {200, 96, 300}, {6, 16, 128},   {61, 4100, 9},  {1, 4099, 12},
    {400, 3, 2},    {8, 130, 70},   {300, 1, 65},    {9, 33, 1030},  {129, 8, 2051}, {5, 257, 1100}, {130, 2100, 17},
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
    isa.kernels->matmul(va, vb, with_bias ? view<In>(bias.data(), {p.n}) : In{}, Activation::kNone, Out{},
                        view<Out>(c.data(), {p.m, p.n}, {c_step, 1}));
    auto want = before;
    double worst = 0;
    for (int64_t i = 0; i < p.m; ++i)
      for (int64_t j = 0; j < p.n; ++j) {
        long double sum = with_bias ? bias[j] : 0;
        for (int64_t q = 0; q < p.k; ++q)
          sum += static_cast<long double>(a[i * va.strides[0] + q * va.strides[1]]) *
                 b[q * vb.strides[0] + j * vb.strides[1]];
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
  isa.kernels->matmul(va, vb, In{}, Activation::kNone, Out{}, view<Out>(c.data(), {b0, b1, p.m, p.n}));
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
    isa.kernels->matmul(view<In>(a.data(), {20, 5}), view<In>(b.data(), {5, 40}), In{}, Activation::kNone, Out{},
                        view<Out>(c.data(), {20, 40}));
    for (int64_t i = 0; i < 20; ++i)
      for (int64_t j = 0; j < 40; ++j) {
        const double want = j == 39 ? NAN : i == 3 ? INFINITY : i == 0 ? 4 : 5;
        CHECK(close(c[i * 40 + j], want, 0), "%s row %ld column %ld: %g", isa.name, static_cast<long>(i),
              static_cast<long>(j), c[i * 40 + j]);
      }
  }
}

// ---- what happens to the sums on the way out

double activate(Activation activation, double x) {
  switch (activation) {
    case Activation::kRelu:
      return x > 0 ? x : 0;
    case Activation::kGelu:
      return x / 2 * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case Activation::kGeluErf:
      return x / 2 * std::erfc(-x / std::sqrt(2.0));
    case Activation::kSilu:
      return x / (1 + std::exp(-x));
    default:
      return x;
  }
}

// A number of each format, its relative rounding error and the smallest absolute one.
struct Format {
  DType dtype;
  double epsilon, tiny;
};
constexpr Format kFormats[] = {
    {DType::kF32, 0x1p-24, 0x1p-149}, {DType::kBF16, 0x1p-8, 0x1p-133}, {DType::kF16, 0x1p-11, 0x1p-25}};

// An array of one of the formats, filled and read through the copy kernel.
struct Numbers16 {
  DType dtype;
  std::vector<int64_t> shape;
  std::vector<uint32_t> memory;

  Numbers16(DType of, std::vector<int64_t> sizes) : dtype(of), shape(std::move(sizes)), memory(size()) {}
  size_t size() const {
    int64_t n = 1;
    for (int64_t size : shape) n *= size;
    return static_cast<size_t>(n);
  }
  template <class V>
  V as() const {
    V v = view<V>(reinterpret_cast<const float*>(memory.data()), shape);
    v.dtype = dtype;
    return v;
  }
  void write(const Isa& isa, const std::vector<float>& from) {
    isa.kernels->copy(view<In>(from.data(), shape), as<Out>());
  }
  std::vector<float> read(const Isa& isa) const {
    std::vector<float> to(size());
    isa.kernels->copy(as<In>(), view<Out>(to.data(), shape));
    return to;
  }
};

// out and pre of one product against float64; each is within the error of the sum plus one rounding to its format.
void check_epilogue(const Isa& isa, const Product& p, bool b_transposed, const Format& format, Activation activation) {
  Numbers random(static_cast<uint64_t>(p.m * 31 + p.n * 7 + p.k));
  Numbers16 a(format.dtype, {p.m, p.k}), b(format.dtype, {p.k, p.n}), bias(format.dtype, {p.n}),
      out(format.dtype, {p.m, p.n}), pre(format.dtype, {p.m, p.n});
  a.write(isa, random.vector<float>(p.m * p.k));
  b.write(isa, random.vector<float>(p.k * p.n));
  bias.write(isa, random.vector<float>(p.n));
  In vb = b.as<In>();
  if (b_transposed) vb.strides[0] = 1, vb.strides[1] = p.k;
  isa.kernels->matmul(a.as<In>(), vb, bias.as<In>(), activation, pre.as<Out>(), out.as<Out>());
  const auto x = a.read(isa), y = b.read(isa), z = bias.read(isa), got = out.read(isa), got_pre = pre.read(isa);
  Numbers16 alone(format.dtype, {p.m, p.n});
  isa.kernels->matmul(a.as<In>(), vb, bias.as<In>(), activation, Out{}, alone.as<Out>());
  CHECK(alone.read(isa) == got, "%s: pre changes out", isa.name);
  double worst = 0, worst_pre = 0;
  for (int64_t i = 0; i < p.m; ++i)
    for (int64_t j = 0; j < p.n; ++j) {
      double sum = z[j], size = std::fabs(z[j]);
      for (int64_t q = 0; q < p.k; ++q) {
        const double term = static_cast<double>(x[i * p.k + q]) * y[q * vb.strides[0] + j * vb.strides[1]];
        sum += term;
        size += std::fabs(term);
      }
      // Rounded sums of k + 1 terms; the slope of an activation is at most 1.13; its own error is a few roundings.
      const double summed = 0x1p-24 * size * std::sqrt(static_cast<double>(p.k) + 1);
      const auto excess = [&](double value, double want, double inner) {
        const double bound = inner + format.epsilon * (std::fabs(want) + inner) + format.tiny;
        return std::isnan(value) ? INFINITY : std::fabs(value - want) / bound;
      };
      worst_pre = std::fmax(worst_pre, excess(got_pre[i * p.n + j], sum, summed));
      const double want = activate(activation, sum);
      worst = std::fmax(worst, excess(got[i * p.n + j], want, 1.13 * summed + 0x1p-20 * std::fabs(want) + 0x1p-24));
    }
  CHECK(worst <= 1 && worst_pre <= 1, "%s format %d activation %d m=%ld n=%ld k=%ld %s: %g and %g of the bound",
        isa.name, static_cast<int>(format.dtype), static_cast<int>(activation), static_cast<long>(p.m),
        static_cast<long>(p.n), static_cast<long>(p.k), b_transposed ? "transposed" : "", worst, worst_pre);
}

TEST(matmul_epilogues_and_formats) {
  constexpr Product kCut[] = {{1, 1, 1},   {1, 70, 33},   {3, 129, 65},  {8, 47, 40},    {70, 3, 50},
                              {15, 33, 7}, {57, 101, 64}, {130, 65, 31}, {1030, 33, 20}, {20, 40, 1100}};
  for (const Isa& isa : isas())
    for (const Product& p : kCut)
      for (const Format& format : kFormats)
        for (int activation = 0; activation < kActivationCount; ++activation)
          check_epilogue(isa, p, activation % 2 == 1, format, static_cast<Activation>(activation));
}

// Operands of different formats: exact products, so that the result is known to the bit.
TEST(matmul_mixed_formats) {
  for (const Isa& isa : isas())
    for (const Format& of_a : kFormats)
      for (const Format& of_b : kFormats)
        for (int64_t m : {2, 40}) {
          Numbers16 a(of_a.dtype, {m, 6}), b(of_b.dtype, {6, 37}), out(DType::kF32, {m, 37});
          std::vector<float> x, y;
          for (int64_t i = 0; i < m * 6; ++i) x.push_back(static_cast<float>(i % 7 - 3));
          for (int64_t i = 0; i < 6 * 37; ++i) y.push_back(static_cast<float>(i % 5 - 2) / 4);
          a.write(isa, x);
          b.write(isa, y);
          isa.kernels->matmul(a.as<In>(), b.as<In>(), In{}, Activation::kNone, Out{}, out.as<Out>());
          const auto got = out.read(isa);
          for (int64_t i = 0; i < m; ++i)
            for (int64_t j = 0; j < 37; ++j) {
              float want = 0;
              for (int64_t q = 0; q < 6; ++q) want += x[i * 6 + q] * y[q * 37 + j];
              CHECK(got[i * 37 + j] == want, "%s %d·%d [%ld, %ld]: %g, expected %g", isa.name,
                    static_cast<int>(of_a.dtype), static_cast<int>(of_b.dtype), static_cast<long>(i),
                    static_cast<long>(j), got[i * 37 + j], want);
            }
        }
}

}  // namespace
}  // namespace llmeff::test
