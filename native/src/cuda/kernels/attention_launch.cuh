// From the arguments of attention and attention_grad to the rows their kernels work on.
#pragma once

#include "cuda/check.h"
#include "cuda/kernels/attention_parts.h"
#include "cuda/kernels/attention_rows.cuh"

namespace llmeff::cuda {

template <class T>
AttentionRows<T> attention_rows(Context& cuda, const View& q, const View& k, const View& v, const View& q_doc,
                                const View& k_doc, const View& prefix, double scale, bool causal, int64_t window,
                                int64_t q_offset, double softcap) {
  using W = wide_t<T>;
  AttentionRows<T> rows = {};
  rows.q = heads_of<const T>(q), rows.k = heads_of<const T>(k), rows.v = heads_of<const T>(v);
  rows.batch = static_cast<int>(q.shape[0]), rows.queries = static_cast<int>(q.shape[1]);
  rows.keys = static_cast<int>(k.shape[1]);
  rows.heads = static_cast<int>(q.shape[2]), rows.kv_heads = static_cast<int>(k.shape[2]);
  rows.group = rows.heads / rows.kv_heads;
  rows.width = static_cast<int>(q.shape[3]), rows.value_width = static_cast<int>(v.shape[3]);
  rows.scale = static_cast<W>(scale), rows.softcap = static_cast<W>(softcap);
  rows.causal = causal, rows.window = window, rows.q_offset = q_offset;
  if (k_doc.present())
    rows.k_doc = k_doc.as<const int32_t>(), rows.k_doc_batch = k_doc.strides[0], rows.k_doc_row = k_doc.strides[1];
  if (prefix.present())
    rows.prefix = prefix.as<const int32_t>(), rows.prefix_batch = prefix.strides[0],
    rows.prefix_row = prefix.strides[1];
  rows.aligned = rows.q.aligned(rows.width) && rows.k.aligned(rows.width) && rows.v.aligned(rows.value_width);
  fill_document_ranges(cuda, q_doc, rows);
  return rows;
}

// A kernel with more than 48 KB of shared memory; the limit is raised once for each GPU, at no cost worth remembering.
template <class Kernel, class... Args>
void launch(Context& cuda, const char* name, Kernel kernel, dim3 grid, int threads, size_t shared, Args... args) {
  LLMEFF_CUDA(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared)));
  kernel<<<grid, static_cast<unsigned>(threads), shared, cuda.stream>>>(args...);
  check(cudaGetLastError(), name, __FILE__, __LINE__);
}

// How many parts fill the GPU when `blocks` blocks of work of `tiles` tiles each can be cut: two blocks for each
// multiprocessor, and some tiles for each part.
inline int parts_for(const Context& cuda, int64_t blocks, int64_t tiles, int64_t least_tiles) {
  const int64_t wanted = (2 * cuda.facts.multiprocessors + blocks - 1) / blocks;
  return static_cast<int>(std::max<int64_t>(1, std::min(wanted, tiles / least_tiles)));
}

}  // namespace llmeff::cuda
