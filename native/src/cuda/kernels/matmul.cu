// Matrix products: of few rows by gemv.cu, else cuBLASLt where it is to be had and takes them, else a plain kernel of
// tiles in shared memory.
#include <algorithm>

#include "cuda/cublas_lt.h"
#include "cuda/kernels/activation.cuh"
#include "cuda/kernels/cuda_kernels.h"
#include "cuda/kernels/dtypes.cuh"
#include "cuda/kernels/gemm.h"
#include "cuda/kernels/gemv.h"
#include "cuda/kernels/matmul_tile.cuh"

namespace llmeff::cuda {
namespace {

// ---- the plain kernel

template <class W, class Matrix>
__global__ __launch_bounds__(kTileThreads) void matmul_kernel(int64_t m, int64_t n, int64_t k, Matrix a, Matrix b,
                                                              AnyMatrix<W> bias, Activation activation, void* pre,
                                                              void* out, DType out_dtype, int64_t out_row,
                                                              int64_t out_batch, bool accumulate, int64_t batches) {
  const int64_t i0 = int64_t{blockIdx.y} * kTile, j0 = int64_t{blockIdx.x} * kTile;
  for (int64_t batch = blockIdx.z; batch < batches; batch += gridDim.z) {
    W sum[4][4] = {};
    add_product(m, n, k, a, batch * a.batch_stride, b, batch * b.batch_stride, i0, j0, sum);
    for_tile(m, n, i0, j0, [&](int64_t i, int64_t j, int r, int c) {
      const int64_t at = batch * out_batch + i * out_row + j;
      W x = sum[r][c];
      if (bias.data != nullptr) x += bias.load(j);
      if (accumulate) x += AnyMatrix<W>{out, out_dtype, 0, 0, 0}.load(at);
      if (pre != nullptr) store_as(pre, out_dtype, at, x);
      store_as(out, out_dtype, at, activate(activation, x));
    });
  }
}

template <class W, class Matrix>
void launch_plain(Context& cuda, const Product& p) {
  const auto blocks = [](int64_t n) { return (n + kTile - 1) / kTile; };
  if (blocks(p.m) > 65535)
    fail("ERR_SHAPE",
         "[matmul] %lld rows are more than the plain kernel takes. Install cuBLASLt (libcublasLt.so.13 or .12; %s).",
         static_cast<long long>(p.m), CublasLt::why_missing());
  const dim3 grid(static_cast<unsigned>(blocks(p.n)), static_cast<unsigned>(blocks(p.m)),
                  static_cast<unsigned>(std::min<int64_t>(p.batch, 65535)));
  const Matrix a{p.a.data, p.a.dtype, p.a.row_stride, p.a.column_stride, p.a.batch_stride};
  const Matrix b{p.b.data, p.b.dtype, p.b.row_stride, p.b.column_stride, p.b.batch_stride};
  matmul_kernel<W, Matrix><<<grid, kTileThreads, 0, cuda.stream>>>(
      p.m, p.n, p.k, a, b, {p.bias, p.bias_dtype, 0, 0, 0}, p.activation, p.pre, p.out.data, p.out.dtype,
      p.out.row_stride, p.out.batch_stride, p.accumulate, p.batch);
  LLMEFF_LAUNCHED("matmul_kernel");
}

void plain(Context& cuda, const Product& p) {
  if (p.out.dtype == DType::kF64) return launch_plain<double, KnownMatrix<double>>(cuda, p);
  const bool single = p.a.dtype == DType::kF32 && p.b.dtype == DType::kF32;
  single ? launch_plain<float, KnownMatrix<float>>(cuda, p) : launch_plain<float, AnyMatrix<float>>(cuda, p);
}

// ---- activations that the library doesn't have

template <class T>
__global__ void activate_kernel(Activation activation, const T* from, T* to, int64_t m, int64_t n, int64_t row_stride,
                                int64_t batch_stride, int64_t size) {
  const int64_t step = int64_t{gridDim.x} * blockDim.x;
  for (int64_t e = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; e < size; e += step) {
    const int64_t at = e / (m * n) * batch_stride + e / n % m * row_stride + e % n;
    to[at] = narrow<T>(activate(activation, widen<wide_t<T>>(from[at])));
  }
}

void activate_product(Context& cuda, const Product& p, const void* from) {
  with_floating(p.out.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const int64_t size = p.batch * p.m * p.n;
    const auto blocks = static_cast<unsigned>(std::min<int64_t>((size + 255) / 256, 16 * cuda.facts.multiprocessors));
    activate_kernel<T><<<blocks, 256, 0, cuda.stream>>>(p.activation, static_cast<const T*>(from),
                                                        static_cast<T*>(p.out.data), p.m, p.n, p.out.row_stride,
                                                        p.out.batch_stride, size);
    LLMEFF_LAUNCHED("activate_kernel");
  });
}

// Sums, and a bias, by the library; then the activation, by the library too where it has it. With and without `pre` the
// same way is taken, so that a recomputed layer has the bits of the first.
bool by_library(Context& cuda, CublasLt& library, const Product& p) {
  if (p.activation == Activation::kNone) return p.pre == nullptr && library.product(cuda, p);
  Product sums = p;
  if (p.activation == Activation::kGelu && item_size(p.out.dtype) == 2) {
    const int64_t reach = (p.batch - 1) * p.out.batch_stride + (p.m - 1) * p.out.row_stride + p.n;
    if (p.pre == nullptr) sums.pre = cuda.scratch_bytes(static_cast<size_t>(reach * item_size(p.out.dtype)));
    if (library.product(cuda, sums)) return true;
    sums.pre = nullptr;
  }
  sums.activation = Activation::kNone;
  sums.pre = nullptr;
  if (p.pre != nullptr) sums.out.data = p.pre;
  if (!library.product(cuda, sums)) return false;
  activate_product(cuda, p, sums.out.data);
  return true;
}

void run(Context& cuda, const Product& p) {
  if (gemv(cuda, p)) return;
  if (CublasLt* const library = cuda.find_cublas_lt(); library != nullptr && by_library(cuda, *library, p)) return;
  plain(cuda, p);
}

// ---- batches

// The leading axes, innermost first.
struct Axis {
  int64_t size, a, b, out;
};

}  // namespace

