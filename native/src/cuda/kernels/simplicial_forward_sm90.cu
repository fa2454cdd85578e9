// 2-simplicial attention forward for Hopper: wgmma, TMA, warp-specialised. Formula and shapes: simplicial_sm90.h.
//
// The operator is symmetric in (k1, v1, w1) and (k2, v2, w2). The pair with the shorter window ("short", a) is handled
// element-wise, the other ("long", b) by the tensor cores: for one short row r, q ∘ ka_r is an ordinary [rows, D]
// operand,
//   S = (q ∘ ka_r) Kbᵀ,   P = exp(S - m),   acc += (P Vb) ∘ va_r.
// A long tile stays in shared memory while all short rows of a chunk pass over it.
//
// Work item: 64 query rows × all their pairs (or one part of them, see below). Rows are the heads of one token, or, for
// groups of fewer than 64 heads, the heads of T = 64 / G consecutive tokens. Short rows are counted from each token's
// own window ("step" s is short row token - w + 1 + s), so T tokens waste nothing on the short side; on the long side
// the tiles cover the union of the windows and the band's two ends are masked.
//
// Block: 3 warpgroups, persistent over items, longest first. Warpgroup 0 produces: one thread issues TMA (q, tiles of
// kb and vb), three warps bring the chunks of 32 short rows, in the order in which a thread's fragments want them.
// Warpgroups 1, 2 consume. kRowBlocks = 1: both own the same 64 rows and take even and odd steps; their (m, l, acc)
// merge at the end. kRowBlocks = 2: each owns 64 of 128 rows and takes every step. They take turns at the tensor cores,
//   PV of this step, fold, A and S of the next | the other consumer's,
// so that one's exponentials run under the other's products.
//
// No maximum is taken in the common case. m only has to keep exp2 within range: P = exp2(S·c - m) is computed with the
// m at hand, in place, and its row sums, needed anyway, tell whether some P was large (or inf); only then S is computed
// again, its maximum found, and acc and l rescaled. bf16 and float32 keep their relative precision over the whole
// range, so a stale m costs no accuracy.
//
// What a product waits for is off its critical path: va_r is in registers before PV ends, and the next A is built along
// with the fold.
//
// Registers of a consumer thread at D = 128, tile 128: acc 64, S and PV 64 in turn, A and P 32 in turn, q 32, va_r 16.
// Shared memory: see Layout.
#include "cuda/kernels/simplicial_sm90.h"

#include <algorithm>
#include <climits>
#include <cmath>

#include "cuda/sm90.h"

namespace llmeff::cuda {
namespace {

using namespace sm90;

constexpr int kChunk = 32;             // short steps in shared memory at a time
constexpr int kConsumerThreads = 256;  // two warpgroups
constexpr int kLoaderThreads = 96;     // warps 1..3 of the producer
constexpr int kThreads = 384;
constexpr float kNoMaximum = -1e30f;  // m of a row that has seen nothing: any real logit overflows against it
constexpr float kLargeSum = 16777216.0f;

// What varies. Defaults are the fastest measured; the workbench (native/dev/simplicial_forward.cu) times the others.
template <int kD_, int kTile_, int kRowBlocks_, int kMaxTokens_>
struct Config {
  static constexpr int kD = kD_;                  // channels
  static constexpr int kTile = kTile_;            // long rows in a tile
  static constexpr int kRowBlocks = kRowBlocks_;  // blocks of 64 query rows in a work item
  static constexpr int kMaxTokens = kMaxTokens_;  // query tokens in a work item, at most
  static constexpr int kStages = 2;
  static constexpr int kRows = 64 * kRowBlocks;
  // Registers of a thread; the launch's 168 · 384 are shared out in full.
  static constexpr int kProducerRegisters = kD == 128 ? 24 : 56;
  static constexpr int kConsumerRegisters = (168 * 3 - kProducerRegisters) / 2;
  static_assert(kTile % 16 == 0 && kTile <= 128);
  static_assert(kD == 64 || kD == 128);
};

// Shared memory, in bytes from a 1024-byte boundary.
template <class C>
struct Layout {
  static constexpr int kPanel = C::kTile * kPanelRowBytes;
  static constexpr int kTileBytes = kPanel * C::kD / kPanelChannels;
  static constexpr int kQPanel = C::kRows * kPanelRowBytes;
  static constexpr int kQBytes = kQPanel * C::kD / kPanelChannels;
  static constexpr int kChunkRows = C::kMaxTokens == 1 ? kChunk : (kChunk + C::kMaxTokens - 1 + 7) / 8 * 8;
  static constexpr int kShortRow = C::kD * 2;
  static constexpr int kChunkBytes = 2 * kChunkRows * kShortRow;  // rows of ka, then rows of va
  static constexpr int kMergeBytes = C::kRowBlocks == 1 ? 64 * C::kD * 4 + 2 * 64 * 8 : 0;

