// Matrix products: c[m, n] = a[m, k] · b[k, n], packed and blocked as in BLIS (Van Zee & van de Geijn 2015).
//
// k is cut into blocks of kDepth and n into slabs of kSlab columns. For each pair the slab of b is packed once, by all
// threads, into strips; then every task takes a tile of c, packs its rows of a and multiplies (gemm_tile.h), and after
// the last block finishes the tile strip by strip while it is in the near caches: activation, rounding to 16 bits. The
// sums of a tile run over k in order, block after block, whoever computes it, so that results depend on the shape
// alone. A few rows (decoding) read b in place instead, since there packing would cost more than the product.
#include "gemm.h"

#include "activation.h"
#include "cpu_kernels.h"
#include "gemm_tile.h"
#include "room.h"
#include "llmeff/parallel.h"

namespace llmeff::cpu::LLMEFF_ISA {
namespace {

constexpr int64_t kDepthBytes = 4096;  // of one column of b in a block: 1024 floats
constexpr int64_t kSlab = 2048;        // columns of b packed at a time
constexpr int64_t kSumRows = 1024;     // rows of sums kept at a time for a result of 16 bits

// body(p) with the operand's memory as numbers of their type.
template <class T, class F>
LLMEFF_INLINE void with_numbers(const Operand& x, const F& body) {
  if constexpr (sizeof(T) == sizeof(float)) {
    if (x.dtype == DType::kBF16) return body(static_cast<const BFloat16*>(x.data));
    if (x.dtype == DType::kF16) return body(static_cast<const Float16*>(x.data));
  }
  body(static_cast<const T*>(x.data));
}

// Where results go beyond the sums themselves: pre = sums, out = activation(sums). Nothing is left to do when `out` is
// absent or holds the sums and there is no activation.
struct Result {
  void* out = nullptr;
  void* pre = nullptr;
  DType dtype = DType::kF32;
  int64_t row = 0;  // stride
  Activation activation = Activation::kNone;

  Result from(int64_t i, int64_t j) const {
    Result part = *this;
    const int64_t offset = (i * row + j) * item_size(dtype);
    if (out != nullptr) part.out = static_cast<char*>(out) + offset;
    if (pre != nullptr) part.pre = static_cast<char*>(pre) + offset;
    return part;
  }
};

// c += or = a·b, or a·b + bias. c may be null where `result` takes everything.
template <class T>
struct Product {
  int64_t m, n, k;
  Operand a, b;
  T* c;
  int64_t c_row;
  bool accumulate;
  const T* bias;
  Result result;

