// Rotary embedding of x [B, T, H, D]: the pair (u, w) becomes (u·cos − w·sin, w·cos + u·sin), or turns back when
// inverse.
#include "cpu_kernels.h"
#include "strided.h"

namespace llmeff::cpu::LLMEFF_ISA {
namespace {

// Pairs (i, i + half).
template <class T>
LLMEFF_INLINE void rotate_halves(const T* x, const T* cos, const T* sin, T sign, int64_t half, T* out) {
  for (int64_t i = 0; i < half; i += kLanes<T>) {
    const int64_t part = smaller(kLanes<T>, half - i);
    const Vec<T> c = gather(cos + i, 1, part), s = gather(sin + i, 1, part) * sign;
    const Vec<T> u = gather(x + i, 1, part), w = gather(x + half + i, 1, part);
    scatter(out + i, 1, u * c - w * s, part);
    scatter(out + half + i, 1, w * c + u * s, part);
  }
}

// Pairs (2i, 2i + 1).
template <class T>
LLMEFF_INLINE void rotate_neighbours(const T* x, const T* cos, const T* sin, T sign, int64_t half, T* out) {
  for (int64_t i = 0; i < half; ++i) {
    const T u = x[2 * i], w = x[2 * i + 1], c = cos[i], s = sin[i] * sign;
    out[2 * i] = u * c - w * s;
    out[2 * i + 1] = w * c + u * s;
  }
}

template <class T>
void rotate(const In& x, const In& cos, const In& sin, bool interleaved, bool inverse, const Out& out) {
  const int64_t batch = x.shape[0], length = x.shape[1], heads = x.shape[2], channels = x.shape[3], half = cos.shape[1];
  const T sign = inverse ? T(-1) : T(1);
  parallel_items(batch * length, heads * channels, [&](int64_t item, int) {
    const int64_t b = item / length, t = item % length;
    const T* c = cos.as<T>() + t * half;
    const T* s = sin.as<T>() + t * half;
    for (int64_t h = 0; h < heads; ++h) {
      const T* p = x.as<T>() + b * x.strides[0] + t * x.strides[1] + h * x.strides[2];
      T* o = out.as<T>() + b * out.strides[0] + t * out.strides[1] + h * out.strides[2];
      if (interleaved)
        rotate_neighbours(p, c, s, sign, half, o);
      else
        rotate_halves(p, c, s, sign, half, o);
      for (int64_t i = 2 * half; i < channels; ++i) o[i] = p[i];
    }
  });
}

}  // namespace

void CpuKernels::rope(const In& x, const In& cos, const In& sin, bool interleaved, bool inverse, const Out& out) {
  if (x.dtype == DType::kF64)
    rotate<double>(x, cos, sin, interleaved, inverse, out);
  else
    rotate<float>(x, cos, sin, interleaved, inverse, out);
}

void CpuKernels::rope_and_keep(const In& q, const In& k, const In& v, const In& cos, const In& sin, bool interleaved,
                               const Out& turned, const Out& keys, const Out& values) {
  rope(q, cos, sin, interleaved, false, turned);
  rope(k, cos, sin, interleaved, false, keys);
  copy(v, values);
}

}  // namespace llmeff::cpu::LLMEFF_ISA
