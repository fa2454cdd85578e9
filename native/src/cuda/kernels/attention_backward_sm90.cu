// Attention, backward, on Hopper (Dao et al., arXiv:2205.14135): with P = exp(s − lse) recomputed and δ = Σ dout∘o −
// dlse per row,  dv = Pᵀ·dout,  dS = P ∘ (dout·vᵀ − δ) ∘ (1 − tanh²),  dq = scale·dS·k,  dk = scale·dSᵀ·q.
//
// A first kernel computes δ and lse to base 2, padded to whole tiles. The second is persistent; a block takes 128 keys
// of one key/value head and walks the query tiles that see them, last to first, for each query head of the group. Its
// two consumer warpgroups own 64 keys each and keep dkᵀ and dvᵀ sums in registers; they work on transposed scores,
// whose fragments are at once the left operands of dv and dk:
//   sᵀ = k·qᵀ, dPᵀ = v·doutᵀ, dv += Pᵀ·dout, dk += dSᵀ·q;  dSᵀ also goes to shared memory, for dq = dS·k of all 128
//   keys (D = 128: 64 channels a warpgroup; D = 64: 64 queries a warpgroup).
// The next tile's scores are issued while dk of this one runs; the exponentials lie under dPᵀ, dS under dv.
//
// dq is summed over key tiles in a float32 array of fragments, in ascending order of keys, which makes it
// deterministic: a flag per query tile counts the sums done. The first key tile stores, the following add (bulk
// reductions by the writer warps, out of the consumers' way), and the last reads the sum and writes dq in bf16. Tiles
// of work are handed out by ascending keys and walked from the last query down, so that the blocks of one head follow
// one another a step apart and no block waits for one that hasn't begun.
//
// Shared memory: k, v [128 × D]; q kQueryStages and dout kDoutStages × [kRows × D]; dSᵀ 2 × [128 × kRows]; dq 2 × 32
// KB:
//   D = 128, 64 rows: 64 + 32 + 32 + 32 + 64 = 224 KB;   D = 64, 128 rows: 32 + 32 + 32 + 64 + 64 = 224 KB.
#include <algorithm>

#include "attention_sm90_tiles.h"

