// 2-simplicial attention, backward: the plan of a call and its small kernels.
//
//   stats      lse·log2e and D = rowsum(dout∘o), laid out by row block
//   rows       dq                                                  simplicial_backward_rows_sm90.cu
//   columns    parts of dk, dv of the long side per (128 rows, chunk of short rows), and of the short side per (short
//              row, 64 long rows)                                  simplicial_backward_columns_sm90.cu
//   add_long, add_short    add the parts in fixed order, apply `scale`, round once
//
// Wide windows have many parts of a short row; the tiles of the long side are then taken in phases, between which the
// sums of the short side stay in float32.
#include <algorithm>

#include "cuda/kernels/simplicial_backward_problem.h"

namespace llmeff::cuda::simplicial_backward {
namespace {

// ---- statistics
// ------------------------------------------------------------------------------------------------------

constexpr int kStatsThreads = 256;

template <int D>
__global__ void __launch_bounds__(kStatsThreads)
    stats_kernel(const __grid_constant__ Problem p, const __nv_bfloat16* o, SimplicialBackwardArgs::Strides o_strides,
                 const __nv_bfloat16* dout, SimplicialBackwardArgs::Strides dout_strides, const float* lse) {
  constexpr int kLanes = D / 8;  // of a row, 16 bytes each
  const int block = blockIdx.x, kv_head = blockIdx.y % p.Hkv, batch = blockIdx.y / p.Hkv;
  float* stats = p.stats + (int64_t(blockIdx.y) * p.row_blocks + block) * (2 * kBlockRows);
#pragma unroll
  for (int first = 0; first < kBlockRows; first += kStatsThreads / kLanes) {
    const int row = first + threadIdx.x / kLanes, column = threadIdx.x % kLanes * 8;
    const int token_in_block = row * p.token_magic >> 16;
    const int t = p.first_token(block) + token_in_block;
    const int head_in_group = block % p.head_blocks * kBlockRows + row - token_in_block * p.group;
    const bool valid = token_in_block < p.tile_tokens && t < p.Nq && head_in_group < p.group;
    const int head = kv_head * p.group + head_in_group;
    float sum = 0;
    if (valid) {
      const uint4 x = *reinterpret_cast<const uint4*>(o + batch * o_strides.batch + t * o_strides.row +
                                                      head * o_strides.head + column);
      const uint4 y = *reinterpret_cast<const uint4*>(dout + batch * dout_strides.batch + t * dout_strides.row +
                                                      head * dout_strides.head + column);
      const uint32_t xs[4] = {x.x, x.y, x.z, x.w}, ys[4] = {y.x, y.y, y.z, y.w};
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float2 a = unpack_bf16(xs[i]), b = unpack_bf16(ys[i]);
        sum += a.x * b.x + a.y * b.y;
      }
    }
#pragma unroll
    for (int lane = kLanes / 2; lane > 0; lane /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, lane);
    if (threadIdx.x % kLanes == 0) {
      float* out = stats + row / 2 * 4 + row % 2;
      out[0] = valid ? lse[(int64_t(batch) * p.Hq + head) * p.Nq + t] * kLog2E : INFINITY;
      out[2] = sum;
    }
  }
}

// ---- sums of the parts
// -------------------------------------------------------------------------------------------------

// One block: one gradient (dV or dK) of 64 rows of the long side, in the fragment order of the column kernel.
template <int D>
__global__ void __launch_bounds__(128) add_long_kernel(const __grid_constant__ Problem p, int first_tile) {
  constexpr int kPart = D / 8 * 128;
  const int tile_in_phase = blockIdx.x, half = blockIdx.y / 2, gradient = blockIdx.y % 2, thread = threadIdx.x;
  const int kv_head = blockIdx.z % p.Hkv, batch = blockIdx.z / p.Hkv;
  const int tile = (first_tile + tile_in_phase) * kColumnRows, first_row = tile + half * kHalfRows;
  if (first_row >= p.b.rows) return;
  const Span tile_short_rows = p.short_rows_of({tile, tile + kColumnRows - 1});
  const Span short_rows = p.short_rows_of({first_row, first_row + kHalfRows - 1});
  int first_chunk = 0, last_chunk = -1;  // those in which this half had work
  if (!short_rows.empty()) {
    first_chunk = (short_rows.first - tile_short_rows.first) / p.chunk;
    last_chunk = (short_rows.last - tile_short_rows.first) / p.chunk;
  }
  const float4* parts =
      reinterpret_cast<const float4*>(p.column_parts) +
      ((int64_t(blockIdx.z) * p.tiles_per_phase + tile_in_phase) * p.chunks * 4 + half * 2 + gradient) * kPart;
  const float scale = gradient == 0 ? 1.0f : p.scale;
  __nv_bfloat16* out = gradient == 0 ? p.b.dv : p.b.dk;
  const int row = first_row + thread / 32 * 16 + thread % 32 / 4, pair = thread % 4 * 2;
#pragma unroll 4
  for (int j = 0; j < D / 8; ++j) {
    float4 sum = {0, 0, 0, 0};
    for (int chunk = first_chunk; chunk <= last_chunk; ++chunk) {
      const float4 x = parts[int64_t(chunk) * 4 * kPart + j * 128 + thread];
      sum.x += x.x, sum.y += x.y, sum.z += x.z, sum.w += x.w;
    }
    const int64_t at = ((int64_t(batch) * p.b.rows + row) * p.Hkv + kv_head) * D + 8 * j + pair;
    if (row < p.b.rows) *reinterpret_cast<uint32_t*>(out + at) = sm90::pack_bf16(sum.x * scale, sum.y * scale);
    if (row + 8 < p.b.rows) {
      *reinterpret_cast<uint32_t*>(out + at + 8 * int64_t(p.Hkv) * D) = sm90::pack_bf16(sum.z * scale, sum.w * scale);
    }
  }
}

// One block: dV and dK of one row of the short side, D threads each.
template <int D>
__global__ void __launch_bounds__(2 * D)
    add_short_kernel(const __grid_constant__ Problem p, int first_tile, int tiles, bool first, bool last) {
  const int r = blockIdx.x, kv_head = blockIdx.y % p.Hkv, batch = blockIdx.y / p.Hkv;
  const int gradient = threadIdx.x / D, channel = threadIdx.x % D;
  // Query rows that see r, and the long rows they see.
  const Span t = {most(0, r - p.a.shift), least(p.Nq - 1, r + p.a.window - 1 - p.a.shift)};
  float sum = first ? 0.0f : p.short_sums[(int64_t(blockIdx.y) * p.a.rows + r) * (2 * D) + threadIdx.x];
  if (!t.empty()) {
    const int low = most(0, t.first + p.b.shift - p.b.window + 1), high = least(p.b.rows - 1, t.last + p.b.shift);
    const int first_half = most(low / kHalfRows, first_tile * 2);
    const int last_half = high < 0 ? -1 : least(high / kHalfRows, (first_tile + tiles) * 2 - 1);
    const float* parts = p.short_parts + int64_t(blockIdx.y) * p.slots * p.a.rows * (2 * D);
    for (int half = first_half; half <= last_half; ++half) {
      if (p.tokens_of({half * kHalfRows, half * kHalfRows + kHalfRows - 1}, r).empty()) continue;
      sum += parts[(int64_t(half % p.slots) * p.a.rows + r) * (2 * D) + threadIdx.x];
    }
  }
  if (last) {
    __nv_bfloat16* out = gradient == 0 ? p.a.dv : p.a.dk;
    out[((int64_t(batch) * p.a.rows + r) * p.Hkv + kv_head) * D + channel] =
        __float2bfloat16(gradient == 0 ? sum : sum * p.scale);
  } else {
    p.short_sums[(int64_t(blockIdx.y) * p.a.rows + r) * (2 * D) + threadIdx.x] = sum;
  }
}

template <int D>
void launch_stats(const Problem& p, const SimplicialBackwardArgs& args, cudaStream_t stream) {
  stats_kernel<D><<<dim3(unsigned(p.row_blocks), unsigned(p.B) * p.Hkv), kStatsThreads, 0, stream>>>(
      p, args.o, args.o_strides, args.dout, args.dout_strides, args.lse);
}

template <int D>
void launch_sums(const Problem& p, int phase, cudaStream_t stream) {
  const int first_tile = phase * p.tiles_per_phase, tiles = std::min(p.tiles_per_phase, p.column_tiles - first_tile);
  const unsigned kv = unsigned(p.B) * p.Hkv;
  add_long_kernel<D><<<dim3(tiles, 4, kv), 128, 0, stream>>>(p, first_tile);
  add_short_kernel<D>
      <<<dim3(p.a.rows, kv), 2 * D, 0, stream>>>(p, first_tile, tiles, phase == 0, phase == p.phases - 1);
}

// ---- the plan
// ----------------------------------------------------------------------------------------------------------

constexpr int kUnlimited = 1 << 29;
constexpr int64_t kShortPartBytes = int64_t{512} << 20;  // of the parts of the short side; more makes phases

template <class T>
T* take(size_t& offset, void* scratch, int64_t count) {
  T* at = scratch == nullptr ? nullptr : reinterpret_cast<T*>(static_cast<char*>(scratch) + offset);
  offset += (size_t(count) * sizeof(T) + 255) / 256 * 256;
  return at;
}

sm90::Bf16Array array(const __nv_bfloat16* data, const SimplicialBackwardArgs& args, int64_t rows, int64_t heads,
                      const SimplicialBackwardArgs::Strides& strides) {
  return {data, args.B, rows, heads, args.D, strides.batch, strides.row, strides.head};
}

bool readable(const __nv_bfloat16* data, const SimplicialBackwardArgs& args, int64_t rows, int64_t heads,
              const SimplicialBackwardArgs::Strides& strides) {
  return sm90::tma_can_read(array(data, args, rows, heads, strides));
}

}  // namespace

