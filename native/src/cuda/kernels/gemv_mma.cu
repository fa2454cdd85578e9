// Products of 2 to 32 rows of 16-bit numbers on Hopper's tensor cores: the time is still that of reading the weights. A
// block has 8 or 16 outputs, whose weights its warps divide along k. The rows are the left operand of an mma, the
// weights the right one. Which 16 numbers of k an mma adds up is free, as long as both operands agree: a lane takes 8
// neighbouring ones of a row of each, 16 bytes, and its group of four lanes 32, so that nothing needs to be turned in
// shared memory. In the end the warps' sums are added in order.
//
// Weights come by the copy engine, as in gemv.cu, settled ones while the kernel waits for earlier ones; those that
// don't fit into the shared memory of a block come straight into registers. An RMS norm scales and rounds the rows on
// the way, as a kernel of its own would have.
#include "cuda/kernels/early.cuh"
#include "cuda/kernels/gemv_rows.cuh"
#include "cuda/kernels/mma_tile.cuh"
#include "cuda/sm90.h"

namespace llmeff::cuda {
namespace {

constexpr int kWarps = 8, kThreads = 32 * kWarps, kTile = 8;  // outputs of an mma
constexpr size_t kMostShared = 48 << 10;                      // what a block gets without asking

// Of the weights in shared memory, in packs: a row of a warp's part, and what lies between rows so that eight of them
// are read without conflicts.
constexpr int part_of(int packs) {
  return (packs + 4 * kWarps - 1) / (4 * kWarps) * 4;
}
constexpr int stride_of(int packs) {
  return part_of(packs) % 8 == 0 ? part_of(packs) + 4 : part_of(packs);
}

__device__ __forceinline__ uint32_t word(const uint4& pack, int i) {
  return i == 0 ? pack.x : i == 1 ? pack.y : i == 2 ? pack.z : pack.w;
}

// kRows: of x, 8, 16 or 32.
template <class T, int kRows, int kTiles, bool kGated, bool kNormed, bool kStaged>
__global__ void __launch_bounds__(kThreads) gemv_mma_kernel(const __grid_constant__ Gemv a) {
#if __CUDA_ARCH__ >= 900
  static_assert(!kGated || kTiles == 2);
  constexpr int kOutputs = kGated ? kTile : kTile * kTiles, kEights = kRows / 8, kWeightRows = kTile * kTiles,
                kSixteens = (kRows + 15) / 16, kHeld = kRows == 32 ? 2 : 4;  // packs of a row that a lane reads at once
  extern __shared__ uint4 staged[];                                          // [kWarps][kWeightRows][stride]
  __shared__ uint64_t arrived[kWarps];
  __shared__ float squares[kWarps][kRows], partial[kWarps][kTiles][kRows][kTile];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, group = lane / 4, quarter = lane % 4;
  const int64_t first = int64_t{blockIdx.x} * kOutputs;
  const int stride = stride_of(a.packs), begin = min(warp * part_of(a.packs), a.packs),
            end = min(begin + part_of(a.packs), a.packs);  // of the warp, in packs
  uint4* const own = staged + warp * kWeightRows * stride;
  const auto weights = [&](int row) {
    const int64_t n = min(first + (kGated ? row % kTile : row), a.outputs - 1);
    return reinterpret_cast<const uint4*>(kGated ? weights_of_gated<T>(a, row / kTile, n) : weights_of<T>(a, n));
  };
  const auto stage = [&] {
    if (begin == end) return;
    const auto bytes = static_cast<uint32_t>(end - begin) * 16;
    if (lane == 0) sm90::mbarrier_arrive_expect(&arrived[warp], kWeightRows * bytes);
    __syncwarp();
    if (lane < kWeightRows) sm90::bulk_load_once(own + lane * stride, weights(lane) + begin, bytes, &arrived[warp]);
  };
  let_next_begin();
  if constexpr (kStaged) {
    if (lane == 0) {
      sm90::mbarrier_init(&arrived[warp], 1);
      sm90::mbarrier_init_fence();
    }
    __syncwarp();
  }
  if (kStaged && a.settled) {
    stage();
  } else {
    for (int row = lane / 16; row < kWeightRows; row += 2)
      for (int pack = begin + 2 * (lane % 16); pack < end; pack += 32) prefetch(weights(row) + pack);
  }
  await_earlier();
  if (kStaged && !a.settled) stage();

  const uint4* x[kEights];
#pragma unroll
  for (int eight = 0; eight < kEights; ++eight)
    x[eight] =
        reinterpret_cast<const uint4*>(static_cast<const T*>(a.x) + min(8 * eight + group, a.rows - 1) * a.x_stride);
  float scale[kEights];
  if constexpr (kNormed) {
#pragma unroll
    for (int eight = 0; eight < kEights; ++eight) {
      float sum = 0;
      for (int pack = begin + quarter; pack < end; pack += 4) {
        const uint4 values = x[eight][pack];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const float2 two = unpack<T>(word(values, i));
          sum = fmaf(two.x, two.x, fmaf(two.y, two.y, sum));
        }
      }
      sum += __shfl_xor_sync(0xFFFFFFFFu, sum, 1);
      sum += __shfl_xor_sync(0xFFFFFFFFu, sum, 2);
      if (quarter == 0) squares[warp][8 * eight + group] = sum;
    }
    __syncthreads();
#pragma unroll
    for (int eight = 0; eight < kEights; ++eight) {
      float sum = 0;
#pragma unroll
      for (int w = 0; w < kWarps; ++w) sum += squares[w][8 * eight + group];
      scale[eight] = 1 / sqrtf(sum / static_cast<float>(a.packs * 8) + a.eps);
    }
  }
  const auto normed = [&](const uint4& values, const uint4& norm, float by) {
    uint32_t words[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float2 two = unpack<T>(word(values, i)), weight = unpack<T>(word(norm, i));
      words[i] = pack<T>(two.x * by * (weight.x + a.norm_offset), two.y * by * (weight.y + a.norm_offset));
    }
    return uint4{words[0], words[1], words[2], words[3]};
  };

