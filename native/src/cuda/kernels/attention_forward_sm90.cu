// Attention, forward, on Hopper: o = softmax(scale·q·kᵀ)·v by online softmax over tiles of keys (Dao et al.,
// arXiv:2205.14135; the overlaps are those of FlashAttention-3, Shah et al., arXiv:2407.08608).
//
// A block is persistent: a producer warp takes tiles of 64·G queries from a counter (longest first within a section of
// heads whose keys and values fit the L2 cache) and keeps TMA loads of q, k and v in flight; G consumer warpgroups own
// 64 queries each. A consumer issues S' = q·kᵀ of the next 128 keys together with o += P·v of the present ones and
// computes the softmax of S' while P·v still runs. At D = 128 the two consumers also take turns at issuing, so that
// one's softmax lies under the other's products; at D = 64 three of them keep the tensor cores busy without turns (with
// a soft cap there are two, for its registers). Each passes over the key tiles that none of its own rows sees.
//
// Shared memory, panels of 128-byte rows (sm90.h): q 2 × [64 G × D], k and v kStages × [128 × D] each:
//   D = 128, G = 2: 64 + 2·(2·32) = 192 KB;   D = 64, G = 3: 48 + 2·(4·16) = 176 KB.
#include <algorithm>

#include "attention_sm90_tiles.h"
#include "early.cuh"

namespace llmeff::cuda {
namespace {

using namespace sm90;

constexpr int kKeys = 128;  // of a tile
constexpr int kQueryStages = 2;

template <int kWidth, bool kSoftcap>
struct Tiling {
  static constexpr int kConsumers = 2, kStages = kWidth == 128 ? 2 : 4;
  static constexpr int kProducerRegisters = 24, kConsumerRegisters = 240;
  static constexpr bool kTurns = true;
};
template <>
struct Tiling<64, false> {
  static constexpr int kConsumers = 3, kStages = 4, kProducerRegisters = 32, kConsumerRegisters = 160;
  static constexpr bool kTurns = false;
};

struct ForwardParams {
  CUtensorMap q, k, v;
  KeyRule rule;
  int H, group_size;  // query heads; of one key/value head
  int heads, tiles;   // B·H; tiles of queries
  int section;        // heads taken together
  float factor;       // of a score (softcap: of its tanh) in the exponent, to base 2
  float softcap_factor;
  __nv_bfloat16* o;
  float* lse;
  unsigned* counter;
};

template <class Tile, int kWidth>
struct ForwardShared {
  alignas(1024) __nv_bfloat16 q[kQueryStages][64 * Tile::kConsumers * kWidth];
  alignas(1024) __nv_bfloat16 k[Tile::kStages][kKeys * kWidth];
  alignas(1024) __nv_bfloat16 v[Tile::kStages][kKeys * kWidth];
  uint64_t q_full[kQueryStages], q_empty[kQueryStages];
  uint64_t k_full[Tile::kStages], k_empty[Tile::kStages], v_full[Tile::kStages], v_empty[Tile::kStages];
  int work[kQueryStages];  // −1: no more; guarded by q_full and q_empty
};

// Tiles end with the last row; the first begins at a negative row where they don't divide T. Under causality that is
// the cheapest place for rows that don't exist.
struct Work {
  int batch, head, first_row;
};

template <int kRows>
__device__ Work work_at(const ForwardParams& p, int index) {
  const int section = index / (p.section * p.tiles);
  const int heads = min(p.section, p.heads - section * p.section);
  const int within = index - section * p.section * p.tiles;
  const int tile = p.tiles - 1 - within / heads;  // under causality the last rows see the most keys
  const int head = section * p.section + within % heads;
  return {head / p.H, head % p.H, p.rule.T - (p.tiles - tile) * kRows};
}

struct KeyTiles {
  int begin, end;            // that some row sees
  int full_begin, full_end;  // that all rows see whole
};

__device__ KeyTiles key_tiles(const KeyRule& rule, int first_row, int rows) {
  if (first_row + rows <= 0) return {0, 0, 0, 0};
  const int top = rule.q_offset + max(0, first_row), bottom = rule.q_offset + first_row + rows - 1;
  KeyTiles tiles;
  tiles.begin = rule.first(top) / kKeys;
  tiles.end = max(tiles.begin, floor_divide(rule.last(bottom), kKeys) + 1);
  tiles.full_begin = min(tiles.end, max(tiles.begin, (rule.first(bottom) + kKeys - 1) / kKeys));
  tiles.full_end = max(tiles.full_begin, min(tiles.end, floor_divide(rule.last(top) + 1, kKeys)));
  return tiles;
}

template <class Tile, int kWidth>
__device__ void produce(const ForwardParams& p, ForwardShared<Tile, kWidth>& shared) {
  constexpr int kRows = 64 * Tile::kConsumers, kPanels = kWidth / kPanelChannels;
  Ring<kQueryStages> queries;
  Ring<Tile::kStages> keys, values;
  int index = blockIdx.x;
  for (;; queries.next()) {
    mbarrier_wait(&shared.q_empty[queries.stage], queries.phase ^ 1);
    uint64_t* const q_full = &shared.q_full[queries.stage];
    if (index >= p.heads * p.tiles) {
      shared.work[queries.stage] = -1;
      mbarrier_arrive(q_full);
      return;
    }
    shared.work[queries.stage] = index;
    const Work work = work_at<kRows>(p, index);
    // Every tile counts once; the last one brings the counter back to 0.
    index = gridDim.x + atomicInc(p.counter, static_cast<unsigned>(p.heads * p.tiles - 1));
    const int kv_head = work.head / p.group_size;
    mbarrier_arrive_expect(q_full, sizeof shared.q[0]);
    for (int c = 0; c < kPanels; ++c)
      tma_load(shared.q[queries.stage] + c * kRows * kPanelChannels, &p.q, q_full, c * kPanelChannels, work.head,
               work.first_row, work.batch);
    const auto load = [&](const CUtensorMap& map, __nv_bfloat16* to, uint64_t* full, uint64_t* empty, uint32_t phase,
                          int tile) {
      mbarrier_wait(empty, phase ^ 1);
      mbarrier_arrive_expect(full, sizeof shared.k[0]);
      for (int c = 0; c < kPanels; ++c)
        tma_load(to + c * kKeys * kPanelChannels, &map, full, c * kPanelChannels, kv_head, tile * kKeys, work.batch);
    };
    const auto load_keys = [&](int tile) {
      load(p.k, shared.k[keys.stage], &shared.k_full[keys.stage], &shared.k_empty[keys.stage], keys.phase, tile);
      keys.next();
    };
    const auto load_values = [&](int tile) {
      load(p.v, shared.v[values.stage], &shared.v_full[values.stage], &shared.v_empty[values.stage], values.phase,
           tile);
      values.next();
    };
    const KeyTiles tiles = key_tiles(p.rule, work.first_row, kRows);
    if (tiles.begin == tiles.end) continue;
    load_keys(tiles.end - 1);
    for (int n = tiles.end - 1; n > tiles.begin; --n) {
      load_keys(n - 1);
      load_values(n);
    }
    load_values(tiles.begin);
  }
}

// One consumer warpgroup's rows of a tile: the two of this thread are `row` and `row` + 8.
template <int kWidth, bool kSoftcap>
struct Consumer {
  using Tile = Tiling<kWidth, kSoftcap>;
  static constexpr int kRows = 64 * Tile::kConsumers;

