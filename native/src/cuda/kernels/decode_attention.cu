// Attention of the next position of several sequences, each over memory of its own: the time is that of reading their
// keys and values. A cluster of blocks has one query head of one sequence and divides its keys, of which there may be
// any number up to the room of the memory: the device alone knows how many. In a block each group of lanes goes through
// keys of its own with a running softmax; groups, warps and at last the blocks of the cluster join their results.
//
// The new key and value come from the arguments, turned and rounded as they are written; only the first query head of
// a group writes them, so that nobody reads what another writes.
#include <algorithm>

#include "cuda/kernels/cluster.cuh"
#include "cuda/kernels/cuda_kernels.h"
#include "cuda/kernels/early.cuh"
#include "cuda/kernels/functions.cuh"
#include "cuda/kernels/rows.cuh"

namespace llmeff::cuda {
namespace {

constexpr int kWarps = 8, kBlockThreads = 32 * kWarps, kMostSequences = 64, kMostWidth = 256;

struct Decode {
  struct Memory {
    void *keys, *values;
    int64_t offset;
    int rows;
  };
  Memory memories[kMostSequences];
  const void *q, *k, *v, *cos, *sin;
  void* o;
  int64_t q_token, q_head, k_token, k_head, v_token, v_head, o_token, o_head;  // strides
  const int32_t* positions;
  int first;  // sequence of this launch
  int heads, kv_heads, width, half, window;
  bool interleaved;
  bool settled;  // no kernel that is under way writes positions, keys or values
  double scale, softcap;
  Guard guard;
  ValueCheck check;
};

// A softmax under way: the largest logit (in powers of two), the sum of the others relative to it, and the values.
template <class W, int N>
struct Running {
  W maximum, sum, acc[N];

