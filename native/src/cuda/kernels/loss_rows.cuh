// Rows of the cross-entropy loss, shared by cross_entropy and linear_cross_entropy. With z = x, or
// softcap·tanh(x/softcap),
//   ce = lse − (1−s)·z[target] − s·mean_v z[v]          (the two terms of kernels.h, added up)
//   dx[v] = scale · (p[v]·(1 + 2·z_loss·lse) − (1−s)·[v = target] − s/V) · (1 − (z[v]/softcap)²)
//
// A block has a row. Each thread walks over its 16-byte packs once (the ends of a row, which need
// not be aligned, by single elements), with a running maximum and the sum of e^(z − maximum); then those of all threads
// are joined. Ignored rows get ce = lse = 0 and no gradient; so do rows with a target outside the vocabulary, after the
// report.
#pragma once

#include <cmath>

#include "cuda/context.h"
#include "cuda/kernels/rows.cuh"

namespace llmeff::cuda {

template <class W>
struct LossOptions {
  int32_t ignore_index;
  W smoothing, z_loss, softcap, inverse_softcap;
};

template <class W>
LossOptions<W> loss_options(int64_t ignore_index, double label_smoothing, double z_loss, double softcap) {
  // An index that no int32 has ignores nothing: neither does INT32_MIN, which is never a target.
  const bool possible = ignore_index >= INT32_MIN && ignore_index <= INT32_MAX;
  return {possible ? static_cast<int32_t>(ignore_index) : INT32_MIN, static_cast<W>(label_smoothing),
          static_cast<W>(z_loss), static_cast<W>(softcap), static_cast<W>(softcap > 0 ? 1 / softcap : 0)};
}

// launch.operator()<T, kCapped>() for the dtype of logits and whether they are capped.
template <class F>
void with_logits(DType dtype, double softcap, F&& launch) {
  with_floating(dtype, [&]<class Tag>(Tag) {
    using T = typename Tag::type;
    if (softcap > 0) return launch.template operator()<T, true>();
    launch.template operator()<T, false>();
  });
}

// Of the block of a row of n elements.
inline unsigned loss_threads(int64_t n, DType dtype, int64_t most) {
  return static_cast<unsigned>(std::min<int64_t>(most, round_up(ceil_div(n * item_size(dtype), 16), 32)));
}

// stats = {mean ce, mean z_loss·lse², valid rows} and the loss, from ce and lse: rows are added up in a fixed order.
void finish_loss(Context& cuda, const int32_t* targets, int64_t rows, int64_t vocabulary, int64_t ignore_index,
                 double z_loss, const View& ce, const View& lse, const View& loss, const View& stats);

#ifdef __CUDACC__

__device__ __forceinline__ float exp_of(float x) {
  return __expf(x);  // its relative error grows with |x|, as e^x shrinks beside the term that is 1
}
__device__ __forceinline__ double exp_of(double x) {
  return exp(x);
}

template <bool kCapped, class W>
__device__ __forceinline__ W capped(const LossOptions<W>& options, W x) {
  if constexpr (kCapped) return options.softcap * tanh(x * options.inverse_softcap);
  return x;
}

// e^(z − shift) for many z and one shift. In float32 it is 2^(z·log₂e − shift·log₂e), one instruction less: the second
// product is rounded, which is an error of shift · 2⁻²⁴, as much as one in the last digit of the sum's logarithm.
template <class W>
struct ExpFrom {
  W shift;
  explicit __device__ __forceinline__ ExpFrom(W shift)
      : shift(sizeof(W) == 4 ? shift * W(1.4426950408889634) : shift) {}
  __device__ __forceinline__ W operator()(W z) const {
    if constexpr (sizeof(W) == 4) {
      float power;
      asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(fmaf(z, 1.4426950408889634f, -shift)));
      return power;
    } else {
      return exp(z - shift);
    }
  }
};

// Σ e^(z − max) with its max; −inf and 0 of nothing.
template <class W>
struct SumOfExp {
  W max = -INFINITY, sum = 0;

  // What e^(z − max) is taken with: of nothing but −inf the terms are 0.
  static __device__ __forceinline__ W shift(W max) { return max == -W(INFINITY) ? W{0} : max; }
  __device__ __forceinline__ void raise(W other) {
    if (!(other > max)) return;
    sum *= exp_of(max - other);
    max = other;
  }
  __device__ __forceinline__ void join(W other_max, W other_sum) {
    const W top = max > other_max ? max : other_max;
    sum = sum * exp_of(shift(max) - shift(top)) + other_sum * exp_of(shift(other_max) - shift(top));
    max = top;
  }
};

template <class W>
struct RowLoss {
  W ce, lse;
};

// For all threads of the block. `total` is Σ z.
template <class W>
__device__ SumOfExp<W> join_row(SumOfExp<W> own, W& total) {
  __shared__ W maxima[32], sums[32], totals[32];
  const auto join_warp = [&] {
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) {
      const W max = __shfl_xor_sync(0xFFFFFFFFu, own.max, distance),
              sum = __shfl_xor_sync(0xFFFFFFFFu, own.sum, distance);
      total += __shfl_xor_sync(0xFFFFFFFFu, total, distance);
      own.join(max, sum);
    }
  };
  join_warp();
  if (blockDim.x == 32) return own;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
  __syncthreads();
  if (lane == 0) maxima[warp] = own.max, sums[warp] = own.sum, totals[warp] = total;
  __syncthreads();
  own = {lane < warps ? maxima[lane] : -W(INFINITY), lane < warps ? sums[lane] : W{0}};
  total = lane < warps ? totals[lane] : W{0};
  join_warp();
  return own;
}

