// Elements by int32 positions along one axis, and the sum or the copy back. Other axes along which the indices have
// stride 0 make runs of one index: a gathered run is one memcpy, a scattered one a vector addition.
//
// scatter_add: targets at different positions of the other axes never meet, so each task owns a band of the innermost
// of them and walks the axis in order. Where bands are few, tasks also own ranges of targets, and skip the rest.
#include <cstring>

#include "cpu_kernels.h"
#include "llmeff/error.h"
#include "strided.h"

namespace llmeff::cpu::LLMEFF_ISA {
namespace {

constexpr int64_t kBand = 128;       // elements of a run that one task adds
constexpr int64_t kNarrowBand = 16;  // runs shorter than this cost no more than skipping them
constexpr int64_t kTasks = 8;        // ranges make up for too few bands; with more, tasks would mostly skip

LLMEFF_INLINE bool outside(int32_t index, int64_t size) {
  return index < 0 || index >= size;
}
LLMEFF_INLINE bool any_outside(const int32_t* indices, int64_t stride, int64_t n, int64_t size) {
  bool bad = false;
  if (stride == 1) {
    for (int64_t i = 0; i < n; ++i) bad |= outside(indices[i], size);
  } else {
    for (int64_t i = 0; i < (stride == 0 ? 1 : n); ++i) bad |= outside(indices[i * stride], size);
  }
  return bad;
}

// Names the first bad index in row-major order, whichever one a thread has met.
[[noreturn]] void fail_outside(const char* op, const In& indices, int64_t axis, int64_t size) {
  const Loop<1> loop = make_loop<1>({&indices}, leading_axes(indices.rank));
  Cursor<1> at(loop, loop.rank, 0);
  int64_t position = 0;
  while (!outside(indices.as<int32_t>()[at.offset[0]], size)) {
    at.next();
    ++position;
  }
  fail("ERR_INDEX", "[%s] index %d at position %lld is outside axis %lld, which has %lld elements", op,
       indices.as<int32_t>()[at.offset[0]], static_cast<long long>(position), static_cast<long long>(axis),
       static_cast<long long>(size));
}

// The view with the axis standing still: what an index chooses is added to the offset.
View without_axis(const View& view, int64_t axis) {
  View rest = view;
  rest.strides[axis] = 0;
  return rest;
}

template <class T>
void gather_as(const In& x, const In& indices, int64_t axis, const Out& out) {
  const View rest = without_axis(x, axis);
  const int64_t size = x.shape[axis], step = x.strides[axis];
  const Loop<3> loop = make_loop<3>({&out, &indices, &rest}, leading_axes(out.rank));
  const int64_t so = loop.inner_stride(0), si = loop.inner_stride(1), sx = loop.inner_stride(2);
  for_each_run(loop, [&](const int64_t* at, int64_t n) {
    T* __restrict o = out.as<T>() + at[0];
    const int32_t* __restrict ids = indices.as<int32_t>() + at[1];
    const T* __restrict p = x.as<T>() + at[2];
    if (any_outside(ids, si, n, size)) fail_outside("gather", indices, axis, size);
    if (si == 0) {
      p += *ids * step;
      if (so == 1 && sx == 1) {
        std::memcpy(o, p, static_cast<size_t>(n) * sizeof(T));
      } else {
        for (int64_t i = 0; i < n; ++i) o[i * so] = p[i * sx];
      }
    } else if (so == 1 && si == 1 && sx == 0 && step == 1) {
      for (int64_t i = 0; i < n; ++i) o[i] = p[ids[i]];
    } else {
      for (int64_t i = 0; i < n; ++i) o[i * so] = p[i * sx + ids[i * si] * step];
    }
  });
}

void check_indices(const char* op, const In& indices, int64_t axis, int64_t size) {
  const Loop<1> loop = make_loop<1>({&indices}, leading_axes(indices.rank));
  for_each_run(loop, [&](const int64_t* at, int64_t n) {
    if (any_outside(indices.as<int32_t>() + at[0], loop.inner_stride(0), n, size))
      fail_outside(op, indices, axis, size);
  });
}

template <class T>
void scatter_as(const In& x, const In& indices, int64_t axis, const InOut& out) {
  const View rest = without_axis(out, axis);
  const int64_t step = out.strides[axis];
  const Loop<3> loop = make_loop<3>({&x, &indices, &rest}, leading_axes(x.rank));
  const int64_t sx = loop.inner_stride(0), si = loop.inner_stride(1), so = loop.inner_stride(2);
  for_each_run(loop, [&](const int64_t* at, int64_t n) {
    const T* __restrict p = x.as<T>() + at[0];
    const int32_t* __restrict ids = indices.as<int32_t>() + at[1];
    T* __restrict o = out.as<T>() + at[2];
    if (si == 0 && sx == 1 && so == 1) {
      std::memcpy(o + *ids * step, p, static_cast<size_t>(n) * sizeof(T));
    } else {
      for (int64_t i = 0; i < n; ++i) o[i * so + ids[i * si] * step] = p[i * sx];
    }
  });
}

template <class T>
LLMEFF_INLINE void add_run(const T* __restrict from, int64_t from_stride, T* __restrict to, int64_t to_stride,
                           int64_t n) {
  if (from_stride == 1 && to_stride == 1) {
    for (int64_t i = 0; i < n; ++i) to[i] += from[i];
  } else {
    for (int64_t i = 0; i < n; ++i) to[i * to_stride] += from[i * from_stride];
  }
}

template <class T>
void scatter_add_as(const In& x, const In& indices, int64_t axis, const InOut& out) {
  const int64_t length = x.shape[axis], size = out.shape[axis];
  const int64_t step = out.strides[axis], x_step = x.strides[axis], id_step = indices.strides[axis];
  const View rest = without_axis(out, axis);
  const Loop<3> others = make_loop<3>({&x, &indices, &rest}, ~(1u << axis));
  const int outer = others.rank - 1;
  const int64_t columns = others.inner();
  const int64_t sx = others.inner_stride(0), si = others.inner_stride(1), so = others.inner_stride(2);
  // Along an axis that lies closer together than the columns, one column after another.
  const int64_t band = distance(x_step) < distance(sx) ? 1 : smaller(columns, kBand), bands = ceil_div(columns, band);
  const int64_t lists = others.count(outer) * bands;
  const bool runs = si == 0 && band >= kNarrowBand;
  const int64_t ranges = runs ? larger(1, smaller(smaller(kTasks / lists, size), ceil_div(length * band, kBlock))) : 1;
  parallel_items(lists * ranges, ceil_div(length * band, ranges), [&](int64_t item, int) {
    const int64_t list = item / ranges, range = item % ranges;
    const int64_t low = size * range / ranges, high = size * (range + 1) / ranges;
    const int64_t first = list % bands * band, width = smaller(band, columns - first);
    const Cursor<3> at(others, outer, list / bands);
    const T* p = x.as<T>() + at.offset[0] + first * sx;
    const int32_t* ids = indices.as<int32_t>() + at.offset[1] + first * si;
    T* o = out.as<T>() + at.offset[2] + first * so;
    if (width == 1) {
      for (int64_t i = 0; i < length; ++i) o[ids[i * id_step] * step] += p[i * x_step];
    } else if (si == 0) {
      for (int64_t i = 0; i < length; ++i) {
        const int64_t target = ids[i * id_step];
        if (low <= target && target < high) add_run(p + i * x_step, sx, o + target * step, so, width);
      }
    } else {
      for (int64_t i = 0; i < length; ++i)
        for (int64_t j = 0; j < width; ++j) o[j * so + ids[i * id_step + j * si] * step] += p[i * x_step + j * sx];
    }
  });
}

}  // namespace

void CpuKernels::gather(const In& x, const In& indices, int64_t axis, const Out& out) {
  with_width(item_size(x.dtype), [&]<class T>(T) { gather_as<T>(x, indices, axis, out); });
}

void CpuKernels::scatter_add(const In& x, const In& indices, int64_t axis, const InOut& out) {
  check_indices("scatterAdd", indices, axis, out.shape[axis]);
  if (x.dtype == DType::kF64)
    scatter_add_as<double>(x, indices, axis, out);
  else if (x.dtype == DType::kI32)
    scatter_add_as<uint32_t>(x, indices, axis, out);  // wraps around
  else
    scatter_add_as<float>(x, indices, axis, out);
}

void CpuKernels::scatter(const In& x, const In& indices, int64_t axis, const InOut& out) {
  check_indices("indexCopyInto", indices, axis, out.shape[axis]);
  with_width(item_size(x.dtype), [&]<class T>(T) { scatter_as<T>(x, indices, axis, out); });
}

}  // namespace llmeff::cpu::LLMEFF_ISA
