// dropout: the mask comes from the position alone (philox.h), so it is never stored, and the gradient makes it again.
#include <cmath>

#include "cpu_kernels.h"
#include "philox.h"
#include "runs.h"

namespace llmeff::cpu::LLMEFF_ISA {
namespace {

static_assert(kBlock % kWords == 0, "a task starts with a group");

template <class T>
void drop(const In& x, double rate, uint64_t seed, uint64_t stream, const Out& out) {
  const T kept = static_cast<T>(1 - rate);
  const float nearest = static_cast<float>(rate);
  // The first number not below the rate.
  const float threshold = nearest < rate ? std::nextafter(nearest, 2.0f) : nearest;
  const Loop<2> loop = make_loop<2>({&out, &x}, leading_axes(out.rank));
  const int64_t n = loop.count(loop.rank), row = loop.inner();
  parallel_for(ceil_div(n, kBlock), [&](int64_t task, int) {
    T numbers[kWords], results[kWords];
    float uniform[kWords];
    uint32_t words[kWords];
    Reader<T> reader{x, loop.inner_stride(1), numbers};
    Writer<T> writer{out, loop.inner_stride(0), results};
    const int64_t end = smaller(n, (task + 1) * kBlock);
    for (int64_t i = task * kBlock; i < end;) {
      const int64_t in_group = i % kWords;
      if (in_group == 0) {
        philox(seed, stream, static_cast<uint64_t>(i / kWords * kLanesOfPhilox), words);
        make_uniform(words, uniform);
      }
      // As many elements as lie in one group and in one row.
      const int64_t count = smaller(smaller(kWords - in_group, end - i), row - i % row);
      Cursor<2> at(loop, loop.rank - 1, i / row);
      const int64_t to = at.offset[0] + i % row * writer.stride;
      const T* p = reader.read(at.offset[1] + i % row * reader.stride, count);
      T* o = writer.target(to);
      for (int64_t j = 0; j < count; ++j) o[j] = uniform[in_group + j] >= threshold ? p[j] / kept : T(0);
      writer.flush(to, count);
      i += count;
    }
  });
}

}  // namespace

void CpuKernels::dropout(const In& x, double rate, int64_t seed, int64_t stream, const Out& out) {
  const uint64_t key = static_cast<uint64_t>(seed), high = static_cast<uint64_t>(stream);
  x.dtype == DType::kF64 ? drop<double>(x, rate, key, high, out) : drop<float>(x, rate, key, high, out);
}

}  // namespace llmeff::cpu::LLMEFF_ISA
