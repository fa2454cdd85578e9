// Which keys a query may see: causality, a prefix that is free of it, a window, and documents. Whatever the masks, the
// keys of one query lie between a first and a last one, and only a document whose keys are interrupted by others has
// gaps between them; tiles outside all ranges are skipped, tiles inside all of them need no mask.
#pragma once

#include "cpu_kernels.h"
#include "gemm_tile.h"

namespace llmeff::cpu::LLMEFF_ISA {

struct Attention {
  int64_t batch, queries, keys, heads, groups, kv_heads, width, value_width;  // B, T, S, H, G, K, D, Dv
  double scale, softcap;
  bool causal;
  int64_t window, q_offset;
  In q_doc, k_doc, prefix;  // each may be absent

  int64_t rows() const { return queries * groups; }
  bool documents() const { return q_doc.present(); }
  int32_t query_document(int64_t b, int64_t t) const {
    return q_doc.as<const int32_t>()[b * q_doc.strides[0] + t * q_doc.strides[1]];
  }
  int32_t key_document(int64_t b, int64_t j) const {
    return k_doc.as<const int32_t>()[b * k_doc.strides[0] + j * k_doc.strides[1]];
  }
  int64_t prefix_length(int64_t b, int64_t t) const {
    return prefix.present() ? prefix.as<const int32_t>()[b * prefix.strides[0] + t * prefix.strides[1]] : 0;
  }
};

LLMEFF_INLINE Attention attention_shape(const In& q, const In& k, const In& v, const In& q_doc, const In& k_doc,
                                        const In& prefix, double scale, bool causal, int64_t window, int64_t q_offset,
                                        double softcap) {
  return {q.shape[0], q.shape[1], k.shape[1], q.shape[2], q.shape[2] / k.shape[2],
          k.shape[2], q.shape[3], v.shape[3], scale,      softcap,
          causal,     window,     q_offset,   q_doc,      k_doc,
          prefix};
}

// The keys of one query: some of [first, last], all of them when `solid`; none when last < first.
struct KeyRange {
  int64_t first, last;
  bool solid;
};

// A run of keys of one document.
struct DocumentRun {
  int64_t begin;
  int32_t document;
};

// Keys of one document among runs of them; the last run ends at `keys`.
inline KeyRange document_range(const DocumentRun* runs, int64_t count, int64_t keys, int32_t document) {
  KeyRange range = {keys, -1, true};
  for (int64_t r = 0; r < count; ++r) {
    if (runs[r].document != document) continue;
    if (range.last < 0)
      range.first = runs[r].begin;
    else
      range.solid = false;
    range.last = (r + 1 < count ? runs[r + 1].begin : keys) - 1;
  }
  return range;
}

// Narrows the range of a document (or of all keys) by the other masks. A prefix counts from the document's start.
inline KeyRange masked_range(const Attention& x, KeyRange range, int64_t i, int64_t prefix) {
  if (x.causal) range.last = smaller(range.last, larger(i, range.first + prefix - 1));
  if (x.window > 0) {
    range.first = larger(range.first, i - x.window + 1);
    if (!x.causal) range.last = smaller(range.last, i + x.window - 1);
  }
  if (range.last < range.first) return {x.keys, -1, true};
  return range;
}

// The ranges of all queries, [B, T]; `runs` is room for S of them.
inline void fill_ranges(const Attention& x, DocumentRun* runs, KeyRange* ranges) {
  for (int64_t b = 0; b < x.batch; ++b) {
    int64_t count = 0;
    if (x.documents())
      for (int64_t j = 0; j < x.keys; ++j) {
        const int32_t document = x.key_document(b, j);
        if (count == 0 || runs[count - 1].document != document) runs[count++] = {j, document};
      }
    KeyRange whole = {0, x.keys - 1, true};
    for (int64_t t = 0; t < x.queries; ++t) {
      if (x.documents() && (t == 0 || x.query_document(b, t) != x.query_document(b, t - 1)))
        whole = document_range(runs, count, x.keys, x.query_document(b, t));
      ranges[b * x.queries + t] = masked_range(x, whole, x.q_offset + t, x.prefix_length(b, t));
    }
  }
}

// An integer as wide as T: what comparisons of lanes are made of.
template <class T>
struct LaneIntegerOf;
template <>
struct LaneIntegerOf<float> {
  using type = int32_t;
};
template <>
struct LaneIntegerOf<double> {
  using type = int64_t;
};
template <class T>
using LaneInteger = typename LaneIntegerOf<T>::type;

// Columns of a tile of keys.
struct Span {
  int64_t from, to;
  int64_t count() const { return to - from; }
};

// The masks of kStrip rows, which lie on lanes; lanes without a row see nothing that the others don't.
template <class T>
struct StripMask {
  static constexpr int64_t N = kStrip<T>;
  LaneInteger<T> first[N], last[N], document[N];
  int64_t begin, end;          // keys [begin, end) that some row sees
  int64_t all_begin, all_end;  // keys that every row sees
  bool solid;

  void fill(const Attention& x, const KeyRange* ranges, int64_t b, int64_t row, int64_t rows) {
    begin = all_end = x.keys, end = all_begin = 0, solid = true;
    for (int64_t i = 0; i < N; ++i) {
      const int64_t t = (row + smaller(i, rows - 1)) / x.groups;
      const KeyRange range = ranges[b * x.queries + t];
      first[i] = static_cast<LaneInteger<T>>(range.first), last[i] = static_cast<LaneInteger<T>>(range.last);
      document[i] = x.documents() ? x.query_document(b, t) : 0;
      begin = smaller(begin, range.first), end = larger(end, range.last + 1);
      all_begin = larger(all_begin, range.first), all_end = smaller(all_end, range.last + 1);
      solid = solid && range.solid;
    }
  }
  // The columns of a tile of `count` keys from j0 that some row sees, begun at a panel.
  Span span(int64_t j0, int64_t count) const {
    const int64_t from = larger(0, begin - j0) / kPanel * kPanel, to = smaller(count, end - j0);
    return {from, larger(from, to)};
  }
  bool whole(int64_t j0, Span keys) const { return solid && all_begin <= j0 + keys.from && all_end >= j0 + keys.to; }
  // The lanes from `lane` on that see key j.
  LLMEFF_INLINE Mask<T> sees(const Attention& x, int64_t b, int64_t j, int64_t lane) const {
    const auto lanes = [lane](const LaneInteger<T>* p) {
      Mask<T> v;
      std::memcpy(&v, p + lane, sizeof v);
      return v;
    };
    const LaneInteger<T> key = static_cast<LaneInteger<T>>(j);
    Mask<T> seen = (lanes(first) <= key) & (lanes(last) >= key);
    if (!solid) seen &= lanes(document) == static_cast<LaneInteger<T>>(x.key_document(b, j));
    return seen;
  }
  bool row_sees(const Attention& x, int64_t b, int64_t j, int64_t i) const {
    return first[i] <= j && j <= last[i] && (solid || document[i] == x.key_document(b, j));
  }
};

}  // namespace llmeff::cpu::LLMEFF_ISA
