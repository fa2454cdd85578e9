// 2-simplicial (trilinear) attention, backward, on Hopper's tensor cores: what the kernels need to know.
//
// With i = q_offset + t, the pairs (j, k) of i as in the forward pass (causal: i - w1 < j ≤ i, i - w2 < k ≤ i), and
// D_i = Σ_d dout_id o_id:
//   P_jk  = exp(scale · Σ_d q_id k1_jd (k2_kd + k2_bias) - lse_i)
//   dS_jk = scale · P_jk · (Σ_d dout_id v1_jd (v2_kd + v2_bias) - D_i)
//   dq_i  = Σ_jk dS_jk k1_j∘(k2_k + k2_bias)
//   dk1_j = Σ_ik dS_ijk q_i∘(k2_k + k2_bias)      dk2_k = Σ_ij dS_ijk q_i∘k1_j
//   dv1_j = Σ_ik P_ijk dout_i∘(v2_k + v2_bias)    dv2_k = Σ_ij P_ijk dout_i∘v1_j       (sums over the group's heads
//   too)
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

namespace llmeff::cuda {

struct SimplicialBackwardArgs {
  // In elements; channels are contiguous.
  struct Strides {
    int64_t batch, row, head;
  };
  const __nv_bfloat16* q;   // [B, Nq, Hq, D]
  const __nv_bfloat16* k1;  // [B, N1, Hkv, D]
  const __nv_bfloat16* v1;
  const __nv_bfloat16* k2;  // [B, N2, Hkv, D]
  const __nv_bfloat16* v2;
  const __nv_bfloat16* o;     // [B, Nq, Hq, D], as the forward pass left it
  const __nv_bfloat16* dout;  // [B, Nq, Hq, D]
  const float* lse;           // [B, Hq, Nq], contiguous, natural logarithm
  Strides q_strides, k1_strides, v1_strides, k2_strides, v2_strides, o_strides, dout_strides;
  // Contiguous, shaped as q, k1, v1, k2, v2. Every element is written.
  __nv_bfloat16* dq;
  __nv_bfloat16* dk1;
  __nv_bfloat16* dv1;
  __nv_bfloat16* dk2;
  __nv_bfloat16* dv2;
  int64_t B, Nq, N1, N2, Hq, Hkv, D;
  bool causal = true;
  int64_t w1 = 0, w2 = 0;  // 0 = unlimited
  // Absolute positions of row 0 of q, of (k1, v1) and of (k2, v2). Every window lies inside the rows given.
  int64_t q_offset = 0, k1_offset = 0, k2_offset = 0;
  float scale = 1;
  float k2_bias = 0, v2_bias = 0;
};

// D is 64 or 128; bases and strides of q, k1, v1, k2, v2, dout and o are multiples of 16 bytes; there is work to do.
bool simplicial_backward_sm90_supports(const SimplicialBackwardArgs& args);

// Bytes of scratch for a call, which aligns them to 256 bytes itself; only sizes, windows and offsets count.
size_t simplicial_backward_sm90_scratch_bytes(const SimplicialBackwardArgs& args);

// Five kinds of kernels in stream order. The same inputs give the same bits.
cudaError_t simplicial_backward_sm90(const SimplicialBackwardArgs& args, void* scratch, cudaStream_t stream);

}  // namespace llmeff::cuda
