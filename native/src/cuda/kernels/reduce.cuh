// Reductions over any set of axes, in a fixed order that depends on the shape alone. Axes are split into those kept and
// those reduced, and merged where memory allows. Two shapes of work:
//   rows     a reduced axis is the innermost in memory: a group of 1 … 32 threads, or a block, folds the elements of an
//            output, each thread kItems at a time;
//   columns  a kept one is: neighbouring threads have neighbouring outputs and fold kRows rows at a time.
// Where outputs are few, parts of the elements are folded by blocks of their own, and a second launch folds the parts.
//
// An Op says what is folded:
//   W                     what elements are computed in
//   State                 of what has been folded; none() before the first
//   pad()                 an element that changes nothing
//   add(state, x, mask, index)   folds the elements of x whose bit is set (the others are pads); index(i) is the
//                         position of x[i] along the reduced axes
//   merge(a, b)           of two states
//   put(state, r, at)     writes the result to out
//   kPacks, kPackedColumns   whether rows, and columns, are read in packs of 16 bytes where they can be
#pragma once

#include "cuda/kernels/axes.cuh"
#include "cuda/kernels/convert.cuh"
#include "cuda/kernels/functions.cuh"

namespace llmeff::cuda {

struct Reduction {
  Axes<2> kept;     // of x, of out
  Axes<1> reduced;  // of x
  const void* x;
  void* out;
  DType from, to;
  bool negate;   // elements and result: a minimum as the maximum
  bool average;  // the sum by the length
  int64_t part, parts;
  void* partial;  // states [parts][outputs], if there are several parts

#ifdef __CUDACC__
  template <class Op>
  __device__ __forceinline__ typename Op::W load(int64_t at) const {
    return turned<Op>(load_as<typename Op::W>(from, x, at));
  }
  template <class Op>
  __device__ __forceinline__ typename Op::W turned(typename Op::W value) const {
    if constexpr (Op::kTurns) {
      if constexpr (__is_same(typename Op::W, int32_t))
        return negate ? ~value : value;
      else
        return negate ? -value : value;
    } else {
      return value;
    }
  }
#endif
};

#ifdef __CUDACC__

inline constexpr int kRows = 4;

// kWidth numbers of float32, bfloat16 or float16 that lie aligned.
template <class T, class Op, int kCount>
__device__ __forceinline__ void load_run(const Reduction& r, int64_t at, float* x) {
  const Run<T, kCount> run = *reinterpret_cast<const Run<T, kCount>*>(static_cast<const T*>(r.x) + at);
#pragma unroll
  for (int j = 0; j < kCount; ++j) x[j] = r.turned<Op>(widen<float>(run.at[j]));
}

// The 16 elements of a thread from `first` on (of the reduced axes), in packs that lie a group apart. Only a pack of a
// contiguous row may be cut. Returns the mask of those that exist.
template <class Op, class T>
__device__ __forceinline__ uint32_t load_packs(const Reduction& r, int64_t base, int64_t first, int64_t end, int group,
                                               float (&x)[kItems]) {
  constexpr int kWidth = 16 / sizeof(T), kPacks = kItems / kWidth;
  uint32_t mask = 0;
#pragma unroll
  for (int p = 0; p < kPacks; ++p) {
    const int64_t e = first + int64_t{p} * group * kWidth;
    float* const pack = x + p * kWidth;
    int64_t at[1] = {0};
    if (e < end) r.reduced.locate(e, at);
    if (e + kWidth <= end) {
      load_run<T, Op, kWidth>(r, base + at[0], pack);
      mask |= ((1u << kWidth) - 1u) << (p * kWidth);
    } else {
#pragma unroll
      for (int j = 0; j < kWidth; ++j) {
        pack[j] = Op::pad();
        if (e + j >= end) continue;
        pack[j] = r.turned<Op>(widen<float>(static_cast<const T*>(r.x)[base + at[0] + j]));
        mask |= 1u << (p * kWidth + j);
      }
    }
  }
  return mask;
}

// Once for an output, and long with all its dtypes.
__device__ __noinline__ inline void store_result(const Reduction& r, int64_t at, double value) {
  store_number(r.to, r.out, at, value, false);
}

template <class Op>
__device__ __forceinline__ void finish_or_keep(const Reduction& r, int64_t output, int64_t part,
                                               const typename Op::State& state) {
  if (r.parts > 1) {
    static_cast<typename Op::State*>(r.partial)[part * r.kept.count + output] = state;
    return;
  }
  int64_t at[2];
  r.kept.locate(output, at);
  Op::put(state, r, at[1]);
}

template <class Op>
__device__ __forceinline__ typename Op::State merge_lanes(typename Op::State state, int lanes) {
#pragma unroll 1
  for (int step = 1; step < lanes; step *= 2) state = Op::merge(state, shuffle_xor(state, step));
  return state;
}

template <class Op, bool kPacks>
__global__ void __launch_bounds__(kThreads) reduce_rows_kernel(const __grid_constant__ Reduction r, int group) {
  using State = typename Op::State;
  const int lane = static_cast<int>(threadIdx.x) & (group - 1);
  const int64_t item = int64_t{blockIdx.x} * (kThreads / group) + threadIdx.x / group;
  const int64_t part = item / r.kept.count, output = item - part * r.kept.count;
  State state = Op::none();
  if (part < r.parts) {
    int64_t at[2];
    r.kept.locate(output, at);
    const int64_t base = at[0], begin = part * r.part, end = min(r.reduced.count, begin + r.part);
    if constexpr (kPacks) {
      const int width = pack_width(r.from);
      const auto positions = [=](int64_t first) {
        return [=](int i) {
          return static_cast<int32_t>(
              first + (width == 4 ? int64_t{i / 4} * group * 4 + i % 4 : int64_t{i / 8} * group * 8 + i % 8));
        };
      };
      int64_t e = begin;
      // Along a contiguous axis four packs at a time, which are all on their way before the first is folded.
      constexpr int kAhead = 4;
      const int64_t stretch = int64_t{group} * kAhead * width;
      if (r.reduced.rank == 1) {
#pragma unroll 1
        for (; e + stretch <= end; e += stretch) {
          int64_t first = e + lane * width;
          const uint4* const from =
              reinterpret_cast<const uint4*>(static_cast<const char*>(r.x) + (base + first) * (16 / width));
          uint4 raw[kAhead];
#pragma unroll
          for (int p = 0; p < kAhead; ++p) raw[p] = from[p * group];
#pragma unroll 1
          for (int round = width == 4 ? 1 : 2; round > 0; --round) {
            float x[kItems];
            unpack(r.from, raw, x);
#pragma unroll
            for (int i = 0; i < kItems; ++i) x[i] = r.turned<Op>(x[i]);
            Op::add(state, x, 0xFFFFu, positions(first));
            raw[0] = raw[2], raw[1] = raw[3];
            first += int64_t{group} * kItems;
          }
        }
      }
#pragma unroll 1
      for (; e < end; e += int64_t{group} * kItems) {
        const int64_t first = e + lane * width;
        float x[kItems];
        const uint32_t mask = r.from == DType::kF32    ? load_packs<Op, float>(r, base, first, end, group, x)
                              : r.from == DType::kBF16 ? load_packs<Op, bf16>(r, base, first, end, group, x)
                                                       : load_packs<Op, f16>(r, base, first, end, group, x);
        Op::add(state, x, mask, positions(first));
      }
    } else {
#pragma unroll 1
      for (int64_t e = begin + lane; e < end; e += int64_t{group} * kStridedItems) {
        typename Op::W x[kStridedItems];
        uint32_t mask = 0;
#pragma unroll
        for (int i = 0; i < kStridedItems; ++i) {
          x[i] = Op::pad();
          const int64_t one = e + int64_t{i} * group;
          if (one >= end) continue;
          int64_t place[1];
          r.reduced.locate(one, place);
          x[i] = r.load<Op>(base + place[0]);
          mask |= 1u << i;
        }
        Op::add(state, x, mask, [=](int i) { return static_cast<int32_t>(e + int64_t{i} * group); });
      }
    }
  }
  state = merge_lanes<Op>(state, min(group, 32));
  if (group > 32) {
    __shared__ State warps[kThreads / 32];
    if (lane % 32 == 0) warps[lane / 32] = state;
    __syncthreads();
    if (lane == 0)
#pragma unroll 1
      for (int i = 1; i < group / 32; ++i) state = Op::merge(state, warps[i]);
  }
  if (lane == 0 && part < r.parts) finish_or_keep<Op>(r, output, part, state);
}

// `lanes` threads lie side by side along the columns, each with 8 of them in packs, or one.
template <class Op, bool kPacks>
__global__ void __launch_bounds__(kThreads)
    reduce_columns_kernel(const __grid_constant__ Reduction r, int lanes, int64_t bands) {
  using State = typename Op::State;
  constexpr int kColumns = kPacks ? 8 : 1;
  __shared__ State shared[kThreads];
  const int lane = static_cast<int>(threadIdx.x) & (lanes - 1), row_group = static_cast<int>(threadIdx.x) / lanes;
  const int row_groups = kThreads / lanes;
  int64_t block = blockIdx.x;
  const int64_t band = block % bands;
  block /= bands;
  const int64_t part = block % r.parts, outer = block / r.parts;
  const int64_t columns = r.kept.shape[r.kept.rank - 1];
  const int width = kPacks ? pack_width(r.from) : 1;
  // Column of the thread's first element; the second pack of float32 lies `lanes` packs further.
  const int64_t column = band * lanes * kColumns + lane * width;
  const auto column_of = [&](int c) { return column + c / width * lanes * width + c % width; };
  int64_t at[2];
  r.kept.locate(outer * columns, at);
  const int64_t base = at[0], stride = r.kept.strides[0][r.kept.rank - 1];
  State states[kColumns];
#pragma unroll
  for (int c = 0; c < kColumns; ++c) states[c] = Op::none();
  const int64_t end = min(r.reduced.count, (part + 1) * r.part);
  int64_t e = part * r.part + row_group;
  if constexpr (kPacks) {
    // Along a single axis eight packs at a time, which are all on their way before the first is folded: four rows of
    // float32, or eight, folded in two rounds.
    const bool wide = width == 4, second = column + lanes * 4 < columns;
    const int64_t ahead = int64_t{row_groups} * (wide ? kRows : 2 * kRows),
                  row_step = row_groups * r.reduced.strides[0][0];
    if (r.reduced.rank == 1 && column < columns) {
#pragma unroll 1
      for (; e + ahead - row_groups < end; e += ahead) {
        const int64_t place = base + e * r.reduced.strides[0][0] + column;
        const char* const from = static_cast<const char*>(r.x) + place * (16 / width);
        const int64_t step = row_step * (16 / width);
        uint4 raw[2 * kRows];
#pragma unroll
        for (int k = 0; k < 2 * kRows; ++k) {
          const char* const row = from + (wide ? k / 2 : k) * step;
          raw[k] = {0, 0, 0, 0};
          if (!wide || k % 2 == 0)
            raw[k] = *reinterpret_cast<const uint4*>(row);
          else if (second)
            raw[k] = *reinterpret_cast<const uint4*>(row + int64_t{lanes} * 16);
        }
        int64_t first = e;
#pragma unroll 1
        for (int round = wide ? 1 : 2; round > 0; --round) {
          float x[kRows][kColumns];
#pragma unroll
          for (int k = 0; k < kRows; ++k) {
            if (wide) {
              unpack<float>(raw[2 * k], x[k]);
              unpack<float>(raw[2 * k + 1], x[k] + 4);
            } else if (r.from == DType::kBF16) {
              unpack<bf16>(raw[k], x[k]);
            } else {
              unpack<f16>(raw[k], x[k]);
            }
          }
#pragma unroll
          for (int c = 0; c < kColumns; ++c) {
            float of_column[kRows];
#pragma unroll
            for (int k = 0; k < kRows; ++k) of_column[k] = r.turned<Op>(x[k][c]);
            Op::add(states[c], of_column, (1u << kRows) - 1u,
                    [=](int k) { return static_cast<int32_t>(first + int64_t{k} * row_groups); });
          }
#pragma unroll
          for (int k = 0; k < kRows; ++k) raw[k] = raw[k + kRows];
          first += int64_t{row_groups} * kRows;
        }
      }
    }
  }
#pragma unroll 1
  for (; e < end; e += int64_t{row_groups} * kRows) {
    typename Op::W x[kRows][kColumns];
    uint32_t mask = 0;
#pragma unroll
    for (int k = 0; k < kRows; ++k) {
      const int64_t row = e + int64_t{k} * row_groups;
#pragma unroll
      for (int c = 0; c < kColumns; ++c) x[k][c] = Op::pad();
      if (row >= end) continue;
      mask |= 1u << k;
      int64_t place[1];
      r.reduced.locate(row, place);
      if constexpr (kPacks) {
        const int64_t from = base + place[0] + column;
        if (r.from == DType::kF32) {
          if (column < columns) load_run<float, Op, 4>(r, from, x[k]);
          if (column + lanes * 4 < columns) load_run<float, Op, 4>(r, from + lanes * 4, x[k] + 4);
        } else if (column < columns) {
          if (r.from == DType::kBF16)
            load_run<bf16, Op, 8>(r, from, x[k]);
          else
            load_run<f16, Op, 8>(r, from, x[k]);
        }
      } else if (column < columns) {
        x[k][0] = r.load<Op>(base + place[0] + column * stride);
      }
    }
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      typename Op::W of_column[kRows];
#pragma unroll
      for (int k = 0; k < kRows; ++k) of_column[k] = x[k][c];
      Op::add(states[c], of_column, mask, [=](int k) { return static_cast<int32_t>(e + int64_t{k} * row_groups); });
    }
  }
#pragma unroll
  for (int c = 0; c < kColumns; ++c) {
    shared[threadIdx.x] = states[c];
    __syncthreads();
    if (row_group == 0 && column_of(c) < columns) {
      State state = states[c];
#pragma unroll 1
      for (int g = 1; g < row_groups; ++g) state = Op::merge(state, shared[g * lanes + lane]);
      finish_or_keep<Op>(r, outer * columns + column_of(c), part, state);
    }
    __syncthreads();
  }
}

