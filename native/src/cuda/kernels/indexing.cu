// Elements by int32 positions along one axis, and the sum or the copy back. Other axes along which the indices have
// stride 0 make runs of one index.
//
// scatter_add: the positions of each list of indices are sorted by their target, so that equal targets lie together in
// the order of the positions; the thread of the first adds them all, one for each element of a run.
#include "cuda/kernels/cuda_kernels.h"
#include "cuda/kernels/scatter.h"
#include "cuda/kernels/sort.cuh"

namespace llmeff::cuda {
namespace {

// The view with the axis standing still: what an index chooses is added to the offset.
View without_axis(const View& view, int64_t axis) {
  View rest = view;
  rest.strides[axis] = 0;
  return rest;
}
// An array's elements, each once: broadcast axes cut to size 1.
View each_once(const View& view) {
  View once = view;
  for (int axis = 0; axis < view.rank; ++axis)
    if (view.strides[axis] == 0) once.shape[axis] = 1;
  return once;
}

// `at`: where it lies in the memory of the indices.
__device__ __forceinline__ int64_t checked(int32_t index, int64_t at, int64_t size, const ValueCheck& check) {
  if (index >= 0 && index < size) return index;
  check.bad(at, index);
  return 0;
}

// The number of the element that lies at an offset.
int64_t element_at(const View& indices, int64_t offset) {
  for (int64_t position = 0; position < indices.size(); ++position) {
    int64_t rest = position, at = 0;
    for (int axis = indices.rank - 1; axis >= 0; --axis) {
      at += rest % indices.shape[axis] * indices.strides[axis];
      rest /= indices.shape[axis];
    }
    if (at == offset) return position;
  }
  return offset;
}

ValueCheck check_indices(Context& cuda, const char* op, const View& indices, int64_t axis, int64_t size) {
  return cuda.check_values([=](int64_t offset, int32_t index) {
    return formatted("[%s] index %d at position %lld is outside axis %lld, which has %lld elements", op, index,
                     static_cast<long long>(element_at(indices, offset)), static_cast<long long>(axis),
                     static_cast<long long>(size));
  });
}

// Views: out, indices, x without the axis.
template <class T>
__global__ void __launch_bounds__(kThreads)
    gather_strided_kernel(const __grid_constant__ Walk<3> walk, int64_t size, int64_t step, ValueCheck check) {
  T values[kStridedItems];
  int32_t to[kStridedItems];
  for_items(walk, [&](int item, const int32_t (&at)[3]) {
    const int64_t index = checked(walk.as<const int32_t>(1)[at[1]], at[1], size, check);
    values[item] = walk.as<const T>(2)[at[2] + index * step];
    to[item] = at[0];
  });
  for_items(walk, [&](int item, const int32_t (&)[3]) { walk.as<T>(0)[to[item]] = values[item]; });
}

// Runs of one index, in packs of 16 bytes; `bytes` of an element.
__global__ void __launch_bounds__(kThreads) gather_packs_kernel(const __grid_constant__ Walk<3> walk, int64_t size,
                                                                int64_t step, int64_t bytes, ValueCheck check) {
  const uint32_t i = blockIdx.x * static_cast<uint32_t>(kThreads) + threadIdx.x;
  if (i >= walk.count) return;
  int32_t at[3];
  walk.locate(i, at);
  const int64_t index = checked(walk.as<const int32_t>(1)[at[1]], at[1], size, check);
  *reinterpret_cast<uint4*>(walk.data[0] + at[0] * bytes) =
      *reinterpret_cast<const uint4*>(walk.data[2] + (at[2] + index * step) * bytes);
}

template <class T>
void gather_as(Context& cuda, const View& x, const View& indices, int64_t axis, const View& out) {
  const View rest = without_axis(x, axis);
  const int64_t size = x.shape[axis], step = x.strides[axis];
  const Loop<3> loop = make_loop<3>({&out, &indices, &rest});
  const ValueCheck check = check_indices(cuda, "gather", indices, axis, size);
  constexpr int kWidth = 16 / sizeof(T);
  if (loop.inner_stride(1) == 0 && loop.inner_stride(2) == 1 && step % kWidth == 0 && loop.inner() % kWidth == 0 &&
      has_packs<3>({&out, &indices, &rest}, loop, kWidth))
    return for_each_walk<3>({&out, &indices, &rest}, loop, kWidth, [&](const Walk<3>& walk) {
      gather_packs_kernel<<<blocks_for(walk.count, kThreads), kThreads, 0, cuda.stream>>>(
          walk, size, step, static_cast<int64_t>(sizeof(T)), check);
      LLMEFF_LAUNCHED("gather_packs_kernel");
    });
  for_each_walk<3>({&out, &indices, &rest}, loop, 1, [&](const Walk<3>& walk) {
    gather_strided_kernel<T>
        <<<blocks_for(walk.count, kThreads * kStridedItems), kThreads, 0, cuda.stream>>>(walk, size, step, check);
    LLMEFF_LAUNCHED("gather_strided_kernel");
  });
}

// Views: x, indices, out without the axis. The indices were checked before: of a bad one nothing is written.
template <class T>
__global__ void __launch_bounds__(kThreads)
    scatter_kernel(const __grid_constant__ Walk<3> walk, int64_t step, const __grid_constant__ Guard guard) {
  if (guard.closed()) return;
  for_items(walk, [&](int, const int32_t (&at)[3]) {
    const int64_t index = walk.as<const int32_t>(1)[at[1]];
    walk.as<T>(2)[at[2] + index * step] = walk.as<const T>(0)[at[0]];
  });
}

template <class T>
void scatter_as(Context& cuda, const View& x, const View& indices, int64_t axis, const View& out) {
  const View rest = without_axis(out, axis);
  const Guard guard = cuda.guard();
  for_each_walk<3>({&x, &indices, &rest}, make_loop<3>({&x, &indices, &rest}), 1, [&](const Walk<3>& walk) {
    scatter_kernel<T><<<blocks_for(walk.count, kThreads * kStridedItems), kThreads, 0, cuda.stream>>>(
        walk, out.strides[axis], guard);
    LLMEFF_LAUNCHED("scatter_kernel");
  });
}

__global__ void __launch_bounds__(kThreads)
    check_indices_kernel(const __grid_constant__ Walk<1> walk, int64_t size, ValueCheck check) {
  for_items(walk, [&](int, const int32_t (&at)[1]) { checked(walk.as<const int32_t>(0)[at[0]], at[0], size, check); });
}

// Before anything is written in place.
void check_all(Context& cuda, const char* op, const View& indices, int64_t axis, int64_t size) {
  const ValueCheck check = check_indices(cuda, op, indices, axis, size);
  const View once = each_once(indices);
  for_each_walk<1>({&once}, make_loop<1>({&once}), 1, [&](const Walk<1>& walk) {
    check_indices_kernel<<<blocks_for(walk.count, kThreads * kStridedItems), kThreads, 0, cuda.stream>>>(walk, size,
                                                                                                         check);
    LLMEFF_LAUNCHED("check_indices_kernel");
  });
}

// A thread for each (list, place in the sorted list, element of a run).
struct Scatter {
  Axes<3> work;   // gives these three numbers
  Axes<3> lists;  // of x, indices, out
  Axes<2> runs;   // of x, out
  const void* x;
  const int32_t* indices;
  void* out;
  DType dtype;
  int64_t length, x_step, id_step, out_step;
  const Item* sorted;  // [lists][length]; null for lists of one index
  Guard guard;
};

template <class W>
__device__ __forceinline__ W sum_of(W a, W b) {
  if constexpr (__is_same(W, int32_t))
    return static_cast<int32_t>(static_cast<uint32_t>(a) + static_cast<uint32_t>(b));
  else
    return a + b;
}

// kFours: of four elements of a run, which lie together and aligned in x and out.
template <class W, bool kFours>
__global__ void __launch_bounds__(kThreads) scatter_add_kernel(const __grid_constant__ Scatter s) {
  constexpr int kWidth = kFours ? 4 : 1;
  const int64_t thread = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (thread >= s.work.count || s.guard.closed()) return;
  int64_t at[3];
  s.work.locate(thread, at);
  const int64_t list = at[0], first = at[1];
  const Item* const items = s.sorted + list * s.length;
  if (s.sorted != nullptr && first > 0 && integer_of(items[first]) == integer_of(items[first - 1])) return;
  int64_t of_list[3], of_run[2];
  s.lists.locate(list, of_list);
  s.runs.locate(at[2] * kWidth, of_run);
  const int64_t target = s.sorted != nullptr ? integer_of(items[first]) : s.indices[of_list[1]];
  const int64_t from = of_list[0] + of_run[0], to = of_list[2] + of_run[1] + target * s.out_step;
  const auto load = [&](const void* data, int64_t place, W(&x)[kWidth]) {
    if constexpr (kFours)
      load_four<W>(s.dtype, data, place, x);
    else
      x[0] = load_as<W>(s.dtype, data, place);
  };
  W sums[kWidth], x[kWidth];
  load(s.out, to, sums);
  for (int64_t place = first; place < s.length; ++place) {
    if (s.sorted != nullptr && integer_of(items[place]) != target) break;
    const int64_t position = s.sorted != nullptr ? position_of(items[place]) : place;
    load(s.x, from + position * s.x_step, x);
#pragma unroll
    for (int j = 0; j < kWidth; ++j) sums[j] = sum_of(sums[j], x[j]);
  }
  if constexpr (kFours)
    store_four<W>(s.dtype, s.out, to, sums);
  else
    store_as<W>(s.dtype, s.out, to, sums[0]);
}

template <class W>
void launch_scatter(Context& cuda, const Scatter& s, bool fours) {
  const unsigned blocks = blocks_for(s.work.count, kThreads);
  if (fours)
    scatter_add_kernel<W, true><<<blocks, kThreads, 0, cuda.stream>>>(s);
  else
    scatter_add_kernel<W, false><<<blocks, kThreads, 0, cuda.stream>>>(s);
  LLMEFF_LAUNCHED("scatter_add_kernel");
}

// Whether the elements of runs lie together and aligned in fours.
bool has_fours(const View& view, int64_t step, const Loop<3>& lists, int list_view, const Loop<2>& runs, int run_view) {
  bool all = reinterpret_cast<uintptr_t>(view.data) % static_cast<uintptr_t>(4 * item_size(view.dtype)) == 0;
  all &= runs.inner() % 4 == 0 && runs.inner_stride(run_view) == 1 && step % 4 == 0;
  for (int axis = 0; axis < runs.rank - 1; ++axis) all &= runs.strides[run_view][axis] % 4 == 0;
  for (int axis = 0; axis < lists.rank; ++axis)
    all &= lists.shape[axis] == 1 || lists.strides[list_view][axis] % 4 == 0;
  return all;
}

}  // namespace

void add_at(Context& cuda, const View& x, const View& indices, int64_t axis, const View& out, const Guard* guard) {
  unsigned list_axes = 0, run_axes = 0;
  for (int i = 0; i < x.rank; ++i) {
    if (i == axis) continue;
    (indices.strides[i] == 0 ? run_axes : list_axes) |= 1u << i;
  }
  const View rest = without_axis(out, axis);
  Scatter s = {};
  const Loop<3> lists = make_loop<3>({&x, &indices, &rest}, list_axes);
  const Loop<2> runs = make_loop<2>({&x, &rest}, run_axes);
  s.lists = Axes<3>(lists);
  s.runs = Axes<2>(runs);
  s.x = x.data, s.indices = indices.as<const int32_t>(), s.out = out.data;
  s.dtype = x.dtype;
  s.length = x.shape[axis];
  s.x_step = x.strides[axis], s.id_step = indices.strides[axis], s.out_step = out.strides[axis];
  s.guard = guard == nullptr ? Guard{} : *guard;
  const bool fours = has_fours(x, s.x_step, lists, 0, runs, 0) && has_fours(out, s.out_step, lists, 2, runs, 1);
  Loop<3> work;
  work.rank = 3;
  work.shape[0] = s.lists.count, work.shape[1] = s.length, work.shape[2] = s.runs.count / (fours ? 4 : 1);
  for (int i = 0; i < 3; ++i) work.strides[i][i] = 1;
  s.work = Axes<3>(work);
  if (s.length > 1) {
    Loop<1> rows;
    rows.rank = lists.rank;
    for (int i = 0; i < lists.rank; ++i) rows.shape[i] = lists.shape[i], rows.strides[0][i] = lists.strides[1][i];
    s.sorted = sort_rows<int32_t>(cuda, sorting_of(indices, rows, static_cast<int>(axis), false), nullptr, 0);
  }
  switch (x.dtype) {
    case DType::kF64:
      return launch_scatter<double>(cuda, s, fours);
    case DType::kI32:
      return launch_scatter<int32_t>(cuda, s, fours);
    default:
      return launch_scatter<float>(cuda, s, fours);
  }
}

void CudaKernels::gather(const In& x, const In& indices, int64_t axis, const Out& out) {
  switch (item_size(x.dtype)) {
    case 8:
      return gather_as<uint64_t>(cuda_, x, indices, axis, out);
    case 4:
      return gather_as<uint32_t>(cuda_, x, indices, axis, out);
    case 2:
      return gather_as<uint16_t>(cuda_, x, indices, axis, out);
    default:
      return gather_as<uint8_t>(cuda_, x, indices, axis, out);
  }
}

void CudaKernels::scatter_add(const In& x, const In& indices, int64_t axis, const InOut& out) {
  check_all(cuda_, "scatterAdd", indices, axis, out.shape[axis]);
  const Guard guard = cuda_.guard();
  add_at(cuda_, x, indices, axis, out, &guard);
}

void CudaKernels::scatter(const In& x, const In& indices, int64_t axis, const InOut& out) {
  check_all(cuda_, "indexCopyInto", indices, axis, out.shape[axis]);
  switch (item_size(x.dtype)) {
    case 8:
      return scatter_as<uint64_t>(cuda_, x, indices, axis, out);
    case 4:
      return scatter_as<uint32_t>(cuda_, x, indices, axis, out);
    case 2:
      return scatter_as<uint16_t>(cuda_, x, indices, axis, out);
    default:
      return scatter_as<uint8_t>(cuda_, x, indices, axis, out);
  }
}

}  // namespace llmeff::cuda
