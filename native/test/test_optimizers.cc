// Optimizer kernels against plain double loops over whole chains: sizes around every chunk and vector border, chains of
// all lengths, all grafts, both kinds of eps and of stability rule, several tensors in one call.
#include <algorithm>
#include <initializer_list>

#include "isas.h"
#include "llmeff/error.h"
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

namespace {

// Hyper-parameters of the element-wise rules under test, and the third step's bias corrections.
constexpr double kLr = 0.01, kDecay = 0.1, kEps = 1e-3, kBeta1 = 0.9, kBeta2 = 0.95, kMomentum = 0.8, kWeight = 0.3;
const double kCorrection1 = 1 - std::pow(kBeta1, 3), kCorrection2 = 1 - std::pow(kBeta2, 3);

// A rule by its formula: x[0] is the parameter, then its states.
struct ElementwiseRule {
  UpdateRule rule;
  int states;
  Doubles factors;
  void (*reference)(double* x, double g);
};

void rmsprop(double* x, double g, bool centered, bool momentum) {
  g += kDecay * x[0];
  x[1] = kBeta2 * x[1] + (1 - kBeta2) * g * g;
  double second = x[1];
  if (centered) {
    x[2] = kBeta2 * x[2] + (1 - kBeta2) * g;
    second = std::max(0.0, second - x[2] * x[2]);
  }
  double u = g / (std::sqrt(second) + kEps);
  if (momentum) {
    double& trace = x[centered ? 3 : 2];
    trace = kMomentum * trace + u;
    u = trace;
  }
  x[0] -= kLr * u;
}

// Nesterov's form of AlgoPerf, with decoupled decay.
void nadamw(double* x, double g, bool amsgrad) {
  x[0] *= 1 - kLr * kDecay;
  x[1] = kBeta1 * x[1] + (1 - kBeta1) * g;
  x[2] = kBeta2 * x[2] + (1 - kBeta2) * g * g;
  double second = x[2];
  if (amsgrad) second = x[3] = std::max(x[3], x[2]);
  const double mean = (kBeta1 * x[1] + (1 - kBeta1) * g) / kCorrection1;
  x[0] -= kLr * mean / (std::sqrt(second / kCorrection2) + kEps);
}

const ElementwiseRule kRules[] = {
    {UpdateRule::kSgd,
     0,
     {kDecay, 0.98, kLr},
     [](double* x, double g) { x[0] = 0.98 * x[0] - kLr * (g + kDecay * x[0]); }},
    {UpdateRule::kMomentum,
     1,
     {kDecay, 1, kMomentum, 0.7, kLr * kMomentum, kLr},
     [](double* x, double g) {
       g += kDecay * x[0];
       x[1] = kMomentum * x[1] + 0.7 * g;
       x[0] -= kLr * (g + kMomentum * x[1]);
     }},
    {UpdateRule::kAdagrad,
     1,
     {kDecay, 1, kEps, kLr},
     [](double* x, double g) {
       g += kDecay * x[0];
       x[1] += g * g;
       x[0] -= kLr * g / (std::sqrt(x[1]) + kEps);
     }},
    {UpdateRule::kRmsprop,
     1,
     {kDecay, 1, kBeta2, 1 - kBeta2, kEps, 0, kLr},
     [](double* x, double g) { rmsprop(x, g, false, false); }},
    {UpdateRule::kRmspropMomentum,
     2,
     {kDecay, 1, kBeta2, 1 - kBeta2, kEps, kMomentum, kLr},
     [](double* x, double g) { rmsprop(x, g, false, true); }},
    {UpdateRule::kRmspropCentered,
     2,
     {kDecay, 1, kBeta2, 1 - kBeta2, kEps, 0, kLr},
     [](double* x, double g) { rmsprop(x, g, true, false); }},
    {UpdateRule::kRmspropCenteredMomentum,
     3,
     {kDecay, 1, kBeta2, 1 - kBeta2, kEps, kMomentum, kLr},
     [](double* x, double g) { rmsprop(x, g, true, true); }},
    {UpdateRule::kAdam,
     2,
     {0, 1 - kLr * kDecay, kBeta1, 1 - kBeta1, kBeta2, 1 - kBeta2, 1 / std::sqrt(kCorrection2), kEps,
      kLr * kBeta1 / kCorrection1, kLr * (1 - kBeta1) / kCorrection1},
     [](double* x, double g) { nadamw(x, g, false); }},
    {UpdateRule::kAmsgrad,
     3,
     {0, 1 - kLr * kDecay, kBeta1, 1 - kBeta1, kBeta2, 1 - kBeta2, 1 / std::sqrt(kCorrection2), kEps,
      kLr * kBeta1 / kCorrection1, kLr * (1 - kBeta1) / kCorrection1},
     [](double* x, double g) { nadamw(x, g, true); }},
    {UpdateRule::kLion,
     1,
     {1 - kLr * kDecay, kBeta1, 1 - kBeta1, kBeta2, 1 - kBeta2, kLr},
     [](double* x, double g) {
       const double c = kBeta1 * x[1] + (1 - kBeta1) * g;
       x[0] = (1 - kLr * kDecay) * x[0] - kLr * ((c > 0) - (c < 0));
       x[1] = kBeta2 * x[1] + (1 - kBeta2) * g;
     }},
    {UpdateRule::kScheduleFree,
     2,
     {kBeta2, 1 - kBeta2, 1 / std::sqrt(kCorrection2), kEps, kDecay, 1 - kWeight, kWeight,
      kLr * (1 - kBeta1 * (1 - kWeight)), kLr},
     [](double* x, double g) {
       double &y = x[0], &z = x[1], &v = x[2];
       v = kBeta2 * v + (1 - kBeta2) * g * g;
       const double d = g / (std::sqrt(v / kCorrection2) + kEps) + kDecay * y;
       double average = (y - (1 - kBeta1) * z) / kBeta1;
       z -= kLr * d;
       average = (1 - kWeight) * average + kWeight * z;
       y = (1 - kBeta1) * z + kBeta1 * average;
     }},
};

// Positive, as averages of squares are; the first above the square of any other, as for centered moments.
template <class T>
std::vector<Arrays<T>> random_states(const ElementwiseRule& r, Numbers& random) {
  std::vector<Arrays<T>> states;
  for (int k = 0; k < r.states; ++k) {
    states.push_back(Arrays<T>::random(random));
    for (auto& x : states.back().data)
      for (T& v : x) v = v * v + (k == 0 ? T{1.5} : T{0});
  }
  return states;
}

template <class T>
void check_rule(const Isa& isa, const ElementwiseRule& r, double tolerance) {
  Numbers random(static_cast<uint64_t>(r.rule) + 7);
  auto p = Arrays<T>::random(random);
  auto states = random_states<T>(r, random);
  const auto copies = Arrays<float>::zeros();
  std::vector<std::vector<Doubles>> want = {widen(p)};
  for (const auto& state : states) want.push_back(widen(state));
  const T scale = T{0.5};
  for (int repeat = 0; repeat < 2; ++repeat) {
    const auto g = Arrays<T>::random(random);
    const auto vp = p.template views<InOut>(), vc = copies.template views<InOut>();
    const auto vg = g.template views<In>();
    std::vector<InOut> vs;
    for (const auto& state : states)
      for (const InOut& view : state.template views<InOut>()) vs.push_back(view);
    isa.kernels->optimizer_step(r.rule, list(vp), list(vc), list(vg), list(vs),
                                {r.factors.data(), static_cast<int64_t>(r.factors.size())}, view<In>(&scale, {}));
    for (size_t t = 0; t < kSizes.size(); ++t)
      for (size_t i = 0; i < want[0][t].size(); ++i) {
        double x[4];
        for (size_t k = 0; k < want.size(); ++k) x[k] = want[k][t][i];
        r.reference(x, 0.5 * static_cast<double>(g.data[t][i]));
        for (size_t k = 0; k < want.size(); ++k) want[k][t][i] = x[k];
      }
  }
  double error = largest_difference(p, want[0]);
  for (size_t k = 0; k < states.size(); ++k) error = std::max(error, largest_difference(states[k], want[1 + k]));
  CHECK(copies_are(copies, p), "%s rule %d: a copy differs", isa.name, static_cast<int>(r.rule));
  CHECK(error <= tolerance, "%s rule %d, %d bytes: error %g", isa.name, static_cast<int>(r.rule),
        static_cast<int>(sizeof(T)), error);
}

}  // namespace

