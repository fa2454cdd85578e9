// A token of each row, drawn of those that temperature, top-k, top-p and min-p keep. Weights are float64 whatever the
// scores are; sums run in the order of the columns, so that a number u draws the same token however many threads there
// are. Machines may differ where u is next to a boundary: in the last bits of std::exp, and in products that are fused.
#include <cmath>
#include <cstring>

#include "cpu_kernels.h"
#include "strided.h"

namespace llmeff::cpu::LLMEFF_ISA {
namespace {

constexpr int kDigit = 11, kBuckets = 1 << kDigit;

// Bits in the order of the numbers: the sign turned over, and of negative numbers all other bits.
uint64_t key_of(double x) {
  uint64_t bits;
  std::memcpy(&bits, &x, sizeof(bits));
  return bits ^ (bits >> 63 != 0 ? ~uint64_t{0} : uint64_t{1} << 63);
}

struct Threshold {
  double value, above;
};

// The value at which masses, added from the largest value down, reach the target; the least that has any if they never
// do. The mass of a value is itself, or 1 where they are counted. Each pass of this radix selection goes on with the
// values that the target falls among, from the first bit in which these differ on. `left` is the caller's memory for n.
Threshold mass_threshold(const double* values, int64_t n, double target, bool counted, double* left) {
  std::memcpy(left, values, static_cast<size_t>(n) * sizeof(double));
  double masses[kBuckets], above = 0;
  for (;;) {
    uint64_t differing = 0;
    for (int64_t i = 0; i < n; ++i) differing |= key_of(left[i]) ^ key_of(left[0]);
    if (differing == 0) return {left[0], above};
    const int shift = static_cast<int>(larger(0, 64 - kDigit - __builtin_clzll(differing)));
    const auto bucket_of = [shift](double x) { return static_cast<int>(key_of(x) >> shift) & (kBuckets - 1); };
    std::memset(masses, 0, sizeof(masses));
    for (int64_t i = 0; i < n; ++i) masses[bucket_of(left[i])] += counted ? 1 : left[i];
    int bucket = kBuckets - 1, lowest = bucket;
    double above_lowest = above;
    for (; bucket >= 0 && above + masses[bucket] < target; --bucket) {
      if (masses[bucket] > 0) lowest = bucket, above_lowest = above;
      above += masses[bucket];
    }
    // By rounding, or because there isn't as much.
    if (bucket < 0) bucket = lowest, above = above_lowest;
    int64_t kept = 0;
    for (int64_t i = 0; i < n; ++i) {
      const double x = left[i];
      left[kept] = x;
      kept += bucket_of(x) == bucket;
    }
    n = kept;
  }
}

// Clears weights below `least`. Returns the sum of the others.
double keep_heavy(double* weights, int64_t n, double least) {
  double kept = 0;
  for (int64_t i = 0; i < n; ++i) {
    weights[i] = weights[i] >= least ? weights[i] : 0;
    kept += weights[i];
  }
  return kept;
}

// Clears all but the largest weights while those before weigh less than the target, of equal ones the first.
double keep_nucleus(double* weights, int64_t n, double target, double* room) {
  const Threshold last = mass_threshold(weights, n, target, false, room);
  double kept = keep_heavy(weights, n, last.value);
  int64_t equal = 0;
  for (int64_t i = 0; i < n; ++i) equal += weights[i] == last.value;
  // Equal ones are counted, not added up: each would add a rounding error.
  for (int64_t i = n - 1; equal > 1 && last.above + static_cast<double>(equal - 1) * last.value >= target; --i) {
    if (weights[i] != last.value) continue;
    weights[i] = 0;
    kept -= last.value;
    --equal;
  }
  return kept;
}

// `weights` and `room` are memory for n.
template <class T>
int64_t draw(const T* x, int64_t n, double largest, const double* how, double u, double* weights, double* room) {
  const double temperature = how[0], top_k = how[1], top_p = how[2], min_p = how[3];
  for (int64_t i = 0; i < n; ++i) weights[i] = static_cast<double>(x[i]);
  double least = -__builtin_inf();
  if (top_k >= 1 && top_k < static_cast<double>(n)) least = mass_threshold(weights, n, top_k, true, room).value;
  double total = 0;
  for (int64_t i = 0; i < n; ++i) {
    // The largest becomes 0 first: divided by a tiny temperature, two large scores would both be infinite.
    weights[i] = weights[i] < least ? 0 : std::exp((weights[i] - largest) / temperature);
    total += weights[i];
  }
  if (top_p < 1) total = keep_nucleus(weights, n, top_p * total, room);
  // The likeliest token weighs 1, and is kept by all filters.
  if (min_p > 0) total = keep_heavy(weights, n, min_p);
  double sum = 0;
  int64_t last = 0;
  for (int64_t i = 0; i < n; ++i) {
    if (weights[i] > 0) last = i;
    sum += weights[i] / total;
    if (sum > u) return i;
  }
  return last;  // by rounding
}

template <class T>
void draw_rows(const In& x, const In& how, const In& u, const Out& ids, const Out& found) {
  const int64_t N = x.shape[0], V = x.shape[1];
  T* const results = found.as<T>();
  parallel_items(N, V, [&](int64_t row, int worker) {
    const T* const scores = x.as<T>() + row * x.strides[0];
    const double* const options = how.as<double>() + 4 * row;
    double* const room = worker_scratch<double>(worker, 2 * V);
    const T largest = results[N + row];
    results[3 * N + row] = largest;
    if (!(options[0] > 0) || !std::isfinite(largest)) return;
    const double number = u.as<double>()[row];
    const int64_t id = draw(scores, V, static_cast<double>(largest), options, number, room, room + V);
    ids.as<int32_t>()[row] = static_cast<int32_t>(id);
    results[row] = static_cast<T>(id);
    results[N + row] = scores[id];
  });
}

}  // namespace

void CpuKernels::sample_tokens(const In& x, const In& how, const In& u, const Out& ids, const Out& found) {
  Out first = found;
  first.shape[0] = 3;
  likeliest(x, ids, first);
  if (x.dtype == DType::kF64)
    draw_rows<double>(x, how, u, ids, found);
  else
    draw_rows<float>(x, how, u, ids, found);
}

}  // namespace llmeff::cpu::LLMEFF_ISA
