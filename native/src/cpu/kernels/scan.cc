// Running sums. Each addition waits for the one before, so several go on side by side:
//   columns  the axis is not the innermost in memory: a band of neighbouring columns in vector lanes;
//   chains   it is: kChains rows at a time, or, where rows are few and long, pieces of a row, whose starting values
//            come from a first pass that sums the pieces.
#include "cpu_kernels.h"
#include "strided.h"

namespace llmeff::cpu::LLMEFF_ISA {
namespace {

constexpr int64_t kBand = 256;     // columns of one task
constexpr int64_t kChains = 4;     // as many as have their pointers in registers
constexpr int64_t kPiece = 4096;   // elements of a piece of a long row
constexpr int64_t kManyRows = 64;  // rows that need not be cut

template <class T>
struct TotalOf {
  using type = double;
};
template <>
struct TotalOf<uint32_t> {
  using type = uint32_t;
};
template <class T>
using Total = typename TotalOf<T>::type;

// Which way a scan goes over x and out.
struct Steps {
  int64_t x, out;
};

template <class T>
struct Chain {
  const T* from;
  T* to;
  int64_t n;
  Total<T> sum;
};

template <class T>
void scan_chains(Chain<T> (&chains)[kChains], int64_t count, Steps step) {
  int64_t together = count == kChains ? chains[0].n : 0;
  for (int64_t k = 1; k < kChains; ++k) together = smaller(together, chains[k].n);
  Total<T> sum[kChains];
  const T* from[kChains];
  T* to[kChains];
  for (int64_t k = 0; k < kChains; ++k) sum[k] = chains[k].sum, from[k] = chains[k].from, to[k] = chains[k].to;
  for (int64_t i = 0; i < together; ++i)
    for (int64_t k = 0; k < kChains; ++k) to[k][i * step.out] = static_cast<T>(sum[k] += from[k][i * step.x]);
  for (int64_t k = 0; k < count; ++k)
    for (int64_t i = together; i < chains[k].n; ++i)
      to[k][i * step.out] = static_cast<T>(sum[k] += from[k][i * step.x]);
}

template <class T>
Total<T> sum_of(const T* p, int64_t stride, int64_t n) {
  constexpr int64_t kSums = 8;
  Total<T> sums[kSums] = {};
  int64_t i = 0;
  for (; i + kSums <= n; i += kSums)
    for (int64_t k = 0; k < kSums; ++k) sums[k] += p[(i + k) * stride];
  for (; i < n; ++i) sums[0] += p[i * stride];
  for (int64_t k = 1; k < kSums; ++k) sums[0] += sums[k];
  return sums[0];
}

// `first` are the offsets at which a scan of the position at offset 0 begins.
template <class T>
void scan_rows(const In& x, const Out& out, const Loop<2>& others, Steps first, Steps step, int64_t length) {
  const int64_t rows = others.count(others.rank);
  const int64_t piece = rows < kManyRows ? smaller(length, kPiece) : length, pieces = ceil_div(length, piece);
  const int64_t units = rows * pieces;
  const auto chain_of = [&](int64_t unit) {
    const Cursor<2> at(others, others.rank, unit / pieces);
    const int64_t start = unit % pieces * piece;
    return Chain<T>{x.as<T>() + at.offset[0] + first.x + start * step.x,
                    out.as<T>() + at.offset[1] + first.out + start * step.out, smaller(piece, length - start),
                    Total<T>{}};
  };
  Total<T>* starts = nullptr;
  if (pieces > 1) {
    starts = shared_scratch<Total<T>>(units);
    parallel_items(units, piece, [&](int64_t unit, int) {
      const Chain<T> chain = chain_of(unit);
      starts[unit] = sum_of(chain.from, step.x, chain.n);
    });
    for (int64_t row = 0; row < rows; ++row) {
      Total<T> running = {};
      for (int64_t unit = row * pieces; unit < (row + 1) * pieces; ++unit) {
        const Total<T> sum = starts[unit];
        starts[unit] = running;
        running += sum;
      }
    }
  }
  parallel_items(ceil_div(units, kChains), piece * kChains, [&](int64_t group, int) {
    const int64_t unit = group * kChains, count = smaller(kChains, units - unit);
    Chain<T> chains[kChains] = {};
    for (int64_t k = 0; k < count; ++k) {
      chains[k] = chain_of(unit + k);
      if (pieces > 1) chains[k].sum = starts[unit + k];
    }
    scan_chains(chains, count, step);
  });
}

template <class T>
void scan_columns(const In& x, const Out& out, const Loop<2>& others, Steps first, Steps step, int64_t length) {
  const int outer = others.rank - 1;
  const int64_t columns = others.inner(), sx = others.inner_stride(0), so = others.inner_stride(1);
  const int64_t band = smaller(columns, kBand), bands = ceil_div(columns, band);
  parallel_items(others.count(outer) * bands, length * band, [&](int64_t item, int) {
    const Cursor<2> at(others, outer, item / bands);
    const int64_t start = item % bands * band, width = smaller(band, columns - start);
    const T* __restrict p = x.as<T>() + at.offset[0] + first.x + start * sx;
    T* __restrict o = out.as<T>() + at.offset[1] + first.out + start * so;
    Total<T> sums[kBand] = {};
    for (int64_t i = 0; i < length; ++i, p += step.x, o += step.out) {
      if (sx == 1 && so == 1) {
        for (int64_t j = 0; j < width; ++j) o[j] = static_cast<T>(sums[j] += p[j]);
      } else {
        for (int64_t j = 0; j < width; ++j) o[j * so] = static_cast<T>(sums[j] += p[j * sx]);
      }
    }
  });
}

template <class T>
void scan_as(const In& x, int64_t axis, bool reverse, const Out& out) {
  const int64_t length = x.shape[axis], way = reverse ? -1 : 1, origin = reverse ? length - 1 : 0;
  const Steps stride = {x.strides[axis], out.strides[axis]};
  const Steps first = {origin * stride.x, origin * stride.out}, step = {way * stride.x, way * stride.out};
  const Loop<2> others = make_loop<2>({&x, &out}, leading_axes(x.rank) & ~(1u << axis));
  if (others.inner() > 1 && distance(others.inner_stride(0)) < distance(stride.x))
    scan_columns<T>(x, out, others, first, step, length);
  else
    scan_rows<T>(x, out, others, first, step, length);
}

}  // namespace

void CpuKernels::cumsum(const In& x, int64_t axis, bool reverse, const Out& out) {
  if (x.dtype == DType::kF64)
    scan_as<double>(x, axis, reverse, out);
  else if (x.dtype == DType::kI32)
    scan_as<uint32_t>(x, axis, reverse, out);  // wraps around
  else
    scan_as<float>(x, axis, reverse, out);
}

}  // namespace llmeff::cpu::LLMEFF_ISA
