// Products by the library. Those that are large enough for their algorithm to be measured: whichever is chosen, the
// bits are those of the first guess, which a captured stream gets. And small ones, wherever their operands begin.
#include <string>

#include "cuda/cublas_lt.h"
#include "cuda/kernels/gemm.h"
#include "lab.h"

namespace llmeff::test {
namespace {

struct Case {
  DType in, out;
  int64_t m, n, k;
  bool a_turned, b_turned, accumulate, bias;
};

constexpr Case kCases[] = {
    {DType::kBF16, DType::kBF16, 4096, 2048, 768, false, true, false, false},
    {DType::kBF16, DType::kBF16, 4096, 2048, 768, false, true, false, true},
    {DType::kBF16, DType::kBF16, 4099, 1544, 1000, false, false, false, false},
    {DType::kBF16, DType::kBF16, 768, 520, 16384, true, false, false, false},
    {DType::kBF16, DType::kF32, 3000, 768, 2048, true, false, true, false},
    {DType::kF16, DType::kF16, 2048, 2048, 1536, false, true, false, false},
    {DType::kF32, DType::kF32, 2048, 2048, 1100, false, true, false, false},
};

// A matrix, or the transpose of one that lies by rows.
Twin matrix(DType dtype, int64_t rows, int64_t columns, bool turned) {
  if (!turned) return lab().uniform(dtype, {rows, columns});
  return lab().uniform(dtype, {columns, rows}).as({rows, columns}, {1, rows});
}

// A context of its own, whose library has measured nothing.
class Fresh {
 public:
  Fresh() {
    LLMEFF_CUDA(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
    context_ = std::make_unique<cuda::Context>(cuda::facts_of(0), stream_);
  }
  ~Fresh() {
    context_.reset();
    cudaStreamDestroy(stream_);
  }
  cuda::Context& operator*() { return *context_; }
  void wait() { LLMEFF_CUDA(cudaStreamSynchronize(stream_)); }

  // Runs what work() puts on the stream while it is captured.
  template <class F>
  void run_captured(F&& work) {
    cudaGraph_t graph;
    cudaGraphExec_t program;
    LLMEFF_CUDA(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal));
    work();
    LLMEFF_CUDA(cudaStreamEndCapture(stream_, &graph));
    LLMEFF_CUDA(cudaGraphInstantiate(&program, graph, 0));
    LLMEFF_CUDA(cudaGraphLaunch(program, stream_));
    wait();
    cudaGraphExecDestroy(program);
    cudaGraphDestroy(graph);
  }

