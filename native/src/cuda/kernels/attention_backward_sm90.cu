// Attention, backward, on Hopper (Dao et al., arXiv:2205.14135): with P = exp(s − lse) recomputed and δ = Σ dout∘o −
// dlse per row,  dv = Pᵀ·dout,  dS = P ∘ (dout·vᵀ − δ) ∘ (1 − tanh²),  dq = scale·dS·k,  dk = scale·dSᵀ·q.
//
// A first kernel computes δ and lse to base 2, padded to whole tiles. The second is persistent; a block takes 128 keys
// of one key/value head and walks the query tiles that see them, last to first, for each query head of the group. Its
// two consumer warpgroups own 64 keys each and keep dkᵀ and dvᵀ sums in registers; they work on transposed scores,
// whose fragments are at once the left operands of dv and dk:
//   sᵀ = k·qᵀ, dPᵀ = v·doutᵀ, dv += Pᵀ·dout, dk += dSᵀ·q;  dSᵀ also goes to shared memory, for dq = dS·k of all 128
//   keys (D = 128: 64 channels a warpgroup; D = 64: 64 queries a warpgroup).
// The exponentials lie under dPᵀ, dS under dv, its way through shared memory under dk, and dq of a tile is handed over
// under the next tile's scores.
//
// How dq is summed, and what lies in shared memory: attention_backward_sm90.cuh.
#include "attention_backward_sm90.cuh"

#include <algorithm>

namespace llmeff::cuda {
namespace {

// ---- products -----------------------------------------------------------------------------------------------------

template <int kWidth, bool kSoftcap>
struct Consumer {
  static constexpr int kTileRows = kRows<kWidth>;
  static constexpr int kSteps = kTileRows / 16;  // of 16 queries
  // dS from packed weights, of which no float32 form is kept then: as exact as dv, and 64 registers less.
  static constexpr bool kPackedWeights = kWidth == 64 || kSoftcap;
  static constexpr int kKeyPanel = kKeys * kPanelRowBytes, kRowPanel = kTileRows * kPanelRowBytes;

  const BackwardParams& p;
  BackwardShared<kWidth>& shared;
  const int group;
  Ring<1> works;
  Ring<kQueryStages> queries;
  Ring<kDoutStages> douts;
  Ring<kWriters> uses;      // of the dq buffers
  uint32_t sum_phases = 0;  // a bit for each buffer
  Ring<2> slopes;
  float dk[kWidth / 2], dv[kWidth / 2];
  float dq[32];  // of the former tile of queries, scaled
  uint32_t weights[kSteps][4], ds[kSteps][4];
  uint32_t turned[kSoftcap ? kSteps : 1][4];  // weights times the slope of the soft cap

  // One lane arrives for its warp, after the others' reads and writes.
  __device__ void release(uint64_t* barrier) const {
    __syncwarp();
    if (threadIdx.x % 32 == 0) mbarrier_arrive(barrier);
  }
  template <int kCount>
  __device__ static void pin_all(uint32_t (&x)[kCount][4]) {
#pragma unroll
    for (int c = 0; c < kCount; ++c) pin(x[c]);
  }

  // d = a·bᵀ over channels: own rows of a tile of keys or values, and a tile of rows.
  __device__ void issue_scores(float (&d)[kTileRows / 2], const __nv_bfloat16* keys, const __nv_bfloat16* rows) {
    const uint64_t a = matrix_descriptor<kMajorK>(shared_address(keys) + group * 64 * kPanelRowBytes);
    const uint64_t b = matrix_descriptor<kMajorK>(shared_address(rows));
    pin(d);
    wgmma_fence();
#pragma unroll
    for (int c = 0; c < kWidth / 16; ++c)
      wgmma_ss<kTileRows, kMajorK, kMajorK>(d, advance(a, c / 4 * kKeyPanel + c % 4 * 32),
                                            advance(b, c / 4 * kRowPanel + c % 4 * 32), c > 0);
    wgmma_commit();
  }
  // d += a·b over queries.
  __device__ void issue_sum(float (&d)[kWidth / 2], const uint32_t (&a)[kSteps][4], const __nv_bfloat16* rows) {
    const uint64_t b = matrix_descriptor<kMajorMN>(shared_address(rows), kTileRows);
    pin(d);
    wgmma_fence();
#pragma unroll
    for (int c = 0; c < kSteps; ++c) wgmma_rs<kWidth, kMajorMN>(d, a[c], advance(b, c * 16 * kPanelRowBytes));
    wgmma_commit();
  }
  // 64 queries × 64 channels of dS·k.
  __device__ void issue_dq(float (&d)[32], const __nv_bfloat16* slope) {
    const int query_panel = kWidth == 64 ? group : 0, key_panel = kWidth == 64 ? 0 : group;
    const uint64_t a = matrix_descriptor<kMajorMN>(shared_address(slope) + query_panel * kKeyPanel);
    const uint64_t b = matrix_descriptor<kMajorMN>(shared_address(shared.k) + key_panel * kKeyPanel);
    pin(d);
    wgmma_fence();
#pragma unroll
    for (int c = 0; c < kKeys / 16; ++c)
      wgmma_ss<64, kMajorMN, kMajorMN>(d, advance(a, c * 16 * kPanelRowBytes), advance(b, c * 16 * kPanelRowBytes),
                                       c > 0);
    wgmma_commit();
  }

