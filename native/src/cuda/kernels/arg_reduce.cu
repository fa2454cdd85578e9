// arg_reduce: the first position of the maximum or minimum along the last axis; the first NaN where there is one.
#include "cuda/kernels/cuda_kernels.h"
#include "cuda/kernels/reduce.cuh"

namespace llmeff::cuda {
namespace {

template <class T>
struct ArgMaximum {
  using W = T;
  struct State {
    alignas(8) T best;
    int32_t at, padding;
  };
  static constexpr bool kTurns = true, kPacks = __is_same(T, float), kPackedColumns = false;
  static constexpr int32_t kNowhere = 2147483647;  // after every position
  static __device__ W pad() {
    if constexpr (__is_same(T, int32_t))
      return -2147483647 - 1;
    else
      return -infinity<T>();
  }
  static __device__ State none() { return {pad(), kNowhere, 0}; }
  // NaN is better than any number; of equals the first.
  static __device__ bool better(const State& a, const State& b) {
    if (a.best > b.best) return true;
    if (a.best < b.best) return false;
    const bool nan = a.best != a.best, other_nan = b.best != b.best;
    return nan != other_nan ? nan : a.at < b.at;
  }
  template <int n, class I>
  static __device__ void add(State& state, const W (&x)[n], uint32_t mask, const I& index) {
#pragma unroll
    for (int i = 0; i < n; ++i) {
      const State other = {x[i], index(i), 0};
      if ((mask >> i & 1u) && better(other, state)) state = other;
    }
  }
  static __device__ State merge(const State& a, const State& b) { return better(b, a) ? b : a; }
  static __device__ void put(const State& state, const Reduction& r, int64_t at) {
    static_cast<int32_t*>(r.out)[at] = state.at;
  }
};

}  // namespace

void CudaKernels::arg_reduce(ReduceOp op, const In& x, const Out& out) {
  // out with the last axis of x, of size 1.
  View positions = out;
  positions.rank = x.rank;
  int64_t step = 1;
  for (int axis = x.rank - 1; axis >= 0; --axis) {
    positions.shape[axis] = axis == x.rank - 1 ? 1 : x.shape[axis];
    positions.strides[axis] = step;
    step *= positions.shape[axis];
  }
  const unsigned last = 1u << (x.rank - 1);
  const Loop<2> kept = make_loop<2>({&x, &positions}, ~last);
  const Loop<1> reduced = make_loop<1>({&x}, last);
  Reduction r = {};
  r.x = x.data, r.out = out.data;
  r.from = x.dtype, r.to = out.dtype;
  r.negate = op == ReduceOp::kMin;
  switch (x.dtype) {
    case DType::kF64:
      return launch_reduction<ArgMaximum<double>>(cuda_, r, x, kept, reduced);
    case DType::kI32:
    case DType::kU8:
    case DType::kBool:
      return launch_reduction<ArgMaximum<int32_t>>(cuda_, r, x, kept, reduced);
    default:
      return launch_reduction<ArgMaximum<float>>(cuda_, r, x, kept, reduced);
  }
}

}  // namespace llmeff::cuda
