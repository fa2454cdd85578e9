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

// Rows `low` (lane / 4) and `high` (8 below) of an accumulator fragment go to memory as bf16, times their factors; a
// null row is skipped. Four threads hold two columns each of an 8-column group; they exchange among four groups, so
// that each stores 16 bytes.
template <int N>
__device__ inline void store_rows(const float (&d)[N / 2], float low_factor, float high_factor, __nv_bfloat16* low,
                                  __nv_bfloat16* high) {
  const int quad = threadIdx.x % 4;
#pragma unroll
  for (int part = 0; part < 2; ++part) {
    __nv_bfloat16* const row = part == 0 ? low : high;
    const float factor = part == 0 ? low_factor : high_factor;
#pragma unroll
    for (int group = 0; group < N / 32; ++group) {
      uint32_t x[4];
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int at = 4 * (4 * group + j) + 2 * part;
        x[j] = sm90::pack_bf16(d[at] * factor, d[at + 1] * factor);
      }
      const auto exchange = [&](uint32_t& a, uint32_t& b, int distance) {
        const bool upper = (quad & distance) != 0;
        const uint32_t received = __shfl_xor_sync(0xffffffffu, upper ? a : b, distance);
        a = upper ? received : a;
        b = upper ? b : received;
      };
      exchange(x[0], x[1], 1);
      exchange(x[2], x[3], 1);
      exchange(x[0], x[2], 2);
      exchange(x[1], x[3], 2);
      if (row != nullptr) *reinterpret_cast<uint4*>(row + 32 * group + 8 * quad) = make_uint4(x[0], x[1], x[2], x[3]);
    }
  }
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
