// Rows of a table by id: a warp a row. Ids outside the table are reported and read as rows of zeros.
#include "cuda/kernels/cuda_kernels.h"
#include "cuda/kernels/early.cuh"
#include "cuda/kernels/rows.cuh"
#include "cuda/kernels/value_checks.h"

namespace llmeff::cuda {
namespace {

constexpr int kWarps = 8;  // of a block

template <class Unit>
__global__ void __launch_bounds__(32 * kWarps)
    embedding_kernel(const Unit* table, const int32_t* ids, Unit* out, const __grid_constant__ RowMap out_rows,
                     int64_t rows, int64_t vocabulary, int units, int elements_per_unit, ValueCheck check) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.y;
  let_next_begin();
  await_earlier();
  if (row >= rows) return;
  const int32_t id = ids[row];
  const bool good = id >= 0 && id < vocabulary;
  if (!good && threadIdx.x == 0) check.bad(row, id);
  const Unit* const from = table + static_cast<int64_t>(id) * units;
  Unit* const to = out + out_rows(row) / elements_per_unit;
#pragma unroll 4
  for (int i = threadIdx.x; i < units; i += 32) to[i] = good ? from[i] : Unit{};
}

}  // namespace

void CudaKernels::embedding(const In& table, const In& ids, const Out& out) {
  const int64_t rows = ids.size(), width = table.shape[1], size = item_size(table.dtype);
  const ValueCheck check = check_ids(cuda_, table.shape[0]);
  const auto launch = [&]<class Unit>(Unit) {
    const int64_t elements = static_cast<int64_t>(sizeof(Unit)) / size;
    launch_early(cuda_, embedding_kernel<Unit>, static_cast<unsigned>(ceil_div(rows, kWarps)), dim3(32, kWarps), 0,
                 static_cast<const Unit*>(table.data), ids.as<const int32_t>(), out.as<Unit>(), row_map(out), rows,
                 int64_t{table.shape[0]}, static_cast<int>(width / elements), static_cast<int>(elements), check);
  };
  if (rows_aligned({&table, &out}))
    launch(uint4{});
  else if (size == 8)
    launch(uint64_t{});
  else if (size == 4)
    launch(uint32_t{});
  else
    launch(uint16_t{});
}

}  // namespace llmeff::cuda