  const uint4* from[kTiles];
#pragma unroll
  for (int t = 0; t < kTiles; ++t)
    from[t] = kStaged ? own + (kTile * t + group) * stride - begin : weights(kTile * t + group);
  float sums[kSixteens][kTiles][4] = {};
  for (int step = begin + quarter; step - quarter < end; step += 4 * kHeld) {
    uint4 rows[kHeld][kEights], w[kHeld][kTiles], norm[kHeld];
    constexpr uint4 kNothing = {0, 0, 0, 0};
#pragma unroll
    for (int h = 0; h < kHeld; ++h) {
      const int pack = step + 4 * h;
      const bool present = pack < end;
#pragma unroll
      for (int eight = 0; eight < kEights; ++eight) rows[h][eight] = present ? x[eight][pack] : kNothing;
      if (kNormed) norm[h] = present ? static_cast<const uint4*>(a.norm)[pack] : kNothing;
      if constexpr (!kStaged) {
#pragma unroll
        for (int t = 0; t < kTiles; ++t) w[h][t] = present ? __ldcs(from[t] + pack) : kNothing;
      }
    }
    if constexpr (kStaged) {
      if (step - quarter == begin) sm90::mbarrier_wait(&arrived[warp], 0);
#pragma unroll
      for (int h = 0; h < kHeld; ++h)
#pragma unroll
        for (int t = 0; t < kTiles; ++t) w[h][t] = step + 4 * h < end ? from[t][step + 4 * h] : kNothing;
    }
#pragma unroll
    for (int h = 0; h < kHeld; ++h) {
      if constexpr (kNormed) {
#pragma unroll
        for (int eight = 0; eight < kEights; ++eight) rows[h][eight] = normed(rows[h][eight], norm[h], scale[eight]);
      }
#pragma unroll
      for (int m = 0; m < kSixteens; ++m) {
        const uint4 above = rows[h][2 * m], below = kEights > 1 ? rows[h][kEights > 1 ? 2 * m + 1 : 0] : kNothing;
#pragma unroll
        for (int i = 0; i < 4; i += 2) {
          const uint32_t fragment[4] = {word(above, i), word(below, i), word(above, i + 1), word(below, i + 1)};
#pragma unroll
          for (int t = 0; t < kTiles; ++t) mma<T>(sums[m][t], fragment, word(w[h][t], i), word(w[h][t], i + 1));
        }
      }
    }
  }
#pragma unroll
  for (int t = 0; t < kTiles; ++t)
#pragma unroll
    for (int eight = 0; eight < kEights; ++eight)
#pragma unroll
      for (int e = 0; e < 2; ++e)
        partial[warp][t][8 * eight + group][2 * quarter + e] = sums[eight / 2][t][eight % 2 * 2 + e];
  __syncthreads();
  const auto sum_of = [&](int tile, int m, int output) {
    float sum = 0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) sum += partial[w][tile][m][output];
    return sum;
  };
  for (int i = threadIdx.x; i < kRows * kOutputs; i += kThreads) {
    const int m = i / kOutputs, output = i % kOutputs;
    const int64_t n = first + output;
    if (m >= a.rows || n >= a.outputs) continue;
    if constexpr (kGated)
      write_gated<T>(a, m, n, sum_of(0, m, output), sum_of(1, m, output));
    else
      write<T>(a, m, n, sum_of(output / kTile, m, output % kTile), added_to<T>(a, m, n));
  }
#endif
}