  static constexpr int kK = 0;
  static constexpr int kV = kK + C::kStages * kTileBytes;
  static constexpr int kQ = kV + C::kStages * kTileBytes;
  static constexpr int kMerge = kQ + kQBytes;
  static constexpr int kChunks = kMerge + kMergeBytes;
  static constexpr int kLimit = 232448 - 1024;  // a block may have 227 KB; 1 KB goes to alignment
  static constexpr int kChunkBuffers = kChunks + 2 * kChunkBytes + 256 <= kLimit ? 2 : 1;
  static constexpr int kBarriers = kChunks + kChunkBuffers * kChunkBytes;
  static constexpr int kBytes = kBarriers + 256 + 1024;
  static_assert(kBytes <= 232448);
};

struct Barriers {
  uint64_t q_full, q_empty;
  uint64_t k_full[2], v_full[2], tile_ready[2], tile_empty[2];
  uint64_t chunk_full[2], chunk_empty[2];
  int large[2][2];  // of each consumer, in turns from step to step: some P was, so the step is done over
};
static_assert(sizeof(Barriers) <= 256);

struct Params {
  CUtensorMap q, kb, vb;
  const __nv_bfloat16 *ka, *va;
  RowStrides ka_strides, va_strides, o_strides;
  __nv_bfloat16* o;
  float *lse, *part_o, *part_lse;  // parts: [splits, B, Nq, Hq, D], [splits, B, Hq, Nq]
  int B, Nq, Hq, Hkv, group;
  int rows_a, rows_b, w_a, w_b;
  int q_offset, a_offset, b_offset;
  int causal;
  int tokens, heads;              // query rows of an item: tokens × heads ≤ kRows
  int token_blocks, head_blocks;  // head_blocks blocks of `heads` heads cover a group
  int splits_a, splits_b, items;
  float scale_log2;
  float ka_bias, va_bias, kb_bias, vb_bias;
  int long_bias;
};

struct Item {
  int split, batch, kv_head, head, token;  // first query head and query row
  int position;                            // absolute position of `token`
  int tokens;                              // that exist
  int short_first, long_first;             // absolute position of step 0 of the first token; of column 0
  int step_begin, step_end, tile_begin, tile_end;
};

// Where part i of n begins, parts as even as they come.
__device__ inline int part_begin(int size, int i, int n) {
  return size / n * i + min(i, size % n);
}

__device__ inline Item item_of(const Params& p, int index, int tile) {
  Item it;
  const int splits = p.splits_a * p.splits_b;
  it.split = index % splits;
  index /= splits;
  const int heads = p.Hkv * p.head_blocks;
  const int head_block = index % heads;
  index /= heads;
  it.batch = index % p.B;
  const int block = p.token_blocks - 1 - index / p.B;  // longest first
  it.kv_head = head_block / p.head_blocks;
  it.head = it.kv_head * p.group + head_block % p.head_blocks * p.heads;
  it.token = block * p.tokens;
  it.tokens = min(p.tokens, p.Nq - it.token);
  it.position = p.q_offset + it.token;
  int steps = p.rows_a, columns = p.rows_b;
  it.short_first = p.a_offset;
  it.long_first = p.b_offset;
  if (p.causal) {
    const int last = it.position + it.tokens - 1;
    steps = min(p.w_a, last + 1);
    it.short_first = it.position - steps + 1;
    it.long_first = max(0, it.position - p.w_b + 1);
    columns = last + 1 - it.long_first;
  }
  const int tiles = (columns + tile - 1) / tile;
  const int a = it.split / p.splits_b, b = it.split % p.splits_b;
  it.step_begin = part_begin(steps, a, p.splits_a);
  it.step_end = part_begin(steps, a + 1, p.splits_a);
  it.tile_begin = part_begin(tiles, b, p.splits_b);
  it.tile_end = part_begin(tiles, b + 1, p.splits_b);
  if (it.tile_begin == it.tile_end) it.step_end = it.step_begin;  // an empty part
  return it;
}

// The same number, but the compiler doesn't know: what depends on it is computed anew, not kept in registers.
__device__ inline int opaque(int x) {
  asm volatile("" : "+r"(x));
  return x;
}

// Tells the compiler that a number is the same in the whole warp, so that it may live in uniform registers.
__device__ inline uint32_t uniform(uint32_t x) {
  return __shfl_sync(0xFFFFFFFFu, x, 0);
}

// Position in a ring of one or two buffers.
template <int kSlots>
struct BufferRing {
  static_assert(kSlots == 1 || kSlots == 2);
  uint32_t count = 0;
  __device__ int slot() const { return count % kSlots; }
  __device__ uint32_t parity() const { return count / kSlots % 2; }
};

// ---- producer
// ----------------------------------------------------------------------------------------------------------

template <class C>
__device__ void issue_copies(const Params& p, char* shared, Barriers& bar) {
  using L = Layout<C>;
  BufferRing<C::kStages> tiles;
  uint32_t q_parity = 0;
  for (int index = blockIdx.x; index < p.items; index += gridDim.x) {
    const Item it = item_of(p, index, C::kTile);
    mbarrier_wait(&bar.q_empty, q_parity ^ 1);
    q_parity ^= 1;
    mbarrier_arrive_expect(&bar.q_full, p.tokens * p.heads * C::kD * 2);
#pragma unroll
    for (int panel = 0; panel < C::kD / kPanelChannels; ++panel) {
      tma_load(shared + L::kQ + panel * L::kQPanel, &p.q, &bar.q_full, panel * kPanelChannels, it.head, it.token,
               it.batch);
    }
    for (int step = it.step_begin; step < it.step_end; step += kChunk) {
      for (int tile = it.tile_begin; tile < it.tile_end; ++tile) {
        const int row = it.long_first - p.b_offset + tile * C::kTile;
        char* k = shared + L::kK + tiles.slot() * L::kTileBytes;
        char* v = shared + L::kV + tiles.slot() * L::kTileBytes;
        mbarrier_wait(&bar.tile_empty[tiles.slot()], tiles.parity() ^ 1);
        mbarrier_arrive_expect(&bar.k_full[tiles.slot()], L::kTileBytes);
#pragma unroll
        for (int panel = 0; panel < C::kD / kPanelChannels; ++panel) {
          tma_load(k + panel * L::kPanel, &p.kb, &bar.k_full[tiles.slot()], panel * kPanelChannels, it.kv_head, row,
                   it.batch);
        }
        mbarrier_arrive_expect(&bar.v_full[tiles.slot()], L::kTileBytes);
#pragma unroll
        for (int panel = 0; panel < C::kD / kPanelChannels; ++panel) {
          tma_load(v + panel * L::kPanel, &p.vb, &bar.v_full[tiles.slot()], panel * kPanelChannels, it.kv_head, row,
                   it.batch);
        }
        ++tiles.count;
      }
    }
  }
}

// Eight channels of bf16 + bias.
__device__ inline uint4 add_bias(uint4 x, float bias) {
  uint32_t* pairs = &x.x;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float low = __uint_as_float(pairs[i] << 16), high = __uint_as_float(pairs[i] & 0xFFFF0000u);
    pairs[i] = pack_bf16(low + bias, high + bias);
  }
  return x;
}

// Short rows [first, first + rows) (rows of the arrays; those outside read as zero) to a chunk buffer. Thread c of a
// quad holds, of 16 channels, 2c, 2c + 1, 2c + 8 and 2c + 9, as operand a and as accumulator (sm90.h). So 32 channels
// become 64 bytes, of which thread c has 16: one conflict-free load.
template <class C>
__device__ void load_chunk(const Params& p, const Item& it, int first, int rows, char* chunk, int thread) {
  using L = Layout<C>;
  constexpr int kGroups = C::kD / 8, kRowStep = kLoaderThreads / kGroups;
  static_assert(kLoaderThreads % kGroups == 0);
  const int group = thread % kGroups;  // of 8 channels
  const __nv_bfloat16* ka = p.ka + it.batch * p.ka_strides.batch + it.kv_head * p.ka_strides.head + group * 8;
  const __nv_bfloat16* va = p.va + it.batch * p.va_strides.batch + it.kv_head * p.va_strides.head + group * 8;
  char* to = chunk + group / 4 * 64 + group % 4 * 4;
#pragma unroll 2
  for (int row = thread / kGroups; row < rows; row += kRowStep) {
    const int source = first + row;
    uint4 k = make_uint4(0, 0, 0, 0), v = k;
    if (source >= 0 && source < p.rows_a) {
      k = *reinterpret_cast<const uint4*>(ka + source * p.ka_strides.row);
      v = *reinterpret_cast<const uint4*>(va + source * p.va_strides.row);
    }
    if (p.ka_bias != 0) k = add_bias(k, p.ka_bias);
    if (p.va_bias != 0) v = add_bias(v, p.va_bias);
    const uint32_t k_pairs[4] = {k.x, k.y, k.z, k.w}, v_pairs[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      *reinterpret_cast<uint32_t*>(to + row * L::kShortRow + c * 16) = k_pairs[c];
      *reinterpret_cast<uint32_t*>(to + (L::kChunkRows + row) * L::kShortRow + c * 16) = v_pairs[c];
    }
  }
}

// The long side carries the bias: it is added to a tile in place, before the consumers see it.
template <class C>
__device__ void add_long_bias(const Params& p, char* shared, Barriers& bar, int slot, uint32_t parity, int thread) {
  using L = Layout<C>;
  mbarrier_wait(&bar.k_full[slot], parity);
  mbarrier_wait(&bar.v_full[slot], parity);
  uint4* k = reinterpret_cast<uint4*>(shared + L::kK + slot * L::kTileBytes);
  uint4* v = reinterpret_cast<uint4*>(shared + L::kV + slot * L::kTileBytes);
#pragma unroll 1
  for (int i = thread; i < L::kTileBytes / 16; i += kLoaderThreads) {
    k[i] = add_bias(k[i], p.kb_bias);
    v[i] = add_bias(v[i], p.vb_bias);
  }
  fence_async_shared();
  mbarrier_arrive(&bar.tile_ready[slot]);
}

template <class C>
__device__ void load_chunks(const Params& p, char* shared, Barriers& bar, int thread) {
  using L = Layout<C>;
  BufferRing<L::kChunkBuffers> chunks;
  BufferRing<C::kStages> tiles;
  for (int index = blockIdx.x; index < p.items; index += gridDim.x) {
    const Item it = item_of(p, index, C::kTile);
    for (int step = it.step_begin; step < it.step_end; step += kChunk, ++chunks.count) {
      const int rows = min(kChunk, it.step_end - step) + (p.causal ? p.tokens - 1 : 0);
      mbarrier_wait(&bar.chunk_empty[chunks.slot()], chunks.parity() ^ 1);
      load_chunk<C>(p, it, it.short_first - p.a_offset + step, rows,
                    shared + L::kChunks + chunks.slot() * L::kChunkBytes, thread);
      mbarrier_arrive(&bar.chunk_full[chunks.slot()]);
      if (!p.long_bias) continue;
      for (int tile = it.tile_begin; tile < it.tile_end; ++tile, ++tiles.count) {
        add_long_bias<C>(p, shared, bar, tiles.slot(), tiles.parity(), thread);
      }
    }
  }
}

// ---- consumer
// ----------------------------------------------------------------------------------------------------------

// The two rows of a thread: r and r + 8 of its warp's 16.
struct RowPair {
  float upper, lower;
};

// p = exp2(s·c - m) as operand a; returns this thread's share of the row sums. s is lost.
template <int kCount>
__device__ inline RowPair exponentiate(float (&s)[kCount], float c, RowPair m, uint32_t (&p)[kCount / 8][4]) {
  float sum[4] = {0, 0, 0, 0};
#pragma unroll
  for (int j = 0; j < kCount / 4; ++j) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      float& x = s[4 * j + i];
      x = exp2_approx(fmaf(x, c, i < 2 ? -m.upper : -m.lower));
      sum[i] += x;
    }
    p[j / 2][j % 2 * 2] = pack_bf16(s[4 * j], s[4 * j + 1]);
    p[j / 2][j % 2 * 2 + 1] = pack_bf16(s[4 * j + 2], s[4 * j + 3]);
  }
  return {sum[0] + sum[1], sum[2] + sum[3]};
}