  const ForwardParams& p;
  ForwardShared<Tile, kWidth>& shared;
  const int group;
  Ring<Tile::kStages> keys, values;
  float s[kKeys / 2], o[kWidth / 2];
  uint32_t weights[kKeys / 16][4];
  float maximum[2], sum[2];
  int first_key[2], last_key[2];  // of the two rows
  uint64_t q_operand;

  // One lane arrives for its warp, after the others' reads and writes.
  __device__ void release(uint64_t* barrier) const {
    __syncwarp();
    if (threadIdx.x % 32 == 0) mbarrier_arrive(barrier);
  }
  // Consumers issue their products one after another, round and round.
  __device__ void wait_turn() const {
    if constexpr (Tile::kTurns) named_barrier_wait(1 + group, 2 * 128);
  }
  __device__ void pass_turn() const {
    if constexpr (Tile::kTurns) named_barrier_arrive(group == Tile::kConsumers - 1 ? 1 : 2 + group, 2 * 128);
  }

  __device__ void issue_scores() {
    const uint64_t k = matrix_descriptor<kMajorK>(shared_address(shared.k[keys.stage]));
    pin(s);
    wgmma_fence();
#pragma unroll
    for (int c = 0; c < kWidth / 16; ++c)
      wgmma_ss<kKeys, kMajorK, kMajorK>(s, advance(q_operand, c / 4 * kRows * kPanelRowBytes + c % 4 * 32),
                                        advance(k, c / 4 * kKeys * kPanelRowBytes + c % 4 * 32), c > 0);
    wgmma_commit();
  }
  __device__ void issue_values() {
    const uint64_t v = matrix_descriptor<kMajorMN>(shared_address(shared.v[values.stage]), kKeys);
    pin(o);
    pin_weights();
    wgmma_fence();
#pragma unroll
    for (int c = 0; c < kKeys / 16; ++c) wgmma_rs<kWidth, kMajorMN>(o, weights[c], advance(v, c * 16 * kPanelRowBytes));
    wgmma_commit();
  }
  __device__ void pin_weights() {
#pragma unroll
    for (int c = 0; c < kKeys / 16; ++c) pin(weights[c]);
  }

