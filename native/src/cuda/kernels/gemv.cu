// out[m, n] = activation(Σ_k x[m, k] · w[n, k] + bias[n]) for few rows m. A warp has kRows neighbouring outputs: its
// lanes go through the rows of the weights side by side, 16 bytes each, with several loads on their way; then they add
// up. Several matrices of the same x are one launch, their outputs side by side; or, of two, silu of the one times the
// other, for which a warp has an output of each. The RMS norm of x costs no pass of its own: its weights multiply x on
// the way, and the sum of squares, which every warp adds up, the outputs. Nor does a residual that is added to these.
// On Hopper, several rows of 16-bit numbers are multiplied in gemv_mma.cu.
#include "cuda/kernels/gemv.h"

#include <algorithm>
#include <type_traits>

#include "cuda/kernels/cuda_kernels.h"
#include "cuda/kernels/early.cuh"
#include "cuda/kernels/gemm.h"
#include "cuda/kernels/gemv_rows.cuh"
#include "cuda/sm90.h"

namespace llmeff::cuda {
namespace {

constexpr int kWarps = 4, kMostRows = 8;

template <class T, int kM, int kRows, bool kGated>
__global__ void __launch_bounds__(32 * kWarps) gemv_kernel(const __grid_constant__ Gemv a) {
  static_assert(!kGated || kRows == 2);
  constexpr int kPack = Pack<T>::kSize, kUnroll = kRows == 1 ? 8 : kRows == 2 ? 4 : 2;
  const int lane = threadIdx.x % 32;
  const int64_t first = (int64_t{blockIdx.x} * kWarps + threadIdx.x / 32) * (kGated ? 1 : kRows);
  let_next_begin();
  const Pack<T>* w[kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const int64_t n = min(kGated ? first : first + r, a.outputs - 1);
    w[r] = reinterpret_cast<const Pack<T>*>(kGated ? weights_of_gated<T>(a, r, n) : weights_of<T>(a, n));
  }
#pragma unroll
  for (int r = 0; r < kRows; ++r)
    for (int pack = 2 * lane; pack < a.packs; pack += 64) prefetch(w[r] + pack);
  await_earlier();
  float sums[kM][kRows] = {}, squares[kM] = {};
  for (int begin = lane; begin < a.packs; begin += 32 * kUnroll) {
    Pack<T> values[kUnroll][kRows];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u)
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const int pack = begin + 32 * u;
        if (pack < a.packs) {
          const uint4 bits = __ldcs(reinterpret_cast<const uint4*>(w[r] + pack));
          values[u][r] = *reinterpret_cast<const Pack<T>*>(&bits);
        }
      }
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const int pack = begin + 32 * u;
      if (pack >= a.packs) break;
      Pack<T> norm;
      if (a.norm != nullptr) norm = static_cast<const Pack<T>*>(a.norm)[pack];
#pragma unroll
      for (int m = 0; m < kM; ++m) {
        const int row = kM == 1 ? 0 : min(m, a.rows - 1);
        const Pack<T> x = reinterpret_cast<const Pack<T>*>(static_cast<const T*>(a.x) + row * a.x_stride)[pack];
#pragma unroll
        for (int e = 0; e < kPack; ++e) {
          float factor = widen<float>(x.at[e]);
          if (a.norm != nullptr) {
            squares[m] = fmaf(factor, factor, squares[m]);
            factor *= widen<float>(norm.at[e]) + a.norm_offset;
          }
#pragma unroll
          for (int r = 0; r < kRows; ++r) sums[m][r] = fmaf(factor, widen<float>(values[u][r].at[e]), sums[m][r]);
        }
      }
    }
  }