__device__ inline float quad_maximum(float x) {
  x = fmaxf(x, __shfl_xor_sync(0xFFFFFFFFu, x, 1));
  return fmaxf(x, __shfl_xor_sync(0xFFFFFFFFu, x, 2));
}
__device__ inline float quad_sum(float x) {
  x += __shfl_xor_sync(0xFFFFFFFFu, x, 1);
  return x + __shfl_xor_sync(0xFFFFFFFFu, x, 2);
}

// Turns at the tensor cores: named barriers 1 and 2 belong to the consumers; each passes the turn to the other.
__device__ inline void take_turn(int consumer) {
  named_barrier_wait(1 + consumer, kConsumerThreads);
}
__device__ inline void pass_turn(int consumer) {
  named_barrier_arrive(2 - consumer, kConsumerThreads);
}

// (m, l, acc) of a thread's two rows.
template <class C>
struct Accumulator {
  float acc[C::kD / 2];
  RowPair m, l;
};

// Operand a of a whole product of this depth.
template <int kDepth>
using Fragments = uint32_t[kDepth / 16][4];
template <int kSteps>
__device__ inline void pin_all(uint32_t (&a)[kSteps][4]) {
#pragma unroll
  for (int i = 0; i < kSteps; ++i) pin(a[i]);
}

// Operands (A, P) and results (S, PV) of the two products. Of each pair one lives at a time: where they are of one size
// they are one array, or the compiler may find them places of their own and none for q.
template <class C, bool kOneSize = C::kTile == C::kD>
struct Products {
  Fragments<C::kD> a_;
  Fragments<C::kTile> p_;
  float s_[C::kTile / 2], pv_[C::kD / 2];
  __device__ Fragments<C::kD>& a() { return a_; }
  __device__ Fragments<C::kTile>& p() { return p_; }
  __device__ float (&s()) [C::kTile / 2] { return s_; } __device__ float (&pv()) [C::kD / 2] { return pv_; }
};
template <class C>
struct Products<C, true> {
  Fragments<C::kD> operand;
  float result[C::kD / 2];
  __device__ Fragments<C::kD>& a() { return operand; }
  __device__ Fragments<C::kD>& p() { return operand; }
  __device__ float (&s()) [C::kD / 2] { return result; } __device__ float (&pv()) [C::kD / 2] { return result; }
};

// A quad thread's share of a short row of ka or va: [i] has channels 32 i + (2c, +1 | 2c + 8, +9 | 2c + 16, +17 | 2c +
// 24, +25). Rows r and r + 8 of the fragments may belong to different tokens, whose short rows differ.
template <class C>
struct ShortRow {
  static constexpr bool kTwo = C::kMaxTokens > 1;
  uint4 upper[C::kD / 32], lower[kTwo ? C::kD / 32 : 1];
  __device__ void load(const char* row, int to_lower) {
#pragma unroll
    for (int i = 0; i < C::kD / 32; ++i) {
      upper[i] = *reinterpret_cast<const uint4*>(row + i * 64);
      if constexpr (kTwo) lower[i] = *reinterpret_cast<const uint4*>(row + to_lower + i * 64);
    }
  }
  __device__ const uint4& lower_or_same(int i) const {
    if constexpr (kTwo) return lower[i];
    return upper[i];
  }
};

template <class C>
__device__ inline void multiply(const Fragments<C::kD>& q, const ShortRow<C>& ka, Fragments<C::kD>& a) {
#pragma unroll
  for (int i = 0; i < C::kD / 32; ++i) {
    const uint4 upper = ka.upper[i], lower = ka.lower_or_same(i);
    a[2 * i][0] = multiply_bf16x2(q[2 * i][0], upper.x);
    a[2 * i][1] = multiply_bf16x2(q[2 * i][1], lower.x);
    a[2 * i][2] = multiply_bf16x2(q[2 * i][2], upper.y);
    a[2 * i][3] = multiply_bf16x2(q[2 * i][3], lower.y);
    a[2 * i + 1][0] = multiply_bf16x2(q[2 * i + 1][0], upper.z);
    a[2 * i + 1][1] = multiply_bf16x2(q[2 * i + 1][1], lower.z);
    a[2 * i + 1][2] = multiply_bf16x2(q[2 * i + 1][2], upper.w);
    a[2 * i + 1][3] = multiply_bf16x2(q[2 * i + 1][3], lower.w);
  }
}