  // Scores of key tile n become 2^(factor·(s − m)); returns by what the former results shrink.
  template <bool kMasked>
  __device__ void soften(int n, float (&shrink)[2]) {
    if constexpr (kSoftcap) {
#pragma unroll
      for (int i = 0; i < kKeys / 2; ++i) s[i] = tanh_exact(s[i] * p.softcap_factor);
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      if constexpr (kMasked) {
        const int column = n * kKeys + 2 * (threadIdx.x % 4);
        const int first = first_key[r] - column, last = last_key[r] - column;
#pragma unroll
        for (int j = 0; j < kKeys / 8; ++j)
#pragma unroll
          for (int e = 0; e < 2; ++e)
            if (8 * j + e < first || 8 * j + e > last) s[4 * j + 2 * r + e] = -INFINITY;
      }
      float most = maximum[r];
#pragma unroll
      for (int j = 0; j < kKeys / 8; ++j) most = fmaxf(most, fmaxf(s[4 * j + 2 * r], s[4 * j + 2 * r + 1]));
      most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 1));
      most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 2));
      // A row that has seen nothing yet must not subtract −∞ from −∞.
      const float shift = kMasked && most == -INFINITY ? 0.0f : most * p.factor;
      shrink[r] = exp2_approx(maximum[r] * p.factor - shift);
      maximum[r] = most;
      float total[2] = {sum[r] * shrink[r], 0.0f};
#pragma unroll
      for (int j = 0; j < kKeys / 8; ++j)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          float& x = s[4 * j + 2 * r + e];
          x = exp2_approx(x * p.factor - shift);
          total[e] += x;
        }
      sum[r] = total[0] + total[1];
    }
  }
  __device__ void pack_weights() {
#pragma unroll
    for (int c = 0; c < kKeys / 16; ++c)
#pragma unroll
      for (int i = 0; i < 4; ++i) weights[c][i] = pack_bf16(s[8 * c + 2 * i], s[8 * c + 2 * i + 1]);
  }

  template <bool kMasked>
  __device__ void first_scores(int n) {
    mbarrier_wait(&shared.k_full[keys.stage], keys.phase);
    issue_scores();
    wgmma_wait();
    pin(s);
    release(&shared.k_empty[keys.stage]);
    keys.next();
    float shrink[2];
    soften<kMasked>(n, shrink);
    pack_weights();
  }

  // The scores of tile n, and the values of tile n + 1.
  template <bool kMasked>
  __device__ void step(int n) {
    mbarrier_wait(&shared.k_full[keys.stage], keys.phase);
    wait_turn();
    issue_scores();
    mbarrier_wait(&shared.v_full[values.stage], values.phase);
    issue_values();
    pass_turn();
    wgmma_wait<1>();
    pin(s);
    release(&shared.k_empty[keys.stage]);
    keys.next();
    float shrink[2];
    soften<kMasked>(n, shrink);
    wgmma_wait();
    pin(o);
    pin_weights();
    release(&shared.v_empty[values.stage]);
    values.next();
#pragma unroll
    for (int i = 0; i < kWidth / 2; ++i) o[i] *= shrink[i / 2 % 2];
    pack_weights();
  }

  __device__ void last_values() {
    mbarrier_wait(&shared.v_full[values.stage], values.phase);
    issue_values();
    wgmma_wait();
    pin(o);
    release(&shared.v_empty[values.stage]);
    values.next();
  }

  // Passes over key tiles that the others of the block need, and the turns to issue them.
  __device__ void skip(int count, int turns) {
    for (; count > 0; --count, --turns, keys.next(), values.next()) {
      if (turns > 0) wait_turn(), pass_turn();
      mbarrier_wait(&shared.k_full[keys.stage], keys.phase);
      release(&shared.k_empty[keys.stage]);
      mbarrier_wait(&shared.v_full[values.stage], values.phase);
      release(&shared.v_empty[values.stage]);
    }
  }

  // q in stage `stage`, which is released as soon as the last scores are done.
  __device__ void tile(const Work& work, int stage) {
    const int thread = threadIdx.x % 128, own = 64 * group, row = own + thread / 32 * 16 + thread % 32 / 4;
    const KeyTiles all = key_tiles(p.rule, work.first_row, kRows);
    KeyTiles mine = key_tiles(p.rule, work.first_row + own, 64);
    if (mine.begin == mine.end) mine = {all.end, all.end, all.end, all.end};
    const int turns = all.end - all.begin - 1;  // the first tile of keys takes none
    for (int r = 0; r < 2; ++r) {
      const int i = p.rule.q_offset + work.first_row + row + 8 * r;
      first_key[r] = p.rule.first(i), last_key[r] = p.rule.last(i);
      maximum[r] = -INFINITY, sum[r] = 0;
    }
#pragma unroll
    for (int i = 0; i < kWidth / 2; ++i) o[i] = 0;
    q_operand = matrix_descriptor<kMajorK>(shared_address(shared.q[stage]) + own * kPanelRowBytes);

    skip(all.end - mine.end, turns);
    if (mine.begin < mine.end) {
      int n = mine.end - 1;
      first_scores<true>(n--);
      for (; n >= mine.full_end && n >= mine.begin; --n) step<true>(n);
      for (; n >= mine.full_begin; --n) step<false>(n);
      for (; n >= mine.begin; --n) step<true>(n);
      release(&shared.q_empty[stage]);
      last_values();
    } else {
      release(&shared.q_empty[stage]);
    }
    skip(mine.begin - all.begin, turns - max(0, all.end - mine.begin - 1));
    finish(work, row);
  }

  __device__ void finish(const Work& work, int row) {
    float factor[2];
    __nv_bfloat16* rows[2];
    for (int r = 0; r < 2; ++r) {
      float total = sum[r];
      total += __shfl_xor_sync(0xffffffffu, total, 1);
      total += __shfl_xor_sync(0xffffffffu, total, 2);
      factor[r] = total > 0 ? 1.0f / total : 0.0f;
      const int64_t t = work.first_row + row + 8 * r;
      const bool inside = t >= 0;
      rows[r] = inside ? p.o + ((work.batch * int64_t{p.rule.T} + t) * p.H + work.head) * kWidth : nullptr;
      if (inside && threadIdx.x % 4 == 0) {
        const float ln = 0.6931471806f * (maximum[r] * p.factor) + __logf(total);
        p.lse[(work.batch * int64_t{p.H} + work.head) * p.rule.T + t] = total > 0 ? ln : -INFINITY;
      }
    }
    store_rows<kWidth>(o, factor[0], factor[1], rows[0], rows[1]);
  }
};

