// A token of each row, drawn of those that temperature, top-k, top-p and min-p keep: a cluster of blocks divides a row.
//   1. the largest score and the log-sum-exp;
//   2. what the filters keep (token_filters.cuh);
//   3. the mass that each warp keeps, and in the warp where it reaches u the token.
// A warp's tokens are neighbours, and the warps follow one another.
#include <cmath>

#include "cuda/kernels/cuda_kernels.h"
#include "cuda/kernels/token_filters.cuh"

namespace llmeff::cuda {
namespace {

struct Draw {
  const void* x;
  const double* how;  // [rows][4]: temperature, top-k, top-p, min-p
  const double* u;
  int32_t* ids;
  void* found;  // [4][rows]
  int64_t stride;
  int columns;
  double unit;  // 2^Q
};

// The warp in which the mass reaches u, what is left to reach there, and how many of equal scores it may still keep.
struct Where {
  unsigned warp;
  uint64_t target;
  uint32_t ties;
};

// By each warp: over all warps of the cluster in their order, four of them to a lane.
template <class W>
__device__ Where find_warp(const Room<W>& room, double u, uint32_t ties, uint64_t tie) {
  constexpr int kEach = kMostBlocks * kSampleWarps / 32;
  const unsigned warps = cluster_size() * kSampleWarps, first = threadIdx.x % 32 * kEach;
  uint64_t masses[kEach];
  uint32_t equal[kEach], count = 0;
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    const unsigned warp = first + i;
    const bool there = warp < warps;
    masses[i] = there ? load_from(&room.masses[warp % kSampleWarps], warp / kSampleWarps) : 0;
    equal[i] = there ? load_from(&room.ties[warp % kSampleWarps], warp / kSampleWarps) : 0;
    count += equal[i];
  }
  const uint32_t before = lane_sums(count).before;
  uint32_t left = ties - min(ties, before);
  uint64_t mass = 0;
  uint32_t left_at[kEach];
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    left_at[i] = left;
    masses[i] += min(left, equal[i]) * tie;
    mass += masses[i];
    left -= min(left, equal[i]);
  }
  const Sums<uint64_t> sums = lane_sums(mass);
  const uint64_t all = __shfl_sync(kAllLanes, sums.through, 31);
  // u in steps of 2^-64, exactly; a sum exceeds u · all where it exceeds the whole number below it.
  const double inside = u > 0 ? fmin(u, 1 - 0x1p-53) : 0;
  uint64_t target = __umul64hi(static_cast<uint64_t>(inside * 0x1p64), all);
  const int lane = first_lane(sums.through > target);
  target -= sums.before;
  int at = 0;
#pragma unroll
  for (int i = 0; i + 1 < kEach; ++i)
    if (at == i && target >= masses[i]) target -= masses[i], ++at;
  uint32_t left_there = left_at[0];
#pragma unroll
  for (int i = 1; i < kEach; ++i)
    if (at == i) left_there = left_at[i];
  return {__shfl_sync(kAllLanes, first + at, lane), __shfl_sync(kAllLanes, target, lane),
          __shfl_sync(kAllLanes, left_there, lane)};
}

template <class W>
__device__ void write(const Draw& a, int32_t id, W score, const Largest<W>& largest) {
  const int64_t rows = gridDim.y, row = blockIdx.y;
  W* const found = static_cast<W*>(a.found);
  a.ids[row] = id;
  found[row] = static_cast<W>(id);
  found[rows + row] = score;
  found[2 * rows + row] = log_sum_exp(largest);
  found[3 * rows + row] = largest.maximum;
}

// By the warp in which it is.
template <class T, int kPack>
__device__ void write_token(const Draw& a, const Part<T, kPack>& part, const Scale& scale,
                            const Kept<typename Keys<T>::Bits>& kept, Where where, const Largest<wide_t<T>>& largest) {
  using W = wide_t<T>;
  const int lane = threadIdx.x % 32;
  for (int start = part.begin; start < part.end; start += 32) {
    const int pack = start + lane;
    const bool there = pack < part.end;
    Group<T, kPack> group = {};
    if (there) group = load_group<kPack>(part.x + int64_t{pack} * kPack);
    const auto each = [&](auto&& visit) {
      if (!there) return;
#pragma unroll
      for (int e = 0; e < kPack; ++e)
        weigh<T>(widen<W>(group.at[e]), scale, kept, [&](bool tie, uint64_t mass) { visit(e, tie, mass); });
    };
    uint64_t mass = 0;
    uint32_t equal = 0;
    each([&](int, bool tie, uint64_t own) { tie ? equal += 1 : mass += own; });
    const Sums<uint32_t> ties = lane_sums(equal);
    const uint32_t left = where.ties - min(where.ties, ties.before);
    const Sums<uint64_t> sums = lane_sums(mass + min(left, equal) * kept.tie);
    const bool reached = sums.through > where.target;
    if (__any_sync(kAllLanes, reached)) {
      if (lane != first_lane(reached)) return;
      uint64_t rest = where.target - sums.before;
      uint32_t ties_left = left;
      bool done = false;
      each([&](int e, bool tie, uint64_t own) {
        if (done || (tie && ties_left == 0)) return;
        if (tie) --ties_left;
        done = own > rest;
        if (done) write(a, pack * kPack + e, widen<W>(group.at[e]), largest);
        rest -= own;
      });
      return;
    }
    where.target -= __shfl_sync(kAllLanes, sums.through, 31);
    where.ties -= min(where.ties, __shfl_sync(kAllLanes, ties.through, 31));
  }
}

