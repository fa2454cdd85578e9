// 2-simplicial attention, backward: the gradient of the queries.
//
// One block owns a row block (64 query rows); tiles of 128 rows of the long side b arrive one after the other, and the
// short rows r are walked inside, even ones by consumer 0 and odd ones by consumer 1. Per (tile, r), with A = q∘ka_r
// and Y = dout∘va_r built as register operands (bf16), for each 64 rows of the tile:
//   S = A Kbᵀ,  dP = Y Vbᵀ                                     m64n64k16, Kb and Vb from shared memory
//   P = exp2(S·scale·log2e - lse·log2e),  dS = P∘(dP - D)
//   G = dS Kb                                                  m64nDk16
//   dq += G∘ka_r                                               float32
// In the end the two consumers' sums are added, times `scale`.
//
// The consumers take turns with the matrix products, S dP of 0, S dP of 1, G of 0, G of 1: each computes while the
// other's products run. Left alone they fall into step, for the tensor cores serve both in turn and both finish
// together.
//
// Shared memory at D = 128: q and dout 32 KB, two stages of Kb and Vb 128 KB, up to 32 short rows 32 KB: 193 KB.
// Registers: dq 64, A and Y 64, S and dP 64, then G in their place.
#include "cuda/kernels/simplicial_backward_problem.h"

