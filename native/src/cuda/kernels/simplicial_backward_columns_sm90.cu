// 2-simplicial attention, backward: the gradients of both key-value sides.
//
// One block owns 128 rows of the long side b (64 for each of two consumer warpgroups) and walks a chunk of short rows
// r; inside, row blocks i (64 query rows) that see both. With K~ = Kb∘ka_r and V~ = Vb∘va_r (bf16, in shared memory):
//   Sᵀ = K~ q_iᵀ,  dPᵀ = V~ dout_iᵀ                                   m64n64k16, both operands from shared memory
//   Pᵀ = exp2(Sᵀ·scale·log2e - lse·log2e),  dSᵀ = Pᵀ∘(dPᵀ - D)
//   W += Pᵀ dout_i,  U += dSᵀ q_i                                      m64nDk16, Pᵀ and dSᵀ as register operands
// and once per r, when all i are done:
//   dVb += W∘va_r,  dKb += U∘ka_r        into this block's own part in scratch memory (float32, one writer per address)
//   dva_r = Σ_rows W∘Vb,  dka_r = Σ_rows U∘Kb                          this half's part of the sum
// `scale` in dS is left to the kernels that add the parts up.
//
// A consumer issues W and U of one row block with S and dP of the next, and computes when S is there, while the other
// consumer's products run. The ring of stages lets one be ahead, so that the folds of r don't fall together.
//
// Shared memory at D = 128: K~ and V~ 64 KB, four stages of q_i and dout_i 128 KB, statistics, column sums: 202 KB.
// Registers: U, W 128, S 32, dP 32, operands 32.
#include "cuda/kernels/simplicial_backward_problem.h"

