// Reductions over any set of axes. Axes are split into those kept and those reduced, and merged where memory allows.
// Two shapes of work:
//   rows     the innermost axis in memory is reduced: each output folds runs of x in vector lanes;
//   columns  it is kept: bands of neighbouring outputs are folded together, one row of x after another.
// float32 folds in float32 over at most kSumChunk elements or kRows rows, and in float64 beyond; products fold in
// float64 throughout, for a part of one may overflow where the whole does not. Long reductions are cut into parts of a
// fixed size whose float64 results are folded in order.
//
// variance and logSumExp fold (x − mean)² and e^(x − max): a first pass finds the mean or the maximum of each output,
// at once before the second where one task does all of it, else over the whole array. That mean is x₀ + mean(x − x₀),
// with x₀ any of the output's elements: of equal numbers it is exact, so that their variance is 0.
#include <cmath>

#include "cpu_kernels.h"
#include "llmeff/error.h"
#include "row_math.h"
#include "runs.h"

namespace llmeff::cpu::LLMEFF_ISA {
namespace {

constexpr int64_t kPart = 65536;      // rows: elements of one part
constexpr int64_t kBand = kRunBlock;  // columns: outputs of one task
constexpr int64_t kRows = 64;         // columns: rows folded in the dtype of x
constexpr int64_t kBandRows = 1024;   // columns: rows of one part

inline constexpr ReduceOp kShiftedMean = static_cast<ReduceOp>(-1);  // the first pass of a variance

template <ReduceOp op>
inline constexpr bool kTwoPass = op == ReduceOp::kVariance || op == ReduceOp::kLogSumExp;
template <ReduceOp op>
inline constexpr ReduceOp kFirstPass = op == ReduceOp::kVariance ? kShiftedMean : ReduceOp::kMax;
// Folds x less a number of its output: x₀, or the result of the first pass.
template <ReduceOp op>
inline constexpr bool kShifted = kTwoPass<op> || op == kShiftedMean;

// What a product is folded in; everything else in the dtype itself.
template <ReduceOp op, class T>
struct FoldedIn {
  using type = T;
};
template <>
struct FoldedIn<ReduceOp::kProd, float> {
  using type = double;
};
template <ReduceOp op, class T>
using Folded = typename FoldedIn<op, T>::type;

template <ReduceOp op>
LLMEFF_INLINE double identity() {
  return op == ReduceOp::kProd  ? 1.0
         : op == ReduceOp::kMax ? -__builtin_inf()
         : op == ReduceOp::kMin ? __builtin_inf()
                                : 0.0;
}
template <ReduceOp op, class T>
LLMEFF_INLINE T identity_of() {
  if constexpr (kIsFloat<T>)
    return static_cast<T>(identity<op>());
  else
    return op == ReduceOp::kMax ? -2147483647 - 1 : 2147483647;
}

template <ReduceOp op, class V>
LLMEFF_INLINE V fold(V x, V running) {
  if constexpr (op == ReduceOp::kMax)
    return nan_max(x, running);
  else if constexpr (op == ReduceOp::kMin)
    return nan_min(x, running);
  else if constexpr (op == ReduceOp::kProd)
    return running * x;
  else
    return running + x;
}

// What is folded of x; `first` is what kShifted takes off.
template <ReduceOp op, class T>
LLMEFF_INLINE Vec<T> mapped(Vec<T> x, Vec<T> first) {
  if constexpr (op == kShiftedMean) return x - first;
  if constexpr (op == ReduceOp::kVariance) return (x - first) * (x - first);
  if constexpr (op == ReduceOp::kLogSumExp) return vexp(x - first);
  return x;
}

template <ReduceOp op, class T>
LLMEFF_INLINE T finish(double folded, int64_t count, T first) {
  if constexpr (op == ReduceOp::kMean || op == ReduceOp::kVariance || op == kShiftedMean)
    folded /= static_cast<double>(count);
  if constexpr (op == kShiftedMean) folded += static_cast<double>(first);
  if constexpr (op == ReduceOp::kLogSumExp) folded = static_cast<double>(first) + std::log(folded);
  return static_cast<T>(folded);
}
// The result of the first pass as the second one takes it: an infinite maximum is not subtracted.
template <ReduceOp op, class T>
LLMEFF_INLINE T first_of(double folded, int64_t count, T x0) {
  const T first = finish<kFirstPass<op>, T>(folded, count, x0);
  return op == ReduceOp::kLogSumExp && absolute(first) == static_cast<T>(__builtin_inf()) ? T(0) : first;
}

// Folds n contiguous numbers of one chunk.
template <ReduceOp op, class T>
LLMEFF_INLINE double fold_chunk(const T* p, int64_t n, T first, double running) {
  using F = Folded<op, T>;
  constexpr int64_t kL = kLanes<T>;
  const int64_t whole = n / kL * kL;
  F lanes[kL];
  for (int64_t j = 0; j < kL; ++j) lanes[j] = identity_of<op, F>();
  if constexpr (op == ReduceOp::kProd) {
    for (int64_t i = 0; i < whole; i += kL)
      for (int64_t j = 0; j < kL; ++j) lanes[j] *= static_cast<F>(p[i + j]);
  } else if (whole > 0) {
    const Vec<T> shift = splat(first);
    Vec<T> a = splat(identity_of<op, T>()), b = a;
    int64_t i = 0;
    for (; i + 2 * kL <= whole; i += 2 * kL) {
      a = fold<op>(mapped<op, T>(load(p + i), shift), a);
      b = fold<op>(mapped<op, T>(load(p + i + kL), shift), b);
    }
    if (i < whole) a = fold<op>(mapped<op, T>(load(p + i), shift), a);
    store(lanes, fold<op>(b, a));
  }
  if (whole > 0) {
    for (int64_t half = kL / 2; half > 0; half /= 2)
      for (int64_t j = 0; j < half; ++j) lanes[j] = fold<op>(lanes[j + half], lanes[j]);
    running = fold<op>(static_cast<double>(lanes[0]), running);
  }
  if (whole < n) {
    T rest[kL];
    store(rest, mapped<op, T>(gather(p + whole, 1, n - whole), splat(first)));
    for (int64_t i = 0; i < n - whole; ++i) running = fold<op>(static_cast<double>(rest[i]), running);
  }
  return running;
}

template <ReduceOp op, class T>
LLMEFF_INLINE double fold_run(Reader<T>& reader, int64_t offset, int64_t n, T first, double running) {
  const int64_t chunk = reader.direct() ? kSumChunk : kRunBlock;
  for (int64_t i = 0; i < n; i += chunk) {
    const int64_t part = smaller(chunk, n - i);
    running = fold_chunk<op, T>(reader.read(offset + i * reader.stride, part), part, first, running);
  }
  return running;
}

// Rows are folded in units: a run of the innermost reduced axis, or a piece of a long one.
struct Units {
  const Loop<1>& reduced;
  int64_t run, piece, pieces, count, per_part, parts;

