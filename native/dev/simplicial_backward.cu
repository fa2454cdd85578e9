// Workbench of the 2-simplicial backward kernels for Hopper: check against plain kernels, timing, history.
//
//   K=native/src/cuda/kernels/simplicial_backward
//   nvcc -std=c++20 -O3 -gencode=arch=compute_90a,code=sm_90a -Inative/src native/dev/simplicial_backward.cu
//     ${K}_sm90.cu ${K}_rows_sm90.cu ${K}_columns_sm90.cu -o simplicial_backward
//   ./simplicial_backward check      odd shapes, all gradients against the plain reference
//   ./simplicial_backward large      sampled rows of larger problems
//   ./simplicial_backward parts      the two large kernels apart, N 4096
//   ./simplicial_backward time       B 1, N 32768, Hq 64, Hkv 1, D 128, windows 512 × 32, and neighbours
//
// TFLOP/s count 10·D FLOPs per (query row, pair), the five products that a backward pass needs. The kernels execute
// seven, and the column kernel's four have 1.12 of the work, for 64 rows are often seen in part only.
//
// H200, bf16, Hq 64, Hkv 1, D 128, windows 512 × 32: TFLOP/s at N 8192 and 32768 (where the clocks are lower), and
// milliseconds of the row and the column kernel at N 4096.
//
//   version                                               expected       8192  32768  rows  columns
//   1  as specified; W is waited for before dS            280–340        275   270    6.3   12.3
//        A branch on the bias for each two products, generic addresses; and see 3.
//   2  bias a template argument, shared addresses,        columns 7      303   -      5.0   11.8
//      P and dS both before W and U
//        Columns without folds: 10.0; without arithmetic between the products: 7.2.
//   3  the folds load before they add, where a load had   columns 9      334   321    5.0   8.1
//      stood between each two adds; one mask per row
//        Turns in the row kernel that pass when S is there, not when it is issued: 5.7.
//   4  loads of the next product and fold under the       columns 7.6    -     345    5.1   7.7
//      sums over rows, no turns in the column kernel
//        Columns with turns passed when S is there 8.1, when dP is there 9.1, at issue 8.0; with one consumer 3500
//        clocks later 8.2. Rows without turns 5.2, with turns for S and dP only 5.4 and 5.7, passed late 6.4.
//
// Version 4 at N 8192: Hq 128 363, D 64 305, Hq 8 (8 tokens in a row block) 211.
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "cuda/kernels/simplicial_backward_problem.h"