#pragma unroll
  for (int m = 0; m < kM; ++m) {
    const float mean = a.norm == nullptr ? 0 : warp_sum(squares[m]) / static_cast<float>(a.packs * kPack);
    const float scale = a.norm == nullptr ? 1 : 1 / sqrtf(mean + a.eps);
#pragma unroll
    for (int r = 0; r < kRows; ++r) sums[m][r] = warp_sum(sums[m][r]) * scale;
  }
  if constexpr (kGated) {
#pragma unroll
    for (int m = 0; m < kM; ++m)
      if (lane == m && m < a.rows && first < a.outputs) write_gated<T>(a, m, first, sums[m][0], sums[m][1]);
  } else {
#pragma unroll
    for (int m = 0; m < kM; ++m)
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const int64_t n = first + r;
        if (lane == m * kRows + r && m < a.rows && n < a.outputs) write<T>(a, m, n, sums[m][r], added_to<T>(a, m, n));
      }
  }
}

// Hopper's copy engine brings the rows of a warp to shared memory: they take no registers meanwhile, so that several
// kernels have theirs on the way at the same time, and settled ones come while the kernel waits for earlier ones. After
// that there is x to be read and the sum to be made, and nothing is read in more than one go.
//
// Packs are unpacked where they are used, for the same reason.
template <class T>
__device__ __forceinline__ float element(const uint4& pack, int e) {
  const uint32_t words[] = {pack.x, pack.y, pack.z, pack.w};
  if constexpr (std::is_same_v<T, float>) {
    return __uint_as_float(words[e]);
  } else if constexpr (std::is_same_v<T, bf16>) {
    return __uint_as_float(e % 2 == 0 ? words[e / 2] << 16 : words[e / 2] & 0xFFFF0000u);
  } else {
    const auto pair = __half22float2(*reinterpret_cast<const __half2*>(&words[e / 2]));
    return e % 2 == 0 ? pair.x : pair.y;
  }
}

template <class T, int kM, int kRows, bool kGated, bool kNormed>
__global__ void __launch_bounds__(32 * kWarps, kM == 1 ? 6 : 1) staged_gemv_kernel(const __grid_constant__ Gemv a) {
#if __CUDA_ARCH__ >= 900
  static_assert(!kGated || kRows == 2);
  constexpr int kPack = Pack<T>::kSize,
                kHeld = kM == 8 ? 1 : (kNormed ? 4 : 8) / kM;  // packs of x that a lane reads at once
  extern __shared__ uint4 staged[];                            // [kWarps][kRows][packs]
  __shared__ uint64_t arrived[kWarps];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int64_t first = (int64_t{blockIdx.x} * kWarps + warp) * (kGated ? 1 : kRows);
  uint4* const own = staged + warp * kRows * a.packs;
  let_next_begin();
  if (lane == 0) {
    sm90::mbarrier_init(&arrived[warp], 1);
    sm90::mbarrier_init_fence();
  }
  const auto load_rows = [&](bool ahead) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const int64_t n = min(kGated ? first : first + r, a.outputs - 1);
      const T* const w = kGated ? weights_of_gated<T>(a, r, n) : weights_of<T>(a, n);
      const auto bytes = static_cast<uint32_t>(a.packs * 16);
      if (ahead) {
        for (int pack = 2 * lane; pack < a.packs; pack += 64) prefetch(reinterpret_cast<const uint4*>(w) + pack);
      } else if (lane == 0) {
        if (r == 0) sm90::mbarrier_arrive_expect(&arrived[warp], kRows * bytes);
        sm90::bulk_load_once(own + r * a.packs, w, bytes, &arrived[warp]);
      }
    }
  };
  uint4 norm[kHeld];
  const auto load_norm = [&](int begin) {
#pragma unroll
    for (int u = 0; u < kHeld; ++u)
      if (kNormed && begin + 32 * u < a.packs) norm[u] = static_cast<const uint4*>(a.norm)[begin + 32 * u];
  };
  if (a.settled) load_norm(lane);
  load_rows(!a.settled);
  await_earlier();
  if (!a.settled) load_rows(false);
  // The output of this lane, if it has one, and what is added to it.
  const int m_own = lane / kRows, r_own = lane % kRows;
  const int64_t n_own = kGated ? first : first + r_own;
  const bool writes = m_own < a.rows && n_own < a.outputs && (!kGated || r_own == 0);
  const Added added = writes ? added_to<T>(a, m_own, n_own) : Added{};
  __syncwarp();

  float sums[kM][kRows] = {}, squares[kM] = {};
  for (int begin = lane; begin < a.packs; begin += 32 * kHeld) {
    uint4 x[kM][kHeld];
    if (!a.settled || begin != lane) load_norm(begin);
#pragma unroll
    for (int m = 0; m < kM; ++m) {
      const T* const row = static_cast<const T*>(a.x) + (kM == 1 ? 0 : min(m, a.rows - 1)) * a.x_stride;
#pragma unroll
      for (int u = 0; u < kHeld; ++u)
        if (begin + 32 * u < a.packs) x[m][u] = reinterpret_cast<const uint4*>(row)[begin + 32 * u];
    }
    sm90::mbarrier_wait(&arrived[warp], 0);
#pragma unroll
    for (int u = 0; u < kHeld; ++u) {
      const int pack = begin + 32 * u;
      if (pack >= a.packs) break;
      uint4 w[kRows];
#pragma unroll
      for (int r = 0; r < kRows; ++r) w[r] = own[r * a.packs + pack];
#pragma unroll
      for (int m = 0; m < kM; ++m)
#pragma unroll
        for (int e = 0; e < kPack; ++e) {
          float factor = element<T>(x[m][u], e);
          if constexpr (kNormed) {
            squares[m] = fmaf(factor, factor, squares[m]);
            factor *= element<T>(norm[u], e) + a.norm_offset;
          }
#pragma unroll
          for (int r = 0; r < kRows; ++r) sums[m][r] = fmaf(factor, element<T>(w[r], e), sums[m][r]);
        }
    }
  }
  float sum = 0, other = 0;  // of the lane's output
