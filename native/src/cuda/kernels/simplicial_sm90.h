// 2-simplicial (trilinear) attention, forward, on Hopper's tensor cores: what the kernel needs to know.
//
//   logit[t, j, k] = scale · Σ_d q[t, d] · k1[j, d] · (k2[k, d] + k2_bias)       i = q_offset + t
//   o[t] = Σ_jk softmax(logit)[j, k] · v1[j] ∘ (v2[k] + v2_bias),    lse[t] = ln Σ_jk exp logit[t, j, k]
//   causal: i - w1 < j ≤ i, i - w2 < k ≤ i; otherwise all pairs
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

namespace llmeff::cuda {

// In elements; channels are contiguous.
struct RowStrides {
  int64_t batch, row, head;
};

struct SimplicialForwardArgs {
  const __nv_bfloat16* q;   // [B, Nq, Hq, D]
  const __nv_bfloat16* k1;  // [B, N1, Hkv, D]
  const __nv_bfloat16* v1;
  const __nv_bfloat16* k2;  // [B, N2, Hkv, D]
  const __nv_bfloat16* v2;
  __nv_bfloat16* o;  // [B, Nq, Hq, D]
  float* lse;        // [B, Hq, Nq], contiguous, natural logarithm
  RowStrides q_strides, k1_strides, v1_strides, k2_strides, v2_strides, o_strides;
  int64_t B, Nq, N1, N2, Hq, Hkv, D;
  bool causal = true;
  int64_t w1 = 0, w2 = 0;  // 0 = unlimited
  // Absolute positions of row 0 of q, of (k1, v1) and of (k2, v2). Every window lies inside the rows given.
  int64_t q_offset = 0, k1_offset = 0, k2_offset = 0;
  float scale = 1;
  float k2_bias = 0, v2_bias = 0;
  // simplicial_forward_sm90_workspace(args) bytes, 16-byte aligned; may be null when that is 0.
  void* workspace = nullptr;
};

// D is 64 or 128, and bases and strides are multiples of 16 bytes.
bool simplicial_forward_sm90_supports(const SimplicialForwardArgs& args);

// Few query rows (decode) are split over the whole device and merged by lse: the parts live here.
size_t simplicial_forward_sm90_workspace(const SimplicialForwardArgs& args);

cudaError_t simplicial_forward_sm90(const SimplicialForwardArgs& args, cudaStream_t stream);

}  // namespace llmeff::cuda