template <class Op>
__global__ void __launch_bounds__(kThreads) reduce_parts_kernel(const __grid_constant__ Reduction r, int group) {
  const int lane = static_cast<int>(threadIdx.x) & (group - 1);
  const int64_t output = int64_t{blockIdx.x} * (kThreads / group) + threadIdx.x / group;
  typename Op::State state = Op::none();
  if (output < r.kept.count)
#pragma unroll 1
    for (int64_t part = lane; part < r.parts; part += group)
      state = Op::merge(state, static_cast<const typename Op::State*>(r.partial)[part * r.kept.count + output]);
  state = merge_lanes<Op>(state, group);
  if (lane != 0 || output >= r.kept.count) return;
  int64_t at[2];
  r.kept.locate(output, at);
  Op::put(state, r, at[1]);
}

// Whether all rows, or all bands of columns, can be read in packs of `width`.
inline bool reads_packs(const View& x, const Loop<2>& kept, const Loop<1>& reduced, bool columns, int64_t width) {
  const auto multiple = [width](int64_t n) { return n % width == 0; };
  if (!multiple(static_cast<int64_t>(reinterpret_cast<uintptr_t>(x.data)) / item_size(x.dtype)) ||
      reinterpret_cast<uintptr_t>(x.data) % static_cast<uintptr_t>(item_size(x.dtype)) != 0)
    return false;
  bool all = columns ? kept.inner_stride(0) == 1 && multiple(kept.inner()) : reduced.inner_stride(0) == 1;
  if (!columns && reduced.rank > 1) all &= multiple(reduced.inner());
  for (int axis = 0; axis < kept.rank - (columns ? 1 : 0); ++axis) all &= multiple(kept.strides[0][axis]);
  for (int axis = 0; axis < reduced.rank - (columns ? 0 : 1); ++axis) all &= multiple(reduced.strides[0][axis]);
  return all;
}

