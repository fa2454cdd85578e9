// What both passes of the Hopper attention share: which keys a query sees, and how a fragment reaches memory.
#pragma once

#include "attention_sm90.h"
#include "cuda/sm90.h"

namespace llmeff::cuda {

// Positions and sizes fit in 30 bits, so that 32-bit index arithmetic can't overflow.
constexpr int64_t kMostPositions = int64_t{1} << 29;

// Keys [first(i), last(i)] of the query at position i = q_offset + t; none where last < first.
struct KeyRule {
  int T, S;
  int q_offset, window;  // window 0: none
  bool causal;

  __host__ __device__ int first(int i) const { return window > 0 && i >= window ? i - window + 1 : 0; }
  __host__ __device__ int last(int i) const {
    const int reach = causal ? i : window > 0 ? i + window - 1 : S - 1;
    return reach < S - 1 ? reach : S - 1;
  }
};

inline KeyRule key_rule(const AttentionShape& x) {
  const int64_t window = x.window < kMostPositions ? x.window : kMostPositions;
  return {int(x.T), int(x.S), int(x.q_offset), int(window), x.causal};
}

inline bool attention_shape_supported(const AttentionShape& x) {
  return (x.D == 64 || x.D == 128) && x.B > 0 && x.T > 0 && x.S > 0 && x.H > 0 && x.K > 0 && x.H % x.K == 0 &&
         x.scale > 0 && x.softcap >= 0 && x.window >= 0 && x.T < kMostPositions && x.S < kMostPositions &&
         x.q_offset > -kMostPositions && x.q_offset < kMostPositions && x.B * x.H < kMostPositions;
}

inline sm90::Bf16Array tma_array(const AttentionInput& x, int64_t B, int64_t rows, int64_t heads, int64_t D) {
  return {x.data, B, rows, heads, D, x.batch_stride, x.row_stride, x.head_stride};
}

__device__ inline int floor_divide(int a, int b) {
  return a >= 0 ? a / b : -((b - 1 - a) / b);
}

// tanh to float32 accuracy at large and small arguments alike, relative to 1.
__device__ inline float tanh_exact(float x) {
  return 1.0f - __fdividef(2.0f, 1.0f + sm90::exp2_approx(2.885390082f * x));
}

// Turns rows `low` (lane / 4, at `position`) and `high` (8 below) of an accumulator fragment of 64 columns back by the
// angles of their positions: of the pairs (i, i + 32) a thread has both. cos and sin are [positions, 32].
__device__ inline void turn_back(float (&d)[32], const float* cos, const float* sin, int64_t position, bool low,
                                 bool high) {
#pragma unroll
  for (int part = 0; part < 2; ++part) {
    if (!(part == 0 ? low : high)) continue;
    const int64_t at = (position + 8 * part) * 32 + 2 * (threadIdx.x % 4);
#pragma unroll
    for (int group = 0; group < 4; ++group) {
      const float2 c = *reinterpret_cast<const float2*>(cos + at + 8 * group),
                   s = *reinterpret_cast<const float2*>(sin + at + 8 * group);
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        float &u = d[4 * group + 2 * part + e], &w = d[4 * (group + 4) + 2 * part + e];
        const float cosine = e == 0 ? c.x : c.y, sine = e == 0 ? s.x : s.y, first = u;
        u = first * cosine + w * sine;
        w = w * cosine - first * sine;
      }
    }
  }
}

}  // namespace llmeff::cuda