namespace llmeff::cuda::simplicial_backward {
namespace {

using namespace sm90;

constexpr int kStages = 4;
constexpr int kThreads = 384;  // producer, consumer 0, consumer 1
constexpr int kConsumerThreads = 128;

// What a block reads once per short row. Kept in shared memory, for registers are short in the loop over row blocks.
struct Operands {
  const __nv_bfloat16* kb;  // row 0 of this (batch, kv head)
  const __nv_bfloat16* vb;
  const __nv_bfloat16* ka;
  const __nv_bfloat16* va;
  float4* part;       // of half 0: dV, dK; then of half 1
  float* short_part;  // [slots][a.rows][dV, dK][D]
  int first_row;      // of side b
  Span short_rows;
};

template <int D>
struct Shared {
  static constexpr int kPanels = D / kPanelChannels;
  unsigned char k_product[kPanels * kColumnRows * kPanelRowBytes];
  unsigned char v_product[kPanels * kColumnRows * kPanelRowBytes];
  unsigned char q[kStages][kPanels * kBlockRows * kPanelRowBytes];
  unsigned char dout[kStages][kPanels * kBlockRows * kPanelRowBytes];
  float stats[kStages][2 * kBlockRows];
  float sums[2][2][4][D];      // consumer, (dV, dK), warp
  uint4 factors[2][2][D / 8];  // consumer, (va, ka) of the present short row
  Operands operands;
  uint64_t full[kStages], empty[kStages];
};

// A place in the ring of stages.
struct Place {
  int stage = 0;
  uint32_t parity = 0;
  __device__ void next() {
    if (++stage == kStages) stage = 0, parity ^= 1;
  }
};

template <class T>
__device__ inline T* reload(T* const& pointer) {
  return *const_cast<T* const volatile*>(&pointer);
}
__device__ inline int reload(const int& value) {
  return *const_cast<const volatile int*>(&value);
}

template <int D>
__device__ void produce(const Problem& p, const Maps& maps, Shared<D>& shared, Span rows, Span short_rows, int batch,
                        int kv_head) {
  const uint32_t box_bytes = uint32_t(p.tile_tokens) * p.tile_heads * kPanelRowBytes;
  const uint32_t stage_bytes = 2 * Shared<D>::kPanels * box_bytes + sizeof(shared.stats[0]);
  const float* stats = p.stats + (int64_t(batch) * p.Hkv + kv_head) * p.row_blocks * (2 * kBlockRows);
  Place place;
  for (int r = short_rows.first; r <= short_rows.last; ++r) {
    const Span blocks = p.blocks_of(p.tokens_of(rows, r));
    for (int n = blocks.first; n <= blocks.last; ++n, place.next()) {
      const int token = p.first_token(n);
      const int head = kv_head * p.group + n % p.head_blocks * kBlockRows;
      mbarrier_wait(&shared.empty[place.stage], place.parity ^ 1);
      uint64_t* full = &shared.full[place.stage];
      mbarrier_arrive_expect(full, stage_bytes);
#pragma unroll
      for (int panel = 0; panel < Shared<D>::kPanels; ++panel) {
        const int offset = panel * kBlockRows * kPanelRowBytes;
        tma_load(shared.q[place.stage] + offset, &maps.q, full, panel * kPanelChannels, head, token, batch);
      }
#pragma unroll
      for (int panel = 0; panel < Shared<D>::kPanels; ++panel) {
        const int offset = panel * kBlockRows * kPanelRowBytes;
        tma_load(shared.dout[place.stage] + offset, &maps.dout, full, panel * kPanelChannels, head, token, batch);
      }
      bulk_load(shared.stats[place.stage], stats + int64_t(n) * (2 * kBlockRows), sizeof(shared.stats[0]), full);
    }
  }
}

// A thread's share of the consumer's 64 rows of k and v of side b, and of one row of side a: 16 bytes of each, one
// column. Rows past the end repeat the last one; the mask clears what comes of them.
template <int D>
struct Rows {
  static constexpr int kColumns = D / 8, kStep = kConsumerThreads / kColumns, kCount = kHalfRows / kStep;
  uint4 k[kCount], v[kCount], k_factor, v_factor;
};

template <int D>
__device__ inline void load_rows(Rows<D>& rows, const Problem& p, const Operands& operands, int first_row, int r,
                                 int thread) {
  const int column = thread % Rows<D>::kColumns * 8;
  const __nv_bfloat16* kb = reload(operands.kb) + column;
  const __nv_bfloat16* vb = reload(operands.vb) + column;
#pragma unroll
  for (int i = 0; i < Rows<D>::kCount; ++i) {
    const int64_t row = least(first_row + thread / Rows<D>::kColumns + i * Rows<D>::kStep, p.b.rows - 1);
    rows.k[i] = __ldg(reinterpret_cast<const uint4*>(kb + row * p.b.k_strides.row));
    rows.v[i] = __ldg(reinterpret_cast<const uint4*>(vb + row * p.b.v_strides.row));
  }
  rows.k_factor = __ldg(reinterpret_cast<const uint4*>(reload(operands.ka) + r * p.a.k_strides.row + column));
  rows.v_factor = __ldg(reinterpret_cast<const uint4*>(reload(operands.va) + r * p.a.v_strides.row + column));
}

// x∘(factor + bias) into the consumer's rows of a product; `panels` is at the first of its 64.
template <int D>
__device__ inline void store_product(unsigned char* panels, const uint4 (&x)[Rows<D>::kCount], uint4 factor, float bias,
                                     int thread) {
  const int column = thread % Rows<D>::kColumns;
  unsigned char* panel = panels + column / 8 * (kColumnRows * kPanelRowBytes);
  const auto store = [&]<bool kBiased>() {
#pragma unroll
    for (int i = 0; i < Rows<D>::kCount; ++i) {
      const int row = thread / Rows<D>::kColumns + i * Rows<D>::kStep;
      uint4 y;
      y.x = multiply<kBiased>(x[i].x, factor.x, bias);
      y.y = multiply<kBiased>(x[i].y, factor.y, bias);
      y.z = multiply<kBiased>(x[i].z, factor.z, bias);
      y.w = multiply<kBiased>(x[i].w, factor.w, bias);
      *reinterpret_cast<uint4*>(panel + swizzled(row, column % 8 * 8)) = y;
    }
  };
  bias == 0 ? store.template operator()<false>() : store.template operator()<true>();
}

// Adds to an address that only this thread ever touches: in program order, hence deterministic, and nobody waits for
// it.
__device__ inline void add_to_own(float4* address, float4 x) {
  asm volatile("red.relaxed.gpu.global.add.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(address), "f"(x.x), "f"(x.y), "f"(x.z),
               "f"(x.w)
               : "memory");
}

// One exchange of a transposing sum over lanes: afterwards x[0..kKeep) holds this lane's half of the columns, summed
// over the pair of lanes that differ in bit kLane.
template <int kKeep, int kLane, int kCount>
__device__ inline void exchange_sum(float (&x)[kCount], int lane) {
  const bool upper = lane & kLane;
#pragma unroll
  for (int i = 0; i < kKeep; ++i) {
    const float sent = upper ? x[i] : x[i + kKeep];
    const float kept = upper ? x[i + kKeep] : x[i];
    x[i] = kept + __shfl_xor_sync(0xffffffffu, sent, kLane);
  }
}

// Rows `row` and `row` + 8 of k or v of side b, at an accumulator's columns.
template <int D>
struct Fragment {
  uint32_t upper[D / 8], lower[D / 8];
};

template <int D>
__device__ inline void load_fragment(Fragment<D>& x, const __nv_bfloat16* b_rows, int64_t stride, int row, int last_row,
                                     int pair) {
  const __nv_bfloat16* upper = b_rows + least(row, last_row) * stride + pair;
  const __nv_bfloat16* lower = b_rows + least(row + 8, last_row) * stride + pair;
#pragma unroll
  for (int j = 0; j < D / 8; ++j) {
    x.upper[j] = __ldg(reinterpret_cast<const uint32_t*>(upper + 8 * j));
    x.lower[j] = __ldg(reinterpret_cast<const uint32_t*>(lower + 8 * j));
  }
  pin(x.upper);
  pin(x.lower);
}

// After all row blocks of r: folds an accumulator (64 rows of b × D) into this block's part of dVb or dKb, and leaves
// the sums over the thread's two rows of accumulator∘b.
template <int D>
__device__ inline void fold(const float (&accumulator)[D / 2], const Fragment<D>& b, const uint4* factors, float bias,
                            float4* part, bool first, float (&sum)[D / 4], int thread) {
#pragma unroll
  for (int j = 0; j < D / 8; ++j) {
    const float2 b0 = unpack_bf16(b.upper[j]), b1 = unpack_bf16(b.lower[j]);
    sum[2 * j] = accumulator[4 * j] * b0.x + accumulator[4 * j + 2] * b1.x;
    sum[2 * j + 1] = accumulator[4 * j + 1] * b0.y + accumulator[4 * j + 3] * b1.y;
    float2 factor = unpack_bf16(reinterpret_cast<const uint32_t*>(factors)[4 * j + thread % 4]);
    factor.x += bias, factor.y += bias;
    const float4 x = {accumulator[4 * j] * factor.x, accumulator[4 * j + 1] * factor.y,
                      accumulator[4 * j + 2] * factor.x, accumulator[4 * j + 3] * factor.y};
    if (first) {
      __stcg(&part[j * kConsumerThreads + thread], x);
    } else {
      add_to_own(&part[j * kConsumerThreads + thread], x);
    }
  }
}

// Sums of a warp's 16 rows into `sums`, one for each of D columns.
template <int D>
__device__ inline void sum_rows(float (&sum)[D / 4], float* sums, int lane) {
  exchange_sum<D / 8, 16>(sum, lane);
  exchange_sum<D / 16, 8>(sum, lane);
  exchange_sum<D / 32, 4>(sum, lane);
  const int index = (lane & 16 ? D / 8 : 0) + (lane & 8 ? D / 16 : 0) + (lane & 4 ? D / 32 : 0);
#pragma unroll
  for (int i = 0; i < D / 32; ++i) sums[(index + i) / 2 * 8 + lane % 4 * 2 + (index + i) % 2] = sum[i];
}

// Clears what the windows hide of Pᵀ (64 rows of b from own.first on × row block n).
__device__ inline void mask(float (&P)[32], const Problem& p, Span own, int n, int r, int thread) {
  const int row = own.first + thread / 32 * 16 + thread % 32 / 4;  // and row + 8
  const int token = p.first_token(n);
  if (p.tile_tokens == 1) {  // which the loop's bounds know to see r
    const int low = token + p.b.shift - p.b.window, high = least(token + p.b.shift, p.b.rows - 1);
    const bool upper = row > low && row <= high, lower = row + 8 > low && row + 8 <= high;
#pragma unroll
    for (int i = 0; i < 32; ++i) P[i] = (i & 2 ? lower : upper) ? P[i] : 0;
    return;
  }
  int pair = thread % 4 * 2;
  asm volatile("" : "+r"(pair));  // keeps 16 token numbers from being held ready all the time
#pragma unroll
  for (int i = 0; i < 32; ++i) {
    const int t = token + ((i / 4 * 8 + pair + i % 2) * p.token_magic >> 16) + p.b.shift, line = row + (i & 2) * 4;
    const int seen = t - p.b.shift + p.a.shift;
    const bool live =
        (line <= least(t, p.b.rows - 1)) & (line > t - p.b.window) & (r <= seen) & (r > seen - p.a.window);
    P[i] = live ? P[i] : 0;
  }
}

template <int D>
__device__ void consume(const Problem& p, Shared<D>& shared, int half, int thread) {
  constexpr int kPart = D / 8 * kConsumerThreads;  // float4s of one gradient of one half
  const int lane = thread % 32;
  const auto first_row = [&] { return uniform(reload(shared.operands.first_row)); };
  const auto first_short_row = [&] { return uniform(reload(shared.operands.short_rows.first)); };
  const auto last_short_row = [&] { return uniform(reload(shared.operands.short_rows.last)); };
  const auto own_rows = [&] {
    const int first = first_row() + half * kHalfRows;
    return Span{first, first + kHalfRows - 1};
  };
  const uint32_t k_product = shared_address(shared.k_product) + half * kHalfRows * kPanelRowBytes;
  const uint64_t k_operand = matrix_descriptor<kMajorK>(k_product);
  const uint64_t v_operand = advance(k_operand, sizeof(shared.k_product));

  float W[D / 2], U[D / 2], S[kBlockRows / 2], dP[kBlockRows / 2];
  Place place;
  // One lane arrives for its warp: after the others have read the statistics, or have seen the stage that they skip.
  const auto release = [&](int stage) {
    __syncwarp();
    if (lane == 0) mbarrier_arrive(&shared.empty[stage]);
  };
  const auto skip = [&](int count) {
    for (; count > 0; --count, place.next()) {
      mbarrier_wait(&shared.full[place.stage], place.parity);
      release(place.stage);
    }
  };
  // Sᵀ and dPᵀ of a stage, one group each.
  const auto issue_logits = [&](int stage) {
    const uint64_t q = matrix_descriptor<kMajorK>(shared_address(shared.q[stage]));
    const uint64_t dout = matrix_descriptor<kMajorK>(shared_address(shared.dout[stage]));
    pin(S);
    pin(dP);
    wgmma_fence();
#pragma unroll
    for (int step = 0; step < D / 16; ++step) {
      const int a = step / 4 * kColumnRows * kPanelRowBytes + step % 4 * 32;
      const int b = step / 4 * kBlockRows * kPanelRowBytes + step % 4 * 32;
      wgmma_ss<kBlockRows, kMajorK, kMajorK>(S, advance(k_operand, a), advance(q, b), step > 0);
    }
    wgmma_commit();
#pragma unroll
    for (int step = 0; step < D / 16; ++step) {
      const int a = step / 4 * kColumnRows * kPanelRowBytes + step % 4 * 32;
      const int b = step / 4 * kBlockRows * kPanelRowBytes + step % 4 * 32;
      wgmma_ss<kBlockRows, kMajorK, kMajorK>(dP, advance(v_operand, a), advance(dout, b), step > 0);
    }
    wgmma_commit();
  };

  Rows<D> b_rows;
  load_rows<D>(b_rows, p, shared.operands, own_rows().first, first_short_row(), thread);
  for (int r = first_short_row(); r <= last_short_row(); ++r) {
    const Span own = own_rows();
    const Span blocks = p.blocks_of(p.tokens_of({first_row(), first_row() + kColumnRows - 1}, r));
    const Span tokens = p.tokens_of(own, r);
    if (tokens.empty()) {
      skip(blocks.last - blocks.first + 1);
      load_rows<D>(b_rows, p, shared.operands, own.first, least(r + 1, last_short_row()), thread);
      continue;
    }
    const Span mine = p.blocks_of(tokens);
    const Span whole = p.blocks_seeing_all(own, r);
    const int offset = half * kHalfRows * kPanelRowBytes;
    store_product<D>(shared.k_product + offset, b_rows.k, b_rows.k_factor, p.a.k_bias, thread);
    store_product<D>(shared.v_product + offset, b_rows.v, b_rows.v_factor, p.a.v_bias, thread);
    if (thread < D / 8) {
      shared.factors[half][0][thread] = b_rows.v_factor;
      shared.factors[half][1][thread] = b_rows.k_factor;
    }
    fence_async_shared();
    named_barrier_wait(1 + half, kConsumerThreads);
    skip(mine.first - blocks.first);

#pragma unroll
    for (int i = 0; i < D / 2; ++i) W[i] = U[i] = 0;
    pin(W);
    pin(U);
    mbarrier_wait(&shared.full[place.stage], place.parity);
    issue_logits(place.stage);
    int previous = -1;
    for (int n = mine.first;; ++n) {
      const int stage = place.stage;
      const float* stats = shared.stats[stage] + lane % 4 * 4;
      wgmma_wait<1>();  // S of n, and all of n - 1
      pin(S);
      __syncwarp();  // release(), without a branch around it
      if (previous >= 0 && lane == 0) mbarrier_arrive(&shared.empty[previous]);
      previous = stage;

#pragma unroll
      for (int j = 0; j < 8; ++j) {
        const float2 lse = *reinterpret_cast<const float2*>(stats + 16 * j);
        S[4 * j] = exp2_approx(S[4 * j] * p.log2_scale - lse.x);
        S[4 * j + 1] = exp2_approx(S[4 * j + 1] * p.log2_scale - lse.y);
        S[4 * j + 2] = exp2_approx(S[4 * j + 2] * p.log2_scale - lse.x);
        S[4 * j + 3] = exp2_approx(S[4 * j + 3] * p.log2_scale - lse.y);
      }
      if (n < whole.first || n > whole.last) mask(S, p, own_rows(), n, r, thread);
      uint32_t operand[4][4], d_operand[4][4];
#pragma unroll
      for (int i = 0; i < 16; ++i) operand[i / 4][i % 4] = pack_bf16(S[2 * i], S[2 * i + 1]);
      wgmma_wait<0>();
      pin(dP);
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        const float2 delta = *reinterpret_cast<const float2*>(stats + 16 * j + 2);
        d_operand[j / 2][j % 2 * 2] =
            pack_bf16(S[4 * j] * (dP[4 * j] - delta.x), S[4 * j + 1] * (dP[4 * j + 1] - delta.y));
        d_operand[j / 2][j % 2 * 2 + 1] =
            pack_bf16(S[4 * j + 2] * (dP[4 * j + 2] - delta.x), S[4 * j + 3] * (dP[4 * j + 3] - delta.y));
      }
      const uint64_t dout = matrix_descriptor<kMajorMN>(shared_address(shared.dout[stage]), kBlockRows);
      const uint64_t q = matrix_descriptor<kMajorMN>(shared_address(shared.q[stage]), kBlockRows);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        pin(operand[i]);
        pin(d_operand[i]);
      }
      pin(W);
      pin(U);
      wgmma_fence();
      multiply_by_rows<true, D>(W, operand, dout);
      wgmma_commit();
      multiply_by_rows<true, D>(U, d_operand, q);
      wgmma_commit();
      place.next();
      if (n == mine.last) break;
      mbarrier_wait(&shared.full[place.stage], place.parity);
      wgmma_wait<1>();
#pragma unroll
      for (int i = 0; i < 4; ++i) pin(operand[i]);  // W is done: S may take the operand's registers
      issue_logits(place.stage);
    }
    // Loads run ahead of what they wait for: V under the last products, K under the sums of V, the rows of the next
    // product under those of K.
    const Span folded = own_rows();
    const int row = folded.first + thread / 32 * 16 + lane / 4, pair = lane % 4 * 2;
    const bool first = r == most(first_short_row(), p.short_rows_of(folded).first);
    float* sums = shared.sums[half][0][thread / 32];
    float sum[D / 4];
    Fragment<D> fragment;
    load_fragment<D>(fragment, reload(shared.operands.vb), p.b.v_strides.row, row, p.b.rows - 1, pair);
    wgmma_wait<0>();
    pin(W);
    pin(U);
    release(previous);
    float4* part = reload(shared.operands.part) + half * (2 * kPart);
    fold<D>(W, fragment, shared.factors[half][0], p.a.v_bias, part, first, sum, thread);
    load_fragment<D>(fragment, reload(shared.operands.kb), p.b.k_strides.row, row, p.b.rows - 1, pair);
    sum_rows<D>(sum, sums, lane);
    fold<D>(U, fragment, shared.factors[half][1], p.a.k_bias, part + kPart, first, sum, thread);
    load_rows<D>(b_rows, p, shared.operands, folded.first, least(r + 1, last_short_row()), thread);
    sum_rows<D>(sum, sums + 4 * D, lane);
    skip(blocks.last - mine.last);
    named_barrier_wait(3 + half, kConsumerThreads);
    const int slot = folded.first / kHalfRows % p.slots;
    float* short_part = reload(shared.operands.short_part) + (int64_t(slot) * p.a.rows + r) * (2 * D);
#pragma unroll
    for (int i = 0; i < 2 * D / kConsumerThreads; ++i) {
      const int element = i * kConsumerThreads + thread;
      const float* sums = &shared.sums[half][element / D][0][element % D];
      __stcg(&short_part[element], (sums[0] + sums[D]) + (sums[2 * D] + sums[3 * D]));
    }
  }
}