  // Scores become weights, also packed.
  __device__ void weigh(float (&s)[kTileRows / 2], const float* lse, bool masked, int key, int top) {
    const int column = 2 * (threadIdx.x % 4);
    constexpr int kFar = 1 << 30;
    int first[2] = {-kFar, -kFar}, last[2] = {kFar, kFar};  // columns that see the keys `key` and `key` + 8
    if (masked) {
      const KeyRule& rule = p.rule;
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const int j = key + 8 * r, origin = top + column;
        if (rule.causal || rule.window > 0) first[r] = (rule.causal ? j : j - rule.window + 1) - origin;
        if (rule.window > 0) last[r] = j + rule.window - 1 - origin;
        if (j >= rule.S) last[r] = -kFar;
        if constexpr (!kSoftcap) {
#pragma unroll
          for (int i = 0; i < kTileRows / 4; ++i) {
            const int at = i / 2 * 8 + i % 2;
            if (at < first[r] || at > last[r]) s[i / 2 * 4 + 2 * r + i % 2] = -INFINITY;
          }
        }
      }
    }
#pragma unroll
    for (int j = 0; j < kTileRows / 8; ++j) {
      const float2 shift = *reinterpret_cast<const float2*>(lse + 8 * j + column);
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        float &x = s[4 * j + 2 * r], &y = s[4 * j + 2 * r + 1];
        uint32_t& packed = weights[j / 2][j % 2 * 2 + r];
        if constexpr (kSoftcap) {
          const float tx = tanh_exact(x * p.softcap_factor), ty = tanh_exact(y * p.softcap_factor);
          const bool sees_x = 8 * j >= first[r] && 8 * j <= last[r];
          const bool sees_y = 8 * j + 1 >= first[r] && 8 * j + 1 <= last[r];
          const float a = sees_x ? exp2_approx(tx * p.factor - shift.x) : 0.0f;
          const float b = sees_y ? exp2_approx(ty * p.factor - shift.y) : 0.0f;
          packed = pack_bf16(a, b);
          turned[j / 2][j % 2 * 2 + r] = pack_bf16(a * (1 - tx * tx), b * (1 - ty * ty));
        } else {
          x = exp2_approx(x * p.factor - shift.x), y = exp2_approx(y * p.factor - shift.y);
          packed = pack_bf16(x, y);
        }
      }
    }
  }

