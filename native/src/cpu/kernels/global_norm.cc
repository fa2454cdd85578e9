// The Euclidean norm of a list of arrays, as if they were one vector. Partial sums are kept per chunk in float64 and
// added in the order of the chunks, so the result is the same for every number of threads.
#include "cpu_kernels.h"
#include "llmeff/parallel.h"
#include "multi_tensor.h"

namespace llmeff::cpu::LLMEFF_ISA {
namespace {

template <class T>
double sum_of_squares(const T* x, int64_t n) {
  constexpr int64_t kWidth = kLanes<T>;
  SumOfSquares<T> even, odd;
  int64_t i = 0;
  for (; i + 2 * kWidth <= n; i += 2 * kWidth) {
    even.add(load(x + i));
    odd.add(load(x + i + kWidth));
  }
  for (; i < n; i += kWidth) even.add(n - i < kWidth ? load_part(x + i, n - i) : load(x + i));
  return even.total() + odd.total();
}

}  // namespace

void CpuKernels::global_norm(const List<In>& xs, const Out& norm) {
  const int64_t count = count_chunks(xs);
  char* scratch = shared_scratch<char>(count * static_cast<int64_t>(sizeof(Chunk) + sizeof(double)));
  Chunk* const chunks = reinterpret_cast<Chunk*>(scratch);
  double* const sums = reinterpret_cast<double*>(chunks + count);
  cut_into_chunks(xs, chunks);
  parallel_for(count, [&](int64_t i, int) {
    const Chunk& c = chunks[i];
    const In& x = xs[c.tensor];
    const int64_t n = c.end - c.begin;
    sums[i] = x.dtype == DType::kF64 ? sum_of_squares(x.as<double>() + c.begin, n)
                                     : sum_of_squares(x.as<float>() + c.begin, n);
  });
  double total = 0;
  for (int64_t i = 0; i < count; ++i) total += sums[i];
  const double root = __builtin_sqrt(total);
  if (norm.dtype == DType::kF64)
    *norm.as<double>() = root;
  else
    *norm.as<float>() = static_cast<float>(root);
}

}  // namespace llmeff::cpu::LLMEFF_ISA
