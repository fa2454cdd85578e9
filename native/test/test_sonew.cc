// SONew against plain double loops over whole chains: all bands, chains of all lengths, all grafts, both kinds of eps,
// of the stability rule's threshold and of what it drops, 16-bit gradients and state, several tensors in one call.
#include <cstring>
#include <string>

#include "optimizers.h"

namespace llmeff::test {
namespace {

constexpr int64_t kMostBand = 10;
// Around vectors, tiles of 512 and chunks of 16384; the plain algorithm is slow.
const std::vector<int64_t> kLengths = {1,   2,   3,   10,   11,    15,    16,    17,   511,
                                       512, 513, 530, 1500, 16383, 16384, 16390, 33000};

struct Hyper {
  int64_t band, chain;
  Graft graft;
  bool relative_eps, absolute_gamma, isolate, bias_correction;
  double gamma;
  double lr = 0.01, beta1 = 0.9, beta2 = 0.99, eps = 1e-2, graft_eps = 0, weight_decay = 0.1;
};

struct State {
  Doubles m, rms;
  std::vector<Doubles> h;

  State(int64_t n, int64_t band) : m(n), rms(n), h(static_cast<size_t>(band + 1), Doubles(n)) {}
};

double length(const Doubles& x) {
  double sum = 0;
  for (const double v : x) sum += v * v;
  return std::sqrt(sum);
}

// L[j+1 … j+size, j] and S_j, the window being the next `size` elements: H[I, I]·x = H[I, j] by Gaussian elimination
// from the first row on.
struct Column {
  size_t size = 0;
  double l[kMostBand] = {}, schur = 0;
};
Column column(const std::vector<Doubles>& h, size_t j, size_t size) {
  const auto entry = [&](size_t r, size_t c) { return r < c ? h[c - r][r] : h[r - c][c]; };
  double a[kMostBand][kMostBand], x[kMostBand];
  for (size_t r = 0; r < size; ++r) {
    x[r] = entry(j, j + 1 + r);
    for (size_t c = 0; c < size; ++c) a[r][c] = entry(j + 1 + r, j + 1 + c);
  }
  for (size_t p = 0; p < size; ++p)
    for (size_t r = p + 1; r < size; ++r) {
      const double factor = a[r][p] / a[p][p];
      for (size_t c = p; c < size; ++c) a[r][c] -= factor * a[p][c];
      x[r] -= factor * x[p];
    }
  Column made;
  made.size = size;
  made.schur = h[0][j];
  for (size_t p = size; p-- > 0;) {
    for (size_t c = p + 1; c < size; ++c) x[p] -= a[p][c] * x[c];
    x[p] /= a[p][p];
    made.l[p] = -x[p];
    made.schur -= x[p] * entry(j, j + 1 + p);
  }
  return made;
}

// The algorithm for one tensor, step by step; returns the number of failing elements.
int64_t reference_step(Doubles& p, const Doubles& g, State& s, const Hyper& hyper, int64_t step) {
  const size_t n = p.size(), chain = hyper.chain > 0 ? static_cast<size_t>(hyper.chain) : n,
               band = static_cast<size_t>(hyper.band);
  const auto end_of = [&](size_t j) { return std::min(n, (j / chain + 1) * chain); };
  const double c1 = hyper.bias_correction ? 1 - std::pow(hyper.beta1, step) : 1,
               c2 = hyper.bias_correction ? 1 - std::pow(hyper.beta2, step) : 1;
  std::vector<Doubles> h(band + 1, Doubles(n));
  Doubles m(n);
  for (size_t j = 0; j < n; ++j) {
    s.m[j] = hyper.beta1 * s.m[j] + (1 - hyper.beta1) * g[j];
    m[j] = s.m[j] / c1;
    for (size_t k = 0; k <= band && j + k < end_of(j); ++k) {
      s.h[k][j] = hyper.beta2 * s.h[k][j] + (1 - hyper.beta2) * g[j] * g[j + k];
      h[k][j] = s.h[k][j] / c2;
    }
  }
  for (size_t begin = 0; begin < n; begin += chain) {
    double delta = hyper.eps;
    if (hyper.relative_eps) {
      double most = 0;
      for (size_t j = begin; j < end_of(begin); ++j) {
        double sum = h[0][j];
        for (size_t k = 1; k <= band; ++k) sum += std::fabs(h[k][j]) + (j >= begin + k ? std::fabs(h[k][j - k]) : 0);
        most = std::max(most, sum);
      }
      delta = std::max(hyper.eps * most, 1e-24);
    }
    for (size_t j = begin; j < end_of(begin); ++j) h[0][j] += delta;
  }
  const auto window = [&](size_t j) { return std::min(band, end_of(j) - 1 - j); };
  std::vector<Column> columns;
  std::vector<bool> failed(n);
  int64_t failures = 0;
  for (size_t j = 0; j < n; ++j) {
    columns.push_back(column(h, j, window(j)));
    failed[j] = columns[j].schur <= (hyper.absolute_gamma ? hyper.gamma : hyper.gamma * h[0][j]);
    failures += failed[j];
  }
  for (size_t j = 0; j < n; ++j) {
    size_t size = window(j);
    if (failed[j]) size = 0;
    for (size_t k = 1; hyper.isolate && k <= size; ++k)
      if (failed[j + k]) size = k - 1;
    if (size < window(j)) columns[j] = column(h, j, size);
  }
  Doubles z(n), u(n);
  for (size_t j = 0; j < n; ++j) {
    const Column& at = columns[j];
    double w = m[j];
    for (size_t k = 0; k < at.size; ++k) w += at.l[k] * m[j + 1 + k];
    z[j] = w / at.schur;
    u[j] += z[j];
    for (size_t k = 0; k < at.size; ++k) u[j + 1 + k] += at.l[k] * z[j];
  }
  double factor = 1;
  if (hyper.graft != Graft::kNone) {
    Doubles r(n);
    const double norm = length(g) + 1e-16;
    for (size_t j = 0; j < n; ++j) {
      if (hyper.graft == Graft::kAdam) r[j] = m[j] / (std::sqrt(s.h[0][j] / c2) + hyper.graft_eps);
      if (hyper.graft == Graft::kAdamRaw) r[j] = m[j] / (std::sqrt(s.h[0][j]) + hyper.graft_eps);
      if (hyper.graft == Graft::kSgd) r[j] = g[j];
      if (hyper.graft == Graft::kMomentum) r[j] = m[j];
      if (hyper.graft == Graft::kRmspropNorm) {
        s.rms[j] = hyper.beta2 * s.rms[j] + (1 - hyper.beta2) * (g[j] / norm) * (g[j] / norm);
        r[j] = g[j] / norm / (std::sqrt(s.rms[j]) + hyper.graft_eps);
      }
    }
    factor = length(u) > 0 ? length(r) / length(u) : 0;
  }
  for (size_t j = 0; j < n; ++j) p[j] -= hyper.lr * (factor * u[j] + hyper.weight_decay * p[j]);
  return failures;
}

// The state of the tensors of `kLengths` in one dtype.
template <class T>
struct Statistics {
  Arrays<T> m = Arrays<T>::zeros(kLengths), rms = Arrays<T>::zeros(kLengths);
  std::vector<Arrays<T>> h;