  explicit Units(const Loop<1>& axes) : reduced(axes), run(axes.inner()), piece(smaller(run, kPart)) {
    pieces = ceil_div(run, piece);
    count = axes.count(axes.rank) / run * pieces;
    per_part = larger(1, kPart / piece);
    parts = ceil_div(count, per_part);
  }
  template <ReduceOp op, class T>
  __attribute__((noinline)) double fold_part(const In& x, int64_t offset, int64_t part, T first) const {
    alignas(64) T block[kRunBlock];
    Reader<T> reader{x, reduced.inner_stride(0), block};
    Cursor<1> at(reduced, reduced.rank - 1, part * per_part / pieces);
    double folded = identity<op>();
    for (int64_t unit = part * per_part; unit < smaller(count, (part + 1) * per_part); ++unit) {
      const int64_t start = unit % pieces * piece;
      folded = fold_run<op, T>(reader, offset + at.offset[0] + start * reader.stride, smaller(piece, run - start),
                               first, folded);
      if (pieces == 1) at.next();
    }
    return folded;
  }
};

template <class T>
LLMEFF_INLINE void put(const Out& out, int64_t offset, T value) {
  Writer<T> writer{out, 1, &value};
  *writer.target(offset) = value;
  writer.flush(offset, 1);
}

// The first element of an output that begins at `offset`.
template <class T>
LLMEFF_INLINE T element(const In& x, int64_t offset) {
  T block;
  return *Reader<T>{x, 1, &block}.read(offset, 1);
}

template <ReduceOp op, class T>
void reduce_rows(const In& x, const Out& out, const Loop<2>& kept, const Loop<1>& reduced) {
  const int64_t outputs = kept.count(kept.rank), length = reduced.count(reduced.rank);
  const Units units(reduced);
  if (units.parts == 1) {
    for_each_row(kept, length, [&](const int64_t* at, int64_t, int) {
      T first = 0;
      if constexpr (kTwoPass<op>) {
        const T x0 = element<T>(x, at[1]);
        first = first_of<op, T>(units.fold_part<kFirstPass<op>, T>(x, at[1], 0, x0), length, x0);
      }
      put(out, at[0], finish<op, T>(units.fold_part<op, T>(x, at[1], 0, first), length, first));
    });
    return;
  }
  double* partial = shared_scratch<double>(outputs * units.parts + outputs);
  double* firsts = partial + outputs * units.parts;
  const auto fold_all = [&]<ReduceOp pass>(const auto& finished) {
    parallel_for(outputs * units.parts, [&](int64_t item, int) {
      const int64_t i = item / units.parts;
      const T first = kShifted<pass> ? static_cast<T>(firsts[i]) : T(0);
      partial[item] = units.fold_part<pass, T>(x, Cursor<2>(kept, kept.rank, i).offset[1], item % units.parts, first);
    });
    for (int64_t i = 0; i < outputs; ++i) {
      double folded = identity<pass>();
      for (int64_t part = 0; part < units.parts; ++part) folded = fold<pass>(partial[i * units.parts + part], folded);
      finished(i, folded);
    }
  };
  if constexpr (kTwoPass<op>) {
    Cursor<2> at(kept, kept.rank, 0);
    for (int64_t i = 0; i < outputs; ++i, at.next()) firsts[i] = static_cast<double>(element<T>(x, at.offset[1]));
    fold_all.template operator()<kFirstPass<op>>([&](int64_t i, double folded) {
      firsts[i] = static_cast<double>(first_of<op, T>(folded, length, static_cast<T>(firsts[i])));
    });
  }
  Cursor<2> output(kept, kept.rank, 0);
  fold_all.template operator()<op>([&](int64_t i, double folded) {
    put(out, output.offset[0], finish<op, T>(folded, length, kTwoPass<op> ? static_cast<T>(firsts[i]) : T(0)));
    output.next();
  });
}

// Columns are folded in bands of outputs, and parts of kBandRows rows.
struct Bands {
  const Loop<2>& kept;
  const Loop<1>& reduced;
  int64_t columns, length, parts, bands, tasks, width;