// acc += pv ∘ va
template <class C>
__device__ inline void fold(const float (&pv)[C::kD / 2], const ShortRow<C>& va, float (&acc)[C::kD / 2]) {
#pragma unroll
  for (int i = 0; i < C::kD / 32; ++i) {
    const uint4 upper = va.upper[i], lower = va.lower_or_same(i);
    const uint32_t upper_pairs[4] = {upper.x, upper.y, upper.z, upper.w};
    const uint32_t lower_pairs[4] = {lower.x, lower.y, lower.z, lower.w};
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int at = 16 * i + 4 * j;
      acc[at] += pv[at] * __uint_as_float(upper_pairs[j] << 16);
      acc[at + 1] += pv[at + 1] * __uint_as_float(upper_pairs[j] & 0xFFFF0000u);
      acc[at + 2] += pv[at + 2] * __uint_as_float(lower_pairs[j] << 16);
      acc[at + 3] += pv[at + 3] * __uint_as_float(lower_pairs[j] & 0xFFFF0000u);
    }
  }
}

// S = A Kᵀ and PV, by k-step.
template <class C, int i = 0>
__device__ inline void product_s(float (&s)[C::kTile / 2], const Fragments<C::kD>& a, uint64_t k) {
  wgmma_rs<C::kTile, kMajorK, i / 4 * Layout<C>::kPanel + i % 4 * 32>(s, a[i], k, i > 0);
  if constexpr (i + 1 < C::kD / 16) product_s<C, i + 1>(s, a, k);
}
template <class C, int i = 0>
__device__ inline void product_pv(float (&pv)[C::kD / 2], const Fragments<C::kTile>& p, uint64_t v) {
  wgmma_rs<C::kD, kMajorMN, i * 16 * kPanelRowBytes>(pv, p[i], v, i > 0);
  if constexpr (i + 1 < C::kTile / 16) product_pv<C, i + 1>(pv, p, v);
}

// m to the maximum so far, acc and l to the new m.
template <class C>
__device__ inline void rescale(Accumulator<C>& state, const float (&s)[C::kTile / 2], float c) {
  RowPair m = state.m;
#pragma unroll
  for (int j = 0; j < C::kTile / 8; ++j) {
    m.upper = fmaxf(m.upper, fmaxf(s[4 * j] * c, s[4 * j + 1] * c));
    m.lower = fmaxf(m.lower, fmaxf(s[4 * j + 2] * c, s[4 * j + 3] * c));
  }
  m = {quad_maximum(m.upper), quad_maximum(m.lower)};
  const RowPair factor = {exp2_approx(state.m.upper - m.upper), exp2_approx(state.m.lower - m.lower)};
  state.m = m;
  state.l.upper *= factor.upper;
  state.l.lower *= factor.lower;
#pragma unroll
  for (int j = 0; j < C::kD / 8; ++j) {
    state.acc[4 * j] *= factor.upper;
    state.acc[4 * j + 1] *= factor.upper;
    state.acc[4 * j + 2] *= factor.lower;
    state.acc[4 * j + 3] *= factor.lower;
  }
}

// What one consumer's step over a short row and a long tile needs besides its registers. Shared addresses of K tiles
// are the same in all threads; the V tile lies kV - kK behind.
struct Step {
  uint32_t k_tile, next_k_tile;
  uint64_t* next_k_full;  // to be waited for before the next step's S, or null
  uint32_t next_parity;
  const char *ka, *next_ka;  // this thread's share of the short row; va lies kChunkRows rows behind
  int to_lower;              // bytes from the short row of fragment row r to that of r + 8
  int* large;                // in shared memory
  int consumer;
  bool find_maximum;  // the rows have no m yet
  // Masks, in columns from the item's first long row. A later token's window lies `shift` further on.
  bool masked;
  int column;    // first of the tile
  int last;      // of the first token's window
  int position;  // of the first token's short row; negative: before the sequence
  int upper_shift, lower_shift;
};

// Columns lo ≤ column ≤ hi of a row.
struct Band {
  int lo, hi;
};
template <class C>
__device__ inline Band band_of(const Params& p, const Step& step, int shift) {
  if constexpr (C::kMaxTokens == 1) return {0, step.last};
  if (step.position + shift < 0) return {0, -1};
  return {max(0, step.last + shift - p.w_b + 1), step.last + shift};
}

// Columns outside the rows' bands become -inf; the others take the scale here (an infinite logit times a zero or
// negative scale would not stay -inf).
template <class C>
__device__ inline void scale_and_mask(const Params& p, const Step& step, float (&s)[C::kTile / 2]) {
  const float inf = __int_as_float(0x7F800000);
  const int first_column =
      opaque(step.column) + threadIdx.x % 4 * 2;  // opaque: no comparison is worth a register in the loop
  const Band upper = band_of<C>(p, step, step.upper_shift), lower = band_of<C>(p, step, step.lower_shift);
#pragma unroll
  for (int j = 0; j < C::kTile / 8; ++j) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const Band band = i < 2 ? upper : lower;
      const int column = first_column + 8 * j + i % 2;
      s[4 * j + i] = column >= band.lo && column <= band.hi ? s[4 * j + i] * p.scale_log2 : -inf;
    }
  }
}

template <class C>
__device__ inline void issue_s(float (&s)[C::kTile / 2], const Fragments<C::kD>& a, uint32_t k_tile) {
  wgmma_fence();
  product_s<C>(s, a, matrix_descriptor<kMajorK>(k_tile));
  wgmma_commit();
}
template <class C>
__device__ inline void issue_pv(float (&pv)[C::kD / 2], const Fragments<C::kTile>& p, uint32_t k_tile) {
  wgmma_fence();
  product_pv<C>(pv, p, matrix_descriptor<kMajorMN>(k_tile + (Layout<C>::kV - Layout<C>::kK), C::kTile));
  wgmma_commit();
}

// P from S; returns whether some P was too large, i.e. m must be found.
template <class C>
__device__ inline bool soften(const Params& p, const Step& step, float (&s)[C::kTile / 2], bool find_maximum,
                              Accumulator<C>& state, Fragments<C::kTile>& weights, RowPair& sum) {
  if (step.masked) scale_and_mask<C>(p, step, s);
  const float c = step.masked ? 1.0f : p.scale_log2;
  if (find_maximum) rescale<C>(state, s, c);
  sum = exponentiate(s, c, state.m, weights);
  return !(sum.upper <= kLargeSum && sum.lower <= kLargeSum);  // also if NaN
}