#pragma unroll
  for (int m = 0; m < kM; ++m) {
    float scale = 1;
    if constexpr (kNormed) scale = 1 / sqrtf(warp_sum(squares[m]) / static_cast<float>(a.packs * kPack) + a.eps);
#pragma unroll
    for (int r = 0; r < kRows; ++r) sums[m][r] = warp_sum(sums[m][r]) * scale;
#pragma unroll
    for (int r = 0; r < kRows; ++r)
      if (lane == m * kRows + r) sum = sums[m][r], other = sums[m][kRows - 1];
  }
  if (!writes) return;
  if constexpr (kGated)
    write_gated<T>(a, m_own, n_own, sum, other);
  else
    write<T>(a, m_own, n_own, sum, added);
#endif
}

constexpr size_t kMostShared = 40 << 10;  // with what the kernel has beside, less than a block gets without asking

template <class T, int kM, int kRows, bool kGated = false>
void launch(Context& cuda, const Gemv& a) {
  const auto blocks = static_cast<unsigned>(ceil_div(a.outputs, kWarps * (kGated ? 1 : kRows)));
  // On Hopper several rows of 16 bits are not multiplied here.
  if constexpr (kM == 1 || sizeof(T) == 4) {
    const size_t shared = size_t{kWarps} * kRows * static_cast<size_t>(a.packs) * 16;
    if (cuda.facts.capability >= 90 && shared <= kMostShared)
      return launch_early(cuda,
                          a.norm == nullptr ? staged_gemv_kernel<T, kM, kRows, kGated, false>
                                            : staged_gemv_kernel<T, kM, kRows, kGated, true>,
                          blocks, 32 * kWarps, shared, a);
  }
  launch_early(cuda, gemv_kernel<T, kM, kRows, kGated>, blocks, 32 * kWarps, 0, a);
}

