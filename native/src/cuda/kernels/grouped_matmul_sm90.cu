// Products of rows packed by group on Hopper: tiles of 128 × kColumns by wgmma, operands by TMA.
//
// Blocks are persistent, one a multiprocessor. A producer warp keeps stages of 64 deep operands in flight, also those
// of the next tile while this one is stored; two consumer warpgroups own 64 rows of the tile each. How many rows a
// group has is known to the GPU alone: every group has its own tiles, and each block walks through the groups to those
// tiles that are its own, until there are no more. The rows behind the last group are one more group, of nothing but
// zeros.
//
// Blocks work in pairs, on the two tiles of the same columns one below the other: each loads half of w (or of b) for
// both. Where groups are small, so that the second would often have no rows, they work alone.
//
// Tiles of rows × w take their last rows from the next group, which is harmless: rows of the output depend on their own
// row of x alone, and those are not stored. In aᵀ · b the rows are what is summed up over; there the consumers write
// zeros over what a group's last stage has of the next one.
//
// Shared memory, panels of 64 channels (sm90.h). One stage:
//   x [128, 64]: a panel; w [N, K]: a panel of kColumns rows; w [K, N]: kColumns / 64 panels of 64 rows;
//   a [64, 128] and b [64, kColumns]: 2 and kColumns / 64 panels of 64 rows.
//
// A consumer whose 64 rows all belong to the group leaves its part of the output to the copy engine, panel by panel,
// and goes on with the next tile; the last rows of a group are stored as they are.
#include <algorithm>
#include <utility>

#include "cuda/kernels/grouped_matmul_sm90.h"
#include "cuda/sm90.h"

namespace llmeff::cuda {
namespace {

using namespace sm90;

constexpr int kRows = 128, kDepth = 64;
constexpr int kConsumers = 2, kConsumerThreads = 128 * kConsumers;
constexpr int kPanel = kDepth * kPanelChannels;  // elements of a panel of 64 rows
constexpr int64_t kMostRows = int64_t{1} << 30;

// kMajorA is kMajorK for rows × w, and kMajorMN for aᵀ · b.
template <int kBlocks_, int kColumns_, Major kMajorA_, Major kMajorB_>
struct Tiling {
  static constexpr int kBlocks = kBlocks_;  // of a cluster
  static constexpr int kColumns = kColumns_, kStages = kColumns == 256 ? 4 : 6;
  static constexpr Major kMajorA = kMajorA_, kMajorB = kMajorB_;
  static constexpr bool kSumsRows = kMajorA == kMajorMN;
};

struct Problem {
  CUtensorMap a[kMostGroupedTerms], b[kMostGroupedTerms];
  CUtensorMap stored;            // the output
  int steps[kMostGroupedTerms];  // of kDepth, in each term of rows × w
  int terms;
  const int64_t* starts;
  int groups;
  int rows, columns;  // of the output, or of each group's in aᵀ · b
  __nv_bfloat16* out;
  int64_t out_row;
};

template <class Tile>
struct Shared {
  alignas(1024) __nv_bfloat16 a[Tile::kStages][kRows * kDepth];
  alignas(1024) __nv_bfloat16 b[Tile::kStages][Tile::kColumns * kDepth];
  alignas(1024) __nv_bfloat16 out[kConsumers][2][kPanel];
  uint64_t full[Tile::kStages], empty[Tile::kStages];
};

__host__ __device__ int ceil_div(int a, int b) {
  return (a + b - 1) / b;
}

// The tiles of a block, one after another: numbers ascend, so that the groups are walked through once.
template <class Tile>
struct Walk {
  const Problem& p;
  int64_t tile;  // or pair
  int group = -1;
  int first = 0, rows = 0;        // of x, in the group
  int64_t begin = 0, end = 0;     // tiles of the group, or pairs
  int i0 = 0, j0 = 0, steps = 0;  // the tile's rows and columns, from the group's first ones; its stages

  __device__ explicit Walk(const Problem& problem) : p(problem), tile(blockIdx.x / Tile::kBlocks) {}

  // How many rows of the output are the group's; and of its tiles, or of pairs of them.
  __device__ int height() const { return Tile::kSumsRows ? p.rows : rows; }
  __device__ int high() const { return ceil_div(height(), kRows * Tile::kBlocks); }
  __device__ int wide() const { return ceil_div(p.columns, Tile::kColumns); }