#define CHECK(call)                                                                          \
  do {                                                                                       \
    const cudaError_t status_ = (call);                                                      \
    if (status_ != cudaSuccess) {                                                            \
      std::printf("%s:%d %s: %s\n", __FILE__, __LINE__, #call, cudaGetErrorString(status_)); \
      std::exit(1);                                                                          \
    }                                                                                        \
  } while (0)

namespace {

using Args = llmeff::cuda::SimplicialBackwardArgs;
using bf16 = __nv_bfloat16;

struct Shape {
  int B, Nq, N1, N2, Hq, Hkv, D, w1, w2;
  int q_offset = 0, k1_offset = 0, k2_offset = 0;
  bool causal = true;
  float sigma = 1, k2_bias = 0, v2_bias = 0, scale = 0;  // scale 0: 1/√D
  bool padded = false;                                   // strides larger than the rows
};

// ---- plain reference
// -------------------------------------------------------------------------------------------------

struct Ref {
  Args a;
  float* lse;    // written by reference_forward
  float* delta;  // D
  __device__ int low(int t, int side) const {
    const int64_t w = side == 1 ? a.w1 : a.w2, offset = side == 1 ? a.k1_offset : a.k2_offset;
    if (!a.causal || w == 0) return 0;
    return int(max(int64_t{0}, t + a.q_offset - w + 1 - offset));
  }
  __device__ int high(int t, int side) const {
    const int64_t rows = side == 1 ? a.N1 : a.N2, offset = side == 1 ? a.k1_offset : a.k2_offset;
    return a.causal ? int(min(rows - 1, t + a.q_offset - offset)) : int(rows - 1);
  }
  __device__ bool sees(int t, int j, int k) const {
    return j >= low(t, 1) && j <= high(t, 1) && k >= low(t, 2) && k <= high(t, 2);
  }
  __device__ const bf16* row(const bf16* x, const Args::Strides& s, int b, int64_t t, int h) const {
    return x + b * s.batch + t * s.row + h * s.head;
  }
  __device__ float logit(int b, int t, int h, int j, int k) const {
    const int g = h / int(a.Hq / a.Hkv);
    const bf16 *q = row(a.q, a.q_strides, b, t, h), *k1 = row(a.k1, a.k1_strides, b, j, g),
               *k2 = row(a.k2, a.k2_strides, b, k, g);
    float sum = 0;
    for (int d = 0; d < a.D; ++d)
      sum += __bfloat162float(q[d]) * __bfloat162float(k1[d]) * (__bfloat162float(k2[d]) + a.k2_bias);
    return sum * a.scale;
  }
  __device__ float dprobability(int b, int t, int h, int j, int k) const {
    const int g = h / int(a.Hq / a.Hkv);
    const bf16 *y = row(a.dout, a.dout_strides, b, t, h), *v1 = row(a.v1, a.v1_strides, b, j, g),
               *v2 = row(a.v2, a.v2_strides, b, k, g);
    float sum = 0;
    for (int d = 0; d < a.D; ++d)
      sum += __bfloat162float(y[d]) * __bfloat162float(v1[d]) * (__bfloat162float(v2[d]) + a.v2_bias);
    return sum;
  }
};

constexpr int kThreads = 128;

__device__ float block_reduce(float x, bool maximum) {
  __shared__ float values[kThreads];
  __syncthreads();
  values[threadIdx.x] = x;
  __syncthreads();
  for (int n = kThreads / 2; n > 0; n /= 2) {
    if (threadIdx.x < n) {
      const float y = values[threadIdx.x + n];
      values[threadIdx.x] = maximum ? fmaxf(values[threadIdx.x], y) : values[threadIdx.x] + y;
    }
    __syncthreads();
  }
  return values[0];
}

// One block a query row: lse, and o in bf16 (strides of a.o).
__global__ void reference_forward(Ref r, bf16* o) {
  const Args& a = r.a;
  const int t = blockIdx.x, h = blockIdx.y, b = blockIdx.z, g = h / int(a.Hq / a.Hkv);
  const int j0 = r.low(t, 1), nj = r.high(t, 1) - j0 + 1, k0 = r.low(t, 2), nk = r.high(t, 2) - k0 + 1;
  float m = -INFINITY;
  for (int p = threadIdx.x; p < nj * nk; p += kThreads) m = fmaxf(m, r.logit(b, t, h, j0 + p / nk, k0 + p % nk));
  m = block_reduce(m, true);
  __shared__ float probability[kThreads];
  float l = 0;
  double out = 0;
  for (int first = 0; first < nj * nk; first += kThreads) {
    const int p = first + threadIdx.x;
    const float e = p < nj * nk ? expf(r.logit(b, t, h, j0 + p / nk, k0 + p % nk) - m) : 0;
    l += e;
    __syncthreads();
    probability[threadIdx.x] = e;
    __syncthreads();
    if (threadIdx.x < a.D) {
      for (int i = 0; i < kThreads && first + i < nj * nk; ++i) {
        const int j = j0 + (first + i) / nk, k = k0 + (first + i) % nk;
        out += probability[i] * __bfloat162float(r.row(a.v1, a.v1_strides, b, j, g)[threadIdx.x]) *
               (__bfloat162float(r.row(a.v2, a.v2_strides, b, k, g)[threadIdx.x]) + a.v2_bias);
      }
    }
  }
  l = block_reduce(l, false);
  if (threadIdx.x < a.D)
    o[b * a.o_strides.batch + t * a.o_strides.row + h * a.o_strides.head + threadIdx.x] =
        __float2bfloat16(float(out / l));
  if (threadIdx.x == 0) r.lse[(int64_t(b) * a.Hq + h) * a.Nq + t] = m + logf(l);
}

__global__ void reference_delta(Ref r) {
  const Args& a = r.a;
  const int t = blockIdx.x, h = blockIdx.y, b = blockIdx.z;
  const bf16 *o = r.row(a.o, a.o_strides, b, t, h), *y = r.row(a.dout, a.dout_strides, b, t, h);
  float x = 0;
  if (threadIdx.x < a.D) x = __bfloat162float(o[threadIdx.x]) * __bfloat162float(y[threadIdx.x]);
  x = block_reduce(x, false);
  if (threadIdx.x == 0) r.delta[(int64_t(b) * a.Hq + h) * a.Nq + t] = x;
}

// Gradients owned by one row: owner 0 a query row (t, h), 1 a row j of (k1, v1), 2 a row k of (k2, v2). Rows first,
// first + step, …; out[0] = dq or dk, out[1] = dv, [B, rows of the grid, heads, D].
__global__ void reference_gradient(Ref r, int owner, int first_row, int step, double* dk_out, double* dv_out) {
  const Args& a = r.a;
  const int index = first_row + blockIdx.x * step, head = blockIdx.y, b = blockIdx.z, G = int(a.Hq / a.Hkv);
  const int g = owner == 0 ? head / G : head;
  int64_t count[3];  // of t·heads, j, k
  int t0 = 0, t1 = int(a.Nq) - 1;
  if (owner != 0 && a.causal) {  // narrows the walk; sees() decides
    const int64_t offset = owner == 1 ? a.k1_offset : a.k2_offset, w = owner == 1 ? a.w1 : a.w2;
    t0 = int(max(int64_t{0}, index + offset - a.q_offset));
    if (w != 0) t1 = int(min(int64_t{t1}, index + offset - a.q_offset + w - 1));
  }
  const int heads = owner == 0 ? 1 : G;
  count[0] = owner == 0 ? 1 : int64_t(max(0, t1 - t0 + 1)) * heads;
  const auto widest = [&](int64_t rows, int64_t w) { return a.causal && w != 0 ? min(rows, w) : rows; };
  count[1] = owner == 1 ? 1 : widest(a.N1, a.w1);
  count[2] = owner == 2 ? 1 : widest(a.N2, a.w2);
  __shared__ float probability[kThreads], dlogit[kThreads];
  __shared__ int ts[kThreads], hs[kThreads], js[kThreads], ks[kThreads];
  double dk = 0, dv = 0;
  const int64_t total = count[0] * count[1] * count[2];
  const int d = threadIdx.x;
  for (int64_t first = 0; first < total; first += kThreads) {
    const int64_t p = first + threadIdx.x;
    float P = 0, dS = 0;
    int t = 0, h = 0, j = 0, k = 0;
    if (p < total) {
      const int64_t row = p / (count[1] * count[2]);
      t = owner == 0 ? index : t0 + int(row / heads);
      h = owner == 0 ? head : head * G + int(row % heads);
      j = owner == 1 ? index : r.low(t, 1) + int(p / count[2] % count[1]);
      k = owner == 2 ? index : r.low(t, 2) + int(p % count[2]);
      if (r.sees(t, j, k)) {
        const int64_t at = (int64_t(b) * a.Hq + h) * a.Nq + t;
        P = expf(r.logit(b, t, h, j, k) - r.lse[at]);
        dS = a.scale * P * (r.dprobability(b, t, h, j, k) - r.delta[at]);
      } else {
        j = k = t = 0;
      }
    }
    __syncthreads();
    probability[threadIdx.x] = P, dlogit[threadIdx.x] = dS;
    ts[threadIdx.x] = t, hs[threadIdx.x] = h, js[threadIdx.x] = j, ks[threadIdx.x] = k;
    __syncthreads();
    if (d < a.D) {
      for (int i = 0; i < kThreads; ++i) {
        if (probability[i] == 0 && dlogit[i] == 0) continue;
        const float q = __bfloat162float(r.row(a.q, a.q_strides, b, ts[i], hs[i])[d]);
        const float y = __bfloat162float(r.row(a.dout, a.dout_strides, b, ts[i], hs[i])[d]);
        const float k1 = __bfloat162float(r.row(a.k1, a.k1_strides, b, js[i], g)[d]);
        const float v1 = __bfloat162float(r.row(a.v1, a.v1_strides, b, js[i], g)[d]);
        const float k2 = __bfloat162float(r.row(a.k2, a.k2_strides, b, ks[i], g)[d]) + a.k2_bias;
        const float v2 = __bfloat162float(r.row(a.v2, a.v2_strides, b, ks[i], g)[d]) + a.v2_bias;
        if (owner == 0) dk += dlogit[i] * k1 * k2;
        if (owner == 1) dk += dlogit[i] * q * k2, dv += probability[i] * y * v2;
        if (owner == 2) dk += dlogit[i] * q * k1, dv += probability[i] * y * v1;
      }
    }
  }
  if (d < a.D) {
    const int64_t at = ((int64_t(b) * gridDim.x + blockIdx.x) * gridDim.y + head) * a.D + d;
    dk_out[at] = dk;
    if (dv_out != nullptr) dv_out[at] = dv;
  }
}

// ---- data
// ------------------------------------------------------------------------------------------------------------

__device__ float uniform(uint64_t x) {  // splitmix64, in (0, 1)
  x += 0x9E3779B97F4A7C15ull;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
  return (float((x ^ (x >> 31)) >> 40) + 0.5f) / 16777216.0f;
}
__global__ void normal(bf16* x, int64_t n, uint64_t seed, float sigma) {
  for (int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x; i < n; i += int64_t(gridDim.x) * blockDim.x) {
    const float u = uniform(seed * 0x100000001B3ull + 2 * i), v = uniform(seed * 0x100000001B3ull + 2 * i + 1);
    x[i] = __float2bfloat16(sigma * sqrtf(-2 * logf(u)) * cospif(2 * v));
  }
}
// lse of a query row as if all logits were 0: keeps P near its usual size where no forward pass has run.
__global__ void flat_lse(float* lse, Args a, int64_t n) {
  for (int64_t i = blockIdx.x * int64_t(blockDim.x) + threadIdx.x; i < n; i += int64_t(gridDim.x) * blockDim.x) {
    const int64_t t = i % a.Nq;
    lse[i] = logf(float(min(t + 1, a.w1)) * float(min(t + 1, a.w2))) + 0.5f;
  }
}

struct Buffers {
  std::vector<void*> all;
  ~Buffers() {
    for (void* p : all) cudaFree(p);
  }
  template <class T>
  T* get(int64_t n) {
    void* p = nullptr;
    CHECK(cudaMalloc(&p, std::max<int64_t>(n, 1) * sizeof(T)));
    all.push_back(p);
    return static_cast<T*>(p);
  }
};

Args make(const Shape& s, Buffers& buffers, uint64_t seed, bf16** o) {
  Args a = {};
  a.B = s.B, a.Nq = s.Nq, a.N1 = s.N1, a.N2 = s.N2, a.Hq = s.Hq, a.Hkv = s.Hkv, a.D = s.D;
  a.w1 = s.w1, a.w2 = s.w2, a.causal = s.causal;
  a.q_offset = s.q_offset, a.k1_offset = s.k1_offset, a.k2_offset = s.k2_offset;
  a.scale = s.scale != 0 ? s.scale : 1 / std::sqrt(float(s.D));
  a.k2_bias = s.k2_bias, a.v2_bias = s.v2_bias;
  const auto input = [&](int64_t rows, int64_t heads, Args::Strides* strides, float sigma) {
    const int64_t pad = s.padded ? 8 : 0;
    strides->head = s.D + pad;
    strides->row = heads * strides->head + 2 * pad;
    strides->batch = rows * strides->row + 3 * pad;
    bf16* x = buffers.get<bf16>(s.B * strides->batch);
    normal<<<1024, 256>>>(x, s.B * strides->batch, ++seed, sigma);
    return x;
  };
  a.q = input(s.Nq, s.Hq, &a.q_strides, s.sigma);
  a.k1 = input(s.N1, s.Hkv, &a.k1_strides, s.sigma);
  a.v1 = input(s.N1, s.Hkv, &a.v1_strides, s.sigma);
  a.k2 = input(s.N2, s.Hkv, &a.k2_strides, s.sigma);
  a.v2 = input(s.N2, s.Hkv, &a.v2_strides, s.sigma);
  *o = input(s.Nq, s.Hq, &a.o_strides, 0.02f);
  a.o = *o;
  a.dout = input(s.Nq, s.Hq, &a.dout_strides, 1);
  a.lse = buffers.get<float>(int64_t(s.B) * s.Hq * s.Nq);
  a.dq = buffers.get<bf16>(int64_t(s.B) * s.Nq * s.Hq * s.D);
  a.dk1 = buffers.get<bf16>(int64_t(s.B) * s.N1 * s.Hkv * s.D);
  a.dv1 = buffers.get<bf16>(int64_t(s.B) * s.N1 * s.Hkv * s.D);
  a.dk2 = buffers.get<bf16>(int64_t(s.B) * s.N2 * s.Hkv * s.D);
  a.dv2 = buffers.get<bf16>(int64_t(s.B) * s.N2 * s.Hkv * s.D);
  return a;
}

struct Output {
  const char* name;
  bf16* data;
  int64_t B, rows, heads;
};
std::vector<Output> outputs(const Args& a) {
  return {{"dq", a.dq, a.B, a.Nq, a.Hq},
          {"dk1", a.dk1, a.B, a.N1, a.Hkv},
          {"dv1", a.dv1, a.B, a.N1, a.Hkv},
          {"dk2", a.dk2, a.B, a.N2, a.Hkv},
          {"dv2", a.dv2, a.B, a.N2, a.Hkv}};
}

std::vector<bf16> host(const bf16* data, int64_t n) {
  std::vector<bf16> x(n);
  CHECK(cudaMemcpy(x.data(), data, n * sizeof(bf16), cudaMemcpyDeviceToHost));
  return x;
}

// ---- check
// -----------------------------------------------------------------------------------------------------------

// Relative Frobenius error of rows first, first + step, … of one output; reference is [B, rows/step, heads, D].
double error_of(const Output& out, int64_t D, int first, int step, const std::vector<double>& reference, double* norm) {
  const std::vector<bf16> x = host(out.data, out.B * out.rows * out.heads * D);
  const int64_t rows = (out.rows - first + step - 1) / step;
  double difference = 0, total = 0;
  for (int64_t b = 0; b < out.B; ++b)
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t e = 0; e < out.heads * D; ++e) {
        const double r = reference[(b * rows + i) * out.heads * D + e];
        const double v = __bfloat162float(x[(b * out.rows + first + i * step) * out.heads * D + e]);
        difference += std::isfinite(v) ? (v - r) * (v - r) : INFINITY;
        total += r * r;
      }
  *norm = std::sqrt(total / std::max<int64_t>(1, out.B * rows * out.heads * D));
  return std::sqrt(difference) / std::max(std::sqrt(total), 1e-30);
}

bool check(const char* name, const Shape& s, bool forward, int first = 0, int step = 1) {
  Buffers buffers;
  bf16* o = nullptr;
  static uint64_t seed = 1;
  const Args a = make(s, buffers, seed += 100, &o);
  const int64_t rows = a.B * a.Hq * a.Nq;
  Ref r = {a, const_cast<float*>(a.lse), buffers.get<float>(rows)};
  const dim3 grid(unsigned(a.Nq), unsigned(a.Hq), unsigned(a.B));
  if (forward) {
    reference_forward<<<grid, kThreads>>>(r, o);
  } else {
    flat_lse<<<1024, 256>>>(r.lse, a, rows);
  }
  reference_delta<<<grid, kThreads>>>(r);
  CHECK(cudaDeviceSynchronize());

  if (!llmeff::cuda::simplicial_backward_sm90_supports(a)) {
    std::printf("%-26s NOT SUPPORTED\n", name);
    return false;
  }
  const size_t bytes = llmeff::cuda::simplicial_backward_sm90_scratch_bytes(a);
  char* scratch = buffers.get<char>(bytes);
  std::vector<std::vector<bf16>> before;
  bool same = true;
  for (int run = 0; run < 3; ++run) {
    CHECK(cudaMemset(scratch, 0xff, bytes));  // NaN, as are the outputs
    for (const Output& x : outputs(a)) CHECK(cudaMemset(x.data, 0xff, x.B * x.rows * x.heads * a.D * sizeof(bf16)));
    CHECK(llmeff::cuda::simplicial_backward_sm90(a, scratch, nullptr));
    CHECK(cudaDeviceSynchronize());
    std::vector<std::vector<bf16>> now;
    for (const Output& x : outputs(a)) now.push_back(host(x.data, x.B * x.rows * x.heads * a.D));
    for (size_t i = 0; run > 0 && i < now.size(); ++i)
      same = same && std::memcmp(now[i].data(), before[i].data(), now[i].size() * sizeof(bf16)) == 0;
    before = now;
  }

  std::printf("%-26s", name);
  const std::vector<Output> outs = outputs(a);
  bool good = same;
  for (int owner = 0; owner < 3; ++owner) {
    const Output& first_out = outs[owner == 0 ? 0 : 2 * owner - 1];
    const int64_t n = (first_out.rows - first + step - 1) / step;
    const int64_t count = first_out.B * n * first_out.heads * a.D;
    double* dk = buffers.get<double>(count);
    double* dv = owner == 0 ? nullptr : buffers.get<double>(count);
    reference_gradient<<<dim3(unsigned(n), unsigned(first_out.heads), unsigned(a.B)), kThreads>>>(r, owner, first, step,
                                                                                                  dk, dv);
    CHECK(cudaDeviceSynchronize());
    for (int i = 0; i < (owner == 0 ? 1 : 2); ++i) {
      std::vector<double> reference(count);
      CHECK(cudaMemcpy(reference.data(), i == 0 ? dk : dv, count * sizeof(double), cudaMemcpyDeviceToHost));
      const Output& out = outs[owner == 0 ? 0 : 2 * owner - 1 + i];
      double norm = 0;
      const double error = error_of(out, a.D, first, step, reference, &norm);
      // Where one pair is all there is, dS is what rounding leaves of dP - D: compare absolutely.
      const bool vanishing = i == 0 && (a.Nq == 1 || (a.w1 == 1 && a.w2 == 1));
      const bool ok = vanishing ? error * norm < 2e-2 : error < (i == 1 ? 1e-2 : 2e-2);
      good = good && ok;
      std::printf(" %s %.1e%s", out.name, vanishing ? error * norm : error, vanishing ? " (absolute)" : "");
    }
  }
  std::printf("  %s %s\n", same ? "same" : "DIFFERS", good ? "ok" : "WRONG");
  std::fflush(stdout);
  return good;
}

// Σ dq∘q = Σ dk1∘k1 = Σ dk2∘k2 and Σ dv1∘v1 = Σ dv2∘v2 per channel (no bias; summed over rows and heads).
__global__ void products(const bf16* dx, const bf16* x, Args::Strides s, int64_t B, int64_t rows, int64_t heads,
                         int64_t D, double* sums, double* sizes) {
  const int d = blockIdx.x;
  double sum = 0, size = 0;
  for (int64_t i = threadIdx.x; i < B * rows * heads; i += kThreads) {
    const int64_t h = i % heads, t = i / heads % rows, b = i / heads / rows;
    const double y =
        double(__bfloat162float(dx[i * D + d])) * __bfloat162float(x[b * s.batch + t * s.row + h * s.head + d]);
    sum += y, size += y * y;
  }
  __shared__ double a[kThreads], c[kThreads];
  a[threadIdx.x] = sum, c[threadIdx.x] = size;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int i = 1; i < kThreads; ++i) a[0] += a[i], c[0] += c[i];
    sums[d] = a[0], sizes[d] = c[0];
  }
}

