// How the rows of one query head become its result: the softmax states of its short rows, or the parts of its gradient,
// are merged tile after tile.
#pragma once

#include "cuda/kernels/attention_plain.cuh"
#include "cuda/kernels/simplicial_rows.cuh"

namespace llmeff::cuda {

// Of the heads of a tile, in shared memory. A tile of several heads is the only one they have; acc is that of the one
// head that has several.
template <class W, int rows, int columns>
struct HeadSums {
  W row_maximum[rows], row_sum[rows];  // weight[n] in the end
  W maximum[rows], sum[rows], shrink[rows];
  W acc[columns];

  // Thread n < heads: merges the softmax of the rows of head n into that of the head, and leaves in row_maximum the
  // weight of each row. Between barriers.
  __device__ __forceinline__ void merge(int heads, int shorts, bool first) {
    const int h = threadIdx.x;
    if (h >= heads) return;
    const W before = first ? -INFINITY : maximum[h];
    W top = before;
    for (int n = h * shorts; n < (h + 1) * shorts; ++n) top = max(top, row_maximum[n]);
    const W shift = top == -INFINITY ? W{0} : top;
    shrink[h] = first ? W{0} : exp2(before - shift);
    W total = first ? W{0} : sum[h] * shrink[h];
    for (int n = h * shorts; n < (h + 1) * shorts; ++n) {
      row_maximum[n] = exp2(row_maximum[n] - shift);
      total += row_maximum[n] * row_sum[n];
    }
    maximum[h] = top, sum[h] = total;
  }
};

}  // namespace llmeff::cuda
