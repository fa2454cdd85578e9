// Attention on the tensor cores for every GPU from sm_80 on: bfloat16 and float16 with heads of up to 256 channels.
#pragma once

#include <algorithm>

#include "cuda/context.h"
#include "cuda/kernels/attention_rows.cuh"
#include "cuda/kernels/simplicial_launch.cuh"

namespace llmeff::cuda {

template <class T>
inline constexpr bool kMmaType = sizeof(T) == 2;

// Tiles of 256 channels take up to 100 KB of shared memory, which the smaller GPUs (8.6, 8.9, 12.0) haven't quite got.
inline bool mma_supports(const Context& cuda, int64_t width, int64_t value_width) {
  const int64_t widest = cuda.facts.shared_bytes_per_block > size_t{100} << 10 ? 256 : 128;
  return cuda.facts.capability >= 80 && std::max(width, value_width) <= widest;
}

template <class T>
void attention_mma(Context& cuda, const AttentionRows<T>& rows, const View& o, const View& lse);
template <class T>
void attention_grad_mma(Context& cuda, const AttentionRows<T>& rows, const View& dq, const View& dk, const View& dv);
template <class T>
void simplicial_mma(Context& cuda, const SimplicialArguments& x, const View& o, const View& lse);
template <class T>
void simplicial_grad_mma(Context& cuda, const SimplicialArguments& x, const View& dout, const float* lse,
                         const float* delta, const View& dq, const View& dk1, const View& dk2, const View& dv1,
                         const View& dv2);

}  // namespace llmeff::cuda
