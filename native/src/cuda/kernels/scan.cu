// cumsum: running sums in float64 (int32 wraps around) along one axis.
//   rows     a warp scans a row, 128 elements at a time, or a piece of one where rows are few: then the pieces are
//            summed first, their sums are scanned, and each piece starts from its own
//   columns  the axis is not the innermost in memory: a thread scans a column, or a piece of one
#include "cuda/kernels/axes.cuh"
#include "cuda/kernels/cuda_kernels.h"

namespace llmeff::cuda {
namespace {

constexpr int kPerLane = 4, kStep = 32 * kPerLane;
constexpr int64_t kManyUnits = 8192;  // of work: enough for any GPU, so that sums don't depend on which it is
constexpr int64_t kShortestPiece = 1024;

template <class T>
struct TotalOf {
  using type = double;
};
template <>
struct TotalOf<int32_t> {
  using type = uint32_t;
};

// Steps along the axis are those of the scan's direction; data is where it starts.
struct Scan {
  Axes<2> rows;  // of x, of out
  const void* x;
  void* out;
  DType dtype;
  int64_t x_start, out_start, x_step, out_step, length;
  int64_t piece, pieces;
};

template <class Total>
__device__ __forceinline__ Total shuffle_up(Total value, int step) {
  return __shfl_up_sync(~0u, value, static_cast<unsigned>(step));
}

// What lies before this lane's value, and in `all` the sum over the warp.
template <class Total>
__device__ __forceinline__ Total scan_lanes(Total value, int lane, Total& all) {
  Total sum = value;
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const Total below = shuffle_up(sum, step);
    if (lane >= step) sum += below;
  }
  all = __shfl_sync(~0u, sum, 31);
  const Total before = shuffle_up(sum, 1);
  return lane == 0 ? Total(0) : before;
}

// starts [rows][pieces]: the sums of the pieces when `sums_only`, else (null: zero) where each begins.
template <class W>
__global__ void __launch_bounds__(kThreads)
    scan_rows_kernel(const __grid_constant__ Scan s, typename TotalOf<W>::type* starts, bool sums_only) {
  using Total = typename TotalOf<W>::type;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t unit = int64_t{blockIdx.x} * (kThreads / 32) + threadIdx.x / 32;
  const int64_t row = unit / s.pieces, piece = unit - row * s.pieces;
  if (row >= s.rows.count) return;
  int64_t at[2];
  s.rows.locate(row, at);
  const int64_t from = at[0] + s.x_start, to = at[1] + s.out_start;
  const int64_t end = min(s.length, (piece + 1) * s.piece);
  Total carry = starts == nullptr || sums_only ? Total(0) : starts[unit];
  for (int64_t first = piece * s.piece; first < end; first += kStep) {
    Total x[kPerLane];
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
      const int64_t e = first + lane * kPerLane + i;
      x[i] = e < end ? static_cast<Total>(load_as<W>(s.dtype, s.x, from + e * s.x_step)) : Total(0);
    }
#pragma unroll
    for (int i = 1; i < kPerLane; ++i) x[i] += x[i - 1];
    Total all;
    const Total before = carry + scan_lanes(x[kPerLane - 1], lane, all);
    carry += all;
    if (sums_only) continue;
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
      const int64_t e = first + lane * kPerLane + i;
      if (e < end) store_as<W>(s.dtype, s.out, to + e * s.out_step, static_cast<W>(before + x[i]));
    }
  }
  if (sums_only && lane == 0) starts[unit] = carry;
}

