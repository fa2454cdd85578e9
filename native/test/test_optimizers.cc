// AdamW and the global norm against plain double loops: sizes around every chunk and vector border, several tensors in
// one call. test_sonew.cc has SONew.
#include "optimizers.h"

namespace llmeff::test {

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

TEST(adamw_with_a_gradient_scale_that_is_not_finite_changes_nothing) {
  for (const Isa& isa : isas())
    for (const float scale : {NAN, INFINITY, -INFINITY}) {
      std::vector<float> p = {1, 2, 3}, g = {1, 1, 1}, m = {4, 5, 6}, v = {7, 8, 9};
      const auto vp = view<InOut>(p.data(), {3}), vm = view<InOut>(m.data(), {3}), vv = view<InOut>(v.data(), {3});
      const auto vg = view<In>(g.data(), {3});
      isa.kernels->adamw_step({&vp, 1}, {}, {&vg, 1}, {&vm, 1}, {&vv, 1}, {}, view<In>(&scale, {}), 0.1, 0.9, 0.99,
                              1e-8, 0.1, true, 1);
      const bool same =
          p == std::vector<float>{1, 2, 3} && m == std::vector<float>{4, 5, 6} && v == std::vector<float>{7, 8, 9};
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