  // False when there are no more.
  __device__ bool find() {
    const int last = Tile::kSumsRows ? p.groups - 1 : p.groups;
    while (tile >= end) {
      if (++group > last) return false;
      first = int(p.starts[group]);
      rows = (group < p.groups ? int(p.starts[group + 1]) : p.rows) - first;
      begin = end;
      end += int64_t{high()} * wide();
    }
    // Tiles that run at the same time form a rectangle, so that they share what they read by the L2 cache.
    constexpr int kBand = 16 / Tile::kBlocks;
    const int within = int(tile - begin), band = within / (kBand * wide()), rest = within - band * kBand * wide();
    const int here = min(kBand, high() - band * kBand);
    i0 = ((band * kBand + rest % here) * Tile::kBlocks + int(blockIdx.x) % Tile::kBlocks) * kRows;
    j0 = rest / here * Tile::kColumns;
    steps = 0;
    if constexpr (Tile::kSumsRows) {
      steps = ceil_div(rows, kDepth);
    } else if (group < p.groups) {
      for (int t = 0; t < p.terms; ++t) steps += p.steps[t];
    }
    return true;
  }
  __device__ void next() { tile += gridDim.x / Tile::kBlocks; }
};

template <class Tile>
__device__ void produce(const Problem& p, Shared<Tile>& shared) {
  Ring<Tile::kStages> ring;
  const int block = int(blockIdx.x) % Tile::kBlocks;
  // This block's part of b goes to all blocks of the cluster.
  const auto load_b = [&](__nv_bfloat16* to, const CUtensorMap& map, uint64_t* full, int channel, int row, int batch) {
    if constexpr (Tile::kBlocks == 1)
      tma_load(to, &map, full, channel, 0, row, batch);
    else
      tma_load_multicast(to, &map, full, channel, 0, row, batch, (1 << Tile::kBlocks) - 1);
  };
  constexpr int kPanels = Tile::kColumns / 64 / Tile::kBlocks;
  const auto load_panels = [&](__nv_bfloat16* b, const CUtensorMap& map, uint64_t* full, int j0, int row, int batch) {
    for (int c = block * kPanels; c < (block + 1) * kPanels; ++c)
      load_b(b + c * kPanel, map, full, j0 + c * 64, row, batch);
  };
  // Announces a stage, and loads it by load(a, b, full).
  const auto fill = [&](const auto& load) {
    mbarrier_wait(&shared.empty[ring.stage], ring.phase ^ 1);
    uint64_t* const full = &shared.full[ring.stage];
    mbarrier_arrive_expect(full, sizeof shared.a[0] + sizeof shared.b[0]);
    load(shared.a[ring.stage], shared.b[ring.stage], full);
    ring.next();
  };
  for (Walk<Tile> walk(p); walk.find(); walk.next()) {
    if constexpr (Tile::kSumsRows) {
      for (int s = 0; s < walk.steps; ++s)
        fill([&](__nv_bfloat16* a, __nv_bfloat16* b, uint64_t* full) {
          const int row = walk.first + s * kDepth;
          for (int c = 0; c < kRows / 64; ++c) tma_load(a + c * kPanel, &p.a[0], full, walk.i0 + c * 64, 0, row, 0);
          load_panels(b, p.b[0], full, walk.j0, row, 0);
        });
    } else if (walk.steps > 0) {
      for (int t = 0; t < p.terms; ++t)
        for (int s = 0; s < p.steps[t]; ++s)
          fill([&](__nv_bfloat16* a, __nv_bfloat16* b, uint64_t* full) {
            tma_load(a, &p.a[t], full, s * kDepth, 0, walk.first + walk.i0, 0);
            if constexpr (Tile::kMajorB == kMajorK) {
              constexpr int kPart = Tile::kColumns / Tile::kBlocks;
              load_b(b + block * kPart * kPanelChannels, p.b[t], full, s * kDepth, walk.j0 + block * kPart, walk.group);
            } else {
              load_panels(b, p.b[t], full, walk.j0, s * kDepth, walk.group);
            }
          });
    }
  }
}

// Zeros in rows from `rows` on of a stage's panels of 64 rows, by all consumers, for all consumers.
template <class Tile>
__device__ void clear_rows(__nv_bfloat16* a, __nv_bfloat16* b, int rows) {
  constexpr int kPieces = kPanelRowBytes / sizeof(uint4);  // of a row
  const auto clear = [&](__nv_bfloat16* panel) {
    uint4* const pieces = reinterpret_cast<uint4*>(panel);
    for (int i = rows * kPieces + int(threadIdx.x) % kConsumerThreads; i < kDepth * kPieces; i += kConsumerThreads)
      pieces[i] = make_uint4(0, 0, 0, 0);
  };
  for (int c = 0; c < kRows / 64; ++c) clear(a + c * kPanel);
  for (int c = 0; c < Tile::kColumns / 64; ++c) clear(b + c * kPanel);
  fence_async_shared();
  named_barrier_wait(1, kConsumerThreads);
}

// A panel of 64 rows and columns of an accumulator, by the warpgroup.
template <int kPanelNumber, int kCount>
__device__ __forceinline__ void write_panel(__nv_bfloat16* panel, const float (&sum)[kCount]) {
  const int warp = int(threadIdx.x) % 128 / 32, lane = int(threadIdx.x) % 32;
  const int row = 16 * warp + lane / 8 % 2 * 8 + lane % 8;
#pragma unroll
  for (int columns = 0; columns < 64; columns += 16) {
    const int at = 4 * (8 * kPanelNumber + columns / 8);
    const uint32_t a[4] = {pack_bf16(sum[at], sum[at + 1]), pack_bf16(sum[at + 2], sum[at + 3]),
                           pack_bf16(sum[at + 4], sum[at + 5]), pack_bf16(sum[at + 6], sum[at + 7])};
    store_matrices(shared_address(panel) + swizzled(row, columns + lane / 16 * 8), a);
  }
}

template <class Tile>
__device__ void consume(const Problem& p, Shared<Tile>& shared, int consumer) {
  constexpr int kColumns = Tile::kColumns, kDeeperA = Tile::kSumsRows ? 16 * kPanelRowBytes : 32,
                kDeeperB = Tile::kMajorB == kMajorMN ? 16 * kPanelRowBytes : 32;
  const int thread = int(threadIdx.x) % 128, own = 64 * consumer + thread / 32 * 16 + thread % 32 / 4;
  Ring<Tile::kStages> ring;
  float sum[kColumns / 2];
  // A lane arrives for its warp, whose lanes have all waited for the products.
  const auto release = [&](int stage) {
    if constexpr (Tile::kBlocks == 1) {
      if (thread % 32 == 0) mbarrier_arrive(&shared.empty[stage]);
    } else {
      if (thread % 32 < Tile::kBlocks) mbarrier_arrive_at(&shared.empty[stage], thread % 32);
    }
  };
  for (Walk<Tile> walk(p); walk.find(); walk.next()) {
#pragma unroll
    for (int i = 0; i < kColumns / 2; ++i) sum[i] = 0;
    int busy = 0;  // the stage of the former products
    for (int s = 0; s < walk.steps; ++s) {
      mbarrier_wait(&shared.full[ring.stage], ring.phase);
      if constexpr (Tile::kSumsRows) {
        const int left = walk.rows - s * kDepth;
        if (left < kDepth) clear_rows<Tile>(shared.a[ring.stage], shared.b[ring.stage], left);
      }
      // Either way this consumer's 64 rows are 64 · 128 bytes.
      const uint64_t a =
          matrix_descriptor<Tile::kMajorA>(shared_address(shared.a[ring.stage] + consumer * kPanel), kDepth);
      const uint64_t b = matrix_descriptor<Tile::kMajorB>(shared_address(shared.b[ring.stage]), kDepth);
      pin(sum);
      wgmma_fence();
#pragma unroll
      for (int k = 0; k < kDepth / 16; ++k)
        wgmma_ss<kColumns, Tile::kMajorA, Tile::kMajorB>(sum, advance(a, k * kDeeperA), advance(b, k * kDeeperB));
      wgmma_commit();
      wgmma_wait<1>();
      if (s > 0) release(busy);
      busy = ring.stage;
      ring.next();
    }
    wgmma_wait();
    pin(sum);
    if (walk.steps > 0) release(busy);

    if (walk.i0 + 64 * consumer + 64 <= walk.height()) {
      const int first = Tile::kSumsRows ? walk.group * p.rows : walk.first, row = first + walk.i0 + 64 * consumer;
      const auto store_panel = [&]<int c>() {
        __nv_bfloat16* const panel = shared.out[consumer][c % 2];
        if (thread == 0) tma_store_wait_read<1>();
        named_barrier_wait(2 + consumer, 128);
        write_panel<c>(panel, sum);
        fence_async_shared();
        named_barrier_wait(2 + consumer, 128);
        if (thread == 0) {
          if (walk.j0 + 64 * c < p.columns) tma_store(&p.stored, panel, walk.j0 + 64 * c, 0, row, 0);
          tma_store_commit();
        }
      };
      [&]<int... c>(std::integer_sequence<int, c...>) {
        (store_panel.template operator()<c>(), ...);
      }(std::make_integer_sequence<int, kColumns / 64>());
      continue;
    }
    __nv_bfloat16* rows[2];
    for (int r = 0; r < 2; ++r) {
      const int i = walk.i0 + own + 8 * r;
      const int64_t row = Tile::kSumsRows ? int64_t{walk.group} * p.rows + i : int64_t{walk.first} + i;
      rows[r] = i < walk.height() ? p.out + row * p.out_row + walk.j0 : nullptr;
    }
    store_rows<kColumns>(sum, 1.0f, 1.0f, rows[0], rows[1], p.columns - walk.j0);
  }
  if (thread == 0) bulk_store_wait();
}

template <class Tile>
__global__ void __launch_bounds__(128 * (1 + kConsumers), 1)
    grouped_matmul_sm90_kernel(const __grid_constant__ Problem p) {
  extern __shared__ __align__(1024) unsigned char memory[];
  auto& shared = *reinterpret_cast<Shared<Tile>*>(memory);
  if (threadIdx.x == 0) {
    for (int t = 0; t < p.terms; ++t) prefetch_tensor_map(&p.a[t]), prefetch_tensor_map(&p.b[t]);
    for (int i = 0; i < Tile::kStages; ++i)
      mbarrier_init(&shared.full[i], 1), mbarrier_init(&shared.empty[i], 4 * kConsumers * Tile::kBlocks);
    mbarrier_init_fence();
  }
  if constexpr (Tile::kBlocks > 1) cluster_barrier();
  __syncthreads();
  const int warpgroup = uniform(threadIdx.x / 128);
  if (warpgroup == 0) {
    give_registers<40>();
    if (threadIdx.x == 0) produce<Tile>(p, shared);
  } else {
    take_registers<232>();
    consume<Tile>(p, shared, warpgroup - 1);
  }
  // Nobody leaves while others write to his memory.
  if constexpr (Tile::kBlocks > 1) cluster_barrier();
}

template <class Tile>
cudaError_t launch(const Problem& p, int64_t row_tiles, int multiprocessors, cudaStream_t stream) {
  const auto kernel = grouped_matmul_sm90_kernel<Tile>;
  constexpr int kShared = sizeof(Shared<Tile>);
  static_assert(kShared <= 227 * 1024);
  const cudaError_t error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kShared);
  if (error != cudaSuccess) return error;
  const int64_t tiles = row_tiles * ceil_div(p.columns, Tile::kColumns);
  cudaLaunchAttribute cluster = {};
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim.x = Tile::kBlocks, cluster.val.clusterDim.y = cluster.val.clusterDim.z = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = unsigned(std::min<int64_t>(tiles, multiprocessors / Tile::kBlocks)) * Tile::kBlocks;
  config.blockDim = 128 * (1 + kConsumers);
  config.dynamicSmemBytes = kShared, config.stream = stream;
  config.attrs = &cluster, config.numAttrs = 1;
  return cudaLaunchKernelEx(&config, kernel, p);
}

// call.operator()<kBlocks, kColumns>(). Wide tiles read less for what they compute, but must not be half empty; pairs
// of them want two tiles of rows in most groups.
template <class F>
cudaError_t with_tiles(int64_t columns, int64_t rows_of_group, const F& call) {
  const bool wide = columns % 256 == 0 || columns > 1024, pairs = rows_of_group >= 8 * kRows;
  if (wide) return pairs ? call.template operator()<2, 256>() : call.template operator()<1, 256>();
  return pairs ? call.template operator()<2, 128>() : call.template operator()<1, 128>();
}

// Rows [A, C] by boxes of 64 channels.
Bf16Array rows_array(const View& x) {
  return {x.data, 1, x.shape[0], 1, x.shape[1], 0, x.strides[0], 0};
}
// Matrices [E, rows, C], or those of [E, C, rows] turned.
Bf16Array matrices_array(const View& w, Major major) {
  const int row = major == kMajorK ? 2 : 1, channel = 3 - row;
  return {w.data, w.shape[0], w.shape[row], 1, w.shape[channel], w.strides[0], w.strides[row], 0};
}
Major major_of(const View& w) {
  return w.strides[1] == 1 ? kMajorK : kMajorMN;
}

bool readable(const View& x, const Bf16Array& array) {
  return x.dtype == DType::kBF16 && tma_can_read(array) && array.B < kMostRows && array.T < kMostRows &&
         array.D < kMostRows;
}
bool readable_rows(const View& x) {
  return x.strides[1] == 1 && readable(x, rows_array(x));
}
bool writable(const View& out) {
  return out.dtype == DType::kBF16 && out.stride(-1) == 1 && out.stride(-2) % 8 == 0 && out.dim(-1) % 8 == 0 &&
         reinterpret_cast<uintptr_t>(out.data) % 16 == 0;
}

}  // namespace

