// The first position of the maximum or minimum along the last axis; the first NaN where there is one.
//   rows     the extreme of each short block in vector lanes, then the position in the best block alone; long rows are
//            cut into parts;
//   columns  the axis is not the innermost in memory: values and positions of a band of neighbouring rows together.
#include "cpu_kernels.h"
#include "strided.h"

namespace llmeff::cpu::LLMEFF_ISA {
namespace {

constexpr int64_t kSearch = 512;  // elements of a block
constexpr int64_t kPart = 65536;  // elements of a part of a long row
constexpr int64_t kBand = 256;    // columns of one task

// Whether x takes the place of an earlier best; NaN is better than any number.
template <bool kMaximum, class T>
LLMEFF_INLINE bool better(T x, T best) {
  return (kMaximum ? x > best : x < best) || (x != x && best == best);
}
template <bool kMaximum, class V>
LLMEFF_INLINE V keep_better(V x, V best) {
  if constexpr (kMaximum)
    return x > best || x != x ? x : best;
  else
    return x < best || x != x ? x : best;
}

template <bool kMaximum, class T>
T extreme(const T* p, int64_t n) {
  constexpr int64_t kL = kLanes<T>;
  T best = p[0];
  int64_t i = 0;
  if (n >= 2 * kL) {
    Vec<T> a = load(p), b = load(p + kL);
    for (i = 2 * kL; i + 2 * kL <= n; i += 2 * kL) {
      a = keep_better<kMaximum>(load(p + i), a);
      b = keep_better<kMaximum>(load(p + i + kL), b);
    }
    T lanes[kL];
    store(lanes, keep_better<kMaximum>(b, a));
    for (int64_t k = 0; k < kL; ++k) best = keep_better<kMaximum>(lanes[k], best);
  }
  for (; i < n; ++i) best = keep_better<kMaximum>(p[i], best);
  return best;
}

template <bool kMaximum, class T>
int64_t position_of_best(const T* p, int64_t n) {
  T best = extreme<kMaximum>(p, smaller(kSearch, n));
  int64_t at = 0;
  for (int64_t start = kSearch; start < n; start += kSearch) {
    const T x = extreme<kMaximum>(p + start, smaller(kSearch, n - start));
    if (better<kMaximum>(x, best)) best = x, at = start;
  }
  while (!(p[at] == best || (p[at] != p[at] && best != best))) ++at;
  return at;
}

template <bool kMaximum, class T>
void rows(const In& x, int32_t* out, const Loop<1>& kept) {
  const int64_t n = x.dim(-1), stride = x.stride(-1), count = kept.count(kept.rank);
  const int64_t part = smaller(n, kPart), parts = ceil_div(n, part);
  int32_t* positions = parts > 1 ? shared_scratch<int32_t>(count * parts) : out;
  parallel_items(count * parts, part, [&](int64_t item, int worker) {
    const int64_t first = item % parts * part, size = smaller(part, n - first);
    const T* p = x.as<T>() + Cursor<1>(kept, kept.rank, item / parts).offset[0] + first * stride;
    if (stride != 1) {
      T* packed = worker_scratch<T>(worker, part);
      for (int64_t i = 0; i < size; ++i) packed[i] = p[i * stride];
      p = packed;
    }
    positions[item] = static_cast<int32_t>(first + position_of_best<kMaximum>(p, size));
  });
  if (parts == 1) return;
  for (int64_t row = 0; row < count; ++row) {
    const T* p = x.as<T>() + Cursor<1>(kept, kept.rank, row).offset[0];
    int32_t best = positions[row * parts];
    for (int64_t i = 1; i < parts; ++i) {
      const int32_t other = positions[row * parts + i];
      if (better<kMaximum>(p[other * stride], p[best * stride])) best = other;
    }
    out[row] = best;
  }
}

template <bool kMaximum, class T>
void columns(const In& x, int32_t* out, const Loop<1>& kept) {
  const int outer = kept.rank - 1;
  const int64_t n = x.dim(-1), stride = x.stride(-1), width = kept.inner(), sx = kept.inner_stride(0);
  const int64_t bands = ceil_div(width, kBand);
  parallel_items(kept.count(outer) * bands, n * smaller(width, kBand), [&](int64_t item, int) {
    const int64_t start = item % bands * kBand, band = smaller(kBand, width - start);
    const T* __restrict p = x.as<T>() + Cursor<1>(kept, outer, item / bands).offset[0] + start * sx;
    T best[kBand];
    int32_t at[kBand] = {};
    for (int64_t j = 0; j < band; ++j) best[j] = p[j * sx];
    for (int64_t i = 1; i < n; ++i) {
      const T* __restrict q = p + i * stride;
      for (int64_t j = 0; j < band; ++j) {
        const T value = q[j * sx];
        const bool wins = better<kMaximum>(value, best[j]);
        best[j] = wins ? value : best[j];
        at[j] = wins ? static_cast<int32_t>(i) : at[j];
      }
    }
    for (int64_t j = 0; j < band; ++j) out[item / bands * width + start + j] = at[j];
  });
}

template <bool kMaximum, class T>
void arg_reduce_as(const In& x, const Out& out) {
  const Loop<1> kept = make_loop<1>({&x}, leading_axes(x.rank - 1));
  if (kept.inner() > 1 && distance(kept.inner_stride(0)) < distance(x.stride(-1)))
    columns<kMaximum, T>(x, out.as<int32_t>(), kept);
  else
    rows<kMaximum, T>(x, out.as<int32_t>(), kept);
}

template <class T>
void arg_reduce_of(ReduceOp op, const In& x, const Out& out) {
  if (op == ReduceOp::kMax)
    arg_reduce_as<true, T>(x, out);
  else
    arg_reduce_as<false, T>(x, out);
}

}  // namespace

void CpuKernels::arg_reduce(ReduceOp op, const In& x, const Out& out) {
  if (x.dtype == DType::kF64)
    arg_reduce_of<double>(op, x, out);
  else if (x.dtype == DType::kI32)
    arg_reduce_of<int32_t>(op, x, out);
  else
    arg_reduce_of<float>(op, x, out);
}

void CpuKernels::likeliest(const In& x, const Out& ids, const Out& found) {
  const auto row = [&](int64_t i) {
    Out part = found;
    part.data = found.as<char>() + i * found.strides[0] * item_size(found.dtype);
    part.shape[0] = x.shape[0], part.shape[1] = 1;
    part.strides[0] = part.strides[1] = 1;
    return part;
  };
  arg_reduce(ReduceOp::kMax, x, ids);
  Out positions = row(0);
  positions.rank = 1;
  In of_ids;
  static_cast<View&>(of_ids) = ids;
  copy(of_ids, positions);
  reduce(ReduceOp::kMax, x, row(1));
  reduce(ReduceOp::kLogSumExp, x, row(2));
}

}  // namespace llmeff::cpu::LLMEFF_ISA
