// Layers and losses against plain float64 loops; gradients against the formulas of the forward pass by central
// differences (float64) and float32 against float64.
#include <functional>
#include <limits>
#include <string>

#include "isas.h"
#include "llmeff/error.h"
#include "test.h"

namespace llmeff::test {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity(), kNan = std::numeric_limits<double>::quiet_NaN();
constexpr int64_t kWidths[] = {1, 2, 3, 4, 7, 8, 15, 16, 17, 31, 33, 63, 65, 130, 1500};

In ints(const std::vector<int32_t>& x, std::vector<int64_t> shape) {
  In v = view<In>(reinterpret_cast<const float*>(x.data()), shape);
  v.dtype = DType::kI32;
  return v;
}

template <class T>
constexpr double kTolerance = sizeof(T) == 8 ? 1e-12 : 3e-6;

template <class T>
void check_all(const char* what, const Isa& isa, const std::vector<T>& got, const std::vector<double>& want,
               double tolerance) {
  CHECK(got.size() == want.size(), "%s sizes", what);
  for (size_t i = 0; i < want.size(); ++i)
    CHECK(close(got[i], want[i], tolerance), "%s %s %zu-byte element %zu of %zu: got %.9g want %.9g", what, isa.name,
          sizeof(T), i, want.size(), static_cast<double>(got[i]), want[i]);
}

// d f / d x by central differences in float64.
std::vector<double> numeric_gradient(std::vector<double> x,
                                     const std::function<double(const std::vector<double>&)>& f) {
  std::vector<double> gradient(x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    const double kept = x[i], h = 1e-5;
    x[i] = kept + h;
    const double up = f(x);
    x[i] = kept - h;
    gradient[i] = (up - f(x)) / (2 * h);
    x[i] = kept;
  }
  return gradient;
}

// ---- softmax
// -----------------------------------------------------------------------------------------------------------------

template <class T>
void check_softmax(const Isa& isa) {
  Numbers random(21);
  for (int64_t n : kWidths) {
    const int64_t rows = 5, step = n + 3;
    auto x = random.vector<T>(rows * step, 20);
    for (int64_t i = 0; i < n; ++i) x[step + i] = static_cast<T>(-kInf);  // row 1: no entry
    x[2 * step] = static_cast<T>(n > 1 ? -kInf : 1), x[3 * step + n - 1] = static_cast<T>(kNan);
    std::vector<T> y(rows * n), dx(rows * n);
    isa.kernels->softmax(view<In>(x.data(), {rows, n}, {step, 1}), view<Out>(y.data(), {rows, n}));
    std::vector<double> want(rows * n), want_dx(rows * n);
    const auto dy = random.vector<T>(rows * step);
    for (int64_t r = 0; r < rows; ++r) {
      double max = -kInf, sum = 0, dot = 0;
      for (int64_t i = 0; i < n; ++i) max = std::fmax(max, x[r * step + i]);
      for (int64_t i = 0; i < n; ++i) sum += std::exp(x[r * step + i] - max);
      for (int64_t i = 0; i < n; ++i)
        want[r * n + i] = r == 3 ? kNan : r == 1 ? 0 : std::exp(x[r * step + i] - max) / sum;
      for (int64_t i = 0; i < n; ++i) dot += want[r * n + i] * dy[r * step + i];
      for (int64_t i = 0; i < n; ++i) want_dx[r * n + i] = want[r * n + i] * (dy[r * step + i] - dot);
    }
    check_all("softmax", isa, y, want, kTolerance<T>);
    isa.kernels->softmax_grad(view<In>(y.data(), {rows, n}), view<In>(dy.data(), {rows, n}, {step, 1}),
                              view<Out>(dx.data(), {rows, n}));
    check_all("softmax_grad", isa, dx, want_dx, kTolerance<T>);
  }
}

TEST(softmax) {
  for (const Isa& isa : isas()) check_softmax<float>(isa), check_softmax<double>(isa);
}

// ---- embedding
// ---------------------------------------------------------------------------------------------------------------

TEST(embedding_rows_and_gradient) {
  Numbers random(22);
  for (const Isa& isa : isas())
    for (int64_t width : kWidths) {
      const int64_t vocabulary = 19, count = 600;
      const auto table = random.vector<float>(vocabulary * width), dout = random.vector<float>(count * width);
      std::vector<int32_t> ids(count);
      for (int32_t& id : ids) id = static_cast<int32_t>(random.bits() % 5 == 0 ? 18 : random.bits() % 11);
      std::vector<float> out(count * width), dtable(vocabulary * width, 5.0f), want(vocabulary * width);
      isa.kernels->embedding(view<In>(table.data(), {vocabulary, width}), ints(ids, {3, 200}),
                             view<Out>(out.data(), {3, 200, width}));
      isa.kernels->embedding_grad(view<In>(dout.data(), {3, 200, width}), ints(ids, {3, 200}),
                                  view<Out>(dtable.data(), {vocabulary, width}));
      bool equal = true;
      for (int64_t i = 0; i < count; ++i)
        for (int64_t c = 0; c < width; ++c) {
          equal = equal && out[i * width + c] == table[ids[i] * width + c];
          want[ids[i] * width + c] += dout[i * width + c];
        }
      CHECK(equal, "%s width %ld", isa.name, static_cast<long>(width));
      CHECK(dtable == want, "%s gradient, in the order of the rows, width %ld", isa.name, static_cast<long>(width));
    }
}

TEST(embedding_refuses_ids) {
  const std::vector<float> table(12);
  std::vector<float> out(9);
  for (const Isa& isa : isas())
    for (int32_t bad : {-1, 4, 1 << 30}) {
      std::string code, message;
      try {
        isa.kernels->embedding(view<In>(table.data(), {4, 3}), ints({0, 3, bad}, {3}), view<Out>(out.data(), {3, 3}));
      } catch (const Error& error) {
        code = error.code(), message = error.what();
      }
      CHECK(code == "ERR_INDEX", "%s id %d: %s", isa.name, bad, code.c_str());
      CHECK(message == "[embedding] token id " + std::to_string(bad) + " at position 2 is outside the vocabulary of 4",
            "%s", message.c_str());
    }
}

// ---- RMSNorm, rope, SwiGLU
// ---------------------------------------------------------------------------------------------------

template <class T>
void check_rms_norm(const Isa& isa) {
  Numbers random(23);
  for (int64_t n : kWidths)
    for (int64_t rows : {1, 3, 40, 1100}) {
      if (n * rows > 60000) continue;
      const int64_t step = n + 5;
      const double eps = 1e-5;
      const auto x = random.vector<T>(rows * step, 2), dy = random.vector<T>(rows * n), weight = random.vector<T>(n);
      std::vector<T> y(rows * n), rstd(rows), dx(rows * n), dweight(n);
      std::vector<double> want_y(rows * n), want_rstd(rows), want_dx(rows * n), want_dweight(n);
      for (int64_t r = 0; r < rows; ++r) {
        double squares = 0, dot = 0;
        for (int64_t i = 0; i < n; ++i) {
          const double v = x[r * step + i];
          squares += v * v, dot += v * dy[r * n + i] * weight[i];
        }
        const double scale = want_rstd[r] = 1 / std::sqrt(squares / static_cast<double>(n) + eps);
        for (int64_t i = 0; i < n; ++i) {
          const double v = x[r * step + i], d = dy[r * n + i];
          want_y[r * n + i] = v * scale * weight[i];
          want_dx[r * n + i] = scale * d * weight[i] - v * scale * scale * scale * dot / static_cast<double>(n);
          want_dweight[i] += d * v * scale;
        }
      }
      const auto vx = view<In>(x.data(), {rows, n}, {step, 1}), vw = view<In>(weight.data(), {n});
      isa.kernels->rms_norm(vx, In{}, vw, 0, eps, Out{}, view<Out>(y.data(), {rows, n}),
                            view<Out>(rstd.data(), {rows}));
      check_all("rms_norm", isa, y, want_y, kTolerance<T>);
      check_all("rms_norm rstd", isa, rstd, want_rstd, kTolerance<T>);
      isa.kernels->rms_norm_grad(view<In>(dy.data(), {rows, n}), In{}, vx, vw, 0, view<In>(rstd.data(), {rows}),
                                 view<Out>(dx.data(), {rows, n}), view<Out>(dweight.data(), {n}));
      check_all("rms_norm dx", isa, dx, want_dx, kTolerance<T> * 10);
      check_all("rms_norm dweight", isa, dweight, want_dweight, kTolerance<T> * 10);
    }
}

TEST(rms_norm) {
  for (const Isa& isa : isas()) check_rms_norm<float>(isa), check_rms_norm<double>(isa);
}

template <class T>
void check_rope(const Isa& isa) {
  Numbers random(24);
  const int64_t batch = 2, length = 5, heads = 3;
  for (int64_t half : {1, 2, 3, 8, 16, 17, 32})
    for (int64_t rest : {0, 1, 6})
      for (int mode = 0; mode < 4; ++mode) {
        const bool interleaved = mode & 1, inverse = mode & 2;
        const int64_t channels = 2 * half + rest, size = batch * length * heads * channels;
        const auto x = random.vector<T>(size);
        std::vector<T> cos(length * half), sin(length * half), out(size), back(size);
        for (size_t i = 0; i < cos.size(); ++i) {
          const double angle = 3 * random();
          cos[i] = static_cast<T>(std::cos(angle)), sin[i] = static_cast<T>(std::sin(angle));
        }
        // x lies in memory as [B, H, T, D].
        const std::vector<int64_t> shape = {batch, length, heads, channels};
        const std::vector<int64_t> strides = {heads * length * channels, channels, length * channels, 1};
        const auto vc = view<In>(cos.data(), {length, half}), vs = view<In>(sin.data(), {length, half});
        isa.kernels->rope(view<In>(x.data(), shape, strides), vc, vs, interleaved, inverse,
                          view<Out>(out.data(), shape));
        std::vector<double> want(size);
        for (int64_t b = 0; b < batch; ++b)
          for (int64_t t = 0; t < length; ++t)
            for (int64_t h = 0; h < heads; ++h) {
              const T* p = &x[b * strides[0] + t * strides[1] + h * strides[2]];
              double* w = &want[((b * length + t) * heads + h) * channels];
              for (int64_t i = 0; i < channels; ++i) w[i] = p[i];
              for (int64_t i = 0; i < half; ++i) {
                const int64_t first = interleaved ? 2 * i : i, second = interleaved ? 2 * i + 1 : i + half;
                const double c = cos[t * half + i], s = inverse ? -sin[t * half + i] : sin[t * half + i], u = p[first],
                             v = p[second];
                w[first] = u * c - v * s, w[second] = v * c + u * s;
              }
            }
        check_all("rope", isa, out, want, kTolerance<T>);
        isa.kernels->rope(view<In>(out.data(), shape), vc, vs, interleaved, !inverse,
                          view<Out>(back.data(), shape, strides));
        check_all("rope back", isa, back, std::vector<double>(x.begin(), x.end()), kTolerance<T>);
      }
}

TEST(rope) {
  for (const Isa& isa : isas()) check_rope<float>(isa), check_rope<double>(isa);
}

template <class T>
void check_swiglu(const Isa& isa) {
  Numbers random(25);
  for (int64_t n : kWidths) {
    // gate and up are the halves of one [rows, 2n] array, and so are their gradients.
    const int64_t rows = 7;
    const auto both = random.vector<T>(rows * 2 * n, 5), dout = random.vector<T>(rows * n);
    std::vector<T> out(rows * n), dboth(rows * 2 * n);
    std::vector<double> want(rows * n), want_d(rows * 2 * n);
    for (int64_t i = 0; i < rows * n; ++i) {
      const int64_t at = i / n * 2 * n + i % n;
      const double g = both[at], u = both[at + n], s = 1 / (1 + std::exp(-g));
      want[i] = g * s * u;
      want_d[at] = dout[i] * u * s * (1 + g * (1 - s)), want_d[at + n] = dout[i] * g * s;
    }
    const std::vector<int64_t> shape = {rows, n}, strides = {2 * n, 1};
    const auto gate = view<In>(both.data(), shape, strides), up = view<In>(both.data() + n, shape, strides);
    isa.kernels->swiglu(gate, up, view<Out>(out.data(), shape));
    check_all("swiglu", isa, out, want, kTolerance<T>);
    isa.kernels->swiglu_grad(view<In>(dout.data(), shape), gate, up, view<Out>(dboth.data(), shape, strides),
                             view<Out>(dboth.data() + n, shape, strides));
    check_all("swiglu_grad", isa, dboth, want_d, kTolerance<T>);
  }
}

TEST(swiglu) {
  for (const Isa& isa : isas()) check_swiglu<float>(isa), check_swiglu<double>(isa);
}

// ---- losses
// ------------------------------------------------------------------------------------------------------------------

struct LossCase {
  double smoothing, z_loss, softcap;
};
constexpr LossCase kLosses[] = {{0, 0, 0}, {0.1, 0, 0}, {0, 0.01, 0}, {0, 0, 5}, {0.2, 0.003, 3}};
constexpr int64_t kIgnore = -100;

struct ReferenceLoss {
  double loss = 0, ce_mean = 0, z_mean = 0;
  std::vector<double> ce, lse;
};

ReferenceLoss reference_loss(const std::vector<double>& logits, int64_t n, const std::vector<int32_t>& targets,
                             const LossCase& c) {
  ReferenceLoss made;
  double valid = 0;
  for (size_t row = 0; row < targets.size(); ++row) {
    made.ce.push_back(0), made.lse.push_back(0);
    if (targets[row] == kIgnore) continue;
    std::vector<double> z(logits.begin() + row * n, logits.begin() + (row + 1) * n);
    double sum = 0, mean = 0;
    for (double& v : z) {
      if (c.softcap > 0) v = c.softcap * std::tanh(v / c.softcap);
      sum += std::exp(v);
    }
    const double lse = made.lse.back() = std::log(sum);
    for (double v : z) mean += (lse - v) / static_cast<double>(n);
    made.ce.back() = (1 - c.smoothing) * (lse - z[targets[row]]) + c.smoothing * mean;
    made.ce_mean += made.ce.back(), made.z_mean += c.z_loss * lse * lse, ++valid;
  }
  if (valid > 0) made.ce_mean /= valid, made.z_mean /= valid;
  made.loss = made.ce_mean + made.z_mean;
  return made;
}

std::vector<int32_t> some_targets(Numbers& random, int64_t rows, int64_t n) {
  std::vector<int32_t> targets(rows);
  for (int32_t& t : targets)
    t = static_cast<int32_t>(random.bits() % 4 == 0 ? kIgnore
                                                    : static_cast<int64_t>(random.bits() % static_cast<uint64_t>(n)));
  targets[0] = static_cast<int32_t>(n - 1);
  return targets;
}

template <class T>
void check_cross_entropy(const Isa& isa) {
  Numbers random(26);
  for (int64_t n : {1, 2, 5, 15, 16, 17, 33, 1500})
    for (const LossCase& c : kLosses) {
      const int64_t rows = n > 100 ? 2 : 4, step = n + 1;
      const auto targets = some_targets(random, rows, n);
      const auto plain = random.vector<double>(rows * n, 4);
      std::vector<T> logits(rows * step), dlogits(rows * step, T(9)), loss(1), stats(3), ce(rows), lse(rows);
      std::vector<double> rounded(rows * n);
      for (int64_t i = 0; i < rows * n; ++i) rounded[i] = logits[i / n * step + i % n] = static_cast<T>(plain[i]);
      const auto vl = view<In>(logits.data(), {rows, n}, {step, 1});
      isa.kernels->cross_entropy(vl, ints(targets, {rows}), kIgnore, c.smoothing, c.z_loss, c.softcap,
                                 view<Out>(loss.data(), {}), view<Out>(stats.data(), {3}), view<Out>(ce.data(), {rows}),
                                 view<Out>(lse.data(), {rows}));
      const ReferenceLoss want = reference_loss(rounded, n, targets, c);
      double valid = 0;
      for (int32_t t : targets) valid += t != kIgnore;
      check_all("loss", isa, loss, {want.loss}, kTolerance<T>);
      check_all("stats", isa, stats, {want.ce_mean, want.z_mean, valid}, kTolerance<T>);
      check_all("ce", isa, ce, want.ce, kTolerance<T>);
      check_all("lse", isa, lse, want.lse, kTolerance<T>);
      const std::vector<T> dloss = {T(1.5)};
      isa.kernels->cross_entropy_grad(view<In>(dloss.data(), {}), vl, ints(targets, {rows}),
                                      view<In>(stats.data(), {3}), view<In>(lse.data(), {rows}), kIgnore, c.smoothing,
                                      c.z_loss, c.softcap, view<Out>(dlogits.data(), {rows, n}, {step, 1}));
      std::vector<double> numeric(rows * n);
      if (n < 100) {
        numeric = numeric_gradient(
            rounded, [&](const std::vector<double>& x) { return 1.5 * reference_loss(x, n, targets, c).loss; });
      } else {  // by the formula: differences of a loss over so many logits would take long
        for (int64_t i = 0; i < rows * n; ++i) {
          const int64_t row = i / n;
          if (targets[row] == kIgnore) continue;
          const double slope = c.softcap > 0 ? std::tanh(rounded[i] / c.softcap) : 0,
                       z = c.softcap > 0 ? c.softcap * slope : rounded[i];
          const double p = std::exp(z - want.lse[row]), at_target = i % n == targets[row] ? 1 - c.smoothing : 0;
          const double d = p * (1 + 2 * c.z_loss * want.lse[row]) - at_target - c.smoothing / static_cast<double>(n);
          numeric[i] = 1.5 / valid * d * (1 - slope * slope);
        }
      }
      for (int64_t i = 0; i < rows * n; ++i)
        CHECK(close(dlogits[i / n * step + i % n], numeric[i], sizeof(T) == 8 ? 1e-8 : 2e-6),
              "%s dlogits n=%ld s=%g z=%g cap=%g: %g want %g", isa.name, static_cast<long>(n), c.smoothing, c.z_loss,
              c.softcap, static_cast<double>(dlogits[i / n * step + i % n]), numeric[i]);
      for (int64_t r = 0; r < rows; ++r) CHECK(dlogits[r * step + n] == T(9), "%s wrote outside", isa.name);
    }
}

// The maximum of a row passes NaN over; its loss must not. What is far below the maximum counts as 0, −∞ too.
template <class T>
void check_cross_entropy_of_nan(const Isa& isa) {
  for (const int64_t n : {1, 5, 70, 1500})
    for (const double softcap : {0.0, 3.0})
      for (const int64_t at : {int64_t{0}, n / 2, n - 1}) {
        std::vector<T> logits(3 * n, T(-1)), loss(1), stats(3), ce(3), lse(3);
        logits[n + at] = static_cast<T>(NAN);
        if (softcap == 0)
          for (int64_t i = 0; i + 1 < n; ++i) logits[2 * n + i] = static_cast<T>(i % 2 == 0 ? -INFINITY : -1e4);
        const std::vector<int32_t> targets(3, static_cast<int32_t>(n - 1));
        isa.kernels->cross_entropy(view<In>(logits.data(), {3, n}), ints(targets, {3}), kIgnore, 0, 0, softcap,
                                   view<Out>(loss.data(), {}), view<Out>(stats.data(), {3}), view<Out>(ce.data(), {3}),
                                   view<Out>(lse.data(), {3}));
        CHECK(std::isnan(lse[1]) && std::isnan(ce[1]) && std::isnan(loss[0]), "%s n=%ld NaN at %ld, cap %g: %g",
              isa.name, static_cast<long>(n), static_cast<long>(at), softcap, static_cast<double>(ce[1]));
        CHECK(close(ce[0], std::log(static_cast<double>(n)), kTolerance<T>), "%s n=%ld: %g", isa.name,
              static_cast<long>(n), static_cast<double>(ce[0]));
        if (softcap == 0)
          CHECK(ce[2] == 0 && lse[2] == -1, "%s n=%ld: %g, %g", isa.name, static_cast<long>(n),
                static_cast<double>(ce[2]), static_cast<double>(lse[2]));
      }
}

TEST(cross_entropy_of_nan) {
  for (const Isa& isa : isas()) check_cross_entropy_of_nan<float>(isa), check_cross_entropy_of_nan<double>(isa);
}

TEST(cross_entropy) {
  for (const Isa& isa : isas()) check_cross_entropy<float>(isa), check_cross_entropy<double>(isa);
}

template <class T>
void check_linear_cross_entropy(const Isa& isa, int64_t rows, int64_t width, int64_t n, const LossCase& c) {
  Numbers random(27);
  const auto hidden = random.vector<T>(rows * width), weight = random.vector<T>(n * width);
  const auto targets = some_targets(random, rows, n);
  std::vector<T> loss(1), stats(3), ce(rows), dhidden(rows * width), dweight(n * width);
  isa.kernels->linear_cross_entropy(
      view<In>(hidden.data(), {rows, width}), view<In>(weight.data(), {n, width}), ints(targets, {rows}), kIgnore,
      c.smoothing, c.z_loss, c.softcap, view<Out>(loss.data(), {}), view<Out>(stats.data(), {3}),
      view<Out>(ce.data(), {rows}), view<Out>(dhidden.data(), {rows, width}), view<Out>(dweight.data(), {n, width}));
  // The plain way in float64: logits, cross_entropy and its gradient (checked above), two products.
  std::vector<double> logits(rows * n), dlogits(rows * n), lse(rows), want_ce(rows), want_stats(3), want_loss(1),
      want_dh(rows * width), want_dw(n * width);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t v = 0; v < n; ++v)
      for (int64_t i = 0; i < width; ++i)
        logits[r * n + v] += static_cast<double>(hidden[r * width + i]) * weight[v * width + i];
  const auto vl = view<In>(logits.data(), {rows, n});
  isa.kernels->cross_entropy(vl, ints(targets, {rows}), kIgnore, c.smoothing, c.z_loss, c.softcap,
                             view<Out>(want_loss.data(), {}), view<Out>(want_stats.data(), {3}),
                             view<Out>(want_ce.data(), {rows}), view<Out>(lse.data(), {rows}));
  const std::vector<double> one = {1};
  isa.kernels->cross_entropy_grad(view<In>(one.data(), {}), vl, ints(targets, {rows}), view<In>(want_stats.data(), {3}),
                                  view<In>(lse.data(), {rows}), kIgnore, c.smoothing, c.z_loss, c.softcap,
                                  view<Out>(dlogits.data(), {rows, n}));
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t v = 0; v < n; ++v)
      for (int64_t i = 0; i < width; ++i) {
        want_dh[r * width + i] += dlogits[r * n + v] * weight[v * width + i];
        want_dw[v * width + i] += dlogits[r * n + v] * hidden[r * width + i];
      }
  check_all("linear loss", isa, loss, want_loss, kTolerance<T>);
  check_all("linear stats", isa, stats, want_stats, kTolerance<T>);
  check_all("linear ce", isa, ce, want_ce, kTolerance<T>);
  check_all("dhidden", isa, dhidden, want_dh, kTolerance<T>);
  check_all("dweight", isa, dweight, want_dw, kTolerance<T>);
  // Without gradients the loss is the same, bit for bit.
  std::vector<T> again(1);
  isa.kernels->linear_cross_entropy(view<In>(hidden.data(), {rows, width}), view<In>(weight.data(), {n, width}),
                                    ints(targets, {rows}), kIgnore, c.smoothing, c.z_loss, c.softcap,
                                    view<Out>(again.data(), {}), view<Out>(stats.data(), {3}),
                                    view<Out>(ce.data(), {rows}), Out{}, Out{});
  CHECK(again[0] == loss[0], "%s", isa.name);
}