template <class W>
__global__ void __launch_bounds__(kThreads)
    scan_columns_kernel(const __grid_constant__ Scan s, typename TotalOf<W>::type* starts, bool sums_only) {
  using Total = typename TotalOf<W>::type;
  const int64_t unit = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  // Neighbouring threads have neighbouring columns.
  const int64_t piece = unit / s.rows.count, row = unit - piece * s.rows.count;
  if (piece >= s.pieces) return;
  int64_t at[2];
  s.rows.locate(row, at);
  const int64_t end = min(s.length, (piece + 1) * s.piece);
  Total* const start = starts + row * s.pieces + piece;
  Total sum = starts == nullptr || sums_only ? Total(0) : *start;
  constexpr int kTogether = 8;
  for (int64_t first = piece * s.piece; first < end; first += kTogether) {
    Total x[kTogether];
#pragma unroll
    for (int i = 0; i < kTogether; ++i)
      x[i] = first + i < end ? static_cast<Total>(load_as<W>(s.dtype, s.x, at[0] + s.x_start + (first + i) * s.x_step))
                             : Total(0);
#pragma unroll
    for (int i = 0; i < kTogether; ++i) {
      sum += x[i];
      if (!sums_only && first + i < end)
        store_as<W>(s.dtype, s.out, at[1] + s.out_start + (first + i) * s.out_step, static_cast<W>(sum));
    }
  }
  if (sums_only) *start = sum;
}

// The sums of each row's pieces become where they start; a warp for a row.
template <class Total>
__global__ void __launch_bounds__(kThreads) scan_starts_kernel(Total* starts, int64_t rows, int64_t pieces) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t row = int64_t{blockIdx.x} * (kThreads / 32) + threadIdx.x / 32;
  if (row >= rows) return;
  Total carry = 0;
  for (int64_t first = 0; first < pieces; first += 32) {
    const int64_t piece = first + lane;
    Total all;
    const Total before = carry + scan_lanes(piece < pieces ? starts[row * pieces + piece] : Total(0), lane, all);
    if (piece < pieces) starts[row * pieces + piece] = before;
    carry += all;
  }
}

template <class W>
void scan(Context& cuda, Scan s, bool columns) {
  using Total = typename TotalOf<W>::type;
  const int64_t rows = s.rows.count, wanted = columns ? 16 * kManyUnits : kManyUnits;
  s.piece = s.length, s.pieces = 1;
  if (rows < wanted && s.length > 2 * kShortestPiece) {
    const int64_t most = ceil_div(s.length, kShortestPiece), pieces = ceil_div(wanted, rows);
    s.piece = ceil_div(ceil_div(s.length, most < pieces ? most : pieces), kStep) * kStep;
    s.pieces = ceil_div(s.length, s.piece);
  }
  const int64_t units = rows * s.pieces;
  Total* const starts = s.pieces > 1 ? cuda.scratch<Total>(units) : nullptr;
  const auto launch = [&](bool sums_only) {
    if (columns)
      scan_columns_kernel<W><<<blocks_for(units, kThreads), kThreads, 0, cuda.stream>>>(s, starts, sums_only);
    else
      scan_rows_kernel<W><<<blocks_for(units, kThreads / 32), kThreads, 0, cuda.stream>>>(s, starts, sums_only);
    LLMEFF_LAUNCHED("scan_kernel");
  };
  if (s.pieces > 1) {
    launch(true);
    scan_starts_kernel<Total><<<blocks_for(rows, kThreads / 32), kThreads, 0, cuda.stream>>>(starts, rows, s.pieces);
    LLMEFF_LAUNCHED("scan_starts_kernel");
  }
  launch(false);
}

}  // namespace

void CudaKernels::cumsum(const In& x, int64_t axis, bool reverse, const Out& out) {
  const Loop<2> rows = make_loop<2>({&x, &out}, leading_axes(x.rank) & ~(1u << axis));
  Scan s = {};
  s.rows = Axes<2>(rows);
  s.x = x.data, s.out = out.data;
  s.dtype = x.dtype;
  s.length = x.shape[axis];
  const int64_t way = reverse ? -1 : 1, origin = reverse ? s.length - 1 : 0;
  s.x_start = origin * x.strides[axis], s.out_start = origin * out.strides[axis];
  s.x_step = way * x.strides[axis], s.out_step = way * out.strides[axis];
  const bool columns = rows.inner() > 1 && distance(rows.inner_stride(0)) < distance(x.strides[axis]);
  switch (x.dtype) {
    case DType::kF64:
      return scan<double>(cuda_, s, columns);
    case DType::kI32:
      return scan<int32_t>(cuda_, s, columns);
    default:
      return scan<float>(cuda_, s, columns);
  }
}

}  // namespace llmeff::cuda
