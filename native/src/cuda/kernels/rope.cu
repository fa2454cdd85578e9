// Rotary embedding of x [B, T, H, D]: the pair (u, w) becomes (u·cos − w·sin, w·cos + u·sin), or turns back when
// inverse. A thread has 16 bytes of each half of a row (pairs (i, i + R/2)), or 16 bytes of neighbours (pairs (2i,
// 2i + 1)), or 16 bytes past R that are copied; those of several arrays follow one another. The tables are small and
// come from the caches, once for each head.
#include <initializer_list>

#include "cuda/kernels/cuda_kernels.h"
#include "cuda/kernels/early.cuh"
#include "cuda/kernels/rows.cuh"

namespace llmeff::cuda {
namespace {

constexpr int kThreads = 256, kMostParts = 3;

// Rows of one array [B, T, H, D]: the first `turned` units of each are turned, the others copied.
struct Part {
  const void* x;
  void* out;
  RowMap x_rows, out_rows;
  int64_t end;  // of its units among those of all parts
  uint32_t heads, turned, units_per_row;
  int copied_from;  // channel
};

struct Rope {
  Part parts[kMostParts];
  const void *cos, *sin;
  uint32_t length;
  int count, half;
  bool inverse;
};

template <class T, int kPack, bool kInterleaved>
__global__ void __launch_bounds__(kThreads) rope_kernel(const __grid_constant__ Rope a) {
  using W = wide_t<T>;
  let_next_begin();
  await_earlier();
  int64_t unit = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  int index = 0;
  while (index < a.count && unit >= a.parts[index].end) ++index;
  if (index == a.count) return;
  const Part& part = a.parts[index];
  if (index > 0) unit -= a.parts[index - 1].end;
  const int64_t row = unit < UINT32_MAX ? static_cast<uint32_t>(unit) / part.units_per_row : unit / part.units_per_row;
  const uint32_t in_row = static_cast<uint32_t>(unit - row * part.units_per_row);
  const T* const x = static_cast<const T*>(part.x) + part.x_rows(row);
  T* const out = static_cast<T*>(part.out) + part.out_rows(row);
  if (in_row >= part.turned) {
    const int i = part.copied_from + (in_row - part.turned) * kPack;
    store_group(out + i, load_group<kPack>(x + i));
    return;
  }
  const int64_t token = row < UINT32_MAX ? static_cast<uint32_t>(row) / part.heads : row / part.heads;
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

struct Rows {
  const View &x, &out;
  bool turned;
};

void turn(Context& cuda, std::initializer_list<Rows> all, const In& cos, const In& sin, bool interleaved,
          bool inverse) {
  const View& first = all.begin()->x;
  Rope a = {};
  a.cos = cos.data, a.sin = sin.data;
  a.length = static_cast<uint32_t>(first.shape[1]);
  a.half = static_cast<int>(cos.shape[1]);
  a.inverse = inverse;
  with_floating(first.dtype, [&]<class Tag>(Tag) {
    using T = typename Tag::type;
    constexpr int kPack = Pack<T>::kSize;
    const auto channels_turned = [&](const Rows& rows) { return rows.turned ? 2 * a.half : 0; };
    const auto launch = [&]<int kWidth, bool kInterleaved>() {
      // Single interleaved elements go by pairs.
      constexpr int kTurned = kInterleaved && kWidth == 1 ? 2 : kWidth;
      int64_t units = 0;
      for (const Rows& rows : all) {
        const int turned = channels_turned(rows);
        Part& part = a.parts[a.count++];
        part.x = rows.x.data, part.out = rows.out.data;
        part.x_rows = row_map(rows.x), part.out_rows = row_map(rows.out);
        part.heads = static_cast<uint32_t>(rows.x.shape[2]);
        part.turned = static_cast<uint32_t>((kInterleaved ? turned : turned / 2) / kTurned);
        part.units_per_row = part.turned + static_cast<uint32_t>((rows.x.shape[3] - turned) / kWidth);
        part.copied_from = turned;
        part.end = units += count_rows(rows.x) * part.units_per_row;
      }
      launch_early(cuda, rope_kernel<T, kWidth, kInterleaved>, static_cast<unsigned>(ceil_div(units, kThreads)),
                   kThreads, 0, a);
    };
    bool whole = rows_aligned({&cos, &sin}) && (interleaved ? 2 * a.half : a.half) % kPack == 0;
    for (const Rows& rows : all)
      whole &= rows_aligned({&rows.x, &rows.out}) && (rows.x.shape[3] - channels_turned(rows)) % kPack == 0;
    if (whole && interleaved) return launch.template operator()<kPack, true>();
    if (whole) return launch.template operator()<kPack, false>();
    if (interleaved) return launch.template operator()<1, true>();
    launch.template operator()<1, false>();
  });
}

}  // namespace

void CudaKernels::rope(const In& x, const In& cos, const In& sin, bool interleaved, bool inverse, const Out& out) {
  turn(cuda_, {{x, out, true}}, cos, sin, interleaved, inverse);
}

void CudaKernels::rope_and_keep(const In& q, const In& k, const In& v, const In& cos, const In& sin, bool interleaved,
                                const Out& turned, const Out& keys, const Out& values) {
  turn(cuda_, {{q, turned, true}, {k, keys, true}, {v, values, false}}, cos, sin, interleaved, false);
}

}  // namespace llmeff::cuda
