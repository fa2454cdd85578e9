// Attention and its gradient against the plain triple loop in float64, over odd shapes, masks and layouts.
#include "isas.h"
#include "test.h"

namespace llmeff::test {
namespace {

struct Shape {
  int64_t b, t, s, h, k, d, dv;
  bool causal;
  int64_t window, q_offset;
  double softcap, magnitude;  // of q
  // Documents of this many positions (0: none), the last two positions padding; alternating ones leave gaps.
  int64_t document = 0;
  bool alternating = false;
  int64_t prefix = 0;  // of every second query, one less for the others
};

// The document of position i of n.
int32_t document_of(const Shape& x, int64_t i, int64_t n) {
  if (x.document == 0 || i >= n - 2) return -1;
  return static_cast<int32_t>(x.alternating ? i / x.document % 2 : i / x.document);
}
int32_t prefix_of(const Shape& x, int64_t t) {
  return static_cast<int32_t>(x.prefix - (t % 2 == 0 ? 0 : 1));
}

constexpr Shape kShapes[] = {
    {1, 1, 1, 1, 1, 1, 1, true, 0, 0, 0, 1},
    {2, 7, 7, 3, 3, 5, 5, true, 0, 0, 0, 1},
    {1, 64, 64, 4, 2, 32, 32, true, 0, 0, 0, 1},
    {2, 65, 65, 2, 1, 16, 24, true, 0, 0, 0, 1},
    {1, 129, 129, 2, 2, 17, 9, true, 0, 0, 0, 1},
    {1, 200, 200, 1, 1, 64, 64, true, 33, 0, 0, 1},
    {1, 131, 131, 2, 1, 20, 20, false, 0, 0, 0, 1},
    {1, 131, 131, 2, 2, 20, 20, false, 17, 0, 0, 1},
    {2, 1, 300, 8, 2, 64, 64, true, 0, 299, 0, 1},   // decoding
    {1, 5, 77, 4, 4, 8, 8, true, 0, 72, 0, 1},       // decoding several
    {1, 40, 10, 2, 1, 8, 8, true, 4, 0, 0, 1},       // late rows see nothing
    {1, 20, 30, 1, 1, 8, 8, true, 0, -6, 0, 1},      // early rows see nothing
    {1, 30, 70, 2, 2, 12, 12, false, 5, 100, 0, 1},  // no row sees anything
    {1, 90, 90, 2, 1, 32, 32, true, 0, 0, 5, 3},     // capped
    {1, 70, 150, 2, 1, 16, 16, false, 40, 30, 20, 3},
    {1, 100, 100, 2, 2, 16, 16, true, 0, 0, 0, 60},  // nearly one-hot
    {1, 700, 700, 3, 1, 8, 8, true, 0, 0, 0, 1},     // several chunks and parts
    {1, 100, 1100, 1, 1, 16, 8, false, 0, 0, 0, 1},
    {1, 4, 2100, 4, 1, 32, 16, true, 0, 2096, 10, 1},  // parts of the keys
    {2, 40, 40, 2, 2, 8, 8, true, 0, 0, 0, 1, 7},      // documents
    {1, 300, 300, 2, 1, 16, 16, true, 20, 0, 0, 1, 50},
    {1, 300, 300, 2, 1, 16, 16, false, 0, 0, 5, 3, 65},
    {2, 150, 150, 2, 1, 8, 8, true, 0, 0, 0, 1, 9, true},  // with gaps
    {1, 90, 200, 2, 1, 8, 8, true, 30, 100, 4, 3, 13, true, 20},
    {1, 20, 1500, 2, 2, 8, 8, true, 0, 1480, 0, 1, 100},
    {1, 150, 150, 2, 1, 8, 8, true, 0, 0, 0, 1, 0, false, 90},  // a prefix
    {2, 100, 100, 2, 1, 8, 8, true, 12, 0, 0, 1, 0, false, 40},
    {1, 130, 130, 1, 1, 8, 8, true, 0, 0, 0, 1, 33, false, 10},
    {2, 3, 400, 4, 2, 16, 12, true, 0, 397, 0, 1, 30, true},       // few rows: documents with gaps
    {1, 4, 300, 2, 1, 8, 8, true, 25, 200, 5, 3, 40, false, 260},  // a prefix in a window
    {1, 6, 40, 1, 1, 8, 8, true, 0, -2, 0, 1},                     // early rows see nothing
};

struct Reference {
  std::vector<double> o, lse, dq, dk, dv;
};

template <class T>
Reference reference(const Shape& x, double scale, const std::vector<T>& q, const std::vector<T>& k,
                    const std::vector<T>& v, const std::vector<T>& dout, const std::vector<T>& dlse) {
  Reference r;
  r.o.resize(dout.size()), r.lse.resize(x.b * x.h * x.t), r.dq.resize(q.size()), r.dk.resize(k.size()),
      r.dv.resize(v.size());
  const int64_t group = x.h / x.k;
  std::vector<double> p(x.s), turned(x.s);
  for (int64_t b = 0; b < x.b; ++b)
    for (int64_t t = 0; t < x.t; ++t)
      for (int64_t h = 0; h < x.h; ++h) {
        const int64_t row = (b * x.t + t) * x.h + h, i = x.q_offset + t;
        const auto key = [&](int64_t j) { return (b * x.s + j) * x.k + h / group; };
        int64_t start = 0;
        while (x.document > 0 && start < x.s && document_of(x, start, x.s) != document_of(x, t, x.t)) ++start;
        const auto allowed = [&](int64_t j) {
          const bool ahead = x.prefix > 0 && j < start + prefix_of(x, t);
          return (!x.causal || j <= i || ahead) &&
                 (x.window == 0 || (j > i - x.window && (x.causal || j < i + x.window))) &&
                 (x.document == 0 || document_of(x, j, x.s) == document_of(x, t, x.t));
        };
        double top = -INFINITY, sum = 0, delta = 0;
        for (int64_t j = 0; j < x.s; ++j) {
          p[j] = -INFINITY, turned[j] = 0;
          if (!allowed(j)) continue;
          double s = 0;
          for (int64_t c = 0; c < x.d; ++c) s += static_cast<double>(q[row * x.d + c]) * k[key(j) * x.d + c];
          s *= scale;
          if (x.softcap > 0) turned[j] = std::tanh(s / x.softcap), s = x.softcap * turned[j];
          p[j] = s;
          top = std::fmax(top, s);
        }
        for (int64_t j = 0; j < x.s; ++j) sum += p[j] = p[j] == -INFINITY ? 0 : std::exp(p[j] - top);
        r.lse[(b * x.h + h) * x.t + t] = sum == 0 ? -INFINITY : top + std::log(sum);
        for (int64_t j = 0; j < x.s; ++j) {
          if (sum > 0) p[j] /= sum;
          for (int64_t c = 0; c < x.dv; ++c) r.o[row * x.dv + c] += p[j] * v[key(j) * x.dv + c];
        }
        for (int64_t c = 0; c < x.dv; ++c) delta += r.o[row * x.dv + c] * dout[row * x.dv + c];
        if (!dlse.empty()) delta -= dlse[(b * x.h + h) * x.t + t];
        for (int64_t j = 0; j < x.s; ++j) {
          if (p[j] == 0) continue;
          double dp = 0;
          for (int64_t c = 0; c < x.dv; ++c) {
            dp += static_cast<double>(dout[row * x.dv + c]) * v[key(j) * x.dv + c];
            r.dv[key(j) * x.dv + c] += p[j] * dout[row * x.dv + c];
          }
          const double ds = p[j] * (dp - delta) * (1 - turned[j] * turned[j]) * scale;
          for (int64_t c = 0; c < x.d; ++c) {
            r.dq[row * x.d + c] += ds * k[key(j) * x.d + c];
            r.dk[key(j) * x.d + c] += ds * q[row * x.d + c];
          }
        }
      }
  return r;
}

// The largest difference, relative to 1 + |want|; infinity for a NaN or a wrong infinity.
template <class T>
double difference(const std::vector<T>& got, const std::vector<double>& want) {
  double worst = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    if (std::isinf(want[i]) ? got[i] != want[i] : std::isnan(got[i])) return INFINITY;
    if (!std::isinf(want[i])) worst = std::fmax(worst, std::fabs(got[i] - want[i]) / (1 + std::fabs(want[i])));
  }
  return worst;
}

// Copies [B, N, H, D] to [B, H, N, D] with gaps, and views it in the first order.
template <class T>
In strided(const std::vector<T>& data, std::vector<T>& storage, int64_t b, int64_t n, int64_t h, int64_t d) {
  const int64_t step = d + 3;
  storage.assign(static_cast<size_t>(b * h * n * step), static_cast<T>(NAN));
  for (int64_t i = 0; i < b * n * h; ++i)
    for (int64_t c = 0; c < d; ++c) storage[((i / (n * h) * h + i % h) * n + i / h % n) * step + c] = data[i * d + c];
  return view<In>(storage.data(), {b, n, h, d}, {h * n * step, step, n * step, 1});
}

// The place of a gradient [B, N, H, D]: rows follow each other, or with gaps as of one array for several.
template <class T>
class Gradient {
 public:
  Gradient(int64_t b, int64_t n, int64_t h, int64_t d, bool apart)
      : b_(b), n_(n), h_(h), d_(d), row_(h * d + (apart ? 5 : 0)), storage_(b * n * row_, NAN) {}