namespace llmeff::cuda::simplicial_backward {
namespace {

using namespace sm90;

constexpr int kStages = 2;
constexpr int kTile = 128;       // rows of b
constexpr int kShortRows = 32;   // of a, in shared memory at a time
constexpr int kThreads = 384;    // producer, consumer 0, consumer 1
constexpr int kConsumers = 256;  // threads of both

// Named barriers.
constexpr int kBoth = 1;
constexpr int kTurn = 2;  // and 3: of consumer 0, of consumer 1

template <int D>
struct Shared {
  static constexpr int kPanels = D / kPanelChannels;
  static constexpr int kTilePanel = kTile * kPanelRowBytes;
  static constexpr int kRowPanel = kBlockRows * kPanelRowBytes;
  unsigned char q[kPanels * kRowPanel];  // q and dout together take part 1 of dq in the end
  unsigned char dout[kPanels * kRowPanel];
  unsigned char kb[kStages][kPanels * kTilePanel];
  unsigned char vb[kStages][kPanels * kTilePanel];
  // Short rows in the order of the fragments: thread t of a quad holds channels 8n + 2t and 8n + 2t + 1.
  uint4 ka[kShortRows][D / 8], va[kShortRows][D / 8];  // [n / 4][t], of n % 4: bf16x2
  float4 factor[kShortRows][D / 4];                    // [n / 2][t], of n % 2: ka + bias
  float stats[2 * kBlockRows];
  uint64_t full_rows, full[kStages], empty[kStages];
};

// What one block works on.
struct Work {
  int batch, kv_head, block;
  int first_token, last_token;
  Span short_rows, long_rows;
};

__device__ inline Work work_of(const Problem& p, int block, int kv) {
  Work w;
  w.batch = kv / p.Hkv, w.kv_head = kv % p.Hkv, w.block = block;
  w.first_token = p.first_token(block);
  w.last_token = least(p.Nq - 1, w.first_token + p.tile_tokens - 1);
  w.short_rows = {most(0, w.first_token + p.a.shift - p.a.window + 1), least(p.a.rows - 1, w.last_token + p.a.shift)};
  w.long_rows = {most(0, w.first_token + p.b.shift - p.b.window + 1), least(p.b.rows - 1, w.last_token + p.b.shift)};
  return w;
}

template <int D>
__device__ void produce(const Problem& p, const Maps& maps, Shared<D>& shared, const Work& w) {
  using Layout = Shared<D>;
  const uint32_t box_bytes = uint32_t(p.tile_tokens) * p.tile_heads * kPanelRowBytes;
  const int head = w.kv_head * p.group + w.block % p.head_blocks * kBlockRows;
  mbarrier_arrive_expect(&shared.full_rows, 2 * Layout::kPanels * box_bytes + sizeof(shared.stats));
#pragma unroll
  for (int panel = 0; panel < Layout::kPanels; ++panel) {
    const int offset = panel * Layout::kRowPanel, channel = panel * kPanelChannels;
    tma_load(shared.q + offset, &maps.q, &shared.full_rows, channel, head, w.first_token, w.batch);
    tma_load(shared.dout + offset, &maps.dout, &shared.full_rows, channel, head, w.first_token, w.batch);
  }
  const int64_t stats = ((int64_t(w.batch) * p.Hkv + w.kv_head) * p.row_blocks + w.block) * (2 * kBlockRows);
  bulk_load(shared.stats, p.stats + stats, sizeof(shared.stats), &shared.full_rows);

  int stage = 0;
  uint32_t parity = 0;
  for (int r = w.short_rows.first; r <= w.short_rows.last; r += kShortRows) {
    for (int row = w.long_rows.first; row <= w.long_rows.last; row += kTile) {
      mbarrier_wait(&shared.empty[stage], parity ^ 1);
      mbarrier_arrive_expect(&shared.full[stage], 2 * Layout::kPanels * Layout::kTilePanel);
#pragma unroll
      for (int panel = 0; panel < Layout::kPanels; ++panel) {
        const int offset = panel * Layout::kTilePanel, channel = panel * kPanelChannels;
        tma_load(shared.kb[stage] + offset, &maps.kb, &shared.full[stage], channel, w.kv_head, row, w.batch);
        tma_load(shared.vb[stage] + offset, &maps.vb, &shared.full[stage], channel, w.kv_head, row, w.batch);
      }
      if (++stage == kStages) stage = 0, parity ^= 1;
    }
  }
}

// `count` rows of a from row r on, into fragment order.
template <int D>
__device__ void load_short_rows(const Problem& p, Shared<D>& shared, const Work& w, int r, int count, int thread) {
  constexpr int kColumns = D / 8;
  const __nv_bfloat16* ka = p.a.k + w.batch * p.a.k_strides.batch + w.kv_head * p.a.k_strides.head;
  const __nv_bfloat16* va = p.a.v + w.batch * p.a.v_strides.batch + w.kv_head * p.a.v_strides.head;
#pragma unroll 2
  for (int i = thread; i < count * kColumns; i += kConsumers) {
    const int row = i / kColumns, n = i % kColumns;
    const uint4 k = *reinterpret_cast<const uint4*>(ka + int64_t(r + row) * p.a.k_strides.row + n * 8);
    const uint4 v = *reinterpret_cast<const uint4*>(va + int64_t(r + row) * p.a.v_strides.row + n * 8);
    const uint32_t ks[4] = {k.x, k.y, k.z, k.w}, vs[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int t = 0; t < 4; ++t) {
      reinterpret_cast<uint32_t*>(&shared.ka[row][n / 4 * 4 + t])[n % 4] = ks[t];
      reinterpret_cast<uint32_t*>(&shared.va[row][n / 4 * 4 + t])[n % 4] = vs[t];
      float2 f = unpack_bf16(ks[t]);
      f.x += p.a.k_bias, f.y += p.a.k_bias;
      reinterpret_cast<float2*>(&shared.factor[row][n / 2 * 4 + t])[n % 2] = f;
    }
  }
}

// Register operands rows∘(short row + bias); `rows` is the shared address of this lane's row for ldmatrix, `swizzle`
// its row % 8, `column` its half of 16 channels.
template <bool kBiased, int D>
__device__ inline void build_operand(uint32_t (&operand)[D / 16][4], uint32_t rows, int swizzle, int column,
                                     const uint4* short_row, int quad, float bias) {
#pragma unroll
  for (int n = 0; n < D / 8; n += 4) {
    const uint4 x = short_row[n + quad];
    const uint32_t factor[4] = {x.x, x.y, x.z, x.w};
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int step = n / 2 + i;
      const uint32_t address = rows + step / 4 * Shared<D>::kRowPanel + ((step % 4 * 2 + column) ^ swizzle) * 16;
      uint32_t (&a)[4] = operand[step];
      asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                   : "=r"(a[0]), "=r"(a[1]), "=r"(a[2]), "=r"(a[3])
                   : "r"(address)
                   : "memory");
#pragma unroll
      for (int j = 0; j < 4; ++j) a[j] = multiply<kBiased>(a[j], factor[2 * i + j / 2], bias);
    }
  }
}

