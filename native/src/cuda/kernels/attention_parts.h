// What stands before and after the kernels of attention: δ of the gradient, the sums of partial results (in their
// order, so that results don't depend on how the GPU schedules blocks), and the keys of documents.
#pragma once

#include "cuda/context.h"
#include "cuda/kernels/attention_rows.cuh"

namespace llmeff::cuda {

// Where a forward kernel writes: o and lse, or, when the keys are split, partial ones [parts, B, T, H, Dv] and
// [parts, B, H, T].
template <class T>
struct AttentionOutput {
  using W = wide_t<T>;
  Heads<T> o;
  W* lse;
  int parts;
  W *part_o, *part_lse;
  int batch, queries, heads, value_width;

  __device__ __forceinline__ void put(int part, int b, int t, int h, int e, W value) const {
    if (parts == 1)
      o.at(b, t, h)[e] = narrow<T>(value);
    else
      part_o[(((static_cast<int64_t>(part) * batch + b) * queries + t) * heads + h) * value_width + e] = value;
  }
  // Two neighbours, e even.
  __device__ __forceinline__ void put_two(int part, int b, int t, int h, int e, W first, W second) const {
    put(part, b, t, h, e, first);
    if (e + 1 < value_width) put(part, b, t, h, e + 1, second);
  }
  __device__ __forceinline__ void put_lse(int part, int b, int t, int h, W value) const {
    W* const to = parts == 1 ? lse : part_lse + static_cast<int64_t>(part) * batch * heads * queries;
    to[(static_cast<int64_t>(b) * heads + h) * queries + t] = value;
  }
};

template <class T>
AttentionOutput<T> attention_output(Context& cuda, const View& o, const View& lse, int parts);
// Merges the parts by their lse; nothing to do for one.
template <class T>
void merge_parts(Context& cuda, const AttentionOutput<T>& out);

// Where a gradient of keys goes: a contiguous array [B, S, K, width], or partial sums of it.
template <class T>
struct PartialSum {
  using W = wide_t<T>;
  T* out;
  int parts;
  W* partial;
  int64_t size;

  __device__ __forceinline__ void put(int part, int64_t at, W value) const {
    if (parts == 1)
      out[at] = narrow<T>(value);
    else
      partial[part * size + at] = value;
  }
};

template <class T>
PartialSum<T> partial_sum(Context& cuda, const View& out, int parts);
template <class T>
void add_parts(Context& cuda, const PartialSum<T>& sum);

// delta[B, H, T] = Σ dout∘o − dlse; dlse [B, H, T] or null.
template <class T>
void attention_delta(Context& cuda, const View& dout, const View& o, const View& dlse, wide_t<T>* delta);

// rows.ranges from its masks, where q_doc and k_doc are given.
template <class T>
void fill_document_ranges(Context& cuda, const View& q_doc, AttentionRows<T>& rows);

}  // namespace llmeff::cuda
