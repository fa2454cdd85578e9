// Attention on the tensor cores for every GPU from sm_80 on: bfloat16 and float16 with heads of up to 256 channels.
#pragma once

#include <algorithm>

#include "cuda/context.h"
#include "cuda/kernels/attention_rows.cuh"
#include "cuda/kernels/simplicial_launch.cuh"

namespace llmeff::cuda {

template <class T>
inline constexpr bool kMmaType = sizeof(T) == 2;

inline bool mma_supports(const Context& cuda, int64_t width, int64_t value_width) {
  return cuda.facts.capability >= 80 && std::max(width, value_width) <= 256;
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
