// where: elements of one of two arrays, as a bool says.
#include "cpu_kernels.h"
#include "strided.h"

namespace llmeff::cpu::LLMEFF_ISA {
namespace {

// T is an unsigned integer of the dtype's size: the elements are only moved.
template <class T>
void select(const In& condition, const In& a, const In& b, const Out& out) {
  const Loop<4> loop = make_loop<4>({&out, &condition, &a, &b}, leading_axes(out.rank));
  const int64_t so = loop.inner_stride(0), sc = loop.inner_stride(1), sa = loop.inner_stride(2),
                sb = loop.inner_stride(3);
  for_each_run(loop, [&](const int64_t* at, int64_t n) {
    T* o = out.as<T>() + at[0];
    const uint8_t* c = condition.as<uint8_t>() + at[1];
    const T* p = a.as<T>() + at[2];
    const T* q = b.as<T>() + at[3];
    if (so == 1 && sc == 1 && sa == 1 && sb == 1) {
      for (int64_t i = 0; i < n; ++i) {
        const T x = p[i], y = q[i];
        o[i] = c[i] ? x : y;
      }
    } else if (so == 1 && sc == 1 && sa == 1 && sb == 0) {
      const T y = *q;
      for (int64_t i = 0; i < n; ++i) {
        const T x = p[i];
        o[i] = c[i] ? x : y;
      }
    } else {
      for (int64_t i = 0; i < n; ++i) o[i * so] = c[i * sc] ? p[i * sa] : q[i * sb];
    }
  });
}

}  // namespace

void CpuKernels::where(const In& condition, const In& a, const In& b, const Out& out) {
  with_width(item_size(out.dtype), [&]<class T>(T) { select<T>(condition, a, b, out); });
}

}  // namespace llmeff::cpu::LLMEFF_ISA
