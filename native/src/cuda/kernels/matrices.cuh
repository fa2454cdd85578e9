// What is around a factorization by the library: matrices by rows are copied into matrices by columns and back, scaled
// by a power of two so that no square in between overflows or vanishes, and matrices that aren't finite are kept from
// it (it might not end) and give NaN.
#pragma once

#include <cmath>
#include <type_traits>

#include "cuda/check.h"
#include "cuda/context.h"
#include "llmeff/view.h"

namespace llmeff::cuda {

inline int64_t batches_of(const View& matrices) {
  return matrices.size() / (matrices.dim(-2) * matrices.dim(-1));
}

template <class F>
void with_real(DType dtype, const F& f) {
  if (dtype == DType::kF64)
    f(double{});
  else
    f(float{});
}

enum class Part { kAll, kLower, kUpper };  // of a matrix, the diagonal included

__device__ inline bool belongs(Part part, int64_t i, int64_t j) {
  return part == Part::kAll || (part == Part::kLower ? j <= i : j >= i);
}

// The bits of |x|, which have its order; those of an infinity or NaN are not less than an infinity's.
__device__ inline unsigned long long magnitude_bits(float x) {
  return __float_as_uint(x) & 0x7FFFFFFFu;
}
__device__ inline unsigned long long magnitude_bits(double x) {
  return static_cast<unsigned long long>(__double_as_longlong(x)) & 0x7FFFFFFFFFFFFFFFull;
}
__device__ inline bool is_finite_bits(float, unsigned long long bits) {
  return bits < 0x7F800000u;
}
__device__ inline bool is_finite_bits(double, unsigned long long bits) {
  return bits < 0x7FF0000000000000ull;
}
// 2^exponent is just above the number with these bits; 0 for 0 and what isn't finite.
__device__ inline int exponent_of(float tag, unsigned long long bits) {
  int exponent = 0;
  if (bits != 0 && is_finite_bits(tag, bits)) frexpf(__uint_as_float(static_cast<unsigned>(bits)), &exponent);
  return exponent;
}
__device__ inline int exponent_of(double tag, unsigned long long bits) {
  int exponent = 0;
  if (bits != 0 && is_finite_bits(tag, bits)) frexp(__longlong_as_double(static_cast<long long>(bits)), &exponent);
  return exponent;
}

// What is known of the matrices of a batch.
struct Survey {
  unsigned long long* largest;  // bits of the largest number of a matrix, or of each of its columns
  int64_t per_matrix;           // of these: 1, or the number of columns
  int* bad;                     // whether the matrix isn't finite
};

// Blocks of 32 columns and 8 rows at a time, 64 rows in all; z: matrices.
template <class T>
__global__ void survey_kernel(const T* a, int64_t m, int64_t n, Part part, Survey survey, int64_t batch) {
  const int64_t j = static_cast<int64_t>(blockIdx.x) * 32 + threadIdx.x, first = static_cast<int64_t>(blockIdx.y) * 64;
  for (int64_t b = blockIdx.z; b < batch; b += gridDim.z) {
    unsigned long long most = 0;
    if (j < n)
      for (int64_t i = first + threadIdx.y; i < min(first + 64, m); i += 8)
        if (belongs(part, i, j)) most = max(most, magnitude_bits(a[(b * m + i) * n + j]));
    if (most == 0) continue;
    atomicMax(survey.largest + b * survey.per_matrix + (survey.per_matrix > 1 ? j : 0), most);
    if (!is_finite_bits(T{}, most)) atomicOr(survey.bad + b, 1);
  }
}

template <class T>
Survey survey(Context& cuda, const View& a, Part part, bool by_column) {
  const int64_t m = a.dim(-2), n = a.dim(-1), batch = batches_of(a);
  Survey made{nullptr, by_column ? n : 1, nullptr};
  made.largest = cuda.scratch<unsigned long long>(batch * made.per_matrix);
  made.bad = cuda.scratch<int>(batch);
  LLMEFF_CUDA(cudaMemsetAsync(made.largest, 0, static_cast<size_t>(batch * made.per_matrix) * sizeof(*made.largest),
                              cuda.stream));
  LLMEFF_CUDA(cudaMemsetAsync(made.bad, 0, static_cast<size_t>(batch) * sizeof(int), cuda.stream));
  const auto blocks = [](int64_t count, int64_t size) { return (count + size - 1) / size; };
  if (blocks(m, 64) > 65535)
    fail("ERR_SHAPE", "[cuda] matrices of %lld rows are more than are factored on a GPU.", static_cast<long long>(m));
  const dim3 grid(static_cast<unsigned>(blocks(n, 32)), static_cast<unsigned>(blocks(m, 64)),
                  static_cast<unsigned>(batch < 65535 ? batch : 65535));
  survey_kernel<<<grid, dim3(32, 8), 0, cuda.stream>>>(a.as<T>(), m, n, part, made, batch);
  LLMEFF_LAUNCHED("survey_kernel");
  return made;
}

// Where the matrices of a batch lie.
template <class T>
struct Placed {
  T* data;
  int64_t batch, row, column;  // strides

