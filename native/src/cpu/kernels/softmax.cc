// softmax and log-softmax over rows: the maximum, then e^(x − max) with its sum, then one multiplication, or the
// logarithm of the sum taken away. A row of −inf gives zeros (−inf in the logarithm); a NaN makes its whole row NaN.
// Rows that are strided or stored in 16 bits pass through a block of the worker's.
#include <cmath>

#include "cpu_kernels.h"
#include "row_math.h"
#include "runs.h"

namespace llmeff::cpu::LLMEFF_ISA {
namespace {

// run(x, y, n) of each row; the last axes may be strided.
template <class T, class F>
void map_rows(const In& x, const Out& y, const F& run) {
  const int64_t n = x.dim(-1);
  for_each_row(make_loop<2>({&x, &y}, leading_axes(x.rank - 1)), n, [&](const int64_t* at, int64_t, int worker) {
    T* blocks = worker_scratch<T>(worker, 2 * n);
    Reader<T> reader{x, x.stride(-1), blocks};
    Writer<T> writer{y, y.stride(-1), blocks + n};
    run(reader.read(at[0], n), writer.target(at[1]), n);
    writer.flush(at[1], n);
  });
}
template <class T, class F>
void map_rows(const In& a, const In& b, const Out& out, const F& run) {
  const int64_t n = a.dim(-1);
  for_each_row(make_loop<3>({&a, &b, &out}, leading_axes(a.rank - 1)), n, [&](const int64_t* at, int64_t, int worker) {
    T* blocks = worker_scratch<T>(worker, 3 * n);
    Reader<T> first{a, a.stride(-1), blocks}, second{b, b.stride(-1), blocks + n};
    Writer<T> writer{out, out.stride(-1), blocks + 2 * n};
    run(first.read(at[0], n), second.read(at[1], n), writer.target(at[2]), n);
    writer.flush(at[2], n);
  });
}

template <class T>
void softmax_rows(const In& x, const Out& y) {
  map_rows<T>(x, y, [](const T* p, T* o, int64_t n) {
    const T max = row_max(p, n);
    if (max == -static_cast<T>(__builtin_inf())) {
      for (int64_t i = 0; i < n; ++i) o[i] = 0;
      return;
    }
    const Vec<T> shift = splat(max);
    const T sum = static_cast<T>(row_sum<T>(n, [&](int64_t i, int64_t part) {
      const Vec<T> e = vexp_to_one(gather(p + i, 1, part) - shift);
      scatter(o + i, 1, e, part);
      return e;
    }));
    const Vec<T> scale = splat(T(1) / sum);
    map_vectors(n, [scale](Vec<T> e) { return e * scale; }, o, static_cast<const T*>(o));
  });
}

template <class T>
void softmax_grad_rows(const In& y, const In& dy, const Out& dx) {
  map_rows<T>(y, dy, dx, [](const T* p, const T* d, T* o, int64_t n) {
    const Vec<T> dot = splat(static_cast<T>(
        row_sum<T>(n, [&](int64_t i, int64_t part) { return gather(p + i, 1, part) * gather(d + i, 1, part); })));
    map_vectors(n, [dot](Vec<T> v, Vec<T> g) { return v * (g - dot); }, o, p, d);
  });
}

template <class T>
void log_softmax_rows(const In& x, const Out& y) {
  map_rows<T>(x, y, [](const T* p, T* o, int64_t n) {
    const T max = row_max(p, n);
    if (max == -static_cast<T>(__builtin_inf())) {
      for (int64_t i = 0; i < n; ++i) o[i] = max;
      return;
    }
    const Vec<T> shift = splat(max);
    const Vec<T> log_sum = splat(static_cast<T>(
        std::log(row_sum<T>(n, [&](int64_t i, int64_t part) { return vexp_to_one(gather(p + i, 1, part) - shift); }))));
    map_vectors(n, [=](Vec<T> v) { return (v - shift) - log_sum; }, o, p);
  });
}

template <class T>
void log_softmax_grad_rows(const In& y, const In& dy, const Out& dx) {
  map_rows<T>(y, dy, dx, [](const T* p, const T* d, T* o, int64_t n) {
    const Vec<T> sum =
        splat(static_cast<T>(row_sum<T>(n, [&](int64_t i, int64_t part) { return gather(d + i, 1, part); })));
    map_vectors(n, [sum](Vec<T> v, Vec<T> g) { return g - vexp(v) * sum; }, o, p, d);
  });
}

}  // namespace

void CpuKernels::softmax(const In& x, const Out& y) {
  x.dtype == DType::kF64 ? softmax_rows<double>(x, y) : softmax_rows<float>(x, y);
}
void CpuKernels::softmax_grad(const In& y, const In& dy, const Out& dx) {
  y.dtype == DType::kF64 ? softmax_grad_rows<double>(y, dy, dx) : softmax_grad_rows<float>(y, dy, dx);
}
void CpuKernels::log_softmax(const In& x, const Out& y) {
  x.dtype == DType::kF64 ? log_softmax_rows<double>(x, y) : log_softmax_rows<float>(x, y);
}
void CpuKernels::log_softmax_grad(const In& y, const In& dy, const Out& dx) {
  y.dtype == DType::kF64 ? log_softmax_grad_rows<double>(y, dy, dx) : log_softmax_grad_rows<float>(y, dy, dx);
}

}  // namespace llmeff::cpu::LLMEFF_ISA