  Bands(const Loop<2>& outputs, const Loop<1>& axes) : kept(outputs), reduced(axes) {
    columns = kept.inner();
    length = reduced.count(reduced.rank);
    parts = ceil_div(length, kBandRows);
    bands = ceil_div(columns, kBand);
    tasks = kept.count(kept.rank - 1) * bands;
    width = smaller(kBand, columns);
  }
  LLMEFF_INLINE int64_t first_column(int64_t task) const { return task % bands * kBand; }
  LLMEFF_INLINE int64_t width_of(int64_t task) const { return smaller(kBand, columns - first_column(task)); }
  // Where a task's band starts in out (0) or x (1).
  LLMEFF_INLINE int64_t offset_of(int64_t task, int view) const {
    return Cursor<2>(kept, kept.rank - 1, task / bands).offset[view] + first_column(task) * kept.inner_stride(view);
  }
};

// The first row of a band.
template <class T>
LLMEFF_INLINE void first_row(const In& x, const Bands& b, int64_t task, T* row) {
  alignas(64) T block[kBand];
  const T* const p = Reader<T>{x, b.kept.inner_stride(1), block}.read(b.offset_of(task, 1), b.width_of(task));
  for (int64_t j = 0; j < b.width_of(task); ++j) row[j] = p[j];
}

// Folds the rows of one part of a band into folded[]; first[] is what kShifted takes off.
template <ReduceOp op, class T>
void fold_band(const In& x, const Bands& b, int64_t task, int64_t part, const T* first, double* folded) {
  using F = Folded<op, T>;
  constexpr int64_t kL = kLanes<T>;
  const int64_t width = b.width_of(task), offset = b.offset_of(task, 1), whole = width / kL * kL;
  const int64_t rows = smaller(kBandRows, b.length - part * kBandRows);
  Cursor<1> at(b.reduced, b.reduced.rank, part * kBandRows);
  F band[kBand];
  alignas(64) T block[4][kBand];
  const auto fold_row = [&](const T* p) {
    if constexpr (op == ReduceOp::kProd) {
      for (int64_t j = 0; j < width; ++j) band[j] *= static_cast<F>(p[j]);
    } else {
      map_vectors(
          width, [](Vec<T> running, Vec<T> v, Vec<T> shift) { return fold<op>(mapped<op, T>(v, shift), running); },
          band, static_cast<const T*>(band), p, first);
    }
  };
  for (int64_t j = 0; j < width; ++j) folded[j] = identity<op>();
  for (int64_t start = 0; start < rows; start += kRows) {
    for (int64_t j = 0; j < width; ++j) band[j] = identity_of<op, F>();
    const int64_t end = smaller(rows, start + kRows);
    for (int64_t row = start; row < end;) {
      const int64_t together = !kShifted<op> && op != ReduceOp::kProd && row + 4 <= end ? 4 : 1;
      const T* p[4];
      for (int64_t k = 0; k < together; ++k, at.next())
        p[k] = Reader<T>{x, b.kept.inner_stride(1), block[k]}.read(offset + at.offset[0], width);
      row += together;
      if (together == 1) {
        fold_row(p[0]);
      } else if constexpr (op != ReduceOp::kProd) {  // four rows for one pass over the band
        for (int64_t j = 0; j < whole; j += kL) {
          const Vec<T> low = fold<op>(load(p[1] + j), load(p[0] + j)), high = fold<op>(load(p[3] + j), load(p[2] + j));
          store(band + j, fold<op>(fold<op>(high, low), load(band + j)));
        }
        for (int64_t j = whole; j < width; ++j)
          for (int64_t k = 0; k < 4; ++k) band[j] = fold<op>(p[k][j], band[j]);
      }
    }
    for (int64_t j = 0; j < width; ++j) folded[j] = fold<op>(static_cast<double>(band[j]), folded[j]);
  }
}

template <ReduceOp op, class T>
void write_band(const Out& out, const Bands& b, int64_t task, const double* folded, const T* first) {
  alignas(64) T block[kBand];
  const int64_t offset = b.offset_of(task, 0), width = b.width_of(task);
  Writer<T> writer{out, b.kept.inner_stride(0), block};
  T* o = writer.target(offset);
  for (int64_t j = 0; j < width; ++j) o[j] = finish<op, T>(folded[j], b.length, first[j]);
  writer.flush(offset, width);
}

template <ReduceOp op, class T>
void reduce_columns(const In& x, const Out& out, const Loop<2>& kept, const Loop<1>& reduced) {
  const Bands b(kept, reduced);
  if (b.parts == 1) {
    parallel_items(b.tasks, b.width * b.length, [&](int64_t task, int) {
      double folded[kBand];
      alignas(64) T first[kBand] = {};
      if constexpr (kTwoPass<op>) {
        first_row(x, b, task, first);
        fold_band<kFirstPass<op>, T>(x, b, task, 0, first, folded);
        for (int64_t j = 0; j < b.width_of(task); ++j) first[j] = first_of<op, T>(folded[j], b.length, first[j]);
      }
      fold_band<op, T>(x, b, task, 0, first, folded);
      write_band<op, T>(out, b, task, folded, first);
    });
    return;
  }
  double* partial = shared_scratch<double>(b.tasks * (b.parts + 1) * b.width);
  double* firsts = partial + b.tasks * b.parts * b.width;
  const auto load_firsts = [&](int64_t task, T* first) {
    for (int64_t j = 0; j < b.width_of(task); ++j) first[j] = static_cast<T>(firsts[task * b.width + j]);
  };
  const auto fold_all = [&]<ReduceOp pass>(const auto& finished) {
    parallel_items(b.tasks * b.parts, b.width * kBandRows, [&](int64_t item, int) {
      alignas(64) T first[kBand] = {};
      if constexpr (kShifted<pass>) load_firsts(item / b.parts, first);
      fold_band<pass, T>(x, b, item / b.parts, item % b.parts, first, partial + item * b.width);
    });
    parallel_items(b.tasks, b.width * b.parts, [&](int64_t task, int) {
      double* folded = partial + task * b.parts * b.width;
      for (int64_t part = 1; part < b.parts; ++part)
        for (int64_t j = 0; j < b.width_of(task); ++j) folded[j] = fold<pass>(folded[part * b.width + j], folded[j]);
      finished(task, folded);
    });
  };
  if constexpr (kTwoPass<op>) {
    const auto store_firsts = [&](int64_t task, const T* first) {
      for (int64_t j = 0; j < b.width_of(task); ++j) firsts[task * b.width + j] = static_cast<double>(first[j]);
    };
    parallel_items(b.tasks, b.width, [&](int64_t task, int) {
      alignas(64) T first[kBand];
      first_row(x, b, task, first);
      store_firsts(task, first);
    });
    fold_all.template operator()<kFirstPass<op>>([&](int64_t task, const double* folded) {
      alignas(64) T first[kBand] = {};
      load_firsts(task, first);
      for (int64_t j = 0; j < b.width_of(task); ++j) first[j] = first_of<op, T>(folded[j], b.length, first[j]);
      store_firsts(task, first);
    });
  }
  fold_all.template operator()<op>([&](int64_t task, const double* folded) {
    alignas(64) T first[kBand] = {};
    if constexpr (kTwoPass<op>) load_firsts(task, first);
    write_band<op, T>(out, b, task, folded, first);
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
  const bool columns =
      kept.inner() > 1 && (length == 1 || distance(kept.inner_stride(1)) < distance(reduced.inner_stride(0)));
  if (columns)
    reduce_columns<op, T>(x, out, kept, reduced);
  else
    reduce_rows<op, T>(x, out, kept, reduced);
}

template <class T>
void reduce_of(ReduceOp op, const In& x, const Out& out) {
  if (op == ReduceOp::kMax) return reduce_with<ReduceOp::kMax, T>(x, out);
  if (op == ReduceOp::kMin) return reduce_with<ReduceOp::kMin, T>(x, out);
  if constexpr (kIsFloat<T>) {
    switch (op) {
      case ReduceOp::kSum:
        return reduce_with<ReduceOp::kSum, T>(x, out);
      case ReduceOp::kMean:
        return reduce_with<ReduceOp::kMean, T>(x, out);
      case ReduceOp::kProd:
        return reduce_with<ReduceOp::kProd, T>(x, out);
      case ReduceOp::kVariance:
        return reduce_with<ReduceOp::kVariance, T>(x, out);
      default:
        return reduce_with<ReduceOp::kLogSumExp, T>(x, out);
    }
  }
  fail("ERR_DTYPE", "[reduce] operation %d has no kernel for dtype %d", static_cast<int>(op),
       static_cast<int>(x.dtype));
}

}  // namespace

void CpuKernels::reduce(ReduceOp op, const In& x, const Out& out) {
  switch (x.dtype) {
    case DType::kF64:
      return reduce_of<double>(op, x, out);
    case DType::kI32:
    case DType::kU8:
    case DType::kBool:
      return reduce_of<int32_t>(op, x, out);
    default:
      return reduce_of<float>(op, x, out);
  }
}

}  // namespace llmeff::cpu::LLMEFF_ISA
