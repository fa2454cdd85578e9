// The Euclidean norm of a list of arrays, as if they were one vector: squares are added up in float64, where those of
// float32 numbers neither overflow nor lose anything that matters, per chunk, per array and then over the arrays.
#include "cuda/kernels/cuda_kernels.h"
#include "cuda/kernels/multi_tensor.cuh"
#include "cuda/kernels/sum_of_squares.h"

namespace llmeff::cuda {
namespace {

constexpr int kTiles = 8, kChunk = kTiles * kTile;

template <class T>
__global__ void __launch_bounds__(kTileThreads)
    sums_of_squares_kernel(const __grid_constant__ TensorTable<1> table, double* partial) {
  const int chunk = blockIdx.x, tensor = table.tensor_of(chunk);
  const int64_t n = table.size[tensor],
                begin = static_cast<int64_t>(chunk - table.first_chunk[tensor]) * kChunk + 4 * threadIdx.x;
  const T* const x = table.at<const T>(0, tensor);
  const bool aligned = table.aligned[tensor];
  wide_t<T> values[kTiles][4];
#pragma unroll
  for (int t = 0; t < kTiles; ++t) load_four(x, begin + t * kTile, n, aligned, values[t]);
  double total[1] = {};
#pragma unroll
  for (int t = 0; t < kTiles; ++t)
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const double v = static_cast<double>(values[t][e]);
      total[0] += v * v;
    }
  block_sums(total);
  if (threadIdx.x == 0) partial[chunk] = total[0];
}

// A block for each array.
__global__ void __launch_bounds__(1024)
    finish_sums_kernel(const __grid_constant__ TensorTable<1> table, const double* partial, const void* scale,
                       bool wide, double* sums) {
  const int tensor = blockIdx.x;
  double total[1];
  sum_partials(partial, table.first_chunk[tensor], table.first_chunk[tensor + 1], total);
  if (threadIdx.x > 0) return;
  const double factor = scale == nullptr ? 1.0
                        : wide           ? *static_cast<const double*>(scale)
                                         : static_cast<double>(*static_cast<const float*>(scale));
  sums[tensor] = total[0] * factor * factor;
}

template <class T>
__global__ void __launch_bounds__(1024) root_of_sum_kernel(const double* sums, int64_t count, T* norm) {
  double total[1];
  sum_partials(sums, 0, count, total);
  if (threadIdx.x == 0) *norm = static_cast<T>(sqrt(total[0]));
}

}  // namespace

void sums_of_squares(Context& cuda, const List<In>& xs, const In& scale, double* sums) {
  with_floating(xs[0].dtype, [&]<class Tag>(Tag) {
    TensorTable<1> table;
    for (int64_t i = 0; i < xs.size; ++i) {
      table.add(xs[i].size(), kChunk, {&xs[i]});
      if (!table.full() && i + 1 < xs.size) continue;
      double* const partial = cuda.scratch<double>(table.chunks());
      sums_of_squares_kernel<typename Tag::type><<<table.chunks(), kTileThreads, 0, cuda.stream>>>(table, partial);
      LLMEFF_LAUNCHED("sums_of_squares_kernel");
      finish_sums_kernel<<<table.count, 1024, 0, cuda.stream>>>(table, partial, scale.data, scale.dtype == DType::kF64,
                                                                sums + (i + 1 - table.count));
      LLMEFF_LAUNCHED("finish_sums_kernel");
      table.clear();
    }
  });
}

void CudaKernels::global_norm(const List<In>& xs, const Out& norm) {
  double* const sums = cuda_.scratch<double>(xs.size);
  sums_of_squares(cuda_, xs, {}, sums);
  with_floating(norm.dtype, [&]<class Tag>(Tag) {
    using T = typename Tag::type;
    if constexpr (sizeof(T) >= 4) {
      root_of_sum_kernel<T><<<1, 1024, 0, cuda_.stream>>>(sums, xs.size, norm.as<T>());
      LLMEFF_LAUNCHED("root_of_sum_kernel");
    } else {
      fail("ERR_DTYPE", "[globalNorm] the norm must be float32 or float64.");
    }
  });
}

}  // namespace llmeff::cuda