  explicit Statistics(int64_t band) : h(static_cast<size_t>(band + 1), Arrays<T>::zeros(kLengths)) {}
  std::vector<InOut> diagonals() const {
    std::vector<InOut> all;
    for (const auto& diagonal : h)
      for (const InOut& v : diagonal.template views<InOut>()) all.push_back(v);
    return all;
  }
};

// One call for all tensors of `kLengths`.
template <class T, class Grads>
void step_all(const Isa& isa, const Hyper& h, const Arrays<T>& p, const std::vector<InOut>& copies, const Grads& grads,
              const std::vector<InOut>& m, const std::vector<InOut>& diagonals, const std::vector<InOut>& rms,
              const In& scale, int64_t step, int64_t seed, double& dropped) {
  const std::vector<int64_t> chains(p.data.size(), h.chain);
  std::vector<int64_t> ids;
  for (size_t i = 0; i < p.data.size(); ++i) ids.push_back(static_cast<int64_t>(i));
  const auto vp = p.template views<InOut>();
  isa.kernels->sonew_step(list(vp), list(copies), list(grads), list(m), list(diagonals),
                          h.graft == Graft::kRmspropNorm ? list(rms) : List<InOut>{},
                          {chains.data(), static_cast<int64_t>(chains.size())},
                          {ids.data(), static_cast<int64_t>(ids.size())}, scale, h.lr, h.beta1, h.beta2, h.eps,
                          h.relative_eps, h.gamma, h.absolute_gamma, h.isolate, h.graft, h.graft_eps, h.bias_correction,
                          h.weight_decay, step, seed, view<InOut>(&dropped, {}));
}

std::string describe(const Isa& isa, const Hyper& h) {
  return std::string(isa.name) + " band " + std::to_string(h.band) + " chain " + std::to_string(h.chain) + " graft " +
         std::to_string(static_cast<int>(h.graft)) + " relative eps " + std::to_string(h.relative_eps) + " isolate " +
         std::to_string(h.isolate);
}

template <class T>
void check_sonew(const Isa& isa, const Hyper& h, double tolerance) {
  Numbers random(static_cast<uint64_t>(h.chain * 64 + static_cast<int>(h.graft) * 2 + h.relative_eps));
  auto p = Arrays<T>::random(random, kLengths);
  const Statistics<T> state(h.band);
  const auto copies = Arrays<float>::zeros(kLengths);
  const auto m = state.m.template views<InOut>(), diagonals = state.diagonals(),
             rms = state.rms.template views<InOut>();
  auto want = widen(p);
  std::vector<State> states;
  for (const int64_t n : kLengths) states.emplace_back(n, h.band);
  const T scale = T{0.25};
  double dropped = 0;
  int64_t want_dropped = 0;
  for (int64_t step = 1; step <= 2; ++step) {
    auto g = Arrays<T>::random(random, kLengths);
    const auto wide = widen(g);
    for (auto& x : g.data)
      for (T& v : x) v *= 4;
    step_all(isa, h, p, copies.views<InOut>(), g.template views<In>(), m, diagonals, rms, view<In>(&scale, {}), step, 0,
             dropped);
    for (size_t t = 0; t < want.size(); ++t) want_dropped += reference_step(want[t], wide[t], states[t], h, step);
  }
  const double error = largest_difference(p, want);
  const std::string what = describe(isa, h);
  CHECK(copies_are(copies, p), "%s: a copy differs", what.c_str());
  CHECK(error <= tolerance, "%s, %d bytes: error %g", what.c_str(), static_cast<int>(sizeof(T)), error);
  CHECK(dropped == static_cast<double>(want_dropped), "%s: %g dropped, not %ld", what.c_str(), dropped,
        static_cast<long>(want_dropped));
}

uint16_t to_bfloat16(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  return static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}
float from_bfloat16(uint16_t x) {
  const uint32_t bits = static_cast<uint32_t>(x) << 16;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

template <class V>
std::vector<V> narrow_views(const std::vector<std::vector<uint16_t>>& data) {
  std::vector<V> views;
  for (const auto& x : data) {
    views.push_back(view<V>(reinterpret_cast<const float*>(x.data()), {static_cast<int64_t>(x.size())}));
    views.back().dtype = DType::kBF16;
  }
  return views;
}

}  // namespace

TEST(sonew_matches_the_plain_algorithm_in_float64) {
  for (const Isa& isa : isas())
    for (int64_t band = 0; band <= kMostBand; ++band) {
      // Bands 0 and 1 have a kernel of their own, the others share one.
      const bool thorough = band <= 1 || band == 3;
      const std::vector<int64_t> chains =
          thorough ? std::vector<int64_t>{0, 1, 2, 7, 1000, 16384} : std::vector<int64_t>{0, 5};
      for (const int64_t chain : chains)
        for (int graft = 0; graft < kGraftCount; ++graft) {
          if (!thorough && graft % 3 != static_cast<int>(band) % 3) continue;
          const bool relative_eps = (chain + graft) % 2 == 1, absolute_gamma = graft % 2 == 0,
                     isolate = band != 1 && (graft + band) % 2 == 0, bias_correction = chain % 3 != 0;
          check_sonew<double>(
              isa,
              {band, chain, static_cast<Graft>(graft), relative_eps, absolute_gamma, isolate, bias_correction, 0.2},
              1e-9);
        }
    }
}

TEST(tridiagonal_sonew_drops_on_both_sides) {
  for (const Isa& isa : isas())
    for (const int64_t chain : {0, 3})
      for (const bool relative_eps : {false, true})
        check_sonew<double>(isa, {1, chain, Graft::kAdam, relative_eps, false, true, true, 0.2}, 1e-10);
}

// The condition of a Schur complement is at most 1 + max h0 / eps = 101 for a pair and b times that for b neighbours,
// so that 101·b roundings of 2⁻²⁴ enter an update of length lr, in each of b eliminations.
TEST(sonew_in_float32_stays_near_the_plain_algorithm) {
  for (const Isa& isa : isas())
    for (const int64_t band : {0, 1, 4, 10})
      for (const Graft graft : {Graft::kAdam, Graft::kSgd, Graft::kRmspropNorm})
        for (const bool relative_eps : {false, true}) {
          const double roundings = static_cast<double>(std::max<int64_t>(1, band * band));
          check_sonew<float>(isa, {band, 0, graft, relative_eps, false, false, true, 0.0},
                             101 * roundings * 0x1p-24 + 0x1p-22);
        }
}

TEST(sonew_takes_gradients_of_16_bits) {
  for (const Isa& isa : isas())
    for (const int64_t band : {0, 1, 4}) {
      const Hyper h = {band, 0, Graft::kAdam, false, false, false, true, 1e-6};
      Numbers random(11);
      const auto wide_p = Arrays<float>::random(random, kLengths);
      auto wide_g = Arrays<float>::random(random, kLengths);
      std::vector<std::vector<uint16_t>> narrow_g, narrow_copies;
      for (auto& x : wide_g.data) {
        narrow_g.emplace_back();
        for (float& v : x) {
          narrow_g.back().push_back(to_bfloat16(v));
          v = from_bfloat16(narrow_g.back().back());
        }
        narrow_copies.emplace_back(x.size());
      }
      const auto narrow_p = wide_p;
      const Statistics<float> a(band), b(band);
      double dropped = 0;
      step_all(isa, h, wide_p, {}, wide_g.views<In>(), a.m.views<InOut>(), a.diagonals(), {}, {}, 1, 0, dropped);
      step_all(isa, h, narrow_p, narrow_views<InOut>(narrow_copies), narrow_views<In>(narrow_g), b.m.views<InOut>(),
               b.diagonals(), {}, {}, 1, 0, dropped);
      CHECK(wide_p.data == narrow_p.data, "%s band %ld: other parameters", isa.name, static_cast<long>(band));
      bool copied = true;
      for (size_t t = 0; t < narrow_copies.size(); ++t)
        for (size_t i = 0; i < narrow_copies[t].size(); ++i)
          copied = copied && narrow_copies[t][i] == to_bfloat16(narrow_p.data[t][i]);
      CHECK(copied, "%s band %ld: a copy differs", isa.name, static_cast<long>(band));
    }
}

// What is stored is one of the two neighbours of the exact average, in proportion to its distance to the other: over
// many elements the errors cancel. Other seeds and other steps round others.
TEST(sonew_rounds_bfloat16_state_stochastically) {
  for (const Isa& isa : isas()) {
    const int64_t n = 40000;
    std::vector<float> p(n), g(n);
    Numbers random(5);
    for (float& x : g) x = static_cast<float>(1.5 + 0.25 * random());
    const auto state_after = [&](int64_t seed, int64_t step) {
      std::vector<std::vector<uint16_t>> state(3, std::vector<uint16_t>(n));
      const auto views = narrow_views<InOut>(state);
      const auto vp = view<InOut>(p.data(), {n});
      const auto vg = view<In>(g.data(), {n});
      const int64_t chain = 0, id = 3;
      isa.kernels->sonew_step({&vp, 1}, {}, {&vg, 1}, {&views[0], 1}, {&views[1], 2}, {}, {&chain, 1}, {&id, 1}, {}, 0,
                              0, 0, 1e-3, false, 7.8e-3, false, false, Graft::kNone, 1e-8, false, 0, step, seed, {});
      return state;
    };
    const auto state = state_after(7, 1);
    double error = 0, largest = 0;
    for (int64_t j = 0; j < n; ++j) {
      const double exact = static_cast<double>(g[j]), got = static_cast<double>(from_bfloat16(state[0][j]));
      error += got - exact;
      largest = std::max(largest, std::fabs(got - exact));
    }
    // Numbers in [1, 2) are 2^-7 apart; the mean of n errors of at most that has a deviation below 2^-8 / √n.
    CHECK(largest < 0x1p-7, "%s: an error of %g", isa.name, largest);
    CHECK(std::fabs(error / n) < 5 * 0x1p-8 / std::sqrt(n), "%s: a mean error of %g", isa.name, error / n);
    CHECK(state == state_after(7, 1), "%s: the same numbers round otherwise", isa.name);
    CHECK(state != state_after(8, 1) && state != state_after(7, 2), "%s: a seed or a step doesn't count", isa.name);
  }
}

// What a step does to p is the factorisation of what it stored. With δ = 1 hardly anything cancels.
TEST(sonew_computes_with_the_bfloat16_state_that_it_stores) {
  for (const Isa& isa : isas())
    for (const int64_t band : {0, 1, 4, 10}) {
      const int64_t n = 40001;
      const size_t arrays = static_cast<size_t>(band + 2);
      Numbers random(9);
      std::vector<float> g = random.vector<float>(n), p(n);
      std::vector<std::vector<uint16_t>> narrow(arrays, std::vector<uint16_t>(n));
      const auto state = narrow_views<InOut>(narrow);
      const auto vp = view<InOut>(p.data(), {n});
      const auto vg = view<In>(g.data(), {n});
      const int64_t chain = 0, id = 0;
      isa.kernels->sonew_step({&vp, 1}, {}, {&vg, 1}, {&state[0], 1}, {&state[1], band + 1}, {}, {&chain, 1}, {&id, 1},
                              {}, 0.1, 0.5, 0.5, 1, false, 7.8e-3, false, false, Graft::kNone, 1e-8, false, 0, 1, 1,
                              {});
      std::vector<Doubles> h(static_cast<size_t>(band + 1), Doubles(n));
      for (int64_t k = 0; k <= band; ++k)
        for (int64_t j = 0; j < n; ++j)
          h[k][j] = static_cast<double>(from_bfloat16(narrow[1 + k][j])) + (k == 0 ? 1 : 0);
      double worst = 0;
      int64_t compared = 0;
      std::vector<Column> columns;
      std::vector<bool> sound(n);
      for (int64_t j = 0; j < n; ++j) {
        columns.push_back(column(h, j, static_cast<size_t>(std::min(band, n - 1 - j))));
        sound[j] = columns[j].schur > 0.1 * h[0][j];  // far from the rule's border
      }
      for (int64_t j = band; j + 2 * band < n; ++j) {
        bool clear = true;
        for (int64_t k = j - band; k <= j + 2 * band; ++k) clear = clear && sound[k];
        if (!clear) continue;
        const auto z = [&](int64_t i) {
          double w = from_bfloat16(narrow[0][i]);
          for (int64_t k = 1; k <= band; ++k) w += columns[i].l[k - 1] * from_bfloat16(narrow[0][i + k]);
          return w / columns[i].schur;
        };
        double u = z(j), size = std::fabs(u);
        for (int64_t k = 1; k <= band; ++k) {
          u += columns[j - k].l[k - 1] * z(j - k);
          size += std::fabs(columns[j - k].l[k - 1] * z(j - k));
        }
        worst = std::max(worst, std::fabs(p[j] + 0.1 * u) / (0.1 * size + 1e-6));
        ++compared;
      }
      CHECK(compared > n / 2 && worst < 1e-4, "%s band %ld: %ld elements compared, relative error %g", isa.name,
            static_cast<long>(band), static_cast<long>(compared), worst);
    }
}

// Rank one and almost no δ: every Schur complement is rounding. Yet u·m > 0, and all is finite.
TEST(sonew_stays_positive_definite_on_rank_one_statistics) {
  for (const Isa& isa : isas())
    for (int64_t band = 0; band <= kMostBand; ++band)
      for (const bool isolate : {false, true})
        for (const double gamma : {0.0, 1e-6}) {
          const int64_t n = 5000;
          Numbers random(static_cast<uint64_t>(band));
          std::vector<float> p(n), g = random.vector<float>(n), m(n);
          std::vector<std::vector<float>> h(static_cast<size_t>(band + 1), std::vector<float>(n));
          std::vector<InOut> diagonals;
          for (auto& x : h) diagonals.push_back(view<InOut>(x.data(), {n}));
          const auto vp = view<InOut>(p.data(), {n}), vm = view<InOut>(m.data(), {n});
          const auto vg = view<In>(g.data(), {n});
          const int64_t chain = 0, id = 0;
          double dropped = 0;
          isa.kernels->sonew_step({&vp, 1}, {}, {&vg, 1}, {&vm, 1}, list(diagonals), {}, {&chain, 1}, {&id, 1}, {}, 0.1,
                                  0.9, 0.99, 1e-12, false, gamma, false, isolate, Graft::kAdam, 1e-8, true, 0, 1, 0,
                                  view<InOut>(&dropped, {}));
          double descent = 0;
          bool finite = true;
          for (int64_t j = 0; j < n; ++j) {
            descent -= static_cast<double>(p[j]) * g[j];
            finite = finite && std::isfinite(p[j]);
          }
          CHECK(finite && descent > 0, "%s band %ld isolate %d gamma %g: descent %g", isa.name, static_cast<long>(band),
                isolate, gamma, descent);
          CHECK(band == 0 || gamma == 0 || dropped > 0.9 * (n - 1), "%s band %ld: only %g dropped", isa.name,
                static_cast<long>(band), dropped);
        }
}

TEST(sonew_with_a_gradient_scale_that_is_not_finite_changes_nothing) {
  for (const Isa& isa : isas())
    for (const float scale : {NAN, INFINITY, -INFINITY})
      for (const int64_t band : {1, 2}) {
        std::vector<float> p = {1, 2, 3}, g = {1, 1, 1}, state = {4, 5, 6, 7, 8, 9, 1, 2, 0, 1, 0, 0};
        const auto before_p = p, before = state;
        std::vector<InOut> arrays;
        for (int64_t i = 0; i < band + 2; ++i) arrays.push_back(view<InOut>(state.data() + 3 * i, {3}));
        const auto vp = view<InOut>(p.data(), {3});
        const auto vg = view<In>(g.data(), {3});
        const int64_t chain = 0, id = 0;
        isa.kernels->sonew_step({&vp, 1}, {}, {&vg, 1}, {&arrays[0], 1}, {&arrays[1], band + 1}, {}, {&chain, 1},
                                {&id, 1}, view<In>(&scale, {}), 0.1, 0.9, 0.99, 1e-8, false, 0, false, false,
                                Graft::kAdam, 1e-8, true, 0.1, 1, 0, {});
        CHECK(p == before_p && state == before, "%s scale %g", isa.name, static_cast<double>(scale));
      }
}

TEST(sonew_moves_nothing_but_by_decay_where_the_gradient_is_zero) {
  for (const Isa& isa : isas())
    for (const int64_t band : {0, 1, 2, 10})
      for (int graft = 0; graft < kGraftCount; ++graft) {
        std::vector<float> p(40, 2.0f), g(40), m(40), h(40 * (kMostBand + 1)), rms(40);
        std::vector<InOut> diagonals;
        for (int64_t k = 0; k <= band; ++k) diagonals.push_back(view<InOut>(h.data() + 40 * k, {40}));
        const auto vp = view<InOut>(p.data(), {40}), vm = view<InOut>(m.data(), {40}),
                   vr = view<InOut>(rms.data(), {40});
        const auto vg = view<In>(g.data(), {40});
        const int64_t chain = 0, id = 0;
        const bool has_rms = static_cast<Graft>(graft) == Graft::kRmspropNorm;
        isa.kernels->sonew_step({&vp, 1}, {}, {&vg, 1}, {&vm, 1}, list(diagonals),
                                has_rms ? List<InOut>{&vr, 1} : List<InOut>{}, {&chain, 1}, {&id, 1}, {}, 0.5, 0.9,
                                0.99, 1e-8, false, 1e-6, false, false, static_cast<Graft>(graft), 1e-8, true, 0.5, 1, 0,
                                {});
        CHECK(std::all_of(p.begin(), p.end(), [](float x) { return x == 1.5f; }), "%s band %ld graft %d: p[0] = %g",
              isa.name, static_cast<long>(band), graft, static_cast<double>(p[0]));
      }
}

}  // namespace llmeff::test
