// Attention of the next position of several sequences: each as rope, copy and attention would do it one after another,
// so that a step of generation has the same bits whether the host or the device says where the sequences are.
#include "cpu_kernels.h"
#include "llmeff/error.h"
#include "room.h"

namespace llmeff::cpu::LLMEFF_ISA {
namespace {

// Rows [first, first + count) of axis 1 of x [1, N, heads, channels].
template <class V>
V rows_of(const View& x, int64_t first, int64_t count) {
  V part;
  static_cast<View&>(part) = x;
  part.data = x.as<char>() + first * x.strides[1] * item_size(x.dtype);
  part.shape[1] = count;
  return part;
}

// Row t of a table [T, R/2].
In angles_of(const In& table, int64_t t) {
  In row = table;
  row.data = table.as<char>() + t * table.shape[1] * item_size(table.dtype);
  row.shape[0] = 1;
  return row;
}

}  // namespace

void CpuKernels::decode_attention(const In& q, const In& k, const In& v, const List<InOut>& keys,
                                  const List<InOut>& values, const List<int64_t>& offsets, const In& positions,
                                  const In& cos, const In& sin, bool interleaved, double scale, int64_t window,
                                  double softcap, const Out& o) {
  const int64_t sequences = q.shape[1], heads = q.shape[2], width = q.shape[3], size = item_size(q.dtype);
  const auto row_of = [&](int64_t t) { return positions.as<const int32_t>()[t] - offsets[t]; };
  for (int64_t t = 0; t < sequences; ++t)
    if (row_of(t) < 0 || row_of(t) >= keys[t].shape[1])
      fail("ERR_INDEX",
           "[decodeAttention] position %d of sequence %lld is outside its memory of %lld rows from %lld on",
           positions.as<const int32_t>()[t], static_cast<long long>(t), static_cast<long long>(keys[t].shape[1]),
           static_cast<long long>(offsets[t]));
  const Room room("decodeAttention", heads * (width * size + 8));
  for (int64_t t = 0; t < sequences; ++t) {
    const int64_t row = row_of(t);
    In query = rows_of<In>(q, t, 1);
    const In key = rows_of<In>(k, t, 1);
    const Out kept = rows_of<Out>(keys[t], row, 1);
    if (cos.present()) {
      const In c = angles_of(cos, t), s = angles_of(sin, t);
      const Out turned = {packed(room.data, query)};
      rope(query, c, s, interleaved, false, turned);
      rope(key, c, s, interleaved, false, kept);
      query = {turned};
    } else {
      copy(key, kept);
    }
    copy(rows_of<In>(v, t, 1), rows_of<Out>(values[t], row, 1));
    View lse = q;
    lse.rank = 3;
    lse.shape[0] = 1, lse.shape[1] = heads, lse.shape[2] = 1;
    lse = packed(room.data + heads * width * size, lse);
    attention(query, rows_of<In>(keys[t], 0, row + 1), rows_of<In>(values[t], 0, row + 1), In{}, In{}, In{}, scale,
              true, window, row, softcap, rows_of<Out>(o, t, 1), Out{lse});
  }
}

}  // namespace llmeff::cpu::LLMEFF_ISA
