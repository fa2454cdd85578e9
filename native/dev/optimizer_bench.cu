// Times the optimizers beside a copy of memory in the same run: about 1.007 G float32 parameters in 60 tensors of 2^24,
// and a model of 124 M parameters in 148 tensors. Bytes are those of the table in the kernels: AdamW 28 a parameter,
// SONew of band b 4(7 + 2b), with a graft 4(9 + 2b). optimizer_bench.py times torch's fused AdamW.
//
// On an H200 (copy 4.26 TB/s; torch 2.11 3.30), of the copy's rate, for the large list:
//   AdamW   tiles of a thread 4: 0.979   2: 0.988   1: 0.997
//   SONew   2 tiles, two blocks a multiprocessor                              0.765, grafted 0.745
//           three blocks (80 registers)                                       0.908
//             the last block of a tensor adds up its sums                              grafted 0.838
//             a kernel of its own does, blocks leave once they have stored             grafted 0.891
//             the same, groups of 2^24 elements: more launches than the cache saves    grafted 0.828
//             groups of 2^28: a gigabyte of scratch memory                             grafted 0.911
//             loads and stores of the state marked as streaming               0.877    grafted 0.887
//           1 tile, four blocks (64 registers): twice the borders and sums    0.877    grafted 0.842
#include "bench.h"

