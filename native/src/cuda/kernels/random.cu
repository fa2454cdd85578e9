// random and dropout: numbers by position, as philox.cuh makes them. A thread makes the elements of one block of words;
// dropout's mask is never stored, and the gradient makes it again.
#include "cuda/kernels/cuda_kernels.h"
#include "cuda/kernels/elements.cuh"
#include "cuda/kernels/philox.cuh"

namespace llmeff::cuda {
namespace {

// Where a call's pieces begin in the stream: positions are row-major over the whole array.
struct Stream {
  uint64_t seed, stream;
  int64_t first;
};

// The block of words of a thread, whose element j is the piece's element start + j.
struct Position {
  uint64_t block;
  int64_t start;
  int begin, end;  // of j, cut at the ends of the piece
};
__device__ __forceinline__ Position position_of(const Stream& source, int per_block, uint32_t count) {
  const uint32_t thread = blockIdx.x * static_cast<uint32_t>(kThreads) + threadIdx.x;
  Position at;
  at.block = static_cast<uint64_t>(source.first / per_block) + thread;
  at.start = int64_t{thread} * per_block - source.first % per_block;
  at.begin = at.start < 0 ? static_cast<int>(-at.start) : 0;
  at.end = static_cast<int>(min(int64_t{per_block}, int64_t{count} - at.start));
  return at;
}

template <class W>
__global__ void __launch_bounds__(kThreads)
    random_kernel(const __grid_constant__ Walk<1> walk, DType dtype, Stream source, bool normal, bool fours) {
  const int per_block = __is_same(W, double) && !normal ? 2 : 4;
  const Position at = position_of(source, per_block, walk.count);
  if (at.end <= at.begin) return;
  const uint4 words = philox(source.seed, source.stream, at.block);
  W made[4];
  if (normal) {
    const double2 low = normal_of(words.x, words.y), high = normal_of(words.z, words.w);
    made[0] = static_cast<W>(low.x), made[1] = static_cast<W>(low.y);
    made[2] = static_cast<W>(high.x), made[3] = static_cast<W>(high.y);
  } else if constexpr (__is_same(W, double)) {
    made[0] = uniform_of(words.x, words.y), made[1] = uniform_of(words.z, words.w);
    made[2] = made[3] = 0;
  } else {
    made[0] = uniform_of(words.x), made[1] = uniform_of(words.y);
    made[2] = uniform_of(words.z), made[3] = uniform_of(words.w);
  }
  if (fours && at.begin == 0 && at.end == 4) return store_four(dtype, walk.data[0], at.start, made);
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    if (j < at.begin || j >= at.end) continue;
    int32_t to[1];
    walk.locate(static_cast<uint32_t>(at.start + j), to);
    store_as<W>(dtype, walk.data[0], to[0], made[j]);
  }
}

// Uniform numbers in 32 bits whatever the dtype; `kept` divides what stays.
template <class W>
__global__ void __launch_bounds__(kThreads) dropout_kernel(const __grid_constant__ Walk<2> walk, DType dtype,
                                                           Stream source, float threshold, W kept, bool fours) {
  const Position at = position_of(source, 4, walk.count);
  if (at.end <= at.begin) return;
  int32_t to[4];
  W x[4];
  const bool whole = fours && at.begin == 0 && at.end == 4;
  if (whole) load_four(dtype, walk.data[1], at.start, x);
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    if (whole || j < at.begin || j >= at.end) continue;
    int32_t places[2];
    walk.locate(static_cast<uint32_t>(at.start + j), places);
    x[j] = load_as<W>(dtype, walk.data[1], places[1]);
    to[j] = places[0];
  }
  const uint4 block = philox(source.seed, source.stream, at.block);
  const uint32_t words[4] = {block.x, block.y, block.z, block.w};
#pragma unroll
  for (int j = 0; j < 4; ++j) x[j] = uniform_of(words[j]) >= threshold ? x[j] / kept : W(0);
  if (whole) return store_four(dtype, walk.data[0], at.start, x);
#pragma unroll
  for (int j = 0; j < 4; ++j)
    if (j >= at.begin && j < at.end) store_as<W>(dtype, walk.data[0], to[j], x[j]);
}

// launch(walk, first, fours): pieces in row-major order; fours: elements lie in aligned groups of four.
template <int N, class F>
void for_each_stretch(const View* const (&views)[N], const F& launch) {
  const Loop<N> loop = make_loop<N>(views, ~0u, Order::kRowMajor);
  bool fours = loop.rank == 1;
  for (int k = 0; k < N; ++k)
    fours &= loop.inner_stride(k) == 1 && reinterpret_cast<uintptr_t>(views[k]->data) % 32 == 0;
  int64_t first = 0;
  for_each_walk<N>(
      views, loop, 1,
      [&](const Walk<N>& walk) {
        launch(walk, first, fours && first % 4 == 0);
        first += walk.count;
      },
      Order::kRowMajor);
}

}  // namespace

void CudaKernels::random(Distribution distribution, int64_t seed, int64_t stream, const Out& out) {
  const bool normal = distribution == Distribution::kNormal;
  for_each_stretch<1>({&out}, [&](const Walk<1>& walk, int64_t first, bool fours) {
    const Stream source = {static_cast<uint64_t>(seed), static_cast<uint64_t>(stream), first};
    const bool wide = out.dtype == DType::kF64;
    const unsigned blocks = blocks_for(int64_t{walk.count} + 3, kThreads * (wide && !normal ? 2 : 4));
    if (wide)
      random_kernel<double><<<blocks, kThreads, 0, cuda_.stream>>>(walk, out.dtype, source, normal, fours);
    else
      random_kernel<float><<<blocks, kThreads, 0, cuda_.stream>>>(walk, out.dtype, source, normal, fours);
    LLMEFF_LAUNCHED("random_kernel");
  });
}

void CudaKernels::dropout(const In& x, double rate, int64_t seed, int64_t stream, const Out& out) {
  // The first number not below the rate.
  const float nearest = static_cast<float>(rate);
  const float threshold = nearest < rate ? __builtin_nextafterf(nearest, 2.0f) : nearest;
  for_each_stretch<2>({&out, &x}, [&](const Walk<2>& walk, int64_t first, bool fours) {
    const Stream source = {static_cast<uint64_t>(seed), static_cast<uint64_t>(stream), first};
    const unsigned blocks = blocks_for(int64_t{walk.count} + 3, kThreads * 4);
    if (x.dtype == DType::kF64)
      dropout_kernel<double><<<blocks, kThreads, 0, cuda_.stream>>>(walk, x.dtype, source, threshold, 1 - rate, fours);
    else
      dropout_kernel<float><<<blocks, kThreads, 0, cuda_.stream>>>(walk, x.dtype, source, threshold,
                                                                   static_cast<float>(1 - rate), fours);
    LLMEFF_LAUNCHED("dropout_kernel");
  });
}

}  // namespace llmeff::cuda