void identities(const Args& a, Buffers& buffers) {
  struct Pair {
    const bf16 *dx, *x;
    Args::Strides s;
    int64_t rows, heads;
  };
  const Pair pairs[5] = {{a.dq, a.q, a.q_strides, a.Nq, a.Hq},
                         {a.dk1, a.k1, a.k1_strides, a.N1, a.Hkv},
                         {a.dk2, a.k2, a.k2_strides, a.N2, a.Hkv},
                         {a.dv1, a.v1, a.v1_strides, a.N1, a.Hkv},
                         {a.dv2, a.v2, a.v2_strides, a.N2, a.Hkv}};
  std::vector<double> sums[5];
  double* device = buffers.get<double>(2 * a.D);
  for (int i = 0; i < 5; ++i) {
    products<<<unsigned(a.D), kThreads>>>(pairs[i].dx, pairs[i].x, pairs[i].s, a.B, pairs[i].rows, pairs[i].heads, a.D,
                                          device, device + a.D);
    sums[i].resize(2 * a.D);
    CHECK(cudaMemcpy(sums[i].data(), device, 2 * a.D * sizeof(double), cudaMemcpyDeviceToHost));
  }
  const auto relative = [&](int i, int j) {
    double difference = 0, total = 0;
    for (int d = 0; d < a.D; ++d) {
      difference += (sums[i][d] - sums[j][d]) * (sums[i][d] - sums[j][d]);
      total += sums[j][d] * sums[j][d];
    }
    return std::sqrt(difference / total);
  };
  std::printf("  identities: dq·q / dk1·k1 %.1e, dk2·k2 / dk1·k1 %.1e, dv2·v2 / dv1·v1 %.1e\n", relative(0, 1),
              relative(2, 1), relative(4, 3));
}

