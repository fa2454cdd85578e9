// Matrix product for kernels that need one inside (matmul.cc implements it; instantiated for float and double).
#pragma once

#include <cstdint>

#include "llmeff/view.h"

namespace llmeff::cpu::LLMEFF_ISA {

// How products are cut into tasks.
inline constexpr int64_t kGemmTasks = 32;                   // to aim at
inline constexpr int64_t kGemmTaskWork = int64_t{1} << 19;  // multiply-adds that make a task worth handing out
inline constexpr int64_t kGemmPackWork = int64_t{1} << 16;  // elements, likewise
// As few rows read b in place: packing it would cost more than the product.
inline constexpr int64_t kGemmFewRows = 8;

// c[m, n] = a[m, k] · b[k, n], or += with accumulate. Strides count elements; of each
// operand's two strides one should be 1 (any others work, slowly). c is contiguous in its last axis and overlaps
// neither operand. Call it from the thread that runs the kernel, not from a task: it shares the work out itself. It
// takes worker_scratch, so nothing in there survives it; shared_scratch is left to the caller. The order of every sum
// depends on the shape alone.
template <class T>
void gemm(int64_t m, int64_t n, int64_t k, const T* a, int64_t a_row_stride, int64_t a_col_stride, const T* b,
          int64_t b_row_stride, int64_t b_col_stride, T* c, int64_t c_row_stride, bool accumulate);

// The same on one thread, for use inside a task; `scratch` holds gemm_scratch<T>(m, n, k) elements, 64-byte aligned.
template <class T>
void gemm_serial(int64_t m, int64_t n, int64_t k, const T* a, int64_t a_row_stride, int64_t a_col_stride, const T* b,
                 int64_t b_row_stride, int64_t b_col_stride, T* c, int64_t c_row_stride, bool accumulate, T* scratch);
template <class T>
int64_t gemm_scratch(int64_t m, int64_t n, int64_t k);

// A factor: numbers of T or, where that is float, of a 16-bit format.
struct Operand {
  const void* data;
  DType dtype;
  int64_t row, col;  // strides

  Operand at_offset(int64_t elements) const {
    return {static_cast<const char*>(data) + elements * item_size(dtype), dtype, row, col};
  }
  Operand from(int64_t i, int64_t j) const { return at_offset(i * row + j * col); }
  Operand transposed() const { return {data, dtype, col, row}; }
};

// Where a product goes; contiguous in its last axis.
struct Destination {
  void* data;
  DType dtype;
  int64_t row;  // stride
};

// b[k, n] as a product reads it: packed once for the threads that share it. Columns [first, last) of it at a time,
// which begin and end with strips of kStrip<T>; gemm_packed_elements<T>(n, k) elements in all, 64-byte aligned.
template <class T>
void gemm_pack(const Operand& b, int64_t n, int64_t k, T* packed, int64_t first, int64_t last);
template <class T>
int64_t gemm_packed_elements(int64_t n, int64_t k);
// Columns from `first` on, a multiple of kStrip<T>, of a factor that was packed with `columns`.
template <class T>
struct PackedFactor {
  const T* data;
  int64_t first, columns;
};

// One term of a sum of products of any of these formats, on one thread: c = Σ a·b is summed up in T and rounded once,
// after the last. `packed` is b where it has data. `sums` carries the m·n sums from the first term to the last where c
// is not of T, else it may be null; `scratch` as of gemm_serial.
template <class T>
void gemm_term(int64_t m, int64_t n, int64_t k, const Operand& a, const Operand& b, const PackedFactor<T>& packed,
               const Destination& c, bool first, bool last, T* sums, T* scratch);

extern template void gemm<float>(int64_t, int64_t, int64_t, const float*, int64_t, int64_t, const float*, int64_t,
                                 int64_t, float*, int64_t, bool);
extern template void gemm<double>(int64_t, int64_t, int64_t, const double*, int64_t, int64_t, const double*, int64_t,
                                  int64_t, double*, int64_t, bool);
extern template void gemm_serial<float>(int64_t, int64_t, int64_t, const float*, int64_t, int64_t, const float*,
                                        int64_t, int64_t, float*, int64_t, bool, float*);
extern template void gemm_serial<double>(int64_t, int64_t, int64_t, const double*, int64_t, int64_t, const double*,
                                         int64_t, int64_t, double*, int64_t, bool, double*);
extern template int64_t gemm_scratch<float>(int64_t, int64_t, int64_t);
extern template int64_t gemm_scratch<double>(int64_t, int64_t, int64_t);
extern template void gemm_pack<float>(const Operand&, int64_t, int64_t, float*, int64_t, int64_t);
extern template void gemm_pack<double>(const Operand&, int64_t, int64_t, double*, int64_t, int64_t);
extern template int64_t gemm_packed_elements<float>(int64_t, int64_t);
extern template int64_t gemm_packed_elements<double>(int64_t, int64_t);
extern template void gemm_term<float>(int64_t, int64_t, int64_t, const Operand&, const Operand&,
                                      const PackedFactor<float>&, const Destination&, bool, bool, float*, float*);
extern template void gemm_term<double>(int64_t, int64_t, int64_t, const Operand&, const Operand&,
                                       const PackedFactor<double>&, const Destination&, bool, bool, double*, double*);

}  // namespace llmeff::cpu::LLMEFF_ISA