template <class Op>
void launch_reduction(Context& cuda, Reduction r, const View& x, const Loop<2>& kept, const Loop<1>& reduced) {
  using State = typename Op::State;
  constexpr int64_t kBlocks = 1024;  // enough for any GPU: a number of its own would change the order of sums
  const bool columns =
      kept.inner() > 1 && (reduced.count() == 1 || distance(kept.inner_stride(0)) < distance(reduced.inner_stride(0)));
  const bool packs = (columns ? Op::kPackedColumns : Op::kPacks) &&
                     reads_packs(x, kept, reduced, columns, x.dtype == DType::kF32 ? 4 : 8);
  r.kept = Axes<2>(kept);
  r.reduced = Axes<1>(reduced);
  const int64_t outputs = r.kept.count, length = r.reduced.count;
  const auto divide = [&](int64_t parts, int64_t granule) {
    r.part = ceil_div(ceil_div(length, parts), granule) * granule;
    r.parts = ceil_div(length, r.part);
    if (r.parts > 1) r.partial = cuda.scratch<State>(r.parts * outputs);
  };
  if (columns) {
    const int per_thread = packs ? 8 : 1;
    const int lanes = static_cast<int>(power_of_two_from(ceil_div(kept.inner(), per_thread)) < 32
                                           ? power_of_two_from(ceil_div(kept.inner(), per_thread))
                                           : 32);
    const int64_t rows = kThreads / lanes * kRows, bands = ceil_div(kept.inner(), lanes * per_thread);
    const int64_t blocks = outputs / kept.inner() * bands;
    const int64_t most = ceil_div(length, 4 * rows), wanted = ceil_div(kBlocks, blocks);
    divide(most < wanted ? most : wanted, rows);
    const unsigned grid = static_cast<unsigned>(blocks * r.parts);
    if constexpr (Op::kPackedColumns) {
      if (packs) reduce_columns_kernel<Op, true><<<grid, kThreads, 0, cuda.stream>>>(r, lanes, bands);
    }
    if (!packs) reduce_columns_kernel<Op, false><<<grid, kThreads, 0, cuda.stream>>>(r, lanes, bands);
    LLMEFF_LAUNCHED("reduce_columns_kernel");
  } else {
    const int per_thread = packs ? kItems : kStridedItems;
    const int64_t threads = power_of_two_from(ceil_div(length, per_thread));
    const int group = static_cast<int>(threads <= 32 ? threads : threads <= 64 ? 32 : kThreads);
    const int64_t most = ceil_div(length, int64_t{kThreads} * per_thread), wanted = ceil_div(2 * kBlocks, outputs);
    divide(group < kThreads ? 1 : most < wanted ? most : wanted, int64_t{group} * per_thread);
    const unsigned grid = blocks_for(outputs * r.parts, kThreads / group);
    if constexpr (Op::kPacks) {
      if (packs) reduce_rows_kernel<Op, true><<<grid, kThreads, 0, cuda.stream>>>(r, group);
    }
    if (!packs) reduce_rows_kernel<Op, false><<<grid, kThreads, 0, cuda.stream>>>(r, group);
    LLMEFF_LAUNCHED("reduce_rows_kernel");
  }
  if (r.parts == 1) return;
  const int group = outputs >= 4096 ? 1 : 32;
  reduce_parts_kernel<Op><<<blocks_for(outputs, kThreads / group), kThreads, 0, cuda.stream>>>(r, group);
  LLMEFF_LAUNCHED("reduce_parts_kernel");
}

#endif

}  // namespace llmeff::cuda