template <class T, int kM>
void launch_rows(Context& cuda, const Gemv& a, bool gated) {
  if (gated) return launch<T, kM, 2, true>(cuda, a);
  if constexpr (kM == 1) {
    // As many warps as fill the GPU come before several outputs for each.
    const int64_t warps = int64_t{16} * cuda.facts.multiprocessors;
    if (a.outputs >= 4 * warps) return launch<T, 1, 4>(cuda, a);
    if (a.outputs < warps) return launch<T, 1, 1>(cuda, a);
  }
  launch<T, kM, 2>(cuda, a);
}

template <class T>
void launch_of(Context& cuda, const Gemv& a, bool gated) {
  if (a.rows == 1) return launch_rows<T, 1>(cuda, a, gated);
  if (a.rows == 2) return launch_rows<T, 2>(cuda, a, gated);
  if (a.rows <= 4) return launch_rows<T, 4>(cuda, a, gated);
  launch_rows<T, 8>(cuda, a, gated);
}

bool aligned(const void* data, int64_t stride, int64_t bytes) {
  return reinterpret_cast<uintptr_t>(data) % 16 == 0 && stride * bytes % 16 == 0;
}

bool run(Context& cuda, Gemv& a, DType dtype, int matrices, bool gated) {
  a.settled = a.norm == nullptr || cuda.is_settled(a.norm);
  for (int i = 0; i < matrices; ++i) a.settled &= cuda.is_settled(a.weights[i]);
  if (gemv_mma(cuda, a, dtype, gated)) return true;
  if (a.rows > kMostRows) return false;
  switch (dtype) {
    case DType::kF32:
      launch_of<float>(cuda, a, gated);
      return true;
    case DType::kBF16:
      launch_of<bf16>(cuda, a, gated);
      return true;
    case DType::kF16:
      launch_of<f16>(cuda, a, gated);
      return true;
    default:
      return false;
  }
}

}  // namespace

bool gemv(Context& cuda, const Product& p) {
  const DType dtype = p.a.dtype;
  const int64_t bytes = item_size(dtype);
  if (p.m > kMostMmaRows || p.batch != 1 || p.accumulate || p.b.dtype != dtype || p.out.dtype != dtype ||
      (p.bias != nullptr && p.bias_dtype != dtype))
    return false;
  if (p.k * bytes % 16 != 0 || p.k > INT32_MAX / 16 || (p.k > 1 && p.a.column_stride != 1) ||
      (p.k > 1 && p.b.row_stride != 1) || !aligned(p.a.data, p.m == 1 ? 0 : p.a.row_stride, bytes) ||
      !aligned(p.b.data, p.n == 1 ? 0 : p.b.column_stride, bytes))
    return false;
  Gemv a = {};
  a.weights[0] = p.b.data, a.weight_strides[0] = p.b.column_stride, a.ends[0] = a.outputs = p.n;
  a.x = p.a.data, a.x_stride = p.a.row_stride, a.bias = p.bias, a.activation = p.activation;
  a.out = p.out.data, a.pre = p.pre, a.out_stride = p.out.row_stride;
  a.rows = static_cast<int>(p.m), a.packs = static_cast<int>(p.k * bytes / 16);
  return run(cuda, a, dtype, 1, false);
}

