// What the forward and the backward pass of attention share: how rows get into tiles, and their softmax.
//
// The G = H / K query heads of one key/value head are rows of one matrix: row r is position r / G of head r % G. Rows
// lie on SIMD lanes, kStrip of them at a time, and a tile of scores is [keys][rows]: maxima, sums and masks then need
// no work across lanes, and keys and values are read once for all heads of a group. A whole T × S matrix never exists.
#pragma once

#include "attention_mask.h"

namespace llmeff::cpu::LLMEFF_ISA {

inline constexpr int64_t kKeys = 120 / kPanel * kPanel;  // of a tile of scores: whole panels
inline constexpr int64_t kMinTasks = 16;                 // worth splitting heads for
inline constexpr double kLog2E = 1.4426950408889634, kLn2 = 0.6931471805599453;

// Rows of tiles are padded to whole vectors.
template <class T>
LLMEFF_INLINE int64_t padded(int64_t width) {
  return round_up(width, kLanes<T>);
}

// Pieces of one block of memory, or without a block their sizes only.
class Arena {
 public:
  explicit Arena(void* base) : base_(static_cast<char*>(base)) {}
  template <class P>
  P* take(int64_t count) {
    char* const at = base_ + used_;
    used_ += round_up(count * static_cast<int64_t>(sizeof(P)), 64);
    return reinterpret_cast<P*>(at);
  }
  int64_t bytes() const { return used_; }