// ---- timing
// ----------------------------------------------------------------------------------------------------------

void time(const char* name, const Shape& s, int repetitions, bool identity) {
  Buffers buffers;
  bf16* o = nullptr;
  const Args a = make(s, buffers, 7, &o);
  flat_lse<<<1024, 256>>>(const_cast<float*>(a.lse), a, a.B * a.Hq * a.Nq);
  const size_t bytes = llmeff::cuda::simplicial_backward_sm90_scratch_bytes(a);
  char* scratch = buffers.get<char>(bytes);
  const auto run = [&] { CHECK(llmeff::cuda::simplicial_backward_sm90(a, scratch, nullptr)); };
  run();
  CHECK(cudaDeviceSynchronize());
  std::vector<float> ms(repetitions);
  cudaEvent_t start, stop;
  CHECK(cudaEventCreate(&start));
  CHECK(cudaEventCreate(&stop));
  for (float& x : ms) {
    CHECK(cudaEventRecord(start));
    run();
    CHECK(cudaEventRecord(stop));
    CHECK(cudaEventSynchronize(stop));
    CHECK(cudaEventElapsedTime(&x, start, stop));
  }
  std::sort(ms.begin(), ms.end());
  double pairs = 0;
  for (int64_t t = 0; t < a.Nq; ++t) pairs += double(std::min(t + 1, a.w1)) * double(std::min(t + 1, a.w2));
  const double flops = 10.0 * a.D * a.B * a.Hq * pairs, median = ms[repetitions / 2];
  std::printf("%-34s %8.2f ms (%.2f–%.2f)  %6.1f TFLOP/s  scratch %.0f MB\n", name, median, ms.front(), ms.back(),
              flops / median * 1e-9, bytes / 1e6);
  if (identity) identities(a, buffers);
  std::fflush(stdout);
}

