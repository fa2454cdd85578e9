// One row of the cross-entropy loss, shared by cross_entropy and linear_cross_entropy. With z = x, or
// softcap·tanh(x/softcap),
//   ce = lse − (1−s)·z[target] − s·mean_v z[v]          (the two terms of kernels.h, added up)
//   dx[v] = scale · (p[v]·(1 + 2·z_loss·lse) − (1−s)·[v = target] − s/V) · (1 − (z[v]/softcap)²)
#pragma once

#include "llmeff/error.h"
#include "row_math.h"

namespace llmeff::cpu::LLMEFF_ISA {

struct LossOptions {
  int64_t ignore_index;
  double label_smoothing, z_loss, softcap;
};

template <class T, bool kOn>
struct Softcap {
  T cap, inverse;
  explicit LLMEFF_INLINE Softcap(double softcap)
      : cap(static_cast<T>(softcap)), inverse(static_cast<T>(kOn ? 1 / softcap : 0)) {}
  LLMEFF_INLINE Vec<T> operator()(Vec<T> x) const { return kOn ? cap * vtanh(x * inverse) : x; }
  LLMEFF_INLINE T operator()(T x) const { return kOn ? (*this)(splat(x))[0] : x; }
  // The derivative, given the capped z.
  LLMEFF_INLINE Vec<T> slope(Vec<T> z) const {
    const Vec<T> tanh = z * inverse;
    return T(1) - tanh * tanh;
  }
};

// Loops without a softcap don't carry the constants of tanh along.
template <class T, class F>
LLMEFF_INLINE auto with_softcap(double softcap, const F& body) {
  return softcap > 0 ? body(Softcap<T, true>(softcap)) : body(Softcap<T, false>(softcap));
}

struct RowLoss {
  double ce, lse;
};

// `next` is the row after this one, or any other: it comes from memory while exponentials are computed.
template <class T>
RowLoss row_loss(const T* logits, const T* next, int64_t n, int64_t target, const LossOptions& options) {
  const double smoothing = options.label_smoothing;
  return with_softcap<T>(options.softcap, [&](const auto& capped) {
    const T max = capped(row_max_number(logits, n));  // tanh is monotone; a NaN shows in the sum
    const Vec<T> shift = splat(max);
    double sum = 0, total = 0;  // of e^(z − max), and of z when smoothing asks for it
    for (int64_t start = 0; start < n; start += kSumChunk) {
      Vec<T> chunk_total = {};
      sum += row_sum<T>(smaller(kSumChunk, n - start), [&](int64_t i, int64_t part) {
        __builtin_prefetch(next + start + i);
        const Vec<T> z = capped(gather(logits + start + i, 1, part));  // 0 in lanes past the end
        chunk_total += z;
        return vexp_to_one(z - shift);
      });
      if (smoothing > 0) total += static_cast<double>(reduce_sum<T>(chunk_total));
    }
    const double lse = static_cast<double>(max) + std::log(sum);
    double ce = lse - (1 - smoothing) * static_cast<double>(capped(logits[target]));
    if (smoothing > 0) ce -= smoothing * (total / static_cast<double>(n));
    return RowLoss{ce, lse};
  });
}

// dlogits may be logits.
template <class T>
void row_loss_grad(const T* logits, int64_t n, int64_t target, T lse, double scale, const LossOptions& options,
                   T* dlogits) {
  const double smoothing = options.label_smoothing;
  const Vec<T> shift = splat(lse), floor = splat(static_cast<T>(scale * smoothing / static_cast<double>(n)));
  const Vec<T> weight = splat(static_cast<T>(scale * (1 + 2 * options.z_loss * static_cast<double>(lse))));
  const T at_target = static_cast<T>(scale * (1 - smoothing));
  with_softcap<T>(options.softcap, [&]<bool kOn>(const Softcap<T, kOn>& capped) {
    const Vec<T> z_at_target = splat(capped(logits[target]));
    map_vectors(
        n,
        [&](Vec<T> x) {
          const Vec<T> z = capped(x), d = vexp_to_one(z - shift) * weight - floor;
          return kOn ? d * capped.slope(z) : d;
        },
        dlogits, logits);
    dlogits[target] -= kOn ? at_target * capped.slope(z_at_target)[0] : at_target;
  });
}

// The number of targets that count; refuses those outside the vocabulary.
LLMEFF_INLINE int64_t count_valid(const int32_t* targets, int64_t rows, int64_t vocabulary, int64_t ignore_index) {
  int64_t valid = 0;
  for (int64_t row = 0; row < rows; ++row) {
    if (targets[row] == ignore_index) continue;
    if (targets[row] < 0 || targets[row] >= vocabulary)
      fail("ERR_INDEX", "[crossEntropy] target %d at row %lld is outside [0, %lld)", targets[row],
           static_cast<long long>(row), static_cast<long long>(vocabulary));
    ++valid;
  }
  return valid;
}

// Adds the rows up in order: loss and its parts.
template <class T>
void finish_loss(const int32_t* targets, int64_t rows, int64_t valid, const LossOptions& options, const T* ce,
                 const T* lse, T* loss, T* stats) {
  double ce_sum = 0, z_sum = 0;
  for (int64_t row = 0; row < rows; ++row) {
    if (targets[row] == options.ignore_index) continue;
    ce_sum += static_cast<double>(ce[row]);
    z_sum += static_cast<double>(lse[row]) * static_cast<double>(lse[row]);
  }
  const double count = static_cast<double>(larger(1, valid));
  // Not z_loss · ∞: without the term an infinite lse must not make the loss NaN.
  const double z_mean = options.z_loss != 0 ? options.z_loss * z_sum / count : 0.0;
  *loss = static_cast<T>(ce_sum / count + z_mean);
  stats[0] = static_cast<T>(ce_sum / count);
  stats[1] = static_cast<T>(z_mean);
  stats[2] = static_cast<T>(valid);
}

}  // namespace llmeff::cpu::LLMEFF_ISA