// acc += (P V) ∘ va with P = exp2(A Kᵀ·c - m), where A Kᵀ is on its way; then builds A of the next step and issues its
// S. From PV to the next S it is this consumer's turn.
template <class C>
__device__ inline void run(const Params& p, const Step& step, const Fragments<C::kD>& q, Products<C>& x,
                           Accumulator<C>& state) {
  constexpr int kToVa = Layout<C>::kChunkRows * Layout<C>::kShortRow;
  ShortRow<C> va, ka;
  RowPair sum;
  bool find_maximum = step.find_maximum;
  for (bool mine = false;; mine = true) {
    wgmma_wait();
    pin(x.s());
    pin_all(x.a());
    const bool large = soften<C>(p, step, x.s(), find_maximum, state, x.p(), sum);
    // Products are the whole warpgroup's: one warp that must start over makes all do so. The barrier of the turn orders
    // these stores before the loads below. A warp may store for the next step while another has yet to load here: that
    // step has a flag of its own, and its turn comes between these loads and the step after it, which has this one.
    if (!find_maximum && large) *reinterpret_cast<volatile int*>(step.large) = 1;
    if constexpr (C::kMaxTokens == 1) va.load(step.ka + kToVa, step.to_lower);
    pin_all(x.p());
    if (!mine) take_turn(step.consumer);
    issue_pv<C>(x.pv(), x.p(), step.k_tile);
    const bool again = *reinterpret_cast<volatile int*>(step.large) != 0;
    if (find_maximum || !again) break;
    wgmma_wait();
    pin(x.pv());
    pin_all(x.p());
    find_maximum = true;
    ka.load(step.ka, step.to_lower);
    multiply<C>(q, ka, x.a());
    pin_all(x.a());
    issue_s<C>(x.s(), x.a(), step.k_tile);
    named_barrier_wait(4 + step.consumer, 128);  // all have read
    *reinterpret_cast<volatile int*>(step.large) = 0;
    named_barrier_wait(4 + step.consumer, 128);  // before any is loaded again
  }
  state.l.upper += sum.upper;
  state.l.lower += sum.lower;
  if constexpr (C::kMaxTokens == 1) ka.load(step.next_ka, step.to_lower);
  wgmma_wait();
  pin(x.pv());
  pin_all(x.p());
  if constexpr (C::kMaxTokens == 1) {
    fold<C>(x.pv(), va, state.acc);
  } else {  // two rows each: va and ka find room only one after the other
    va.load(step.ka + kToVa, step.to_lower);
    fold<C>(x.pv(), va, state.acc);
    pin(state.acc);
    ka.load(step.next_ka, step.to_lower);
  }
  multiply<C>(q, ka, x.a());
  if (step.next_k_full != nullptr) mbarrier_wait(step.next_k_full, step.next_parity);
  pin_all(x.a());
  issue_s<C>(x.s(), x.a(), step.next_k_tile);
  pass_turn(step.consumer);
}

// Where a query row of an item goes.
struct QueryRow {
  int token, head;  // within the item
  bool exists;
};
__device__ inline QueryRow query_row(const Params& p, const Item& it, int row) {
  const int token = row / p.heads, head = row - token * p.heads;
  return {min(token, p.tokens - 1), head, token < it.tokens && it.head + head < (it.kv_head + 1) * p.group};
}

// Columns [kFirst, kFirst + kColumns) of one row (half 0: r, half 1: r + 8) of acc / l, and lse.
template <class C, int kFirst, int kColumns>
__device__ void store_row(const Params& p, const Item& it, const QueryRow& row, const float (&acc)[C::kD / 2], int half,
                          float m, float l, int quad, bool store_lse) {
  if (!row.exists) return;
  const float scale = l > 0 || l != l ? 1 / l : 0;  // no pairs in this part: zero, with lse -inf
  const int token = it.token + row.token, head = it.head + row.head;
  const int64_t lse_index = (int64_t(it.batch) * p.Hq + head) * p.Nq + token;
  const float lse = l > 0 || l != l ? (m + log2f(l)) * 0.693147180559945f : -__int_as_float(0x7F800000);
  if (p.part_o != nullptr) {
    float* o = p.part_o + (((int64_t(it.split) * p.B + it.batch) * p.Nq + token) * p.Hq + head) * C::kD;
#pragma unroll
    for (int j = kFirst / 8; j < (kFirst + kColumns) / 8; ++j) {
      *reinterpret_cast<float2*>(o + 8 * j + 2 * quad) =
          make_float2(acc[4 * j + 2 * half] * scale, acc[4 * j + 2 * half + 1] * scale);
    }
    if (store_lse && quad == 0) p.part_lse[int64_t(it.split) * p.B * p.Hq * p.Nq + lse_index] = lse;
    return;
  }
  __nv_bfloat16* o = p.o + it.batch * p.o_strides.batch + token * p.o_strides.row + head * p.o_strides.head;
#pragma unroll
  for (int j = kFirst / 8; j < (kFirst + kColumns) / 8; ++j) {
    *reinterpret_cast<uint32_t*>(o + 8 * j + 2 * quad) =
        pack_bf16(acc[4 * j + 2 * half] * scale, acc[4 * j + 2 * half + 1] * scale);
  }
  if (store_lse && quad == 0) p.lse[lse_index] = lse;
}

// The consumers' halves of the steps become one: each sends the other half of the columns and keeps its own.
// Buffer: acc as [2][D / 16][128] float4 … each consumer's half, then (m, l) of 64 rows of each.
template <class C, bool kUpperColumns>
__device__ void merge(Accumulator<C>& state, char* buffer, int thread, int quad, int row) {
  constexpr int kKept = kUpperColumns ? C::kD / 4 : 0, kSent = kUpperColumns ? 0 : C::kD / 4;
  constexpr int kHalfBytes = C::kD / 4 * 128 * 4;
  constexpr int kConsumer = kUpperColumns ? 1 : 0;
  float4* sent = reinterpret_cast<float4*>(buffer + kConsumer * kHalfBytes) + thread;
  const float4* received = reinterpret_cast<const float4*>(buffer + (1 - kConsumer) * kHalfBytes) + thread;
  float2* rows = reinterpret_cast<float2*>(buffer + 2 * kHalfBytes);
#pragma unroll
  for (int i = 0; i < C::kD / 16; ++i) {
    sent[i * 128] = make_float4(state.acc[kSent + 4 * i], state.acc[kSent + 4 * i + 1], state.acc[kSent + 4 * i + 2],
                                state.acc[kSent + 4 * i + 3]);
  }
  if (quad == 0) {
    rows[kConsumer * 64 + row] = make_float2(state.m.upper, state.l.upper);
    rows[kConsumer * 64 + row + 8] = make_float2(state.m.lower, state.l.lower);
  }
  named_barrier_wait(3, kConsumerThreads);  // both have sent
  const float2 upper = rows[(1 - kConsumer) * 64 + row], lower = rows[(1 - kConsumer) * 64 + row + 8];
  const RowPair m = {fmaxf(state.m.upper, upper.x), fmaxf(state.m.lower, lower.x)};
  const RowPair mine = {exp2_approx(state.m.upper - m.upper), exp2_approx(state.m.lower - m.lower)};
  const RowPair theirs = {exp2_approx(upper.x - m.upper), exp2_approx(lower.x - m.lower)};
  state.m = m;
  state.l = {state.l.upper * mine.upper + upper.y * theirs.upper, state.l.lower * mine.lower + lower.y * theirs.lower};
#pragma unroll
  for (int i = 0; i < C::kD / 16; ++i) {
    const float4 other = received[i * 128];
    float* acc = state.acc + kKept + 4 * i;
    acc[0] = acc[0] * mine.upper + other.x * theirs.upper;
    acc[1] = acc[1] * mine.upper + other.y * theirs.upper;
    acc[2] = acc[2] * mine.lower + other.z * theirs.lower;
    acc[3] = acc[3] * mine.lower + other.w * theirs.lower;
  }
  named_barrier_wait(3, kConsumerThreads);  // the buffer is free for the next item
}