template <int kWidth, bool kSoftcap>
__global__ void __launch_bounds__(128 * (1 + Tiling<kWidth, kSoftcap>::kConsumers), 1)
    attention_forward_sm90_kernel(const __grid_constant__ ForwardParams p) {
  using Tile = Tiling<kWidth, kSoftcap>;
  extern __shared__ __align__(1024) unsigned char memory[];
  auto& shared = *reinterpret_cast<ForwardShared<Tile, kWidth>*>(memory);
  if (threadIdx.x == 0) {
    prefetch_tensor_map(&p.q), prefetch_tensor_map(&p.k), prefetch_tensor_map(&p.v);
    constexpr int kReaders = 4 * Tile::kConsumers;  // one lane of each consumer warp
    for (int i = 0; i < kQueryStages; ++i) {
      mbarrier_init(&shared.q_full[i], 1);
      mbarrier_init(&shared.q_empty[i], kReaders);
    }
    for (int i = 0; i < Tile::kStages; ++i) {
      mbarrier_init(&shared.k_full[i], 1), mbarrier_init(&shared.k_empty[i], kReaders);
      mbarrier_init(&shared.v_full[i], 1), mbarrier_init(&shared.v_empty[i], kReaders);
    }
    mbarrier_init_fence();
  }
  __syncthreads();
  await_earlier();

  const int warpgroup = uniform(threadIdx.x / 128);
  if (warpgroup == 0) {
    give_registers<Tile::kProducerRegisters>();
    if (threadIdx.x == 0) produce<Tile, kWidth>(p, shared);
  } else {
    take_registers<Tile::kConsumerRegisters>();
    Consumer<kWidth, kSoftcap> consumer = {p, shared, warpgroup - 1};
    if (consumer.group == Tile::kConsumers - 1) consumer.pass_turn();
    for (Ring<kQueryStages> queries;; queries.next()) {
      mbarrier_wait(&shared.q_full[queries.stage], queries.phase);
      const int index = uniform(shared.work[queries.stage]);
      if (index < 0) break;
      consumer.tile(work_at<64 * Tile::kConsumers>(p, index), queries.stage);
    }
  }
}