void gemm(Context& cuda, const View& a, const View& b, const View& out, const GemmOptions& options) {
  Product p;
  p.batch = 1;
  p.m = out.dim(-2), p.n = out.dim(-1), p.k = a.dim(-1);
  p.a = {a.data, a.dtype, a.stride(-2), a.stride(-1), 0};
  p.b = {b.data, b.dtype, b.stride(-2), b.stride(-1), 0};
  p.out = {out.data, out.dtype, out.stride(-2), 1, 0};
  if (options.bias != nullptr && options.bias->present())
    p.bias = options.bias->data, p.bias_dtype = options.bias->dtype;
  p.activation = options.activation;
  if (options.pre != nullptr && options.pre->present()) p.pre = options.pre->data;
  p.accumulate = options.accumulate;

  Axis axes[kMaxRank];
  int rank = 0;
  for (int i = out.rank - 3; i >= 0; --i) {
    // a and b may have fewer leading axes than out.
    const int ia = i - (out.rank - a.rank), ib = i - (out.rank - b.rank);
    const Axis axis{out.shape[i], ia < 0 ? 0 : a.strides[ia], ib < 0 ? 0 : b.strides[ib], out.strides[i]};
    if (axis.size == 1) continue;
    if (p.m == 1 && rank == 0) p.a.row_stride = axis.a, p.out.row_stride = axis.out;
    // More rows of one product, where b is the same for all.
    if (rank == 0 && axis.b == 0 && axis.a == p.m * p.a.row_stride && axis.out == p.m * p.out.row_stride) {
      p.m *= axis.size;
      continue;
    }
    if (Axis* const inner = rank > 0 ? &axes[rank - 1] : nullptr;
        inner != nullptr && axis.a == inner->a * inner->size && axis.b == inner->b * inner->size &&
        axis.out == inner->out * inner->size) {
      inner->size *= axis.size;
      continue;
    }
    axes[rank++] = axis;
  }
  if (rank > 0) {
    p.batch = axes[0].size;
    p.a.batch_stride = axes[0].a, p.b.batch_stride = axes[0].b, p.out.batch_stride = axes[0].out;
  }
  int64_t outer = 1;
  for (int i = 1; i < rank; ++i) outer *= axes[i].size;
  for (int64_t index = 0; index < outer; ++index) {
    Product part = p;
    int64_t rest = index;
    const auto advance = [](void*& data, DType dtype, int64_t offset) {
      if (data != nullptr) data = static_cast<char*>(data) + offset * item_size(dtype);
    };
    for (int i = 1; i < rank; ++i) {
      const int64_t at = rest % axes[i].size;
      rest /= axes[i].size;
      advance(part.a.data, p.a.dtype, at * axes[i].a);
      advance(part.b.data, p.b.dtype, at * axes[i].b);
      advance(part.out.data, p.out.dtype, at * axes[i].out);
      advance(part.pre, p.out.dtype, at * axes[i].out);
    }
    run(cuda, part);
  }
}

void CudaKernels::matmul(const In& a, const In& b, const In& bias, Activation activation, const Out& pre,
                         const Out& out) {
  gemm(cuda_, a, b, out, {.bias = &bias, .activation = activation, .pre = &pre});
}

}  // namespace llmeff::cuda
