// The kernels around attention_mma.cuh and their launches, declared in attention_mma.h.
#pragma once

#include "cuda/kernels/attention_launch.cuh"
#include "cuda/kernels/attention_mma.cuh"
#include "cuda/kernels/attention_mma.h"

namespace llmeff::cuda {

// blockIdx: x a tile of keys of a head, y a chunk of channels, z a part of the tiles of rows.
template <int width, class Rows>
__global__ __launch_bounds__(kMmaThreads) void mma_key_gradient_kernel(Rows rows, PartialSum<typename Rows::T> dk,
                                                                       PartialSum<typename Rows::T> dv) {
  constexpr int kColumns = kMmaGradColumns<width>, kRows = kMmaGradRows<width>;
  extern __shared__ __align__(128) unsigned char bytes[];
  auto& shared = *reinterpret_cast<MmaKeyGradientShared<width>*>(bytes);
  const int heads = rows.batch * rows.kv_heads, head = static_cast<int>(blockIdx.x % heads);
  const int b = head / rows.kv_heads, kv_head = head % rows.kv_heads;
  const int j0 = static_cast<int>(blockIdx.x / heads) * kMmaRows, part = static_cast<int>(blockIdx.z);
  const int2 seeing = rows.template tiles_seeing<kRows>(j0, kMmaRows);
  const int share = (seeing.y - seeing.x + dk.parts - 1) / dk.parts;
  const int begin = min(seeing.y, seeing.x + part * share), end = min(seeing.y, begin + share);
  const int first = static_cast<int>(blockIdx.y) * kColumns / 8;
  float dk_acc[kColumns / 8][4], dv_acc[kColumns / 8][4];
  mma_key_gradient<width, kColumns>(rows, b, kv_head, j0, begin, end, shared, first, dk_acc, dv_acc);

  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int j = j0 + static_cast<int>(threadIdx.x) / 32 * 16 + lane / 4 + 8 * half;
    if (j >= rows.keys) continue;
    const int64_t row = (static_cast<int64_t>(b) * rows.keys + j) * rows.kv_heads + kv_head;
#pragma unroll
    for (int n = 0; n < kColumns / 8; ++n)
#pragma unroll
      for (int e = 0; e < 2; ++e) {
        const int channel = 8 * (first + n) + lane % 4 * 2 + e;
        if (channel < rows.width) dk.put(part, row * rows.width + channel, dk_acc[n][2 * half + e] * rows.scale);
        if (channel < rows.value_width) dv.put(part, row * rows.value_width + channel, dv_acc[n][2 * half + e]);
      }
  }
}

template <int width, class Rows>
void mma_key_gradients_of(Context& cuda, const Rows& rows, const View& dk, const View& dv) {
  using T = typename Rows::T;
  constexpr int kChunks = width / kMmaGradColumns<width>;
  const int64_t tiles = static_cast<int64_t>(rows.batch) * rows.kv_heads * ((rows.keys + kMmaRows - 1) / kMmaRows);
  const int parts = parts_for(cuda, tiles * kChunks, rows.template tiles<kMmaGradRows<width>>(), 16);
  const PartialSum<T> dk_sum = partial_sum<T>(cuda, dk, parts), dv_sum = partial_sum<T>(cuda, dv, parts);
  launch(cuda, "mma_key_gradient_kernel", mma_key_gradient_kernel<width, Rows>,
         dim3(static_cast<unsigned>(tiles), kChunks, static_cast<unsigned>(parts)), kMmaThreads,
         sizeof(MmaKeyGradientShared<width>), rows, dk_sum, dv_sum);
  add_parts(cuda, dk_sum);
  add_parts(cuda, dv_sum);
}

// body(std::integral_constant<int, width>) for the narrowest tile that has the channels.
template <class F>
void with_mma_width(int channels, F&& body) {
  if (channels <= 64)
    body(std::integral_constant<int, 64>{});
  else if (channels <= 128)
    body(std::integral_constant<int, 128>{});
  else
    body(std::integral_constant<int, 256>{});
}

}  // namespace llmeff::cuda
