// Rotary embedding of x [B, T, H, D]: the pair (u, w) becomes (u·cos − w·sin, w·cos + u·sin), or turns back when
// inverse. A thread has 16 bytes of each half of a row (pairs (i, i + R/2)), or 16 bytes of neighbours (pairs (2i,
// 2i + 1)), or 16 bytes past R that are copied. The tables are small and come from the caches, once for each head.
#include "cuda/kernels/cuda_kernels.h"
#include "cuda/kernels/rows.cuh"

namespace llmeff::cuda {
namespace {

constexpr int kThreads = 256;

struct Rope {
  const void *x, *cos, *sin;
  void* out;
  RowMap x_rows, out_rows;
  int64_t units;  // of all rows
  uint32_t heads, length;
  uint32_t turned, units_per_row;  // units of a row that are turned; the others are copied
  int half;
  bool inverse;
};

template <class T, int kPack, bool kInterleaved>
__global__ void __launch_bounds__(kThreads) rope_kernel(const __grid_constant__ Rope a) {
  using W = wide_t<T>;
  const int64_t unit = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (unit >= a.units) return;
  const int64_t row = unit < UINT32_MAX ? static_cast<uint32_t>(unit) / a.units_per_row : unit / a.units_per_row;
  const uint32_t in_row = static_cast<uint32_t>(unit - row * a.units_per_row);
  const T* const x = static_cast<const T*>(a.x) + a.x_rows(row);
  T* const out = static_cast<T*>(a.out) + a.out_rows(row);
  if (in_row >= a.turned) {
    const int i = 2 * a.half + (in_row - a.turned) * kPack;
    store_group(out + i, load_group<kPack>(x + i));
    return;
  }
  const int64_t token = row < UINT32_MAX ? static_cast<uint32_t>(row) / a.heads : row / a.heads;
  const int64_t t = token < UINT32_MAX ? static_cast<uint32_t>(token) % a.length : token % a.length;
  const W* const cos = static_cast<const W*>(a.cos) + t * a.half;
  const W* const sin = static_cast<const W*>(a.sin) + t * a.half;
  if constexpr (kInterleaved) {
    constexpr int kWidth = kPack > 1 ? kPack : 2;  // single elements: one pair
    const int i = in_row * kWidth;
    Group<T, kPack> v[kWidth / kPack];
    for (int k = 0; k < kWidth / kPack; ++k) v[k] = load_group<kPack>(x + i + k);
    T* const at = v[0].at;
    const Group<W, kWidth / 2> cosines = load_group<kWidth / 2>(cos + i / 2),
                               sines = load_group<kWidth / 2>(sin + i / 2);
#pragma unroll
    for (int e = 0; e < kWidth; e += 2) {
      const W c = cosines.at[e / 2], s = a.inverse ? -sines.at[e / 2] : sines.at[e / 2];
      const W u = widen<W>(at[e]), w = widen<W>(at[e + 1]);
      at[e] = narrow<T>(u * c - w * s);
      at[e + 1] = narrow<T>(w * c + u * s);
    }
    for (int k = 0; k < kWidth / kPack; ++k) store_group(out + i + k, v[k]);
  } else {
    const int i = in_row * kPack;
    Group<T, kPack> low = load_group<kPack>(x + i), high = load_group<kPack>(x + a.half + i);
    const Group<W, kPack> c = load_group<kPack>(cos + i), s = load_group<kPack>(sin + i);
#pragma unroll
    for (int e = 0; e < kPack; ++e) {
      const W u = widen<W>(low.at[e]), w = widen<W>(high.at[e]), turn = a.inverse ? -s.at[e] : s.at[e];
      low.at[e] = narrow<T>(u * c.at[e] - w * turn);
      high.at[e] = narrow<T>(w * c.at[e] + u * turn);
    }
    store_group(out + i, low);
    store_group(out + a.half + i, high);
  }
}

}  // namespace

void CudaKernels::rope(const In& x, const In& cos, const In& sin, bool interleaved, bool inverse, const Out& out) {
  Rope a = {};
  a.x = x.data, a.cos = cos.data, a.sin = sin.data, a.out = out.data;
  a.x_rows = row_map(x), a.out_rows = row_map(out);
  a.heads = static_cast<uint32_t>(x.shape[2]), a.length = static_cast<uint32_t>(x.shape[1]);
  a.half = static_cast<int>(cos.shape[1]);
  a.inverse = inverse;
  const int64_t rest = x.shape[3] - 2 * a.half;
  const bool aligned = rows_aligned({&x, &out, &cos, &sin});
  with_floating(x.dtype, [&]<class Tag>(Tag) {
    using T = typename Tag::type;
    constexpr int kPack = Pack<T>::kSize;
    const auto launch = [&]<int kWidth, bool kInterleaved>() {
      // Single interleaved elements go by pairs.
      constexpr int kTurned = kInterleaved && kWidth == 1 ? 2 : kWidth;
      a.turned = static_cast<uint32_t>((kInterleaved ? 2 * a.half : a.half) / kTurned);
      a.units_per_row = a.turned + static_cast<uint32_t>(rest / kWidth);
      a.units = count_rows(x) * a.units_per_row;
      rope_kernel<T, kWidth, kInterleaved><<<ceil_div(a.units, kThreads), kThreads, 0, cuda_.stream>>>(a);
      LLMEFF_LAUNCHED("rope_kernel");
    };
    const bool whole = aligned && (interleaved ? 2 * a.half : a.half) % kPack == 0 && rest % kPack == 0;
    if (whole && interleaved) return launch.template operator()<kPack, true>();
    if (whole) return launch.template operator()<kPack, false>();
    if (interleaved) return launch.template operator()<1, true>();
    launch.template operator()<1, false>();
  });
}

}  // namespace llmeff::cuda
