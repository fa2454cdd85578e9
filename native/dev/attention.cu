// Workbench of the Hopper attention kernels: checks them against plain kernels in float64, then times them.
//
//   nvcc -std=c++20 -O3 -gencode=arch=compute_90a,code=sm_90a -Isrc dev/attention.cu
//     src/cuda/kernels/attention_forward_sm90.cu src/cuda/kernels/attention_backward_sm90.cu -o attention
//   ./attention check | ./attention time | python3 dev/attention_peer.py
//
// Versions. Milliseconds on an H200 of [B, T, H, D] = [1, 16384, 16, 128] / [32, 1024, 12, 64] / [64, 512, 4, 64], all
// causal. "Cool": 20 runs after 3, the chip at its full clock; "warm": a tenth of a second after another (median_ms),
// the clock lowered by the power limit. cuDNN (PyTorch 2.11), cool: forward 1.70–1.75 / 0.153–0.154 / 0.040–0.060,
// backward 4.69–5.09 / 0.524–0.526 / 0.143–0.159; warm: 1.96 forward, 5.26 backward at the first shape.
//
// Forward
//  1 Persistent; a producer, consumers that take turns at D = 128, three without turns at D = 64. Predicted: at least
//    cuDNN. Cool 1.575 / 0.151 / 0.0403.
//  2 o rescaled only when a maximum grew. Predicted −5 % at D = 64; cool 1.60 / 0.158 / 0.0414: the branch costs more
//    than the products. Dropped.
//  3 Turns at D = 64 as well. Predicted −10 %; 0.158 / 0.0423: nothing, three consumers find their own gaps.
//  4 Two consumers at D = 64: 0.211 / 0.0542. A part of the exponentials by polynomial, predicted −10 %: 1/8 0.163, 1/4
//    0.173: worse, though the counters show tensor cores, exponential unit and issue slots at 57, 59 and 48 % (no one
//    of them binds). Dropped.
//  5 Tiles end with the last row instead of beginning with the first: 27 steps a head instead of 32 at T = 1024.
//    Predicted −12 %; warm 1.84 / 0.1605 / 0.0408 → 1.83 / 0.158 / 0.0416: the steps left out were cheap ones.
// Backward
//  1 dk from shared memory, under way over the step's end. Cool 5.52 / 0.534 / 0.115.
//  2 dk from registers, awaited in the step. Predicted −5 % at D = 128 (shared memory is read at 68 % of its rate):
//    cool 5.39, warm 5.31 / 0.468 / 0.106.
//  3 dq handed over under the next tile's scores. Predicted −8 %; warm 5.42 / 0.462 / 0.103. Without waiting for flags
//    5.33 / 0.421 / 0.0989, without writing dq at all 4.50 / 0.352 / 0.0889: dq costs a sixth to a quarter.
//  4 Two dq buffers, so that waits for flags are hidden. Predicted 5.3 / 0.42 / 0.099; warm 5.38 / 0.471 / 0.1009; with
//  dk
//    from registers at D = 64 too 0.462 / 0.1000. Kept; what flags cost is not the buffer.
//  5 dq one step late, the warpgroups free to be a step apart (own barriers for dS). Predicted −15 %; warm 5.34 / 0.471
//  /
//    0.1039, and more registers: not kept. 4, with dq handed over under the same tile's dk: 5.35 at D = 128, with
//    spills.
//
// Figures count 4·D FLOPs a (query, key) pair and head forward, 2.5 times that backward; causal: T²/2 pairs.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "cuda/kernels/attention_sm90.h"

using namespace llmeff::cuda;