template <int D, bool kBiased>
__device__ void consume(const Problem& p, Shared<D>& shared, const Work& w, int consumer, int thread) {
  using Layout = Shared<D>;
  const int lane = thread % 32, warp = thread / 32, quad = lane % 4;
  const int row = warp * 16 + lane / 4;  // and row + 8
  const int matrix_row = warp * 16 + lane / 8 % 2 * 8 + lane % 8;
  const uint32_t q_rows = shared_address(shared.q) + matrix_row * kPanelRowBytes;
  const uint32_t dout_rows = shared_address(shared.dout) + matrix_row * kPanelRowBytes;

  float dq[D / 2], S[32], dP[32], G[D / 2];
  uint32_t A[D / 16][4], Y[D / 16][4];
#pragma unroll
  for (int i = 0; i < D / 2; ++i) dq[i] = 0;
  mbarrier_wait(&shared.full_rows, 0);
  const float* stats = shared.stats + row / 2 * 4 + row % 2;
  const float lse[2] = {stats[0], stats[16]}, delta[2] = {stats[2], stats[18]};

  const auto build = [&](int index) {
    build_operand<kBiased, D>(A, q_rows, lane % 8, lane / 16, shared.ka[index], quad, p.a.k_bias);
    build_operand<kBiased, D>(Y, dout_rows, lane % 8, lane / 16, shared.va[index], quad, p.a.v_bias);
  };

  const auto wait_turn = [&] { named_barrier_wait(kTurn + consumer, kConsumers); };
  const auto pass_turn = [&] { named_barrier_arrive(kTurn + 1 - consumer, kConsumers); };
  if (consumer == 1) pass_turn();

  int stage = 0;
  uint32_t parity = 0;
  for (int chunk = w.short_rows.first; chunk <= w.short_rows.last; chunk += kShortRows) {
    const int count = least(kShortRows, w.short_rows.last - chunk + 1);
    named_barrier_wait(kBoth, kConsumers);
    load_short_rows<D>(p, shared, w, chunk, count, consumer * 128 + thread);
    named_barrier_wait(kBoth, kConsumers);
    for (int tile = w.long_rows.first; tile <= w.long_rows.last; tile += kTile) {
      mbarrier_wait(&shared.full[stage], parity);
      const bool two = w.long_rows.last - tile >= kTile / 2;  // the tile's second half has rows
      int index = consumer;
      if (index < count) build(index);
      for (int half = 0; index < count;) {
        const uint32_t offset = half * (kTile / 2) * kPanelRowBytes;
        const uint64_t k = matrix_descriptor<kMajorK>(shared_address(shared.kb[stage]) + offset);
        const uint64_t v = matrix_descriptor<kMajorK>(shared_address(shared.vb[stage]) + offset);
        wait_turn();
        pin(S);
        pin(dP);
#pragma unroll
        for (int step = 0; step < D / 16; ++step) {
          pin(A[step]);
          pin(Y[step]);
        }
        wgmma_fence();
        multiply_by_channels<Layout::kTilePanel>(S, A, k);
        wgmma_commit();
        multiply_by_channels<Layout::kTilePanel>(dP, Y, v);
        wgmma_commit();
        pass_turn();
        wgmma_wait<1>();
        pin(S);
#pragma unroll
        for (int i = 0; i < 32; ++i) S[i] = exp2_approx(S[i] * p.log2_scale - lse[i / 2 % 2]);
        const int first = tile + half * (kTile / 2), r = chunk + index;
        const bool whole = first >= w.last_token + p.b.shift - p.b.window + 1 &&
                           first + 63 <= w.first_token + p.b.shift && first + 63 < p.b.rows &&
                           r > w.last_token + p.a.shift - p.a.window && r <= w.first_token + p.a.shift;
        if (!whole) {
          int line = row;
          asm volatile("" : "+r"(line));  // keeps the bounds from being held ready all the time
#pragma unroll
          for (int h = 0; h < 2; ++h) {
            const int t = w.first_token + ((line + 8 * h) * p.token_magic >> 16);
            const int low = most(0, t + p.b.shift - p.b.window + 1) - first - 2 * quad;
            int high = least(p.b.rows - 1, t + p.b.shift) - first - 2 * quad;
            if (r > t + p.a.shift || r <= t + p.a.shift - p.a.window) high = low - 1;
#pragma unroll
            for (int i = 0; i < 16; ++i) {
              float& x = S[i / 2 * 4 + h * 2 + i % 2];
              const int column = i / 2 * 8 + i % 2;
              x = column >= low && column <= high ? x : 0;
            }
          }
        }
        wgmma_wait<0>();
        pin(dP);
        uint32_t operand[4][4];
#pragma unroll
        for (int i = 0; i < 16; ++i) {
          operand[i / 4][i % 4] =
              pack_bf16(S[2 * i] * (dP[2 * i] - delta[i % 2]), S[2 * i + 1] * (dP[2 * i + 1] - delta[i % 2]));
        }
        const uint64_t keys = matrix_descriptor<kMajorMN>(shared_address(shared.kb[stage]) + offset, kTile);
        wait_turn();
        pin(G);
#pragma unroll
        for (int step = 0; step < 4; ++step) pin(operand[step]);
        wgmma_fence();
        multiply_by_rows<false, D>(G, operand, keys);
        wgmma_commit();
        pass_turn();
        const int folded = index;
        const bool row_done = !two || half == 1;
        half = row_done ? 0 : 1;
        if (row_done) index += 2;
        // Under G, where the registers allow.
        if (!kBiased && row_done && index < count) build(index);
        wgmma_wait<0>();
        pin(G);
#pragma unroll
        for (int n = 0; n < D / 8; n += 2) {
          const float4 f = shared.factor[folded][n * 2 + quad];
          dq[4 * n] += G[4 * n] * f.x;
          dq[4 * n + 1] += G[4 * n + 1] * f.y;
          dq[4 * n + 2] += G[4 * n + 2] * f.x;
          dq[4 * n + 3] += G[4 * n + 3] * f.y;
          dq[4 * n + 4] += G[4 * n + 4] * f.z;
          dq[4 * n + 5] += G[4 * n + 5] * f.w;
          dq[4 * n + 6] += G[4 * n + 6] * f.z;
          dq[4 * n + 7] += G[4 * n + 7] * f.w;
        }
        if (kBiased && row_done && index < count) build(index);
      }
      if (consumer == 1 && count % 2 != 0) {  // the other has a row more
        for (int turns = two ? 4 : 2; turns > 0; --turns) {
          wait_turn();
          pass_turn();
        }
      }
      // For the warp: no lane is behind, for all have waited for products or a turn, and only products read the stage.
      if (lane == 0) mbarrier_arrive(&shared.empty[stage]);
      if (++stage == kStages) stage = 0, parity ^= 1;
    }
  }

  // Consumer 1 hands its sum over where q and dout were.
  float4* part = reinterpret_cast<float4*>(shared.q);
  named_barrier_wait(kBoth, kConsumers);
  if (consumer == 1) {
#pragma unroll
    for (int n = 0; n < D / 8; ++n)
      part[n * 128 + thread] = make_float4(dq[4 * n], dq[4 * n + 1], dq[4 * n + 2], dq[4 * n + 3]);
  }
  named_barrier_wait(kBoth, kConsumers);
  if (consumer == 1) return;
#pragma unroll
  for (int n = 0; n < D / 8; ++n) {
    const float4 x = part[n * 128 + thread];
    dq[4 * n] += x.x, dq[4 * n + 1] += x.y, dq[4 * n + 2] += x.z, dq[4 * n + 3] += x.w;
  }
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int line = row + 8 * h;
    const int token_in_block = line * p.token_magic >> 16;
    const int t = w.first_token + token_in_block;
    const int head_in_group = w.block % p.head_blocks * kBlockRows + line - token_in_block * p.group;
    if (token_in_block >= p.tile_tokens || t >= p.Nq || head_in_group >= p.group) continue;
    __nv_bfloat16* out =
        p.dq + ((int64_t(w.batch) * p.Nq + t) * p.Hq + w.kv_head * p.group + head_in_group) * D + 2 * quad;
#pragma unroll
    for (int n = 0; n < D / 8; ++n) {
      *reinterpret_cast<uint32_t*>(out + 8 * n) =
          pack_bf16(dq[4 * n + 2 * h] * p.scale, dq[4 * n + 2 * h + 1] * p.scale);
    }
  }
}

