// Products of rows that lie packed by group (the tokens of each expert): out_e = Σ x_e · w_e, and dw_e = a_eᵀ · b_e.
//
// A task is a tile of one group's result. All groups' tiles are handed out together, so that neither a small group nor
// an empty one leaves threads without work. out: the matrices of some groups at a time are packed, by all threads, then
// multiplied with; a tile is some rows of a group and, where these are few, some columns. dw: a thread packs what it
// needs for its tile, some rows of dw_e, which costs little beside the product over the group's rows. Tiles are cut by
// the counts, and the order of every sum depends on the counts and shapes alone.
#include <cstring>

#include "cpu_kernels.h"
#include "gemm.h"
#include "gemm_tile.h"
#include "llmeff/error.h"
#include "llmeff/parallel.h"

namespace llmeff::cpu::LLMEFF_ISA {
namespace {

constexpr int64_t kPacked = int64_t{1} << 22;  // elements of matrices that are packed at a time, if not one's alone

// Even pieces of a length, multiples of a unit but for the last.
struct Cut {
  int64_t length, piece, pieces;

  Cut(int64_t of, int64_t wanted, int64_t unit)
      : length(of), piece(larger(unit, round_up(ceil_div(of, wanted), unit))), pieces(ceil_div(of, piece)) {}
  int64_t first(int64_t i) const { return i * piece; }
  int64_t size(int64_t i) const { return smaller(piece, length - first(i)); }
};

// A group's result in about `wanted` tiles, or more: by rows, of which a tile has between `least` and `most`, and where
// these are too few by columns too.
struct Tiles {
  Cut rows, columns;

  Tiles(int64_t m, int64_t n, int64_t wanted, int64_t least, int64_t most, int64_t strip)
      : rows(m, larger(larger(1, ceil_div(m, most)), smaller(wanted, m / least)), kPanel),
        columns(n, larger(1, wanted / larger(1, rows.pieces)), strip) {}
  int64_t count() const { return rows.pieces * columns.pieces; }
};

// The first row of every group and, last, the number of all their rows.
const int64_t* group_starts(const char* op, const In& counts, int64_t rows, int64_t* starts) {
  starts[0] = 0;
  for (int64_t e = 0; e < counts.size(); ++e) {
    const int64_t count = counts.as<int32_t>()[e];
    if (count < 0 || count > rows - starts[e])
      fail("ERR_INDEX", "[%s] counts[%lld] is %lld: counts must not be negative, nor more than the %lld rows together",
           op, static_cast<long long>(e), static_cast<long long>(count), static_cast<long long>(rows));
    starts[e + 1] = starts[e] + count;
  }
  return starts;
}

// Tasks of several groups in one list, by the number of tasks before each group.
struct TaskList {
  int64_t* before;
  int64_t groups = 0;

  void add(int64_t tasks) {
    if (groups == 0) before[0] = 0;
    before[groups + 1] = before[groups] + tasks;
    ++groups;
  }
  int64_t count() const { return groups == 0 ? 0 : before[groups]; }
  // The group of task i.
  int64_t group(int64_t i) const {
    int64_t low = 0;
    for (int64_t high = groups; high - low > 1;) {
      const int64_t middle = (low + high) / 2;
      (before[middle] <= i ? low : high) = middle;
    }
    return low;
  }
};

// How many tasks are wanted of a group with `part` of all rows, whose products take `work` in all.
int64_t share(int64_t part, int64_t rows, int64_t work) {
  const int64_t wanted = larger(1, smaller(kGemmTasks, work / kGemmTaskWork));
  return larger(1, ceil_div(part * wanted, larger(1, rows)));
}

Operand operand(const View& x) {
  return {x.data, x.dtype, x.stride(-2), x.stride(-1)};
}
Destination destination(const Out& out, int64_t at) {
  return {static_cast<char*>(out.data) + at * item_size(out.dtype), out.dtype, out.stride(-2)};
}

void clear(const Destination& to, int64_t rows, int64_t columns) {
  for (int64_t i = 0; i < rows; ++i)
    std::memset(static_cast<char*>(to.data) + i * to.row * item_size(to.dtype), 0,
                static_cast<size_t>(columns * item_size(to.dtype)));
}

// Memory of a task: for the sums of an m × n tile where they are rounded in the end, and for each of its products.
template <class T>
struct Room {
  T *sums, *scratch;