namespace llmeff::bench {
namespace {

template <class V>
List<V> list(const std::vector<V>& views) {
  return {views.data(), static_cast<int64_t>(views.size())};
}

double copy_rate(Gpu& gpu) {
  const size_t bytes = size_t{4} << 30;
  void *from, *to;
  LLMEFF_CUDA(cudaMalloc(&from, bytes));
  LLMEFF_CUDA(cudaMalloc(&to, bytes));
  LLMEFF_CUDA(cudaMemsetAsync(from, 0x5A, bytes, gpu.stream));
  const double seconds =
      gpu.time([&] { LLMEFF_CUDA(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, gpu.stream)); });
  LLMEFF_CUDA(cudaFree(from));
  LLMEFF_CUDA(cudaFree(to));
  const double rate = 2.0 * static_cast<double>(bytes) / seconds;
  std::printf("copy of 4 GiB: %.3f TB/s\n", rate * 1e-12);
  return rate;
}

void run(Gpu& gpu, const char* what, const std::vector<int64_t>& sizes, double copy) {
  constexpr int kMostBand = 10;
  std::vector<InOut> p, m, v, narrow_m;
  std::vector<std::vector<InOut>> edges(kMostBand), narrow_diagonals(2);
  std::vector<In> g;
  std::vector<InOut> copies;
  std::vector<int64_t> chains(sizes.size(), 0);
  double n = 0;
  for (const int64_t size : sizes) {
    p.push_back(InOut{gpu.random(DType::kF32, {size})});
    g.push_back(In{gpu.random(DType::kF32, {size})});
    m.push_back(InOut{gpu.random(DType::kF32, {size})});
    v.push_back(InOut{gpu.random(DType::kF32, {size}, 0.5f, 1)});
    for (auto& diagonal : edges) diagonal.push_back(InOut{gpu.random(DType::kF32, {size}, -0.05f, 0.05f)});
    narrow_m.push_back(InOut{gpu.random(DType::kBF16, {size})});
    narrow_diagonals[0].push_back(InOut{gpu.random(DType::kBF16, {size}, 0.5f, 1)});
    narrow_diagonals[1].push_back(InOut{gpu.random(DType::kBF16, {size}, -0.05f, 0.05f)});
    copies.push_back(InOut{gpu.random(DType::kBF16, {size})});
    n += static_cast<double>(size);
  }
  std::printf("%s: %.4g M parameters, %zu tensors\n", what, n * 1e-6, sizes.size());
  const auto print = [&](const char* name, double bytes, double seconds) {
    const double rate = bytes * n / seconds;
    std::printf("  %-28s %8.3f ms  %.0f B: %.3f TB/s, %.3f of the copy\n", name, seconds * 1e3, bytes, rate * 1e-12,
                rate / copy);
  };
  std::vector<InOut> states;
  for (const auto* arrays : {&m, &v, &edges[0]}) states.insert(states.end(), arrays->begin(), arrays->end());
  const auto step = [&](UpdateRule rule, int64_t state_count, const std::vector<double>& factors,
                        const List<InOut>& copies) {
    gpu.kernels->optimizer_step(rule, list(p), copies, list(g),
                                {states.data(), state_count * static_cast<int64_t>(p.size())},
                                {factors.data(), static_cast<int64_t>(factors.size())}, {});
  };
  const std::vector<double> adam = {0, 0.99, 0.9, 0.1, 0.999, 0.001, 10, 1e-8, 1e-3, 0};
  const std::vector<int64_t> ids(sizes.size(), 0);
  const auto sonew_of = [&](const List<InOut>& copies, Graft graft, bool relative, const std::vector<InOut>& first,
                            const std::vector<InOut>& diagonals, bool isolate) {
    gpu.kernels->sonew_step(list(p), copies, list(g), list(first), list(diagonals), {}, list(chains), list(ids), {},
                            1e-3, 0.9, 0.99, 1e-8, relative, 1e-6, false, isolate, graft, 1e-8, true, 0.01, 10, 0, {});
  };
  const auto diagonals_of = [&](int band) {
    std::vector<InOut> all = v;
    for (int k = 0; k < band; ++k) all.insert(all.end(), edges[k].begin(), edges[k].end());
    return all;
  };
  const auto sonew = [&](const List<InOut>& copies, Graft graft, bool relative) {
    sonew_of(copies, graft, relative, m, diagonals_of(1), false);
  };
  print("SGD", 12, gpu.time([&] { step(UpdateRule::kSgd, 0, {0, 1, 1e-3}, {}); }));
  print("SGD, momentum", 20, gpu.time([&] { step(UpdateRule::kMomentum, 1, {0, 1, 0.9, 1, 1e-3, 0}, {}); }));
  print("RMSprop", 20, gpu.time([&] { step(UpdateRule::kRmsprop, 1, {0, 1, 0.99, 0.01, 1e-8, 0, 1e-3}, {}); }));
  print("Lion", 20, gpu.time([&] { step(UpdateRule::kLion, 1, {1, 0.9, 0.1, 0.99, 0.01, 1e-4}, {}); }));
  print("AdamW", 28, gpu.time([&] { step(UpdateRule::kAdam, 2, adam, {}); }));
  print("AdamW, copies", 30, gpu.time([&] { step(UpdateRule::kAdam, 2, adam, list(copies)); }));
  print("AdamW, amsgrad", 36, gpu.time([&] { step(UpdateRule::kAmsgrad, 3, adam, {}); }));
  print("Schedule-Free AdamW", 28, gpu.time([&] {
    step(UpdateRule::kScheduleFree, 2, {0.999, 0.001, 10, 1e-8, 0.01, 0.9, 0.1, 1e-3, 1e-3}, {});
  }));
  print("SONew", 36, gpu.time([&] { sonew({}, Graft::kNone, false); }));
  print("SONew, Adam graft", 44, gpu.time([&] { sonew({}, Graft::kAdam, false); }));
  print("SONew, Adam graft, copies", 46, gpu.time([&] { sonew(list(copies), Graft::kAdam, false); }));
  print("SONew, graft, relative eps", 56, gpu.time([&] { sonew({}, Graft::kAdam, true); }, 5));
  for (const int band : {0, 2, 4, 10}) {
    const std::vector<InOut> diagonals = diagonals_of(band);
    char name[40];
    std::snprintf(name, sizeof name, "SONew, band %d", band);
    print(name, 28 + 8 * band, gpu.time([&] { sonew_of({}, Graft::kNone, false, m, diagonals, false); }));
    std::snprintf(name, sizeof name, "SONew, band %d, Adam graft", band);
    print(name, 36 + 8 * band, gpu.time([&] { sonew_of({}, Graft::kAdam, false, m, diagonals, false); }));
  }
  const std::vector<InOut> four = diagonals_of(4);
  print("SONew, band 4, isolate", 60, gpu.time([&] { sonew_of({}, Graft::kNone, false, m, four, true); }));
  std::vector<InOut> narrow = narrow_diagonals[0];
  narrow.insert(narrow.end(), narrow_diagonals[1].begin(), narrow_diagonals[1].end());
  print("SONew, bfloat16 state", 24, gpu.time([&] { sonew_of({}, Graft::kNone, false, narrow_m, narrow, false); }));
  float* norm;
  LLMEFF_CUDA(cudaMalloc(&norm, 4));
  print("global norm", 4, gpu.time([&] { gpu.kernels->global_norm(list(g), Out{row_major(norm, DType::kF32, {})}); }));
  LLMEFF_CUDA(cudaFree(norm));
  std::vector<std::vector<InOut>> made = {p, m, v, narrow_m};
  made.insert(made.end(), edges.begin(), edges.end());
  made.insert(made.end(), narrow_diagonals.begin(), narrow_diagonals.end());
  for (const auto& arrays : made)
    for (const View& view : arrays) LLMEFF_CUDA(cudaFree(view.data));
  for (const View& view : g) LLMEFF_CUDA(cudaFree(view.data));
  for (const View& view : copies) LLMEFF_CUDA(cudaFree(view.data));
}

// GPT-2's smallest: embeddings, and twelve blocks.
std::vector<int64_t> gpt2_sizes() {
  std::vector<int64_t> sizes = {50304 * 768, 1024 * 768};
  for (int layer = 0; layer < 12; ++layer)
    for (const int64_t n : {768, 768, 768 * 2304, 2304, 768 * 768, 768, 768, 768, 768 * 3072, 3072, 3072 * 768, 768})
      sizes.push_back(n);
  sizes.insert(sizes.end(), {768, 768});
  return sizes;
}

}  // namespace
}  // namespace llmeff::bench

int main() {
  using namespace llmeff::bench;
  std::setvbuf(stdout, nullptr, _IOLBF, BUFSIZ);
  Gpu gpu;
  const double copy = copy_rate(gpu);
  run(gpu, "60 tensors of 2^24", std::vector<int64_t>(60, int64_t{1} << 24), copy);
  run(gpu, "GPT-2", gpt2_sizes(), copy);
  copy_rate(gpu);
}
