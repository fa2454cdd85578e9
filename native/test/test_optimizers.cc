// The element-wise rules and the global norm against plain double loops: sizes around every chunk and vector border,
// several tensors in one call. test_sonew.cc has SONew.
#include "llmeff/error.h"
#include "optimizers.h"

namespace llmeff::test {

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

TEST(rules_with_a_gradient_scale_that_is_not_finite_change_nothing) {
  for (const Isa& isa : isas())
    for (const float scale : {NAN, INFINITY, -INFINITY}) {
      std::vector<float> p = {1, 2, 3}, g = {1, 1, 1}, m = {4, 5, 6}, v = {7, 8, 9};
      const auto vp = view<InOut>(p.data(), {3}), vm = view<InOut>(m.data(), {3}), vv = view<InOut>(v.data(), {3});
      const auto vg = view<In>(g.data(), {3});
      std::vector<float> top = {1, 2, 0};
      const InOut states[] = {vm, vv, view<InOut>(top.data(), {3})};
      for (const ElementwiseRule& r : kRules)
        isa.kernels->optimizer_step(r.rule, {&vp, 1}, {}, {&vg, 1}, {states, r.states},
                                    {r.factors.data(), static_cast<int64_t>(r.factors.size())}, view<In>(&scale, {}));
      const bool same = p == std::vector<float>{1, 2, 3} && m == std::vector<float>{4, 5, 6} &&
                        v == std::vector<float>{7, 8, 9} && top == std::vector<float>{1, 2, 0};
      CHECK(same, "%s scale %g", isa.name, static_cast<double>(scale));
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
