// Gradients of the norms (norm.cu). With t = dy ∘ (weight + offset) and x̂ the normed row:
//
//   rms:    dx = r·t − x·r³·⟨t, x⟩/C                     dweight = Σ over rows of dy ∘ x·r
//   layer:  dx = r·(t − mean(t) − x̂·mean(t ∘ x̂))         dweight = Σ over rows of dy ∘ x̂,  dbias = Σ over rows of dy
//
// A block has a fixed range of rows, which it reads once. Its threads keep the sums for their columns in registers from
// row to row; they go to `partial` [blocks, C] per parameter, and a second kernel adds those up, in order. There are
// few registers left to load with, so that the next row comes by asynchronous copies, into shared memory that each
// thread has for itself, while the present one is worked on. Rows too long for the registers are read twice for dx, and
// once more, column by column, for the parameters.
#include <cuda_pipeline.h>

#include "cuda/kernels/cuda_kernels.h"
#include "cuda/kernels/norm_rows.cuh"

namespace llmeff::cuda {
namespace {

constexpr int kThreads = 256;  // of a block at most: with the sums, a thread needs up to 128 registers

struct NormGrad {
  const void *dy, *dsum, *x, *weight, *mean, *rstd;
  void *dx, *partial;  // partial: [parameters, blocks, n]
  RowMap dy_rows, dsum_rows, x_rows, dx_rows;
  int64_t rows, rows_per_block;
  int n;
  double weight_offset;
};

// The normed x: x̂, or x·r.
template <bool kCentred, class W>
struct Normed {
  W shift, rest, rstd;
  __device__ W operator()(W x) const { return kCentred ? (x - shift - rest) * rstd : x * rstd; }
};

// The packs of dy, x and dsum of two rows, for each thread of a block.
size_t staged_bytes(int kept, const dim3& block) {
  return size_t{2} * 3 * kept * block.x * block.y * 16;
}

template <class T, int kPack, int kKept, bool kCentred>
__global__ void __launch_bounds__(kThreads, 2) norm_grad_kernel(const __grid_constant__ NormGrad a) {
  using W = wide_t<T>;
  constexpr int kGroups = kKept > 0 ? kKept : 1, kParameters = kCentred ? 2 : 1;
  constexpr bool kStaged = kKept > 0 && sizeof(Group<T, kPack>) == 16;
  extern __shared__ uint4 staged[];
  const int threads = blockDim.x * blockDim.y, thread = threadIdx.y * blockDim.x + threadIdx.x;
  const T* const weight = static_cast<const T*>(a.weight);
  const W offset = static_cast<W>(a.weight_offset), count = static_cast<W>(a.n);
  W sums[kParameters][kGroups][kPack] = {};
  const int64_t first = blockIdx.x * a.rows_per_block,
                end = first + a.rows_per_block < a.rows ? first + a.rows_per_block : a.rows;
  const auto dy_at = [&](int64_t row) { return static_cast<const T*>(a.dy) + a.dy_rows(row); };
  const auto x_at = [&](int64_t row) { return static_cast<const T*>(a.x) + a.x_rows(row); };
  const auto dsum_at = [&](int64_t row) { return static_cast<const T*>(a.dsum) + a.dsum_rows(row); };

  enum { kDy, kX, kDsum };
  const auto place = [&](int stage, int array, int k) {
    return staged + ((stage * 3 + array) * kGroups + k) * threads + thread;
  };
  const auto fetch = [&](int64_t row, int stage) {
    if (row < end) {
      const T *const dy = dy_at(row), *const x = x_at(row), *const dsum = a.dsum == nullptr ? nullptr : dsum_at(row);
      each_group<kPack, kKept>(a.n, [&](int i, int k) {
        __pipeline_memcpy_async(place(stage, kDy, k), dy + i, 16);
        __pipeline_memcpy_async(place(stage, kX, k), x + i, 16);
        if (dsum != nullptr) __pipeline_memcpy_async(place(stage, kDsum, k), dsum + i, 16);
      });
    }
    __pipeline_commit();
  };

  // Its statistics come a row ahead, too.
  const auto mean_of = [&](int64_t row) { return kCentred && row < end ? static_cast<const W*>(a.mean)[row] : W{0}; };
  const auto rstd_of = [&](int64_t row) { return row < end ? static_cast<const W*>(a.rstd)[row] : W{0}; };
  W next_mean = mean_of(first + threadIdx.y), next_rstd = rstd_of(first + threadIdx.y);
  int stage = 0;
  if constexpr (kStaged) fetch(first + threadIdx.y, 0);
  for (int64_t row = first + threadIdx.y; row < end; row += blockDim.y, stage ^= 1) {
    if constexpr (kStaged) {
      fetch(row + blockDim.y, stage ^ 1);
      __pipeline_wait_prior(1);
    }
    const T *const dy = dy_at(row), *const x = x_at(row), *const dsum = a.dsum == nullptr ? nullptr : dsum_at(row);
    const auto pack = [&](int array, const T* memory, int i, int k) {
      if constexpr (kStaged) return *reinterpret_cast<const Group<T, kPack>*>(place(stage, array, k));
      return load_group<kPack>(memory + i);
    };
    // body(i, k, e, dy, t, x) for every element: the e-th of group k, which begins at i.
    const auto each = [&](auto&& body) {
      each_group<kPack, kKept>(a.n, [&](int i, int k) {
        const Group<T, kPack> dys = pack(kDy, dy, i, k), xs = pack(kX, x, i, k);
        Group<T, kPack> w;
        if (weight != nullptr) w = load_group<kPack>(weight + i);
#pragma unroll
        for (int e = 0; e < kPack; ++e) {
          const W g = widen<W>(dys.at[e]);
          body(i, k, e, g, weight == nullptr ? g : g * (widen<W>(w.at[e]) + offset), widen<W>(xs.at[e]));
        }
      });
    };

    Normed<kCentred, W> normed = {next_mean, 0, next_rstd};
    next_mean = mean_of(row + blockDim.y);
    next_rstd = rstd_of(row + blockDim.y);
    W mean_t = 0, pull;
    if constexpr (kCentred) {
      W totals[3] = {};
      each([&](int, int, int, W, W t, W x) {
        const W hat = (x - normed.shift) * normed.rstd;
        totals[0] += hat;
        totals[1] += t;
        totals[2] += t * hat;
      });
      row_sums(totals);
      const W left = totals[0] / count;  // the mean of x̂, which is 0 but for the rounding of `mean`
      mean_t = totals[1] / count;
      pull = totals[2] / count - left * mean_t;
      normed.rest = left / normed.rstd;
    } else {
      W total[1] = {};
      each([&](int, int, int, W, W t, W x) { total[0] += t * (x * normed.rstd); });
      row_sums(total);
      pull = total[0] / count;
    }

    T* const dx = static_cast<T*>(a.dx) + a.dx_rows(row);
    Group<T, kPack> passed, out;
    each([&](int i, int k, int e, W g, W t, W x) {
      const W hat = normed(x);
      if constexpr (kKept > 0) {
        sums[0][k][e] += g * hat;
        if constexpr (kCentred) sums[1][k][e] += g;
      }
      if (e == 0 && dsum != nullptr) passed = pack(kDsum, dsum, i, k);
      W value = (t - mean_t - hat * pull) * normed.rstd;
      if (dsum != nullptr) value += widen<W>(passed.at[e]);
      out.at[e] = narrow<T>(value);
      if (e == kPack - 1) store_group(dx + i, out);
    });
  }
  if constexpr (kKept > 0) {
    if (a.partial == nullptr) return;
    // The warps of a block add up their sums one after the other; a row of one warp has at most 32 · kKept · kPack
    // elements.
    __shared__ W columns[kParameters][32 * kKept * kPack];
    for (int y = 0; y < blockDim.y; ++y) {
      if (threadIdx.y == y && blockDim.y > 1)
        each_group<kPack, kKept>(a.n, [&](int i, int k) {
#pragma unroll
          for (int p = 0; p < kParameters; ++p)
#pragma unroll
            for (int e = 0; e < kPack; ++e)
              columns[p][i + e] = y == 0 ? sums[p][k][e] : columns[p][i + e] + sums[p][k][e];
        });
      __syncthreads();
    }
    if (threadIdx.y > 0) return;
    each_group<kPack, kKept>(a.n, [&](int i, int k) {
#pragma unroll
      for (int p = 0; p < kParameters; ++p) {
        W* const to = static_cast<W*>(a.partial) + (static_cast<int64_t>(p) * gridDim.x + blockIdx.x) * a.n + i;
#pragma unroll
        for (int e = 0; e < kPack; ++e) to[e] = blockDim.y > 1 ? columns[p][i + e] : sums[p][k][e];
      }
    });
  }
}

// The sums over the rows of a block for 32 columns, of rows that are too long for norm_grad_kernel.
template <class T, bool kCentred>
__global__ void norm_columns_kernel(const __grid_constant__ NormGrad a) {
  using W = wide_t<T>;
  const int i = blockIdx.y * 32 + threadIdx.x;
  const int64_t first = blockIdx.x * a.rows_per_block,
                end = first + a.rows_per_block < a.rows ? first + a.rows_per_block : a.rows;
  W sums[2] = {};
  for (int64_t row = first + threadIdx.y; row < end && i < a.n; row += blockDim.y) {
    const W g = widen<W>(static_cast<const T*>(a.dy)[a.dy_rows(row) + i]);
    const W x = widen<W>(static_cast<const T*>(a.x)[a.x_rows(row) + i]);
    const Normed<kCentred, W> normed = {kCentred ? static_cast<const W*>(a.mean)[row] : W{0}, 0,
                                        static_cast<const W*>(a.rstd)[row]};
    sums[0] += g * normed(x);
    sums[1] += g;
  }
  __shared__ W parts[2][8][32];
  for (int p = 0; p < 2; ++p) parts[p][threadIdx.y][threadIdx.x] = sums[p];
  __syncthreads();
  if (threadIdx.y > 0 || i >= a.n) return;
  for (int p = 0; p < (kCentred ? 2 : 1); ++p) {
    W sum = 0;
    for (int y = 0; y < 8; ++y) sum += parts[p][y][threadIdx.x];
    static_cast<W*>(a.partial)[(static_cast<int64_t>(p) * gridDim.x + blockIdx.x) * a.n + i] = sum;
  }
}

// out[i] = Σ over blocks of partial[block, i], by 32 × 32 threads for 32 columns.
template <class T>
__global__ void sum_blocks_kernel(const wide_t<T>* partial, int blocks, int n, T* out) {
  using W = wide_t<T>;
  const int i = blockIdx.x * 32 + threadIdx.x;
  W sum = 0;
  if (i < n)
    for (int block = threadIdx.y; block < blocks; block += 32) sum += partial[static_cast<int64_t>(block) * n + i];
  __shared__ W parts[32][33];
  parts[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  const W total = warp_sum(parts[threadIdx.x][threadIdx.y]);
  const int column = blockIdx.x * 32 + threadIdx.y;
  if (threadIdx.x == 0 && column < n) out[column] = narrow<T>(total);
}

template <bool kCentred>
void launch_norm_grad(Context& cuda, const In& dy, const In& dsum, const In& x, const In& weight, double weight_offset,
                      const In& mean, const In& rstd, const Out& dx, const Out& dweight, const Out& dbias) {
  NormGrad a = {};
  a.dy = dy.data, a.dsum = dsum.data, a.x = x.data, a.weight = weight.data, a.mean = mean.data, a.rstd = rstd.data;
  a.dx = dx.data;
  a.dy_rows = row_map(dy), a.x_rows = row_map(x), a.dx_rows = row_map(dx);
  if (dsum.present()) a.dsum_rows = row_map(dsum);
  a.rows = count_rows(x);
  a.n = static_cast<int>(x.dim(-1));
  a.weight_offset = weight_offset;
  const bool aligned = rows_aligned({&dy, &dsum, &x, &weight, &dx});
  const bool parameters = dweight.present() || dbias.present();
  with_floating(x.dtype, [&]<class Tag>(Tag) {
    using T = typename Tag::type;
    using W = wide_t<T>;
    with_row_shape<T>(a.n, aligned, kThreads, [&]<int kPack, int kKept>(const RowThreads& threads) {
      // Enough blocks for two of 256 threads on every multiprocessor, and several rows each.
      const int64_t per_multiprocessor = 2 * kThreads / (threads.block.x * threads.block.y);
      const int64_t most = int64_t{cuda.facts.multiprocessors} * per_multiprocessor;
      a.rows_per_block = round_up(std::max<int64_t>(1, ceil_div(a.rows, most)), threads.block.y);
      const int64_t blocks = ceil_div(a.rows, a.rows_per_block);
      W* partial = parameters ? cuda.scratch<W>((kCentred ? 2 : 1) * blocks * a.n) : nullptr;
      a.partial = partial;
      const auto kernel = norm_grad_kernel<T, kPack, kKept, kCentred>;
      const size_t shared = kKept > 0 && kPack > 1 ? staged_bytes(kKept, threads.block) : 0;
      if (shared > 0)
        LLMEFF_CUDA(
            cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared)));
      kernel<<<blocks, threads.block, shared, cuda.stream>>>(a);
      LLMEFF_LAUNCHED("norm_grad_kernel");
      if (!parameters) return;
      if constexpr (kKept == 0) {
        norm_columns_kernel<T, kCentred><<<dim3(blocks, ceil_div(a.n, 32)), dim3(32, 8), 0, cuda.stream>>>(a);
        LLMEFF_LAUNCHED("norm_columns_kernel");
      }
      for (const Out* out : {&dweight, &dbias}) {
        if (out->present()) {
          sum_blocks_kernel<T><<<ceil_div(a.n, 32), dim3(32, 32), 0, cuda.stream>>>(partial, static_cast<int>(blocks),
                                                                                    a.n, out->template as<T>());
          LLMEFF_LAUNCHED("sum_blocks_kernel");
        }
        partial += blocks * a.n;
      }
    });
  });
}

}  // namespace

void CudaKernels::rms_norm_grad(const In& dy, const In& dsum, const In& x, const In& weight, double weight_offset,
                                const In& rstd, const Out& dx, const Out& dweight) {
  launch_norm_grad<false>(cuda_, dy, dsum, x, weight, weight_offset, {}, rstd, dx, dweight, {});
}

void CudaKernels::layer_norm_grad(const In& dy, const In& dsum, const In& x, const In& weight, const In& mean,
                                  const In& rstd, const Out& dx, const Out& dweight, const Out& dbias) {
  launch_norm_grad<true>(cuda_, dy, dsum, x, weight, 0, mean, rstd, dx, dweight, dbias);
}

}  // namespace llmeff::cuda