template <class C>
__device__ inline void store_item(const Params& p, const Item& it, Accumulator<C>& state, char* buffer, int consumer,
                                  int thread) {
  const int quad = thread % 4, row = thread / 32 * 16 + thread % 32 / 4;
  const int first = C::kRowBlocks == 1 ? 0 : 64 * consumer;
  const QueryRow upper = query_row(p, it, first + row), lower = query_row(p, it, first + row + 8);
  state.l = {quad_sum(state.l.upper), quad_sum(state.l.lower)};
  if constexpr (C::kRowBlocks == 2) {
    store_row<C, 0, C::kD>(p, it, upper, state.acc, 0, state.m.upper, state.l.upper, quad, true);
    store_row<C, 0, C::kD>(p, it, lower, state.acc, 1, state.m.lower, state.l.lower, quad, true);
  } else if (consumer == 0) {
    merge<C, false>(state, buffer, thread, quad, row);
    store_row<C, 0, C::kD / 2>(p, it, upper, state.acc, 0, state.m.upper, state.l.upper, quad, true);
    store_row<C, 0, C::kD / 2>(p, it, lower, state.acc, 1, state.m.lower, state.l.lower, quad, true);
  } else {
    merge<C, true>(state, buffer, thread, quad, row);
    store_row<C, C::kD / 2, C::kD / 2>(p, it, upper, state.acc, 0, state.m.upper, state.l.upper, quad, false);
    store_row<C, C::kD / 2, C::kD / 2>(p, it, lower, state.acc, 1, state.m.lower, state.l.lower, quad, false);
  }
}

template <class C>
__device__ void consume(const Params& p, char* shared, Barriers& bar, int consumer, int thread) {
  using L = Layout<C>;
  constexpr bool kShared = C::kRowBlocks == 1;  // both consumers own the same rows
  const int lane = thread % 32, quad = lane % 4;
  const int row = (kShared ? 0 : 64 * consumer) + thread / 32 * 16 + lane / 4;
  BufferRing<C::kStages> tiles;
  BufferRing<L::kChunkBuffers> chunks;
  uint32_t q_parity = 0;
  if (consumer == 1) pass_turn(consumer);
  for (int index = blockIdx.x; index < p.items; index += gridDim.x) {
    const Item it = item_of(p, index, C::kTile);
    const QueryRow upper = query_row(p, it, row), lower = query_row(p, it, row + 8);

    Fragments<C::kD> q;
    mbarrier_wait(&bar.q_full, q_parity);
    q_parity ^= 1;
#pragma unroll
    for (int i = 0; i < C::kD / 16; ++i) {
      const char* panel = shared + L::kQ + i / 4 * L::kQPanel;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int channel = i % 4 * 16 + half * 8 + 2 * quad;
        // Rows that no copy filled hold anything.
        q[i][2 * half] = upper.exists ? *reinterpret_cast<const uint32_t*>(panel + swizzled(row, channel)) : 0;
        q[i][2 * half + 1] = lower.exists ? *reinterpret_cast<const uint32_t*>(panel + swizzled(row + 8, channel)) : 0;
      }
    }
    __syncwarp();
    if (lane == 0) mbarrier_arrive(&bar.q_empty);

    Accumulator<C> state;
#pragma unroll
    for (int i = 0; i < C::kD / 2; ++i) state.acc[i] = 0;
    state.m = {kNoMaximum, kNoMaximum};
    state.l = {0, 0};

    const int token_rows = p.causal ? 1 : 0;  // short and long rows by which a later token's windows lie further on
    Step step;
    step.consumer = consumer;
    step.find_maximum = true;
    step.upper_shift = upper.token * token_rows;
    step.lower_shift = lower.token * token_rows;
    step.to_lower = (step.lower_shift - step.upper_shift) * L::kShortRow;
    step.last = p.causal ? it.position - it.long_first : p.rows_b - 1;
    const int last_lo = C::kMaxTokens == 1 ? 0 : step.last + (it.tokens - 1) * token_rows - p.w_b + 1;
    Products<C> x;
    const auto tile_at = [&](int slot) { return uniform(shared_address(shared + L::kK + slot * L::kTileBytes)); };
    uint64_t* const k_full = p.long_bias ? bar.tile_ready : bar.k_full;
    uint64_t* const v_full = p.long_bias ? bar.tile_ready : bar.v_full;
    for (int chunk = it.step_begin; chunk < it.step_end; chunk += kChunk, ++chunks.count) {
      constexpr int kStride = kShared ? 2 : 1;
      const int steps = min(kChunk, it.step_end - chunk);
      const int turns = (steps + kStride - 1) / kStride;
      const int mine = kShared ? (steps + 1 - consumer) / 2 : steps;
      const char* first = shared + L::kChunks + chunks.slot() * L::kChunkBytes + quad * 16 +
                          ((kShared ? consumer : 0) + step.upper_shift) * L::kShortRow;
      mbarrier_wait(&bar.chunk_full[chunks.slot()], chunks.parity());
      const int tile_count = it.tile_end - it.tile_begin;
      if (mine == 0) {  // one step only, the other consumer's: its turn for the first S, then one for each tile
        take_turn(consumer);
        pass_turn(consumer);
        for (int tile = 0; tile < tile_count; ++tile, ++tiles.count) {
          take_turn(consumer);
          pass_turn(consumer);
          if (lane == 0) mbarrier_arrive(&bar.tile_empty[tiles.slot()]);
        }
      } else {
        ShortRow<C> ka;
        ka.load(first, step.to_lower);
        multiply<C>(q, ka, x.a());
        mbarrier_wait(&k_full[tiles.slot()], tiles.parity());
        pin_all(x.a());
        take_turn(consumer);
        issue_s<C>(x.s(), x.a(), tile_at(tiles.slot()));
        pass_turn(consumer);
        int tile = it.tile_begin, n = 0;
        step.next_ka = first;
        step.next_k_tile = tile_at(tiles.slot());
        for (int i = mine * tile_count; i > 0; --i) {
          const int slot = tiles.slot();
          if (n == 0) mbarrier_wait(&v_full[slot], tiles.parity());
          step.column = tile * C::kTile;
          step.masked = step.column < last_lo || step.column + C::kTile - 1 > step.last;
          if constexpr (C::kMaxTokens > 1) {
            // Near the start of the sequence a step may lie before it for the earlier tokens.
            step.position = it.short_first + chunk + (kShared ? consumer : 0) + n * kStride;
            step.masked |= step.position < 0;
          }
          step.large = &bar.large[consumer][i % 2];
          step.ka = step.next_ka;
          step.k_tile = step.next_k_tile;
          step.next_k_full = nullptr;
          const bool tile_ends = ++n == mine;
          if (!tile_ends) {
            step.next_ka = step.ka + kStride * L::kShortRow;
          } else {
            n = 0;
            ++tile;
            ++tiles.count;
            step.next_ka = first;
            if (i > 1) {  // the last step's next is idle, and its S never read: K may be any
              step.next_k_tile = tile_at(tiles.slot());
              step.next_k_full = &k_full[tiles.slot()];
              step.next_parity = tiles.parity();
            }
          }
          run<C>(p, step, q, x, state);
          step.find_maximum = false;
          if (tile_ends) {
            if (mine < turns) take_turn(consumer), pass_turn(consumer);  // the other consumer has one step more
            __syncwarp();
            if (lane == 0) mbarrier_arrive(&bar.tile_empty[slot]);
          }
        }
        wgmma_wait();
        pin(x.s());
        pin_all(x.a());
      }
      __syncwarp();
      if (lane == 0) mbarrier_arrive(&bar.chunk_empty[chunks.slot()]);
    }
    store_item<C>(p, item_of(p, opaque(index), C::kTile), state, shared + L::kMerge, consumer, thread);
  }
}

