// Times the kernels of layers and losses on arrays of a language model, bfloat16, beside a copy of memory: the bytes
// that a kernel must move, over its time, should come near the copy's rate.
#include "bench.h"

namespace llmeff::bench {
namespace {

constexpr int kCalls = 8;

void run(Gpu& gpu, int64_t rows, int64_t width, double copy) {
  const DType b = DType::kBF16, f = DType::kF32;
  const double array = 2.0 * static_cast<double>(rows * width);
  const auto print = [&](const char* name, double bytes, double seconds) {
    std::printf("  %-24s %8.1f us  %.3f TB/s, %.3f of the copy\n", name, seconds * 1e6, bytes / seconds * 1e-12,
                bytes / seconds / copy);
  };
  const auto time = [&](auto&& work) { return gpu.time(work, 10, kCalls); };
  std::printf("[%lld, %lld]\n", static_cast<long long>(rows), static_cast<long long>(width));
  const View x = gpu.random(b, {rows, width}), y = gpu.random(b, {rows, width}), z = gpu.random(b, {rows, width}),
             u = gpu.random(b, {rows, width}), dx = gpu.random(b, {rows, width}), weight = gpu.random(b, {width}),
             bias = gpu.random(b, {width}), dweight = gpu.random(b, {width}), dbias = gpu.random(b, {width}),
             mean = gpu.random(f, {rows}), rstd = gpu.random(f, {rows}, 1, 2);
  auto& k = *gpu.kernels;
  print(
      "copy of one array", 2 * array, time([&] {
        LLMEFF_CUDA(cudaMemcpyAsync(y.data, x.data, static_cast<size_t>(array), cudaMemcpyDeviceToDevice, gpu.stream));
      }));
  print("rms_norm", 2 * array, time([&] { k.rms_norm(In{x}, {}, In{weight}, 0, 1e-5, {}, Out{y}, Out{rstd}); }));
  print("rms_norm, residual", 4 * array,
        time([&] { k.rms_norm(In{x}, In{z}, In{weight}, 0, 1e-5, Out{u}, Out{y}, Out{rstd}); }));
  print("rms_norm_grad, dsum", 4 * array,
        time([&] { k.rms_norm_grad(In{y}, In{z}, In{x}, In{weight}, 0, In{rstd}, Out{dx}, Out{dweight}); }));
  print("layer_norm", 2 * array,
        time([&] { k.layer_norm(In{x}, {}, In{weight}, In{bias}, 1e-5, {}, Out{y}, Out{mean}, Out{rstd}); }));
  print("layer_norm_grad, dsum", 4 * array, time([&] {
          k.layer_norm_grad(In{y}, In{z}, In{x}, In{weight}, In{mean}, In{rstd}, Out{dx}, Out{dweight}, Out{dbias});
        }));
  print("swiglu", 3 * array, time([&] { k.swiglu(In{x}, In{z}, Out{y}); }));
  print("swiglu_grad", 5 * array, time([&] { k.swiglu_grad(In{y}, In{x}, In{z}, Out{u}, Out{dx}); }));
  // q of a fused product of q, k and v.
  const int64_t length = 1024, size = 64, heads = width / size;
  const View qkv = gpu.random(b, {rows / length, length, 3 * width}), cos = gpu.random(f, {length, size / 2}),
             sin = gpu.random(f, {length, size / 2});
  View q = row_major(qkv.data, b, {rows / length, length, heads, size});
  q.strides[0] = length * 3 * width, q.strides[1] = 3 * width;
  const View turned = row_major(y.data, b, {rows / length, length, heads, size});
  print("rope of q", 2 * array, time([&] { k.rope(In{q}, In{cos}, In{sin}, false, false, Out{turned}); }));
  print("rope, interleaved", 2 * array, time([&] { k.rope(In{q}, In{cos}, In{sin}, true, false, Out{turned}); }));
  const int vocabulary = 50304;
  const View ids = gpu.integers({rows}, vocabulary), table = gpu.random(b, {vocabulary, width}),
             same = gpu.integers({rows}, 1), few = gpu.integers({rows}, 20);
  const double tables = 2.0 * static_cast<double>(vocabulary * width);
  print("embedding", 2 * array, time([&] { k.embedding(In{table}, In{ids}, Out{y}); }));
  print("embedding_grad", array + tables, time([&] { k.embedding_grad(In{y}, In{ids}, Out{table}); }));
  print("embedding_grad, 20 ids", array + tables, time([&] { k.embedding_grad(In{y}, In{few}, Out{table}); }));
  print("embedding_grad, one id", array + tables, time([&] { k.embedding_grad(In{y}, In{same}, Out{table}); }));
  for (const View* v : {&x, &y, &z, &u, &dx, &weight, &bias, &dweight, &dbias, &mean, &rstd, &qkv, &cos, &sin, &ids,
                        &table, &same, &few})
    LLMEFF_CUDA(cudaFree(v->data));
}

void losses(Gpu& gpu, int64_t rows, int64_t vocabulary, int64_t width, double copy) {
  const DType b = DType::kBF16, f = DType::kF32;
  const View targets = gpu.integers({rows}, static_cast<int>(vocabulary)), ce = gpu.random(f, {rows}),
             lse = gpu.random(f, {rows}), loss = gpu.random(f, {}), stats = gpu.random(f, {3});
  auto& k = *gpu.kernels;
  {
    const View logits = gpu.random(b, {rows, vocabulary}, -4, 4), dlogits = gpu.random(b, {rows, vocabulary});
    const double array = 2.0 * static_cast<double>(rows * vocabulary);
    const auto print = [&](const char* name, double bytes, double seconds) {
      std::printf("  %-24s %8.1f us  %.3f TB/s, %.3f of the copy\n", name, seconds * 1e6, bytes / seconds * 1e-12,
                  bytes / seconds / copy);
    };
    std::printf("logits [%lld, %lld]\n", static_cast<long long>(rows), static_cast<long long>(vocabulary));
    print("cross_entropy", array, gpu.time([&] {
      k.cross_entropy(In{logits}, In{targets}, -100, 0, 0, 0, Out{loss}, Out{stats}, Out{ce}, Out{lse});
    }));
    print("cross_entropy, softcap", array, gpu.time([&] {
      k.cross_entropy(In{logits}, In{targets}, -100, 0.1, 1e-4, 30, Out{loss}, Out{stats}, Out{ce}, Out{lse});
    }));
    print("cross_entropy_grad", 2 * array, gpu.time([&] {
      k.cross_entropy_grad(In{loss}, In{logits}, In{targets}, In{stats}, In{lse}, -100, 0, 0, 0, Out{dlogits});
    }));
    LLMEFF_CUDA(cudaFree(logits.data));
    LLMEFF_CUDA(cudaFree(dlogits.data));
  }
  const View hidden = gpu.random(b, {rows, width}), weight = gpu.random(b, {vocabulary, width}, -0.1f, 0.1f),
             dhidden = gpu.random(f, {rows, width}), dweight = gpu.random(f, {vocabulary, width});
  const double product = 2.0 * static_cast<double>(rows) * static_cast<double>(vocabulary) * static_cast<double>(width);
  const auto linear = [&](const Out& dh, const Out& dw) {
    return gpu.time(
        [&] {
          k.linear_cross_entropy(In{hidden}, In{weight}, In{targets}, -100, 0, 0, 0, Out{loss}, Out{stats}, Out{ce}, dh,
                                 dw);
        },
        5);
  };
  const double all = linear(Out{dhidden}, Out{dweight}), forward = linear({}, {});
  std::printf("  linear_cross_entropy     %8.2f ms, %.0f TFLOP/s of 3 products; loss alone %.2f ms\n", all * 1e3,
              3 * product / all * 1e-12, forward * 1e3);
  for (const View* v : {&targets, &ce, &lse, &loss, &stats, &hidden, &weight, &dhidden, &dweight})
    LLMEFF_CUDA(cudaFree(v->data));
}

}  // namespace
}  // namespace llmeff::bench

int main() {
  using namespace llmeff::bench;
  std::setvbuf(stdout, nullptr, _IOLBF, BUFSIZ);
  Gpu gpu;
  const size_t bytes = size_t{2} << 30;
  void *from, *to;
  LLMEFF_CUDA(cudaMalloc(&from, bytes));
  LLMEFF_CUDA(cudaMalloc(&to, bytes));
  LLMEFF_CUDA(cudaMemsetAsync(from, 0x5A, bytes, gpu.stream));
  const double copy = 2.0 * static_cast<double>(bytes) / gpu.time([&] {
    LLMEFF_CUDA(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, gpu.stream));
  });
  std::printf("copy of 2 GiB: %.3f TB/s\n", copy * 1e-12);
  LLMEFF_CUDA(cudaFree(from));
  LLMEFF_CUDA(cudaFree(to));
  run(gpu, 32768, 768, copy);
  run(gpu, 32768, 2048, copy);
  losses(gpu, 32768, 50304, 768, copy);
}
