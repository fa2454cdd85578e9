// What the norms over the last axis share: the sum with a residual that goes before, and the walk over the rows of a
// backward pass with the gradients of the parameters.
#pragma once

#include "row_math.h"
#include "strided.h"

namespace llmeff::cpu::LLMEFF_ISA {

// body(row of x, row of y, number of the row); with a residual the row is that of x + residual, written to `sum` first.
template <class T, class F>
void for_each_norm_row(const In& x, const In& residual, const Out& sum, const Out& y, const F& body) {
  const int64_t n = x.dim(-1);
  const bool fused = residual.present();
  const View *other = fused ? static_cast<const View*>(&residual) : &x,
             *total = fused ? static_cast<const View*>(&sum) : &x;
  for_each_row(make_loop<4>({&x, other, total, &y}, leading_axes(x.rank - 1)), n,
               [&](const int64_t* at, int64_t row, int) {
                 const T* p = x.as<T>() + at[0];
                 if (fused) {
                   T* out = sum.as<T>() + at[2];
                   map_vectors(
                       n, [](Vec<T> a, Vec<T> b) { return a + b; }, out, p, residual.as<T>() + at[1]);
                   p = out;
                 }
                 body(p, y.as<T>() + at[3], row);
               });
}

// The rows of a backward pass at one position; dsum is null when there is none.
template <class T>
struct NormGradRow {
  int64_t row;
  const T *dy, *dsum, *x;
  T* dx;

  // What reaches x beside the norm.
  LLMEFF_INLINE Vec<T> passed_on(int64_t i, int64_t part) const {
    return dsum == nullptr ? Vec<T>{} : gather(dsum + i, 1, part);
  }
};

// body(row, sums) for every row, where sums[k] points at n numbers to which the row adds its part of the gradient of
// parameter k; dparams[k] is their sum and may be absent. The rows are summed in blocks, whose size depends on the
// number of rows alone, and then the blocks in order.
template <class T, int N, class F>
void for_each_norm_grad_row(const In& dy, const In& dsum, const In& x, const Out& dx, const Out* const (&dparams)[N],
                            const F& body) {
  const int64_t n = x.dim(-1);
  const View* passed = dsum.present() ? &dsum : &dy;
  const Loop<4> rows = make_loop<4>({&dx, &x, &dy, passed}, leading_axes(x.rank - 1));
  const int64_t count = rows.count(rows.rank), per_block = larger(16, ceil_div(count, 64)),
                blocks = ceil_div(count, per_block);
  T* const partial = shared_scratch<T>(blocks * N * n);
  parallel_for(blocks, [&](int64_t block, int) {
    T* sums[N];
    for (int k = 0; k < N; ++k) sums[k] = partial + (block * N + k) * n;
    for (int64_t i = 0; i < N * n; ++i) sums[0][i] = 0;
    Cursor<4> at(rows, rows.rank, block * per_block);
    for (int64_t row = block * per_block; row < smaller(count, (block + 1) * per_block); ++row, at.next())
      body(NormGradRow<T>{row, dy.as<T>() + at.offset[2], dsum.present() ? dsum.as<T>() + at.offset[3] : nullptr,
                          x.as<T>() + at.offset[1], dx.as<T>() + at.offset[0]},
           sums);
  });
  constexpr int64_t kPiece = 512;
  const int64_t pieces = ceil_div(n, kPiece);
  parallel_for(N * pieces, [&](int64_t task, int) {
    const int64_t k = task / pieces, first = task % pieces * kPiece, end = smaller(n, first + kPiece);
    if (!dparams[k]->present()) return;
    T* const out = dparams[k]->template as<T>();
    for (int64_t i = first; i < end; ++i) out[i] = partial[k * n + i];
    for (int64_t block = 1; block < blocks; ++block)
      for (int64_t i = first; i < end; ++i) out[i] += partial[(block * N + k) * n + i];
  });
}

}  // namespace llmeff::cpu::LLMEFF_ISA
