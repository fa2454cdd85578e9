// What the kernels of the 2-simplicial backward pass share: the problem in the form they work on, the ranges of its
// masks, the layout of the scratch memory, and the launchers.
//
// Sides. "a" is the short window, applied element-wise; "b" the long one, whose rows are matrix operands.
//
// Row blocks. The 64 rows of a matrix tile are query rows that share a kv head:
//   G ≥ 64: 64 heads of one token; a token has head_blocks = ⌈G/64⌉ blocks
//   G < 64: T = ⌊64/G⌋ tokens × G heads, token-major
// Row blocks of one (batch, kv head) are numbered token group by token group. Rows past the last head or token have
// lse = +inf in the statistics, so that their P is 0.
//
// Ranges. With shift_x = q_offset - x_offset, query row t sees rows of side x in (t + shift_x - w_x, t + shift_x].
// Without a causal mask the shift is the length of the side, so that the upper bound never cuts.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <utility>

#include "cuda/kernels/simplicial_backward_sm90.h"
#include "cuda/sm90.h"

namespace llmeff::cuda::simplicial_backward {

constexpr int kBlockRows = 64;    // query rows of a matrix tile
constexpr int kColumnRows = 128;  // rows of side b that one block of the column kernel owns
constexpr int kHalfRows = 64;     // and one of its two consumers
constexpr float kLog2E = 1.4426950408889634f;

struct Span {  // first..last, empty when last < first
  int first, last;
  __host__ __device__ bool empty() const { return last < first; }
};

__host__ __device__ inline int least(int a, int b) {
  return a < b ? a : b;
}
__host__ __device__ inline int most(int a, int b) {
  return a > b ? a : b;
}

struct Side {
  const __nv_bfloat16* k;
  const __nv_bfloat16* v;
  SimplicialBackwardArgs::Strides k_strides, v_strides;
  __nv_bfloat16* dk;
  __nv_bfloat16* dv;
  int rows, window, shift;
  float k_bias, v_bias;  // of side b always 0
};

struct Problem {
  int B, Nq, Hq, Hkv, D;
  int group;        // G
  int tile_heads;   // heads of a row block
  int tile_tokens;  // tokens of a row block (T)
  int head_blocks;  // row blocks of a token
  int row_blocks;   // of one (batch, kv head)
  int token_magic;  // row / G = row · token_magic >> 16 inside a block; 0 when a block is one token
  float scale;
  float log2_scale;  // scale · log2e
  Side a, b;
  __nv_bfloat16* dq;

  // Scratch.
  float* stats;         // [B][Hkv][row_blocks][32][4]: of rows 2p and 2p+1: lse·log2e twice, then D twice
  float* column_parts;  // [B·Hkv][tiles_per_phase][chunks][2 halves][dV, dK][D/8][128 threads][4]
  float* short_parts;   // [B·Hkv][slots][a.rows][dV, dK][D]
  float* short_sums;    // [B·Hkv][a.rows][dV, dK][D] between phases, null with one phase
  int column_tiles;     // ⌈b.rows / 128⌉
  int tiles_per_phase, phases;
  int chunk;   // short rows of one block of the column kernel
  int chunks;  // at most, of a tile
  int slots;   // partial sums kept of a short row