  __device__ void join(W other_maximum, W other_sum, const W (&other)[N]) {
    const W most = max(maximum, other_maximum);
    const W own = most == maximum ? W{1} : exp2(maximum - most);
    const W factor = other_maximum == most ? (other_sum == 0 ? W{0} : W{1}) : exp2(other_maximum - most);
    maximum = most;
    sum = sum * own + other_sum * factor;
#pragma unroll
    for (int e = 0; e < N; ++e) acc[e] = acc[e] * own + other[e] * factor;
  }
};

// Channel c of a row, turned by the angles of the sequence and rounded.
template <class T>
__device__ T turned_channel(const Decode& a, const T* row, int sequence, int c) {
  using W = wide_t<T>;
  if (c >= 2 * a.half) return row[c];
  const int pair = a.interleaved ? c / 2 : c % a.half;
  const bool low = a.interleaved ? c % 2 == 0 : c < a.half;
  const int64_t at = static_cast<int64_t>(sequence) * a.half + pair;
  const W cos = static_cast<const W*>(a.cos)[at], sin = static_cast<const W*>(a.sin)[at];
  const W u = widen<W>(row[a.interleaved ? 2 * pair : pair]);
  const W w = widen<W>(row[a.interleaved ? 2 * pair + 1 : pair + a.half]);
  return narrow<T>(low ? u * cos - w * sin : w * cos + u * sin);
}

// The keys before row `row` that a block of the cluster has.
__device__ int2 share_of_block(const Decode& a, int row) {
  const int begin = a.window > 0 ? max(0, row - a.window + 1) : 0, count = row - begin;
  const int blocks = static_cast<int>(cluster_size()), share = (count + blocks - 1) / blocks;
  const int from = begin + min(count, static_cast<int>(cluster_rank()) * share);
  return {from, min(row, from + share)};
}

// Asks for the keys and values of the block where the position seems to be, before it is known to be that.
__device__ void prefetch_share(const Decode& a, const Decode::Memory& memory, int sequence, int kv_head,
                               int64_t bytes) {
  const int64_t seems = *static_cast<const volatile int32_t*>(a.positions + sequence) - memory.offset;
  const int2 share = share_of_block(a, static_cast<int>(max(int64_t{0}, min(seems, int64_t{memory.rows - 1}))));
  const int units = static_cast<int>((bytes + 31) / 32);
  for (int i = threadIdx.x; i < (share.y - share.x) * units; i += kBlockThreads) {
    const int64_t at = (int64_t{share.x + i / units} * a.kv_heads + kv_head) * bytes + i % units * 32;
    prefetch(static_cast<const char*>(memory.keys) + at);
    prefetch(static_cast<const char*>(memory.values) + at);
  }
}

// blockIdx: x the block of the cluster, y the query head, z the sequence. A group of kLanes lanes has a key; a lane has
// the packs lane, lane + kLanes, … of it, kPer at most.
template <class T, int kPack, int kLanes, int kPer>
__global__ void __launch_bounds__(kBlockThreads) decode_attention_kernel(const __grid_constant__ Decode a) {
  using W = wide_t<T>;
  constexpr int kWidth = kPack * kPer, kGroups = 32 / kLanes, kUnroll = kPer == 1 ? 4 : 1;
  constexpr int kStep = kWarps * kGroups * kUnroll;
  __shared__ __align__(16) T query[kMostWidth];
  __shared__ __align__(16) T new_key[kMostWidth];
  __shared__ __align__(16) T new_value[kMostWidth];
  __shared__ W maxima[kWarps], sums[kWarps], values[kWarps][kMostWidth];
  // Of the first block: what all found.
  __shared__ W all_values[kMostBlocks][kMostWidth], all_maxima[kMostBlocks], all_sums[kMostBlocks];
  __shared__ uint64_t arrived;

  let_next_begin();
  const unsigned rank = cluster_rank(), blocks = cluster_size();
  if (rank == 0 && threadIdx.x == 0) expect_sent(&arrived, blocks * static_cast<uint32_t>((a.width + 2) * sizeof(W)));
  cluster_arrive();
  const int h = blockIdx.y, t = a.first + blockIdx.z, kv = h / (a.heads / a.kv_heads);
  const Decode::Memory& memory = a.memories[blockIdx.z];
  const int64_t row_stride = int64_t{a.kv_heads} * a.width;
  T* const keys = static_cast<T*>(memory.keys) + static_cast<int64_t>(kv) * a.width;
  T* const kept_values = static_cast<T*>(memory.values) + static_cast<int64_t>(kv) * a.width;
  const int warp = threadIdx.x / 32, group = threadIdx.x % 32 / kLanes, lane = threadIdx.x % kLanes;
  const int packs = a.width / kPack;
  // Logits are powers of two; capped ones become that after their tanh.
  const bool capped = a.softcap > 0;
  const W log2e = static_cast<W>(1.4426950408889634), cap = static_cast<W>(a.softcap) * log2e;
  const W to_bits = static_cast<W>(a.scale) * (capped ? W{1} / static_cast<W>(a.softcap) : log2e);
  W own[kWidth];  // the query

  // Of the key whose packs the lanes of the group have, for all of them.
  const auto logit = [&](const Group<T, kPack>(&key)[kPer]) {
    W sum = 0;
#pragma unroll
    for (int i = 0; i < kPer; ++i)
      if (lane + i * kLanes < packs)
#pragma unroll
        for (int e = 0; e < kPack; ++e) sum += own[i * kPack + e] * widen<W>(key[i].at[e]);
#pragma unroll
    for (int distance = kLanes / 2; distance > 0; distance /= 2) sum += __shfl_xor_sync(0xFFFFFFFFu, sum, distance);
    return capped ? cap * tanh(sum) : sum;
  };
  const auto load = [&](const T* from, Group<T, kPack>(&packs_of)[kPer]) {
#pragma unroll
    for (int i = 0; i < kPer; ++i)
      if (lane + i * kLanes < packs) packs_of[i] = load_group<kPack>(from + (lane + i * kLanes) * kPack);
  };

  int32_t position;
  int64_t place;
  int2 share = {0, 0};
  const auto locate = [&] {
    position = a.positions[t];
    place = position - memory.offset;
    if (place >= 0 && place < memory.rows) share = share_of_block(a, static_cast<int>(place));
  };
  Group<T, kPack> key[kUnroll][kPer], value[kUnroll][kPer];
  const auto load_keys = [&](int j0) {
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const int j = j0 + (u * kWarps + warp) * kGroups + group;
      const int64_t at = min(j, share.y - 1) * row_stride;
      load(keys + at, key[u]);
      load(kept_values + at, value[u]);
    }
  };
  if (a.settled) {
    locate();
    if (share.x < share.y) load_keys(share.x);
  } else {
    prefetch_share(a, memory, t, kv, int64_t{a.width} * static_cast<int64_t>(sizeof(T)));
  }
  cluster_wait();
  await_earlier();
  // A channel of the query, of the new key or of the new value, one after the other.
  const auto new_channel = [&](int i) {
    const int which = i / a.width, c = i - which * a.width;
    if (which == 0) return turned_channel(a, static_cast<const T*>(a.q) + t * a.q_token + h * a.q_head, t, c);
    if (which == 1) return turned_channel(a, static_cast<const T*>(a.k) + t * a.k_token + kv * a.k_head, t, c);
    return static_cast<const T*>(a.v)[t * a.v_token + kv * a.v_head + c];
  };
  const int channels = rank == 0 ? 3 * a.width : a.width;
  T first_channel;
  if (static_cast<int>(threadIdx.x) < channels) first_channel = new_channel(threadIdx.x);
  if (!a.settled) locate();
  if (a.guard.closed()) return;
  if (place < 0 || place >= memory.rows) {
    if (threadIdx.x == 0) a.check.bad(t, position);
    return;
  }
  if (!a.settled && share.x < share.y) load_keys(share.x);
  const bool keeps = rank == 0 && h % (a.heads / a.kv_heads) == 0;
  for (int i = threadIdx.x; i < channels; i += kBlockThreads) {
    const T x = i < kBlockThreads ? first_channel : new_channel(i);
    const int which = i / a.width, c = i - which * a.width;
    (which == 0 ? query : which == 1 ? new_key : new_value)[c] = x;
    if (keeps && which > 0) (which == 1 ? keys : kept_values)[place * row_stride + c] = x;
  }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kPer; ++i)
#pragma unroll
    for (int e = 0; e < kPack; ++e) {
      const int c = (lane + i * kLanes) * kPack + e;
      own[i * kPack + e] = c < a.width ? widen<W>(query[c]) * to_bits : W{0};
    }