Problem make_problem(const SimplicialBackwardArgs& args, void* scratch, size_t* bytes) {
  Problem p = {};
  p.B = int(args.B), p.Nq = int(args.Nq), p.Hq = int(args.Hq), p.Hkv = int(args.Hkv), p.D = int(args.D);
  p.group = p.Hq / p.Hkv;
  p.tile_heads = std::min(p.group, kBlockRows);
  p.tile_tokens = kBlockRows / p.tile_heads;
  p.head_blocks = (p.group + kBlockRows - 1) / kBlockRows;
  p.row_blocks = (p.Nq + p.tile_tokens - 1) / p.tile_tokens * p.head_blocks;
  p.token_magic = p.tile_tokens == 1 ? 0 : (65536 + p.group - 1) / p.group;
  p.scale = args.scale;
  p.log2_scale = args.scale * kLog2E;
  p.dq = args.dq;

  const auto window = [&](int64_t w) { return w == 0 || w > kUnlimited || !args.causal ? kUnlimited : int(w); };
  const auto shift = [&](int64_t offset, int64_t rows) { return int(args.causal ? args.q_offset - offset : rows); };
  Side side1 = {args.k1,
                args.v1,
                args.k1_strides,
                args.v1_strides,
                args.dk1,
                args.dv1,
                int(args.N1),
                window(args.w1),
                shift(args.k1_offset, args.N1),
                0,
                0};
  Side side2 = {args.k2,         args.v2,         args.k2_strides,
                args.v2_strides, args.dk2,        args.dv2,
                int(args.N2),    window(args.w2), shift(args.k2_offset, args.N2),
                args.k2_bias,    args.v2_bias};
  // The element-wise side may be biased, the other not.
  const bool biased = args.k2_bias != 0 || args.v2_bias != 0;
  const bool swap = !biased && std::min(side1.window, side1.rows) < std::min(side2.window, side2.rows);
  p.a = swap ? side1 : side2;
  p.b = swap ? side2 : side1;

  const int64_t kv = args.B * args.Hkv;
  p.column_tiles = (p.b.rows + kColumnRows - 1) / kColumnRows;
  // Short rows that see 128 long rows, long rows that see a short row.
  const int64_t short_span = std::min<int64_t>(p.a.rows, int64_t(p.a.window) + p.b.window + kColumnRows - 2);
  const int64_t long_span = std::min<int64_t>(p.b.rows, int64_t(p.a.window) + p.b.window - 1);
  const int64_t slots = long_span / kHalfRows + 2;
  const int64_t slot_bytes = kv * p.a.rows * 2 * p.D * int64_t(sizeof(float));
  const int64_t slots_at_most = std::max<int64_t>(4, kShortPartBytes / slot_bytes);
  p.tiles_per_phase =
      slots <= slots_at_most ? p.column_tiles : int(std::min<int64_t>(p.column_tiles, slots_at_most / 2));
  p.phases = (p.column_tiles + p.tiles_per_phase - 1) / p.tiles_per_phase;
  p.slots = int(std::min<int64_t>(slots, 2 * p.tiles_per_phase));
  // Chunks of short rows: small ones spread the work, large ones have fewer parts and reloads.
  constexpr int64_t kBlocksWanted = 1024, kBlocksAtMost = 4096;
  const int64_t tiles = kv * p.tiles_per_phase;
  const auto chunks = [&] { return (short_span + p.chunk - 1) / p.chunk; };
  p.chunk = 64;
  while (p.chunk > 8 && tiles * chunks() < kBlocksWanted) p.chunk /= 2;
  while (tiles * chunks() > kBlocksAtMost && chunks() > 1) p.chunk *= 2;
  p.chunks = int(chunks());

  size_t offset = 0;
  p.stats = take<float>(offset, scratch, kv * p.row_blocks * 2 * kBlockRows);
  p.column_parts = take<float>(offset, scratch, tiles * p.chunks * 2 * kColumnRows * p.D);
  p.short_parts = take<float>(offset, scratch, kv * p.slots * p.a.rows * 2 * p.D);
  if (p.phases > 1) p.short_sums = take<float>(offset, scratch, kv * p.a.rows * 2 * p.D);
  *bytes = offset + 255;
  return p;
}

