// The optimizers that treat every element alike (optimizers.md §2), each written once for all devices.
//
// A rule has the numbers of one step, in the order of the `factors` of Kernels::optimizer_step, and
// update<Math>(x, g): x[0] is the parameter, x[1] and so on its states, all updated in place; g is the gradient. They
// are vectors on a CPU and single numbers on a GPU; Math has the roots of both. To add a rule: a struct here, a case of
// with_rule, a name in kernels.h and binding.ts.
//
// Factors that several rules have: `l2`·p is added to the gradient, p is multiplied by `keep` (decoupled decay) before
// it moves, `rate` is the step's length; a correction for the zeros that averages start from is inside the factors.
#pragma once

#include "llmeff/error.h"
#include "llmeff/kernels.h"

#ifdef __CUDACC__
#define LLMEFF_RULE __device__ __forceinline__
#else
#define LLMEFF_RULE LLMEFF_INLINE
#endif

namespace llmeff::rules {

template <class T>
struct Sgd {
  static constexpr int kStates = 0;
  T l2, keep, rate;

  template <class Math, class V>
  LLMEFF_RULE void update(V (&x)[1], V g) const {
    x[0] = x[0] * keep - (g + x[0] * l2) * rate;
  }
};

// b ← decay·b + gain·g. Heavy ball: trace_rate alone; Nesterov: both rates.
template <class T>
struct Momentum {
  static constexpr int kStates = 1;
  T l2, keep, decay, gain, trace_rate, grad_rate;

  template <class Math, class V>
  LLMEFF_RULE void update(V (&x)[2], V g) const {
    auto& [p, b] = x;
    g = g + p * l2;
    b = b * decay + g * gain;
    p = p * keep - (b * trace_rate + g * grad_rate);
  }
};

// v ← v + g².
template <class T>
struct Adagrad {
  static constexpr int kStates = 1;
  T l2, keep, eps, rate;

  template <class Math, class V>
  LLMEFF_RULE void update(V (&x)[2], V g) const {
    auto& [p, v] = x;
    g = g + p * l2;
    v = v + g * g;
    p = p * keep - g * rate / (Math::sqrt(v) + eps);
  }
};

// v ← decay·v + gain·g²; then, if centered, the average of g, and if there is momentum, the trace of the update.
template <class T, bool kCentered, bool kMomentum>
struct Rmsprop {
  static constexpr int kStates = 1 + kCentered + kMomentum;
  T l2, keep, decay, gain, eps, momentum, rate;

  template <class Math, class V>
  LLMEFF_RULE void update(V (&x)[1 + kStates], V g) const {
    V &p = x[0], &v = x[1];
    g = g + p * l2;
    v = v * decay + g * g * gain;
    V second = v;
    if constexpr (kCentered) {
      V& mean = x[2];
      mean = mean * decay + g * gain;
      second = v - mean * mean;
      second = second < V{} ? V{} : second;  // where all gradients were equal, rounding may make it negative
    }
    V u = g / (Math::sqrt(second) + eps);
    if constexpr (kMomentum) {
      V& trace = x[kStates];
      u = trace = trace * momentum + u;
    }
    p = p * keep - u * rate;
  }
};

// m ← beta1·m + gain1·g; v ← beta2·v + gain2·g². Adam has mean_rate alone, its Nesterov forms both rates.
template <class T, bool kAmsgrad>
struct Adam {
  static constexpr int kStates = 2 + kAmsgrad;
  T l2, keep, beta1, gain1, beta2, gain2, root_scale, eps, mean_rate, grad_rate;

  template <class Math, class V>
  LLMEFF_RULE void update(V (&x)[1 + kStates], V g) const {
    V &p = x[0], &m = x[1], &v = x[2];
    g = g + p * l2;
    m = m * beta1 + g * gain1;
    v = v * beta2 + g * g * gain2;
    V second = v;
    if constexpr (kAmsgrad) {
      V& top = x[3];
      second = top = top > v ? top : v;  // a NaN in v comes through
    }
    p = p * keep - (m * mean_rate + g * grad_rate) / (Math::sqrt(second) * root_scale + eps);
  }
};

// p moves by the sign of beta1·m + gain1·g; then m ← beta2·m + gain2·g.
template <class T>
struct Lion {
  static constexpr int kStates = 1;
  T keep, beta1, gain1, beta2, gain2, rate;

