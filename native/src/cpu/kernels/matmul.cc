// Matrix products: c[m, n] = a[m, k] · b[k, n], packed and blocked as in BLIS (Van Zee & van de Geijn 2015).
//
// k is cut into blocks of kDepth and n into slabs of kSlab columns. For each pair the slab of b is packed once, by all
// threads, into strips; then every task takes a tile of c, packs its rows of a and multiplies (gemm_tile.h). The sums
// of a tile run over k in order, block after block, whoever computes it, so that results depend on the shape alone. One
// to four rows (decoding) read b in place instead, since there packing would cost more than the product.
#include "gemm.h"

#include "cpu_kernels.h"
#include "gemm_tile.h"
#include "llmeff/parallel.h"

namespace llmeff::cpu::LLMEFF_ISA {
namespace {

constexpr int64_t kDepthBytes = 2048;            // of one column of b in a block: 512 floats
constexpr int64_t kSlab = 4096;                  // columns of b packed at a time
constexpr int64_t kBlockRows = 12 * kPanel;      // rows of a packed at a time: they stay in the second cache
constexpr int64_t kTileColumns = 1024;           // of a task
constexpr int64_t kTasks = 32;                   // to aim at
constexpr int64_t kTaskWork = int64_t{1} << 19;  // multiply-adds that make a task worth handing out
constexpr int64_t kPackWork = int64_t{1} << 16;  // elements, likewise
constexpr int64_t kFewRows = 4;

template <class T>
struct Product {
  int64_t m, n, k;
  const T* a;
  int64_t a_row, a_col;
  const T* b;
  int64_t b_row, b_col;
  T* c;
  int64_t c_row;
  bool accumulate;
  const T* bias;
};

// Blocks of k are cut evenly, so that none is short.
template <class T>
int64_t block_depth(int64_t k) {
  constexpr int64_t kDepth = kDepthBytes / static_cast<int64_t>(sizeof(T));
  return k <= kDepth ? k : divide_up(k, divide_up(k, kDepth));
}

template <class T>
int64_t slab_elements(int64_t n, int64_t k) {
  return round_up(round_up(smaller(n, kSlab), kStrip<T>) * block_depth<T>(k) + kLanes<T>, 16);
}
template <class T>
int64_t block_elements(int64_t m, int64_t k) {
  return round_up(smaller(m, kBlockRows) * block_depth<T>(k) + kLanes<T>, 16);
}

// A tile of c for one block of k: rows [i0, i0 + m), columns [j0, j0 + n) by the packed strips that begin there.
template <class T>
void multiply_tile(const Product<T>& x, int64_t i0, int64_t m, int64_t j0, int64_t n, int64_t p0, int64_t depth,
                   const T* strips, T* block) {
  const int64_t panel = panel_rows(m);
  pack_a(x.a + i0 * x.a_row + p0 * x.a_col, x.a_row, x.a_col, m, depth, block, panel);
  const bool first = p0 == 0;
  const TileOut<T> out = {x.c + i0 * x.c_row + j0, x.c_row, x.accumulate || !first,
                          first && x.bias != nullptr ? x.bias + j0 : nullptr};
  multiply_packed(m, n, depth, block, panel, strips, kStrip<T>, kStrip<T> * depth, out);
}

template <class T>
void multiply_serial(const Product<T>& x, T* scratch) {
  constexpr int64_t N = kStrip<T>;
  T* const block = scratch + slab_elements<T>(x.n, x.k);
  const int64_t depth = block_depth<T>(x.k);
  for (int64_t j0 = 0; j0 < x.n; j0 += kSlab) {
    const int64_t columns = smaller(kSlab, x.n - j0);
    for (int64_t p0 = 0; p0 < x.k; p0 += depth) {
      const int64_t d = smaller(depth, x.k - p0);
      pack_b(x.b + p0 * x.b_row + j0 * x.b_col, x.b_row, x.b_col, columns, d, scratch, 0, divide_up(columns, N));
      for (int64_t i0 = 0; i0 < x.m; i0 += kBlockRows)
        multiply_tile(x, i0, smaller(kBlockRows, x.m - i0), j0, columns, p0, d, scratch, block);
    }
  }
}

template <class T>
void multiply_parallel(const Product<T>& x) {
  constexpr int64_t N = kStrip<T>;
  const int64_t slab = slab_elements<T>(x.n, x.k), block = block_elements<T>(x.m, x.k);
  // The calling thread is worker 0: its scratch holds the packed slab that all read, and behind it its own block of a.
  T* const strips = worker_scratch<T>(0, slab + block);
  const int64_t depth = block_depth<T>(x.k);
  for (int64_t j0 = 0; j0 < x.n; j0 += kSlab) {
    const int64_t columns = smaller(kSlab, x.n - j0), strip_count = divide_up(columns, N);
    const int64_t tile_columns = round_up(divide_up(columns, divide_up(columns, kTileColumns)), N);
    const int64_t across = divide_up(columns, tile_columns);
    const int64_t wanted = larger(1, smaller(kTasks, x.m * columns * depth / kTaskWork));
    const int64_t rows =
        smaller(kBlockRows, larger(2 * kPanel, round_up(divide_up(x.m, divide_up(wanted, across)), kPanel)));
    const int64_t down = divide_up(x.m, rows);
    for (int64_t p0 = 0; p0 < x.k; p0 += depth) {
      const int64_t d = smaller(depth, x.k - p0);
      const int64_t strips_per_task = larger(1, kPackWork / (N * d));
      parallel_for(divide_up(strip_count, strips_per_task), [&](int64_t task, int) {
        const int64_t first = task * strips_per_task;
        pack_b(x.b + p0 * x.b_row + j0 * x.b_col, x.b_row, x.b_col, columns, d, strips, first,
               smaller(strip_count, first + strips_per_task));
      });
      parallel_for(down * across, [&](int64_t task, int worker) {
        const int64_t i0 = task / across * rows, c0 = task % across * tile_columns;
        T* const mine = worker == 0 ? strips + slab : worker_scratch<T>(worker, block);
        multiply_tile(x, i0, smaller(rows, x.m - i0), j0 + c0, smaller(tile_columns, columns - c0), p0, d,
                      strips + c0 * d, mine);
      });
    }
  }
}

// ---- one to four rows
// ----------------------------------------------------------------------------------------------------

// out[i][j] for Q columns of b that are contiguous in k: dot products with the R rows of a (packed row-major, row
// length k).
template <class T, int R, int Q>
LLMEFF_INLINE void dot_columns(const Product<T>& x, const T* rows, int64_t j0) {
  constexpr int64_t L = kLanes<T>;
  Vec<T> sum[R][Q] = {};
  const T* columns = x.b + j0 * x.b_col;
  int64_t p = 0;
  for (; p + L <= x.k; p += L)
#pragma GCC unroll 4
    for (int j = 0; j < Q; ++j) {
      const Vec<T> column = load(columns + j * x.b_col + p);
#pragma GCC unroll 4
      for (int i = 0; i < R; ++i) sum[i][j] += load(rows + i * x.k + p) * column;
    }
  for (int i = 0; i < R; ++i)
    for (int j = 0; j < Q; ++j) {
      T total = reduce_sum<T>(sum[i][j]);
      for (int64_t q = p; q < x.k; ++q) total += rows[i * x.k + q] * columns[j * x.b_col + q];
      if (x.bias != nullptr) total += x.bias[j0 + j];
      T& c = x.c[i * x.c_row + j0 + j];
      c = x.accumulate ? c + total : total;
    }
}

template <class T, int R>
void dot_range(const Product<T>& x, const T* rows, int64_t first, int64_t last) {
  int64_t j = first;
  for (; j + 4 <= last; j += 4) dot_columns<T, R, 4>(x, rows, j);
  for (; j < last; ++j) dot_columns<T, R, 1>(x, rows, j);
}

// Columns [first, last) of b, contiguous along n, read in place eight vectors at a time; `panel` is a packed as [k][m].
template <class T, int R>
void stream_range(const Product<T>& x, const T* panel, int64_t first, int64_t last) {
  constexpr int64_t L = kLanes<T>;
  int64_t j = first;
  const auto out = [&](int64_t at) {
    return TileOut<T>{x.c + at, x.c_row, x.accumulate, x.bias == nullptr ? nullptr : x.bias + at};
  };
  constexpr int kWide = R == 1 ? 8 : 4;
  for (; j + kWide * L <= last; j += kWide * L)
    micro_tile<T, R, kWide, 1>(x.k, panel, R, x.b + j, x.b_row, out(j), kWide * L);
  for (; j + L <= last; j += L) micro_tile<T, R, 1, 1>(x.k, panel, R, x.b + j, x.b_row, out(j), L);
  for (; j < last; ++j)
    for (int i = 0; i < R; ++i) {
      T total = 0;
      for (int64_t p = 0; p < x.k; ++p) total += panel[p * R + i] * x.b[p * x.b_row + j];
      if (x.bias != nullptr) total += x.bias[j];
      T& c = x.c[i * x.c_row + j];
      c = x.accumulate ? c + total : total;
    }
}

template <class T>
bool few_rows(const Product<T>& x) {
  return x.m <= kFewRows && (x.b_row == 1 || x.b_col == 1);
}

// `packed` holds m·k elements: a row-major for dot products, else as a panel.
template <class T>
void pack_few_rows(const Product<T>& x, T* packed) {
  const bool dots = x.b_row == 1;
  for (int64_t i = 0; i < x.m; ++i)
    for (int64_t p = 0; p < x.k; ++p) packed[dots ? i * x.k + p : p * x.m + i] = x.a[i * x.a_row + p * x.a_col];
}

template <class T, int R = kFewRows>
void multiply_few_rows(const Product<T>& x, const T* packed, int64_t first, int64_t last) {
  if constexpr (R > 0) {
    if (x.m != R) return multiply_few_rows<T, R - 1>(x, packed, first, last);
    if (x.b_row == 1)
      dot_range<T, R>(x, packed, first, last);
    else
      stream_range<T, R>(x, packed, first, last);
  }
}

template <class T>
void multiply(const Product<T>& x) {
  if (few_rows(x)) {
    T* const packed = worker_scratch<T>(0, x.m * x.k);
    pack_few_rows(x, packed);
    const int64_t columns = round_up(larger(1, kPackWork / x.k), 8 * kLanes<T>);
    return parallel_for(divide_up(x.n, columns), [&](int64_t task, int) {
      multiply_few_rows(x, packed, task * columns, smaller(x.n, (task + 1) * columns));
    });
  }
  if (x.m * x.n * x.k <= 2 * kTaskWork) return multiply_serial(x, worker_scratch<T>(0, gemm_scratch<T>(x.m, x.n, x.k)));
  multiply_parallel(x);
}

// The matrices of a batch: leading axes of the three views, walked with the last one fastest.
struct Batch {
  int64_t count = 1;
  int rank = 0;
  int64_t shape[kMaxRank], a[kMaxRank], b[kMaxRank], c[kMaxRank];

