// Which tokens of a row top-k, top-p and min-p keep, found by a cluster of blocks: the least score that is kept, for
// top-k and then for top-p, by radix selections of 11 bits a pass, whose histograms the blocks read in each other's
// shared memory. Masses are whole numbers, e^((x - largest) / temperature) in steps of 2^-Q with Q = 62 -
// log2(columns): their sums have no rounding, and no order that matters.
#pragma once

#include "cuda/kernels/cluster.cuh"
#include "cuda/kernels/largest.cuh"

namespace llmeff::cuda {

#ifdef __CUDACC__

inline constexpr int kSampleThreads = 512, kSampleWarps = kSampleThreads / 32;
inline constexpr int kDigit = 11, kBuckets = 1 << kDigit, kGroup = 32, kGroups = kBuckets / kGroup;
inline constexpr uint32_t kAllLanes = 0xFFFFFFFFu, kAllTies = 0xFFFFFFFFu;

// Scores as unsigned numbers of the same order; zeros of both signs are equal.
template <class T>
struct Keys {
  using W = wide_t<T>;
  using Bits = std::conditional_t<sizeof(W) == 8, uint64_t, uint32_t>;
  // bfloat16 and float16 leave the last bits of a float32 at zero.
  static constexpr int kDropped = __is_same(T, bf16) ? 16 : __is_same(T, f16) ? 13 : 0;
  static constexpr int kBits = static_cast<int>(8 * sizeof(W)) - kDropped;
  static constexpr int kDigits = (kBits + kDigit - 1) / kDigit;
  static constexpr Bits kSign = Bits{1} << (kBits - 1), kAll = ~Bits{0} >> kDropped;

  static __device__ Bits of(W x) {
    x += W{0};
    const Bits bits = *reinterpret_cast<const Bits*>(&x) >> kDropped;
    return bits ^ ((bits & kSign) != 0 ? kAll : kSign);
  }
  static __device__ W value(Bits key) {
    const Bits bits = (key ^ ((key & kSign) != 0 ? kSign : kAll)) << kDropped;
    return *reinterpret_cast<const W*>(&bits);
  }
};

// How much a token of a score weighs beside the likeliest.
struct Scale {
  double largest, inverse_temperature, unit;

  __device__ double weight(double x) const { return x == largest ? 1 : exp((x - largest) * inverse_temperature); }
  __device__ uint64_t mass(double weight) const { return __double2ull_rn(weight * unit); }
};

// Tokens of larger keys than `key` are kept, and of those that have it the first `ties`, each of which has a mass of
// `tie`.
template <class Bits>
struct Kept {
  Bits key = 0;
  uint32_t ties = kAllTies;
  uint64_t tie = 0;
  double min_p;
};

// The neighbouring tokens of a warp.
template <class T, int kPack>
struct Part {
  const T* x;
  int begin, end;  // groups of kPack

  template <class F>
  __device__ void each(F&& visit) const {
    for (int pack = begin + static_cast<int>(threadIdx.x % 32); pack < end; pack += 32) {
      const Group<T, kPack> group = load_group<kPack>(x + int64_t{pack} * kPack);
#pragma unroll
      for (int e = 0; e < kPack; ++e) visit(widen<wide_t<T>>(group.at[e]));
    }
  }
};

template <class Bits>
struct Selected {
  Bits key;
  uint64_t above, mass;  // of the larger keys, and of this one
};

struct Place {
  int bucket;
  uint64_t above, mass, target;
};

template <class W>
struct Room {
  // Two, since others may still read the one of the last pass.
  uint32_t low[2][kBuckets], high[2][kBuckets];
  uint64_t groups[2][kGroups];
  Largest<W> warps[kSampleWarps], block, row;
  uint64_t masses[kSampleWarps];
  uint32_t ties[kSampleWarps];
  Place place;
};

// Exclusive and inclusive sums over the lanes of a warp.
template <class V>
struct Sums {
  V before, through;
};
template <class V>
__device__ Sums<V> lane_sums(V own) {
  V sum = own;
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int distance = 1; distance < 32; distance *= 2) {
    const V other = __shfl_up_sync(kAllLanes, sum, distance);
    if (lane >= distance) sum += other;
  }
  return {sum - own, sum};
}

// The first lane of a warp for which `reached` holds; the last one if it holds for none.
__device__ int first_lane(bool reached) {
  const uint32_t lanes = __ballot_sync(kAllLanes, reached);
  return lanes == 0 ? 31 : __ffs(lanes) - 1;
}

// Shared memory has additions of 32 bits: the carry goes on by itself.
__device__ void add_to(uint32_t* low, uint32_t* high, uint64_t mass) {
  const uint32_t part = static_cast<uint32_t>(mass);
  const uint32_t carry = part != 0 && atomicAdd(low, part) + part < part ? 1 : 0;
  const uint32_t rest = static_cast<uint32_t>(mass >> 32) + carry;
  if (rest != 0) atomicAdd(high, rest);
}

