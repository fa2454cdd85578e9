// SwiGLU: out = silu(gate) ∘ up, and with s = sigmoid(gate)
//   dgate = dout ∘ up ∘ s ∘ (1 + gate ∘ (1 − s)),  dup = dout ∘ gate ∘ s.
// Rows may be slices of one array, as of a product that makes gate and up at once. A thread has 16 bytes of each array.
#include "cuda/kernels/cuda_kernels.h"
#include "cuda/kernels/early.cuh"
#include "cuda/kernels/rows.cuh"

namespace llmeff::cuda {
namespace {

constexpr int kThreads = 256;

__device__ __forceinline__ float sigmoid(float x) {
  return 1 / (1 + __expf(-x));
}
__device__ __forceinline__ double sigmoid(double x) {
  return 1 / (1 + exp(-x));
}

struct Swiglu {
  const void *dout, *gate, *up;
  void *out, *dgate, *dup;
  RowMap dout_rows, gate_rows, up_rows, out_rows, dgate_rows, dup_rows;
  int64_t units;
  uint32_t units_per_row;
};

// Calls body(row, first element) for the thread's unit of kPack elements.
template <int kPack, class F>
__device__ __forceinline__ void for_unit(const Swiglu& a, F&& body) {
  const int64_t unit = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (unit >= a.units) return;
  const int64_t row = unit < UINT32_MAX ? static_cast<uint32_t>(unit) / a.units_per_row : unit / a.units_per_row;
  body(row, (unit - row * a.units_per_row) * kPack);
}

template <class T, int kPack>
__global__ void __launch_bounds__(kThreads) swiglu_kernel(const __grid_constant__ Swiglu a) {
  using W = wide_t<T>;
  let_next_begin();
  await_earlier();
  for_unit<kPack>(a, [&](int64_t row, int64_t i) {
    const auto g = load_group<kPack>(static_cast<const T*>(a.gate) + a.gate_rows(row) + i);
    const auto u = load_group<kPack>(static_cast<const T*>(a.up) + a.up_rows(row) + i);
    Group<T, kPack> out;
#pragma unroll
    for (int e = 0; e < kPack; ++e) {
      const W gate = widen<W>(g.at[e]);
      out.at[e] = narrow<T>(gate * sigmoid(gate) * widen<W>(u.at[e]));
    }
    store_group(static_cast<T*>(a.out) + a.out_rows(row) + i, out);
  });
}

template <class T, int kPack>
__global__ void __launch_bounds__(kThreads) swiglu_grad_kernel(const __grid_constant__ Swiglu a) {
  using W = wide_t<T>;
  for_unit<kPack>(a, [&](int64_t row, int64_t i) {
    const auto d = load_group<kPack>(static_cast<const T*>(a.dout) + a.dout_rows(row) + i);
    const auto g = load_group<kPack>(static_cast<const T*>(a.gate) + a.gate_rows(row) + i);
    const auto u = load_group<kPack>(static_cast<const T*>(a.up) + a.up_rows(row) + i);
    Group<T, kPack> dgate, dup;
#pragma unroll
    for (int e = 0; e < kPack; ++e) {
      const W gate = widen<W>(g.at[e]), dout = widen<W>(d.at[e]), s = sigmoid(gate);
      dgate.at[e] = narrow<T>(dout * widen<W>(u.at[e]) * s * (1 + gate * (1 - s)));
      dup.at[e] = narrow<T>(dout * gate * s);
    }
    store_group(static_cast<T*>(a.dgate) + a.dgate_rows(row) + i, dgate);
    store_group(static_cast<T*>(a.dup) + a.dup_rows(row) + i, dup);
  });
}

// launch.operator()<T, kPack>() with the units of `rows` counted.
template <class F>
void with_units(Swiglu& a, const View& rows, bool aligned, F&& launch) {
  with_floating(rows.dtype, [&]<class Tag>(Tag) {
    using T = typename Tag::type;
    constexpr int kPack = Pack<T>::kSize;
    a.units_per_row = static_cast<uint32_t>(rows.dim(-1) / (aligned ? kPack : 1));
    a.units = count_rows(rows) * a.units_per_row;
    if (aligned) return launch.template operator()<T, kPack>();
    launch.template operator()<T, 1>();
  });
}

}  // namespace

void CudaKernels::swiglu(const In& gate, const In& up, const Out& out) {
  Swiglu a = {};
  a.gate = gate.data, a.up = up.data, a.out = out.data;
  a.gate_rows = row_map(gate), a.up_rows = row_map(up), a.out_rows = row_map(out);
  with_units(a, out, rows_aligned({&gate, &up, &out}), [&]<class T, int kPack>() {
    launch_early(cuda_, swiglu_kernel<T, kPack>, static_cast<unsigned>(ceil_div(a.units, kThreads)), kThreads, 0, a);
  });
}

void CudaKernels::swiglu_grad(const In& dout, const In& gate, const In& up, const Out& dgate, const Out& dup) {
  Swiglu a = {};
  a.dout = dout.data, a.gate = gate.data, a.up = up.data, a.dgate = dgate.data, a.dup = dup.data;
  a.dout_rows = row_map(dout), a.gate_rows = row_map(gate), a.up_rows = row_map(up);
  a.dgate_rows = row_map(dgate), a.dup_rows = row_map(dup);
  with_units(a, dgate, rows_aligned({&dout, &gate, &up, &dgate, &dup}), [&]<class T, int kPack>() {
    swiglu_grad_kernel<T, kPack><<<ceil_div(a.units, kThreads), kThreads, 0, cuda_.stream>>>(a);
    LLMEFF_LAUNCHED("swiglu_grad_kernel");
  });
}

}  // namespace llmeff::cuda