  // dS of weights and dP, packed.
  __device__ void slope(const float (&s)[kTileRows / 2], const float (&dp)[kTileRows / 2], const float* delta) {
    const int column = 2 * (threadIdx.x % 4);
#pragma unroll
    for (int c = 0; c < kSteps; ++c)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int at = 8 * c + 2 * i;
        const float2 mean = *reinterpret_cast<const float2*>(delta + 16 * c + i / 2 * 8 + column);
        float a = s[at], b = s[at + 1];
        if constexpr (kPackedWeights) {
          const uint32_t pair = kSoftcap ? turned[c][i] : weights[c][i];
          a = __uint_as_float(pair << 16), b = __uint_as_float(pair & 0xffff0000u);
        }
        ds[c][i] = pack_bf16(a * (dp[at] - mean.x), b * (dp[at + 1] - mean.y));
      }
  }
  __device__ void store_slopes(const __nv_bfloat16* to) const {
    const int lane = threadIdx.x % 32, half = lane / 16;
    const int row = 64 * group + threadIdx.x % 128 / 32 * 16 + lane % 16;
    const uint32_t base = shared_address(to) + row * kPanelRowBytes;
#pragma unroll
    for (int c = 0; c < kSteps; ++c)
      store_matrices(base + c / 4 * kKeyPanel + (((c % 4 * 2 + half) ^ (row % 8)) * 16), ds[c]);
    fence_async_shared();
  }

  // One tile of queries.
  __device__ void step(const Work& work, int head, int m, bool masked, int former_head, int former_m) {
    const int thread = threadIdx.x % 128, key = work.tile * kKeys + 64 * group + thread / 32 * 16 + thread % 32 / 4;
    float s[kTileRows / 2], dp[kTileRows / 2], products[32];
    const auto issue_slopes = [&] {
      mbarrier_wait(&shared.dout_full[douts.stage], douts.phase);
      issue_scores(dp, shared.v, shared.dout[douts.stage]);
    };
    mbarrier_wait(&shared.q_full[queries.stage], queries.phase);
    issue_scores(s, shared.k, shared.q[queries.stage]);
    if (former_m >= 0) hand_over(work, former_head, former_m);
    // With a soft cap the registers don't suffice for both at once.
    if constexpr (!kSoftcap) issue_slopes();
    wgmma_wait<kSoftcap ? 0 : 1>();
    pin(s);
    weigh(s, shared.lse[queries.stage], masked, key, p.rule.q_offset + m * kTileRows);
    if constexpr (kSoftcap) issue_slopes();
    wgmma_wait();
    pin(dp);
    pin_all(weights);
    issue_sum(dv, weights, shared.dout[douts.stage]);
    slope(s, dp, shared.delta[douts.stage]);
    pin_all(ds);
    issue_sum(dk, ds, shared.q[queries.stage]);
    store_slopes(shared.ds[slopes.stage]);
    named_barrier_wait(kConsumerBarrier, 2 * 128);
    issue_dq(products, shared.ds[slopes.stage]);
    wgmma_wait();
    pin(dv);
    pin(products);
    pin_all(weights);
    // Scaled here, and so in registers that no product writes: they are read while others are under way.
#pragma unroll
    for (int i = 0; i < 32; ++i) dq[i] = products[i] * p.scale;
    release(&shared.dout_empty[douts.stage]);
    pin(dk);
    pin_all(ds);
    release(&shared.q_empty[queries.stage]);
    queries.next(), douts.next(), slopes.next();
  }

  // A tile's dq: to the writers, or finished.
  __device__ void hand_over(const Work& work, int head, int m) {
    const bool first = m >= work.starts, last = m < work.stops;
    const int thread = threadIdx.x % 128;
    float4* const buffer = reinterpret_cast<float4*>(shared.dq[uses.stage] + group * (kDqTile / 2)) + thread;
    if (!last) {
      mbarrier_wait(&shared.dq_empty[uses.stage], uses.phase ^ 1);
#pragma unroll
      for (int i = 0; i < 8; ++i) buffer[128 * i] = make_float4(dq[4 * i], dq[4 * i + 1], dq[4 * i + 2], dq[4 * i + 3]);
      fence_async_shared();
      release(&shared.dq_full[uses.stage]);
      uses.next();
      return;
    }
    if (!first) {
      mbarrier_wait(&shared.sum_full[uses.stage], sum_phases >> uses.stage & 1);
      sum_phases ^= 1u << uses.stage;
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const float4 sum = buffer[128 * i];
        dq[4 * i] += sum.x, dq[4 * i + 1] += sum.y, dq[4 * i + 2] += sum.z, dq[4 * i + 3] += sum.w;
      }
      release(&shared.dq_full[uses.stage]);
      uses.next();
    }
    const int64_t t = m * kTileRows + (kWidth == 64 ? 64 * group : 0) + thread / 32 * 16 + thread % 32 / 4;
    __nv_bfloat16* const row = p.dq.data + work.batch * p.dq.batch_stride + t * p.dq.row_stride +
                               int64_t{head} * kWidth + (kWidth == 128 ? 64 * group : 0);
    if constexpr (kWidth == 64)
      if (p.cos != nullptr) turn_back(dq, p.cos, p.sin, t, t < p.rule.T, t + 8 < p.rule.T);
    store_rows<64>(dq, 1.0f, 1.0f, t < p.rule.T ? row : nullptr,
                   t + 8 < p.rule.T ? row + 8 * p.dq.row_stride : nullptr);
  }

  __device__ void run(const Work& work) {
#pragma unroll
    for (int i = 0; i < kWidth / 2; ++i) dk[i] = dv[i] = 0;
    const int first_key = work.tile * kKeys + 64 * group, first_head = work.kv_head * p.group_size;
    int former_head = 0, former_m = -1;
    for (int head = first_head; head < first_head + p.group_size; ++head)
      for (int m = work.end - 1; m >= work.begin; --m) {
        const int top = p.rule.q_offset + m * kTileRows;
        const bool whole = p.rule.first(top + kTileRows - 1) <= first_key && p.rule.last(top) >= first_key + 63;
        step(work, head, m, !whole, former_head, former_m);
        former_head = head, former_m = m;
      }
    release(&shared.kv_empty);
    if (former_m >= 0) hand_over(work, former_head, former_m);
    const int thread = threadIdx.x % 128;
    const int64_t j = first_key + thread / 32 * 16 + thread % 32 / 4;
    const auto store = [&](const float (&sums)[kWidth / 2], float factor, const AttentionGradient& to) {
      __nv_bfloat16* const row =
          to.data + work.batch * to.batch_stride + j * to.row_stride + int64_t{work.kv_head} * kWidth;
      store_rows<kWidth>(sums, factor, factor, j < p.rule.S ? row : nullptr,
                         j + 8 < p.rule.S ? row + 8 * to.row_stride : nullptr);
    };
    store(dv, 1.0f, p.dv);
    if constexpr (kWidth == 64)
      if (p.cos != nullptr) turn_back(dk, p.cos, p.sin, j, j < p.rule.S, j + 8 < p.rule.S);
    store(dk, p.scale, p.dk);
  }
};

