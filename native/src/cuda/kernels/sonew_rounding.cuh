// How bfloat16 state of SONew is rounded, stochastically: the magnitude's lower 16 bits are added to 16 random ones,
// and the carry is what rounds up. The random bits of element j are the upper half of word j of the Philox stream
// (id·16 + array)·2³² + step with the step's seed; array 0 is m, 1 + k diagonal k, 12 rms. What follows in a step
// computes with the rounded numbers.
#pragma once

#include <type_traits>

#include "cuda/kernels/philox.cuh"
#include "cuda/kernels/sonew.cuh"

namespace llmeff::cuda::sonew {

constexpr int kArrayOfRms = 12;

// The random words of elements [j, j + 4), j a multiple of 4.
template <class W>
__device__ __forceinline__ uint4 rounding_words(const Factors<W>& f, int64_t id, int array, int64_t j) {
  const uint64_t stream = (static_cast<uint64_t>(id) * 16 + static_cast<uint64_t>(array)) << 32 | f.now.step;
  return philox(f.seed, stream, static_cast<uint64_t>(j) / 4);
}
__device__ __forceinline__ float round_stochastically(float x, uint32_t word) {
  const uint32_t bits = __float_as_uint(x);
  const uint32_t rounded = isnan(x) ? bits | 0x00400000u : bits + (word >> 16);
  return __uint_as_float(rounded & 0xFFFF0000u);
}

// Rounds the new numbers of elements [j, j + 4) of an array of state, j a multiple of 4, to what S holds.
template <class S, class W>
__device__ __forceinline__ void round_four(const Factors<W>& f, int64_t id, int array, int64_t j, W (&x)[4]) {
  if constexpr (std::is_same_v<S, bf16>) {
    const uint4 words = rounding_words(f, id, array, j);
    x[0] = round_stochastically(x[0], words.x);
    x[1] = round_stochastically(x[1], words.y);
    x[2] = round_stochastically(x[2], words.z);
    x[3] = round_stochastically(x[3], words.w);
  }
}
// The new number of element j, rounded likewise.
template <class S, class W>
__device__ __forceinline__ W rounded(const Factors<W>& f, int64_t id, int array, int64_t j, W x) {
  if constexpr (std::is_same_v<S, bf16>) {
    const uint4 words = rounding_words(f, id, array, j);
    const uint32_t word = j % 4 == 0 ? words.x : j % 4 == 1 ? words.y : j % 4 == 2 ? words.z : words.w;
    return round_stochastically(x, word);
  }
  return x;
}

}  // namespace llmeff::cuda::sonew