 private:
  char* base_;
  int64_t used_ = 0;
};

// to = from · factor, padded with zeros.
template <class T>
void copy_row(const T* from, int64_t step, int64_t width, T factor, T* to) {
  constexpr int64_t L = kLanes<T>;
  int64_t i = 0;
  if (step == 1)
    for (; i + L <= width; i += L) store<T>(to + i, load(from + i) * factor);
  for (; i < width; ++i) to[i] = from[i * step] * factor;
  for (; i < padded<T>(width); ++i) to[i] = 0;
}

// The other way: to = from · factor, unpadded.
template <class T>
LLMEFF_INLINE void write_row(const T* from, int64_t width, T factor, T* to) {
  constexpr int64_t L = kLanes<T>;
  int64_t i = 0;
  for (; i + L <= width; i += L) store<T>(to + i, load(from + i) * factor);
  for (; i < width; ++i) to[i] = from[i] * factor;
}

// to += from · factor, of whole vectors.
template <class T>
LLMEFF_INLINE void add_multiple(T factor, const T* from, int64_t count, T* to) {
  for (int64_t i = 0; i < count; i += kLanes<T>) store<T>(to + i, load(to + i) + load(from + i) * factor);
}

// Rows [first, first + count) of one (batch, key/value head) of a view [B, T, H, width] times factor, to[count][padded
// width].
template <class T>
void gather_rows(const Attention& x, const In& view, int64_t b, int64_t kv_head, int64_t first, int64_t count, T factor,
                 T* to) {
  const int64_t width = view.shape[3], padded_width = padded<T>(width);
  const T* base = view.template as<const T>() + b * view.strides[0] + kv_head * x.groups * view.strides[2];
  for (int64_t r = first; r < first + count; ++r, to += padded_width)
    copy_row(base + r / x.groups * view.strides[1] + r % x.groups * view.strides[2], view.strides[3], width, factor,
             to);
}

// Keys (or values) [first, first + count) of one (batch, key/value head), to[count][padded width].
template <class T>
void gather_keys(const In& view, int64_t b, int64_t kv_head, int64_t first, int64_t count, T* to) {
  const int64_t width = view.shape[3], padded_width = padded<T>(width);
  const T* from = view.as<const T>() + b * view.strides[0] + first * view.strides[1] + kv_head * view.strides[2];
  for (int64_t j = 0; j < count; ++j, to += padded_width)
    copy_row(from + j * view.strides[1], view.strides[3], width, T{1}, to);
}

// The same as panels for a product with strips of rows: room for count · width elements and kLanes more.
template <class T>
void pack_keys(const In& view, int64_t b, int64_t kv_head, int64_t first, int64_t count, T* panels) {
  const T* from = view.as<const T>() + b * view.strides[0] + first * view.strides[1] + kv_head * view.strides[2];
  pack_a(from, view.strides[1], view.strides[3], count, view.shape[3], panels, kPanel);
}

// Rows [first, first + count) as strips [width][kStrip], one after the other, lanes without a row zero. `rows` is room
// for kStrip padded rows.
template <class T>
void pack_rows(const Attention& x, const In& view, int64_t b, int64_t kv_head, int64_t first, int64_t count, T factor,
               T* rows, T* strips) {
  constexpr int64_t N = kStrip<T>;
  const int64_t width = view.shape[3], padded_width = padded<T>(width);
  for (int64_t r0 = 0; r0 < count; r0 += N, strips += N * width) {
    const int64_t present = smaller(N, count - r0);
    gather_rows(x, view, b, kv_head, first + r0, present, factor, rows);
    for (int64_t i = present * padded_width; i < N * padded_width; ++i) rows[i] = 0;
    pack_transposed(rows, padded_width, strips, N, N, width);
  }
}

// Rows back from a strip: to[kStrip][padded width].
template <class T>
void unpack_strip(const T* strip, int64_t width, T* to) {
  constexpr int64_t N = kStrip<T>;
  pack_transposed(strip, N, to, padded<T>(width), width, N);
}

// scores[keys][kStrip] of a span of packed keys and one strip of rows; `lanes` of them are computed.
template <class T>
void multiply_keys(Span keys, int64_t tile_keys, int64_t width, const T* panels, const T* strip, T* scores,
                   int64_t step, int64_t lanes) {
  constexpr int64_t N = kStrip<T>;
  for (int64_t j = keys.from; j < keys.to; j += kPanel)
    micro<T, 1>(smaller(kPanel, keys.to - j), width, panels + j * width, smaller(kPanel, tile_keys - j), strip, N,
                {scores + j * step, step}, lanes);
}

// Whether no element is NaN or infinite, of whole vectors. A product with a weight of 0 hides finite numbers only, so
// where this is false a masked tile is multiplied element by element.
template <class T>
bool all_finite(const T* from, int64_t count) {
  Vec<T> sum = {};
  for (int64_t i = 0; i < count; i += kLanes<T>) sum += load(from + i) * T{0};
  return reduce_sum<T>(sum) == 0;
}

template <class T>
LLMEFF_INLINE bool any_lane(Mask<T> mask) {
  LaneInteger<T> lanes[kLanes<T>], any = 0;
  std::memcpy(lanes, &mask, sizeof lanes);
  for (const LaneInteger<T> lane : lanes) any |= lane;
  return any != 0;
}

// 2^x for x ≤ 126 to about 1 ulp, x = k + r, |r| ≤ 1/2: 1 + r·(polynomial of degree 4), its relative error minimised,
// is exact at 0. Results below the smallest normal number are 0; NaN stays.
LLMEFF_INLINE Vec<float> vexp2(Vec<float> x) {
  const Vec<float> magic = splat(12582912.0f + 127.0f);  // adding it rounds to an integer, whose low bits are k + 127
  x = vmax(splat(-127.0f), x);
  const Vec<float> shifted = x + magic;
  const Vec<float> r = x - (shifted - magic);
  Vec<float> p = r * 1.3274633365e-3f + 9.6719616796e-3f;
  p = p * r + 5.5506783687e-2f;
  p = p * r + 2.4022235322e-1f;
  p = p * r + 6.9314706156e-1f;
  p = p * r + 1.0f;
  Mask<float> bits;
  std::memcpy(&bits, &shifted, sizeof bits);
  bits <<= 23;
  Vec<float> scale;
  std::memcpy(&scale, &bits, sizeof scale);
  return p * scale;
}
LLMEFF_INLINE Vec<double> vexp2(Vec<double> x) {
  Vec<double> y = x;
  for (int64_t i = 0; i < kLanes<double>; ++i) y[i] = __builtin_exp2(x[i]);
  return y;
}

// The logits of softmax to base 2. Scores come scaled so that this is the identity without a softcap; with one they are
// in its units, and tanh by 2^x has the absolute error of one rounding, which is what a capped score needs.
template <class T>
struct Logits {
  T score_factor, cap;

  explicit Logits(const Attention& x)
      : score_factor(static_cast<T>(x.softcap > 0 ? x.scale / x.softcap : x.scale * kLog2E)),
        cap(static_cast<T>(x.softcap * kLog2E)) {}
  static LLMEFF_INLINE Vec<T> tanh(Vec<T> score) {
    const Vec<T> limit = splat(T{126}), doubled = score * static_cast<T>(2 * kLog2E);
    return T{1} - T{2} / (vexp2(doubled > limit ? limit : doubled) + T{1});
  }
};

}  // namespace llmeff::cpu::LLMEFF_ISA
