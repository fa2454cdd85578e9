// Sum, mean, maximum and minimum over any set of axes. Axes are split into those kept and those reduced, and merged
// where memory allows. Two shapes of work:
//   rows     the innermost axis in memory is reduced: each output folds runs of x in vector lanes;
//   columns  it is kept: bands of neighbouring outputs are folded together, one row of x after another.
// float32 folds in float32 over at most kChunk elements a lane group or kRows rows, and in float64 beyond. Long
// reductions are cut into parts of a fixed size whose float64 results are folded in order.
#include "cpu_kernels.h"
#include "row_math.h"
#include "strided.h"

namespace llmeff::cpu::LLMEFF_ISA {
namespace {

constexpr int64_t kPart = 65536;     // rows: elements of one part
constexpr int64_t kBand = 512;       // columns: outputs of one task
constexpr int64_t kRows = 64;        // columns: rows folded in the dtype of x
constexpr int64_t kBandRows = 1024;  // columns: rows of one part

template <ReduceOp op>
inline constexpr bool kAdds = op == ReduceOp::kSum || op == ReduceOp::kMean;

template <ReduceOp op>
LLMEFF_INLINE double identity() {
  return kAdds<op> ? 0.0 : op == ReduceOp::kMax ? -__builtin_inf() : __builtin_inf();
}
template <ReduceOp op, class V>
LLMEFF_INLINE V fold(V x, V running) {
  if constexpr (kAdds<op>)
    return running + x;
  else if constexpr (op == ReduceOp::kMax)
    return nan_max(x, running);
  else
    return nan_min(x, running);
}

template <ReduceOp op, class T>
double fold_run(const T* p, int64_t stride, int64_t n, double running) {
  constexpr int64_t kL = kLanes<T>;
  const Vec<T> start = splat(static_cast<T>(identity<op>()));
  const int64_t whole = n / kL * kL;
  for (int64_t first = 0; first < whole; first += kSumChunk) {
    const int64_t end = smaller(whole, first + kSumChunk);
    Vec<T> a = start, b = start;
    int64_t i = first;
    if (stride == 1) {
      for (; i + 2 * kL <= end; i += 2 * kL) {
        a = fold<op>(load(p + i), a);
        b = fold<op>(load(p + i + kL), b);
      }
    }
    for (; i < end; i += kL) a = fold<op>(gather(p + i * stride, stride, kL), a);
    a = fold<op>(b, a);
    T lanes[kL];
    store(lanes, a);
    for (int64_t half = kL / 2; half > 0; half /= 2)
      for (int64_t j = 0; j < half; ++j) lanes[j] = fold<op>(lanes[j + half], lanes[j]);
    running = fold<op>(static_cast<double>(lanes[0]), running);
  }
  for (int64_t i = whole; i < n; ++i) running = fold<op>(static_cast<double>(p[i * stride]), running);
  return running;
}

template <ReduceOp op, class T>
LLMEFF_INLINE T finish(double folded, int64_t count) {
  return static_cast<T>(op == ReduceOp::kMean ? folded / static_cast<double>(count) : folded);
}

template <ReduceOp op, class T>
void reduce_rows(const In& x, const Out& out, const Loop<2>& kept, const Loop<1>& reduced) {
  const int64_t outputs = kept.count(kept.rank), length = reduced.count(reduced.rank), run = reduced.inner();
  const int64_t stride = reduced.inner_stride(0);
  // A unit is a run or a piece of a long one; a part is some units.
  const int64_t piece = smaller(run, kPart), pieces = ceil_div(run, piece), units = length / run * pieces;
  const int64_t units_per_part = larger(1, kPart / piece), parts = ceil_div(units, units_per_part);
  double* partial = parts > 1 ? shared_scratch<double>(outputs * parts) : nullptr;
  const auto fold_units = [&](int64_t offset, int64_t first, int64_t end) {
    Cursor<1> at(reduced, reduced.rank - 1, first / pieces);
    double folded = identity<op>();
    for (int64_t unit = first; unit < end; ++unit) {
      const int64_t start = unit % pieces * piece;
      folded =
          fold_run<op>(x.as<T>() + offset + at.offset[0] + start * stride, stride, smaller(piece, run - start), folded);
      if (pieces == 1) at.next();
    }
    return folded;
  };
  if (parts == 1) {
    for_each_row(kept, length, [&](const int64_t* at, int64_t, int) {
      const double folded =
          units == 1 ? fold_run<op>(x.as<T>() + at[1], stride, run, identity<op>()) : fold_units(at[1], 0, units);
      out.as<T>()[at[0]] = finish<op, T>(folded, length);
    });
    return;
  }
  parallel_for(outputs * parts, [&](int64_t item, int) {
    const int64_t first = item % parts * units_per_part;
    partial[item] =
        fold_units(Cursor<2>(kept, kept.rank, item / parts).offset[1], first, smaller(units, first + units_per_part));
  });
  Cursor<2> output(kept, kept.rank, 0);
  for (int64_t i = 0; i < outputs; ++i, output.next()) {
    double folded = identity<op>();
    for (int64_t part = 0; part < parts; ++part) folded = fold<op>(partial[i * parts + part], folded);
    out.as<T>()[output.offset[0]] = finish<op, T>(folded, length);
  }
}

// Folds `rows` rows of a band of `width` columns into folded[].
template <ReduceOp op, class T>
LLMEFF_INLINE void fold_band(const T* x, int64_t stride, int64_t width, Cursor<1>& at, int64_t rows, double* folded) {
  constexpr int64_t kL = kLanes<T>;
  T band[kBand];
  const int64_t whole = stride == 1 ? width / kL * kL : 0;
  for (int64_t j = 0; j < width; ++j) folded[j] = identity<op>();
  for (int64_t first = 0; first < rows; first += kRows) {
    for (int64_t j = 0; j < width; ++j) band[j] = static_cast<T>(identity<op>());
    int64_t row = first;
    const int64_t end = smaller(rows, first + kRows);
    for (; row + 4 <= end; row += 4) {  // four rows for one pass over the band
      const T* p[4];
      for (int64_t k = 0; k < 4; ++k, at.next()) p[k] = x + at.offset[0];
      for (int64_t j = 0; j < whole; j += kL) {
        const Vec<T> a = fold<op>(load(p[1] + j), load(p[0] + j)), b = fold<op>(load(p[3] + j), load(p[2] + j));
        store(band + j, fold<op>(fold<op>(b, a), load(band + j)));
      }
      for (int64_t j = whole; j < width; ++j)
        for (int64_t k = 0; k < 4; ++k) band[j] = fold<op>(p[k][j * stride], band[j]);
    }
    for (; row < end; ++row, at.next()) {
      const T* p = x + at.offset[0];
      for (int64_t j = 0; j < whole; j += kL) store(band + j, fold<op>(load(p + j), load(band + j)));
      for (int64_t j = whole; j < width; ++j) band[j] = fold<op>(p[j * stride], band[j]);
    }
    for (int64_t j = 0; j < width; ++j) folded[j] = fold<op>(static_cast<double>(band[j]), folded[j]);
  }
}

template <ReduceOp op, class T>
void reduce_columns(const In& x, const Out& out, const Loop<2>& kept, const Loop<1>& reduced) {
  const int outer = kept.rank - 1;
  const int64_t columns = kept.inner(), out_stride = kept.inner_stride(0), x_stride = kept.inner_stride(1);
  const int64_t length = reduced.count(reduced.rank), parts = ceil_div(length, kBandRows);
  const int64_t bands = ceil_div(columns, kBand), tasks = kept.count(outer) * bands,
                band_width = smaller(kBand, columns);
  double* partial = parts > 1 ? shared_scratch<double>(tasks * parts * band_width) : nullptr;
  parallel_items(tasks * parts, band_width * smaller(length, kBandRows), [&](int64_t item, int) {
    const int64_t task = item / parts, part = item % parts, first = task % bands * kBand,
                  width = smaller(kBand, columns - first);
    const Cursor<2> output(kept, outer, task / bands);
    Cursor<1> at(reduced, reduced.rank, part * kBandRows);
    double local[kBand];
    double* folded = parts > 1 ? partial + item * band_width : local;
    const T* p = x.as<T>() + output.offset[1] + first * x_stride;
    fold_band<op>(p, x_stride, width, at, smaller(kBandRows, length - part * kBandRows), folded);
    if (parts > 1) return;
    T* o = out.as<T>() + output.offset[0] + first * out_stride;
    for (int64_t j = 0; j < width; ++j) o[j * out_stride] = finish<op, T>(folded[j], length);
  });
  if (parts == 1) return;
  parallel_items(tasks, band_width * parts, [&](int64_t task, int) {
    const int64_t first = task % bands * kBand, width = smaller(kBand, columns - first);
    const Cursor<2> output(kept, outer, task / bands);
    T* o = out.as<T>() + output.offset[0] + first * out_stride;
    double* folded = partial + task * parts * band_width;
    for (int64_t part = 1; part < parts; ++part)
      for (int64_t j = 0; j < width; ++j) folded[j] = fold<op>(folded[part * band_width + j], folded[j]);
    for (int64_t j = 0; j < width; ++j) o[j * out_stride] = finish<op, T>(folded[j], length);
  });
}

template <ReduceOp op, class T>
void reduce_with(const In& x, const Out& out) {
  unsigned reduced_axes = 0;
  for (int axis = 0; axis < x.rank; ++axis)
    if (out.shape[axis] == 1) reduced_axes |= 1u << axis;
  const Loop<2> kept = make_loop<2>({&out, &x}, ~reduced_axes);
  const Loop<1> reduced = make_loop<1>({&x}, reduced_axes);
  const int64_t length = reduced.count(reduced.rank);
  const bool columns = kept.inner() > 1 && (length == 1 || kept.inner_stride(1) < reduced.inner_stride(0));
  if (columns)
    reduce_columns<op, T>(x, out, kept, reduced);
  else
    reduce_rows<op, T>(x, out, kept, reduced);
}

template <class T>
void reduce_of(ReduceOp op, const In& x, const Out& out) {
  switch (op) {
    case ReduceOp::kSum:
      return reduce_with<ReduceOp::kSum, T>(x, out);
    case ReduceOp::kMean:
      return reduce_with<ReduceOp::kMean, T>(x, out);
    case ReduceOp::kMax:
      return reduce_with<ReduceOp::kMax, T>(x, out);
    case ReduceOp::kMin:
      return reduce_with<ReduceOp::kMin, T>(x, out);
  }
}

}  // namespace

void CpuKernels::reduce(ReduceOp op, const In& x, const Out& out) {
  if (x.dtype == DType::kF64)
    reduce_of<double>(op, x, out);
  else
    reduce_of<float>(op, x, out);
}

}  // namespace llmeff::cpu::LLMEFF_ISA