// The root of a difference of nearly equal numbers of size 1 has an error of the root of their rounding, over eps; so
// much, times lr, enters the centered step.
TEST(elementwise_rules_match_their_formulas) {
  for (const Isa& isa : isas())
    for (const ElementwiseRule& r : kRules) {
      check_rule<double>(isa, r, 1e-13);
      if (r.rule != UpdateRule::kLion) check_rule<float>(isa, r, 0x1p-17);  // the sign of a rounded 0 may differ
    }
}

TEST(elementwise_rules_take_16_bits_and_round_copies) {
  for (const Isa& isa : isas())
    for (const DType dtype : {DType::kBF16, DType::kF16}) {
      std::vector<float> p(37), m(37, 0.5f), v(37, 0.25f), g(37);
      for (size_t i = 0; i < p.size(); ++i) p[i] = 1 + static_cast<float>(i) / 7, g[i] = static_cast<float>(i) / 8 - 2;
      std::vector<float> wide_p = p, wide_m = m, wide_v = v;
      std::vector<uint16_t> copy(37), narrow_g(37), want(37);
      const auto half = [&](std::vector<uint16_t>& x) {
        View y = view<InOut>(x.data(), {37});
        y.dtype = dtype;
        return y;
      };
      isa.kernels->copy(view<In>(g.data(), {37}), Out{half(narrow_g)});  // eighths are exact
      const Doubles& factors = kRules[7].factors;
      const auto step = [&](std::vector<float>& x, std::vector<float>& a, std::vector<float>& b, const In& grad,
                            const List<InOut>& copies) {
        const InOut px = view<InOut>(x.data(), {37}),
                    states[] = {view<InOut>(a.data(), {37}), view<InOut>(b.data(), {37})};
        isa.kernels->optimizer_step(UpdateRule::kAdam, {&px, 1}, copies, {&grad, 1}, {states, 2},
                                    {factors.data(), static_cast<int64_t>(factors.size())}, {});
      };
      const InOut copied{half(copy)};
      step(p, m, v, In{half(narrow_g)}, {&copied, 1});
      step(wide_p, wide_m, wide_v, view<In>(g.data(), {37}), {});
      isa.kernels->copy(view<In>(p.data(), {37}), Out{half(want)});
      CHECK(p == wide_p && m == wide_m && v == wide_v, "%s: 16-bit gradients step otherwise", isa.name);
      CHECK(copy == want, "%s: a copy is not the parameter, rounded", isa.name);
    }
}

