// Times the element-wise kernels, reductions, softmax, indexing and sorting, and prints what they move per second: the
// bytes read and written once each. The ceiling is the first line, a copy by the copy engine. Built from this file and
// the objects of src/cuda.
//
//   elementwise_bench [part of a name]
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <functional>
#include <vector>

#include "../test/row_major.h"
#include "cuda/kernels/cuda_kernels.h"

using namespace llmeff;

namespace {

constexpr int kRuns = 20, kWarmUps = 3;

cuda::Context* context;
cuda::CudaKernels* gpu;
const char* wanted = "";

// Random numbers in [0, 1), or int32 below `bound`.
View array(DType dtype, const std::vector<int64_t>& shape, int32_t bound = 0) {
  View v = row_major(nullptr, dtype, shape);
  const int64_t count = v.size();
  LLMEFF_CUDA(cudaMalloc(&v.data, static_cast<size_t>(count * item_size(dtype))));
  if (dtype == DType::kI32 && bound > 0) {
    std::vector<int32_t> values(static_cast<size_t>(count));
    uint64_t state = 1;
    for (int32_t& x : values) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      x = static_cast<int32_t>((state >> 33) % static_cast<uint64_t>(bound));
    }
    LLMEFF_CUDA(cudaMemcpy(v.data, values.data(), values.size() * 4, cudaMemcpyHostToDevice));
  } else if (dtype == DType::kF32 || dtype == DType::kBF16) {
    gpu->random(Distribution::kUniform, 1, 2, Out{v});
  }
  return v;
}
double bytes_of(const View& v) {
  double n = 1;
  for (int i = 0; i < v.rank; ++i) n *= v.strides[i] == 0 ? 1 : static_cast<double>(v.shape[i]);
  return n * static_cast<double>(item_size(v.dtype));
}
View with_strides(View v, std::vector<int64_t> shape, std::vector<int64_t> strides) {
  v.rank = static_cast<int>(shape.size());
  for (size_t i = 0; i < shape.size(); ++i) v.shape[i] = shape[i], v.strides[i] = strides[i];
  return v;
}