// Returns whether it took the product: without shared memory for the weights, many rows are read too often.
template <class T, int kRows, int kTiles, bool kGated>
bool launch(Context& cuda, const Gemv& a) {
  constexpr size_t kOwn = kWarps * (sizeof(uint64_t) + kRows * (1 + kTiles * kTile) * sizeof(float));
  const size_t shared = size_t{kWarps} * kTile * kTiles * static_cast<size_t>(stride_of(a.packs)) * 16;
  const bool staged = shared + kOwn <= kMostShared;
  if (!staged && kRows > 8) return false;
  const auto blocks = static_cast<unsigned>(ceil_div(a.outputs, kGated ? kTile : kTile * kTiles));
  const auto kernels = [&]<bool kNormed>() {
    const auto staging = gemv_mma_kernel<T, kRows, kTiles, kGated, kNormed, true>;
    if constexpr (kRows > 8)
      launch_early(cuda, staging, blocks, kThreads, shared, a);
    else
      launch_early(cuda, staged ? staging : gemv_mma_kernel<T, kRows, kTiles, kGated, kNormed, false>, blocks, kThreads,
                   staged ? shared : 0, a);
  };
  if (a.norm == nullptr)
    kernels.template operator()<false>();
  else
    kernels.template operator()<true>();
  return true;
}

template <class T, int kRows>
bool launch_rows(Context& cuda, const Gemv& a, bool gated) {
  if (gated) return launch<T, kRows, 2, true>(cuda, a);
  // As many blocks as fill the GPU come before several outputs for each, which read x less often.
  if (a.outputs >= int64_t{16} * kTile * cuda.facts.multiprocessors) return launch<T, kRows, 2, false>(cuda, a);
  return launch<T, kRows, 1, false>(cuda, a);
}

template <class T>
bool launch_of(Context& cuda, const Gemv& a, bool gated) {
  if (a.rows <= 8) return launch_rows<T, 8>(cuda, a, gated);
  if (a.rows <= 16) return launch_rows<T, 16>(cuda, a, gated);
  return launch_rows<T, 32>(cuda, a, gated);
}

}  // namespace

bool gemv_mma(Context& cuda, const Gemv& a, DType dtype, bool gated) {
  if (cuda.facts.capability < 90 || a.rows < 2 || a.rows > kMostMmaRows) return false;
  if (dtype == DType::kBF16) return launch_of<bf16>(cuda, a, gated);
  return dtype == DType::kF16 && launch_of<f16>(cuda, a, gated);
}

}  // namespace llmeff::cuda