// Elements of a row before the first multiple of 16 bytes.
template <class T>
__device__ __forceinline__ int unaligned_head(const T* row, int n) {
  const int head = static_cast<int>((16 - reinterpret_cast<uintptr_t>(row) % 16) % 16 / sizeof(T));
  return head < n ? head : n;
}

template <bool kCapped, class T>
__device__ RowLoss<wide_t<T>> row_loss(const T* logits, int n, int target, const LossOptions<wide_t<T>>& options) {
  using W = wide_t<T>;
  constexpr int kPack = Pack<T>::kSize;
  SumOfExp<W> own;
  W total = 0;
  const int step = blockDim.x * kPack;
  const auto add = [&]<int kCount>(const Group<T, kCount>& group) {
    W z[kCount], top = -W(INFINITY);
#pragma unroll
    for (int e = 0; e < kCount; ++e) {
      z[e] = capped<kCapped>(options, widen<W>(group.at[e]));
      top = fmax(top, z[e]);  // the number if one is NaN, which then shows in the sum
    }
    own.raise(top);
    const ExpFrom<W> power(SumOfExp<W>::shift(own.max));
    W sums[2] = {};
#pragma unroll
    for (int e = 0; e < kCount; ++e) sums[e % 2] += power(z[e]);
    own.sum += sums[0] + sums[1];
    if (options.smoothing > 0)
#pragma unroll
      for (int e = 0; e < kCount; ++e) total += z[e];
  };
  const int head = unaligned_head(logits, n), end = head + (n - head) / kPack * kPack;
  if (threadIdx.x < head) add(load_group<1>(logits + threadIdx.x));
  if (threadIdx.x < n - end) add(load_group<1>(logits + end + threadIdx.x));
  int i = head + threadIdx.x * kPack;
  for (; i + 3 * step < end; i += 4 * step) {
    Group<T, kPack> groups[4];
#pragma unroll
    for (int k = 0; k < 4; ++k) groups[k] = load_group<kPack>(logits + i + k * step);
#pragma unroll
    for (int k = 0; k < 4; ++k) add(groups[k]);
  }
  for (; i < end; i += step) add(load_group<kPack>(logits + i));
  const SumOfExp<W> row = join_row(own, total);
  // Of nothing but -inf there is no distribution: NaN, as of a NaN.
  const W lse = row.max == -W(INFINITY) ? W(NAN) : row.max + log(row.sum);
  W ce = lse - (1 - options.smoothing) * capped<kCapped>(options, widen<W>(logits[target]));
  if (options.smoothing > 0) ce -= options.smoothing * (total / static_cast<W>(n));
  return {ce, lse};
}

// dlogits may be logits.
template <bool kCapped, class T>
__device__ void row_loss_grad(const T* logits, int n, int target, wide_t<T> lse, wide_t<T> scale,
                              const LossOptions<wide_t<T>>& options, T* dlogits) {
  using W = wide_t<T>;
  const W weight = scale * (1 + 2 * options.z_loss * lse), floor = scale * options.smoothing / static_cast<W>(n),
          at_target = scale * (1 - options.smoothing);
  const auto grad = [&]<int kCount>(int i, Group<T, kCount> group) {
#pragma unroll
    for (int e = 0; e < kCount; ++e) {
      const W z = capped<kCapped>(options, widen<W>(group.at[e]));
      W d = exp_of(z - lse) * weight - floor;  // exactly 1 at lse, from which 1 may be taken
      if (i + e == target) d -= at_target;
      if constexpr (kCapped) d *= 1 - (z * options.inverse_softcap) * (z * options.inverse_softcap);
      group.at[e] = narrow<T>(d);
    }
    store_group(dlogits + i, group);
  };
  constexpr int kPack = Pack<T>::kSize;
  const int step = blockDim.x * kPack, head = unaligned_head(logits, n);
  // Both rows must meet their multiples of 16 bytes at the same element.
  const int end = unaligned_head(dlogits, n) == head ? head + (n - head) / kPack * kPack : head;
  if (threadIdx.x < head) grad(threadIdx.x, load_group<1>(logits + threadIdx.x));
  for (int i = end + threadIdx.x; i < n; i += blockDim.x) grad(i, load_group<1>(logits + i));
  int i = head + threadIdx.x * kPack;
  for (; i + step < end; i += 2 * step) {
    const auto first = load_group<kPack>(logits + i), second = load_group<kPack>(logits + i + step);
    grad(i, first);
    grad(i + step, second);
  }
  if (i < end) grad(i, load_group<kPack>(logits + i));
}

template <class T>
__device__ void zero_row(T* row, int n) {
  constexpr int kPack = Pack<T>::kSize;
  const int head = unaligned_head(row, n), end = head + (n - head) / kPack * kPack;
  const T zero = narrow<T>(wide_t<T>{0});
  Group<T, kPack> zeros;
#pragma unroll
  for (int e = 0; e < kPack; ++e) zeros.at[e] = zero;
  if (threadIdx.x < head) row[threadIdx.x] = zero;
  if (threadIdx.x < n - end) row[end + threadIdx.x] = zero;
  for (int i = head + threadIdx.x * kPack; i < end; i += blockDim.x * kPack) store_group(row + i, zeros);
}

// Whether a row has a target that counts.
template <class W>
__device__ __forceinline__ bool has_target(const LossOptions<W>& options, int32_t target, int64_t vocabulary) {
  return target != options.ignore_index && target >= 0 && target < vocabulary;
}

#endif

}  // namespace llmeff::cuda