template <int kWidth, bool kSoftcap>
__global__ void __launch_bounds__(384, 1) attention_backward_sm90_kernel(const __grid_constant__ BackwardParams p) {
  extern __shared__ __align__(1024) unsigned char memory[];
  auto& shared = *reinterpret_cast<BackwardShared<kWidth>*>(memory);
  if (threadIdx.x == 0) {
    prefetch_tensor_map(&p.q), prefetch_tensor_map(&p.k), prefetch_tensor_map(&p.v), prefetch_tensor_map(&p.dout);
    constexpr int kReaders = 8;  // one lane of each consumer warp
    mbarrier_init(&shared.kv_full, 1), mbarrier_init(&shared.kv_empty, kReaders + kWriters);
    for (int i = 0; i < kQueryStages; ++i)
      mbarrier_init(&shared.q_full[i], 1), mbarrier_init(&shared.q_empty[i], kReaders);
    for (int i = 0; i < kDoutStages; ++i)
      mbarrier_init(&shared.dout_full[i], 1), mbarrier_init(&shared.dout_empty[i], kReaders);
    for (int i = 0; i < kWriters; ++i)
      mbarrier_init(&shared.dq_full[i], kReaders), mbarrier_init(&shared.dq_empty[i], 1),
          mbarrier_init(&shared.sum_full[i], 1);
    mbarrier_init_fence();
  }
  __syncthreads();

  const int warpgroup = uniform(threadIdx.x / 128);
  if (warpgroup == 0) {
    give_registers<kProducerRegisters>();
    const int warp = uniform(threadIdx.x / 32);
    if (warp == 0 && threadIdx.x % 32 == 0) produce<kWidth>(p, shared);
    if (warp >= 1 && warp <= kWriters && threadIdx.x % 32 == 0) write_sums<kWidth>(p, shared, warp - 1);
  } else {
    take_registers<kConsumerRegisters>();
    Consumer<kWidth, kSoftcap> consumer = {p, shared, warpgroup - 1};
    for (;; consumer.works.next()) {
      mbarrier_wait(&shared.kv_full, consumer.works.phase);
      const int index = uniform(shared.work);
      if (index < 0) break;
      consumer.run(work_at<kWidth>(p, index));
    }
  }
}

// ---- δ and lse ----------------------------------------------------------------------------------------------------