void measure(const char* name, double bytes, const std::function<void()>& run) {
  if (std::strstr(name, wanted) == nullptr) return;
  cudaEvent_t start, stop;
  LLMEFF_CUDA(cudaEventCreate(&start));
  LLMEFF_CUDA(cudaEventCreate(&stop));
  std::vector<float> times;
  for (int i = 0; i < kRuns + kWarmUps; ++i) {
    context->begin("bench", 1, {});
    LLMEFF_CUDA(cudaEventRecord(start, context->stream));
    run();
    LLMEFF_CUDA(cudaEventRecord(stop, context->stream));
    if (const FailurePointer check = context->end()) {
      LLMEFF_CUDA(cudaStreamSynchronize(context->stream));
      context->settle(*check);
    }
    LLMEFF_CUDA(cudaEventSynchronize(stop));
    float milliseconds = 0;
    LLMEFF_CUDA(cudaEventElapsedTime(&milliseconds, start, stop));
    if (i >= kWarmUps) times.push_back(milliseconds);
  }
  std::sort(times.begin(), times.end());
  const double median = static_cast<double>(times[times.size() / 2]);
  std::printf("%-44s %8.3f ms %8.0f GB/s\n", name, median, bytes / median * 1e-6);
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1) wanted = argv[1];
  cudaDeviceProp properties;
  LLMEFF_CUDA(cudaGetDeviceProperties(&properties, 0));
  cudaStream_t stream;
  LLMEFF_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  cuda::Facts facts;
  facts.multiprocessors = properties.multiProcessorCount;
  context = new cuda::Context(facts, stream);
  gpu = new cuda::CudaKernels(*context);
  std::printf("%s\n", properties.name);

  const int64_t big = int64_t{1} << 28, rows = 16384, columns = 16384;  // 1 GB of float32, 20 times the cache
  const View a = array(DType::kF32, {rows, columns}), b = array(DType::kF32, {rows, columns}),
             c = array(DType::kF32, {rows, columns});
  const View p = array(DType::kBF16, {rows, columns}), q = array(DType::kBF16, {rows, columns}),
             r = array(DType::kBF16, {rows, columns});
  const View flags = array(DType::kBool, {rows, columns});
  const View turned = with_strides(a, {columns, rows}, {1, columns}), turned_p = with_strides(p, {columns, rows}, {1, columns});
  const View half = with_strides(a, {rows, columns / 2}, {columns, 1}), half_out = with_strides(c, {rows, columns / 2}, {columns / 2, 1});
  const View row = with_strides(b, {rows, columns}, {0, 1}), column = with_strides(b, {rows, columns}, {1, 0});
  const double f32 = 4.0 * static_cast<double>(big), bf16 = f32 / 2;

  measure("copy float32, copy engine", 2 * f32, [&] { gpu->copy(In{a}, Out{c}); });
  measure("copy float32, half of each row", f32, [&] { gpu->copy(In{half}, Out{half_out}); });
  measure("copy float32, transposed", 2 * f32, [&] { gpu->copy(In{turned}, Out{c}); });
  measure("copy bfloat16, transposed", 2 * bf16, [&] { gpu->copy(In{turned_p}, Out{r}); });
  measure("copy float32 to bfloat16", f32 + bf16, [&] { gpu->copy(In{a}, Out{r}); });
  measure("copy bfloat16 to float32", f32 + bf16, [&] { gpu->copy(In{p}, Out{c}); });
  measure("fill float32", f32, [&] { gpu->fill(1, Out{c}); });
  measure("random uniform float32", f32, [&] { gpu->random(Distribution::kUniform, 1, 2, Out{c}); });
  measure("random normal float32", f32, [&] { gpu->random(Distribution::kNormal, 1, 2, Out{c}); });
  measure("dropout bfloat16", 2 * bf16, [&] { gpu->dropout(In{p}, 0.1, 1, 2, Out{r}); });
  measure("add float32", 3 * f32, [&] { gpu->binary(BinaryOp::kAdd, In{a}, In{b}, Out{c}); });
  measure("add float32, a row", 2 * f32, [&] { gpu->binary(BinaryOp::kAdd, In{a}, In{row}, Out{c}); });
  measure("add float32, a column", 2 * f32, [&] { gpu->binary(BinaryOp::kAdd, In{a}, In{column}, Out{c}); });
  measure("add float32, one transposed", 3 * f32, [&] { gpu->binary(BinaryOp::kAdd, In{turned}, In{b}, Out{c}); });
  measure("add bfloat16", 3 * bf16, [&] { gpu->binary(BinaryOp::kAdd, In{p}, In{q}, Out{r}); });
  measure("div bfloat16", 3 * bf16, [&] { gpu->binary(BinaryOp::kDiv, In{p}, In{q}, Out{r}); });
  measure("pow float32", 3 * f32, [&] { gpu->binary(BinaryOp::kPow, In{a}, In{b}, Out{c}); });
  measure("less float32", 2.25 * f32, [&] { gpu->binary(BinaryOp::kLess, In{a}, In{b}, Out{flags}); });
  measure("where float32", 3.25 * f32, [&] { gpu->where(In{flags}, In{a}, In{b}, Out{c}); });
  for (const auto& [name, op] : {std::pair{"relu", UnaryOp::kRelu}, std::pair{"gelu", UnaryOp::kGelu},
                                 std::pair{"gelu_erf", UnaryOp::kGeluErf}, std::pair{"silu", UnaryOp::kSilu},
                                 std::pair{"tanh", UnaryOp::kTanh}, std::pair{"exp", UnaryOp::kExp}}) {
    char line[64];
    std::snprintf(line, sizeof line, "%s float32", name);
    measure(line, 2 * f32, [&, op = op] { gpu->unary(op, In{a}, Out{c}); });
    std::snprintf(line, sizeof line, "%s bfloat16", name);
    measure(line, 2 * bf16, [&, op = op] { gpu->unary(op, In{p}, Out{r}); });
    std::snprintf(line, sizeof line, "%s gradient bfloat16", name);
    measure(line, 3 * bf16, [&, op = op] { gpu->unary_grad(op, In{p}, In{q}, Out{r}); });
  }

  const View one = array(DType::kF32, {1, 1}), per_row = array(DType::kF32, {rows, 1}), per_column = array(DType::kF32, {1, columns});
  const View one_p = array(DType::kBF16, {1, 1}), per_row_p = array(DType::kBF16, {rows, 1}), per_column_p = array(DType::kBF16, {1, columns});
  for (const auto& [name, op] : {std::pair{"sum", ReduceOp::kSum}, std::pair{"max", ReduceOp::kMax},
                                 std::pair{"variance", ReduceOp::kVariance}, std::pair{"logsumexp", ReduceOp::kLogSumExp}}) {
    char line[64];
    const auto time = [&](const char* what, const View& x, const View& out, ReduceOp reduce_op) {
      std::snprintf(line, sizeof line, "%s %s", name, what);
      measure(line, bytes_of(x), [&] { gpu->reduce(reduce_op, In{x}, Out{out}); });
    };
    time("of all, float32", a, one, op);
    time("of all, bfloat16", p, one_p, op);
    time("of rows, float32", a, per_row, op);
    time("of rows, bfloat16", p, per_row_p, op);
    time("of columns, float32", a, per_column, op);
    time("of columns, bfloat16", p, per_column_p, op);
  }
  const View tall = with_strides(p, {262144, 1024}, {1024, 1}), narrow = array(DType::kBF16, {1, 1024});
  measure("sum of columns, bfloat16 [262144, 1024]", bf16, [&] { gpu->reduce(ReduceOp::kSum, In{tall}, Out{narrow}); });
  const View short_rows = with_strides(a, {big / 64, 64}, {64, 1}), short_out = array(DType::kF32, {big / 64, 1});
  measure("sum of rows, float32 [4194304, 64]", f32, [&] { gpu->reduce(ReduceOp::kSum, In{short_rows}, Out{short_out}); });
  const View positions = array(DType::kI32, {rows});
  measure("argmax of rows, float32", f32, [&] { gpu->arg_reduce(ReduceOp::kMax, In{a}, Out{positions}); });

  for (const int64_t n : {64, 1024, 4096, 16384, 65536}) {
    char line[64];
    const auto shaped = [&](const View& v) { return with_strides(v, {big / n, n}, {n, 1}); };
    std::snprintf(line, sizeof line, "softmax float32 [%lld, %lld]", static_cast<long long>(big / n), static_cast<long long>(n));
    measure(line, 2 * f32, [&] { gpu->softmax(In{shaped(a)}, Out{shaped(c)}); });
    std::snprintf(line, sizeof line, "softmax bfloat16 [%lld, %lld]", static_cast<long long>(big / n), static_cast<long long>(n));
    measure(line, 2 * bf16, [&] { gpu->softmax(In{shaped(p)}, Out{shaped(r)}); });
    std::snprintf(line, sizeof line, "softmax gradient bfloat16 [.., %lld]", static_cast<long long>(n));
    measure(line, 3 * bf16, [&] { gpu->softmax_grad(In{shaped(p)}, In{shaped(q)}, Out{shaped(r)}); });
  }

  const View ids = array(DType::kI32, {65536}, 16384);
  const View ids_rows = with_strides(ids, {65536, 4096}, {1, 0}), table = with_strides(p, {16384, 4096}, {4096, 1});
  const View gathered = with_strides(r, {65536, 4096}, {4096, 1}), table_f32 = with_strides(c, {16384, 4096}, {4096, 1});
  const View values_f32 = with_strides(a, {65536, 4096}, {4096, 1});
  measure("gather rows bfloat16 [65536, 4096]", bytes_of(gathered) * 2, [&] { gpu->gather(In{table}, In{ids_rows}, 0, Out{gathered}); });
  measure("scatter_add rows float32 [65536, 4096]", bytes_of(values_f32) + 2 * bytes_of(table_f32),
          [&] { gpu->scatter_add(In{values_f32}, In{ids_rows}, 0, InOut{table_f32}); });
  const View line = with_strides(a, {big}, {1}), line_out = with_strides(c, {big}, {1});
  measure("cumsum float32 [268435456]", 2 * f32, [&] { gpu->cumsum(In{line}, 0, false, Out{line_out}); });
  measure("cumsum of rows, float32", 2 * f32, [&] { gpu->cumsum(In{a}, 1, false, Out{c}); });
  measure("cumsum of columns, float32", 2 * f32, [&] { gpu->cumsum(In{a}, 0, false, Out{c}); });
  const auto sort_case = [&](const char* name, std::vector<int64_t> shape, int64_t k) {
    const View x = with_strides(a, shape, {shape[1], 1}), out = with_strides(c, {shape[0], k}, {k, 1});
    View order = out;
    order.dtype = DType::kI32;
    measure(name, bytes_of(x) + bytes_of(order), [&] {
      if (k == shape[1]) gpu->argsort(In{x}, false, Out{order});
      else gpu->top_k(In{x}, true, Out{order});
    });
  };
  sort_case("argsort float32 [4096, 1024]", {4096, 1024}, 1024);
  sort_case("argsort float32 [64, 65536]", {64, 65536}, 65536);
  sort_case("argsort float32 [1, 4194304]", {1, 4194304}, 4194304);
  sort_case("top 2 of float32 [65536, 64]", {65536, 64}, 2);
  sort_case("top 64 of float32 [256, 131072]", {256, 131072}, 64);
  return 0;
}
