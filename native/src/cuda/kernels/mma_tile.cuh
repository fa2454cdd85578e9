// Tiles of 16-bit numbers in shared memory and products of them on the tensor cores (mma.sync m16n8k16: sm_80 and
// later).
//
// A tile is rows × width; its rows are divided into pieces of 16 bytes, and piece c of row r lies at place c ^ (r mod
// 8): eight consecutive rows of one column of pieces, what ldmatrix reads at once, then fall into eight different
// groups of banks. A fragment of an accumulator, float c[4], is of 16 rows and 8 columns: with g = lane / 4 and t =
// lane % 4, c[0] and c[1] are row g, columns 2t and 2t + 1, and c[2] and c[3] the same of row g + 8.
#pragma once

#include "cuda/kernels/dtypes.cuh"

namespace llmeff::cuda {

__device__ __forceinline__ uint32_t shared_address(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

template <int width>
struct MmaTile {
  static constexpr int kRowBytes = width * 2, kPieces = width / 8;

  // Of piece `c` of row `r`, from the tile's begin.
  static __device__ __forceinline__ uint32_t place(int r, int c) {
    return static_cast<uint32_t>(r * kRowBytes + ((c ^ (r & 7)) << 4));
  }
  // Of one number.
  static __device__ __forceinline__ uint32_t place_of(int r, int channel) {
    return place(r, channel / 8) + static_cast<uint32_t>(channel % 8 * 2);
  }
};

__device__ __forceinline__ void load_matrices(uint32_t (&r)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}
__device__ __forceinline__ void load_matrices_transposed(uint32_t (&r)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}

template <class T>
__device__ __forceinline__ void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  if constexpr (__is_same(T, bf16))
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, "
        "%2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  else
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, "
        "%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// 16 bytes, or zeros where `present` is false; they have arrived after copies_done() and a barrier.
__device__ __forceinline__ void copy_piece(uint32_t to, const void* from, bool present) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(present ? 16 : 0) : "memory");
}
__device__ __forceinline__ void copies_done() {
  asm volatile("cp.async.wait_all;" ::: "memory");
}

__device__ __forceinline__ float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// Two numbers of T in a register, the first in the low half.
template <class T>
__device__ __forceinline__ uint32_t pack(float low, float high) {
  if constexpr (__is_same(T, bf16)) {
    const __nv_bfloat162 two = __floats2bfloat162_rn(low, high);
    return reinterpret_cast<const uint32_t&>(two);
  } else {
    const __half2 two = __floats2half2_rn(low, high);
    return reinterpret_cast<const uint32_t&>(two);
  }
}
template <class T>
__device__ __forceinline__ float2 unpack(uint32_t two) {
  if constexpr (__is_same(T, bf16))
    return __bfloat1622float2(reinterpret_cast<const __nv_bfloat162&>(two));
  else
    return __half22float2(reinterpret_cast<const __half2&>(two));
}
// Whether one of the two is infinite or NaN.
template <class T>
__device__ __forceinline__ bool not_finite(uint32_t two) {
  constexpr uint32_t kExponent = __is_same(T, bf16) ? 0x7F80u : 0x7C00u;
  return (two & kExponent) == kExponent || (two >> 16 & kExponent) == kExponent;
}

// c[m][16, 8·tiles] += rows [row + 16·m, row + 16·m + 16) of a times the rows of b, over their channels: a·bᵀ.
template <class T, int width, int tiles, int fragments>
__device__ __forceinline__ void add_scores(float (&c)[fragments][tiles][4], uint32_t a, int row, uint32_t b) {
  using Tile = MmaTile<width>;
  const int lane = threadIdx.x % 32;
  const int a_row = row + lane % 16, b_row = lane % 8 + lane / 16 * 8;
#pragma unroll
  for (int k = 0; k < width / 16; ++k) {
    uint32_t left[fragments][4];
    const uint32_t left_from = a + Tile::place(a_row, 2 * k + lane / 16);
#pragma unroll
    for (int m = 0; m < fragments; ++m) load_matrices(left[m], left_from + m * 16 * Tile::kRowBytes);
    const uint32_t from = b + Tile::place(b_row, 2 * k + lane / 8 % 2);
#pragma unroll
    for (int n = 0; n < tiles / 2; ++n) {
      uint32_t right[4];
      load_matrices(right, from + n * 16 * Tile::kRowBytes);
#pragma unroll
      for (int m = 0; m < fragments; ++m) {
        mma<T>(c[m][2 * n], left[m], right[0], right[1]);
        mma<T>(c[m][2 * n + 1], left[m], right[2], right[3]);
      }
    }
  }
}
template <class T, int width, int tiles>
__device__ __forceinline__ void add_scores(float (&c)[tiles][4], uint32_t a, int row, uint32_t b) {
  add_scores<T, width, tiles, 1>(reinterpret_cast<float (&)[1][tiles][4]>(c), a, row, b);
}

