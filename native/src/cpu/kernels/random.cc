// random: numbers by position, as philox.h says.
#include "cpu_kernels.h"
#include "normal.h"

namespace llmeff::cpu::LLMEFF_ISA {
namespace {

template <class T>
void generate(Distribution distribution, uint64_t seed, uint64_t stream, const Out& out) {
  const bool uniform = distribution == Distribution::kUniform;
  const int64_t group = uniform ? kWords / kUniformWords<T> : kWords;  // elements of one call of philox
  const Loop<1> loop = make_loop<1>({&out}, leading_axes(out.rank));
  const bool contiguous = loop.rank == 1 && loop.inner_stride(0) == 1;
  const int64_t n = loop.count(loop.rank);
  parallel_for(ceil_div(n, kBlock), [&](int64_t task, int) {
    const int64_t end = smaller(n, (task + 1) * kBlock);
    Cursor<1> at(loop, loop.rank, contiguous ? 0 : task * kBlock);
    for (int64_t i = task * kBlock; i < end; i += group) {
      uint32_t words[kWords];
      T made[kWords];
      philox(seed, stream, static_cast<uint64_t>(i / group * kLanesOfPhilox), words);
      if (uniform)
        make_uniform(words, made);
      else
        make_normal(words, made);
      const int64_t count = smaller(group, end - i);
      if (contiguous) {
        std::memcpy(out.as<T>() + i, made, static_cast<size_t>(count) * sizeof(T));
      } else {
        for (int64_t j = 0; j < count; ++j, at.next()) out.as<T>()[at.offset[0]] = made[j];
      }
    }
  });
}

}  // namespace

void CpuKernels::random(Distribution distribution, int64_t seed, int64_t stream, const Out& out) {
  const uint64_t key = static_cast<uint64_t>(seed), high = static_cast<uint64_t>(stream);
  if (out.dtype == DType::kF64)
    generate<double>(distribution, key, high, out);
  else
    generate<float>(distribution, key, high, out);
}

}  // namespace llmeff::cpu::LLMEFF_ISA
