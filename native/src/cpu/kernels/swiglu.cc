// SwiGLU: out = silu(gate) ∘ up, and with s = sigmoid(gate)
//   dgate = dout ∘ up ∘ s ∘ (1 + gate ∘ (1 − s)),  dup = dout ∘ gate ∘ s.
#include "cpu_kernels.h"
#include "room.h"
#include "strided.h"
#include "vector_math.h"

namespace llmeff::cpu::LLMEFF_ISA {
namespace {

template <class T>
void forward(const In& gate, const In& up, const Out& out) {
  const Loop<3> loop = make_loop<3>({&out, &gate, &up}, leading_axes(out.rank - 1));
  const int64_t n = out.dim(-1);
  for_each_row(loop, n, [&](const int64_t* at, int64_t, int) {
    map_vectors(
        n, [](Vec<T> g, Vec<T> u) { return g * vsigmoid<T>(g) * u; }, out.as<T>() + at[0],
        static_cast<const T*>(gate.as<T>() + at[1]), static_cast<const T*>(up.as<T>() + at[2]));
  });
}

template <class T>
void backward(const In& dout, const In& gate, const In& up, const Out& dgate, const Out& dup) {
  const Loop<5> loop = make_loop<5>({&dgate, &dup, &dout, &gate, &up}, leading_axes(dgate.rank - 1));
  const int64_t n = dgate.dim(-1);
  for_each_row(loop, n, [&](const int64_t* at, int64_t, int) {
    T* dg = dgate.as<T>() + at[0];
    T* du = dup.as<T>() + at[1];
    const T* d = dout.as<T>() + at[2];
    const T* g = gate.as<T>() + at[3];
    const T* u = up.as<T>() + at[4];
    for (int64_t i = 0; i < n; i += kLanes<T>) {
      const int64_t part = smaller(kLanes<T>, n - i);
      const Vec<T> upstream = gather(d + i, 1, part), x = gather(g + i, 1, part), s = vsigmoid<T>(x);
      scatter(dg + i, 1, upstream * gather(u + i, 1, part) * s * (T(1) + x * (T(1) - s)), part);
      scatter(du + i, 1, upstream * x * s, part);
    }
  });
}

}  // namespace

void CpuKernels::swiglu(const In& gate, const In& up, const Out& out) {
  if (out.dtype == DType::kF64)
    forward<double>(gate, up, out);
  else
    forward<float>(gate, up, out);
}

void CpuKernels::swiglu_grad(const In& dout, const In& gate, const In& up, const Out& dgate, const Out& dup) {
  if (dout.dtype == DType::kF64)
    backward<double>(dout, gate, up, dgate, dup);
  else
    backward<float>(dout, gate, up, dgate, dup);
}

void CpuKernels::swiglu_linear(const In& x, const In& norm, double norm_offset, double eps, const In& gate, const In& up,
                               const Out& out) {
  const Room room("swigluLinear", 2 * out.size() * item_size(out.dtype));
  View sides = out;
  sides.shape[out.rank - 1] *= 2;
  sides = packed(room.data, sides);
  const In weights[] = {gate, up};
  linear_many(x, norm, norm_offset, eps, {weights, 2}, Out{sides});
  View parts[] = {sides, sides};
  parts[0].shape[out.rank - 1] = parts[1].shape[out.rank - 1] = out.dim(-1);
  parts[1].data = room.data + out.dim(-1) * item_size(out.dtype);
  swiglu(In{parts[0]}, In{parts[1]}, out);
}

}  // namespace llmeff::cpu::LLMEFF_ISA