// By the first warp, of a histogram that all blocks have made a part of: the bucket in which the masses, from the last
// one down, reach the target; at first that is `share` of all, if there is one.
template <class W>
__device__ void find_bucket(Room<W>& room, int which, uint64_t above, uint64_t target, double share) {
  const int lane = threadIdx.x;
  const unsigned blocks = cluster_size();
  const int first = kGroups - 1 - 2 * lane;
  uint64_t pair[2] = {0, 0};
#pragma unroll
  for (unsigned rank = 0; rank < kMostBlocks; ++rank)
    if (rank < blocks)
      for (int i = 0; i < 2; ++i) pair[i] += load_from(&room.groups[which][first - i], rank);
  const Sums<uint64_t> sums = lane_sums(pair[0] + pair[1]);
  if (share > 0) {
    const uint64_t all = __shfl_sync(kAllLanes, sums.through, 31);
    target = max(uint64_t{1}, min(all, static_cast<uint64_t>(ceil(share * static_cast<double>(all)))));
  }
  const int at = first_lane(above + sums.through >= target);
  const bool second = above + sums.before + pair[0] < target;
  const int group = __shfl_sync(kAllLanes, first - (second ? 1 : 0), at);
  above += __shfl_sync(kAllLanes, sums.before + (second ? pair[0] : 0), at);
  const int bucket = group * kGroup + kGroup - 1 - lane;
  uint64_t mass = 0;
#pragma unroll
  for (unsigned rank = 0; rank < kMostBlocks; ++rank)
    if (rank < blocks)
      mass += load_from(&room.low[which][bucket], rank) +
              (static_cast<uint64_t>(load_from(&room.high[which][bucket], rank)) << 32);
  const Sums<uint64_t> within = lane_sums(mass);
  if (lane == first_lane(above + within.through >= target)) room.place = {bucket, above + within.before, mass, target};
}

// The key at which masses, from the largest key down, reach the target, or `share` of the mass of all; of keys from
// `least` on. Counted, each token has a mass of 1.
template <bool kCounted, class T, int kPack>
__device__ auto select(const Part<T, kPack>& part, const Scale& scale, typename Keys<T>::Bits least, uint64_t target,
                       double share, Room<wide_t<T>>& room, int& which) {
  using K = Keys<T>;
  using Bits = typename K::Bits;
  Selected<Bits> found = {0, 0, 0};
  Bits known = 0;  // bits that are found
  for (int digit = 0; digit < K::kDigits; ++digit) {
    // The last one may have bits of the one before.
    const int shift = max(0, K::kBits - kDigit * (digit + 1));
    which ^= 1;
    for (int i = threadIdx.x; i < kBuckets; i += kSampleThreads) room.low[which][i] = room.high[which][i] = 0;
    __syncthreads();
    part.each([&](wide_t<T> x) {
      const Bits key = K::of(x);
      if (key < least || (key & known) != found.key) return;
      const int bucket = static_cast<int>(key >> shift) & (kBuckets - 1);
      add_to(&room.low[which][bucket], &room.high[which][bucket], kCounted ? 1 : scale.mass(scale.weight(x)));
    });
    __syncthreads();
    constexpr int kEach = kBuckets / kSampleThreads, kSharing = kGroup / kEach;
    uint64_t mass = 0;
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const int bucket = threadIdx.x * kEach + i;
      mass += room.low[which][bucket] + (static_cast<uint64_t>(room.high[which][bucket]) << 32);
    }
#pragma unroll
    for (int distance = 1; distance < kSharing; distance *= 2) mass += __shfl_xor_sync(kAllLanes, mass, distance);
    if (threadIdx.x % kSharing == 0) room.groups[which][threadIdx.x / kSharing] = mass;
    cluster_synchronize();
    if (threadIdx.x < 32) find_bucket(room, which, found.above, target, digit == 0 ? share : 0);
    __syncthreads();
    const Place& place = room.place;
    target = place.target;
    known = K::kAll << shift & K::kAll;
    found = {found.key | static_cast<Bits>(place.bucket) << shift, place.above, place.mass};
  }
  return found;
}

// What top-k, top-p and min-p keep, of how = {temperature, top-k, top-p, min-p}.
template <class T, int kPack>
__device__ auto filter(int columns, const double* how, const Part<T, kPack>& part, const Scale& scale,
                       Room<wide_t<T>>& room) {
  Kept<typename Keys<T>::Bits> kept;
  const double top_k = how[1], top_p = how[2];
  kept.min_p = how[3];
  int which = 0;
  if (top_k >= 1 && top_k < columns)
    kept.key = select<true>(part, scale, 0, static_cast<uint64_t>(top_k), 0, room, which).key;
  if (top_p < 1) {
    // Smaller than any share that says something.
    const auto last = select<false>(part, scale, kept.key, 0, fmax(top_p, 0x1p-64), room, which);
    const double weight = scale.weight(Keys<T>::value(last.key));
    kept.key = last.key;
    kept.tie = scale.mass(weight);
    // Those of equal scores before which there is less than the target.
    const uint64_t room_left = room.place.target - 1 - last.above;
    kept.ties =
        weight < kept.min_p ? 0 : static_cast<uint32_t>(min(room_left / kept.tie, last.mass / kept.tie - 1)) + 1;
  }
  return kept;
}

// What a score above the last ones that are kept, or one of these, adds.
template <class T, class F>
__device__ void weigh(wide_t<T> x, const Scale& scale, const Kept<typename Keys<T>::Bits>& kept, F&& add) {
  const auto key = Keys<T>::of(x);
  if (key < kept.key) return;
  const bool counted = key == kept.key && kept.ties != kAllTies;
  const double weight = counted ? 1 : scale.weight(x);
  if (weight >= kept.min_p) add(counted, counted ? kept.tie : scale.mass(weight));
}

#endif

}  // namespace llmeff::cuda