  void offsets(int64_t index, int64_t& at_a, int64_t& at_b, int64_t& at_c) const {
    at_a = at_b = at_c = 0;
    for (int axis = rank - 1; axis >= 0; --axis) {
      const int64_t i = index % shape[axis];
      index /= shape[axis];
      at_a += i * a[axis];
      at_b += i * b[axis];
      at_c += i * c[axis];
    }
  }
};

template <class T>
void matmul_of(const In& a, const In& b, const In& bias, const Out& out) {
  Product<T> x = {out.dim(-2),    out.dim(-1),     a.dim(-1),         a.as<const T>(), a.stride(-2),
                  a.stride(-1),   b.as<const T>(), b.stride(-2),      b.stride(-1),    out.as<T>(),
                  out.stride(-2), false,           bias.as<const T>()};
  // One row or column may carry any stride; what matters is that the other says how to walk.
  if (x.n == 1 && x.b_row == 1) x.b_col = x.k;
  if (x.k == 1 && x.b_col == 1) x.b_row = x.n;
  const int lead = out.rank - 2;
  if (x.m == 1 && lead > 0) x.a_row = a.strides[lead - 1], x.c_row = out.strides[lead - 1];
  // A leading axis that shares b and continues the rows of a and c is more rows: a linear layer on [B, T, C] is one
  // product.
  int kept = lead;
  for (; kept > 0; --kept) {
    const int axis = kept - 1;
    if (out.shape[axis] != 1 &&
        (b.strides[axis] != 0 || a.strides[axis] != x.m * x.a_row || out.strides[axis] != x.m * x.c_row))
      break;
    x.m *= out.shape[axis];
  }
  Batch batch;
  for (int axis = 0; axis < kept; ++axis) {
    if (out.shape[axis] == 1) continue;
    batch.shape[batch.rank] = out.shape[axis];
    batch.a[batch.rank] = a.strides[axis];
    batch.b[batch.rank] = b.strides[axis];
    batch.c[batch.rank++] = out.strides[axis];
    batch.count *= out.shape[axis];
  }
  const auto matrix = [&](int64_t index) {
    int64_t at_a, at_b, at_c;
    batch.offsets(index, at_a, at_b, at_c);
    Product<T> y = x;
    y.a += at_a;
    y.b += at_b;
    y.c += at_c;
    return y;
  };
  const int64_t work = x.m * x.n * x.k;
  if (batch.count == 1 || (batch.count < kTasks && work > 8 * kTaskWork)) {
    for (int64_t i = 0; i < batch.count; ++i) multiply(matrix(i));
    return;
  }
  const int64_t per_task = larger(1, kTaskWork / work);
  const int64_t scratch = gemm_scratch<T>(x.m, x.n, x.k);
  parallel_for(divide_up(batch.count, per_task), [&](int64_t task, int worker) {
    T* const mine = worker_scratch<T>(worker, scratch);
    for (int64_t i = task * per_task; i < smaller(batch.count, (task + 1) * per_task); ++i) {
      const Product<T> y = matrix(i);
      gemm_serial(y.m, y.n, y.k, y.a, y.a_row, y.a_col, y.b, y.b_row, y.b_col, y.c, y.c_row, y.accumulate, y.bias,
                  mine);
    }
  });
}

}  // namespace

template <class T>
void gemm(int64_t m, int64_t n, int64_t k, const T* a, int64_t a_row_stride, int64_t a_col_stride, const T* b,
          int64_t b_row_stride, int64_t b_col_stride, T* c, int64_t c_row_stride, bool accumulate, const T* bias) {
  multiply(Product<T>{m, n, k, a, a_row_stride, a_col_stride, b, b_row_stride, b_col_stride, c, c_row_stride,
                      accumulate, bias});
}

template <class T>
int64_t gemm_scratch(int64_t m, int64_t n, int64_t k) {
  const int64_t blocked = slab_elements<T>(n, k) + block_elements<T>(m, k);
  return m <= kFewRows ? larger(blocked, m * k) : blocked;
}

template <class T>
void gemm_serial(int64_t m, int64_t n, int64_t k, const T* a, int64_t a_row_stride, int64_t a_col_stride, const T* b,
                 int64_t b_row_stride, int64_t b_col_stride, T* c, int64_t c_row_stride, bool accumulate, const T* bias,
                 T* scratch) {
  const Product<T> x = {
      m, n, k, a, a_row_stride, a_col_stride, b, b_row_stride, b_col_stride, c, c_row_stride, accumulate, bias};
  if (!few_rows(x)) return multiply_serial(x, scratch);
  pack_few_rows(x, scratch);
  multiply_few_rows(x, scratch, 0, n);
}

template void gemm<float>(int64_t, int64_t, int64_t, const float*, int64_t, int64_t, const float*, int64_t, int64_t,
                          float*, int64_t, bool, const float*);
template void gemm<double>(int64_t, int64_t, int64_t, const double*, int64_t, int64_t, const double*, int64_t, int64_t,
                           double*, int64_t, bool, const double*);
template void gemm_serial<float>(int64_t, int64_t, int64_t, const float*, int64_t, int64_t, const float*, int64_t,
                                 int64_t, float*, int64_t, bool, const float*, float*);
template void gemm_serial<double>(int64_t, int64_t, int64_t, const double*, int64_t, int64_t, const double*, int64_t,
                                  int64_t, double*, int64_t, bool, const double*, double*);
template int64_t gemm_scratch<float>(int64_t, int64_t, int64_t);
template int64_t gemm_scratch<double>(int64_t, int64_t, int64_t);

void CpuKernels::matmul(const In& a, const In& b, const In& bias, const Out& out) {
  if (out.dtype == DType::kF64) return matmul_of<double>(a, b, bias, out);
  matmul_of<float>(a, b, bias, out);
}

}  // namespace llmeff::cpu::LLMEFF_ISA