  __device__ T& at(int64_t b, int64_t i, int64_t j) const { return data[b * batch + i * row + j * column]; }
};
template <class T>
Placed<T> by_rows(T* data, int64_t rows, int64_t columns) {
  return {data, rows * columns, columns, 1};
}
template <class T>
Placed<T> by_columns(T* data, int64_t rows, int64_t columns) {
  return {data, rows * columns, 1, rows};
}

enum class Way { kIn, kInUnscaled, kOut, kOutUnscaled };

// In: to = from / 2^exponent, or as it is; the identity for a bad matrix. Out: to = from · 2^exponent, or as it is; NaN
// for a bad one. What is not of the part is 0. The survey is of the narrower type, that of the operation's operands.
// Blocks of 32×32, so that neither side is read or written in single numbers.
template <class A, class B>
__global__ void move_kernel(Placed<A> from, Placed<B> to, int64_t rows, int64_t columns, Part part, Survey survey,
                            Way way, int64_t batch) {
  using Surveyed = std::conditional_t<(sizeof(A) < sizeof(B)), A, B>;
  using T = std::conditional_t<(sizeof(A) < sizeof(B)), B, A>;
  __shared__ T tile[32][33];
  const int64_t i0 = static_cast<int64_t>(blockIdx.y) * 32, j0 = static_cast<int64_t>(blockIdx.x) * 32;
  for (int64_t b = blockIdx.z; b < batch; b += gridDim.z) {
    const bool bad = survey.bad[b] != 0;
    // Neighbouring threads read, then write, what lies side by side.
    for (int step = threadIdx.y; step < 32; step += 8) {
      const int di = from.column == 1 ? step : threadIdx.x, dj = from.column == 1 ? threadIdx.x : step;
      const int64_t i = i0 + di, j = j0 + dj;
      if (i >= rows || j >= columns) continue;
      T x = belongs(part, i, j) ? static_cast<T>(from.at(b, i, j)) : T(0);
      if (bad) {
        x = way == Way::kIn || way == Way::kInUnscaled ? T(i == j) : static_cast<T>(NAN);
      } else if (way == Way::kIn || way == Way::kOut) {
        const int64_t group = survey.per_matrix > 1 ? b * survey.per_matrix + j : b;
        const int exponent = exponent_of(Surveyed{}, survey.largest[group]);
        if (exponent != 0) x = static_cast<T>(ldexp(static_cast<double>(x), way == Way::kIn ? -exponent : exponent));
      }
      tile[di][dj] = x;
    }
    __syncthreads();
    for (int step = threadIdx.y; step < 32; step += 8) {
      const int di = to.column == 1 ? step : threadIdx.x, dj = to.column == 1 ? threadIdx.x : step;
      if (i0 + di < rows && j0 + dj < columns) to.at(b, i0 + di, j0 + dj) = static_cast<B>(tile[di][dj]);
    }
    __syncthreads();
  }
}

template <class A, class B>
void move(Context& cuda, Placed<A> from, Placed<B> to, int64_t rows, int64_t columns, Part part, const Survey& survey,
          Way way, int64_t batch) {
  const auto blocks = [](int64_t count) { return static_cast<unsigned>((count + 31) / 32); };
  const dim3 grid(blocks(columns), blocks(rows), static_cast<unsigned>(batch < 65535 ? batch : 65535));
  move_kernel<<<grid, dim3(32, 8), 0, cuda.stream>>>(from, to, rows, columns, part, survey, way, batch);
  LLMEFF_LAUNCHED("move_kernel");
}

// What the library found wrong, where the matrix was not kept from it.
static __global__ void report_kernel(const int* info, const int* bad, int64_t batch, ValueCheck check) {
  const int64_t b = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (b < batch && info[b] != 0 && bad[b] == 0) check.bad(b, info[b]);
}
inline void report(Context& cuda, const int* info, const Survey& survey, int64_t batch, const char* message) {
  const ValueCheck check = cuda.check_values(
      [message](int64_t b, int32_t) {
        return std::string(message) + " of matrix " + std::to_string(b) + " of the batch did not converge.";
      },
      "ERR_LINALG");
  report_kernel<<<static_cast<unsigned>((batch + 255) / 256), 256, 0, cuda.stream>>>(info, survey.bad, batch, check);
  LLMEFF_LAUNCHED("report_kernel");
}

}  // namespace llmeff::cuda