  Running<W, kWidth> state;
  state.maximum = -INFINITY, state.sum = 0;
#pragma unroll
  for (int e = 0; e < kWidth; ++e) state.acc[e] = 0;
  const auto add = [&](W s, const Group<T, kPack>(&value)[kPer]) {
    const W most = max(state.maximum, s);
    const W factor = most == state.maximum ? W{1} : exp2(state.maximum - most),
            weight = s == -INFINITY ? W{0} : exp2(s - most);
    state.maximum = most;
    state.sum = state.sum * factor + weight;
#pragma unroll
    for (int i = 0; i < kPer; ++i)
#pragma unroll
      for (int e = 0; e < kPack; ++e) {
        const W x = lane + i * kLanes < packs ? widen<W>(value[i].at[e]) : W{0};
        state.acc[i * kPack + e] = state.acc[i * kPack + e] * factor + weight * x;
      }
  };

  for (int j0 = share.x; j0 < share.y; j0 += kStep) {
    if (j0 != share.x) load_keys(j0);
    W s[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) {
      const int j = j0 + (u * kWarps + warp) * kGroups + group;
      const W found = logit(key[u]);
      s[u] = j < share.y ? found : -INFINITY;
    }
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) add(s[u], value[u]);
  }
  if (rank == 0 && warp == 0) {
    load(new_key, key[0]);
    load(new_value, value[0]);
    const W found = logit(key[0]);
    add(group == 0 ? found : -INFINITY, value[0]);
  }

  // Lanes of other groups, then other warps, then other blocks.
#pragma unroll
  for (int distance = kLanes; distance < 32; distance *= 2) {
    const W maximum = __shfl_xor_sync(0xFFFFFFFFu, state.maximum, distance);
    const W sum = __shfl_xor_sync(0xFFFFFFFFu, state.sum, distance);
    W acc[kWidth];
#pragma unroll
    for (int e = 0; e < kWidth; ++e) acc[e] = __shfl_xor_sync(0xFFFFFFFFu, state.acc[e], distance);
    state.join(maximum, sum, acc);
  }
  if (group == 0) {
    if (lane == 0) maxima[warp] = state.maximum, sums[warp] = state.sum;
#pragma unroll
    for (int i = 0; i < kPer; ++i)
#pragma unroll
      for (int e = 0; e < kPack; ++e) {
        const int c = (lane + i * kLanes) * kPack + e;
        if (c < a.width) values[warp][c] = state.acc[i * kPack + e];
      }
  }
  __syncthreads();
  const auto share_of = [](W maximum, W most) { return maximum == -INFINITY ? W{0} : exp2(maximum - most); };
  W most = -INFINITY;
#pragma unroll
  for (int i = 0; i < kWarps; ++i) most = max(most, maxima[i]);
  W total = 0;
#pragma unroll
  for (int i = 0; i < kWarps; ++i) total += sums[i] * share_of(maxima[i], most);
  for (int c = threadIdx.x; c < a.width; c += kBlockThreads) {
    W x = 0;
#pragma unroll
    for (int i = 0; i < kWarps; ++i) x += values[i][c] * share_of(maxima[i], most);
    send(&all_values[rank][c], x, &arrived, 0);
  }
  if (threadIdx.x == 0) {
    send(&all_maxima[rank], most, &arrived, 0);
    send(&all_sums[rank], total, &arrived, 0);
  }
  if (rank != 0) return;
  await_sent(&arrived);
  W highest = -INFINITY, whole = 0, factors[kMostBlocks];
