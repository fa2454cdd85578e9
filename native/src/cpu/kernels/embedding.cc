// Rows of a table by id, and the gradient: each task owns a band of columns of the table and walks all ids in order, so
// that equal ids add up in row order whatever the number of threads.
#include <cstring>

#include "cpu_kernels.h"
#include "llmeff/error.h"
#include "strided.h"

namespace llmeff::cpu::LLMEFF_ISA {
namespace {

constexpr int64_t kBand = 128;  // columns of a gradient task

void check_ids(const int32_t* ids, int64_t count, int64_t vocabulary) {
  for (int64_t i = 0; i < count; ++i) {
    if (ids[i] < 0 || ids[i] >= vocabulary)
      fail("ERR_INDEX", "[embedding] token id %d at position %lld is outside the vocabulary of %lld", ids[i],
           static_cast<long long>(i), static_cast<long long>(vocabulary));
  }
}

template <class T>
void backward(const In& dout, const int32_t* ids, const Out& dtable) {
  const int64_t vocabulary = dtable.shape[0], width = dtable.shape[1];
  const Loop<1> rows = make_loop<1>({&dout}, leading_axes(dout.rank - 1));
  const int64_t count = rows.count(rows.rank);
  T* table = dtable.as<T>();
  parallel_for(ceil_div(vocabulary * width, kBlock), [&](int64_t task, int) {
    const int64_t start = task * kBlock;
    std::memset(table + start, 0, static_cast<size_t>(smaller(kBlock, vocabulary * width - start)) * sizeof(T));
  });
  parallel_for(ceil_div(width, kBand), [&](int64_t task, int) {
    const int64_t first = task * kBand, n = smaller(kBand, width - first);
    Cursor<1> at(rows, rows.rank, 0);
    for (int64_t row = 0; row < count; ++row, at.next()) {
      const T* __restrict from = dout.as<T>() + at.offset[0] + first;
      T* __restrict to = table + ids[row] * width + first;
      for (int64_t i = 0; i < n; ++i) to[i] += from[i];
    }
  });
}

}  // namespace

void CpuKernels::embedding(const In& table, const In& ids, const Out& out) {
  check_ids(ids.as<int32_t>(), ids.size(), table.shape[0]);
  const int64_t bytes = table.shape[1] * item_size(table.dtype), size = item_size(table.dtype);
  const Loop<1> rows = make_loop<1>({&out}, leading_axes(out.rank - 1));
  for_each_row(rows, table.shape[1], [&](const int64_t* at, int64_t row, int) {
    std::memcpy(out.as<char>() + at[0] * size, table.as<char>() + ids.as<int32_t>()[row] * bytes,
                static_cast<size_t>(bytes));
  });
}

void CpuKernels::embedding_grad(const In& dout, const In& ids, const Out& dtable) {
  check_ids(ids.as<int32_t>(), ids.size(), dtable.shape[0]);
  if (dout.dtype == DType::kF64)
    backward<double>(dout, ids.as<int32_t>(), dtable);
  else
    backward<float>(dout, ids.as<int32_t>(), dtable);
}

}  // namespace llmeff::cpu::LLMEFF_ISA