template <class C>
__global__ void __launch_bounds__(kThreads, 1) simplicial_forward_kernel(const __grid_constant__ Params p) {
  using L = Layout<C>;
  extern __shared__ char unaligned[];
  char* shared = unaligned + (1024 - shared_address(unaligned) % 1024) % 1024;
  Barriers& bar = *reinterpret_cast<Barriers*>(shared + L::kBarriers);
  if (threadIdx.x == 0) {
    constexpr int kConsumerWarps = kConsumerThreads / 32;
    mbarrier_init(&bar.q_full, 1);
    mbarrier_init(&bar.q_empty, kConsumerWarps);
    for (int i = 0; i < 2; ++i) {
      mbarrier_init(&bar.k_full[i], 1);
      mbarrier_init(&bar.v_full[i], 1);
      mbarrier_init(&bar.tile_ready[i], kLoaderThreads);
      mbarrier_init(&bar.tile_empty[i], kConsumerWarps);
      mbarrier_init(&bar.chunk_full[i], kLoaderThreads);
      mbarrier_init(&bar.chunk_empty[i], kConsumerWarps);
    }
    for (int i = 0; i < 2; ++i) bar.large[i][0] = bar.large[i][1] = 0;
    mbarrier_init_fence();
    prefetch_tensor_map(&p.q);
    prefetch_tensor_map(&p.kb);
    prefetch_tensor_map(&p.vb);
  }
  __syncthreads();
  const int warpgroup = threadIdx.x / 128;
  if (warpgroup == 0) {
    give_registers<C::kProducerRegisters>();
    if (threadIdx.x == 0) {
      issue_copies<C>(p, shared, bar);
    } else if (threadIdx.x >= 32) {
      load_chunks<C>(p, shared, bar, threadIdx.x - 32);
    }
  } else {
    take_registers<C::kConsumerRegisters>();
    consume<C>(p, shared, bar, uniform(warpgroup - 1), threadIdx.x - warpgroup * 128);
  }
}

// o = Σ_split e^(lse_split - lse) o_split, one block of D / 2 threads a row.
template <int kD>
__global__ void merge_parts_kernel(const Params p, int splits) {
  const int64_t row = blockIdx.x;  // (b, t, h)
  const int head = int(row % p.Hq);
  const int token = int(row / p.Hq % p.Nq);
  const int batch = int(row / p.Hq / p.Nq);
  const int64_t rows = int64_t(p.B) * p.Nq * p.Hq;
  const int64_t lse_index = (int64_t(batch) * p.Hq + head) * p.Nq + token;
  float m = -__int_as_float(0x7F800000);
  for (int s = 0; s < splits; ++s) m = fmaxf(m, p.part_lse[s * rows + lse_index]);
  const int channel = 2 * threadIdx.x;
  float sum = 0, o0 = 0, o1 = 0;
  for (int s = 0; s < splits; ++s) {
    const float weight = expf(p.part_lse[s * rows + lse_index] - m);
    const float2 o = *reinterpret_cast<const float2*>(p.part_o + (s * rows + row) * kD + channel);
    sum += weight;
    o0 += weight * o.x;
    o1 += weight * o.y;
  }
  *reinterpret_cast<uint32_t*>(p.o + batch * p.o_strides.batch + token * p.o_strides.row + head * p.o_strides.head +
                               channel) = pack_bf16(o0 / sum, o1 / sum);
  if (threadIdx.x == 0) p.lse[lse_index] = m + logf(sum);
}

// ---- host
// --------------------------------------------------------------------------------------------------------------

int device_sms() {
  int device = 0, count = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device);
  return std::max(count, 1);
}

// The side with the longer reach goes to the tensor cores.
struct Sides {
  const __nv_bfloat16 *ka, *va, *kb, *vb;
  RowStrides ka_strides, va_strides, kb_strides, vb_strides;
  int64_t rows_a, rows_b, w_a, w_b, a_offset, b_offset;
  bool swapped;  // the long side is (k2, v2)
};
int64_t reach(int64_t window, int64_t positions) {
  return window == 0 ? positions : std::min(window, positions);
}
Sides sides_of(const SimplicialForwardArgs& x) {
  const int64_t positions = x.q_offset + x.Nq;
  const int64_t w1 = x.causal ? reach(x.w1, positions) : x.N1, w2 = x.causal ? reach(x.w2, positions) : x.N2;
  if (w2 <= w1) {
    return {x.k2, x.v2, x.k1, x.v1, x.k2_strides, x.v2_strides, x.k1_strides, x.v1_strides,
            x.N2, x.N1, w2,   w1,   x.k2_offset,  x.k1_offset,  false};
  }
  return {x.k1, x.v1, x.k2, x.v2, x.k1_strides, x.v1_strides, x.k2_strides, x.v2_strides,
          x.N1, x.N2, w1,   w2,   x.k1_offset,  x.k2_offset,  true};
}

// Shape of the work: rows of an item, tile, and into how many parts an item's pairs are split.
struct Plan {
  int row_blocks, max_tokens, tile, tokens, heads, head_blocks;
  int64_t token_blocks;
  int splits_a, splits_b;
  int64_t items() const { return items_unsplit * splits_a * splits_b; }
  int64_t items_unsplit;
};
Plan plan_of(const SimplicialForwardArgs& x) {
  const Sides side = sides_of(x);
  const int64_t group = x.Hq / x.Hkv;
  Plan plan;
  plan.row_blocks = group % 128 == 0 ? 2 : 1;
  plan.tokens = group >= 64 ? 1 : int(std::min<int64_t>(64 / group, x.Nq));
  plan.max_tokens = plan.tokens == 1 ? 1 : plan.tokens <= 8 ? 8 : 64;
  plan.heads = int(std::min<int64_t>(group, 64 * plan.row_blocks));
  plan.head_blocks = int((group + plan.heads - 1) / plan.heads);
  plan.token_blocks = (x.Nq + plan.tokens - 1) / plan.tokens;
  const int64_t columns = x.causal ? side.w_b + plan.tokens - 1 : side.rows_b;
  const auto tiles_of = [&](int tile) { return (columns + tile - 1) / tile; };
  plan.tile = plan.max_tokens == 1                        ? 128
              : plan.max_tokens == 64                     ? 96
              : tiles_of(112) * 112 < tiles_of(128) * 128 ? 112
                                                          : 128;
  plan.items_unsplit = plan.token_blocks * plan.head_blocks * x.Hkv * x.B;
  // Time of the busiest multiprocessor in steps, with about 8 of them for starting and merging a part.
  const int64_t sms = device_sms();
  const int64_t steps = side.w_a, tiles = tiles_of(plan.tile);
  const int64_t per_turn = plan.row_blocks == 1 ? 2 : 1;
  double best = 0;
  plan.splits_a = plan.splits_b = 1;
  if (plan.items_unsplit >= 8 * sms) return plan;
  for (int64_t b = 1; b <= std::min<int64_t>(tiles, 16); b *= 2) {
    for (int64_t a = 1; a <= std::min<int64_t>((steps + per_turn - 1) / per_turn, 64); a *= 2) {
      const double rounds = double((plan.items_unsplit * a * b + sms - 1) / sms);
      const double turns = double((tiles + b - 1) / b) * double(((steps + a - 1) / a + per_turn - 1) / per_turn);
      const double time = rounds * (turns + 4) + (a * b > 1 ? 4 + 0.1 * double(a * b) : 0);
      if ((a == 1 && b == 1) || time < best) {
        best = time;
        plan.splits_a = int(a);
        plan.splits_b = int(b);
      }
    }
  }
  return plan;
}

