// The parts of the backward attention of Hopper that move data: the shapes of its work, the loads, and the sums of dq.
//
// dq is summed over key tiles in a float32 array of fragments, in ascending order of keys, which makes it
// deterministic: a flag per query tile counts the sums done. The first key tile stores, the following add (bulk
// reductions by the writer warps, out of the consumers' way), and the last reads the sum and writes dq in bf16. Tiles
// of work are handed out by ascending keys and walked from the last query down, so that the blocks of one head follow
// one another a step apart and no block waits for one that hasn't begun.
//
// Shared memory: k, v [128 × D]; q kQueryStages and dout kDoutStages × [kRows × D]; dSᵀ 2 × [128 × kRows]; dq
// 2 × 32 KB:
//   D = 128, 64 rows: 64 + 32 + 32 + 32 + 64 = 224 KB;   D = 64, 128 rows: 32 + 32 + 32 + 64 + 64 = 224 KB.
#pragma once

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
  const float *cos, *sin;  // [T, 32] or null
  AttentionGradient dq, dk, dv;
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
  int work;                                        // −1: no more; guarded by kv_full and kv_empty
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

// ---- loads --------------------------------------------------------------------------------------------------------

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

// ---- sums of dq ---------------------------------------------------------------------------------------------------

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
          // The buffer is free: dq_full was awaited at its former use, and what was stored from it then has been read.
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

}  // namespace
}  // namespace llmeff::cuda
