// The element-wise rules and the global norm on the GPU: sizes around every chunk, several tensors in one call, some of them not
// aligned, copies, and steps of all optimizers that must not happen. test_sonew.cc has SONew.
#include "twins.h"

namespace llmeff::test {
namespace {

TEST(cuda_global_norm) {
  for (const DType dtype : kDTypes) {
    const Twins xs = uniform(dtype, kSizes);
    const DType wide = dtype == DType::kF64 ? DType::kF64 : DType::kF32;
    const Twin norm(wide, {});
    lab().both([&](Kernels& kernels, auto side) { kernels.global_norm(Views<In>(xs, side), Out{side(norm)}); });
    lab().expect("norm", norm, 2 * rounding(wide) + 0x1p-50);
  }
  // Squares that overflow float32, and more tensors than a launch takes.
  const Twins xs = uniform(DType::kF32, std::vector<int64_t>(700, 3), 3e30);
  const Twin norm(DType::kF32, {});
  lab().both([&](Kernels& kernels, auto side) { kernels.global_norm(Views<In>(xs, side), Out{side(norm)}); });
  lab().expect("norm of 700", norm, 2 * rounding(DType::kF32));
}

// Factors in the ranges that they have; a rule takes as many of them as it needs.
struct ElementwiseRule {
  UpdateRule rule;
  int states;
  std::vector<double> factors;
};
const ElementwiseRule kRules[] = {
    {UpdateRule::kSgd, 0, {0.1, 0.98, 0.01}},
    {UpdateRule::kMomentum, 1, {0.1, 0.98, 0.8, 0.7, 0.02, 0.01}},
    {UpdateRule::kAdagrad, 1, {0.1, 0.98, 1e-3, 0.01}},
    {UpdateRule::kRmsprop, 1, {0.1, 0.98, 0.95, 0.05, 1e-3, 0, 0.01}},
    {UpdateRule::kRmspropMomentum, 2, {0.1, 0.98, 0.95, 0.05, 1e-3, 0.9, 0.01}},
    {UpdateRule::kRmspropCentered, 2, {0.1, 0.98, 0.95, 0.05, 1e-1, 0, 0.01}},
    {UpdateRule::kRmspropCenteredMomentum, 3, {0.1, 0.98, 0.95, 0.05, 1e-1, 0.9, 0.01}},
    {UpdateRule::kAdam, 2, {0.1, 0.98, 0.9, 0.1, 0.95, 0.05, 2, 1e-3, 0.02, 0.01}},
    {UpdateRule::kAmsgrad, 3, {0.1, 0.98, 0.9, 0.1, 0.95, 0.05, 2, 1e-3, 0.02, 0.01}},
    {UpdateRule::kLion, 1, {0.98, 0.9, 0.1, 0.95, 0.05, 0.01}},
    {UpdateRule::kScheduleFree, 2, {0.95, 0.05, 2, 1e-3, 0.1, 0.7, 0.3, 0.01, 0.02}},
};
static_assert(sizeof(kRules) / sizeof(kRules[0]) == kUpdateRuleCount);

struct ElementwiseState {
  Twins all;  // first states first
  explicit ElementwiseState(const ElementwiseRule& r, DType dtype, const std::vector<int64_t>& sizes) {
    // Far enough from 0 for averages of squares, also for the second moment of what is centered; Lion's average is so
    // far from 0 that no gradient changes the sign of its sum.
    for (int k = 0; k < r.states; ++k)
      for (const Twin& twin : uniform(dtype, sizes, 0.25, r.rule == UpdateRule::kLion ? 0.5 : k == 1 ? 0.3 : 0.7))
        all.push_back(twin);
  }
};

void check_rule(const ElementwiseRule& r, DType dtype, DType grad_dtype, DType copy_dtype, bool copied,
                const std::vector<int64_t>& sizes) {
  const Twins p = uniform(dtype, sizes), g = uniform(grad_dtype, sizes),
              copies = copied ? outputs(copy_dtype, sizes) : Twins();
  const ElementwiseState states(r, dtype, sizes);
  const Twin scale = lab().uniform(dtype, {}, 0.5, 1);
  lab().both([&](Kernels& kernels, auto side) {
    kernels.optimizer_step(r.rule, Views<InOut>(p, side), Views<InOut>(copies, side), Views<In>(g, side),
                           Views<InOut>(states.all, side), {r.factors.data(), static_cast<int64_t>(r.factors.size())},
                           In{side(scale)});
  });
  // Steps are at most rate · g / eps, and 0.2: a rounding of the denominator is far below one of the parameter.
  const double error = rounding(dtype) + 16 * arithmetic(dtype);
  const std::string what = "rule " + std::to_string(static_cast<int>(r.rule)) + " ";
  expect_all((what + "p").c_str(), p, 2 * error);
  expect_all((what + "state").c_str(), states.all, 2 * error, 10);
  if (copied) expect_all((what + "copy").c_str(), copies, rounding(copy_dtype) + 32 * arithmetic(dtype));
}

TEST(cuda_elementwise_rules) {
  for (const ElementwiseRule& r : kRules)
    for (const DType dtype : {DType::kF32, DType::kF64})
      for (const DType grad_dtype : grad_dtypes(dtype))
        for (const bool copied : {false, true})
          check_rule(r, dtype, grad_dtype, grad_dtype == DType::kF32 ? DType::kBF16 : DType::kF16, copied, kSizes);
}

TEST(cuda_elementwise_rules_of_many_tensors) {
  for (const ElementwiseRule& r : kRules)
    check_rule(r, DType::kF32, DType::kF32, DType::kF32, true, std::vector<int64_t>(600, 5));
}

TEST(cuda_steps_that_must_not_happen_change_nothing) {
  // A lookup whose result the gradients might depend on, with a bad id, of which nobody has been told.
  Twin ids(DType::kI32, {1});
  *ids.integers() = 9;
  ids.send(lab().cpu());
  const Twin table = lab().uniform(DType::kF32, {3, 4}), row(DType::kF32, {1, 4});
  cuda::Context& context = lab().context();
  for (const bool failed : {false, true})
    for (const double scale : std::initializer_list<double>{NAN, INFINITY, -INFINITY, 1.0})
      for (const Graft graft : {Graft::kNone, Graft::kAdam}) {
        if (!failed && scale == 1) continue;
        const std::vector<int64_t> sizes = {3, 5000};
        const Twins p = uniform(DType::kF32, sizes), g = uniform(DType::kF32, sizes), m = uniform(DType::kF32, sizes),
                    h0 = uniform(DType::kF32, sizes, 0.5, 1), h1 = uniform(DType::kF32, sizes, 0.1),
                    h2 = uniform(DType::kF32, sizes, 0.1);
        Twins tridiagonal = h0, banded;
        tridiagonal.insert(tridiagonal.end(), h1.begin(), h1.end());
        banded = tridiagonal;
        banded.insert(banded.end(), h2.begin(), h2.end());
        Twin factor(DType::kF32, {});
        *factor.values() = scale;
        factor.send(lab().cpu());
        const std::vector<int64_t> chains(2, 0);
        const auto side = [](const Twin& twin) -> const View& { return twin.device(); };
        std::vector<FailurePointer> pending;
        if (failed) {
          context.begin("test", 1, {});
          lab().gpu().embedding(In{table.device()}, In{ids.device()}, Out{row.device()});
          pending.push_back(context.end());
        }
        lab().alone(
            [&] {
              for (const Twins& diagonals : {tridiagonal, banded})
                lab().gpu().sonew_step(Views<InOut>(p, side), {}, Views<In>(g, side), Views<InOut>(m, side),
                                       Views<InOut>(diagonals, side), {}, {chains.data(), 2}, {chains.data(), 2},
                                       In{factor.device()}, 0.1, 0.9, 0.99, 1e-8, false, 0, false, false, graft, 1e-8,
                                       true, 0.1, 1, 0, {});
              for (const ElementwiseRule& r : kRules) {
                std::vector<InOut> states;
                for (const Twins* twins : {&m, &h0, &h1})
                  if (static_cast<int>(states.size() / sizes.size()) < r.states)
                    for (const Twin& twin : *twins) states.push_back(InOut{twin.device()});
                lab().gpu().optimizer_step(r.rule, Views<InOut>(p, side), {}, Views<In>(g, side),
                                           {states.data(), static_cast<int64_t>(states.size())},
                                           {r.factors.data(), static_cast<int64_t>(r.factors.size())},
                                           In{factor.device()});
              }
            },
            pending);
        for (const FailurePointer& check : pending) context.settle(*check);
        for (const Twins* twins : std::initializer_list<const Twins*>{&p, &m, &banded}) expect_all("state", *twins, 0);
      }
}

}  // namespace
}  // namespace llmeff::test
