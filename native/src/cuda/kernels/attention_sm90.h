// Dot-product attention on Hopper's tensor cores, bf16, D = 64 or 128: forward and backward, with causality, a window,
// a query offset, grouped queries and a soft cap, as kernels.h says (no documents, no prefix). Both are deterministic.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

namespace llmeff::cuda {

// [batch, row, head, channel], channels contiguous; strides in elements, multiples of 8; 16-byte base.
struct AttentionInput {
  const __nv_bfloat16* data;
  int64_t batch_stride, row_stride, head_stride;
};

// [batch, row, head, channel], heads and channels contiguous; strides in elements, multiples of 8; 16-byte base.
struct AttentionGradient {
  __nv_bfloat16* data;
  int64_t batch_stride, row_stride;
};

struct AttentionShape {
  int64_t B, T, S, H, K, D;
  double scale;
  bool causal;
  int64_t window;  // 0: none
  int64_t q_offset;
  double softcap;  // 0: none
};

struct AttentionForwardArgs {
  AttentionShape shape;
  AttentionInput q, k, v;  // [B, T, H, D], [B, S, K, D], [B, S, K, D]
  __nv_bfloat16* o;        // [B, T, H, D] contiguous
  float* lse;              // [B, H, T]
  int* counter;            // 0, as it is again behind the kernel
};

struct AttentionBackwardArgs {
  AttentionShape shape;
  AttentionInput dout, q, k, v, o;
  const float* lse;        // [B, H, T], of the forward pass
  const float* dlse;       // [B, H, T] or null
  const float *cos, *sin;  // [T, 32] of positions that dq and dk are turned back by, with D = 64 and S = T; or null
  AttentionGradient dq, dk, dv;
  void* scratch;  // attention_backward_sm90_scratch_bytes, 16-byte aligned
};

bool attention_forward_sm90_supports(const AttentionForwardArgs& args);
cudaError_t attention_forward_sm90(const AttentionForwardArgs& args, cudaStream_t stream);

bool attention_backward_sm90_supports(const AttentionBackwardArgs& args);
size_t attention_backward_sm90_scratch_bytes(const AttentionBackwardArgs& args);
cudaError_t attention_backward_sm90(const AttentionBackwardArgs& args, cudaStream_t stream);

}  // namespace llmeff::cuda
