// Products of rows that lie packed by group: out_e = Σ x_e · w_e, and dw_e = a_eᵀ · b_e, by the plain kernel's tiles
// or, in bfloat16 on Hopper, by grouped_matmul_sm90.cu.
//
// The counts are on the GPU alone. One warp adds them up to the first row of every group; then each block finds the
// group of its tile. Every group has its own tiles, so A rows of E groups take at most A / kTile + E of them, for which
// there are blocks; those that find no tile are done. Rows behind the last group are one more group, of zeros.
#include <algorithm>
#include <utility>

#include "cuda/check.h"
#include "cuda/kernels/cuda_kernels.h"
#include "cuda/kernels/grouped_matmul_sm90.h"
#include "cuda/kernels/matmul_tile.cuh"

namespace llmeff::cuda {
namespace {

constexpr int kMostBlocks = 65535;  // along y and z
constexpr int kMostTerms = kMostGroupedTerms;

int64_t tiles_of(int64_t n) {
  return (n + kTile - 1) / kTile;
}
unsigned blocks_of(int64_t n) {
  return static_cast<unsigned>(std::min<int64_t>(n, kMostBlocks));
}

// starts[e] = the first row of group e, starts[groups] that behind the last, at most `rows`; and behind them the count
// of tiles taken, 0. One warp: it reads 32 counts at once and passes them around.
__global__ void group_starts_kernel(const int32_t* counts, int64_t groups, int64_t rows, int64_t* starts,
                                    ValueCheck check) {
  const int lane = static_cast<int>(threadIdx.x);
  int64_t row = 0;
  for (int64_t e0 = 0; e0 < groups; e0 += 32) {
    const int32_t own = e0 + lane < groups ? counts[e0 + lane] : 0;
    int64_t start = 0;
    for (int i = 0; i < 32; ++i) {
      const int32_t count = __shfl_sync(~0u, own, i);
      const bool bad = count < 0 || count > rows - row;
      if (i == lane) {
        start = row;
        if (bad) check.bad(e0 + i, count);
      }
      if (!bad) row += count;
    }
    if (e0 + lane < groups) starts[e0 + lane] = start;
  }
  if (lane == 0) starts[groups] = row, starts[groups + 1] = 0;
}

int64_t* group_starts(Context& cuda, const char* op, const In& counts, int64_t rows) {
  const int64_t groups = counts.size();
  int64_t* const starts = cuda.scratch<int64_t>(groups + 2);
  const ValueCheck check = cuda.check_values([=](int64_t group, int32_t count) {
    return formatted("[%s] counts[%lld] is %d: counts must not be negative, nor more than the %lld rows together", op,
                     static_cast<long long>(group), count, static_cast<long long>(rows));
  });
  group_starts_kernel<<<1, 32, 0, cuda.stream>>>(counts.as<int32_t>(), groups, rows, starts, check);
  LLMEFF_LAUNCHED("group_starts_kernel");
  return starts;
}

template <class Matrix>
struct Terms {
  Matrix x[kMostTerms], w[kMostTerms];  // batch_stride: from one group's matrix to the next
  int64_t k[kMostTerms];
  int count;
};

template <class W, class Matrix>
__global__ __launch_bounds__(kTileThreads) void grouped_matmul_kernel(const __grid_constant__ Terms<Matrix> terms,
                                                                      const int64_t* starts, int64_t groups,
                                                                      int64_t rows, int64_t n, void* out,
                                                                      DType out_dtype, int64_t out_row, int64_t tiles) {
  const int64_t j0 = int64_t{blockIdx.x} * kTile;
  for (int64_t tile = blockIdx.y; tile < tiles; tile += gridDim.y) {
    // The group of this tile, and which of the group's tiles it is; group `groups` has the rows behind the last.
    int64_t group = 0, first = 0, m = 0, rest = tile;
    for (; group <= groups; ++group) {
      first = starts[group];
      m = (group < groups ? starts[group + 1] : rows) - first;
      const int64_t its_tiles = (m + kTile - 1) / kTile;
      if (rest < its_tiles) break;
      rest -= its_tiles;
    }
    if (group > groups) return;  // there are no tiles from here on
    const int64_t i0 = rest * kTile;
    W sum[4][4] = {};
    for (int t = 0; group < groups && t < terms.count; ++t)
      add_product(m, n, terms.k[t], terms.x[t], first * terms.x[t].row_stride, terms.w[t],
                  group * terms.w[t].batch_stride, i0, j0, sum);
    for_tile(m, n, i0, j0, [&](int64_t i, int64_t j, int r, int c) {
      store_as(out, out_dtype, (first + i) * out_row + j, sum[r][c]);
    });
  }
}

// a [A, M] and b [A, N] by rows: a's matrix is the transposed one.
template <class W, class Matrix>
__global__ __launch_bounds__(kTileThreads) void grouped_matmul_grad_kernel(Matrix a_transposed, Matrix b,
                                                                           const int64_t* starts, int64_t groups,
                                                                           int64_t m, int64_t n, void* dw, DType dtype,
                                                                           int64_t tiles) {
  const int64_t j0 = int64_t{blockIdx.x} * kTile;
  for (int64_t group = blockIdx.z; group < groups; group += gridDim.z) {
    const int64_t first = starts[group], k = starts[group + 1] - first;
    for (int64_t tile = blockIdx.y; tile < tiles; tile += gridDim.y) {
      const int64_t i0 = tile * kTile;
      W sum[4][4] = {};
      add_product(m, n, k, a_transposed, first * a_transposed.column_stride, b, first * b.row_stride, i0, j0, sum);
      for_tile(m, n, i0, j0,
               [&](int64_t i, int64_t j, int r, int c) { store_as(dw, dtype, (group * m + i) * n + j, sum[r][c]); });
    }
  }
}

template <class Matrix>
Matrix matrix(const View& x) {
  return {x.data, x.dtype, x.stride(-2), x.stride(-1), x.rank == 3 ? x.strides[0] : 0};
}

unsigned long long* taken(int64_t* starts, int64_t groups) {
  return reinterpret_cast<unsigned long long*>(starts + groups + 1);
}

// Whether the kernels for Hopper's tensor cores took the work.
bool grouped_matmul_hopper(const Context& cuda, const List<In>& xs, const List<In>& ws, int64_t* starts, int64_t groups,
                           const Out& out) {
  if (cuda.facts.capability != 90) return false;
  GroupedMatmulArgs args = {};
  args.terms = static_cast<int>(xs.size), args.out = out, args.starts = starts, args.taken = taken(starts, groups);
  for (int t = 0; t < args.terms; ++t) args.xs[t] = xs[t], args.ws[t] = ws[t];
  if (!grouped_matmul_sm90_supports(args)) return false;
  LLMEFF_CUDA(grouped_matmul_sm90(args, cuda.facts.multiprocessors, cuda.stream));
  return true;
}
bool grouped_matmul_grad_hopper(const Context& cuda, const In& a, const In& b, int64_t* starts, const Out& dw) {
  const GroupedMatmulGradArgs args = {a, b, dw, starts, taken(starts, dw.dim(0))};
  if (cuda.facts.capability != 90 || !grouped_matmul_grad_sm90_supports(args)) return false;
  LLMEFF_CUDA(grouped_matmul_grad_sm90(args, cuda.facts.multiprocessors, cuda.stream));
  return true;
}

}  // namespace

void CudaKernels::grouped_matmul(const List<In>& xs, const List<In>& ws, const In& counts, const Out& out) {
  const int64_t groups = counts.size(), rows = out.dim(0), n = out.dim(1);
  if (xs.size > kMostTerms)
    fail("ERR_OPTION", "[groupedMatmul] at most %d products are added up; received %lld", kMostTerms,
         static_cast<long long>(xs.size));
  int64_t* const starts = group_starts(cuda_, "groupedMatmul", counts, rows);
  if (grouped_matmul_hopper(cuda_, xs, ws, starts, groups, out)) return;
  const int64_t tiles = rows / kTile + groups + 1;
  const dim3 grid(static_cast<unsigned>(tiles_of(n)), blocks_of(tiles));
  with_matrices(xs[0].dtype, ws[0].dtype, out.dtype, [&]<class W, class Matrix>() {
    Terms<Matrix> terms = {};
    terms.count = static_cast<int>(xs.size);
    for (int t = 0; t < terms.count; ++t)
      terms.x[t] = matrix<Matrix>(xs[t]), terms.w[t] = matrix<Matrix>(ws[t]), terms.k[t] = xs[t].dim(1);
    grouped_matmul_kernel<W, Matrix><<<grid, kTileThreads, 0, cuda_.stream>>>(terms, starts, groups, rows, n, out.data,
                                                                              out.dtype, out.stride(0), tiles);
    LLMEFF_LAUNCHED("grouped_matmul_kernel");
  });
}

void CudaKernels::grouped_matmul_grad(const In& a, const In& b, const In& counts, const Out& dw) {
  const int64_t groups = counts.size(), m = dw.dim(1), n = dw.dim(2), tiles = tiles_of(m);
  int64_t* const starts = group_starts(cuda_, "groupedMatmulGrad", counts, a.dim(0));
  if (grouped_matmul_grad_hopper(cuda_, a, b, starts, dw)) return;
  const dim3 grid(static_cast<unsigned>(tiles_of(n)), blocks_of(tiles), blocks_of(groups));
  with_matrices(a.dtype, b.dtype, dw.dtype, [&]<class W, class Matrix>() {
    Matrix a_transposed = matrix<Matrix>(a);
    std::swap(a_transposed.row_stride, a_transposed.column_stride);
    grouped_matmul_grad_kernel<W, Matrix><<<grid, kTileThreads, 0, cuda_.stream>>>(
        a_transposed, matrix<Matrix>(b), starts, groups, m, n, dw.data, dw.dtype, tiles);
    LLMEFF_LAUNCHED("grouped_matmul_grad_kernel");
  });
}

}  // namespace llmeff::cuda