// c[m][16, 8·columns] += p[m][16, 8·tiles] times the channels of b's rows; `first`: of b's pieces.
template <class T, int width, int tiles, int columns, int fragments>
__device__ __forceinline__ void add_weighted(float (&c)[fragments][columns][4], const float (&p)[fragments][tiles][4],
                                             uint32_t b, int first = 0) {
  using Tile = MmaTile<width>;
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int k = 0; k < tiles / 2; ++k) {
    uint32_t left[fragments][4];
#pragma unroll
    for (int m = 0; m < fragments; ++m) {
      const float (&low)[4] = p[m][2 * k], (&high)[4] = p[m][2 * k + 1];
      left[m][0] = pack<T>(low[0], low[1]), left[m][1] = pack<T>(low[2], low[3]);
      left[m][2] = pack<T>(high[0], high[1]), left[m][3] = pack<T>(high[2], high[3]);
    }
#pragma unroll
    for (int n = 0; n < columns / 2; ++n) {
      uint32_t right[4];
      load_matrices_transposed(right, b + Tile::place(16 * k + lane % 16, first + 2 * n + lane / 16));
#pragma unroll
      for (int m = 0; m < fragments; ++m) {
        mma<T>(c[m][2 * n], left[m], right[0], right[1]);
        mma<T>(c[m][2 * n + 1], left[m], right[2], right[3]);
      }
    }
  }
}
template <class T, int width, int tiles, int columns>
__device__ __forceinline__ void add_weighted(float (&c)[columns][4], const float (&p)[tiles][4], uint32_t b,
                                             int first = 0) {
  add_weighted<T, width, tiles, columns, 1>(reinterpret_cast<float (&)[1][columns][4]>(c),
                                            reinterpret_cast<const float (&)[1][tiles][4]>(p), b, first);
}

// The same where b has numbers that are not finite, which a weight of 0 would not hide: bit 4·n + e of `seen` says
// whether p[n][e] counts.
template <class T, int width, int tiles, int columns>
__device__ __forceinline__ void add_weighted_seen(float (&c)[columns][4], const float (&p)[tiles][4], uint32_t seen,
                                                  const unsigned char* b, int first = 0) {
  static_assert(tiles <= 8);
  const int lane = threadIdx.x % 32;
  float weights[tiles][4];  // indexed by run-time numbers, so in local memory
#pragma unroll
  for (int n = 0; n < tiles; ++n)
#pragma unroll
    for (int e = 0; e < 4; ++e) weights[n][e] = p[n][e];
#pragma unroll 1
  for (int row = 0; row < 8 * tiles; ++row) {
    const int n = row / 8, e = row % 2, owner = (lane & ~3) | (row % 8 / 2);
    const uint32_t bits = __shfl_sync(~0u, seen, owner) >> (4 * n + e);
    const float upper = __shfl_sync(~0u, weights[n][e], owner), lower = __shfl_sync(~0u, weights[n][e + 2], owner);
#pragma unroll
    for (int column = 0; column < columns; ++column) {
      const float2 value =
          unpack<T>(*reinterpret_cast<const uint32_t*>(b + MmaTile<width>::place(row, first + column) + lane % 4 * 4));
      if (bits & 1)
        c[column][0] = fmaf(upper, value.x, c[column][0]), c[column][1] = fmaf(upper, value.y, c[column][1]);
      if (bits & 4)
        c[column][2] = fmaf(lower, value.x, c[column][2]), c[column][3] = fmaf(lower, value.y, c[column][3]);
    }
  }
}

// Whether something in `bytes` of shared memory is not finite, the same answer for all threads of the block: a barrier.
template <class T, int threads>
__device__ __forceinline__ bool any_not_finite(const unsigned char* tile, int bytes) {
  bool found = false;
  for (int i = static_cast<int>(threadIdx.x) * 16; i < bytes; i += threads * 16) {
    const uint4 piece = *reinterpret_cast<const uint4*>(tile + i);
    found |= not_finite<T>(piece.x) || not_finite<T>(piece.y) || not_finite<T>(piece.z) || not_finite<T>(piece.w);
  }
  return __syncthreads_or(found) != 0;
}

// Copies `rows` rows into a tile, zeros where from(row) is null and past `channels`. `any` may be read, and isn't.
template <class T, int width, int rows, int threads, class From>
__device__ __forceinline__ void copy_rows(unsigned char* tile, bool aligned, int channels, const T* any, From&& from) {
  using Tile = MmaTile<width>;
  if (aligned) {
    const uint32_t to = shared_address(tile);
#pragma unroll 4
    for (int i = threadIdx.x; i < rows * Tile::kPieces; i += threads) {
      const int row = i / Tile::kPieces, piece = i % Tile::kPieces;
      const T* const source = from(row);
      const bool present = source != nullptr && piece * 8 < channels;
      copy_piece(to + Tile::place(row, piece), present ? source + piece * 8 : any, present);
    }
    return;
  }
  for (int i = threadIdx.x; i < rows * width; i += threads) {
    const int row = i / width, channel = i % width;
    const T* const source = from(row);
    *reinterpret_cast<T*>(tile + Tile::place_of(row, channel)) =
        source != nullptr && channel < channels ? source[channel] : narrow<T>(0.0f);
  }
}

}  // namespace llmeff::cuda