// The two large kernels apart, milliseconds.
void parts(const Shape& s) {
  namespace backward = llmeff::cuda::simplicial_backward;
  Buffers buffers;
  bf16* o = nullptr;
  const Args a = make(s, buffers, 7, &o);
  flat_lse<<<1024, 256>>>(const_cast<float*>(a.lse), a, a.B * a.Hq * a.Nq);
  char* scratch = buffers.get<char>(llmeff::cuda::simplicial_backward_sm90_scratch_bytes(a));
  CHECK(llmeff::cuda::simplicial_backward_sm90(a, scratch, nullptr));  // leaves the statistics
  size_t bytes = 0;
  const backward::Problem p = backward::make_problem(
      a, reinterpret_cast<void*>((reinterpret_cast<uintptr_t>(scratch) + 255) & ~uintptr_t{255}), &bytes);
  backward::Maps maps;
  CHECK(backward::make_maps(a, p, &maps));
  const auto median = [&](auto launch) {
    std::vector<float> ms(7);
    cudaEvent_t start, stop;
    CHECK(cudaEventCreate(&start));
    CHECK(cudaEventCreate(&stop));
    for (float& x : ms) {
      CHECK(cudaEventRecord(start));
      launch();
      CHECK(cudaEventRecord(stop));
      CHECK(cudaEventSynchronize(stop));
      CHECK(cudaEventElapsedTime(&x, start, stop));
    }
    std::sort(ms.begin(), ms.end());
    return ms[ms.size() / 2];
  };
  const float rows = median([&] { backward::launch_rows(p, maps, nullptr); });
  const float columns = median([&] {
    for (int phase = 0; phase < p.phases; ++phase) backward::launch_columns(p, maps, phase, nullptr);
  });
  std::printf("rows %.3f ms, columns %.3f ms\n", rows, columns);
}

}  // namespace