bool grouped_matmul_sm90_supports(const GroupedMatmulArgs& args) {
  const Major major = major_of(args.ws[0]);
  for (int t = 0; t < args.terms; ++t) {
    const View& w = args.ws[t];
    if (!readable_rows(args.xs[t]) || w.strides[major == kMajorK ? 1 : 2] != 1 ||
        !readable(w, matrices_array(w, major)))
      return false;
  }
  return writable(args.out);
}

cudaError_t grouped_matmul_sm90(const GroupedMatmulArgs& args, int multiprocessors, cudaStream_t stream) {
  const Major major = major_of(args.ws[0]);
  Problem p;
  p.terms = args.terms, p.starts = args.starts, p.groups = int(args.ws[0].shape[0]);
  p.rows = int(args.out.shape[0]), p.columns = int(args.out.shape[1]);
  p.out = args.out.as<__nv_bfloat16>(), p.out_row = args.out.strides[0];
  if (const cudaError_t error = make_tensor_map(&p.stored, rows_array(args.out), 64); error != cudaSuccess)
    return error;
  return with_tiles(p.columns, p.rows / p.groups, [&]<int kBlocks, int kColumns>() {
    for (int t = 0; t < args.terms; ++t) {
      p.steps[t] = ceil_div(int(args.xs[t].shape[1]), kDepth);
      cudaError_t error = make_tensor_map(&p.a[t], rows_array(args.xs[t]), kRows);
      if (error == cudaSuccess)
        error = make_tensor_map(&p.b[t], matrices_array(args.ws[t], major),
                                major == kMajorMN ? kDepth : kColumns / kBlocks);
      if (error != cudaSuccess) return error;
    }
    // Every group may have a tile that isn't full; the rows behind the last one are a group too.
    const int64_t tiles = int64_t{p.rows} / (kRows * kBlocks) + p.groups + 1;
    return major == kMajorK ? launch<Tiling<kBlocks, kColumns, kMajorK, kMajorK>>(p, tiles, multiprocessors, stream)
                            : launch<Tiling<kBlocks, kColumns, kMajorK, kMajorMN>>(p, tiles, multiprocessors, stream);
  });
}