template <class T, int kPack>
__global__ void __launch_bounds__(kSampleThreads) sample_tokens_kernel(const __grid_constant__ Draw a) {
  using W = wide_t<T>;
  __shared__ Room<W> room;
  let_next_begin();
  const unsigned rank = cluster_rank(), blocks = cluster_size(), warp = rank * kSampleWarps + threadIdx.x / 32;
  await_earlier();
  const int row = blockIdx.y, packs = a.columns / kPack, warps = static_cast<int>(blocks) * kSampleWarps;
  const int each = (packs + warps - 1) / warps, begin = min(packs, static_cast<int>(warp) * each);
  const Part<T, kPack> part = {static_cast<const T*>(a.x) + row * a.stride, begin, min(packs, begin + each)};
  Largest<W> largest = {-INFINITY, 0, INT32_MAX};
  for (int pack = part.begin + static_cast<int>(threadIdx.x % 32); pack < part.end; pack += 32)
    largest.join(largest_of<W>(load_group<kPack>(part.x + int64_t{pack} * kPack), pack * kPack));
  largest = joined_in_block(largest, room.warps);
  if (threadIdx.x == 0) room.block = largest;
  cluster_synchronize();
  if (threadIdx.x < 32) {
    const unsigned other = min(threadIdx.x, blocks - 1);
    largest = {load_from(&room.block.maximum, other), load_from(&room.block.sum, other),
               threadIdx.x < blocks ? load_from(&room.block.at, other) : INT32_MAX};
#pragma unroll
    for (int distance = kMostBlocks / 2; distance > 0; distance /= 2) largest.join(shuffled(largest, distance));
    if (threadIdx.x == 0) room.row = largest;
  }
  __syncthreads();
  largest = room.row;
  const double* const how = a.how + 4 * row;
  const double temperature = how[0];
  // Of scores that nothing can be drawn by the largest is given, which tells.
  if (!(temperature > 0) || !isfinite(largest.maximum)) {
    if (warp == 0 && threadIdx.x == 0) write(a, largest.at, largest.maximum, largest);
    cluster_synchronize();
    return;
  }
  const Scale scale = {static_cast<double>(largest.maximum), 1 / temperature, a.unit};
  const auto kept = filter(a.columns, how, part, scale, room);
  uint64_t mass = 0;
  uint32_t ties = 0;
  part.each([&](W x) { weigh<T>(x, scale, kept, [&](bool tie, uint64_t own) { tie ? ties += 1 : mass += own; }); });
  mass = warp_sum(mass), ties = warp_sum(ties);
  if (threadIdx.x % 32 == 0) room.masses[threadIdx.x / 32] = mass, room.ties[threadIdx.x / 32] = ties;
  cluster_synchronize();
  const Where where = find_warp(room, a.u[row], kept.ties, kept.tie);
  if (where.warp == warp) write_token(a, part, scale, kept, where, largest);
  cluster_synchronize();  // others may still read this block's memory
}

}  // namespace

void CudaKernels::sample_tokens(const In& x, const In& how, const In& u, const Out& ids, const Out& found) {
  const int columns = static_cast<int>(x.shape[1]);
  const double unit = std::ldexp(1.0, 62 - static_cast<int>(std::ceil(std::log2(columns))));
  const Draw a = {x.data, how.as<double>(), u.as<double>(), ids.as<int32_t>(), found.data, x.strides[0], columns, unit};
  const dim3 grid(1, static_cast<unsigned>(x.shape[0]));
  const bool aligned = rows_aligned({&x});
  with_floating(x.dtype, [&]<class T>(TypeTag<T>) {
    if (aligned)
      return launch_clusters(cuda_, kMostBlocks, sample_tokens_kernel<T, Pack<T>::kSize>, grid, kSampleThreads, a);
    launch_clusters(cuda_, kMostBlocks, sample_tokens_kernel<T, 1>, grid, kSampleThreads, a);
  });
}

}  // namespace llmeff::cuda
