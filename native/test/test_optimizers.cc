// Optimizer kernels against plain double loops over whole chains: sizes around every chunk and vector border, chains of
// all lengths, all grafts, both kinds of eps and of stability rule, several tensors in one call.
#include <algorithm>
#include <initializer_list>

#include "isas.h"
#include "test.h"

namespace llmeff::test {
namespace {

using Doubles = std::vector<double>;

const std::vector<int64_t> kSizes = {1, 2, 15, 16, 17, 511, 512, 513, 16383, 16384, 16385, 16400, 40000, 300001};

// The arrays of one kind, one for each tensor.
template <class T>
struct Arrays {
  std::vector<std::vector<T>> data;

  static Arrays zeros() {
    Arrays a;
    for (const int64_t n : kSizes) a.data.emplace_back(static_cast<size_t>(n), T{0});
    return a;
  }
  static Arrays random(Numbers& numbers) {
    Arrays a;
    for (const int64_t n : kSizes) a.data.push_back(numbers.vector<T>(n));
    return a;
  }
  template <class V>
  std::vector<V> views() const {
    std::vector<V> v;
    for (const auto& x : data) v.push_back(view<V>(x.data(), {static_cast<int64_t>(x.size())}));
    return v;
  }
};

template <class V>
List<V> list(const std::vector<V>& views) {
  return {views.data(), static_cast<int64_t>(views.size())};
}

// The same numbers in another precision.
template <class T>
std::vector<Doubles> widen(const Arrays<T>& a) {
  std::vector<Doubles> wide;
  for (const auto& x : a.data) wide.emplace_back(x.begin(), x.end());
  return wide;
}

template <class T>
double largest_difference(const Arrays<T>& got, const std::vector<Doubles>& want) {
  double worst = 0;
  for (size_t t = 0; t < want.size(); ++t)
    for (size_t i = 0; i < want[t].size(); ++i) {
      const double error = std::fabs(static_cast<double>(got.data[t][i]) - want[t][i]);
      worst = std::isnan(error) ? INFINITY : std::max(worst, error);
    }
  return worst;
}

template <class T>
bool copies_are(const Arrays<float>& copies, const Arrays<T>& p) {
  for (size_t t = 0; t < p.data.size(); ++t)
    for (size_t i = 0; i < p.data[t].size(); ++i)
      if (copies.data[t][i] != static_cast<float>(p.data[t][i])) return false;
  return true;
}

struct Hyper {
  int64_t chain;
  Graft graft;
  bool relative_eps, absolute_gamma, bias_correction;
  double gamma;
  double lr = 0.01, beta1 = 0.9, beta2 = 0.99, eps = 1e-2, graft_eps = 0, weight_decay = 0.1;
};

struct State {
  Doubles m, h0, h1, rms;
};

double length(const Doubles& x) {
  double sum = 0;
  for (const double v : x) sum += v * v;
  return std::sqrt(sum);
}

// The algorithm for one tensor, step by step; returns the number of failing coordinates.
int64_t reference_step(Doubles& p, const Doubles& g, State& s, const Hyper& h, int64_t step) {
  const size_t n = p.size(), chain = h.chain > 0 ? static_cast<size_t>(h.chain) : n;
  const auto joined = [&](size_t j) { return j + 1 < n && (j + 1) % chain != 0; };
  const double c1 = h.bias_correction ? 1 - std::pow(h.beta1, step) : 1,
               c2 = h.bias_correction ? 1 - std::pow(h.beta2, step) : 1;
  for (size_t j = 0; j < n; ++j) {
    s.m[j] = h.beta1 * s.m[j] + (1 - h.beta1) * g[j];
    s.h0[j] = h.beta2 * s.h0[j] + (1 - h.beta2) * g[j] * g[j];
    s.h1[j] = joined(j) ? h.beta2 * s.h1[j] + (1 - h.beta2) * g[j] * g[j + 1] : 0;
  }
  Doubles a(n), psi(n), z(n), u(n);
  for (size_t begin = 0; begin < n; begin += chain) {
    const size_t end = std::min(n, begin + chain);
    double delta = h.eps;
    if (h.relative_eps) {
      double row = 0;
      for (size_t j = begin; j < end; ++j)
        row = std::max(row, (s.h0[j] + std::fabs(s.h1[j]) + (j > begin ? std::fabs(s.h1[j - 1]) : 0)) / c2);
      delta = std::max(h.eps * row, 1e-24);
    }
    for (size_t j = begin; j < end; ++j) a[j] = s.h0[j] / c2 + delta;
  }
  int64_t dropped = 0;
  for (size_t j = 0; j < n; ++j) {
    const double edge = joined(j) ? s.h1[j] / c2 : 0;
    psi[j] = joined(j) ? edge / a[j + 1] : 0;
    double schur = a[j] - psi[j] * edge;
    if (schur <= (h.absolute_gamma ? h.gamma : h.gamma * a[j])) {
      ++dropped;
      psi[j] = 0;
      schur = a[j];
    }
    z[j] = (s.m[j] / c1 - (joined(j) ? psi[j] * s.m[j + 1] / c1 : 0)) / schur;
  }
  for (size_t j = 0; j < n; ++j) u[j] = z[j] - (j > 0 ? psi[j - 1] * z[j - 1] : 0);
  double factor = 1;
  if (h.graft != Graft::kNone) {
    Doubles r(n);
    const double norm = length(g) + 1e-16;
    for (size_t j = 0; j < n; ++j) {
      const double m = s.m[j] / c1;
      if (h.graft == Graft::kAdam) r[j] = m / (std::sqrt(s.h0[j] / c2) + h.graft_eps);
      if (h.graft == Graft::kAdamRaw) r[j] = m / (std::sqrt(s.h0[j]) + h.graft_eps);
      if (h.graft == Graft::kSgd) r[j] = g[j];
      if (h.graft == Graft::kMomentum) r[j] = m;
      if (h.graft == Graft::kRmspropNorm) {
        s.rms[j] = h.beta2 * s.rms[j] + (1 - h.beta2) * (g[j] / norm) * (g[j] / norm);
        r[j] = g[j] / norm / (std::sqrt(s.rms[j]) + h.graft_eps);
      }
    }
    factor = length(u) > 0 ? length(r) / length(u) : 0;
  }
  for (size_t j = 0; j < n; ++j) p[j] -= h.lr * (factor * u[j] + h.weight_decay * p[j]);
  return dropped;
}

template <class T>
void check_sonew(const Isa& isa, const Hyper& h, double tolerance) {
  Numbers random(static_cast<uint64_t>(h.chain * 64 + static_cast<int>(h.graft) * 2 + h.relative_eps));
  auto p = Arrays<T>::random(random);
  auto m = Arrays<T>::zeros(), h0 = Arrays<T>::zeros(), h1 = Arrays<T>::zeros(), rms = Arrays<T>::zeros();
  const auto copies = Arrays<float>::zeros();
  const auto vc = copies.views<InOut>();
  auto want = widen(p);
  std::vector<State> states;
  for (const int64_t n : kSizes) states.push_back({Doubles(n), Doubles(n), Doubles(n), Doubles(n)});
  const std::vector<int64_t> chains(kSizes.size(), h.chain);
  const T scale = T{0.25};
  double dropped = 0;
  int64_t want_dropped = 0;
  for (int64_t step = 1; step <= 2; ++step) {
    auto g = Arrays<T>::random(random);
    const auto wide = widen(g);
    for (auto& x : g.data)
      for (T& v : x) v *= 4;
    const auto vp = p.template views<InOut>(), vm = m.template views<InOut>(), v0 = h0.template views<InOut>(),
               v1 = h1.template views<InOut>(), vr = rms.template views<InOut>();
    const auto vg = g.template views<In>();
    isa.kernels->sonew_step(list(vp), list(vc), list(vg), list(vm), list(v0), list(v1),
                            h.graft == Graft::kRmspropNorm ? list(vr) : List<InOut>{},
                            {chains.data(), static_cast<int64_t>(chains.size())}, view<In>(&scale, {}), h.lr, h.beta1,
                            h.beta2, h.eps, h.relative_eps, h.gamma, h.absolute_gamma, h.graft, h.graft_eps,
                            h.bias_correction, h.weight_decay, step, view<InOut>(&dropped, {}));
    for (size_t t = 0; t < want.size(); ++t) want_dropped += reference_step(want[t], wide[t], states[t], h, step);
  }
  const double error = largest_difference(p, want);
  CHECK(copies_are(copies, p), "%s sonew, chain %ld, graft %d: a copy differs", isa.name, static_cast<long>(h.chain),
        static_cast<int>(h.graft));
  CHECK(error <= tolerance, "%s sonew, %d bytes, chain %ld, graft %d, relative eps %d: error %g", isa.name,
        static_cast<int>(sizeof(T)), static_cast<long>(h.chain), static_cast<int>(h.graft), h.relative_eps, error);
  CHECK(dropped == static_cast<double>(want_dropped), "%s chain %ld graft %d: %g dropped, not %ld", isa.name,
        static_cast<long>(h.chain), static_cast<int>(h.graft), dropped, static_cast<long>(want_dropped));
}

}  // namespace

TEST(sonew_matches_the_plain_algorithm_in_float64) {
  for (const Isa& isa : isas())
    for (const int64_t chain : std::initializer_list<int64_t>{0, 1, 2, 7, 1000, 16384})
      for (int graft = 0; graft < kGraftCount; ++graft) {
        const bool relative_eps = (chain + graft) % 2 == 1, absolute_gamma = graft % 2 == 0,
                   bias_correction = chain % 3 != 0;
        check_sonew<double>(isa, {chain, static_cast<Graft>(graft), relative_eps, absolute_gamma, bias_correction, 0.2},
                            1e-10);
      }
}

// The condition of a Schur complement is at most 1 + max h0 / eps = 101, so that 101 roundings of 2⁻²⁴ enter an update
// of length lr.
TEST(sonew_in_float32_stays_near_the_plain_algorithm) {
  for (const Isa& isa : isas())
    for (const Graft graft : {Graft::kAdam, Graft::kSgd, Graft::kRmspropNorm})
      for (const bool relative_eps : {false, true})
        check_sonew<float>(isa, {0, graft, relative_eps, false, true, 0.0}, 101 * 0x1p-24 + 0x1p-22);
}

TEST(adamw_matches_the_formula) {
  for (const Isa& isa : isas())
    for (const bool decoupled : {true, false})
      for (const bool amsgrad : {true, false}) {
        Numbers random(7);
        auto p = Arrays<double>::random(random);
        auto m = Arrays<double>::zeros(), v = Arrays<double>::zeros(), top = Arrays<double>::zeros();
        const auto copies = Arrays<float>::zeros();
        const auto vc = copies.views<InOut>();
        auto want = widen(p), want_m = widen(m), want_v = widen(v), want_top = widen(top);
        const double lr = 0.01, beta1 = 0.9, beta2 = 0.95, eps = 1e-6, decay = 0.1, scale = 0.5;
        for (int64_t step = 1; step <= 3; ++step) {
          const auto g = Arrays<double>::random(random);
          const auto vp = p.views<InOut>(), vm = m.views<InOut>(), vv = v.views<InOut>(), vt = top.views<InOut>();
          const auto vg = g.views<In>();
          isa.kernels->adamw_step(list(vp), list(vc), list(vg), list(vm), list(vv), amsgrad ? list(vt) : List<InOut>{},
                                  view<In>(&scale, {}), lr, beta1, beta2, eps, decay, decoupled, step);
          for (size_t t = 0; t < want.size(); ++t)
            for (size_t i = 0; i < want[t].size(); ++i) {
              double& x = want[t][i];
              const double grad = scale * g.data[t][i] + (decoupled ? 0 : decay * x);
              if (decoupled) x *= 1 - lr * decay;
              want_m[t][i] = beta1 * want_m[t][i] + (1 - beta1) * grad;
              want_v[t][i] = beta2 * want_v[t][i] + (1 - beta2) * grad * grad;
              want_top[t][i] = std::max(want_top[t][i], want_v[t][i]);
              const double second = amsgrad ? want_top[t][i] : want_v[t][i];
              x -= lr * want_m[t][i] / (1 - std::pow(beta1, step)) /
                   (std::sqrt(second / (1 - std::pow(beta2, step))) + eps);
            }
        }
        const double error = largest_difference(p, want);
        CHECK(copies_are(copies, p), "%s adamw: a copy differs", isa.name);
        CHECK(error <= 1e-13, "%s adamw decoupled %d amsgrad %d: error %g", isa.name, decoupled, amsgrad, error);
      }
}

TEST(a_gradient_scale_that_is_not_finite_changes_nothing) {
  for (const Isa& isa : isas())
    for (const float scale : {NAN, INFINITY, -INFINITY}) {
      std::vector<float> p = {1, 2, 3}, g = {1, 1, 1}, m = {4, 5, 6}, h0 = {7, 8, 9}, h1 = {1, 2, 0};
      const auto vp = view<InOut>(p.data(), {3}), vm = view<InOut>(m.data(), {3}), v0 = view<InOut>(h0.data(), {3}),
                 v1 = view<InOut>(h1.data(), {3});
      const auto vg = view<In>(g.data(), {3});
      const int64_t chain = 0;
      isa.kernels->sonew_step({&vp, 1}, {}, {&vg, 1}, {&vm, 1}, {&v0, 1}, {&v1, 1}, {}, {&chain, 1}, view<In>(&scale, {}),
                              0.1, 0.9, 0.99, 1e-8, false, 0, false, Graft::kAdam, 1e-8, true, 0.1, 1, {});
      isa.kernels->adamw_step({&vp, 1}, {}, {&vg, 1}, {&vm, 1}, {&v0, 1}, {}, view<In>(&scale, {}), 0.1, 0.9, 0.99, 1e-8,
                              0.1, true, 1);
      const bool same = p == std::vector<float>{1, 2, 3} && m == std::vector<float>{4, 5, 6} &&
                        h0 == std::vector<float>{7, 8, 9} && h1 == std::vector<float>{1, 2, 0};
      CHECK(same, "%s scale %g", isa.name, static_cast<double>(scale));
    }
}

TEST(a_gradient_of_zeros_moves_nothing_but_by_decay) {
  for (const Isa& isa : isas())
    for (int graft = 0; graft < kGraftCount; ++graft) {
      std::vector<float> p(40, 2.0f), g(40), m(40), h0(40), h1(40), rms(40);
      const auto vp = view<InOut>(p.data(), {40}), vm = view<InOut>(m.data(), {40}), v0 = view<InOut>(h0.data(), {40}),
                 v1 = view<InOut>(h1.data(), {40}), vr = view<InOut>(rms.data(), {40});
      const auto vg = view<In>(g.data(), {40});
      const int64_t chain = 0;
      const bool has_rms = static_cast<Graft>(graft) == Graft::kRmspropNorm;
      isa.kernels->sonew_step({&vp, 1}, {}, {&vg, 1}, {&vm, 1}, {&v0, 1}, {&v1, 1},
                              has_rms ? List<InOut>{&vr, 1} : List<InOut>{}, {&chain, 1}, {}, 0.5, 0.9, 0.99, 1e-8,
                              false, 1e-6, false, static_cast<Graft>(graft), 1e-8, true, 0.5, 1, {});
      CHECK(std::all_of(p.begin(), p.end(), [](float x) { return x == 1.5f; }), "%s graft %d: p[0] = %g", isa.name,
            graft, static_cast<double>(p[0]));
    }
}

TEST(global_norm_is_exact_to_float64_rounding) {
  for (const Isa& isa : isas()) {
    Numbers random(3);
    const auto x = Arrays<float>::random(random);
    double sum = 0;
    for (const auto& v : x.data)
      for (const float e : v) sum += static_cast<double>(e) * e;
    float norm = 0;
    const auto views = x.views<In>();
    isa.kernels->global_norm(list(views), view<Out>(&norm, {}));
    CHECK(std::fabs(norm - std::sqrt(sum)) <= std::sqrt(sum) * 0x1p-23, "%s %g, not %g", isa.name,
          static_cast<double>(norm), std::sqrt(sum));
    // Squares that overflow float32.
    const std::vector<float> large = {3e30f, 4e30f};
    const auto one = view<In>(large.data(), {2});
    isa.kernels->global_norm({&one, 1}, view<Out>(&norm, {}));
    CHECK(close(norm / 1e30f, 5, 1e-6), "%s %g", isa.name, static_cast<double>(norm));
  }
}

}  // namespace llmeff::test