TEST(linear_cross_entropy) {
  for (const Isa& isa : isas())
    for (const LossCase& c : kLosses) {
      check_linear_cross_entropy<float>(isa, 1, 1, 1, c);
      check_linear_cross_entropy<float>(isa, 5, 17, 33, c);
      check_linear_cross_entropy<double>(isa, 6, 9, 15, c);
    }
}
TEST(linear_cross_entropy_of_many_blocks) {
  // 20000 float32 logits a row: blocks of 128 rows; the last block is short.
  for (const Isa& isa : isas()) check_linear_cross_entropy<float>(isa, 300, 3, 20000, kLosses[4]);
  for (const Isa& isa : isas()) check_linear_cross_entropy<float>(isa, 2500, 4, 40, kLosses[0]);
}

TEST(losses_without_valid_rows_and_with_bad_targets) {
  const std::vector<float> logits(12, 1.0f), weight(12, 1.0f), hidden(9, 1.0f);
  for (const Isa& isa : isas()) {
    std::vector<float> loss(1, 7), stats(3, 7), ce(3, 7), lse(3, 7), dhidden(9, 7), dweight(12, 7);
    const auto run = [&](const std::vector<int32_t>& targets, bool linear) {
      const Out vloss = view<Out>(loss.data(), {}), vstats = view<Out>(stats.data(), {3}),
                vce = view<Out>(ce.data(), {3});
      if (linear)
        isa.kernels->linear_cross_entropy(view<In>(hidden.data(), {3, 3}), view<In>(weight.data(), {4, 3}),
                                          ints(targets, {3}), kIgnore, 0.1, 0.1, 0, vloss, vstats, vce,
                                          view<Out>(dhidden.data(), {3, 3}), view<Out>(dweight.data(), {4, 3}));
      else
        isa.kernels->cross_entropy(view<In>(logits.data(), {3, 4}), ints(targets, {3}), kIgnore, 0.1, 0.1, 0, vloss,
                                   vstats, vce, view<Out>(lse.data(), {3}));
    };
    for (bool linear : {false, true}) {
      run({-100, -100, -100}, linear);
      check_all("no rows: loss", isa, loss, {0}, 0);
      check_all("no rows: stats", isa, stats, {0, 0, 0}, 0);
      check_all("no rows: ce", isa, ce, {0, 0, 0}, 0);
      for (int32_t bad : {-1, 4}) {
        std::string code, message;
        try {
          run({0, bad, -100}, linear);
        } catch (const Error& error) {
          code = error.code(), message = error.what();
        }
        CHECK(code == "ERR_INDEX" &&
                  message == "[crossEntropy] target " + std::to_string(bad) + " at row 1 is outside [0, 4)",
              "%s: %s", isa.name, message.c_str());
      }
      loss = {7}, stats = ce = {7, 7, 7};
    }
    check_all("no rows: dhidden", isa, dhidden, std::vector<double>(9), 0);
    check_all("no rows: dweight", isa, dweight, std::vector<double>(12), 0);
  }
}

}  // namespace
}  // namespace llmeff::test