  Room(int worker, int64_t m, int64_t n, DType result, int64_t product_scratch) {
    const bool rounded = result == DType::kBF16 || result == DType::kF16;
    const int64_t tile = rounded ? round_up(m * n, 16) : 0;
    sums = worker_scratch<T>(worker, tile + product_scratch);
    scratch = sums + tile;
  }
};

template <class T>
void multiply(const List<In>& xs, const List<In>& ws, const In& counts, const Out& out) {
  const int64_t E = counts.size(), rows = out.dim(0), n = out.dim(1), terms = xs.size;
  int64_t depth = 0, matrix = 0;  // of the terms together, of their packed matrices
  for (int64_t t = 0; t < terms; ++t) {
    depth += xs[t].dim(1);
    matrix += gemm_packed_elements<T>(n, xs[t].dim(1));
  }
  const int64_t together = smaller(E, larger(1, kPacked / matrix)), room = round_up(together * matrix, 16);
  T* const packed = static_cast<T*>(
      shared_scratch_bytes(static_cast<size_t>(room) * sizeof(T) + static_cast<size_t>(2 * (E + 1)) * sizeof(int64_t)));
  int64_t* const numbers = reinterpret_cast<int64_t*>(packed + room);
  const int64_t* const starts = group_starts("groupedMatmul", counts, rows, numbers);
  const auto count = [&](int64_t e) { return starts[e + 1] - starts[e]; };
  const Cut strips(n, ceil_div(n * depth, kGemmPackWork), kStrip<T>);
  for (int64_t e0 = 0; e0 < E; e0 += together) {
    const int64_t end = smaller(E, e0 + together), part = starts[end] - starts[e0];
    const auto tiles = [&](int64_t e) {
      return Tiles(count(e), n, share(count(e), part, part * n * depth), 2 * kPanel, kBlockRows, kStrip<T>);
    };
    TaskList list{numbers + E + 1};
    bool packs = false;
    for (int64_t e = e0; e < end; ++e) {
      list.add(tiles(e).count());
      packs = packs || count(e) > kGemmFewRows;
    }
    parallel_for(packs ? (end - e0) * strips.pieces : 0, [&](int64_t task, int) {
      const int64_t e = e0 + task / strips.pieces, i = task % strips.pieces;
      T* to = packed + (e - e0) * matrix;
      for (int64_t t = 0; t < terms && count(e) > kGemmFewRows; ++t) {
        const int64_t k = xs[t].dim(1);
        gemm_pack<T>(operand(ws[t]).at_offset(e * ws[t].strides[0]), n, k, to, strips.first(i),
                     strips.first(i) + strips.size(i));
        to += gemm_packed_elements<T>(n, k);
      }
    });
    parallel_for(list.count(), [&](int64_t task, int worker) {
      const int64_t e = e0 + list.group(task), tile = task - list.before[e - e0];
      const Tiles cut = tiles(e);
      const int64_t i = tile / cut.columns.pieces, j = tile % cut.columns.pieces;
      const int64_t row = starts[e] + cut.rows.first(i), column = cut.columns.first(j);
      int64_t most = 0;  // which isn't that of the deepest product where rows are few
      for (int64_t t = 0; t < terms; ++t)
        most = larger(most, gemm_scratch<T>(cut.rows.size(i), cut.columns.size(j), xs[t].dim(1)));
      const Room<T> mine(worker, cut.rows.size(i), cut.columns.size(j), out.dtype, most);
      const T* from = packed + (e - e0) * matrix;
      for (int64_t t = 0; t < terms; ++t) {
        const int64_t k = xs[t].dim(1);
        gemm_term<T>(cut.rows.size(i), cut.columns.size(j), k, operand(xs[t]).from(row, 0),
                     operand(ws[t]).at_offset(e * ws[t].strides[0]).from(0, column),
                     {count(e) > kGemmFewRows ? from : nullptr, column, n},
                     destination(out, row * out.stride(0) + column), t == 0, t == terms - 1, mine.sums, mine.scratch);
        from += gemm_packed_elements<T>(n, k);
      }
    });
  }
  parallel_items(rows - starts[E], n,
                 [&](int64_t i, int) { clear(destination(out, (starts[E] + i) * out.stride(0)), 1, n); });
}

template <class T>
void multiply_grad(const In& a, const In& b, const In& counts, const Out& dw) {
  const int64_t E = counts.size(), m = dw.dim(1), n = dw.dim(2);
  int64_t* const numbers = shared_scratch<int64_t>(2 * (E + 1));
  const int64_t* const starts = group_starts("groupedMatmulGrad", counts, a.dim(0), numbers);
  const auto tiles = [&](int64_t e) {
    return Tiles(m, n, share(starts[e + 1] - starts[e], starts[E], starts[E] * m * n), 4 * kPanel, 4 * kBlockRows,
                 kStrip<T>);
  };
  TaskList list{numbers + E + 1};
  for (int64_t e = 0; e < E; ++e) list.add(tiles(e).count());
  parallel_for(list.count(), [&](int64_t task, int worker) {
    const int64_t e = list.group(task), tile = task - list.before[e], k = starts[e + 1] - starts[e];
    const Tiles cut = tiles(e);
    const int64_t i = tile / cut.columns.pieces, j = tile % cut.columns.pieces;
    const int64_t row = cut.rows.first(i), column = cut.columns.first(j);
    const Destination to = destination(dw, e * dw.stride(0) + row * dw.stride(1) + column);
    if (k == 0) return clear(to, cut.rows.size(i), cut.columns.size(j));
    const Room<T> mine(worker, cut.rows.size(i), cut.columns.size(j), dw.dtype,
                       gemm_scratch<T>(cut.rows.size(i), cut.columns.size(j), k));
    gemm_term<T>(cut.rows.size(i), cut.columns.size(j), k, operand(a).from(starts[e], row).transposed(),
                 operand(b).from(starts[e], column), {}, to, true, true, mine.sums, mine.scratch);
  });
}

}  // namespace

void CpuKernels::grouped_matmul(const List<In>& xs, const List<In>& ws, const In& counts, const Out& out) {
  if (out.dtype == DType::kF64) return multiply<double>(xs, ws, counts, out);
  multiply<float>(xs, ws, counts, out);
}

void CpuKernels::grouped_matmul_grad(const In& a, const In& b, const In& counts, const Out& dw) {
  if (dw.dtype == DType::kF64) return multiply_grad<double>(a, b, counts, dw);
  multiply_grad<float>(a, b, counts, dw);
}

}  // namespace llmeff::cpu::LLMEFF_ISA
