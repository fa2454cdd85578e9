// The Euclidean norm of a list of arrays, as if they were one vector. Partial sums are kept per chunk in float64 and added in the order of the
// chunks, so the result is the same for every number of threads.
#include "cpu_kernels.h"
#include "llmeff/parallel.h"
#include "multi_tensor.h"

namespace llmeff::cpu::LLMEFF_ISA {
namespace {

// Four places of the array are read at a time: one stream alone does not keep a core's memory requests busy.
template <class T>
double sum_of_squares(const T* x, int64_t n) {
  constexpr int64_t kWidth = kLanes<T>;
  constexpr int kStreams = 4;
  SumOfSquares<T> sums[kStreams];
  const int64_t part = n / kStreams / kWidth * kWidth;
  for (int64_t i = 0; i < part; i += kWidth)
    for (int s = 0; s < kStreams; ++s) sums[s].add(load(x + s * part + i));
  for (int64_t i = kStreams * part; i < n; i += kWidth) sums[0].add(n - i < kWidth ? load_part(x + i, n - i) : load(x + i));
  return (sums[0].total() + sums[1].total()) + (sums[2].total() + sums[3].total());
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
    sums[i] = x.dtype == DType::kF64 ? sum_of_squares(x.as<double>() + c.begin, n) : sum_of_squares(x.as<float>() + c.begin, n);
  });
  double total = 0;
  for (int64_t i = 0; i < count; ++i) total += sums[i];
  const double root = __builtin_sqrt(total);
  if (norm.dtype == DType::kF64) *norm.as<double>() = root;
  else *norm.as<float>() = static_cast<float>(root);
}

}  // namespace llmeff::cpu::LLMEFF_ISA
