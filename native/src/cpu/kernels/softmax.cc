// softmax over rows: the maximum, then e^(x − max) with its sum, then one multiplication. A row of −inf gives zeros; a
// NaN makes its whole row NaN.
#include "cpu_kernels.h"
#include "row_math.h"
#include "strided.h"

namespace llmeff::cpu::LLMEFF_ISA {
namespace {

template <class T>
void forward(const In& x, const Out& y) {
  const int64_t n = x.dim(-1);
  for_each_row(make_loop<2>({&x, &y}, leading_axes(x.rank - 1)), n, [&](const int64_t* at, int64_t, int) {
    const T* p = x.as<T>() + at[0];
    T* o = y.as<T>() + at[1];
    const T max = row_max(p, n);
    if (max == -static_cast<T>(__builtin_inf())) {
      for (int64_t i = 0; i < n; ++i) o[i] = 0;
      return;
    }
    const Vec<T> shift = splat(max);
    const T sum = static_cast<T>(row_sum<T>(n, [&](int64_t i, int64_t part) {
      const Vec<T> e = vexp(gather(p + i, 1, part) - shift);
      scatter(o + i, 1, e, part);
      return e;
    }));
    const Vec<T> scale = splat(T(1) / sum);
    map_vectors(
        n, [scale](Vec<T> e) { return e * scale; }, o, static_cast<const T*>(o));
  });
}

template <class T>
void backward(const In& y, const In& dy, const Out& dx) {
  const int64_t n = y.dim(-1);
  for_each_row(make_loop<3>({&y, &dy, &dx}, leading_axes(y.rank - 1)), n, [&](const int64_t* at, int64_t, int) {
    const T* p = y.as<T>() + at[0];
    const T* d = dy.as<T>() + at[1];
    const Vec<T> dot = splat(static_cast<T>(
        row_sum<T>(n, [&](int64_t i, int64_t part) { return gather(p + i, 1, part) * gather(d + i, 1, part); })));
    map_vectors(
        n, [dot](Vec<T> v, Vec<T> g) { return v * (g - dot); }, dx.as<T>() + at[2], p, d);
  });
}

}  // namespace

void CpuKernels::softmax(const In& x, const Out& y) {
  if (x.dtype == DType::kF64)
    forward<double>(x, y);
  else
    forward<float>(x, y);
}

void CpuKernels::softmax_grad(const In& y, const In& dy, const Out& dx) {
  if (y.dtype == DType::kF64)
    backward<double>(y, dy, dx);
  else
    backward<float>(y, dy, dx);
}

}  // namespace llmeff::cpu::LLMEFF_ISA