bool gemv_many(Context& cuda, const View& x, const FewRows& given, const List<In>& weights, const View& out) {
  const int64_t bytes = item_size(x.dtype), m = count_rows(x), k = x.dim(-1);
  const RowMap x_rows = row_map(x), out_rows = row_map(out), residual_rows = row_map(given.residual);
  if (m > kMostMmaRows || weights.size > kMostMatrices || out.dtype != x.dtype || k * bytes % 16 != 0 ||
      k > INT32_MAX / 16 || x_rows.rank != 1 || out_rows.rank != 1 || residual_rows.rank != 1 ||
      !aligned(x.data, m == 1 ? 0 : x_rows.strides[0], bytes) || !rows_aligned({&given.norm}))
    return false;
  Gemv a = {};
  for (int64_t i = 0; i < weights.size; ++i) {
    const In& weight = weights[i];
    if (weight.dtype != x.dtype || !aligned(weight.data, weight.shape[0] == 1 ? 0 : weight.strides[0], bytes))
      return false;
    a.weights[i] = weight.data, a.weight_strides[i] = weight.strides[0];
    a.ends[i] = a.outputs += weight.shape[0];
  }
  if (given.gated) a.outputs = weights[0].shape[0];
  a.x = x.data, a.x_stride = x_rows.strides[0], a.activation = Activation::kNone;
  a.norm = given.norm.data, a.norm_offset = static_cast<float>(given.norm_offset),
  a.eps = static_cast<float>(given.eps);
  a.residual = given.residual.data, a.residual_stride = residual_rows.strides[0];
  a.out = out.data, a.out_stride = out_rows.strides[0];
  a.rows = static_cast<int>(m), a.packs = static_cast<int>(k * bytes / 16);
  return run(cuda, a, x.dtype, static_cast<int>(weights.size), given.gated);
}

namespace {

View packed(void* data, const View& like) {
  View view = like;
  view.data = data;
  int64_t step = 1;
  for (int axis = view.rank - 1; axis >= 0; step *= view.shape[axis--]) view.strides[axis] = step;
  return view;
}

View scratch_like(Context& cuda, const View& like) {
  return packed(cuda.scratch_bytes(static_cast<size_t>(like.size() * item_size(like.dtype))), like);
}

View transposed(const View& weight) {
  View turned = weight;
  std::swap(turned.shape[0], turned.shape[1]);
  std::swap(turned.strides[0], turned.strides[1]);
  return turned;
}

}  // namespace

void CudaKernels::linear_many(const In& x, const In& norm, double norm_offset, double eps, const List<In>& weights,
                              const Out& out) {
  if (gemv_many(cuda_, x, {.norm = norm, .norm_offset = norm_offset, .eps = eps}, weights, out)) return;
  View input = x;
  if (norm.present()) {
    input = scratch_like(cuda_, x);
    rms_norm(x, In{}, norm, norm_offset, eps, Out{}, Out{input}, Out{});
  }
  int64_t first = 0;
  for (int64_t i = 0; i < weights.size; ++i) {
    View part = out;
    part.data = out.as<char>() + first * item_size(out.dtype);
    part.shape[out.rank - 1] = weights[i].shape[0];
    gemm(cuda_, input, transposed(weights[i]), part);
    first += weights[i].shape[0];
  }
}

void CudaKernels::linear_add(const In& x, const In& weight, const In& residual, const Out& out) {
  if (gemv_many(cuda_, x, {.residual = residual}, {&weight, 1}, out)) return;
  gemm(cuda_, x, transposed(weight), out);
  binary(BinaryOp::kAdd, residual, In{out}, out);
}

void CudaKernels::swiglu_linear(const In& x, const In& norm, double norm_offset, double eps, const In& gate,
                                const In& up, const Out& out) {
  const In weights[] = {gate, up};
  const List<In> both = {weights, 2};
  if (gemv_many(cuda_, x, {.norm = norm, .norm_offset = norm_offset, .eps = eps, .gated = true}, both, out)) return;
  View sides = out;
  sides.shape[out.rank - 1] *= 2;
  sides = scratch_like(cuda_, sides);
  linear_many(x, norm, norm_offset, eps, both, Out{sides});
  View parts[] = {sides, sides};
  parts[0].shape[out.rank - 1] = parts[1].shape[out.rank - 1] = out.dim(-1);
  parts[1].data = sides.as<char>() + out.dim(-1) * item_size(out.dtype);
  swiglu(In{parts[0]}, In{parts[1]}, out);
}

}  // namespace llmeff::cuda