  // Query rows t that see some of rows `rows` of side b.
  __host__ __device__ Span tokens_of_rows(Span rows) const {
    if (rows.first >= b.rows) return {0, -1};
    return {most(0, rows.first - b.shift), least(Nq - 1, least(b.rows - 1, rows.last) + b.window - 1 - b.shift)};
  }
  // Query rows t that see some of `rows` of side b and row r of side a.
  __host__ __device__ Span tokens_of(Span rows, int r) const {
    const Span t = tokens_of_rows(rows);
    return {most(t.first, r - a.shift), least(t.last, r + a.window - 1 - a.shift)};
  }
  // Rows of side a that share a query row with some of `rows` of side b.
  __host__ __device__ Span short_rows_of(Span rows) const {
    const Span t = tokens_of_rows(rows);
    if (t.empty()) return {0, -1};
    return {most(0, t.first + a.shift - a.window + 1), least(a.rows - 1, t.last + a.shift)};
  }
  // Those of chunk `index` of a tile of the column kernel.
  __host__ __device__ Span chunk_of(Span tile_short_rows, int index) const {
    const int first = tile_short_rows.first + index * chunk;
    return {first, least(tile_short_rows.last, first + chunk - 1)};
  }
  // Row blocks that hold `tokens`.
  __host__ __device__ Span blocks_of(Span tokens) const {
    return {tokens.first / tile_tokens * head_blocks, tokens.last / tile_tokens * head_blocks + head_blocks - 1};
  }
  // Row blocks all of whose tokens see all of `rows` and r. Between the first and the last block that see any.
  __host__ __device__ Span blocks_seeing_all(Span rows, int r) const {
    if (rows.last >= b.rows) return {0, -1};
    const int first = most(0, most(rows.last - b.shift, r - a.shift));
    const int last = least(rows.first + b.window - 1 - b.shift, r + a.window - 1 - a.shift);
    return {(first + tile_tokens - 1) / tile_tokens * head_blocks,
            (most(-1, last) + 1) / tile_tokens * head_blocks - 1};
  }
  __host__ __device__ int first_token(int block) const { return block / head_blocks * tile_tokens; }
};

// Tensor maps: q and dout in boxes of a row block (64 channels each), k and v of side b in boxes of 128 rows.
struct Maps {
  CUtensorMap q, dout, kb, vb;
};

void launch_rows(const Problem& problem, const Maps& maps, cudaStream_t stream);
void launch_columns(const Problem& problem, const Maps& maps, int phase, cudaStream_t stream);

// The shape of a problem and the scratch it needs; `scratch` may be null to ask for the bytes only.
Problem make_problem(const SimplicialBackwardArgs& args, void* scratch, size_t* bytes);

cudaError_t make_maps(const SimplicialBackwardArgs& args, const Problem& problem, Maps* maps);

#ifdef __CUDACC__
// d (+)= operand·b over kSteps · 16 deep, b's rows the depth, its columns N channels of one or two panels.
template <bool kAccumulate, int N, int kSteps>
__device__ inline void multiply_by_rows(float (&d)[N / 2], const uint32_t (&operand)[kSteps][4], uint64_t b) {
  [&]<int... kStep>(std::integer_sequence<int, kStep...>) {
    (sm90::wgmma_rs<N, sm90::kMajorMN, kStep * 16 * sm90::kPanelRowBytes>(d, operand[kStep], b,
                                                                          kAccumulate || kStep > 0),
     ...);
  }(std::make_integer_sequence<int, kSteps>{});
}
// d = operand·bᵀ over kSteps · 16 channels of b's 64 rows; b's panels are kPanelBytes apart.
template <int kPanelBytes, int kSteps>
__device__ inline void multiply_by_channels(float (&d)[32], const uint32_t (&operand)[kSteps][4], uint64_t b) {
  [&]<int... kStep>(std::integer_sequence<int, kStep...>) {
    (sm90::wgmma_rs<64, sm90::kMajorK, kStep / 4 * kPanelBytes + kStep % 4 * 32>(d, operand[kStep], b, kStep > 0), ...);
  }(std::make_integer_sequence<int, kSteps>{});
}
__device__ inline float2 unpack_bf16(uint32_t pair) {
  return {__uint_as_float(pair << 16), __uint_as_float(pair & 0xffff0000u)};
}
// other∘(pair + bias), rounded once.
template <bool kBiased>
__device__ inline uint32_t multiply(uint32_t other, uint32_t pair, float bias) {
  if (!kBiased) return sm90::multiply_bf16x2(other, pair);
  const float2 x = unpack_bf16(other), y = unpack_bf16(pair);
  return sm90::pack_bf16(x.x * (y.x + bias), x.y * (y.y + bias));
}
#endif

}  // namespace llmeff::cuda::simplicial_backward