template <int D>
__global__ void __launch_bounds__(kThreads, 1)
    columns_kernel(const __grid_constant__ Problem p, const __grid_constant__ Maps maps, int first_tile, int tiles) {
  extern __shared__ __align__(1024) unsigned char raw[];
  Shared<D>& shared = *reinterpret_cast<Shared<D>*>(raw);
  // Chunks slowest: the last chunk of a tile is the short one, and goes last.
  const int tile_in_phase = blockIdx.x % tiles, chunk = blockIdx.x / tiles;
  const int first_row = (first_tile + tile_in_phase) * kColumnRows;
  const int batch = blockIdx.y / p.Hkv, kv_head = blockIdx.y % p.Hkv;
  const Span rows = {first_row, first_row + kColumnRows - 1};
  const Span short_rows = p.chunk_of(p.short_rows_of(rows), chunk);
  if (short_rows.empty()) return;

  if (p.tile_tokens * p.tile_heads < kBlockRows) {
    // Rows that no box fills take part in products, times 0.
    uint4* stages = reinterpret_cast<uint4*>(shared.q);
    constexpr int kCount = (sizeof(shared.q) + sizeof(shared.dout)) / sizeof(uint4);
    for (int i = threadIdx.x; i < kCount; i += kThreads) stages[i] = make_uint4(0, 0, 0, 0);
    fence_async_shared();
  }
  if (threadIdx.x == 0) {
    for (int i = 0; i < kStages; ++i) {
      mbarrier_init(&shared.full[i], 1);
      mbarrier_init(&shared.empty[i], 8);  // the warps of both consumers
    }
    mbarrier_init_fence();
    const int64_t kv = int64_t(batch) * p.Hkv + kv_head;
    Operands& operands = shared.operands;
    operands.kb = p.b.k + batch * p.b.k_strides.batch + kv_head * p.b.k_strides.head;
    operands.vb = p.b.v + batch * p.b.v_strides.batch + kv_head * p.b.v_strides.head;
    operands.ka = p.a.k + batch * p.a.k_strides.batch + kv_head * p.a.k_strides.head;
    operands.va = p.a.v + batch * p.a.v_strides.batch + kv_head * p.a.v_strides.head;
    operands.first_row = first_row;
    operands.short_rows = short_rows;
    operands.part = reinterpret_cast<float4*>(p.column_parts) +
                    ((kv * p.tiles_per_phase + tile_in_phase) * p.chunks + chunk) * (4 * D / 8 * kConsumerThreads);
    operands.short_part = p.short_parts + kv * p.slots * p.a.rows * (2 * D);
  }
  __syncthreads();
  const int warpgroup = uniform(threadIdx.x / 128);
  if (warpgroup == 0) {
    give_registers<24>();
    if (threadIdx.x == 0) produce<D>(p, maps, shared, rows, short_rows, batch, kv_head);
  } else {
    take_registers<240>();
    consume<D>(p, shared, warpgroup - 1, threadIdx.x % 128);
  }
}

template <int D>
void launch(const Problem& p, const Maps& maps, int phase, cudaStream_t stream) {
  constexpr int kBytes = sizeof(Shared<D>);
  static_assert(kBytes <= 227 * 1024);
  const int first_tile = phase * p.tiles_per_phase;
  const int tiles = least(p.tiles_per_phase, p.column_tiles - first_tile);
  cudaFuncSetAttribute(columns_kernel<D>, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  const dim3 grid(unsigned(tiles) * p.chunks, unsigned(p.B) * p.Hkv);
  columns_kernel<D><<<grid, kThreads, kBytes, stream>>>(p, maps, first_tile, tiles);
}

}  // namespace

void launch_columns(const Problem& problem, const Maps& maps, int phase, cudaStream_t stream) {
  if (problem.D == 128) {
    launch<128>(problem, maps, phase, stream);
  } else {
    launch<64>(problem, maps, phase, stream);
  }
}

}  // namespace llmeff::cuda::simplicial_backward
