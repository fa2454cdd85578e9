// Where the forward pass of attention leaves its rows: in the outputs, or where the keys are cut into parts, in memory
// from which the parts are merged in their order.
#pragma once

#include "attention_tile.h"
#include "llmeff/parallel.h"

namespace llmeff::cpu::LLMEFF_ISA {

template <class T>
class AttentionResults {
 public:
  const KeyRange* ranges;  // [B, T]

  // Computes the ranges as well; takes the kernel's shared memory.
  AttentionResults(const Attention& shape, const Out& out, const Out& out_lse, int64_t part_count)
      : x(shape), o(out), lse(out_lse), parts(part_count) {
    const int64_t bytes = lay_out(nullptr);
    lay_out(shared_scratch<char>(bytes));
    fill_ranges(x, runs_, own_ranges_);
    ranges = own_ranges_;
  }

  // Row (b, t, head) of one part: m, Σ 2^(s − m) and Σ 2^(s − m)·v.
  LLMEFF_INLINE void keep(int64_t part, int64_t b, int64_t t, int64_t head, T maximum, T sum, const T* row) const {
    const int64_t at = (b * x.queries + t) * x.heads + head;
    if (parts == 1) return write(b, t, head, maximum, sum, row);
    maxima_[part * rows() + at] = maximum, sums_[part * rows() + at] = sum;
    write_row(row, x.value_width, T{1}, rows_ + (part * rows() + at) * x.value_width);
  }

  void merge() const {
    if (parts == 1) return;
    parallel_for(rows(), [&](int64_t at, int worker) {
      T* const row = worker_scratch<T>(worker, x.value_width);
      T maximum = -__builtin_inf(), sum = 0;
      for (int64_t p = 0; p < parts; ++p) maximum = vmax(maxima_[p * rows() + at], maximum);
      const T shift = maximum == -__builtin_inf() ? T{0} : maximum;
      for (int64_t c = 0; c < x.value_width; ++c) row[c] = 0;
      for (int64_t p = 0; p < parts; ++p) {
        const T weight = static_cast<T>(__builtin_exp2(static_cast<double>(maxima_[p * rows() + at] - shift)));
        const T* const from = rows_ + (p * rows() + at) * x.value_width;
        sum += weight * sums_[p * rows() + at];
        for (int64_t c = 0; c < x.value_width; ++c) row[c] += weight * from[c];
      }
      write(at / (x.queries * x.heads), at / x.heads % x.queries, at % x.heads, maximum, sum, row);
    });
  }

 private:
  const Attention& x;
  const Out &o, &lse;
  const int64_t parts;
  KeyRange* own_ranges_ = nullptr;
  DocumentRun* runs_ = nullptr;
  T *maxima_ = nullptr, *sums_ = nullptr, *rows_ = nullptr;  // [parts][B, T, H] and [parts][B, T, H, Dv]

  int64_t rows() const { return x.batch * x.queries * x.heads; }
  int64_t lay_out(void* base) {
    Arena arena(base);
    const int64_t kept = parts > 1 ? parts * rows() : 0;
    own_ranges_ = arena.take<KeyRange>(x.batch * x.queries);
    runs_ = arena.take<DocumentRun>(x.documents() ? x.keys : 0);
    maxima_ = arena.take<T>(kept), sums_ = arena.take<T>(kept), rows_ = arena.take<T>(kept * x.value_width);
    return arena.bytes();
  }
  LLMEFF_INLINE void write(int64_t b, int64_t t, int64_t head, T maximum, T sum, const T* row) const {
    write_row(row, x.value_width, sum == 0 ? T{0} : T{1} / sum,
              o.template as<T>() + b * o.strides[0] + t * o.strides[1] + head * o.strides[2]);
    const double value = static_cast<double>(maximum) * kLn2 + __builtin_log(static_cast<double>(sum));
    lse.template as<T>()[(b * x.heads + head) * x.queries + t] =
        ranges[b * x.queries + t].last < 0 ? static_cast<T>(-__builtin_inf()) : static_cast<T>(value);
  }
};

// Attention of few rows, as in decoding; attention_few.cc.
inline constexpr int64_t kFewRows = 8;
template <class T>
void attention_of_few(const Attention& x, const In& q, const In& k, const In& v, const Out& o, const Out& lse);
extern template void attention_of_few<float>(const Attention&, const In&, const In&, const In&, const Out&, const Out&);
extern template void attention_of_few<double>(const Attention&, const In&, const In&, const In&, const Out&,
                                              const Out&);

}  // namespace llmeff::cpu::LLMEFF_ISA