// Heads of a section: their keys and values take about a third of the L2 cache. The last section must not be a small
// one, since its longest tiles would begin when there is little else left to do.
int section_heads(const AttentionShape& x) {
  constexpr int64_t kBytes = int64_t{20} << 20;
  const int64_t heads = x.B * x.H, wanted = (kBytes / (x.S * x.D * 4) + 1) * (x.H / x.K);
  if (wanted >= heads) return int(heads);
  const int64_t sections = heads / wanted;
  return int((heads + sections - 1) / sections);
}

template <int kWidth, bool kSoftcap>
cudaError_t launch(const AttentionForwardArgs& args, cudaStream_t stream) {
  using Tile = Tiling<kWidth, kSoftcap>;
  constexpr int kRows = 64 * Tile::kConsumers;
  const AttentionShape& x = args.shape;
  int device = 0, multiprocessors = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
  ForwardParams p;
  if (error == cudaSuccess) error = make_tensor_map(&p.q, tma_array(args.q, x.B, x.T, x.H, x.D), kRows);
  if (error == cudaSuccess) error = make_tensor_map(&p.k, tma_array(args.k, x.B, x.S, x.K, x.D), kKeys);
  if (error == cudaSuccess) error = make_tensor_map(&p.v, tma_array(args.v, x.B, x.S, x.K, x.D), kKeys);
  constexpr float kLog2E = 1.4426950408889634f;
  p.rule = key_rule(x);
  p.H = int(x.H), p.group_size = int(x.H / x.K);
  p.heads = int(x.B * x.H), p.tiles = int((x.T + kRows - 1) / kRows);
  p.section = section_heads(x);
  p.factor = kLog2E * float(kSoftcap ? x.softcap : x.scale);
  p.softcap_factor = kSoftcap ? float(x.scale / x.softcap) : 0.0f;
  p.o = args.o, p.lse = args.lse, p.counter = reinterpret_cast<unsigned*>(args.counter);
  const auto kernel = attention_forward_sm90_kernel<kWidth, kSoftcap>;
  constexpr int kShared = sizeof(ForwardShared<Tile, kWidth>);
  static_assert(kShared <= 227 * 1024);
  if (error == cudaSuccess) error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kShared);
  if (error != cudaSuccess) return error;
  cudaLaunchAttribute early = early_attribute();
  cudaLaunchConfig_t config = {};
  config.gridDim = std::min(p.heads * p.tiles, multiprocessors), config.blockDim = 128 * (1 + Tile::kConsumers);
  config.dynamicSmemBytes = kShared, config.stream = stream;
  config.attrs = &early, config.numAttrs = 1;
  return cudaLaunchKernelEx(&config, kernel, p);
}

}  // namespace

bool attention_forward_sm90_supports(const AttentionForwardArgs& args) {
  const AttentionShape& x = args.shape;
  return attention_shape_supported(x) && x.B * x.H * ((x.T + 127) / 128) < kMostPositions &&
         tma_can_read(tma_array(args.q, x.B, x.T, x.H, x.D)) && tma_can_read(tma_array(args.k, x.B, x.S, x.K, x.D)) &&
         tma_can_read(tma_array(args.v, x.B, x.S, x.K, x.D)) && reinterpret_cast<uintptr_t>(args.o) % 16 == 0;
}

cudaError_t attention_forward_sm90(const AttentionForwardArgs& args, cudaStream_t stream) {
  const bool softcap = args.shape.softcap > 0;
  if (args.shape.D == 128) return softcap ? launch<128, true>(args, stream) : launch<128, false>(args, stream);
  return softcap ? launch<64, true>(args, stream) : launch<64, false>(args, stream);
}

}  // namespace llmeff::cuda