struct RowParams {
  AttentionInput o, dout;
  const float *lse, *dlse;
  float *lse2, *delta;
  AttentionGradient dq;
  int* zeros;                              // flags and counter
  int64_t zero_count, T, H, padded, rows;  // rows = B·padded·H
};

// kWidth / 8 threads a row (b, t, h).
template <int kWidth>
__global__ void __launch_bounds__(256) attention_backward_sm90_rows_kernel(RowParams p) {
  constexpr int kThreads = kWidth / 8;
  const int64_t thread = blockIdx.x * int64_t{blockDim.x} + threadIdx.x, row = thread / kThreads;
  if (thread < p.zero_count) p.zeros[thread] = 0;
  if (row >= p.rows) return;
  const int64_t h = row % p.H, t = row / p.H % p.padded, b = row / (p.H * p.padded);
  const int64_t at = (b * p.H + h) * p.padded + t, channel = threadIdx.x % kThreads * 8;
  if (t >= p.T) {
    if (channel == 0) p.lse2[at] = INFINITY, p.delta[at] = 0;
    return;
  }
  const auto load = [&](const AttentionInput& x) {
    return *reinterpret_cast<const uint4*>(x.data + b * x.batch_stride + t * x.row_stride + h * x.head_stride +
                                           channel);
  };
  const uint4 o = load(p.o), dout = load(p.dout);
  const auto dot = [](uint32_t x, uint32_t y) {  // of bf16 pairs
    return __uint_as_float(x << 16) * __uint_as_float(y << 16) +
           __uint_as_float(x & 0xffff0000u) * __uint_as_float(y & 0xffff0000u);
  };
  float sum = (dot(o.x, dout.x) + dot(o.y, dout.y)) + (dot(o.z, dout.z) + dot(o.w, dout.w));
#pragma unroll
  for (int i = kThreads / 2; i > 0; i /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, i, kThreads);
  const int64_t source = (b * p.H + h) * p.T + t;
  const float lse = p.lse[source];
  const bool empty = lse == -INFINITY;
  if (channel == 0) {
    // 2^(s − ∞) = 0: rows without keys add nothing.
    p.lse2[at] = empty ? INFINITY : lse * kLog2E;
    p.delta[at] = empty ? 0.0f : sum - (p.dlse != nullptr ? p.dlse[source] : 0.0f);
  }
  // No key tile may come by.
  if (empty)
    *reinterpret_cast<uint4*>(p.dq.data + b * p.dq.batch_stride + t * p.dq.row_stride + h * kWidth + channel) =
        make_uint4(0, 0, 0, 0);
}

// ---- launchers ----------------------------------------------------------------------------------------------------

struct Scratch {
  int64_t query_tiles, rows, flags;  // rows: padded, of all heads
  size_t lse, delta, zeros, sums, bytes;

  explicit Scratch(const AttentionShape& x) {
    const int64_t tile = kDqTile / x.D;
    query_tiles = (x.T + tile - 1) / tile, rows = x.B * x.H * query_tiles * tile, flags = x.B * x.H * query_tiles;
    const auto aligned = [](size_t size) { return (size + 255) / 256 * 256; };
    lse = 0, delta = aligned(rows * 4), zeros = delta + aligned(rows * 4);
    sums = zeros + aligned((flags + 1) * 4), bytes = sums + size_t(flags) * kDqTile * 4;
  }
};

// Key/value heads taken together. The rows and sums of dq of few heads stay in the L2 cache; but of one head no more
// than about eight key tiles should be under way at a time, since their sums of dq follow one another.
int section_heads(const AttentionShape& x, int multiprocessors) {
  constexpr int64_t kBytes = int64_t{24} << 20;
  const int64_t heads = x.B * x.K, bytes = x.D * (8 * x.T * (x.H / x.K) + 4 * x.S);
  int64_t wanted = kBytes / bytes + 1;
  if (wanted < (multiprocessors + 7) / 8) wanted = (multiprocessors + 7) / 8;
  if (wanted >= heads) return int(heads);
  const int64_t sections = heads / wanted;
  return int((heads + sections - 1) / sections);
}

