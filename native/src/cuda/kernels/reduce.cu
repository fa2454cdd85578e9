// reduce: sum, mean, maximum, minimum, product, variance and log Σ e^x over any axes. float32 is added up in float32
// over the few elements that a thread has at a time, and in float64 beyond; products in float64
// throughout, their powers of 2 apart. Variance and log Σ e^x take one pass: partial results about a mean, or
// a maximum, of their own are merged (Chan, Golub and LeVeque 1979).
#include "cuda/kernels/cuda_kernels.h"
#include "cuda/kernels/reduce.cuh"

namespace llmeff::cuda {
namespace {

// Folds x[0], … x[n − 1] pair by pair; n is a power of two.
template <int n, class T, class F>
__device__ __forceinline__ T fold_first(const T* x, const F& fold) {
  if constexpr (n == 1)
    return x[0];
  else
    return fold(fold_first<n / 2>(x, fold), fold_first<n / 2>(x + n / 2, fold));
}
template <class T, int n, class F>
__device__ __forceinline__ T fold_tree(const T (&x)[n], const F& fold) {
  return fold_first<n>(x, fold);
}
template <class T, int n>
__device__ __forceinline__ T tree_sum(const T (&x)[n]) {
  return fold_tree(x, [](T a, T b) { return a + b; });
}

template <class T>
struct Sum {
  using W = T;
  using State = double;
  static constexpr bool kTurns = false, kPacks = __is_same(T, float), kPackedColumns = kPacks;
  static __device__ State none() { return 0; }
  static __device__ W pad() { return 0; }
  template <int n, class I>
  static __device__ void add(State& state, const W (&x)[n], uint32_t, const I&) {
    state += static_cast<double>(tree_sum(x));
  }
  static __device__ State merge(State a, State b) { return a + b; }
  static __device__ void put(State state, const Reduction& r, int64_t at) {
    store_result(r, at, r.average ? state / static_cast<double>(r.reduced.count) : state);
  }
};

// A factor and a power of 2 apart, so that a part of a product may overflow or vanish where the whole does not.
template <class T>
struct Product {
  using W = T;
  struct State {
    double factor;  // in [½, 1) or 0, ∞, NaN
    int64_t power;
  };
  static constexpr bool kTurns = false, kPacks = false, kPackedColumns = false;
  static __device__ State none() { return {1, 0}; }
  static __device__ W pad() { return 1; }
  static __device__ State normal(double factor, int64_t power) {
    int more = 0;
    const double rest = frexp(factor, &more);
    return {rest, power + more};
  }
  template <int n, class I>
  static __device__ void add(State& state, const W (&x)[n], uint32_t, const I&) {
#pragma unroll
    for (int i = 0; i < n; ++i) state = normal(state.factor * static_cast<double>(x[i]), state.power);
  }
  static __device__ State merge(const State& a, const State& b) {
    return normal(a.factor * b.factor, a.power + b.power);
  }
  static __device__ void put(const State& state, const Reduction& r, int64_t at) {
    const int64_t most = 4096;  // beyond every exponent
    store_result(r, at, ldexp(state.factor, static_cast<int>(max(-most, min(most, state.power)))));
  }
};

// The minimum as the maximum of −x (of ~x for integers).
template <class T>
struct Maximum {
  using W = T;
  using State = T;
  static constexpr bool kTurns = true, kPacks = __is_same(T, float), kPackedColumns = kPacks;
  static __device__ State none() {
    if constexpr (__is_same(T, int32_t))
      return -2147483647 - 1;
    else
      return -infinity<T>();
  }
  static __device__ W pad() { return none(); }
  template <int n, class I>
  static __device__ void add(State& state, const W (&x)[n], uint32_t, const I&) {
    state = nan_max(fold_tree(x, [](T a, T b) { return nan_max(a, b); }), state);
  }
  static __device__ State merge(State a, State b) { return nan_max(a, b); }
  static __device__ void put(State state, const Reduction& r, int64_t at) {
    store_result(r, at, static_cast<double>(r.turned<Maximum>(state)));
  }
};

template <class T>
struct Variance {
  using W = T;
  struct State {
    double count, mean, squares;  // squares: Σ (x − mean)²
  };
  static constexpr bool kTurns = false, kPacks = __is_same(T, float), kPackedColumns = false;
  static __device__ State none() { return {0, 0, 0}; }
  static __device__ W pad() { return 0; }
  template <int n, class I>
  static __device__ void add(State& state, const W (&x)[n], uint32_t mask, const I&) {
    const W count = static_cast<W>(__popc(mask));
    if (mask == 0) return;
    // The rounding of this mean is made up for below.
    const W mean = tree_sum(x) / count;
    W off[n], squares[n];
#pragma unroll
    for (int i = 0; i < n; ++i) off[i] = mask >> i & 1u ? x[i] - mean : W(0), squares[i] = off[i] * off[i];
    const double rest = static_cast<double>(tree_sum(off)), share = rest / static_cast<double>(count);
    state = merge(state, {static_cast<double>(count), static_cast<double>(mean) + share,
                          static_cast<double>(tree_sum(squares)) - rest * share});
  }
  static __device__ State merge(const State& a, const State& b) {
    if (b.count == 0) return a;
    if (a.count == 0) return b;
    const double count = a.count + b.count, apart = b.mean - a.mean, share = b.count / count;
    return {count, a.mean + apart * share, a.squares + b.squares + apart * apart * a.count * share};
  }
  static __device__ void put(const State& state, const Reduction& r, int64_t at) {
    store_result(r, at, state.squares < 0 ? 0 : state.squares / state.count);
  }
};

template <class T>
struct LogSumExp {
  using W = T;
  struct State {
    double max, sum;  // sum: Σ e^(x − shift(max))
  };
  static constexpr bool kTurns = false, kPacks = __is_same(T, float), kPackedColumns = false;
  // An infinite maximum is not subtracted.
  static __device__ double shift(double max) { return fabs(max) == infinity<double>() ? 0.0 : max; }
  static __device__ State none() { return {-infinity<double>(), 0}; }
  static __device__ W pad() { return -infinity<W>(); }
  template <int n, class I>
  static __device__ void add(State& state, const W (&x)[n], uint32_t, const I&) {
    const double max = nan_max(static_cast<double>(fold_tree(x, [](T a, T b) { return nan_max(a, b); })), state.max);
    state.sum = scaled(state, max);
    state.max = max;
    const W by = static_cast<W>(shift(max));
    W powers[n];
#pragma unroll
    for (int i = 0; i < n; ++i) powers[i] = exp(x[i] - by);
    state.sum += static_cast<double>(tree_sum(powers));
  }
  static __device__ double scaled(const State& state, double max) {
    const double from = shift(state.max), to = shift(max);
    return state.sum == 0 || from == to ? state.sum : state.sum * exp(from - to);
  }
  static __device__ State merge(const State& a, const State& b) {
    const double max = nan_max(a.max, b.max);
    return {max, scaled(a, max) + scaled(b, max)};
  }
  static __device__ void put(const State& state, const Reduction& r, int64_t at) {
    store_result(r, at, state.max != state.max ? state.max : shift(state.max) + log(state.sum));
  }
};

template <class T>
void reduce_floating(Context& cuda, ReduceOp op, Reduction r, const View& x, const Loop<2>& kept,
                     const Loop<1>& reduced) {
  switch (op) {
    case ReduceOp::kMean:
      r.average = true;
      [[fallthrough]];
    case ReduceOp::kSum:
      return launch_reduction<Sum<T>>(cuda, r, x, kept, reduced);
    case ReduceOp::kMin:
      r.negate = true;
      [[fallthrough]];
    case ReduceOp::kMax:
      return launch_reduction<Maximum<T>>(cuda, r, x, kept, reduced);
    case ReduceOp::kProd:
      return launch_reduction<Product<T>>(cuda, r, x, kept, reduced);
    case ReduceOp::kVariance:
      return launch_reduction<Variance<T>>(cuda, r, x, kept, reduced);
    case ReduceOp::kLogSumExp:
      return launch_reduction<LogSumExp<T>>(cuda, r, x, kept, reduced);
  }
}

}  // namespace

void CudaKernels::reduce(ReduceOp op, const In& x, const Out& out) {
  unsigned reduced_axes = 0;
  for (int axis = 0; axis < x.rank; ++axis)
    if (out.shape[axis] == 1) reduced_axes |= 1u << axis;
  const Loop<2> kept = make_loop<2>({&x, &out}, ~reduced_axes);
  const Loop<1> reduced = make_loop<1>({&x}, reduced_axes);
  Reduction r = {};
  r.x = x.data, r.out = out.data;
  r.from = x.dtype, r.to = out.dtype;
  switch (x.dtype) {
    case DType::kF64:
      return reduce_floating<double>(cuda_, op, r, x, kept, reduced);
    case DType::kI32:
    case DType::kU8:
    case DType::kBool:
      if (op != ReduceOp::kMax && op != ReduceOp::kMin)
        fail("ERR_DTYPE", "[reduce] operation %d has no kernel for integers", static_cast<int>(op));
      r.negate = op == ReduceOp::kMin;
      return launch_reduction<Maximum<int32_t>>(cuda_, r, x, kept, reduced);
    default:
      return reduce_floating<float>(cuda_, op, r, x, kept, reduced);
  }
}

}  // namespace llmeff::cuda
