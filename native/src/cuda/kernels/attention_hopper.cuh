// The call sites of the kernels for Hopper's tensor cores (attention_sm90.h, simplicial_sm90.h,
// simplicial_backward_sm90.h): each returns whether they took the work. Unlike the other kernels these multiply what a
// mask hides by 0, so that a NaN or an infinity reaches the rows and keys of its tile that the mask keeps from it.
#pragma once

#include "cuda/check.h"
#include "cuda/context.h"
#include "cuda/kernels/attention_sm90.h"
#include "cuda/kernels/simplicial_backward_sm90.h"
#include "cuda/kernels/simplicial_launch.cuh"
#include "cuda/kernels/simplicial_sm90.h"
#include "llmeff/view.h"

namespace llmeff::cuda {

inline bool contiguous(const View& x) {
  int64_t step = 1;
  for (int axis = x.rank - 1; axis >= 0; step *= x.shape[axis--])
    if (x.shape[axis] > 1 && x.strides[axis] != step) return false;
  return true;
}

// The multiprocessors of capability 9.0 alone have wgmma.
inline bool is_hopper(const Context& cuda, const View& q) {
  return cuda.facts.capability == 90 && q.dtype == DType::kBF16;
}

// ---- attention

inline AttentionInput hopper_input(const View& x) {
  return {x.as<const bf16>(), x.strides[0], x.strides[1], x.strides[2]};
}

inline AttentionGradient hopper_gradient(const View& x) {
  return {x.as<bf16>(), x.strides[0], x.strides[1]};
}

// Few queries over many keys, as when a long text is continued: a block of the Hopper kernel goes through all keys of its
// queries by itself, so that most multiprocessors would have nothing to do. The kernel of attention_mma.cu divides the
// keys among its blocks.
inline bool wants_divided_keys(const Context& cuda, const View& q, const View& k) {
  constexpr int64_t kQueries = 128, kLongEnough = 8192;
  const int64_t blocks = q.shape[0] * q.shape[2] * ((q.shape[1] + kQueries - 1) / kQueries);
  return k.shape[1] >= kLongEnough && 4 * blocks <= cuda.facts.multiprocessors;
}

inline bool attention_hopper(Context& cuda, const View& q, const View& k, const View& v, const View& q_doc,
                             const View& prefix, double scale, bool causal, int64_t window, int64_t q_offset,
                             double softcap, const View& o, const View& lse) {
  if (!is_hopper(cuda, q) || q_doc.present() || prefix.present() || q.shape[3] != v.shape[3] || !contiguous(o) ||
      wants_divided_keys(cuda, q, k))
    return false;
  AttentionForwardArgs args = {};
  args.shape = {q.shape[0], q.shape[1], k.shape[1], q.shape[2], k.shape[2], q.shape[3],
                scale,      causal,     window,     q_offset,   softcap};
  args.q = hopper_input(q), args.k = hopper_input(k), args.v = hopper_input(v);
  args.o = o.as<bf16>(), args.lse = lse.as<float>();
  if (!attention_forward_sm90_supports(args)) return false;
  args.counter = cuda.work_counter();
  LLMEFF_CUDA(attention_forward_sm90(args, cuda.stream));
  return true;
}

// Whether the gradient can turn dq and dk on their way out: a thread has both channels of the pairs (i, i + D/2).
inline bool hopper_turns(const View& q, const View& cos, const View& sin, bool interleaved) {
  const auto aligned = [](const View& x) { return reinterpret_cast<uintptr_t>(x.data) % sizeof(float2) == 0; };
  return cos.present() && !interleaved && q.shape[3] == 64 && cos.shape[1] == 32 && aligned(cos) && aligned(sin);
}

inline bool attention_grad_hopper(Context& cuda, const View& dout, const View& dlse, const View& q, const View& k,
                                  const View& v, const View& o, const View& lse, const View& q_doc, const View& prefix,
                                  double scale, bool causal, int64_t window, int64_t q_offset, double softcap,
                                  const View& cos, const View& sin, const View& dq, const View& dk, const View& dv) {
  if (!is_hopper(cuda, q) || q_doc.present() || prefix.present() || q.shape[3] != v.shape[3]) return false;
  AttentionBackwardArgs args = {};
  args.shape = {q.shape[0], q.shape[1], k.shape[1], q.shape[2], k.shape[2], q.shape[3],
                scale,      causal,     window,     q_offset,   softcap};
  args.dout = hopper_input(dout), args.o = hopper_input(o);
  args.q = hopper_input(q), args.k = hopper_input(k), args.v = hopper_input(v);
  args.lse = lse.as<const float>(), args.dlse = dlse.as<const float>();
  args.cos = cos.as<const float>(), args.sin = sin.as<const float>();
  args.dq = hopper_gradient(dq), args.dk = hopper_gradient(dk), args.dv = hopper_gradient(dv);
  if (!attention_backward_sm90_supports(args)) return false;
  args.scratch = cuda.scratch_bytes(attention_backward_sm90_scratch_bytes(args));
  LLMEFF_CUDA(attention_backward_sm90(args, cuda.stream));
  return true;
}

// ---- 2-simplicial attention

// Whether every window lies inside the rows given, as these kernels take for granted.
inline bool windows_inside(const SimplicialArguments& x) {
  if (!x.causal) return true;
  const auto inside = [&](int64_t offset, int64_t rows, int64_t window) {
    const int64_t first = x.q_offset - offset, last = first + x.q.shape[1] - 1;
    return first >= 0 && last < rows && (offset == 0 || (window > 0 && first - window + 1 >= 0));
  };
  return inside(x.k1_offset, x.k1.shape[1], x.w1) && inside(x.k2_offset, x.k2.shape[1], x.w2);
}

template <class Args>
void set_simplicial_arguments(const SimplicialArguments& x, Args& args) {
  const auto strides = [](const View& v, auto& to) { to = {v.strides[0], v.strides[1], v.strides[2]}; };
  args.q = x.q.as<const bf16>(), args.k1 = x.k1.as<const bf16>(), args.v1 = x.v1.as<const bf16>();
  args.k2 = x.k2.as<const bf16>(), args.v2 = x.v2.as<const bf16>();
  strides(x.q, args.q_strides), strides(x.k1, args.k1_strides), strides(x.v1, args.v1_strides);
  strides(x.k2, args.k2_strides), strides(x.v2, args.v2_strides);
  args.B = x.q.shape[0], args.Nq = x.q.shape[1], args.N1 = x.k1.shape[1], args.N2 = x.k2.shape[1];
  args.Hq = x.q.shape[2], args.Hkv = x.k1.shape[2], args.D = x.q.shape[3];
  args.causal = x.causal, args.w1 = x.w1, args.w2 = x.w2;
  args.q_offset = x.q_offset, args.k1_offset = x.k1_offset, args.k2_offset = x.k2_offset;
  args.scale = static_cast<float>(x.scale);
  args.k2_bias = static_cast<float>(x.k2_bias), args.v2_bias = static_cast<float>(x.v2_bias);
}

inline bool simplicial_hopper(Context& cuda, const SimplicialArguments& x, const View& o, const View& lse) {
  if (!is_hopper(cuda, x.q) || x.determinant || x.q.shape[3] != x.v1.shape[3] || !windows_inside(x)) return false;
  SimplicialForwardArgs args = {};
  set_simplicial_arguments(x, args);
  args.o = o.as<bf16>(), args.lse = lse.as<float>();
  args.o_strides = {o.strides[0], o.strides[1], o.strides[2]};
  if (!simplicial_forward_sm90_supports(args)) return false;
  const size_t bytes = simplicial_forward_sm90_workspace(args);
  args.workspace = bytes > 0 ? cuda.scratch_bytes(bytes) : nullptr;
  LLMEFF_CUDA(simplicial_forward_sm90(args, cuda.stream));
  return true;
}

inline bool simplicial_grad_hopper(Context& cuda, const SimplicialArguments& x, const View& dout, const View& o,
                                   const View& lse, const View& dq, const View& dk1, const View& dk2, const View& dv1,
                                   const View& dv2) {
  if (!is_hopper(cuda, x.q) || x.determinant || x.q.shape[3] != x.v1.shape[3] || !windows_inside(x)) return false;
  SimplicialBackwardArgs args = {};
  set_simplicial_arguments(x, args);
  args.o = o.as<const bf16>(), args.dout = dout.as<const bf16>(), args.lse = lse.as<const float>();
  args.o_strides = {o.strides[0], o.strides[1], o.strides[2]};
  args.dout_strides = {dout.strides[0], dout.strides[1], dout.strides[2]};
  args.dq = dq.as<bf16>(), args.dk1 = dk1.as<bf16>(), args.dv1 = dv1.as<bf16>();
  args.dk2 = dk2.as<bf16>(), args.dv2 = dv2.as<bf16>();
  if (!simplicial_backward_sm90_supports(args)) return false;
  LLMEFF_CUDA(simplicial_backward_sm90(args, cuda.scratch_bytes(simplicial_backward_sm90_scratch_bytes(args) + 256),
                                       cuda.stream));
  return true;
}

}  // namespace llmeff::cuda