bool grouped_matmul_grad_sm90_supports(const GroupedMatmulGradArgs& args) {
  return readable_rows(args.a) && readable_rows(args.b) && writable(args.dw) && args.dw.dim(0) < kMostRows;
}

cudaError_t grouped_matmul_grad_sm90(const GroupedMatmulGradArgs& args, int multiprocessors, cudaStream_t stream) {
  Problem p;
  p.terms = 1, p.starts = args.starts, p.groups = int(args.dw.shape[0]);
  p.rows = int(args.dw.shape[1]), p.columns = int(args.dw.shape[2]);
  p.out = args.dw.as<__nv_bfloat16>(), p.out_row = args.dw.shape[2];
  const View& dw = args.dw;
  const Bf16Array rows = {dw.data, 1, dw.shape[0] * dw.shape[1], 1, dw.shape[2], 0, dw.shape[2], 0};
  cudaError_t error = make_tensor_map(&p.stored, rows, 64);
  if (error == cudaSuccess) error = make_tensor_map(&p.a[0], rows_array(args.a), kDepth);
  if (error == cudaSuccess) error = make_tensor_map(&p.b[0], rows_array(args.b), kDepth);
  if (error != cudaSuccess) return error;
  return with_tiles(p.columns, p.rows, [&]<int kBlocks, int kColumns>() {
    const int64_t tiles = int64_t{p.groups} * ceil_div(p.rows, kRows * kBlocks);
    return launch<Tiling<kBlocks, kColumns, kMajorMN, kMajorMN>>(p, tiles, multiprocessors, stream);
  });
}

}  // namespace llmeff::cuda