template <int kWidth, bool kSoftcap>
cudaError_t launch(const AttentionBackwardArgs& args, cudaStream_t stream) {
  const AttentionShape& x = args.shape;
  const Scratch layout(x);
  char* const scratch = static_cast<char*>(args.scratch);
  int device = 0, multiprocessors = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
  BackwardParams p;
  if (error == cudaSuccess) error = make_tensor_map(&p.q, tma_array(args.q, x.B, x.T, x.H, x.D), kRows<kWidth>);
  if (error == cudaSuccess) error = make_tensor_map(&p.dout, tma_array(args.dout, x.B, x.T, x.H, x.D), kRows<kWidth>);
  if (error == cudaSuccess) error = make_tensor_map(&p.k, tma_array(args.k, x.B, x.S, x.K, x.D), kKeys);
  if (error == cudaSuccess) error = make_tensor_map(&p.v, tma_array(args.v, x.B, x.S, x.K, x.D), kKeys);
  p.rule = key_rule(x);
  p.H = int(x.H), p.group_size = int(x.H / x.K), p.kv_heads = int(x.B * x.K);
  p.key_tiles = int((x.S + kKeys - 1) / kKeys), p.query_tiles = int(layout.query_tiles);
  p.section = section_heads(x, multiprocessors);
  p.factor = kLog2E * float(kSoftcap ? x.softcap : x.scale);
  p.softcap_factor = kSoftcap ? float(x.scale / x.softcap) : 0.0f;
  p.scale = float(x.scale);
  float* const lse = reinterpret_cast<float*>(scratch + layout.lse);
  float* const delta = reinterpret_cast<float*>(scratch + layout.delta);
  p.lse = lse, p.delta = delta;
  p.dq_sum = reinterpret_cast<float*>(scratch + layout.sums);
  p.counter = reinterpret_cast<int*>(scratch + layout.zeros), p.flags = p.counter + 1;
  p.cos = args.cos, p.sin = args.sin;
  p.dq = args.dq, p.dk = args.dk, p.dv = args.dv;
  const auto kernel = attention_backward_sm90_kernel<kWidth, kSoftcap>;
  constexpr int kShared = sizeof(BackwardShared<kWidth>);
  static_assert(kShared <= 227 * 1024);
  if (error == cudaSuccess) error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kShared);
  if (error != cudaSuccess) return error;

  const RowParams rows = {args.o,     args.dout, args.lse,         args.dlse, lse, delta,
                          args.dq,    p.counter, layout.flags + 1, x.T,       x.H, layout.query_tiles * kRows<kWidth>,
                          layout.rows};
  const int64_t threads = layout.rows * (kWidth / 8);
  attention_backward_sm90_rows_kernel<kWidth><<<unsigned((threads + 255) / 256), 256, 0, stream>>>(rows);
  error = cudaGetLastError();
  if (error != cudaSuccess) return error;
  const int blocks = std::min(p.kv_heads * p.key_tiles, multiprocessors);
  kernel<<<blocks, 384, kShared, stream>>>(p);
  return cudaGetLastError();
}

}  // namespace

bool attention_backward_sm90_supports(const AttentionBackwardArgs& args) {
  const AttentionShape& x = args.shape;
  const auto aligned = [](const AttentionGradient& x) {
    return reinterpret_cast<uintptr_t>(x.data) % 16 == 0 && x.batch_stride % 8 == 0 && x.row_stride % 8 == 0;
  };
  return attention_shape_supported(x) && x.B * x.K * ((x.S + 127) / 128) < kMostPositions &&
         tma_can_read(tma_array(args.q, x.B, x.T, x.H, x.D)) && tma_can_read(tma_array(args.k, x.B, x.S, x.K, x.D)) &&
         tma_can_read(tma_array(args.v, x.B, x.S, x.K, x.D)) &&
         tma_can_read(tma_array(args.dout, x.B, x.T, x.H, x.D)) &&
         tma_can_read(tma_array(args.o, x.B, x.T, x.H, x.D)) && aligned(args.dq) && aligned(args.dk) &&
         aligned(args.dv);
}

size_t attention_backward_sm90_scratch_bytes(const AttentionBackwardArgs& args) {
  return Scratch(args.shape).bytes;
}

cudaError_t attention_backward_sm90(const AttentionBackwardArgs& args, cudaStream_t stream) {
  const bool softcap = args.shape.softcap > 0;
  if (args.shape.D == 128) return softcap ? launch<128, true>(args, stream) : launch<128, false>(args, stream);
  return softcap ? launch<64, true>(args, stream) : launch<64, false>(args, stream);
}

}  // namespace llmeff::cuda