int main(int argc, char** argv) {
  const std::string what = argc > 1 ? argv[1] : "check";
  const int only = argc > 2 ? std::atoi(argv[2]) : -1;
  if (what == "check") {
    struct Case {
      const char* name;
      Shape s;
    };
    std::vector<Case> cases = {
        {"64 heads, 64×32", {1, 193, 193, 193, 64, 1, 128, 64, 32}},
        {"D 64", {1, 193, 193, 193, 64, 1, 64, 64, 32}},
        {"two batches, two kv heads", {2, 131, 131, 131, 128, 2, 128, 33, 5}},
        {"group of 128", {1, 150, 150, 150, 128, 1, 128, 65, 31}},
        {"windows 1, 1", {1, 70, 70, 70, 64, 1, 128, 1, 1}},
        {"windows 5, 1", {1, 70, 70, 70, 64, 1, 64, 5, 1}},
        {"short first: 5, 33", {1, 140, 140, 140, 64, 1, 128, 5, 33}},
        {"N 7 below windows", {1, 7, 7, 7, 64, 1, 128, 512, 32}},
        {"one token", {1, 1, 1, 1, 64, 1, 128, 512, 32}},
        {"w2 40, two short chunks", {1, 161, 161, 161, 64, 1, 128, 129, 40}},
        {"unlimited", {1, 90, 90, 90, 64, 1, 64, 0, 0}},
        {"not causal", {1, 60, 75, 45, 64, 1, 128, 0, 0, 0, 0, 0, false}},
        {"offsets", {1, 50, 150, 110, 64, 1, 128, 100, 32, 150, 50, 90}},
        {"bias", {1, 130, 130, 130, 64, 1, 128, 64, 16, 0, 0, 0, true, 1, 0.0078125f, 1.0f}},
        {"bias, short first", {1, 130, 130, 130, 64, 1, 128, 16, 64, 0, 0, 0, true, 1, 0.25f, -0.5f}},
        {"strided", {2, 99, 99, 99, 128, 2, 128, 40, 9, 0, 0, 0, true, 1, 0, 0, 0, true}},
        {"group of 8", {1, 100, 100, 100, 16, 2, 128, 50, 7}},
        {"group of 1", {1, 150, 150, 150, 2, 2, 64, 64, 16}},
        {"group of 12", {1, 100, 100, 100, 12, 1, 128, 50, 7}},
        {"group of 96", {1, 60, 60, 60, 192, 2, 64, 33, 7}},
        {"group of 8, offsets", {1, 50, 150, 110, 8, 1, 128, 100, 32, 150, 50, 90}},
        {"sigma 1.5", {1, 193, 193, 193, 64, 1, 128, 64, 32, 0, 0, 0, true, 1.5f}},
        {"negative scale", {1, 100, 100, 100, 64, 1, 128, 64, 8, 0, 0, 0, true, 1, 0, 0, -0.1f}},
    };
    int wrong = 0;
    for (size_t i = 0; i < cases.size(); ++i)
      if (only < 0 || only == int(i)) wrong += !check(cases[i].name, cases[i].s, true);
    std::printf("%d wrong\n", wrong);
    return wrong != 0;
  }
  if (what == "large") {  // sampled rows, given statistics
    check("N 3000, 512×32 sampled", {1, 3000, 3000, 3000, 64, 1, 128, 512, 32}, false, 5, 311);
    check("D 64, N 3000 sampled", {1, 3000, 3000, 3000, 64, 1, 64, 512, 32}, false, 5, 311);
    check("phases: 4096×64 sampled", {1, 5000, 5000, 5000, 4, 1, 64, 4096, 64}, false, 5, 1811);
    return 0;
  }
  if (what == "parts") {
    parts({1, 4096, 4096, 4096, 64, 1, 128, 512, 32});
    return 0;
  }
  if (what == "time") {
    if (only < 0 || only == 0)
      time("N 32768, Hq 64, D 128, 512×32", {1, 32768, 32768, 32768, 64, 1, 128, 512, 32}, 5, true);
    if (only < 0 || only == 1)
      time("N 8192, Hq 64, D 128, 512×32", {1, 8192, 8192, 8192, 64, 1, 128, 512, 32}, 10, false);
    if (only < 0 || only == 2)
      time("N 8192, Hq 128, D 128, 512×32", {1, 8192, 8192, 8192, 128, 1, 128, 512, 32}, 10, false);
    if (only < 0 || only == 3)
      time("N 8192, Hq 64, D 64, 512×32", {1, 8192, 8192, 8192, 64, 1, 64, 512, 32}, 10, false);
    if (only < 0 || only == 4)
      time("N 8192, Hq 8, D 128, 512×32", {1, 8192, 8192, 8192, 8, 1, 128, 512, 32}, 10, false);
    return 0;
  }
  return 1;
}