  Out out() { return view<Out>(storage_.data(), {b_, n_, h_, d_}, {n_ * row_, row_, d_, 1}); }
  std::vector<T> values() const {
    std::vector<T> all;
    for (int64_t row = 0; row < b_ * n_; ++row)
      all.insert(all.end(), storage_.begin() + row * row_, storage_.begin() + row * row_ + h_ * d_);
    return all;
  }
  bool gaps_untouched() const {
    for (int64_t i = 0; i < b_ * n_ * row_; ++i)
      if (i % row_ >= h_ * d_ && !std::isnan(storage_[static_cast<size_t>(i)])) return false;
    return true;
  }

 private:
  int64_t b_, n_, h_, d_, row_;
  std::vector<T> storage_;
};

template <class T>
void check(const Isa& isa, const Shape& x, int index, double tolerance) {
  Numbers random(static_cast<uint64_t>(index) + 77);
  const double scale = 1 / std::sqrt(static_cast<double>(x.d));
  const auto q = random.vector<T>(x.b * x.t * x.h * x.d, x.magnitude), k = random.vector<T>(x.b * x.s * x.k * x.d);
  const auto v = random.vector<T>(x.b * x.s * x.k * x.dv), dout = random.vector<T>(x.b * x.t * x.h * x.dv);
  const auto dlse = index % 2 == 0 ? std::vector<T>() : random.vector<T>(x.b * x.h * x.t);
  const Reference want = reference(x, scale, q, k, v, dout, dlse);
  std::vector<int32_t> q_doc(x.t), k_doc(x.s), prefix(x.t);
  for (int64_t t = 0; t < x.t; ++t) q_doc[t] = document_of(x, t, x.t), prefix[t] = prefix_of(x, t);
  for (int64_t j = 0; j < x.s; ++j) k_doc[j] = document_of(x, j, x.s);
  const In vq_doc = x.document > 0 ? view<In>(q_doc.data(), {x.b, x.t}, {0, 1}) : In{};
  const In vk_doc = x.document > 0 ? view<In>(k_doc.data(), {x.b, x.s}, {0, 1}) : In{};
  const In vprefix = x.prefix > 0 ? view<In>(prefix.data(), {x.b, x.t}, {0, 1}) : In{};
  const In vdlse = dlse.empty() ? In{} : view<In>(dlse.data(), {x.b, x.h, x.t});
  const double allowed = tolerance * std::fmax(1, x.magnitude * x.magnitude / 4);
  for (const bool apart : {false, true}) {
    std::vector<T> qs, ks, vs, douts;
    const In vq = apart ? strided(q, qs, x.b, x.t, x.h, x.d) : view<In>(q.data(), {x.b, x.t, x.h, x.d});
    const In vk = apart ? strided(k, ks, x.b, x.s, x.k, x.d) : view<In>(k.data(), {x.b, x.s, x.k, x.d});
    const In vv = apart ? strided(v, vs, x.b, x.s, x.k, x.dv) : view<In>(v.data(), {x.b, x.s, x.k, x.dv});
    const In vdout = apart ? strided(dout, douts, x.b, x.t, x.h, x.dv) : view<In>(dout.data(), {x.b, x.t, x.h, x.dv});
    std::vector<T> o(dout.size(), NAN), lse(want.lse.size(), NAN);
    Gradient<T> dq(x.b, x.t, x.h, x.d, apart), dk(x.b, x.s, x.k, x.d, apart), dv(x.b, x.s, x.k, x.dv, apart);
    isa.kernels->attention(vq, vk, vv, vq_doc, vk_doc, vprefix, scale, x.causal, x.window, x.q_offset, x.softcap,
                           view<Out>(o.data(), {x.b, x.t, x.h, x.dv}), view<Out>(lse.data(), {x.b, x.h, x.t}));
    isa.kernels->attention_grad(vdout, vdlse, vq, vk, vv, view<In>(o.data(), {x.b, x.t, x.h, x.dv}),
                                view<In>(lse.data(), {x.b, x.h, x.t}), vq_doc, vk_doc, vprefix, scale, x.causal,
                                x.window, x.q_offset, x.softcap, In{}, In{}, false, dq.out(), dk.out(), dv.out());
    const struct {
      const char* name;
      double error;
    } results[] = {{"o", difference(o, want.o)},
                   {"lse", difference(lse, want.lse)},
                   {"dq", difference(dq.values(), want.dq)},
                   {"dk", difference(dk.values(), want.dk)},
                   {"dv", difference(dv.values(), want.dv)}};
    for (const auto& result : results)
      CHECK(result.error <= allowed, "%s %d-byte shape %d %s, %s: error %g > %g", isa.name, static_cast<int>(sizeof(T)),
            index, apart ? "strided" : "contiguous", result.name, result.error, allowed);
    for (const Gradient<T>* gradient : {&dq, &dk, &dv})
      CHECK(gradient->gaps_untouched(), "%s %d-byte shape %d", isa.name, static_cast<int>(sizeof(T)), index);
  }
}

template <class T>
void check_all(double tolerance) {
  for (const Isa& isa : isas()) {
    int index = 0;
    for (const Shape& shape : kShapes) check<T>(isa, shape, index++, tolerance);
  }
}

TEST(attention_float32) {
  check_all<float>(4e-6);
}
TEST(attention_float64) {
  check_all<double>(1e-14);
}

// Rows and keys that are not finite reach exactly those that they meet under the mask.
struct Spread {
  int64_t t, h, k, d, window, q_offset;
  bool causal;
  double softcap;
};

constexpr Spread kSpreads[] = {
    {9, 1, 1, 4, 0, 0, true, 0},     {70, 2, 1, 8, 0, 0, true, 0},  {150, 3, 1, 5, 40, 0, true, 0},
    {150, 2, 2, 20, 0, 0, true, 15}, {90, 1, 1, 8, 7, 3, false, 0}, {600, 1, 1, 8, 100, 0, true, 0},
};

template <class T>
void check_spread(const Isa& isa, const Spread& x, int index, double bad) {
  enum Target { kQuery, kKey, kValue, kDout };
  const int64_t groups = x.h / x.k;
  const auto sees = [&](int64_t i, int64_t j) {
    const int64_t at = x.q_offset + i;
    return (!x.causal || j <= at) && (x.window == 0 || (j > at - x.window && (x.causal || j < at + x.window)));
  };
  for (const Target target : {kQuery, kKey, kValue, kDout})
    for (const int64_t at : {int64_t{0}, x.t / 2, x.t - 1}) {
      Numbers random(static_cast<uint64_t>(index) + 5);
      auto q = random.vector<T>(x.t * x.h * x.d), k = random.vector<T>(x.t * x.k * x.d),
           v = random.vector<T>(x.t * x.k * x.d), dout = random.vector<T>(x.t * x.h * x.d);
      (target == kQuery   ? q[at * x.h * x.d]
       : target == kKey   ? k[at * x.k * x.d]
       : target == kValue ? v[at * x.k * x.d]
                          : dout[at * x.h * x.d]) = static_cast<T>(bad);
      std::vector<T> o(q.size()), lse(x.h * x.t), dq(q.size()), dk(k.size()), dv(v.size());
      const auto rows = [&](auto& data, auto kind) {
        return view<decltype(kind)>(data.data(), {1, x.t, static_cast<int64_t>(data.size()) / (x.t * x.d), x.d});
      };
      isa.kernels->attention(rows(q, In{}), rows(k, In{}), rows(v, In{}), In{}, In{}, In{}, 0.5, x.causal, x.window,
                             x.q_offset, x.softcap, rows(o, Out{}), view<Out>(lse.data(), {1, x.h, x.t}));
      isa.kernels->attention_grad(rows(dout, In{}), In{}, rows(q, In{}), rows(k, In{}), rows(v, In{}), rows(o, In{}),
                                  view<In>(lse.data(), {1, x.h, x.t}), In{}, In{}, In{}, 0.5, x.causal, x.window,
                                  x.q_offset, x.softcap, In{}, In{}, false, rows(dq, Out{}), rows(dk, Out{}),
                                  rows(dv, Out{}));
      // Row i of head 0 computes with the bad number; a key is reached when some such row sees it.
      const bool by_key = target == kKey || target == kValue;
      const auto meets = [&](int64_t i) { return by_key ? sees(i, at) : i == at; };
      const auto reached = [&](int64_t j) {
        for (int64_t i = 0; i < x.t; ++i)
          if (meets(i) && sees(i, j)) return true;
        return false;
      };
      const auto finite = [&](const std::vector<T>& data, int64_t row) {
        for (int64_t c = 0; c < x.d; ++c)
          if (!std::isfinite(data[row * x.d + c])) return false;
        return true;
      };
      for (int64_t i = 0; i < x.t; ++i)
        for (int64_t h = 0; h < x.h; ++h) {
          // Another head of the group meets the same keys, another row its own numbers only.
          const bool met = meets(i) && (by_key ? h / groups == 0 : h == 0);
          CHECK(met || finite(o, i * x.h + h), "%s spread %d: %g of %d at %ld reaches o of row %ld head %ld", isa.name,
                index, bad, target, static_cast<long>(at), static_cast<long>(i), static_cast<long>(h));
          CHECK(met || finite(dq, i * x.h + h), "%s spread %d: %g of %d at %ld reaches dq of row %ld head %ld",
                isa.name, index, bad, target, static_cast<long>(at), static_cast<long>(i), static_cast<long>(h));
          if (std::isnan(bad) && met && target != kDout)
            CHECK(!finite(o, i * x.h + h), "%s spread %d: NaN of %d at %ld does not reach row %ld", isa.name, index,
                  target, static_cast<long>(at), static_cast<long>(i));
        }
      for (int64_t j = 0; j < x.t; ++j)
        for (int64_t h = 0; h < x.k; ++h) {
          const bool met = h == 0 && reached(j);
          CHECK(met || (finite(dk, j * x.k + h) && finite(dv, j * x.k + h)),
                "%s spread %d: %g of %d at %ld reaches the gradient of key %ld", isa.name, index, bad, target,
                static_cast<long>(at), static_cast<long>(j));
          if (std::isnan(bad) && met)
            CHECK(!finite(target == kDout ? dv : dk, j * x.k + h),
                  "%s spread %d: NaN of %d at %ld does not reach key %ld", isa.name, index, target,
                  static_cast<long>(at), static_cast<long>(j));
        }
    }
}

TEST(attention_not_finite) {
  for (const Isa& isa : isas()) {
    int index = 0;
    for (const Spread& spread : kSpreads) {
      for (const double bad : {static_cast<double>(NAN), static_cast<double>(INFINITY)}) {
        check_spread<float>(isa, spread, index, bad);
        check_spread<double>(isa, spread, index, bad);
      }
      ++index;
    }
  }
}

}  // namespace
}  // namespace llmeff::test