  Product part(int64_t i0, int64_t rows, int64_t j0, int64_t columns) const {
    return {rows,
            columns,
            k,
            a.from(i0, 0),
            b.from(0, j0),
            c == nullptr ? nullptr : c + i0 * c_row + j0,
            c_row,
            accumulate,
            bias == nullptr ? nullptr : bias + j0,
            result.from(i0, j0)};
  }
};

template <class T>
constexpr DType kDTypeOf = sizeof(T) == sizeof(double) ? DType::kF64 : DType::kF32;

template <class S>
LLMEFF_INLINE void narrow_row(const float* from, void* to, int64_t n) {
  for (int64_t i = 0; i < n; ++i) narrow(from[i], static_cast<S*>(to) + i);
}
template <class T>
LLMEFF_INLINE void write_row(const T* from, DType dtype, void* to, int64_t n) {
  if (dtype == kDTypeOf<T>) {
    for (int64_t i = 0; i < n; ++i) static_cast<T*>(to)[i] = from[i];
  } else if constexpr (sizeof(T) == sizeof(float)) {
    if (dtype == DType::kBF16)
      narrow_row<BFloat16>(from, to, n);
    else
      narrow_row<Float16>(from, to, n);
  }
}

// The rows of sums become results; their own memory may be changed.
template <class T>
void finish(const Result& x, T* sums, int64_t row, int64_t m, int64_t n) {
  if (x.out == nullptr || (x.out == sums && x.activation == Activation::kNone && x.pre == nullptr)) return;
  for (int64_t i = 0; i < m; ++i) {
    const Result to = x.from(i, 0);
    T* const from = sums + i * row;
    if (to.pre != nullptr) write_row(from, x.dtype, to.pre, n);
    activate_row(x.activation, from, n);
    if (to.out != from) write_row(from, x.dtype, to.out, n);
  }
}

// ---- packed products

// Blocks of k are cut evenly, so that none is short.
template <class T>
int64_t block_depth(int64_t k) {
  constexpr int64_t kDepth = kDepthBytes / static_cast<int64_t>(sizeof(T));
  return k <= kDepth ? k : ceil_div(k, ceil_div(k, kDepth));
}

template <class T>
int64_t slab_elements(int64_t n, int64_t k) {
  return round_up(round_up(smaller(n, kSlab), kStrip<T>) * block_depth<T>(k) + kLanes<T>, 16);
}
template <class T>
int64_t block_elements(int64_t m, int64_t k) {
  return round_up(smaller(m, kBlockRows) * block_depth<T>(k) + kLanes<T>, 16);
}

// Strips [first, last) of columns [j0, j0 + n) of b, for one block of k.
template <class T>
void pack_strips(const Operand& b, int64_t p0, int64_t depth, int64_t j0, int64_t n, T* strips, int64_t first,
                 int64_t last) {
  with_numbers<T>(b.from(p0, j0), [&](const auto* from) { pack_b(from, b.row, b.col, n, depth, strips, first, last); });
}

// A tile of c for one block of k: rows [i0, i0 + m), columns [j0, j0 + n) by the packed strips that begin there.
template <class T>
void multiply_tile(const Product<T>& x, int64_t i0, int64_t m, int64_t j0, int64_t n, int64_t p0, int64_t depth,
                   const T* strips, T* block) {
  constexpr int64_t N = kStrip<T>;
  const int64_t panel = panel_rows(m), strip_size = N * depth;
  with_numbers<T>(x.a.from(i0, p0), [&](const auto* from) { pack_a(from, x.a.row, x.a.col, m, depth, block, panel); });
  const bool first = p0 == 0, last = p0 + depth == x.k;
  for (int64_t j = 0; j < n; j += N) {
    const int64_t columns = smaller(N, n - j);
    const T* strip = strips + j * depth;
    T* const c = x.c + i0 * x.c_row + j0 + j;
    TileOut<T> out = tile_out(c, x.c_row, x.accumulate || !first);
    if (first && x.bias != nullptr) out.from = x.bias + j0 + j, out.from_row = 0;
    const bool more = j + N < n;
    multiply_strip(m, columns, depth, block, panel, strip, N, out, more ? strip + strip_size : strip,
                   more ? strip_size : 0);
    if (last) finish(x.result.from(i0, j0 + j), c, x.c_row, m, columns);
  }
}

template <class T>
void multiply_serial(const Product<T>& x, T* scratch) {
  T* const block = scratch + slab_elements<T>(x.n, x.k);
  const int64_t depth = block_depth<T>(x.k);
  for (int64_t j0 = 0; j0 < x.n; j0 += kSlab) {
    const int64_t columns = smaller(kSlab, x.n - j0);
    for (int64_t p0 = 0; p0 < x.k; p0 += depth) {
      const int64_t d = smaller(depth, x.k - p0);
      pack_strips(x.b, p0, d, j0, columns, scratch, 0, ceil_div(columns, kStrip<T>));
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
    const int64_t columns = smaller(kSlab, x.n - j0), strip_count = ceil_div(columns, N);
    // Tiles are whole rows of the slab, so that a is packed once; where that makes too few, halves, quarters, …
    const int64_t wanted = larger(1, smaller(kGemmTasks, x.m * columns * depth / kGemmTaskWork));
    const int64_t most = smaller(kBlockRows, larger(2 * kPanel, round_up(ceil_div(x.m, wanted), kPanel)));
    const int64_t rows = round_up(ceil_div(x.m, ceil_div(x.m, most)), kPanel), down = ceil_div(x.m, rows);
    const int64_t across = larger(1, smaller(strip_count, wanted / (2 * down)));
    const int64_t tile_columns = round_up(ceil_div(columns, across), N);
    for (int64_t p0 = 0; p0 < x.k; p0 += depth) {
      const int64_t d = smaller(depth, x.k - p0);
      const int64_t strips_per_task = larger(1, kGemmPackWork / (N * d));
      parallel_for(ceil_div(strip_count, strips_per_task), [&](int64_t task, int) {
        const int64_t first = task * strips_per_task;
        pack_strips(x.b, p0, d, j0, columns, strips, first, smaller(strip_count, first + strips_per_task));
      });
      const int64_t tiles_across = ceil_div(columns, tile_columns);
      parallel_for(down * tiles_across, [&](int64_t task, int worker) {
        const int64_t i0 = task / tiles_across * rows, c0 = task % tiles_across * tile_columns;
        T* const mine = worker == 0 ? strips + slab : worker_scratch<T>(worker, block);
        multiply_tile(x, i0, smaller(rows, x.m - i0), j0 + c0, smaller(tile_columns, columns - c0), p0, d,
                      strips + c0 * d, mine);
      });
    }
  }
}

// ---- few rows

// The part of a vector that n < kLanes numbers fill; the other lanes are zero.
template <class T, class S>
__attribute__((noinline)) Vec<T> load_rest(const S* p, int64_t n) {
  T lanes[kLanes<T>] = {};
  pack_row(p, lanes, n);
  return load(lanes);
}

// One step of dot products of R rows with Q columns.
template <class T, int R, int Q, class F>
LLMEFF_INLINE void dot_step(const T* rows, int64_t row, const F& column, Vec<T> (&sum)[R * Q]) {
#pragma GCC unroll 8
  for (int q = 0; q < Q; ++q) {
    const Vec<T> numbers = column(q);
#pragma GCC unroll 8
    for (int i = 0; i < R; ++i) sum[i * Q + q] += load(rows + i * row) * numbers;
  }
}

// sums[i][j] of R rows of a, [R][k rounded up to whole vectors] with zeros behind, and n columns of b that are
// contiguous in k. Each sum runs in the lanes of one register; those of several columns are added up across the lanes
// together. Where the columns end, the last one stands in for more.
template <class T, int R, class S>
void dot_range(int64_t k, const T* rows, const S* b, int64_t b_col, T* sums, int64_t n) {
  constexpr int L = kLanes<T>, kSums = LLMEFF_VECTOR_BYTES == 64 ? 16 : 8, Q = kSums / R < 8 ? kSums / R : 8;
  constexpr int kTogether = R * Q < L ? R * Q : L;
  const int64_t row = round_up(k, L), whole = k / L * L;
  for (int64_t j = 0; j < n; j += Q) {
    const S* column[Q];
    Vec<T> sum[R * Q];
#pragma GCC unroll 16
    for (int i = 0; i < R * Q; ++i) sum[i] = Vec<T>{};
#pragma GCC unroll 8
    for (int q = 0; q < Q; ++q) column[q] = b + smaller(j + q, n - 1) * b_col;
    for (int64_t p = 0; p < whole; p += L)
      dot_step<T, R, Q>(
          rows + p, row, [&](int q) { return load(column[q] + p); }, sum);
    if (whole < k)
      dot_step<T, R, Q>(
          rows + whole, row, [&](int q) { return load_rest<T>(column[q] + whole, k - whole); }, sum);
    T totals[R * Q];
#pragma GCC unroll 8
    for (int i = 0; i < R * Q; i += kTogether) {
      Vec<T> together[kTogether];
#pragma GCC unroll 16
      for (int q = 0; q < kTogether; ++q) together[q] = sum[i + q];
      const Vec<T> total = sum_lanes(together);
      std::memcpy(totals + i, &total, kTogether * sizeof(T));
    }
    for (int64_t i = 0; i < R; ++i)
      for (int64_t q = 0; q < smaller(Q, n - j); ++q) sums[i * n + j + q] = totals[i * Q + q];
  }
}

// The same for columns that lie side by side, several vectors at a time; a is packed as [k][R].
template <class T, int R, class S>
void stream_range(int64_t k, const T* a, const S* b, int64_t b_row, T* sums, int64_t n) {
  constexpr int64_t L = kLanes<T>;
  constexpr int kWide = R <= 2 ? 8 : kPanel < 8 ? 8 / R : 16 / R;
  int64_t j = 0;
  for (; j + kWide * L <= n; j += kWide * L) micro_tile<T, R, kWide, 1>(k, a, R, b + j, b_row, TileOut<T>{sums + j, n});
  for (; j + L <= n; j += L) micro_tile<T, R, 1, 1>(k, a, R, b + j, b_row, TileOut<T>{sums + j, n});
  if (j == n) return;
  Vec<T> rest[R] = {};
  for (int64_t p = 0; p < k; ++p) {
    const Vec<T> numbers = load_rest<T>(b + p * b_row + j, n - j);
#pragma GCC unroll 8
    for (int i = 0; i < R; ++i) rest[i] += a[p * R + i] * numbers;
  }
  for (int i = 0; i < R; ++i) store_part<T>(sums + i * n + j, rest[i], n - j);
}

// There is code for 1, 2, 4 and 8 rows; other numbers are filled up with rows of zeros.
LLMEFF_INLINE int64_t filled_up(int64_t rows) {
  return rows > 4 ? 8 : rows > 2 ? 4 : rows;
}
template <class T, int R = kGemmFewRows, class S>
void multiply_range(int64_t rows, int64_t k, const T* packed, const S* b, const Operand& x, T* sums, int64_t n) {
  if constexpr (R > 1)
    if (rows < R) return multiply_range<T, R / 2>(rows, k, packed, b, x, sums, n);
  if (x.row == 1)
    dot_range<T, R>(k, packed, b, x.col, sums, n);
  else
    stream_range<T, R>(k, packed, b, x.row, sums, n);
}

// The few rows may be columns: then it is the transposed product that is made, cᵀ = bᵀ·aᵀ.
enum class Few { kNo, kRows, kColumns };
template <class T>
Few few_rows(const Product<T>& x) {
  if (x.m <= kGemmFewRows && (x.b.row == 1 || x.b.col == 1)) return Few::kRows;
  return x.n <= kGemmFewRows && (x.a.row == 1 || x.a.col == 1) ? Few::kColumns : Few::kNo;
}

// One product with few rows, ready to be cut into ranges of columns.
template <class T>
struct FewRows {
  const Product<T>& x;
  const bool swapped;
  const int64_t m, n;  // rows are few
  const int64_t filled;
  const Operand b;
  T* packed;  // rows of whole vectors for dot products with columns of b, else [k][filled]

  FewRows(const Product<T>& of, Few few, T* room)
      : x(of),
        swapped(few == Few::kColumns),
        m(swapped ? x.n : x.m),
        n(swapped ? x.m : x.n),
        filled(filled_up(m)),
        b(swapped ? x.a.transposed() : x.b),
        packed(room) {
    const Operand a = swapped ? x.b.transposed() : x.a;
    const int64_t row = round_up(x.k, kLanes<T>);
    if (filled != m || row != x.k)
      for (int64_t i = 0; i < filled * row; ++i) packed[i] = 0;
    with_numbers<T>(a, [&](const auto* from) {
      if (b.row != 1) return pack_panel(from, a.row, a.col, packed, filled, m, x.k);
      for (int64_t i = 0; i < m; ++i) pack_panel(from + i * a.row, a.col, 0, packed + i * row, 0, x.k, 1);
    });
  }

  // Of `packed`.
  static int64_t elements(int64_t m, int64_t k) {
    return round_up(filled_up(m) * round_up(k, kLanes<T>) + kLanes<T>, 16);
  }
  // Of the `room` of a range.
  static int64_t room(int64_t m, int64_t k) { return 2 * filled_up(m) * range(k); }

  // Columns that make a range: each reads enough of b to be worth a task.
  static int64_t range(int64_t k) { return round_up(smaller(4096, larger(1, kGemmPackWork / k)), 8 * kLanes<T>); }

  void run(int64_t j0, int64_t columns, T* room) const {
    with_numbers<T>(b.from(0, j0),
                    [&](const auto* from) { multiply_range<T>(filled, x.k, packed, from, b, room, columns); });
    if (!swapped) return deliver(0, m, j0, columns, room);
    T* const turned = room + filled * columns;
    for (int64_t i = 0; i < m; ++i)
      for (int64_t j = 0; j < columns; ++j) turned[j * m + i] = room[i * columns + j];
    deliver(j0, columns, 0, m, turned);
  }

 private:
  // A tile of sums, rows touching, goes to c or to the result.
  void deliver(int64_t i0, int64_t rows, int64_t j0, int64_t columns, T* sums) const {
    const Result result = x.result.from(i0, j0);
    T* const c = x.c == nullptr ? nullptr : x.c + i0 * x.c_row + j0;
    for (int64_t i = 0; i < rows; ++i) {
      T* const row = sums + i * columns;
      if (x.bias != nullptr)
        for (int64_t j = 0; j < columns; ++j) row[j] += x.bias[j0 + j];
      if (c == nullptr) continue;
      T* const to = c + i * x.c_row;
      for (int64_t j = 0; j < columns; ++j) to[j] = x.accumulate ? to[j] + row[j] : row[j];
    }
    if (c == nullptr)
      finish(result, sums, columns, rows, columns);
    else
      finish(result, c, x.c_row, rows, columns);
  }
};

// ---- choosing

template <class T>
int64_t few_rows_scratch(int64_t few, int64_t k) {
  return FewRows<T>::elements(few, k) + FewRows<T>::room(few, k);
}

template <class T>
void multiply_few_rows(const Product<T>& x, Few few) {
  const int64_t count = few == Few::kRows ? x.m : x.n, packed = FewRows<T>::elements(count, x.k);
  const int64_t range = FewRows<T>::range(x.k), room = FewRows<T>::room(count, x.k);
  T* const mine = worker_scratch<T>(0, packed + room);
  const FewRows<T> product(x, few, mine);
  parallel_for(ceil_div(product.n, range), [&](int64_t task, int worker) {
    const int64_t j0 = task * range;
    product.run(j0, smaller(range, product.n - j0), worker == 0 ? mine + packed : worker_scratch<T>(worker, room));
  });
}

template <class T>
void multiply_one_thread(const Product<T>& x, T* scratch) {
  const Few few = few_rows(x);
  if (few == Few::kNo) return multiply_serial(x, scratch);
  const FewRows<T> product(x, few, scratch);
  const int64_t range = FewRows<T>::range(x.k);
  for (int64_t j0 = 0; j0 < product.n; j0 += range)
    product.run(j0, smaller(range, product.n - j0), scratch + FewRows<T>::elements(product.m, x.k));
}

template <class T>
void multiply(const Product<T>& x) {
  if (const Few few = few_rows(x); few != Few::kNo) return multiply_few_rows(x, few);
  if (x.m * x.n * x.k <= 2 * kGemmTaskWork)
    multiply_serial(x, worker_scratch<T>(0, gemm_scratch<T>(x.m, x.n, x.k)));
  else
    multiply_parallel(x);
}

// Where the result is of 16 bits the sums need memory of their own: a part of the product at a time.
template <class T, class F>
void for_each_part(const Product<T>& x, T* sums, const F& run) {
  if (x.c != nullptr || few_rows(x) != Few::kNo) return run(x);
  for (int64_t i0 = 0; i0 < x.m; i0 += kSumRows)
    for (int64_t j0 = 0; j0 < x.n; j0 += kSlab) {
      Product<T> part = x.part(i0, smaller(kSumRows, x.m - i0), j0, smaller(kSlab, x.n - j0));
      part.c = sums;
      part.c_row = part.n;
      run(part);
    }
}
template <class T>
int64_t sum_elements(const Product<T>& x) {
  return x.c != nullptr ? 0 : smaller(kSumRows, x.m) * smaller(kSlab, x.n);
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

// The bias as numbers of T.
template <class T>
const T* read_bias(const In& bias, T* room) {
  if (!bias.present() || bias.dtype == kDTypeOf<T>) return bias.as<const T>();
  with_numbers<T>({bias.data, bias.dtype, 0, 1}, [&](const auto* from) { pack_row(from, room, bias.dim(-1)); });
  return room;
}

template <class T>
void matmul_of(const In& a, const In& b, const In& bias, Activation activation, const Out& pre, const Out& out) {
  const bool same = out.dtype == kDTypeOf<T>;
  Product<T> x = {out.dim(-2),
                  out.dim(-1),
                  a.dim(-1),
                  {a.data, a.dtype, a.stride(-2), a.stride(-1)},
                  {b.data, b.dtype, b.stride(-2), b.stride(-1)},
                  same ? out.as<T>() : nullptr,
                  out.stride(-2),
                  false,
                  nullptr,
                  {out.data, pre.data, out.dtype, out.stride(-2), activation}};
  // One row or column may carry any stride; what matters is that the other says how to walk.
  if (x.n == 1 && x.b.row == 1) x.b.col = x.k;
  if (x.k == 1 && x.b.col == 1) x.b.row = x.n;
  if (x.m == 1 && x.a.col == 1) x.a.row = x.k;
  if (x.k == 1 && x.a.row == 1) x.a.col = x.m;
  const int lead = out.rank - 2;
  const bool one_b = b.rank == 2;  // serves all leading axes
  if (x.m == 1 && lead > 0) x.a.row = a.strides[lead - 1], x.c_row = x.result.row = out.strides[lead - 1];
  // A leading axis that shares b and continues the rows of a and c is more rows: a linear layer on [B, T, C] is one
  // product.
  int kept = lead;
  for (; kept > 0; --kept) {
    const int axis = kept - 1;
    if (out.shape[axis] != 1 &&
        ((!one_b && b.strides[axis] != 0) || a.strides[axis] != x.m * x.a.row || out.strides[axis] != x.m * x.c_row))
      break;
    x.m *= out.shape[axis];
  }
  Batch batch;
  for (int axis = 0; axis < kept; ++axis) {
    if (out.shape[axis] == 1) continue;
    batch.shape[batch.rank] = out.shape[axis];
    batch.a[batch.rank] = a.strides[axis];
    batch.b[batch.rank] = one_b ? 0 : b.strides[axis];
    batch.c[batch.rank++] = out.strides[axis];
    batch.count *= out.shape[axis];
  }
  const auto matrix = [&](int64_t index) {
    int64_t at_a, at_b, at_c;
    batch.offsets(index, at_a, at_b, at_c);
    Product<T> y = x;
    y.a = x.a.at_offset(at_a);
    y.b = x.b.at_offset(at_b);
    y.result = x.result.from(0, at_c);
    if (same) y.c += at_c;
    return y;
  };
  const int64_t work = x.m * x.n * x.k, sums = round_up(sum_elements(x), 16);
  const bool in_turn = batch.count == 1 || (batch.count < kGemmTasks && work > 8 * kGemmTaskWork);
  T* const shared = shared_scratch<T>((in_turn ? sums : 0) + x.n);
  x.bias = read_bias<T>(bias, shared + (in_turn ? sums : 0));
  if (in_turn) {
    for (int64_t i = 0; i < batch.count; ++i)
      for_each_part(matrix(i), shared, [](const Product<T>& part) { multiply(part); });
    return;
  }
  const int64_t per_task = larger(1, kGemmTaskWork / work);
  const int64_t scratch = round_up(gemm_scratch<T>(x.m, x.n, x.k), 16);
  parallel_for(ceil_div(batch.count, per_task), [&](int64_t task, int worker) {
    T* const mine = worker_scratch<T>(worker, scratch + sums);
    for (int64_t i = task * per_task; i < smaller(batch.count, (task + 1) * per_task); ++i)
      for_each_part(matrix(i), mine + scratch, [&](const Product<T>& part) { multiply_one_thread(part, mine); });
  });
}

template <class T>
Product<T> plain_product(int64_t m, int64_t n, int64_t k, const T* a, int64_t a_row_stride, int64_t a_col_stride,
                         const T* b, int64_t b_row_stride, int64_t b_col_stride, T* c, int64_t c_row_stride,
                         bool accumulate) {
  return {m,
          n,
          k,
          {a, kDTypeOf<T>, a_row_stride, a_col_stride},
          {b, kDTypeOf<T>, b_row_stride, b_col_stride},
          c,
          c_row_stride,
          accumulate,
          nullptr,
          {}};
}

}  // namespace

template <class T>
void gemm(int64_t m, int64_t n, int64_t k, const T* a, int64_t a_row_stride, int64_t a_col_stride, const T* b,
          int64_t b_row_stride, int64_t b_col_stride, T* c, int64_t c_row_stride, bool accumulate) {
  multiply(plain_product(m, n, k, a, a_row_stride, a_col_stride, b, b_row_stride, b_col_stride, c, c_row_stride,
                         accumulate));
}

template <class T>
int64_t gemm_scratch(int64_t m, int64_t n, int64_t k) {
  const int64_t blocked = slab_elements<T>(n, k) + block_elements<T>(m, k);
  const int64_t few = larger(m <= kGemmFewRows ? m : 0, n <= kGemmFewRows ? n : 0);
  return few > 0 ? larger(blocked, few_rows_scratch<T>(few, k)) : blocked;
}

template <class T>
void gemm_serial(int64_t m, int64_t n, int64_t k, const T* a, int64_t a_row_stride, int64_t a_col_stride, const T* b,
                 int64_t b_row_stride, int64_t b_col_stride, T* c, int64_t c_row_stride, bool accumulate, T* scratch) {
  multiply_one_thread(
      plain_product(m, n, k, a, a_row_stride, a_col_stride, b, b_row_stride, b_col_stride, c, c_row_stride, accumulate),
      scratch);
}

template <class T>
int64_t gemm_packed_elements(int64_t n, int64_t k) {
  return round_up(n, kStrip<T>) * k;
}

template <class T>
void gemm_pack(const Operand& b, int64_t n, int64_t k, T* packed, int64_t first, int64_t last) {
  const int64_t depth = block_depth<T>(k), width = round_up(n, kStrip<T>);
  for (int64_t p0 = 0; p0 < k; p0 += depth)
    pack_strips(b, p0, smaller(depth, k - p0), 0, n, packed + p0 * width, first / kStrip<T>, ceil_div(last, kStrip<T>));
}

template <class T>
void gemm_term(int64_t m, int64_t n, int64_t k, const Operand& a, const Operand& b, const PackedFactor<T>& packed,
               const Destination& c, bool first, bool last, T* sums, T* scratch) {
  const bool same = c.dtype == kDTypeOf<T>;
  Product<T> x = {m, n, k, a, b, same ? static_cast<T*>(c.data) : sums, same ? c.row : n, !first, nullptr, {}};
  if (last) x.result = {c.data, nullptr, c.dtype, c.row};
  if (packed.data == nullptr) return multiply_one_thread(x, scratch);
  const int64_t depth = block_depth<T>(k), width = round_up(packed.columns, kStrip<T>);
  for (int64_t i0 = 0; i0 < m; i0 += kBlockRows)
    for (int64_t p0 = 0; p0 < k; p0 += depth) {
      const int64_t d = smaller(depth, k - p0);
      multiply_tile(x, i0, smaller(kBlockRows, m - i0), 0, n, p0, d, packed.data + p0 * width + packed.first * d,
                    scratch);
    }
}

template void gemm<float>(int64_t, int64_t, int64_t, const float*, int64_t, int64_t, const float*, int64_t, int64_t,
                          float*, int64_t, bool);
template void gemm<double>(int64_t, int64_t, int64_t, const double*, int64_t, int64_t, const double*, int64_t, int64_t,
                           double*, int64_t, bool);
template void gemm_serial<float>(int64_t, int64_t, int64_t, const float*, int64_t, int64_t, const float*, int64_t,
                                 int64_t, float*, int64_t, bool, float*);
template void gemm_serial<double>(int64_t, int64_t, int64_t, const double*, int64_t, int64_t, const double*, int64_t,
                                  int64_t, double*, int64_t, bool, double*);
template int64_t gemm_scratch<float>(int64_t, int64_t, int64_t);
template int64_t gemm_scratch<double>(int64_t, int64_t, int64_t);
template int64_t gemm_packed_elements<float>(int64_t, int64_t);
template int64_t gemm_packed_elements<double>(int64_t, int64_t);
template void gemm_pack<float>(const Operand&, int64_t, int64_t, float*, int64_t, int64_t);
template void gemm_pack<double>(const Operand&, int64_t, int64_t, double*, int64_t, int64_t);
template void gemm_term<float>(int64_t, int64_t, int64_t, const Operand&, const Operand&, const PackedFactor<float>&,
                               const Destination&, bool, bool, float*, float*);
template void gemm_term<double>(int64_t, int64_t, int64_t, const Operand&, const Operand&, const PackedFactor<double>&,
                                const Destination&, bool, bool, double*, double*);

void CpuKernels::matmul(const In& a, const In& b, const In& bias, Activation activation, const Out& pre,
                        const Out& out) {
  if (out.dtype == DType::kF64) return matmul_of<double>(a, b, bias, activation, pre, out);
  matmul_of<float>(a, b, bias, activation, pre, out);
}

namespace {

In transposed(const In& weight) {
  In turned = weight;
  turned.shape[0] = weight.shape[1], turned.shape[1] = weight.shape[0];
  turned.strides[0] = weight.strides[1], turned.strides[1] = weight.strides[0];
  return turned;
}

}  // namespace

void CpuKernels::linear_many(const In& x, const In& norm, double norm_offset, double eps, const List<In>& weights,
                             const Out& out) {
  if (norm.present()) {
    const Room room("linearMany", x.size() * item_size(x.dtype));
    const View normed = packed(room.data, x);
    rms_norm(x, In{}, norm, norm_offset, eps, Out{}, Out{normed}, Out{});
    return linear_many(In{normed}, In{}, 0, 0, weights, out);
  }
  int64_t first = 0;
  for (int64_t i = 0; i < weights.size; ++i) {
    Out part = out;
    part.data = out.as<char>() + first * item_size(out.dtype);
    part.shape[out.rank - 1] = weights[i].shape[0];
    matmul(x, transposed(weights[i]), In{}, Activation::kNone, Out{}, part);
    first += weights[i].shape[0];
  }
}

void CpuKernels::linear_add(const In& x, const In& weight, const In& residual, const Out& out) {
  matmul(x, transposed(weight), In{}, Activation::kNone, Out{}, out);
  In product;
  static_cast<View&>(product) = out;
  binary(BinaryOp::kAdd, residual, product, out);
}

}  // namespace llmeff::cpu::LLMEFF_ISA
