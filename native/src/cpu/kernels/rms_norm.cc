// RMSNorm: y = x·r ∘ w with r = (mean(x²) + eps)^(-1/2). Gradient, with t = dy ∘ w:
//   dx = r·t − x·r³·⟨t, x⟩/C,  dw = Σ over rows of dy ∘ x·r
// dw is summed over blocks of rows, whose size depends on the number of rows alone, and then over the blocks in order.
#include "cpu_kernels.h"
#include "row_math.h"
#include "strided.h"

namespace llmeff::cpu::LLMEFF_ISA {
namespace {

template <class T>
void forward(const In& x, const T* weight, double eps, const Out& y, T* rstd) {
  const int64_t n = x.dim(-1);
  for_each_row(make_loop<2>({&x, &y}, leading_axes(x.rank - 1)), n, [&](const int64_t* at, int64_t row, int) {
    const T* p = x.as<T>() + at[0];
    const double squares = row_sum<T>(n, [p](int64_t i, int64_t part) {
      const Vec<T> v = gather(p + i, 1, part);
      return v * v;
    });
    rstd[row] = static_cast<T>(1 / __builtin_sqrt(squares / static_cast<double>(n) + eps));
    const Vec<T> scale = splat(rstd[row]);
    map_vectors(
        n, [scale](Vec<T> v, Vec<T> w) { return v * scale * w; }, y.as<T>() + at[1], p, weight);
  });
}

template <class T>
void backward(const In& dy, const In& x, const T* weight, const T* rstd, const Out& dx, T* dweight) {
  const int64_t n = x.dim(-1);
  const Loop<3> rows = make_loop<3>({&dx, &x, &dy}, leading_axes(x.rank - 1));
  const int64_t count = rows.count(rows.rank), per_block = larger(16, ceil_div(count, 64)),
                blocks = ceil_div(count, per_block);
  T* partial = shared_scratch<T>(blocks * n);
  parallel_for(blocks, [&](int64_t block, int) {
    T* sum = partial + block * n;
    for (int64_t i = 0; i < n; ++i) sum[i] = 0;
    Cursor<3> at(rows, rows.rank, block * per_block);
    for (int64_t row = block * per_block; row < smaller(count, (block + 1) * per_block); ++row, at.next()) {
      T* out = dx.as<T>() + at.offset[0];
      const T* p = x.as<T>() + at.offset[1];
      const T* d = dy.as<T>() + at.offset[2];
      const double dot = row_sum<T>(n, [&](int64_t i, int64_t part) {
        return gather(d + i, 1, part) * gather(weight + i, 1, part) * gather(p + i, 1, part);
      });
      const double r = static_cast<double>(rstd[row]);
      const Vec<T> scale = splat(rstd[row]), pull = splat(static_cast<T>(r * r * r * dot / static_cast<double>(n)));
      for (int64_t i = 0; i < n; i += kLanes<T>) {
        const int64_t part = smaller(kLanes<T>, n - i);
        const Vec<T> g = gather(d + i, 1, part), v = gather(p + i, 1, part);
        scatter(sum + i, 1, gather(sum + i, 1, part) + g * (v * scale), part);
        scatter(out + i, 1, g * gather(weight + i, 1, part) * scale - v * pull, part);
      }
    }
  });
  parallel_for(ceil_div(n, 512), [&](int64_t task, int) {
    const int64_t first = task * 512, end = smaller(n, first + 512);
    for (int64_t i = first; i < end; ++i) dweight[i] = partial[i];
    for (int64_t block = 1; block < blocks; ++block)
      for (int64_t i = first; i < end; ++i) dweight[i] += partial[block * n + i];
  });
}

}  // namespace

void CpuKernels::rms_norm(const In& x, const In& weight, double eps, const Out& y, const Out& rstd) {
  if (x.dtype == DType::kF64)
    forward<double>(x, weight.as<double>(), eps, y, rstd.as<double>());
  else
    forward<float>(x, weight.as<float>(), eps, y, rstd.as<float>());
}

void CpuKernels::rms_norm_grad(const In& dy, const In& x, const In& weight, const In& rstd, const Out& dx,
                               const Out& dweight) {
  if (x.dtype == DType::kF64)
    backward<double>(dy, x, weight.as<double>(), rstd.as<double>(), dx, dweight.as<double>());
  else
    backward<float>(dy, x, weight.as<float>(), rstd.as<float>(), dx, dweight.as<float>());
}

}  // namespace llmeff::cpu::LLMEFF_ISA