 private:
  cudaStream_t stream_;
  std::unique_ptr<cuda::Context> context_;
};

double element(const View& x, int64_t i, int64_t j) {
  return x.as<double>()[i * x.strides[0] + j * x.strides[1]];
}

TEST(cuda_measured_products_have_the_bits_of_the_first_guess) {
  Fresh measured, captured;
  if ((*captured).find_cublas_lt() == nullptr) {
    CHECK(false, "%s", cuda::CublasLt::why_missing());
    return;
  }
  int index = 0;
  for (const Case& x : kCases) {
    const Twin a = matrix(x.in, x.m, x.k, x.a_turned), b = matrix(x.in, x.k, x.n, x.b_turned);
    const Twin bias = lab().uniform(x.in, {x.n}), before = lab().uniform(x.out, {x.m, x.n});
    const Twin one(x.out, {x.m, x.n}), two(x.out, {x.m, x.n}), again(x.out, {x.m, x.n});
    const In bias_view{bias.device()};
    const auto product = [&](cuda::Context& context, const Twin& out) {
      cuda::gemm(context, a.device(), b.device(), out.device(),
                 {.bias = x.bias ? &bias_view : nullptr, .accumulate = x.accumulate});
    };
    for (const Twin* out : {&one, &two, &again})
      LLMEFF_CUDA(cudaMemcpy(out->device().data, before.device().data,
                             static_cast<size_t>(x.m * x.n * item_size(x.out)), cudaMemcpyDeviceToDevice));
    LLMEFF_CUDA(cudaDeviceSynchronize());
    captured.run_captured([&] { product(*captured, one); });
    product(*measured, two);
    product(*measured, again);
    measured.wait();
    const std::vector<double> guess = one.received(lab().cpu());
    const std::string what = "product " + std::to_string(index++);
    CHECK(two.received(lab().cpu()) == guess, "%s, as it was measured", what.c_str());
    CHECK(again.received(lab().cpu()) == guess, "%s, with what was chosen", what.c_str());
    for (int sample = 0; sample < 200; ++sample) {
      const auto i = static_cast<int64_t>(lab().random.bits() % static_cast<uint64_t>(x.m)),
                 j = static_cast<int64_t>(lab().random.bits() % static_cast<uint64_t>(x.n));
      double want = x.bias ? bias.host().as<double>()[j] : 0;
      if (x.accumulate) want += element(before.host(), i, j);
      double size = std::fabs(want);
      for (int64_t p = 0; p < x.k; ++p) {
        const double term = element(a.host(), i, p) * element(b.host(), p, j);
        want += term, size += std::fabs(term);
      }
      const double got = guess[static_cast<size_t>(i * x.n + j)];
      // Summed up in float32, with √k times the rounding of one term on each, and rounded once.
      const double error = rounding(x.out) * std::fabs(want) + 6 * std::sqrt(static_cast<double>(x.k)) * 0x1p-24 * size;
      CHECK(std::fabs(got - want) <= error, "%s: element (%lld, %lld) is %.9g, not %.9g", what.c_str(),
            static_cast<long long>(i), static_cast<long long>(j), got, want);
    }
  }
}

double activated(Activation activation, double x) {
  switch (activation) {
    case Activation::kRelu:
      return std::max(x, 0.0);
    case Activation::kGelu:
      return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
    case Activation::kGeluErf:
      return 0.5 * x * std::erfc(-x / std::sqrt(2));
    case Activation::kSilu:
      return x / (1 + std::exp(-x));
    default:
      return x;
  }
}

// Row-major, `offset` elements into its memory.
Twin shifted(DType dtype, const std::vector<int64_t>& shape, int64_t offset) {
  int64_t size = 1;
  std::vector<int64_t> strides(shape.size());
  for (size_t axis = shape.size(); axis-- > 0; size *= shape[axis]) strides[axis] = size;
  return lab().uniform(dtype, {size + 8}).as(shape, strides, offset);
}

TEST(cuda_products_wherever_the_operands_begin) {
  Fresh context;
  constexpr int64_t m = 21;
  for (const DType dtype : {DType::kBF16, DType::kF16, DType::kF32})
    for (const int64_t n : {5, 64})
      for (const int64_t k : {4, 48})
        for (int number = 0; number < kActivationCount; ++number)
          for (int offsets = 0; offsets < 32; ++offsets) {
            const auto activation = static_cast<Activation>(number);
            const bool with_pre = (offsets & 16) != 0;
            const Twin a = shifted(dtype, {m, k}, offsets & 1), b = shifted(dtype, {k, n}, offsets >> 1 & 1);
            const Twin bias = shifted(dtype, {n}, offsets >> 2 & 1), out = shifted(dtype, {m, n}, offsets >> 3 & 1);
            const Twin pre = shifted(dtype, {m, n}, offsets >> 3 & 1);
            const In bias_view{bias.device()};
            const Out pre_view{pre.device()};
            LLMEFF_CUDA(cudaDeviceSynchronize());
            cuda::gemm(*context, a.device(), b.device(), out.device(),
                       {.bias = &bias_view, .activation = activation, .pre = with_pre ? &pre_view : nullptr});
            context.wait();
            const std::vector<double> got = out.received(lab().cpu());
            for (int64_t i = 0; i < m; ++i)
              for (int64_t j = 0; j < n; ++j) {
                double sum = bias.host().as<double>()[j], size = std::fabs(sum);
                for (int64_t p = 0; p < k; ++p) {
                  const double term = element(a.host(), i, p) * element(b.host(), p, j);
                  sum += term, size += std::fabs(term);
                }
                const double want = activated(activation, sum),
                             one = got[static_cast<size_t>((offsets >> 3 & 1) + i * n + j)];
                // Where the library can't fuse what comes after a product it rounds the product, and the sum with the
                // bias; the slopes of the activations are below 1.13. The result is rounded in any case.
                const double passed_on = std::fabs(sum - bias.host().as<double>()[j]) + std::fabs(sum);
                const double error = rounding(dtype) * (std::fabs(want) + 1.13 * passed_on) +
                                     8 * std::sqrt(static_cast<double>(k)) * 0x1p-24 * size;
                CHECK(std::fabs(one - want) <= error,
                      "%s n %lld k %lld activation %d offsets %d: element (%lld, %lld) is %.9g, not %.9g",
                      name_of(dtype), static_cast<long long>(n), static_cast<long long>(k), number, offsets,
                      static_cast<long long>(i), static_cast<long long>(j), one, want);
              }
          }
}

}  // namespace
}  // namespace llmeff::test