TEST(elementwise_rules_refuse_what_does_not_fit) {
  for (const Isa& isa : isas()) {
    std::vector<double> wide(3), numbers(3);
    std::vector<float> narrow(3);
    const InOut p = view<InOut>(wide.data(), {3}), other = view<InOut>(narrow.data(), {3});
    const In g = view<In>(wide.data(), {3}), narrow_g = view<In>(narrow.data(), {3});
    const auto refused = [&](UpdateRule rule, int64_t factors, const In& grad, const List<InOut>& states) {
      try {
        isa.kernels->optimizer_step(rule, {&p, 1}, {}, {&grad, 1}, states, {numbers.data(), factors}, {});
      } catch (const Error&) {
        return true;
      }
      return false;
    };
    CHECK(refused(UpdateRule::kSgd, 2, g, {}), "%s: two factors", isa.name);
    CHECK(refused(UpdateRule::kSgd, 3, narrow_g, {}), "%s: a gradient of another dtype", isa.name);
    CHECK(refused(UpdateRule::kSgd, 3, g, {&p, 1}), "%s: a state too many", isa.name);
    const std::vector<double> four(4);
    numbers = four;
    CHECK(refused(UpdateRule::kAdagrad, 4, g, {&other, 1}), "%s: a state of another dtype", isa.name);
    CHECK(!refused(UpdateRule::kAdagrad, 4, g, {&p, 1}), "%s: what fits is refused", isa.name);
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
      isa.kernels->sonew_step({&vp, 1}, {}, {&vg, 1}, {&vm, 1}, {&v0, 1}, {&v1, 1}, {}, {&chain, 1},
                              view<In>(&scale, {}), 0.1, 0.9, 0.99, 1e-8, false, 0, false, Graft::kAdam, 1e-8, true,
                              0.1, 1, {});
      const InOut states[] = {vm, v0, v1};
      for (const ElementwiseRule& r : kRules)
        isa.kernels->optimizer_step(r.rule, {&vp, 1}, {}, {&vg, 1}, {states, r.states},
                                    {r.factors.data(), static_cast<int64_t>(r.factors.size())}, view<In>(&scale, {}));
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