template <int D, bool kBiased>
__global__ void __launch_bounds__(kThreads, 1)
    rows_kernel(const __grid_constant__ Problem p, const __grid_constant__ Maps maps) {
  extern __shared__ __align__(1024) unsigned char raw[];
  Shared<D>& shared = *reinterpret_cast<Shared<D>*>(raw);
  // Under the causal mask late tokens see the most: first.
  const Work w = work_of(p, p.row_blocks - 1 - blockIdx.x, blockIdx.y);
  if (p.tile_tokens * p.tile_heads < kBlockRows) {
    // Rows that no box fills take part in products, times 0.
    uint4* rows = reinterpret_cast<uint4*>(shared.q);
    constexpr int kCount = (sizeof(shared.q) + sizeof(shared.dout)) / sizeof(uint4);
    for (int i = threadIdx.x; i < kCount; i += kThreads) rows[i] = make_uint4(0, 0, 0, 0);
    fence_async_shared();
  }
  if (threadIdx.x == 0) {
    mbarrier_init(&shared.full_rows, 1);
    for (int i = 0; i < kStages; ++i) {
      mbarrier_init(&shared.full[i], 1);
      mbarrier_init(&shared.empty[i], 8);  // the warps of both consumers
    }
    mbarrier_init_fence();
  }
  __syncthreads();
  const int warpgroup = uniform(threadIdx.x / 128);
  if (warpgroup == 0) {
    give_registers<24>();
    if (threadIdx.x == 0) produce<D>(p, maps, shared, w);
  } else {
    take_registers<240>();
    consume<D, kBiased>(p, shared, w, warpgroup - 1, threadIdx.x % 128);
  }
}

template <int D, bool kBiased>
void launch(const Problem& p, const Maps& maps, cudaStream_t stream) {
  constexpr int kBytes = sizeof(Shared<D>);
  static_assert(kBytes <= 227 * 1024);
  static_assert(sizeof(Shared<D>::q) + sizeof(Shared<D>::dout) >= kBlockRows * D * sizeof(float));
  cudaFuncSetAttribute(rows_kernel<D, kBiased>, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  rows_kernel<D, kBiased><<<dim3(unsigned(p.row_blocks), unsigned(p.B) * p.Hkv), kThreads, kBytes, stream>>>(p, maps);
}

}  // namespace

void launch_rows(const Problem& problem, const Maps& maps, cudaStream_t stream) {
  const bool biased = problem.a.k_bias != 0 || problem.a.v_bias != 0;
  if (problem.D == 128) {
    biased ? launch<128, true>(problem, maps, stream) : launch<128, false>(problem, maps, stream);
  } else {
    biased ? launch<64, true>(problem, maps, stream) : launch<64, false>(problem, maps, stream);
  }
}

}  // namespace llmeff::cuda::simplicial_backward
