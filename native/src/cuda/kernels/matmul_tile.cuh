// The plain product of a tile: 64×64 results a block, summed up over shared memory by CUDA cores.
#pragma once

#include "cuda/kernels/dtypes.cuh"

namespace llmeff::cuda {

// Numbers of a dtype that is known at run time, or at compile time.
template <class W>
struct AnyMatrix {
  const void* data;
  DType dtype;
  int64_t row_stride, column_stride, batch_stride;

  __device__ W load(int64_t i) const {
    switch (dtype) {
      case DType::kF64:
        return static_cast<W>(static_cast<const double*>(data)[i]);
      case DType::kBF16:
        return static_cast<W>(__bfloat162float(static_cast<const bf16*>(data)[i]));
      case DType::kF16:
        return static_cast<W>(__half2float(static_cast<const f16*>(data)[i]));
      default:
        return static_cast<W>(static_cast<const float*>(data)[i]);
    }
  }
};
template <class W>
struct KnownMatrix {
  const void* data;
  DType dtype;
  int64_t row_stride, column_stride, batch_stride;

  __device__ W load(int64_t i) const { return static_cast<const W*>(data)[i]; }
};

template <class W>
__device__ void store_as(void* data, DType dtype, int64_t i, W x) {
  switch (dtype) {
    case DType::kF64:
      static_cast<double*>(data)[i] = static_cast<double>(x);
      return;
    case DType::kBF16:
      static_cast<bf16*>(data)[i] = narrow<bf16>(x);
      return;
    case DType::kF16:
      static_cast<f16*>(data)[i] = narrow<f16>(x);
      return;
    default:
      static_cast<float*>(data)[i] = static_cast<float>(x);
  }
}

constexpr int kTile = 64, kTileDepth = 16, kTileThreads = 256;

// sum += a[m, k] · b[k, n], whose first elements lie at a_at and b_at, for the tile of a block that begins at (i0, j0).
// A thread makes 4×4 of the results, 16 rows and columns apart so that neighbours read neighbouring numbers. All
// threads of the block call it; k may be 0.
template <class W, class Matrix>
__device__ __forceinline__ void add_product(int64_t m, int64_t n, int64_t k, const Matrix& a, int64_t a_at,
                                            const Matrix& b, int64_t b_at, int64_t i0, int64_t j0, W (&sum)[4][4]) {
  __shared__ W tile_a[kTileDepth][kTile + 1], tile_b[kTileDepth][kTile + 1];
  const int ty = static_cast<int>(threadIdx.x) / 16, tx = static_cast<int>(threadIdx.x) % 16;
  // Neighbouring threads load neighbouring numbers, whichever axis they lie on.
  const bool a_by_rows = a.column_stride == 1, b_by_rows = b.column_stride == 1;
  for (int64_t k0 = 0; k0 < k; k0 += kTileDepth) {
    for (int e = static_cast<int>(threadIdx.x); e < kTile * kTileDepth; e += kTileThreads) {
      const int i = a_by_rows ? e / kTileDepth : e % kTile, p = a_by_rows ? e % kTileDepth : e / kTile;
      tile_a[p][i] =
          i0 + i < m && k0 + p < k ? a.load(a_at + (i0 + i) * a.row_stride + (k0 + p) * a.column_stride) : W(0);
      const int j = b_by_rows ? e % kTile : e / kTileDepth, q = b_by_rows ? e / kTile : e % kTileDepth;
      tile_b[q][j] =
          j0 + j < n && k0 + q < k ? b.load(b_at + (k0 + q) * b.row_stride + (j0 + j) * b.column_stride) : W(0);
    }
    __syncthreads();
#pragma unroll
    for (int p = 0; p < kTileDepth; ++p) {
      W x[4], y[4];
#pragma unroll
      for (int r = 0; r < 4; ++r) x[r] = tile_a[p][ty + 16 * r], y[r] = tile_b[p][tx + 16 * r];
#pragma unroll
      for (int r = 0; r < 4; ++r)
#pragma unroll
        for (int c = 0; c < 4; ++c) sum[r][c] += x[r] * y[c];
    }
    __syncthreads();
  }
}

// body(i, j, r, c) for the results sum[r][c] of this thread that lie in the product.
template <class F>
__device__ __forceinline__ void for_tile(int64_t m, int64_t n, int64_t i0, int64_t j0, const F& body) {
  const int ty = static_cast<int>(threadIdx.x) / 16, tx = static_cast<int>(threadIdx.x) % 16;
  for (int r = 0; r < 4; ++r) {
    const int64_t i = i0 + ty + 16 * r;
    if (i >= m) continue;
    for (int c = 0; c < 4; ++c)
      if (const int64_t j = j0 + tx + 16 * c; j < n) body(i, j, r, c);
  }
}

// call(Matrix, W) with the types of the plain kernels for these formats.
template <class F>
void with_matrices(DType a, DType b, DType out, const F& call) {
  if (out == DType::kF64) return call.template operator()<double, KnownMatrix<double>>();
  if (a == DType::kF32 && b == DType::kF32) return call.template operator()<float, KnownMatrix<float>>();
  call.template operator()<float, AnyMatrix<float>>();
}

}  // namespace llmeff::cuda