cudaError_t fill_params(const SimplicialForwardArgs& x, const Plan& plan, Params* p) {
  const Sides side = sides_of(x);
  *p = {};
  p->ka = side.ka;
  p->va = side.va;
  p->ka_strides = side.ka_strides;
  p->va_strides = side.va_strides;
  p->o_strides = x.o_strides;
  p->o = x.o;
  p->lse = x.lse;
  if (plan.splits_a * plan.splits_b > 1) {
    const int64_t parts = plan.splits_a * plan.splits_b;
    p->part_o = static_cast<float*>(x.workspace);
    p->part_lse = p->part_o + parts * x.B * x.Nq * x.Hq * x.D;
  }
  p->B = int(x.B);
  p->Nq = int(x.Nq);
  p->Hq = int(x.Hq);
  p->Hkv = int(x.Hkv);
  p->group = int(x.Hq / x.Hkv);
  p->rows_a = int(side.rows_a);
  p->rows_b = int(side.rows_b);
  p->w_a = int(side.w_a);
  p->w_b = int(side.w_b);
  p->q_offset = int(x.q_offset);
  p->a_offset = int(side.a_offset);
  p->b_offset = int(side.b_offset);
  p->causal = x.causal;
  p->tokens = plan.tokens;
  p->heads = plan.heads;
  p->token_blocks = int(plan.token_blocks);
  p->head_blocks = plan.head_blocks;
  p->splits_a = plan.splits_a;
  p->splits_b = plan.splits_b;
  p->items = int(plan.items());
  p->scale_log2 = float(double(x.scale) * 1.4426950408889634);
  (side.swapped ? p->kb_bias : p->ka_bias) = x.k2_bias;
  (side.swapped ? p->vb_bias : p->va_bias) = x.v2_bias;
  p->long_bias = p->kb_bias != 0 || p->vb_bias != 0;
  const auto array = [&](const __nv_bfloat16* data, int64_t rows, int64_t heads, const RowStrides& s) -> Bf16Array {
    return {data, x.B, rows, heads, x.D, s.batch, s.row, s.head};
  };
  cudaError_t error = make_tensor_map(&p->q, array(x.q, x.Nq, x.Hq, x.q_strides), plan.tokens, plan.heads);
  if (error != cudaSuccess) return error;
  error = make_tensor_map(&p->kb, array(side.kb, side.rows_b, x.Hkv, side.kb_strides), plan.tile);
  if (error != cudaSuccess) return error;
  return make_tensor_map(&p->vb, array(side.vb, side.rows_b, x.Hkv, side.vb_strides), plan.tile);
}

template <class C>
cudaError_t launch(const Params& p, cudaStream_t stream) {
  // At every launch: the limit belongs to the current device.
  const cudaError_t prepared = cudaFuncSetAttribute(simplicial_forward_kernel<C>,
                                                    cudaFuncAttributeMaxDynamicSharedMemorySize, Layout<C>::kBytes);
  if (prepared != cudaSuccess) return prepared;
  const int grid = std::min(p.items, device_sms());
  simplicial_forward_kernel<C><<<grid, kThreads, Layout<C>::kBytes, stream>>>(p);
  const cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess || p.part_o == nullptr) return error;
  merge_parts_kernel<C::kD><<<unsigned(p.B * int64_t(p.Nq) * p.Hq), C::kD / 2, 0, stream>>>(p, p.splits_a * p.splits_b);
  return cudaGetLastError();
}

template <int kD>
cudaError_t launch_planned(const Plan& plan, const Params& p, cudaStream_t stream) {
  if (plan.row_blocks == 2) return launch<Config<kD, 128, 2, 1>>(p, stream);
  if (plan.max_tokens == 1) return launch<Config<kD, 128, 1, 1>>(p, stream);
  if (plan.max_tokens == 64) return launch<Config<kD, 96, 1, 64>>(p, stream);
  if (plan.tile == 112) return launch<Config<kD, 112, 1, 8>>(p, stream);
  return launch<Config<kD, 128, 1, 8>>(p, stream);
}

}  // namespace

bool simplicial_forward_sm90_supports(const SimplicialForwardArgs& x) {
  const auto readable = [&](const __nv_bfloat16* data, int64_t rows, int64_t heads, const RowStrides& s) {
    return tma_can_read({data, x.B, rows, heads, x.D, s.batch, s.row, s.head});
  };
  if (x.D != 64 && x.D != 128) return false;
  if (x.B < 1 || x.Nq < 1 || x.N1 < 1 || x.N2 < 1 || x.Hkv < 1 || x.Hq < 1 || x.Hq % x.Hkv != 0) return false;
  if (!x.causal && (x.w1 != 0 || x.w2 != 0)) return false;
  if (x.q_offset + x.Nq > INT_MAX / 2 || x.N1 > INT_MAX / 2 || x.N2 > INT_MAX / 2) return false;
  if (x.B * x.Nq * x.Hq > INT_MAX) return false;
  return readable(x.q, x.Nq, x.Hq, x.q_strides) && readable(x.o, x.Nq, x.Hq, x.o_strides) &&
         readable(x.k1, x.N1, x.Hkv, x.k1_strides) && readable(x.v1, x.N1, x.Hkv, x.v1_strides) &&
         readable(x.k2, x.N2, x.Hkv, x.k2_strides) && readable(x.v2, x.N2, x.Hkv, x.v2_strides);
}

size_t simplicial_forward_sm90_workspace(const SimplicialForwardArgs& x) {
  const Plan plan = plan_of(x);
  const int64_t parts = int64_t(plan.splits_a) * plan.splits_b;
  return parts == 1 ? 0 : size_t(parts * x.B * x.Nq * x.Hq * (x.D + 1)) * sizeof(float);
}

cudaError_t simplicial_forward_sm90(const SimplicialForwardArgs& x, cudaStream_t stream) {
  if (!simplicial_forward_sm90_supports(x)) return cudaErrorInvalidValue;
  const Plan plan = plan_of(x);
  if (plan.splits_a * plan.splits_b > 1 && x.workspace == nullptr) return cudaErrorInvalidValue;
  Params p;
  const cudaError_t error = fill_params(x, plan, &p);
  if (error != cudaSuccess) return error;
  return x.D == 64 ? launch_planned<64>(plan, p, stream) : launch_planned<128>(plan, p, stream);
}

}  // namespace llmeff::cuda