  template <class Math, class V>
  LLMEFF_RULE void update(V (&x)[2], V g) const {
    auto& [p, m] = x;
    const V c = m * beta1 + g * gain1, one = V{} + T{1};
    p = p * keep - (c > V{} ? one : (c < V{} ? V{} - one : c)) * rate;  // 0 and NaN stay
    m = m * beta2 + g * gain2;
  }
};

// p is y; states z and v. The average x is nowhere: with it eliminated, y ← (1−c)·y + c·z − y_rate·d with the old z,
// and no division by beta1 magnifies a rounding.
template <class T>
struct ScheduleFree {
  static constexpr int kStates = 2;
  T beta2, gain2, root_scale, eps, decay, keep, weight, y_rate, z_rate;

  template <class Math, class V>
  LLMEFF_RULE void update(V (&x)[3], V g) const {
    auto& [y, z, v] = x;
    v = v * beta2 + g * g * gain2;
    const V d = g / (Math::sqrt(v) * root_scale + eps) + y * decay;
    y = y * keep + z * weight - d * y_rate;
    z = z - d * z_rate;
  }
};

// body(rule) with the rule that has these factors, in numbers of type T.
template <class T, class F>
LLMEFF_INLINE void with_rule(UpdateRule rule, const List<double>& factors, F&& body) {
  const auto with = [&]<class R>(R made) __attribute__((always_inline)) {
    constexpr int64_t kFactors = sizeof(R) / sizeof(T);
    if (factors.size != kFactors)
      fail("ERR_OPTION", "[optimizer] rule %d takes %lld factors; received %lld.", static_cast<int>(rule),
           static_cast<long long>(kFactors), static_cast<long long>(factors.size));
    T numbers[kFactors];
    for (int64_t i = 0; i < kFactors; ++i) numbers[i] = static_cast<T>(factors[i]);
    __builtin_memcpy(&made, numbers, sizeof made);
    body(made);
  };
  switch (rule) {
    case UpdateRule::kSgd:
      return with(Sgd<T>{});
    case UpdateRule::kMomentum:
      return with(Momentum<T>{});
    case UpdateRule::kAdagrad:
      return with(Adagrad<T>{});
    case UpdateRule::kRmsprop:
      return with(Rmsprop<T, false, false>{});
    case UpdateRule::kRmspropMomentum:
      return with(Rmsprop<T, false, true>{});
    case UpdateRule::kRmspropCentered:
      return with(Rmsprop<T, true, false>{});
    case UpdateRule::kRmspropCenteredMomentum:
      return with(Rmsprop<T, true, true>{});
    case UpdateRule::kAdam:
      return with(Adam<T, false>{});
    case UpdateRule::kAmsgrad:
      return with(Adam<T, true>{});
    case UpdateRule::kLion:
      return with(Lion<T>{});
    case UpdateRule::kScheduleFree:
      return with(ScheduleFree<T>{});
  }
}

// State k of parameter i, of lists that hold first states first.
LLMEFF_INLINE const InOut& state_of(const List<InOut>& states, int64_t params, int k, int64_t i) {
  return states[k * params + i];
}

// The dtypes and counts that a rule with this many states can work on.
LLMEFF_INLINE void check_lists(int states_each, const List<InOut>& params, const List<InOut>& copies,
                               const List<In>& grads, const List<InOut>& states) {
  const bool counts = grads.size == params.size && states.size == states_each * params.size &&
                      (copies.size == 0 || copies.size == params.size);
  if (!counts)
    fail("ERR_OPTION", "[optimizer] %lld parameters have %lld gradients, %lld states of %d each and %lld copies.",
         static_cast<long long>(params.size), static_cast<long long>(grads.size), static_cast<long long>(states.size),
         states_each, static_cast<long long>(copies.size));
  for (int64_t i = 0; i < states.size + params.size; ++i) {
    const DType dtype = i < params.size ? params[i].dtype : states[i - params.size].dtype;
    if (dtype != params[0].dtype || (dtype != DType::kF32 && dtype != DType::kF64))
      fail("ERR_DTYPE", "[optimizer] parameters and states must be all float32 or all float64.");
  }
}

}  // namespace llmeff::rules