namespace {

#define CHECK(call)                                                                          \
  do {                                                                                       \
    const cudaError_t error_ = (call);                                                       \
    if (error_ != cudaSuccess) {                                                             \
      std::printf("%s:%d: %s: %s\n", __FILE__, __LINE__, #call, cudaGetErrorString(error_)); \
      std::exit(1);                                                                          \
    }                                                                                        \
  } while (0)

template <class T>
T* device_array(size_t count) {
  void* p = nullptr;
  CHECK(cudaMalloc(&p, count * sizeof(T)));
  return static_cast<T*>(p);
}

// ---- reference -----------------------------------------------------------------------------------------------------

struct Reference {
  AttentionShape x;
  AttentionInput q, k, v, dout;
  const float* dlse;
  double *p, *ds;           // [B, H, T, S]: scores, then weights; dout·v, then dS
  double *o, *lse, *delta;  // [B, T, H, D], [B, H, T]
  double *dq, *dk, *dv;
};

__device__ double at(const AttentionInput& a, int64_t b, int64_t t, int64_t h, int64_t d) {
  return double(__bfloat162float(a.data[b * a.batch_stride + t * a.row_stride + h * a.head_stride + d]));
}
__device__ bool sees(const AttentionShape& x, int64_t t, int64_t j) {
  const int64_t i = x.q_offset + t;
  if (x.causal && j > i) return false;
  if (x.window > 0 && (x.causal ? j <= i - x.window : (i > j ? i - j : j - i) >= x.window)) return false;
  return true;
}

__global__ void reference_scores_kernel(Reference r) {
  const AttentionShape& x = r.x;
  const int64_t index = blockIdx.x * int64_t{blockDim.x} + threadIdx.x;
  if (index >= x.B * x.H * x.T * x.S) return;
  const int64_t s = index % x.S, t = index / x.S % x.T, h = index / (x.S * x.T) % x.H, b = index / (x.S * x.T * x.H);
  double score = 0, slope = 0;
  for (int64_t d = 0; d < x.D; ++d) {
    score += at(r.q, b, t, h, d) * at(r.k, b, s, h / (x.H / x.K), d);
    slope += at(r.dout, b, t, h, d) * at(r.v, b, s, h / (x.H / x.K), d);
  }
  score *= x.scale;
  if (x.softcap > 0) score = x.softcap * tanh(score / x.softcap);
  r.p[index] = sees(x, t, s) ? score : -INFINITY;
  r.ds[index] = slope;
}
// One warp a row.
__global__ void reference_rows_kernel(Reference r) {
  const AttentionShape& x = r.x;
  const int64_t row = (blockIdx.x * int64_t{blockDim.x} + threadIdx.x) / 32;
  const int lane = threadIdx.x % 32;
  if (row >= x.B * x.H * x.T) return;
  double *p = r.p + row * x.S, *ds = r.ds + row * x.S;
  const auto sum = [](double value) {
    for (int i = 16; i > 0; i /= 2) value += __shfl_xor_sync(~0u, value, i);
    return value;
  };
  double most = -INFINITY, total = 0, delta = 0;
  for (int64_t s = lane; s < x.S; s += 32) most = fmax(most, p[s]);
  for (int i = 16; i > 0; i /= 2) most = fmax(most, __shfl_xor_sync(~0u, most, i));
  for (int64_t s = lane; s < x.S; s += 32) total += p[s] == -INFINITY ? 0 : exp(p[s] - most);
  total = sum(total);
  for (int64_t s = lane; s < x.S; s += 32) delta += p[s] == -INFINITY ? 0 : exp(p[s] - most) / total * ds[s];
  delta = sum(delta);
  if (r.dlse != nullptr) delta -= r.dlse[row];
  if (lane == 0) r.lse[row] = total > 0 ? most + log(total) : -INFINITY;
  for (int64_t s = lane; s < x.S; s += 32) {
    const double weight = p[s] == -INFINITY ? 0 : exp(p[s] - most) / total;
    const double turned = x.softcap > 0 && weight > 0 ? p[s] / x.softcap : 0;
    ds[s] = weight * (ds[s] - delta) * (1 - turned * turned);
    p[s] = weight;
  }
}
__global__ void reference_query_side_kernel(Reference r) {
  const AttentionShape& x = r.x;
  const int64_t index = blockIdx.x * int64_t{blockDim.x} + threadIdx.x;
  if (index >= x.B * x.T * x.H * x.D) return;
  const int64_t d = index % x.D, h = index / x.D % x.H, t = index / (x.D * x.H) % x.T, b = index / (x.D * x.H * x.T);
  const int64_t row = ((b * x.H + h) * x.T + t) * x.S, g = h / (x.H / x.K);
  double o = 0, dq = 0;
  for (int64_t s = 0; s < x.S; ++s) o += r.p[row + s] * at(r.v, b, s, g, d), dq += r.ds[row + s] * at(r.k, b, s, g, d);
  r.o[index] = o, r.dq[index] = dq * x.scale;
}
__global__ void reference_key_side_kernel(Reference r) {
  const AttentionShape& x = r.x;
  const int64_t index = blockIdx.x * int64_t{blockDim.x} + threadIdx.x;
  if (index >= x.B * x.S * x.K * x.D) return;
  const int64_t d = index % x.D, g = index / x.D % x.K, s = index / (x.D * x.K) % x.S, b = index / (x.D * x.K * x.S);
  double dk = 0, dv = 0;
  for (int64_t h = g * (x.H / x.K); h < (g + 1) * (x.H / x.K); ++h)
    for (int64_t t = 0; t < x.T; ++t) {
      const int64_t at_row = ((b * x.H + h) * x.T + t) * x.S + s;
      dk += r.ds[at_row] * at(r.q, b, t, h, d), dv += r.p[at_row] * at(r.dout, b, t, h, d);
    }
  r.dk[index] = dk * x.scale, r.dv[index] = dv;
}

// ---- problems ------------------------------------------------------------------------------------------------------

struct Problem {
  AttentionShape x;
  bool with_dlse;
  AttentionForwardArgs forward;
  AttentionBackwardArgs backward;
  float* dlse = nullptr;
  size_t out_count, key_count, row_count;
};

// Sums of four uniforms, near enough to normal numbers.
__global__ void fill_normal_kernel(__nv_bfloat16* x, size_t count, uint64_t seed) {
  const size_t index = blockIdx.x * size_t{blockDim.x} + threadIdx.x;
  if (index >= count) return;
  uint64_t bits = seed + index * 0x9e3779b97f4a7c15u;
  bits = (bits ^ bits >> 30) * 0xbf58476d1ce4e5b9u;
  bits = (bits ^ bits >> 27) * 0x94d049bb133111ebu;
  bits ^= bits >> 31;
  const float sum = float(bits & 0xffff) + float(bits >> 16 & 0xffff) + float(bits >> 32 & 0xffff) + float(bits >> 48);
  x[index] = __float2bfloat16((sum / 65536.0f - 2.0f) * 1.7320508f);
}

// Fused QKV of H + 2K heads when T = S; else q of its own and fused keys and values.
Problem make_problem(const AttentionShape& x, bool with_dlse, uint64_t seed) {
  Problem p = {x, with_dlse};
  std::mt19937_64 random(seed);
  const auto filled = [&](size_t count) {
    auto* const device = device_array<__nv_bfloat16>(count);
    fill_normal_kernel<<<unsigned((count + 255) / 256), 256>>>(device, count, random());
    CHECK(cudaGetLastError());
    return device;
  };
  p.out_count = x.B * x.T * x.H * x.D, p.key_count = x.B * x.S * x.K * x.D, p.row_count = x.B * x.T * x.H;
  AttentionInput q, k, v;
  if (x.T == x.S) {
    const int64_t row = (x.H + 2 * x.K) * x.D;
    const auto* const fused = filled(x.B * x.T * row);
    q = {fused, x.T * row, row, x.D};
    k = {fused + x.H * x.D, x.T * row, row, x.D};
    v = {fused + (x.H + x.K) * x.D, x.T * row, row, x.D};
  } else {
    const int64_t row = 2 * x.K * x.D;
    q = {filled(p.out_count), x.T * x.H * x.D, x.H * x.D, x.D};
    const auto* const fused = filled(x.B * x.S * row);
    k = {fused, x.S * row, row, x.D};
    v = {fused + x.K * x.D, x.S * row, row, x.D};
  }
  const AttentionInput dout = {filled(p.out_count), x.T * x.H * x.D, x.H * x.D, x.D};
  auto* const o = device_array<__nv_bfloat16>(p.out_count);
  auto* const lse = device_array<float>(p.row_count);
  p.forward = {x, q, k, v, o, lse, nullptr};
  p.forward.counter = device_array<int>(1);
  CHECK(cudaMemset(p.forward.counter, 0, sizeof(int)));
  if (with_dlse) {
    std::vector<float> host(p.row_count);
    for (auto& value : host) value = float(random() % 1000) / 1000.0f - 0.5f;
    p.dlse = device_array<float>(p.row_count);
    CHECK(cudaMemcpy(p.dlse, host.data(), p.row_count * 4, cudaMemcpyHostToDevice));
  }
  p.backward = {x,
                dout,
                q,
                k,
                v,
                {o, x.T * x.H * x.D, x.H * x.D, x.D},
                lse,
                p.dlse,
                nullptr,
                nullptr,
                {device_array<__nv_bfloat16>(p.out_count), x.T * x.H * x.D, x.H * x.D},
                {device_array<__nv_bfloat16>(p.key_count), x.S * x.K * x.D, x.K * x.D},
                {device_array<__nv_bfloat16>(p.key_count), x.S * x.K * x.D, x.K * x.D},
                nullptr};
  p.backward.scratch = device_array<char>(attention_backward_sm90_scratch_bytes(p.backward));
  return p;
}

// All bits set is NaN in bfloat16 and float32.
void poison(void* p, size_t bytes) {
  CHECK(cudaMemset(p, 0xff, bytes));
}

template <class T>
std::vector<T> fetched(const T* device, size_t count) {
  std::vector<T> host(count);
  CHECK(cudaMemcpy(host.data(), device, count * sizeof(T), cudaMemcpyDeviceToHost));
  return host;
}
double value_of(__nv_bfloat16 x) {
  return __bfloat162float(x);
}
double value_of(float x) {
  return x;
}

// ‖x − r‖ / ‖r‖ where both may be −∞ alike; NaN if any is NaN.
template <class T>
double distance(const T* device, const double* reference, size_t count) {
  const auto x = fetched(device, count);
  const auto r = fetched(reference, count);
  double difference = 0, norm = 0;
  for (size_t i = 0; i < count; ++i) {
    const double value = value_of(x[i]);
    if (value == r[i]) {
      if (std::isfinite(value)) norm += r[i] * r[i];
      continue;
    }
    difference += (value - r[i]) * (value - r[i]), norm += r[i] * r[i];
  }
  return norm == 0 ? difference : std::sqrt(difference / norm);
}

template <class T>
bool same_bits(const T* a, const std::vector<T>& b) {
  const auto x = fetched(a, b.size());
  return std::memcmp(x.data(), b.data(), b.size() * sizeof(T)) == 0;
}

bool check(const AttentionShape& x, bool with_dlse, bool backward, uint64_t seed) {
  Problem p = make_problem(x, with_dlse, seed);
  const size_t pairs = x.B * x.H * x.T * x.S;
  Reference r = {x,
                 p.forward.q,
                 p.forward.k,
                 p.forward.v,
                 p.backward.dout,
                 p.dlse,
                 device_array<double>(pairs),
                 device_array<double>(pairs),
                 device_array<double>(p.out_count),
                 device_array<double>(p.row_count),
                 nullptr,
                 device_array<double>(p.out_count),
                 device_array<double>(p.key_count),
                 device_array<double>(p.key_count)};
  const auto blocks = [](size_t threads) { return unsigned((threads + 255) / 256); };
  reference_scores_kernel<<<blocks(pairs), 256>>>(r);
  reference_rows_kernel<<<blocks(p.row_count * 32), 256>>>(r);
  reference_query_side_kernel<<<blocks(p.out_count), 256>>>(r);
  reference_key_side_kernel<<<blocks(p.key_count), 256>>>(r);
  CHECK(cudaDeviceSynchronize());

  std::printf("B%ld T%ld S%ld H%ld K%ld D%ld causal%d window%ld offset%ld cap%g dlse%d:", x.B, x.T, x.S, x.H, x.K, x.D,
              x.causal, x.window, x.q_offset, x.softcap, with_dlse);
  std::fflush(stdout);
  if (!attention_forward_sm90_supports(p.forward)) return std::printf(" not supported\n"), false;
  poison(p.forward.o, p.out_count * 2), poison(p.forward.lse, p.row_count * 4);
  CHECK(attention_forward_sm90(p.forward, nullptr));
  CHECK(cudaDeviceSynchronize());
  const double o = distance(p.forward.o, r.o, p.out_count), lse = distance(p.forward.lse, r.lse, p.row_count);
  std::printf(" o %.1e lse %.1e", o, lse);
  // Rounding of the weights and of the result to bfloat16: 2⁻⁹ / √3 each, relative to one value.
  bool right = o < 4e-3 && lse < 1e-5;
  if (backward) {
    if (!attention_backward_sm90_supports(p.backward)) return std::printf(" backward not supported\n"), false;
    std::vector<__nv_bfloat16> before[3];
    const AttentionBackwardArgs& a = p.backward;
    for (int run = 0; run < 3; ++run) {
      poison(a.dq.data, p.out_count * 2), poison(a.dk.data, p.key_count * 2), poison(a.dv.data, p.key_count * 2);
      poison(a.scratch, attention_backward_sm90_scratch_bytes(a));
      CHECK(attention_backward_sm90(a, nullptr));
      CHECK(cudaDeviceSynchronize());
      if (run == 0) {
        before[0] = fetched(a.dq.data, p.out_count), before[1] = fetched(a.dk.data, p.key_count);
        before[2] = fetched(a.dv.data, p.key_count);
      } else if (!same_bits(a.dq.data, before[0]) || !same_bits(a.dk.data, before[1]) ||
                 !same_bits(a.dv.data, before[2])) {
        std::printf(" CHANGES"), right = false;
      }
    }
    const double dq = distance(a.dq.data, r.dq, p.out_count), dk = distance(a.dk.data, r.dk, p.key_count),
                 dv = distance(a.dv.data, r.dv, p.key_count);
    std::printf(" dq %.1e dk %.1e dv %.1e", dq, dk, dv);
    right = right && dq < 8e-3 && dk < 8e-3 && dv < 8e-3;
  }
  std::printf("%s\n", right ? "" : "  WRONG");
  std::fflush(stdout);
  return right;
}

// Median of the runs of a tenth of a second (20 at least), after as many to warm up: the chip lowers its clock under
// load, and what ran before must not matter.
template <class Call>
double median_ms(Call call) {
  const auto run = [&](int repeats) {
    std::vector<cudaEvent_t> events(2 * repeats);
    for (auto& event : events) CHECK(cudaEventCreate(&event));
    for (int i = 0; i < repeats; ++i) {
      CHECK(cudaEventRecord(events[2 * i]));
      CHECK(call());
      CHECK(cudaEventRecord(events[2 * i + 1]));
    }
    CHECK(cudaDeviceSynchronize());
    std::vector<float> times(repeats);
    for (int i = 0; i < repeats; ++i) CHECK(cudaEventElapsedTime(&times[i], events[2 * i], events[2 * i + 1]));
    for (auto& event : events) CHECK(cudaEventDestroy(event));
    std::nth_element(times.begin(), times.begin() + repeats / 2, times.end());
    return double(times[repeats / 2]);
  };
  run(3);
  const int repeats = std::max(20, int(100 / run(3)));
  run(repeats);
  return run(repeats);
}

void time_shape(const AttentionShape& x, bool backward) {
  Problem p = make_problem(x, false, 7);
  const double pairs = x.causal ? double(x.T) * x.S / 2 : double(x.T) * x.S, flops = 4.0 * x.D * pairs * x.B * x.H;
  const double forward_ms = median_ms([&] { return attention_forward_sm90(p.forward, nullptr); });
  std::printf("B%ld T%ld H%ld K%ld D%ld causal%d window%ld: forward %.4f ms %.0f TFLOP/s", x.B, x.T, x.H, x.K, x.D,
              x.causal, x.window, forward_ms, flops / forward_ms * 1e-9);
  std::fflush(stdout);
  if (backward) {
    const double ms = median_ms([&] { return attention_backward_sm90(p.backward, nullptr); });
    std::printf("  backward %.4f ms %.0f TFLOP/s", ms, 2.5 * flops / ms * 1e-9);
  }
  std::printf("\n");
  std::fflush(stdout);
}

AttentionShape shape(int64_t B, int64_t T, int64_t S, int64_t H, int64_t K, int64_t D, bool causal, int64_t window = 0,
                     int64_t q_offset = 0, double softcap = 0) {
  return {B, T, S, H, K, D, 1.0 / std::sqrt(double(D)), causal, window, q_offset, softcap};
}

}  // namespace

int main(int argc, char** argv) {
  const char* const what = argc > 1 ? argv[1] : "check";
  const bool backward = argc <= 2 || std::strcmp(argv[2], "forward") != 0;
  const AttentionShape small[] = {
      shape(1, 128, 128, 1, 1, 128, false),
      shape(1, 128, 128, 1, 1, 64, false),
      shape(2, 256, 256, 4, 4, 128, true),
      shape(2, 256, 256, 4, 4, 64, true),
      shape(2, 1000, 1000, 6, 2, 128, true),
      shape(2, 1000, 1000, 6, 2, 64, true),
      shape(1, 1, 1, 2, 1, 64, true),
      shape(3, 65, 129, 2, 1, 128, false),
      shape(3, 65, 129, 2, 1, 64, true, 0, 64),
      shape(2, 513, 1537, 3, 3, 64, true, 0, 1024),
      shape(2, 513, 1537, 3, 3, 128, true, 200, 1024),
      shape(2, 1030, 1030, 4, 2, 64, true, 300),
      shape(2, 777, 777, 4, 2, 128, false, 100),
      shape(2, 777, 777, 4, 2, 64, false, 400, 0, 2.0),
      shape(2, 500, 500, 4, 1, 128, true, 0, 0, 2.0),
      shape(1, 400, 300, 2, 2, 128, true, 0, -150),
      shape(1, 400, 300, 2, 2, 64, true, 37, -150),
      shape(1, 700, 300, 2, 2, 64, true, 37, 0),
      shape(1, 2048, 2048, 2, 2, 128, true),
      shape(4, 1024, 1024, 12, 12, 64, true),
  };
  if (std::strcmp(what, "check") == 0) {
    bool right = true;
    uint64_t seed = 1;
    for (const AttentionShape& x : small) right = check(x, seed % 2 == 0, backward, seed) && right, ++seed;
    std::printf("%s\n", right ? "all right" : "SOME WRONG");
    return right ? 0 : 1;
  }
  const AttentionShape timed[] = {
      shape(1, 16384, 16384, 16, 16, 128, true),
      shape(32, 1024, 1024, 12, 12, 64, true),
      shape(64, 512, 512, 4, 4, 64, true),
      shape(1, 16384, 16384, 16, 16, 128, false),
      shape(1, 16384, 16384, 16, 16, 64, true),
      shape(8, 2048, 2048, 16, 4, 128, true),
      shape(1, 16384, 16384, 16, 4, 128, true, 1024),
  };
  if (std::strcmp(what, "one") == 0) {
    time_shape(timed[argc > 3 ? std::atoi(argv[3]) : 0], backward);
    return 0;
  }
  const int count = std::strcmp(what, "time") == 0 ? 7 : 3;
  for (int i = 0; i < count; ++i) time_shape(timed[i], backward);
  return 0;
}