#pragma unroll
  for (unsigned i = 0; i < kMostBlocks; ++i)
    if (i < blocks) highest = max(highest, all_maxima[i]);
#pragma unroll
  for (unsigned i = 0; i < kMostBlocks; ++i) {
    factors[i] = i < blocks ? share_of(all_maxima[i], highest) : W{0};
    if (i < blocks) whole += all_sums[i] * factors[i];
  }
  T* const o = static_cast<T*>(a.o) + t * a.o_token + h * a.o_head;
  for (int c = threadIdx.x; c < a.width; c += kBlockThreads) {
    W x = 0;
#pragma unroll
    for (unsigned i = 0; i < kMostBlocks; ++i)
      if (i < blocks) x += all_values[i][c] * factors[i];
    o[c] = narrow<T>(x / whole);
  }
}

template <class T, int kPack, int kLanes, int kPer>
void launch(Context& cuda, const Decode& a, int sequences) {
  const dim3 grid(1, static_cast<unsigned>(a.heads), static_cast<unsigned>(sequences));
  // As many as are at work side by side: further ones would wait for their turn.
  unsigned blocks = kMostBlocks;
  while (blocks > 1 && blocks * grid.y * grid.z > 2u * static_cast<unsigned>(cuda.facts.multiprocessors)) blocks /= 2;
  launch_clusters(cuda, blocks, decode_attention_kernel<T, kPack, kLanes, kPer>, grid, kBlockThreads, a);
}

template <class T>
void launch_of(Context& cuda, const Decode& a, int sequences, bool aligned) {
  constexpr int kPack = Pack<T>::kSize;
  const int packs = a.width / kPack;
  if constexpr (sizeof(T) < 8)
    if (aligned && packs <= 32) {
      if (packs <= 4) return launch<T, kPack, 4, 1>(cuda, a, sequences);
      if (packs <= 8) return launch<T, kPack, 8, 1>(cuda, a, sequences);
      if (packs <= 16) return launch<T, kPack, 16, 1>(cuda, a, sequences);
      return launch<T, kPack, 32, 1>(cuda, a, sequences);
    }
  launch<T, 1, 32, kMostWidth / 32>(cuda, a, sequences);
}

}  // namespace

void CudaKernels::decode_attention(const In& q, const In& k, const In& v, const List<InOut>& keys,
                                   const List<InOut>& values, const List<int64_t>& offsets, const In& positions,
                                   const In& cos, const In& sin, bool interleaved, double scale, int64_t window,
                                   double softcap, const Out& o) {
  Decode a = {};
  a.q = q.data, a.k = k.data, a.v = v.data, a.cos = cos.data, a.sin = sin.data, a.o = o.data;
  a.q_token = q.strides[1], a.q_head = q.strides[2], a.k_token = k.strides[1], a.k_head = k.strides[2];
  a.v_token = v.strides[1], a.v_head = v.strides[2], a.o_token = o.strides[1], a.o_head = o.strides[2];
  a.positions = positions.as<const int32_t>();
  a.heads = static_cast<int>(q.shape[2]), a.kv_heads = static_cast<int>(k.shape[2]);
  a.width = static_cast<int>(q.shape[3]), a.half = cos.present() ? static_cast<int>(cos.shape[1]) : 0;
  a.window = static_cast<int>(std::min<int64_t>(window, INT32_MAX)), a.interleaved = interleaved;
  a.scale = scale, a.softcap = softcap;
  a.settled = cuda_.is_settled(positions.data);
  for (const List<InOut>* list : {&keys, &values})
    for (int64_t i = 0; i < list->size; ++i) a.settled &= cuda_.is_settled((*list)[i].data);
  a.guard = cuda_.guard();  // of earlier checks: this one changes while the kernel runs
  a.check = cuda_.check_values([](int64_t sequence, int32_t position) {
    return formatted("[decodeAttention] position %d of sequence %lld is outside its memory", position,
                     static_cast<long long>(sequence));
  });
  for (int64_t first = 0; first < q.shape[1]; first += kMostSequences) {
    const int count = static_cast<int>(std::min<int64_t>(kMostSequences, q.shape[1] - first));
    bool aligned = rows_aligned({&v});
    for (int i = 0; i < count; ++i) {
      const InOut &own_keys = keys[first + i], &own_values = values[first + i];
      a.memories[i] = {own_keys.data, own_values.data, offsets[first + i], static_cast<int>(own_keys.shape[1])};
      aligned = aligned && rows_aligned({&own_keys, &own_values});
    }
    a.first = static_cast<int>(first);
    with_floating(q.dtype, [&]<class T>(TypeTag<T>) { launch_of<T>(cuda_, a, count, aligned); });
  }
}

}  // namespace llmeff::cuda