namespace llmeff::cuda {
namespace {

using namespace sm90;

constexpr int kKeys = 128;
constexpr int kQueryStages = 2, kDoutStages = 2;
constexpr int kWriters = 2;  // each with a buffer of its own
constexpr int kProducerRegisters = 40, kConsumerRegisters = 232;
constexpr int kConsumerBarrier = 1;
constexpr int kDqTile = 8192;  // floats of a query tile, 64·128 either way
constexpr float kLog2E = 1.4426950408889634f;

template <int kWidth>
constexpr int kRows = kDqTile / kWidth;

struct BackwardParams {
  CUtensorMap q, k, v, dout;
  KeyRule rule;
  int H, group_size;  // query heads; of one key/value head
  int kv_heads;       // B·K
  int key_tiles, query_tiles;
  int section;                   // key/value heads taken together
  float factor, softcap_factor;  // as in the forward pass
  float scale;
  const float *lse, *delta;  // [B·H, query_tiles·kRows], lse to base 2 and +∞ where a row has no keys
  float* dq_sum;             // [B·H, query_tiles][kDqTile]
  int* flags;                // [B·H, query_tiles]
  int* counter;
  __nv_bfloat16 *dq, *dk, *dv;
};

template <int kWidth>
struct BackwardShared {
  alignas(1024) __nv_bfloat16 k[kKeys * kWidth];
  alignas(1024) __nv_bfloat16 v[kKeys * kWidth];
  alignas(1024) __nv_bfloat16 q[kQueryStages][kDqTile];
  alignas(1024) __nv_bfloat16 dout[kDoutStages][kDqTile];
  alignas(1024) __nv_bfloat16 ds[2][kKeys * kRows<kWidth>];  // panels of 64 queries, a row a key
  alignas(1024) float dq[kWriters][kDqTile];                 // fragments: [warpgroup][register / 4][thread][4]
  alignas(16) float lse[kQueryStages][kRows<kWidth>];
  alignas(16) float delta[kDoutStages][kRows<kWidth>];
  uint64_t kv_full, kv_empty;
  uint64_t q_full[kQueryStages], q_empty[kQueryStages], dout_full[kDoutStages], dout_empty[kDoutStages];
  uint64_t dq_full[kWriters], dq_empty[kWriters];  // the consumers are done with a dq buffer; its writer is
  uint64_t sum_full[kWriters];                     // the writer has loaded it
  int work;                                        // −1: no more
};

// A count of uses of a ring of kStages.
template <int kStages>
struct Ring {
  int stage = 0;
  uint32_t phase = 0;
  __device__ void next() {
    if (++stage == kStages) stage = 0, phase ^= 1;
  }
};

// One tile n of keys, and the query tiles m in [begin, end) that see some of them.
struct Work {
  int batch, kv_head, tile, begin, end;
  int starts;  // from here on n is the first tile of keys that m sees
  int stops;   // below this n is the last
};

// The first key tile that query tile m sees.
template <int kWidth>
__device__ int first_key_tile(const KeyRule& rule, int m) {
  return rule.window > 0 ? max(0, floor_divide(rule.q_offset + m * kRows<kWidth> - rule.window + 1, kKeys)) : 0;
}

template <int kWidth>
__device__ Work work_at(const BackwardParams& p, int index) {
  constexpr int kTileRows = kRows<kWidth>;
  const int section = index / (p.section * p.key_tiles);
  const int heads = min(p.section, p.kv_heads - section * p.section);
  const int within = index - section * p.section * p.key_tiles;
  const int n = within / heads, head = section * p.section + within % heads, heads_of_batch = p.H / p.group_size;
  const KeyRule& rule = p.rule;
  // Query tile m sees keys from tile ⌊(q_offset + m·rows − window + 1) / 128⌋ to ⌊(q_offset + (m + 1)·rows − 1 + ahead)
  // / 128⌋, both clipped; solved for m.
  const int ahead = rule.causal ? 0 : rule.window - 1;
  const auto sees_from = [&](int tile) { return floor_divide(tile * kKeys - ahead - rule.q_offset, kTileRows); };
  const auto sees_until = [&](int tile) {
    return floor_divide(tile * kKeys + kKeys - 2 + rule.window - rule.q_offset, kTileRows) + 1;
  };
  Work work = {head / heads_of_batch, head % heads_of_batch, n, 0, p.query_tiles, 0, 0};
  if (rule.causal || rule.window > 0) work.begin = max(0, sees_from(n)), work.stops = sees_from(n + 1);
  if (n == p.key_tiles - 1) work.stops = p.query_tiles;
  if (rule.window > 0) work.end = min(p.query_tiles, sees_until(n)), work.starts = sees_until(n - 1);
  if (n == 0)
    work.starts = 0;
  else if (rule.window == 0)
    work.starts = p.query_tiles;
  return work;
}

// ---- loads
// -----------------------------------------------------------------------------------------------------------

template <int kWidth>
__device__ void produce(const BackwardParams& p, BackwardShared<kWidth>& shared) {
  constexpr int kPanels = kWidth / kPanelChannels, kTileRows = kRows<kWidth>;
  Ring<1> works;
  Ring<kQueryStages> queries;
  Ring<kDoutStages> douts;
  int index = blockIdx.x;
  for (;; works.next()) {
    if (index >= p.kv_heads * p.key_tiles) {
      mbarrier_wait(&shared.kv_empty, works.phase ^ 1);
      shared.work = -1;
      mbarrier_arrive(&shared.kv_full);
      return;
    }
    const Work work = work_at<kWidth>(p, index);
    const auto load_rows = [&](int head, int m) {
      const int64_t row = (int64_t{work.batch} * p.H + head) * p.query_tiles * kTileRows + m * kTileRows;
      uint64_t* full = &shared.q_full[queries.stage];
      mbarrier_wait(&shared.q_empty[queries.stage], queries.phase ^ 1);
      mbarrier_arrive_expect(full, sizeof shared.q[0] + sizeof shared.lse[0]);
      for (int c = 0; c < kPanels; ++c)
        tma_load(shared.q[queries.stage] + c * kTileRows * kPanelChannels, &p.q, full, c * kPanelChannels, head,
                 m * kTileRows, work.batch);
      bulk_load(shared.lse[queries.stage], p.lse + row, sizeof shared.lse[0], full);
      queries.next();
      full = &shared.dout_full[douts.stage];
      mbarrier_wait(&shared.dout_empty[douts.stage], douts.phase ^ 1);
      mbarrier_arrive_expect(full, sizeof shared.dout[0] + sizeof shared.delta[0]);
      for (int c = 0; c < kPanels; ++c)
        tma_load(shared.dout[douts.stage] + c * kTileRows * kPanelChannels, &p.dout, full, c * kPanelChannels, head,
                 m * kTileRows, work.batch);
      bulk_load(shared.delta[douts.stage], p.delta + row, sizeof shared.delta[0], full);
      douts.next();
    };
    const auto load_keys = [&] {
      mbarrier_wait(&shared.kv_empty, works.phase ^ 1);
      shared.work = index;
      mbarrier_arrive_expect(&shared.kv_full, sizeof shared.k + sizeof shared.v);
      for (int c = 0; c < kPanels; ++c)
        tma_load(shared.k + c * kKeys * kPanelChannels, &p.k, &shared.kv_full, c * kPanelChannels, work.kv_head,
                 work.tile * kKeys, work.batch);
      for (int c = 0; c < kPanels; ++c)
        tma_load(shared.v + c * kKeys * kPanelChannels, &p.v, &shared.kv_full, c * kPanelChannels, work.kv_head,
                 work.tile * kKeys, work.batch);
    };
    // The first rows come before the keys, for which the end of the former work is awaited.
    const int first = work.kv_head * p.group_size;
    if (work.begin >= work.end) load_keys();
    for (int head = first; head < first + p.group_size; ++head)
      for (int m = work.end - 1; m >= work.begin; --m) {
        load_rows(head, m);
        if (head == first && m == work.end - 1) load_keys();
      }
    index = gridDim.x + atomicAdd(p.counter, 1);
  }
}

// ---- sums of dq
// --------------------------------------------------------------------------------------------------------

__device__ void await_flag(const int* flag, int value) {
  while (load_acquire(flag) != value) __nanosleep(20);
}

// One thread of each of kWriters warps, which take turns.
template <int kWidth>
__device__ void write_sums(const BackwardParams& p, BackwardShared<kWidth>& shared, int writer) {
  Ring<1> works;
  Ring<kWriters> uses;
  float* const buffer = shared.dq[writer];
  for (;; works.next()) {
    mbarrier_wait(&shared.kv_full, works.phase);
    const int index = shared.work;
    if (index < 0) return;
    mbarrier_arrive(&shared.kv_empty);
    const Work work = work_at<kWidth>(p, index);
    const int first_head = work.kv_head * p.group_size;
    for (int head = first_head; head < first_head + p.group_size; ++head)
      for (int m = work.end - 1; m >= work.begin; --m) {
        const bool first = m >= work.starts, last = m < work.stops;
        if (first && last) continue;
        const int stage = uses.stage;
        const uint32_t phase = uses.phase;
        uses.next();
        if (stage != writer) continue;
        const int64_t at = (int64_t{work.batch} * p.H + head) * p.query_tiles + m;
        float* const sum = p.dq_sum + at * kDqTile;
        const int before = work.tile - first_key_tile<kWidth>(p.rule, m);  // key tiles whose turn comes earlier
        if (!first) {
          await_flag(p.flags + at, before);
          fence_async();
        }
        if (last) {
          mbarrier_arrive_expect(&shared.sum_full[writer], sizeof shared.dq[0]);
          bulk_load(buffer, sum, sizeof shared.dq[0], &shared.sum_full[writer]);
          mbarrier_wait(&shared.dq_full[writer], phase);
          mbarrier_arrive(&shared.dq_empty[writer]);
          continue;
        }
        mbarrier_wait(&shared.dq_full[writer], phase);
        if (first)
          bulk_store(sum, buffer, sizeof shared.dq[0]);
        else
          bulk_add_f32(sum, buffer, sizeof shared.dq[0]);
        tma_store_commit();
        tma_store_wait_read();
        mbarrier_arrive(&shared.dq_empty[writer]);
        bulk_store_wait();
        fence_async();
        store_release(p.flags + at, before + 1);
      }
  }
}

// ---- products
// ----------------------------------------------------------------------------------------------------------

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
    __nv_bfloat16* const row =
        p.dq + ((work.batch * int64_t{p.rule.T} + t) * p.H + head) * kWidth + (kWidth == 128 ? 64 * group : 0);
    store_rows<64>(dq, 1.0f, 1.0f, t < p.rule.T ? row : nullptr,
                   t + 8 < p.rule.T ? row + 8 * int64_t{p.H} * kWidth : nullptr);
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
    const int thread = threadIdx.x % 128, kv_heads = p.H / p.group_size;
    const int64_t j = first_key + thread / 32 * 16 + thread % 32 / 4;
    const int64_t at = ((work.batch * int64_t{p.rule.S} + j) * kv_heads + work.kv_head) * kWidth;
    const int64_t below = 8 * int64_t{kv_heads} * kWidth;
    const bool low = j < p.rule.S, high = j + 8 < p.rule.S;
    store_rows<kWidth>(dv, 1.0f, 1.0f, low ? p.dv + at : nullptr, high ? p.dv + at + below : nullptr);
    store_rows<kWidth>(dk, p.scale, p.scale, low ? p.dk + at : nullptr, high ? p.dk + at + below : nullptr);
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

// ---- δ and lse
// ---------------------------------------------------------------------------------------------------------

struct RowParams {
  AttentionInput o, dout;
  const float *lse, *dlse;
  float *lse2, *delta;
  __nv_bfloat16* dq;
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
  if (empty) *reinterpret_cast<uint4*>(p.dq + ((b * p.T + t) * p.H + h) * kWidth + channel) = make_uint4(0, 0, 0, 0);
}

// ---- launchers
// ---------------------------------------------------------------------------------------------------------

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
  const auto aligned = [](const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; };
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
