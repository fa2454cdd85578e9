// Matrix product for kernels that need one inside (matmul.cc implements it; instantiated for float and double).
#pragma once

#include <cstdint>

namespace llmeff::cpu::LLMEFF_ISA {

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

}  // namespace llmeff::cpu::LLMEFF_ISA
