// Products of rows that lie packed by group (the tokens of each expert): out_e = Σ x_e · w_e, and dw_e = a_eᵀ · b_e.
//
// A task is a tile of one group's result, which its thread multiplies alone and packs its own operands for: tiles are
// large enough for that to cost a few percent. All groups' tiles are handed out together, so that neither a small group
// nor an empty one leaves threads without work. Tiles are cut by the counts, and the order of every sum depends on the
// counts and shapes alone.
#include <cstring>

#include "cpu_kernels.h"
#include "gemm.h"
#include "gemm_tile.h"
#include "llmeff/error.h"
#include "llmeff/parallel.h"

namespace llmeff::cpu::LLMEFF_ISA {
namespace {

constexpr int64_t kTileRows = 448 / kPanel * kPanel, kTileColumns = 512;
constexpr int64_t kTasks = 32;                   // to aim at
constexpr int64_t kTaskWork = int64_t{1} << 19;  // multiply-adds that make a task worth handing out

// Even pieces of a length, whole panels or strips but for the last.
struct Cut {
  int64_t length, piece, pieces;

  Cut(int64_t of, int64_t wanted, int64_t unit)
      : length(of), piece(round_up(ceil_div(of, larger(1, wanted)), unit)), pieces(ceil_div(of, larger(1, piece))) {}
  int64_t first(int64_t i) const { return i * piece; }
  int64_t size(int64_t i) const { return smaller(piece, length - first(i)); }
};

template <class T>
Cut cut_columns(int64_t columns, int64_t wanted) {
  return Cut(columns, larger(wanted, ceil_div(columns, kTileColumns)), kStrip<T>);
}
Cut cut_rows(int64_t rows, int64_t wanted = 1) {
  return Cut(rows, larger(wanted, ceil_div(rows, kTileRows)), kPanel);
}
int64_t wanted_tasks(int64_t work) {
  return larger(1, smaller(kTasks, work / kTaskWork));
}

// The first row of every group and, last, the number of all their rows.
const int64_t* group_starts(const char* op, const In& counts, int64_t rows, int64_t* starts) {
  starts[0] = 0;
  for (int64_t e = 0; e < counts.size(); ++e) {
    const int64_t count = counts.as<int32_t>()[e];
    if (count < 0 || count > rows - starts[e])
      fail("ERR_INDEX", "[%s] counts[%lld] is %lld, of the %lld rows %lld are left", op, static_cast<long long>(e),
           static_cast<long long>(count), static_cast<long long>(rows), static_cast<long long>(rows - starts[e]));
    starts[e + 1] = starts[e] + count;
  }
  return starts;
}

// The group that item i belongs to, by the first item of each.
int64_t group_of(const int64_t* firsts, int64_t groups, int64_t i) {
  int64_t low = 0;
  for (int64_t high = groups; high - low > 1;) {
    const int64_t middle = (low + high) / 2;
    (firsts[middle] <= i ? low : high) = middle;
  }
  return low;
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

// Room of a task for one product, and for the sums of a tile that is rounded in the end.
template <class T>
struct Room {
  T *sums, *scratch;

  Room(int worker, int64_t m, int64_t n, int64_t k, DType result) {
    const bool rounded = result == DType::kBF16 || result == DType::kF16;
    const int64_t tile = rounded ? round_up(m * n, 16) : 0;
    sums = worker_scratch<T>(worker, tile + gemm_scratch<T>(m, n, k));
    scratch = sums + tile;
  }
};

template <class T>
void multiply(const List<In>& xs, const List<In>& ws, const In& counts, const Out& out) {
  const int64_t E = counts.size(), rows = out.dim(0), n = out.dim(1);
  int64_t work = 0, deepest = 0;  // of a row, per column
  for (int64_t t = 0; t < xs.size; ++t) work += xs[t].dim(1), deepest = larger(deepest, xs[t].dim(1));
  int64_t* const room = shared_scratch<int64_t>(2 * (E + 1));
  const int64_t* const starts = group_starts("groupedMatmul", counts, rows, room);
  int64_t* const first_tiles = room + E + 1;
  first_tiles[0] = 0;
  for (int64_t e = 0; e < E; ++e) first_tiles[e + 1] = first_tiles[e] + cut_rows(starts[e + 1] - starts[e]).pieces;
  const int64_t tiles = first_tiles[E], wanted = wanted_tasks(starts[E] * n * work);
  const Cut columns = cut_columns<T>(n, ceil_div(wanted, larger(1, tiles)));
  parallel_for(tiles * columns.pieces, [&](int64_t task, int worker) {
    const int64_t tile = task / columns.pieces, j = task % columns.pieces;
    const int64_t e = group_of(first_tiles, E, tile), i = tile - first_tiles[e];
    const Cut cut = cut_rows(starts[e + 1] - starts[e]);
    const int64_t row = starts[e] + cut.first(i), column = columns.first(j);
    const Room<T> room(worker, cut.size(i), columns.size(j), deepest, out.dtype);
    for (int64_t t = 0; t < xs.size; ++t)
      gemm_term<T>(cut.size(i), columns.size(j), xs[t].dim(1), operand(xs[t]).from(row, 0),
                   operand(ws[t]).at_offset(e * ws[t].strides[0]).from(0, column),
                   destination(out, row * out.stride(0) + column), t == 0, t == xs.size - 1, room.sums, room.scratch);
  });
  parallel_items(rows - starts[E], n, [&](int64_t i, int) {
    clear(destination(out, (starts[E] + i) * out.stride(0)), 1, n);
  });
}

template <class T>
void multiply_grad(const In& a, const In& b, const In& counts, const Out& dw) {
  const int64_t E = counts.size(), m = dw.dim(1), n = dw.dim(2), matrix = dw.stride(0);
  const int64_t* const starts =
      group_starts("groupedMatmulGrad", counts, a.dim(0), shared_scratch<int64_t>(E + 1));
  const int64_t wanted = ceil_div(wanted_tasks(starts[E] * m * n), E);
  const Cut rows = cut_rows(m), columns = cut_columns<T>(n, ceil_div(wanted, rows.pieces));
  parallel_for(E * rows.pieces * columns.pieces, [&](int64_t task, int worker) {
    const int64_t tile = task / columns.pieces, j = task % columns.pieces;
    const int64_t e = tile / rows.pieces, i = tile % rows.pieces, k = starts[e + 1] - starts[e];
    const int64_t row = rows.first(i), column = columns.first(j);
    const Destination to = destination(dw, e * matrix + row * dw.stride(1) + column);
    if (k == 0) return clear(to, rows.size(i), columns.size(j));
    const Room<T> room(worker, rows.size(i), columns.size(j), k, dw.dtype);
    gemm_term<T>(rows.size(i), columns.size(j), k, operand(a).from(starts[e], row).transposed(),
                 operand(b).from(starts[e], column), to, true, true, room.sums, room.scratch);
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
