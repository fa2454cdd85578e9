// 2-simplicial attention against plain double loops: both forms, every kind of window, offset, group and odd size; the
// identities of its gradients; and the same bits for any number of threads.
#include <bit>
#include <cstdlib>
#include <cstring>
#include <string>


#include "isas.h"
#include "self.h"
#include "simplicial_reference.h"
#include "test.h"

namespace llmeff::test {
namespace {

constexpr bool kCausal = true, kAll = false, kDeterminant = true, kTrilinear = false;

constexpr SimplicialCase kCases[] = {
    // name, batch, tokens, s1, s2, heads, kv heads, d, dv, causal, w1, w2, offsets of q, k1, k2, form, biases, scale
    {"one token", 1, 1, 1, 1, 2, 1, 8, 8, kCausal, 512, 32, 0, 0, 0, kTrilinear, 0, 0, 0},
    {"one channel", 2, 5, 5, 5, 2, 2, 1, 1, kCausal, 3, 2, 0, 0, 0, kTrilinear, 0, 0, 0},
    {"windows of 1", 1, 6, 6, 6, 2, 1, 8, 8, kCausal, 1, 1, 0, 0, 0, kTrilinear, 0, 0, 0},
    {"w2 = 1", 2, 12, 12, 12, 4, 2, 8, 8, kCausal, 5, 1, 0, 0, 0, kTrilinear, 0.1, 1, 0},
    {"w1 < w2", 1, 19, 19, 19, 2, 1, 9, 10, kCausal, 3, 11, 0, 0, 0, kTrilinear, 0.125, 1, 0},
    {"w1 = 1 < w2", 1, 9, 9, 9, 3, 1, 7, 5, kCausal, 1, 4, 0, 0, 0, kDeterminant, 0.2, 0.5, 0},
    {"no windows", 2, 33, 33, 33, 4, 4, 32, 32, kCausal, 0, 0, 0, 0, 0, kTrilinear, 0, 0, 0},
    {"window past the end", 1, 11, 11, 11, 2, 1, 8, 8, kCausal, 64, 32, 0, 0, 0, kTrilinear, 0, 0, 0},
    {"one window only", 1, 40, 40, 40, 2, 1, 16, 16, kCausal, 0, 3, 0, 0, 0, kTrilinear, 0, 0, 0},
    {"keys in segments", 1, 3, 2090, 2090, 2, 1, 9, 8, kCausal, 0, 2, 2087, 0, 0, kTrilinear, 0.1, 0, 0},
    {"keys in segments, some chunks without", 1, 21, 2060, 40, 2, 1, 4, 4, kCausal, 0, 3, 2038, 0, 2020, kTrilinear, 0,
     0, 0},
    {"keys in segments, all pairs, determinant", 1, 2, 2, 4100, 17, 1, 7, 5, kAll, 0, 0, 0, 0, 0, kDeterminant, 0, 0.5,
     0},
    {"keys in segments, large group", 1, 2, 2050, 2050, 16, 1, 4, 4, kCausal, 0, 1, 2048, 0, 0, kTrilinear, 0, 0, 0},
    {"long side second", 1, 40, 40, 40, 2, 1, 16, 16, kCausal, 5, 0, 0, 0, 0, kTrilinear, 0.3, 1, 0},
    {"training", 2, 70, 70, 70, 4, 1, 32, 32, kCausal, 32, 8, 0, 0, 0, kTrilinear, 1.0 / 32, 1, 0},
    {"rows of 13, keys of 47", 1, 50, 50, 50, 1, 1, 20, 24, kCausal, 47, 13, 0, 0, 0, kTrilinear, 0, 0, 0},
    {"rows of 49, keys of 129", 1, 4, 140, 140, 2, 1, 33, 31, kCausal, 129, 49, 136, 0, 0, kTrilinear, 0, 0, 0},
    {"keys of 127", 1, 3, 140, 140, 3, 1, 17, 16, kCausal, 127, 7, 137, 0, 0, kTrilinear, 0, 0, 0},
    {"many heads of a group", 1, 9, 9, 9, 67, 1, 24, 40, kCausal, 6, 4, 0, 0, 0, kTrilinear, 0.1, 1, 0},
    {"group of 24, two kv heads", 2, 6, 6, 6, 48, 2, 16, 15, kCausal, 4, 5, 0, 0, 0, kTrilinear, 0, 0, 0},
    {"group of 64, long window", 1, 2, 150, 150, 64, 1, 32, 32, kCausal, 140, 3, 148, 0, 0, kTrilinear, 0, 0, 0},
    {"group of 30, determinant", 1, 5, 5, 5, 30, 1, 13, 9, kCausal, 3, 2, 0, 0, 0, kDeterminant, 0.1, 1, 0},
    {"determinant, D = 6", 1, 9, 9, 9, 2, 1, 6, 6, kCausal, 4, 3, 0, 0, 0, kDeterminant, 0, 0, 0},
    {"determinant, D mod 3 = 2, swapped", 2, 14, 14, 14, 4, 2, 35, 8, kCausal, 4, 9, 0, 0, 0, kDeterminant, 0.1, 1, 0},
    {"determinant, D = 2", 1, 5, 5, 5, 1, 1, 2, 2, kCausal, 4, 3, 0, 0, 0, kDeterminant, 0, 0, 1},
    {"determinant, no windows", 1, 21, 21, 21, 2, 2, 24, 24, kCausal, 0, 0, 0, 0, 0, kDeterminant, 0, 0, 0},
    {"decode", 2, 1, 40, 40, 8, 2, 16, 16, kCausal, 24, 8, 39, 0, 0, kTrilinear, 0, 0, 0},
    {"prefill chunk of two lengths", 1, 7, 20, 13, 4, 2, 12, 8, kCausal, 9, 5, 30, 17, 24, kTrilinear, 0.2, 1, 0},
    {"prefill chunk, determinant", 1, 7, 20, 13, 2, 1, 12, 8, kCausal, 9, 5, 30, 17, 24, kDeterminant, 0.2, 1, 0},
    {"ring of two lengths", 1, 2, 9, 5, 4, 1, 16, 16, kAll, 0, 0, 0, 0, 0, kTrilinear, 0, 0, 0},
    {"all pairs", 2, 17, 17, 17, 2, 1, 8, 12, kAll, 0, 0, 0, 0, 0, kTrilinear, 0.1, 1, 0.5},
    {"all pairs, fewer first rows, determinant", 1, 3, 4, 18, 2, 1, 10, 8, kAll, 0, 0, 0, 0, 0, kDeterminant, 0.1, 1,
     0.5},
    {"rows without keys", 1, 6, 4, 4, 2, 1, 8, 8, kCausal, 3, 2, 0, 2, 2, kTrilinear, 0, 0, 0},
    {"large logits", 1, 12, 12, 12, 2, 1, 16, 16, kCausal, 6, 4, 0, 0, 0, kTrilinear, 0, 0, 60},
};

SimplicialTensors<double> inputs(const SimplicialCase& c, uint64_t seed) {
  Numbers random(seed);
  SimplicialTensors<double> x;
  // Numbers that float32 holds exactly, so that one reference serves both types.
  const auto fill = [&](int64_t rows, int64_t heads, int64_t n) {
    std::vector<double> v = random.vector<double>(c.batch * rows * heads * n, 1.5);
    for (double& e : v) e = static_cast<float>(e);
    return v;
  };
  x.q = fill(c.tokens, c.heads, c.d), x.k1 = fill(c.s1, c.kv_heads, c.d), x.k2 = fill(c.s2, c.kv_heads, c.d);
  x.v1 = fill(c.s1, c.kv_heads, c.dv), x.v2 = fill(c.s2, c.kv_heads, c.dv), x.dout = fill(c.tokens, c.heads, c.dv);
  return x;
}

// [B, rows, heads, n] laid out as [B, heads, rows, n + pad] and back.
template <class T>
struct Strided {
  std::vector<T> data;
  std::vector<int64_t> shape, strides;
  Strided(const std::vector<double>& from, int64_t batch, int64_t rows, int64_t heads, int64_t n, bool strided)
      : shape{batch, rows, heads, n} {
    const int64_t ld = strided ? n + 3 : n;
    strides = strided ? std::vector<int64_t>{heads * rows * ld, ld, rows * ld, 1}
                      : std::vector<int64_t>{heads * rows * n, heads * n, n, 1};
    data.assign(static_cast<size_t>(batch * rows * heads * ld), static_cast<T>(NAN));
    int64_t i = 0;
    for (int64_t b = 0; b < batch; ++b)
      for (int64_t r = 0; r < rows; ++r)
        for (int64_t h = 0; h < heads; ++h)
          for (int64_t e = 0; e < n && i < static_cast<int64_t>(from.size()); ++e)
            data[at(b, r, h, e)] = static_cast<T>(from[i++]);
  }
  int64_t at(int64_t b, int64_t r, int64_t h, int64_t e) const {
    return b * strides[0] + r * strides[1] + h * strides[2] + e;
  }
  std::vector<T> dense() const {
    std::vector<T> out;
    for (int64_t b = 0; b < shape[0]; ++b)
      for (int64_t r = 0; r < shape[1]; ++r)
        for (int64_t h = 0; h < shape[2]; ++h)
          for (int64_t e = 0; e < shape[3]; ++e) out.push_back(data[at(b, r, h, e)]);
    return out;
  }
  template <class V>
  V as() const {
    return view<V>(data.data(), shape, strides);
  }
};

template <class T>
SimplicialTensors<T> run(Kernels& kernels, const SimplicialCase& c, const SimplicialTensors<double>& x, bool strided) {
  const Strided<T> q(x.q, c.batch, c.tokens, c.heads, c.d, strided), k1(x.k1, c.batch, c.s1, c.kv_heads, c.d, strided),
      k2(x.k2, c.batch, c.s2, c.kv_heads, c.d, strided), v1(x.v1, c.batch, c.s1, c.kv_heads, c.dv, strided),
      v2(x.v2, c.batch, c.s2, c.kv_heads, c.dv, strided), dout(x.dout, c.batch, c.tokens, c.heads, c.dv, strided),
      o({}, c.batch, c.tokens, c.heads, c.dv, strided);
  SimplicialTensors<T> y;
  const auto empty = [](std::vector<T>& v, size_t n) { v.assign(n, static_cast<T>(NAN)); };
  empty(y.lse, c.batch * c.heads * c.tokens), empty(y.dq, x.q.size()), empty(y.dk1, x.k1.size()),
      empty(y.dk2, x.k2.size());
  empty(y.dv1, x.v1.size()), empty(y.dv2, x.v2.size());
  const std::vector<int64_t> lse_shape{c.batch, c.heads, c.tokens};
  const auto like = [](std::vector<T>& v, const Strided<T>& s) { return view<Out>(v.data(), s.shape); };
  kernels.simplicial_attention(q.template as<In>(), k1.template as<In>(), k2.template as<In>(), v1.template as<In>(),
                               v2.template as<In>(), c.factor(), c.causal, c.w1, c.w2, c.k2_bias, c.v2_bias, c.q_offset,
                               c.k1_offset, c.k2_offset, c.determinant, o.template as<Out>(),
                               view<Out>(y.lse.data(), lse_shape));
  kernels.simplicial_attention_grad(dout.template as<In>(), q.template as<In>(), k1.template as<In>(),
                                    k2.template as<In>(), v1.template as<In>(), v2.template as<In>(),
                                    o.template as<In>(), view<In>(y.lse.data(), lse_shape), c.factor(), c.causal, c.w1,
                                    c.w2, c.k2_bias, c.v2_bias, c.q_offset, c.k1_offset, c.k2_offset, c.determinant,
                                    like(y.dq, q), like(y.dk1, k1), like(y.dk2, k2), like(y.dv1, v1), like(y.dv2, v2));
  y.o = o.dense();
  return y;
}

// Largest |got - want| / (1 + max |want|), infinite for NaN or an infinity in the wrong place.
template <class T>
double error_of(const std::vector<T>& got, const std::vector<double>& want) {
  double largest = 0, worst = 0;
  for (double w : want) largest = std::isinf(w) ? largest : std::fmax(largest, std::fabs(w));
  if (got.size() != want.size()) return INFINITY;
  for (size_t i = 0; i < want.size(); ++i) {
    if (std::isinf(want[i]) && static_cast<double>(got[i]) == want[i]) continue;
    const double e = std::fabs(static_cast<double>(got[i]) - want[i]) / (1 + largest);
    worst = e <= worst ? worst : (std::isnan(e) ? INFINITY : e);
  }
  return worst;
}

template <class T>
void compare(double tolerance) {
  uint64_t seed = 1;
  for (const SimplicialCase& c : kCases) {
    SimplicialTensors<double> want = inputs(c, seed++);
    SimplicialReference::run(c, want);
    const double allowed = sizeof(T) == 4 && c.scale > 1 ? 2e-3 : tolerance;
    for (const Isa& isa : isas())
      for (const bool strided : {false, true}) {
        const SimplicialTensors<T> got = run<T>(*isa.kernels, c, want, strided);
        const auto check = [&](const char* what, const std::vector<T>& a, const std::vector<double>& b) {
          const double e = error_of(a, b);
          CHECK(e <= allowed, "%s, %s, strided %d: %s is off by %g", c.name, isa.name, strided, what, e);
        };
        check("o", got.o, want.o), check("lse", got.lse, want.lse), check("dq", got.dq, want.dq),
            check("dk1", got.dk1, want.dk1);
        check("dk2", got.dk2, want.dk2), check("dv1", got.dv1, want.dv1), check("dv2", got.dv2, want.dv2);
      }
  }
}

TEST(simplicial_float64) {
  compare<double>(1e-11);
}
TEST(simplicial_float32) {
  compare<float>(2e-5);
}

// Rescaling a channel of q against k1 or k2 changes nothing, so Σ dq∘q = Σ dk1∘k1 = Σ dk2∘k2 channel by channel (only
// their sum over channels in the determinant form), and Σ dv1∘v1 = Σ dv2∘v2 = Σ do∘o.
TEST(simplicial_gauge_identities) {
  uint64_t seed = 100;
  for (const SimplicialCase& c : kCases) {
    if (c.k2_bias != 0 || c.v2_bias != 0) continue;
    const SimplicialTensors<double> x = inputs(c, seed++);
    for (const Isa& isa : isas()) {
      const SimplicialTensors<double> y = run<double>(*isa.kernels, c, x, false);
      const auto sums = [&](const std::vector<double>& a, const std::vector<double>& b, int64_t n, bool per_channel) {
        std::vector<double> sum(static_cast<size_t>(per_channel ? n : 1));
        for (size_t i = 0; i < a.size(); ++i) sum[i % sum.size()] += a[i] * b[i];
        return sum;
      };
      const auto equal = [&](const char* what, const std::vector<double>& a, const std::vector<double>& b) {
        for (size_t i = 0; i < a.size(); ++i)
          CHECK(close(a[i], b[i], 1e-9), "%s, %s: %s: %g and %g", c.name, isa.name, what, a[i], b[i]);
      };
      const auto q = sums(y.dq, x.q, c.d, !c.determinant);
      equal("dq and dk1", q, sums(y.dk1, x.k1, c.d, !c.determinant));
      equal("dq and dk2", q, sums(y.dk2, x.k2, c.d, !c.determinant));
      const auto o = sums(x.dout, y.o, c.dv, true);
      equal("do and dv1", o, sums(y.dv1, x.v1, c.dv, true));
      equal("do and dv2", o, sums(y.dv2, x.v2, c.dv, true));
    }
  }
}

TEST(simplicial_nan_reaches_the_output) {
  const SimplicialCase c = kCases[6];
  SimplicialTensors<double> x = inputs(c, 7);
  for (const uint32_t bits : {0x7FC00000u, 0x7FC001FFu, 0xFFC000AAu}) {  // whatever its low bits
    x.k2[0] = std::bit_cast<float>(bits);
    for (const Isa& isa : isas()) {
      const auto y = run<float>(*isa.kernels, c, x, false);
      CHECK(std::isnan(y.o[0]) && std::isnan(y.lse[0]) && std::isnan(y.dq[0]), "%s lost the NaN %x", isa.name, bits);
    }
  }
}

#if defined(__linux__)
// The number of threads is read once, so each count gets a process of its own, which prints a hash of all results.
uint64_t hash_of_results() {
  uint64_t hash = 14695981039346656037u, seed = 200;
  const auto add = [&](const std::vector<float>& v) {
    for (float x : v) {
      uint32_t bits;
      std::memcpy(&bits, &x, sizeof bits);
      hash = (hash ^ bits) * 1099511628211u;
    }
  };
  const SimplicialCase more[] = {
      {"many chunks", 2, 200, 200, 200, 4, 2, 16, 16, kCausal, 20, 6, 0, 0, 0, kTrilinear, 0, 0, 0},
      {"many chunks, segments", 1, 70, 2100, 2100, 2, 1, 8, 8, kCausal, 0, 2, 2030, 0, 0, kTrilinear, 0, 0, 0},
      {"many chunks, large group", 1, 150, 150, 150, 32, 1, 16, 16, kCausal, 20, 6, 0, 0, 0, kTrilinear, 0, 0, 0},
  };
  for (const SimplicialCase& c : more)
    for (const Isa& isa : isas()) {
      const auto y = run<float>(*isa.kernels, c, inputs(c, seed++), false);
      add(y.o), add(y.lse), add(y.dq), add(y.dk1), add(y.dk2), add(y.dv1), add(y.dv2);
    }
  return hash;
}

TEST(simplicial_same_bits_for_any_thread_count) {
  if (std::getenv("LLMEFF_TEST_HASH") != nullptr) {
    std::printf("hash %llx\n", static_cast<unsigned long long>(hash_of_results()));
    return;
  }
  std::string program;
  for (const std::string& word : self()) program += "'" + word + "' ";
  unsigned long long first = 0, hash = 0;
  for (const int threads : {1, 2, 3, 7}) {
    const std::string command = "LLMEFF_TEST_HASH=1 LLMEFF_NUM_THREADS=" + std::to_string(threads) + " " + program +
                                "simplicial_same_bits_for_any_thread_count";
    FILE* child = popen(command.c_str(), "r");
    CHECK(child != nullptr && std::fscanf(child, "hash %llx", &hash) == 1, "%d threads: no result", threads);
    if (child != nullptr) pclose(child);
    if (threads == 1) first = hash;
    CHECK(hash == first, "%d threads: %llx, not %llx", threads, hash, first);
  }
}
#endif

}  // namespace
}  // namespace llmeff::test
