// The optimizers and the global norm on the GPU: sizes around every chunk, several tensors in one call, some of them
// not aligned, all grafts, both kinds of eps and of stability rule, copies, and steps that must not happen.
#include <initializer_list>

#include "lab.h"

namespace llmeff::test {
namespace {

constexpr DType kDTypes[] = {DType::kF32, DType::kF64, DType::kBF16, DType::kF16};

double arithmetic(DType dtype) {
  return dtype == DType::kF64 ? 0x1p-53 : 0x1p-24;
}

const std::vector<int64_t> kSizes = {1, 2, 3, 4, 5, 31, 128, 1023, 1024, 1025, 2047, 2048, 2049, 4096, 10000, 100003};

using Twins = std::vector<Twin>;

// Every third one begins one element into its memory.
Twins uniform(DType dtype, const std::vector<int64_t>& sizes, double scale = 1, double offset = 0) {
  Twins twins;
  for (const int64_t n : sizes) {
    const int64_t shift = twins.size() % 3 == 2;
    twins.push_back(lab().uniform(dtype, {n + shift}, scale, offset).as({n}, {1}, shift));
  }
  return twins;
}
Twins outputs(DType dtype, const std::vector<int64_t>& sizes) {
  Twins twins;
  for (const int64_t n : sizes) twins.emplace_back(dtype, std::vector<int64_t>{n});
  return twins;
}

// The views of a list on one side.
template <class V>
struct Views {
  std::vector<V> views;
  template <class Side>
  Views(const Twins& twins, const Side& side) {
    for (const Twin& twin : twins) views.push_back(V{side(twin)});
  }
  operator List<V>() const { return {views.data(), static_cast<int64_t>(views.size())}; }
};

void expect_all(const char* what, const Twins& twins, double tolerance, double magnitude = 1) {
  for (size_t i = 0; i < twins.size(); ++i)
    lab().expect(std::string(what) + " " + std::to_string(i), twins[i], tolerance, magnitude);
}

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

// The dtypes that gradients may have.
std::vector<DType> grad_dtypes(DType dtype) {
  if (dtype == DType::kF32) return {DType::kF32, DType::kBF16, DType::kF16};
  return {dtype};
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

struct Hyper {
  int64_t chain;
  Graft graft;
  bool relative_eps, absolute_gamma, bias_correction;
  double gamma;
};

void check_sonew(DType dtype, DType grad_dtype, const std::vector<int64_t>& sizes, const Hyper& h, bool copied) {
  const Twins p = uniform(dtype, sizes), m = uniform(dtype, sizes, 0.1), h0 = uniform(dtype, sizes, 0.1, 0.4);
  // Edges far below the diagonal pass every test of the stability rule, larger ones fail it here and there.
  Twins h1 = uniform(dtype, sizes, h.gamma > 0 ? 0.6 : 0.2),
        rms = h.graft == Graft::kRmspropNorm ? uniform(dtype, sizes, 0.1, 0.2) : Twins();
  for (size_t t = 0; t < sizes.size(); ++t) {
    // h1 is 0 at the end of a chain.
    const int64_t n = sizes[t], chain = h.chain > 0 ? h.chain : n, shift = t % 3 == 2;
    for (int64_t j = 0; j < n; ++j)
      if ((j + 1) % chain == 0 || j + 1 == n) h1[t].values()[j + shift] = 0;
    h1[t].send(lab().cpu());
  }
  const Twins copies = copied ? outputs(DType::kBF16, sizes) : Twins();
  const Twin scale = lab().uniform(dtype == DType::kF64 ? DType::kF64 : DType::kF32, {}, 0.1, 0.5);
  Twin dropped(DType::kF64, {});
  *dropped.values() = 5;
  dropped.send(lab().cpu());
  const std::vector<int64_t> chains(sizes.size(), h.chain);
  for (int64_t step = 2; step <= 3; ++step) {
    const Twins g = uniform(grad_dtype, sizes);
    lab().both([&](Kernels& kernels, auto side) {
      kernels.sonew_step(Views<InOut>(p, side), Views<InOut>(copies, side), Views<In>(g, side), Views<InOut>(m, side),
                         Views<InOut>(h0, side), Views<InOut>(h1, side), Views<InOut>(rms, side),
                         {chains.data(), static_cast<int64_t>(chains.size())}, In{side(scale)}, 0.01, 0.9, 0.99, 1e-2,
                         h.relative_eps, h.gamma, h.absolute_gamma, h.graft, 1e-3, h.bias_correction, 0.1, step,
                         InOut{side(dropped)});
    });
    // A second step starts from the rounded state of the first.
    if (dtype == DType::kBF16 || dtype == DType::kF16) break;
  }
  const std::string what = "chain " + std::to_string(h.chain) + " graft " + std::to_string(static_cast<int>(h.graft)) +
                           " relative " + std::to_string(h.relative_eps) + " ";
  // The state takes two roundings an average; in u those of a Schur complement enter at most (1 + h0 / eps)-fold, 101
  // or, with eps and γ times 1−β2² of the second step, 50 times that. A step is of the order of lr.
  const double state = rounding(dtype) + 8 * arithmetic(dtype);
  expect_all((what + "m").c_str(), m, state);
  expect_all((what + "h0").c_str(), h0, state);
  expect_all((what + "h1").c_str(), h1, state);
  if (!rms.empty()) expect_all((what + "rms").c_str(), rms, state);
  const double step_error = (h.gamma > 0 ? 5050 : 101) * arithmetic(dtype);
  expect_all((what + "p").c_str(), p, rounding(dtype) + step_error);
  if (copied) expect_all((what + "copy").c_str(), copies, rounding(DType::kBF16) + step_error);
  lab().expect(what + "dropped", dropped, 0);
}

TEST(cuda_sonew_in_float64) {
  for (const int64_t chain : {0, 1, 2, 7, 1000, 2048, 5000})
    for (int graft = 0; graft < kGraftCount; ++graft)
      check_sonew(DType::kF64, DType::kF64, kSizes,
                  {chain, static_cast<Graft>(graft), (chain + graft) % 2 == 1, graft % 2 == 0, chain % 3 != 0, 0.2},
                  graft % 2 == 0);
}

// No edge is near the border of the stability rule, where rounding would decide.
TEST(cuda_sonew_in_other_dtypes) {
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16})
    for (const DType grad_dtype : grad_dtypes(dtype))
      for (const int64_t chain : {0, 3, 1500})
        for (int graft = 0; graft < kGraftCount; ++graft)
          for (const bool relative_eps : {false, true})
            check_sonew(dtype, grad_dtype, kSizes, {chain, static_cast<Graft>(graft), relative_eps, false, true, 0},
                        relative_eps);
}

TEST(cuda_sonew_of_many_tensors) {
  for (const Graft graft : {Graft::kNone, Graft::kAdam, Graft::kRmspropNorm})
    check_sonew(DType::kF32, DType::kF32, std::vector<int64_t>(600, 37),
                {5, graft, graft == Graft::kAdam, false, true, 0}, false);
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
                    h0 = uniform(DType::kF32, sizes, 0.5, 1), h1 = uniform(DType::kF32, sizes, 0.1);
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
              lab().gpu().sonew_step(Views<InOut>(p, side), {}, Views<In>(g, side), Views<InOut>(m, side),
                                     Views<InOut>(h0, side), Views<InOut>(h1, side), {}, {chains.data(), 2},
                                     In{factor.device()}, 0.1, 0.9, 0.99, 1e-8, false, 0, false, graft, 1e-8, true, 0.1,
                                     1, {});
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
        for (const Twins* twins : {&p, &m, &h0, &h1}) expect_all("state", *twins, 0);
      }
}

}  // namespace
}  // namespace llmeff::test
