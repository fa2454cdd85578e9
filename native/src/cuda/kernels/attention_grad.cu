// Attention, backward: with P recomputed as exp(s − lse) and δ = Σ dout∘o − dlse,
//   dv = Pᵀ·dout,  dS = P ∘ (dout·vᵀ − δ) ∘ (1 − tanh²(s/softcap)),  dq = scale·dS·k,  dk = scale·dSᵀ·q.
// One kernel owns tiles of rows and makes dq, one owns tiles of keys and makes dk and dv: nothing is shared.
#include "cuda/kernels/attention_hopper.cuh"
#include "cuda/kernels/attention_launch.cuh"
#include "cuda/kernels/attention_mma.h"
#include "cuda/kernels/attention_plain.cuh"
#include "cuda/kernels/attention_plain_grad.cuh"
#include "cuda/kernels/cuda_kernels.h"

namespace llmeff::cuda {
namespace {

// blockIdx: x a tile of rows of a head, y a chunk of the channels of dq.
template <class T>
__global__ __launch_bounds__(256) void attention_dq_plain_kernel(AttentionRows<T> rows, T* dq) {
  using W = wide_t<T>;
  extern __shared__ __align__(16) unsigned char shared[];
  __shared__ RowTable<W, 64> table;
  PlainTile<W>& tile = *reinterpret_cast<PlainTile<W>*>(shared);
  const int heads = rows.batch * rows.kv_heads, head = static_cast<int>(blockIdx.x % heads);
  const int index = rows.template tiles<64>() - 1 - static_cast<int>(blockIdx.x / heads);
  const RowTile at = rows.template tile<64>(head / rows.kv_heads, head % rows.kv_heads, index);
  rows.fill(table, at, true);
  __syncthreads();
  const int c0 = static_cast<int>(blockIdx.y) * PlainTile<W>::kColumns;
  W acc[4][PlainTile<W>::kQuads * 4];
  plain_row_gradient(rows, at, table, tile, table.all_bounds(), c0, acc);

  const int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (4 * ty + i >= at.count) continue;
    const int row = at.first + 4 * ty + i, t = row / rows.group, h = at.kv_head * rows.group + row % rows.group;
    T* const to = dq + ((static_cast<int64_t>(at.b) * rows.queries + t) * rows.heads + h) * rows.width;
#pragma unroll
    for (int c = 0; c < PlainTile<W>::kQuads * 4; ++c) {
      const int d = c0 + c / 4 * 64 + 4 * tx + c % 4;
      if (d < rows.width) to[d] = narrow<T>(acc[i][c] * rows.scale);
    }
  }
}

template <class T>
void attention_grad_plain(Context& cuda, const AttentionRows<T>& rows, const View& dq, const View& dk, const View& dv) {
  using W = wide_t<T>;
  const int64_t tiles = static_cast<int64_t>(rows.batch) * rows.kv_heads * rows.template tiles<64>();
  const int columns = (rows.width + PlainTile<W>::kColumns - 1) / PlainTile<W>::kColumns;
  launch(cuda, "attention_dq_plain_kernel", attention_dq_plain_kernel<T>,
         dim3(static_cast<unsigned>(tiles), static_cast<unsigned>(columns)), 256, sizeof(PlainTile<W>), rows,
         dq.as<T>());
  plain_key_gradients(cuda, rows, dk, dv);
}

// A gradient as the kernels that know no gaps between rows write it: where it is, or first into scratch memory.
Out without_gaps(Context& cuda, const Out& x) {
  if (contiguous(x)) return x;
  Out whole = x;
  whole.data = cuda.scratch_bytes(static_cast<size_t>(x.size() * item_size(x.dtype)));
  int64_t step = 1;
  for (int axis = x.rank - 1; axis >= 0; step *= x.shape[axis--]) whole.strides[axis] = step;
  return whole;
}

}  // namespace

void CudaKernels::attention_grad(const In& dout, const In& dlse, const In& q, const In& k, const In& v, const In& o,
                                 const In& lse, const In& q_doc, const In& k_doc, const In& prefix, double scale,
                                 bool causal, int64_t window, int64_t q_offset, double softcap, const In& cos,
                                 const In& sin, bool interleaved, const Out& dq, const Out& dk, const Out& dv) {
  const bool inside = hopper_turns(q, cos, sin, interleaved);
  if (attention_grad_hopper(cuda_, dout, dlse, q, k, v, o, lse, q_doc, prefix, scale, causal, window, q_offset, softcap,
                            inside ? cos : In{}, inside ? sin : In{}, dq, dk, dv)) {
    if (inside) return;
  } else {
    attention_grad_portable(dout, dlse, q, k, v, o, lse, q_doc, k_doc, prefix, scale, causal, window, q_offset, softcap,
                            dq, dk, dv);
  }
  if (!cos.present()) return;
  rope(In{dq}, cos, sin, interleaved, true, dq);
  rope(In{dk}, cos, sin, interleaved, true, dk);
}

void CudaKernels::attention_grad_portable(const In& dout, const In& dlse, const In& q, const In& k, const In& v,
                                          const In& o, const In& lse, const In& q_doc, const In& k_doc,
                                          const In& prefix, double scale, bool causal, int64_t window, int64_t q_offset,
                                          double softcap, const Out& dq, const Out& dk, const Out& dv) {
  with_floating(q.dtype, [&]<class T>(TypeTag<T>) {
    using W = wide_t<T>;
    AttentionRows<T> rows =
        attention_rows<T>(cuda_, q, k, v, q_doc, k_doc, prefix, scale, causal, window, q_offset, softcap);
    rows.dout = heads_of<const T>(dout), rows.lse = lse.as<const W>();
    rows.aligned = rows.aligned && rows.dout.aligned(rows.value_width);
    W* const delta = cuda_.scratch<W>(lse.size());
    attention_delta<T>(cuda_, dout, o, dlse, delta);
    rows.delta = delta;
    const Out whole[] = {without_gaps(cuda_, dq), without_gaps(cuda_, dk), without_gaps(cuda_, dv)};
    bool done = false;
    if constexpr (kMmaType<T>)
      if ((done = mma_supports(cuda_, rows.width, rows.value_width)))
        attention_grad_mma(cuda_, rows, whole[0], whole[1], whole[2]);
    if (!done) attention_grad_plain(cuda_, rows, whole[0], whole[1], whole[2]);
    const Out* const wanted[] = {&dq, &dk, &dv};
    for (int i = 0; i < 3; ++i)
      if (whole[i].data != wanted[i]->data) copy(In{whole[i]}, *wanted[i]);
  });
}

}  // namespace llmeff::cuda
