// argsort and top_k. Few of many are chosen in passes: every tile keeps its k best, until they are one tile.
#include "cuda/kernels/cuda_kernels.h"
#include "cuda/kernels/sort.cuh"

namespace llmeff::cuda {
namespace {

constexpr int kSelectRatio = 4;  // passes pay while a tile keeps at most this fraction

template <class W>
void top_rows(Context& cuda, Sorting s, int32_t* positions, int64_t k) {
  using I = typename ItemOf<W>::type;
  if (s.length <= kSortTile<I> || k > kSortTile<I> / kSelectRatio) {
    sort_rows<W>(cuda, s, positions, k);
    return;
  }
  for (;;) {
    s.keep = k;
    choose_tiles<W>(s);
    s.kept_length = s.tiles * k;
    s.positions = s.tiles == 1 ? positions : nullptr;
    s.kept = s.positions != nullptr ? nullptr : cuda.scratch<I>(s.rows.count * s.kept_length);
    launch_sort_tiles<W>(cuda, s);
    if (s.tiles == 1) return;
    s.x = nullptr;
    s.items = s.kept;
    s.length = s.kept_length;
  }
}

template <class F>
void with_sorted(DType dtype, const F& body) {
  switch (dtype) {
    case DType::kF64:
      return body(TypeTag<double>{});
    case DType::kI32:
    case DType::kU8:
    case DType::kBool:
      return body(TypeTag<int32_t>{});
    default:
      return body(TypeTag<float>{});
  }
}

// Rows in the order of the results, which are contiguous.
Sorting rows_of(const View& x, bool descending) {
  return sorting_of(x, make_loop<1>({&x}, leading_axes(x.rank - 1), Order::kRowMajor), x.rank - 1, descending);
}

}  // namespace

void CudaKernels::argsort(const In& x, bool descending, const Out& out) {
  with_sorted(x.dtype, [&](auto tag) {
    sort_rows<typename decltype(tag)::type>(cuda_, rows_of(x, descending), out.as<int32_t>(), x.dim(-1));
  });
}

void CudaKernels::top_k(const In& x, bool largest, const Out& out) {
  with_sorted(x.dtype, [&](auto tag) {
    top_rows<typename decltype(tag)::type>(cuda_, rows_of(x, largest), out.as<int32_t>(), out.dim(-1));
  });
}

}  // namespace llmeff::cuda