cudaError_t make_maps(const SimplicialBackwardArgs& args, const Problem& p, Maps* maps) {
  const auto map = [&](CUtensorMap* to, const __nv_bfloat16* data, int64_t rows, int64_t heads,
                       const SimplicialBackwardArgs::Strides& strides, int box_rows, int box_heads) {
    return sm90::make_tensor_map(to, array(data, args, rows, heads, strides), box_rows, box_heads);
  };
  cudaError_t status = map(&maps->q, args.q, args.Nq, args.Hq, args.q_strides, p.tile_tokens, p.tile_heads);
  if (status == cudaSuccess)
    status = map(&maps->dout, args.dout, args.Nq, args.Hq, args.dout_strides, p.tile_tokens, p.tile_heads);
  if (status == cudaSuccess) status = map(&maps->kb, p.b.k, p.b.rows, args.Hkv, p.b.k_strides, kColumnRows, 1);
  if (status == cudaSuccess) status = map(&maps->vb, p.b.v, p.b.rows, args.Hkv, p.b.v_strides, kColumnRows, 1);
  return status;
}

}  // namespace llmeff::cuda::simplicial_backward

namespace llmeff::cuda {

using namespace simplicial_backward;

bool simplicial_backward_sm90_supports(const SimplicialBackwardArgs& args) {
  constexpr int64_t kMost = int64_t{1} << 28;
  return (args.D == 64 || args.D == 128) && args.B > 0 && args.Nq > 0 && args.N1 > 0 && args.N2 > 0 && args.Hkv > 0 &&
         args.Hq > 0 && args.Hq % args.Hkv == 0 && args.Nq < kMost && args.N1 < kMost && args.N2 < kMost &&
         args.B * args.Hkv < 65536 && args.q_offset < kMost && args.k1_offset < kMost && args.k2_offset < kMost &&
         readable(args.q, args, args.Nq, args.Hq, args.q_strides) &&
         readable(args.dout, args, args.Nq, args.Hq, args.dout_strides) &&
         readable(args.o, args, args.Nq, args.Hq, args.o_strides) &&
         readable(args.k1, args, args.N1, args.Hkv, args.k1_strides) &&
         readable(args.v1, args, args.N1, args.Hkv, args.v1_strides) &&
         readable(args.k2, args, args.N2, args.Hkv, args.k2_strides) &&
         readable(args.v2, args, args.N2, args.Hkv, args.v2_strides);
}

size_t simplicial_backward_sm90_scratch_bytes(const SimplicialBackwardArgs& args) {
  size_t bytes = 0;
  make_problem(args, nullptr, &bytes);
  return bytes;
}

cudaError_t simplicial_backward_sm90(const SimplicialBackwardArgs& args, void* scratch, cudaStream_t stream) {
  size_t bytes = 0;
  void* aligned = reinterpret_cast<void*>((reinterpret_cast<uintptr_t>(scratch) + 255) & ~uintptr_t{255});
  const Problem p = make_problem(args, aligned, &bytes);
  Maps maps;
  const cudaError_t status = make_maps(args, p, &maps);
  if (status != cudaSuccess) return status;
  if (p.D == 128) {
    launch_stats<128>(p, args, stream);
  } else {
    launch_stats<64>(p, args, stream);
  }
  launch_rows(p, maps, stream);
  for (int phase = 0; phase < p.phases; ++phase) {
    launch_columns(p, maps, phase, stream);
    if (p.D == 128) {
      launch_sums<128>(p, phase, stream);
    } else {
      launch_sums<64>(p, phase, stream);
    }
  }
  return cudaGetLastError();
}

}  // namespace llmeff::cuda
