// SONew on the GPU beside the CPU: all bands, sizes around every chunk, several tensors in one call, some of them not
// aligned, all grafts, both kinds of eps and of the stability rule, 16-bit gradients, copies and state.
#include <cstring>

#include "twins.h"

namespace llmeff::test {
namespace {

constexpr int64_t kMostBand = 10;

struct Hyper {
  int64_t band, chain;
  Graft graft;
  bool relative_eps, absolute_gamma, isolate, bias_correction;
  double gamma;
};

std::string describe(const Hyper& h) {
  return "band " + std::to_string(h.band) + " chain " + std::to_string(h.chain) + " graft " +
         std::to_string(static_cast<int>(h.graft)) + " relative " + std::to_string(h.relative_eps) + " isolate " +
         std::to_string(h.isolate) + " ";
}

// Diagonals whose sum beside the main one is `edges` at most, 0 where a chain has ended: with `edges` below the main
// diagonal all matrices are positive definite.
Twins diagonals_of(DType dtype, const std::vector<int64_t>& sizes, const Hyper& h, double edges) {
  Twins all = uniform(dtype, sizes, 0.1, 0.4);
  for (int64_t k = 1; k <= h.band; ++k) {
    Twins diagonal = uniform(dtype, sizes, edges / static_cast<double>(2 * h.band));
    for (size_t t = 0; t < sizes.size(); ++t) {
      const int64_t n = sizes[t], chain = h.chain > 0 ? h.chain : n, shift = t % 3 == 2;
      for (int64_t j = 0; j < n; ++j)
        if (j % chain + k >= chain || j + k >= n) diagonal[t].values()[j + shift] = 0;
      diagonal[t].send(lab().cpu());
    }
    all.insert(all.end(), diagonal.begin(), diagonal.end());
  }
  return all;
}

void check_sonew(DType dtype, DType grad_dtype, const std::vector<int64_t>& sizes, const Hyper& h, bool copied) {
  // Edges far below the diagonal pass every test of the stability rule, larger ones fail it here and there.
  const Twins p = uniform(dtype, sizes), m = uniform(dtype, sizes, 0.1),
              diagonals = diagonals_of(dtype, sizes, h, h.gamma > 0 ? 0.55 : 0.25),
              rms = h.graft == Graft::kRmspropNorm ? uniform(dtype, sizes, 0.1, 0.2) : Twins();
  const Twins copies = copied ? outputs(DType::kBF16, sizes) : Twins();
  const Twin scale = lab().uniform(dtype, {}, 0.1, 0.5);
  Twin dropped(DType::kF64, {});
  *dropped.values() = 5;
  dropped.send(lab().cpu());
  const std::vector<int64_t> chains(sizes.size(), h.chain), ids(sizes.size(), 0);
  for (int64_t step = 2; step <= 3; ++step) {
    const Twins g = uniform(grad_dtype, sizes, 0.5);
    lab().both([&](Kernels& kernels, auto side) {
      kernels.sonew_step(
          Views<InOut>(p, side), Views<InOut>(copies, side), Views<In>(g, side), Views<InOut>(m, side),
          Views<InOut>(diagonals, side), Views<InOut>(rms, side), {chains.data(), static_cast<int64_t>(chains.size())},
          {ids.data(), static_cast<int64_t>(ids.size())}, In{side(scale)}, 0.01, 0.9, 0.99, 1e-2, h.relative_eps,
          h.gamma, h.absolute_gamma, h.isolate, h.graft, 1e-3, h.bias_correction, 0.1, step, 0, InOut{side(dropped)});
    });
  }
  const std::string what = describe(h);
  // The state takes two roundings an average; in u those of a Schur complement enter at most (1 + h0 / eps)-fold, 101
  // or, with eps and γ times 1−β2² of the second step, 50 times that, in each of b eliminations of b vertices. A step
  // is of the order of lr.
  const double state = rounding(dtype) + 8 * arithmetic(dtype);
  expect_all((what + "m").c_str(), m, state);
  expect_all((what + "diagonal").c_str(), diagonals, state);
  if (!rms.empty()) expect_all((what + "rms").c_str(), rms, state);
  const double eliminations = static_cast<double>(std::max<int64_t>(1, h.band * h.band));
  const double step_error = (h.gamma > 0 ? 5050 : 101) * eliminations * arithmetic(dtype);
  expect_all((what + "p").c_str(), p, rounding(dtype) + step_error);
  if (copied) expect_all((what + "copy").c_str(), copies, rounding(DType::kBF16) + step_error);
  lab().expect(what + "dropped", dropped, 0);
}

// Arrays of one dtype on both sides, for state that the CPU has in bfloat16, too.
class Plain {
 public:
  Plain(DType dtype, int64_t n) : dtype_(dtype), host_(static_cast<size_t>(n * item_size(dtype))) {
    device_ = take_memory(host_.size());
    LLMEFF_CUDA(cudaMemset(device_, 0, host_.size()));
    LLMEFF_CUDA(cudaDeviceSynchronize());
  }
  Plain(const Plain&) = delete;
  ~Plain() { free_memory()[power_from(host_.size())].push_back(device_); }

  View host() { return row_major(host_.data(), dtype_, {count()}); }
  View device() { return row_major(device_, dtype_, {count()}); }
  int64_t count() const { return static_cast<int64_t>(host_.size()) / item_size(dtype_); }
  template <class T>
  T* values() {
    return reinterpret_cast<T*>(host_.data());
  }
  void send() {
    LLMEFF_CUDA(cudaMemcpy(device_, host_.data(), host_.size(), cudaMemcpyHostToDevice));
    LLMEFF_CUDA(cudaDeviceSynchronize());
  }
  std::vector<uint8_t> received() {
    std::vector<uint8_t> bytes(host_.size());
    LLMEFF_CUDA(cudaMemcpy(bytes.data(), device_, bytes.size(), cudaMemcpyDeviceToHost));
    return bytes;
  }

 private:
  DType dtype_;
  std::vector<uint8_t> host_;
  void* device_;
};

float from_bfloat16(uint16_t x) {
  const uint32_t bits = static_cast<uint32_t>(x) << 16;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

// The largest difference of bfloat16 numbers, and how many differ.
struct Difference {
  double largest = 0;
  int64_t count = 0;
};
Difference difference(Plain& x) {
  const std::vector<uint8_t> bytes = x.received();
  const auto* got = reinterpret_cast<const uint16_t*>(bytes.data());
  Difference found;
  for (int64_t j = 0; j < x.count(); ++j) {
    const double a = from_bfloat16(got[j]), b = from_bfloat16(x.values<uint16_t>()[j]);
    if (a == b) continue;
    ++found.count;
    found.largest = std::isnan(a - b) ? INFINITY : std::max(found.largest, std::fabs(a - b));
  }
  return found;
}

}  // namespace

TEST(cuda_tridiagonal_sonew_in_float64) {
  for (const int64_t chain : {0, 1, 2, 7, 1000, 2048, 5000})
    for (int graft = 0; graft < kGraftCount; ++graft)
      check_sonew(
          DType::kF64, DType::kF64, kSizes,
          {1, chain, static_cast<Graft>(graft), (chain + graft) % 2 == 1, graft % 2 == 0, false, chain % 3 != 0, 0.2},
          graft % 2 == 0);
}

TEST(cuda_banded_sonew_in_float64) {
  for (int64_t band = 0; band <= kMostBand; ++band)
    for (const int64_t chain : {0, 1, 2, 7, 1000, 1024, 5000})
      for (const bool isolate : {false, true}) {
        const int graft = static_cast<int>((band + chain + isolate) % kGraftCount);
        check_sonew(DType::kF64, DType::kF64, kSizes,
                    {band, chain, static_cast<Graft>(graft), (chain + graft) % 2 == 1, graft % 2 == 0, isolate,
                     chain % 3 != 0, 0.2},
                    graft % 2 == 0);
      }
}

// No edge is near the border of the stability rule, where rounding would decide.
TEST(cuda_sonew_in_float32) {
  for (const DType grad_dtype : grad_dtypes(DType::kF32))
    for (const int64_t band : {0, 1, 2, 4, 7, 10})
      for (const int64_t chain : {0, 3, 1500})
        for (int graft = 0; graft < kGraftCount; ++graft)
          for (const bool relative_eps : {false, true}) {
            if (band != 1 && (graft + chain + band) % 3 != 0) continue;
            check_sonew(DType::kF32, grad_dtype, kSizes,
                        {band, chain, static_cast<Graft>(graft), relative_eps, false, graft % 2 == 1, true, 0},
                        relative_eps);
          }
}

TEST(cuda_sonew_of_many_tensors) {
  for (const int64_t band : {0, 1, 3})
    for (const Graft graft : {Graft::kNone, Graft::kAdam, Graft::kRmspropNorm})
      check_sonew(DType::kF32, DType::kF32, std::vector<int64_t>(600, 37),
                  {band, 5, graft, graft == Graft::kAdam, false, false, true, 0}, false);
}

// The numbers that round the state are the CPU's: what differs are averages whose last bits differ. Numbers
// below 2 that are rounded to the other side differ by at most 2^-7.
TEST(cuda_sonew_rounds_bfloat16_state_as_the_cpu) {
  for (const int64_t band : {0, 1, 4, 10})
    for (const Graft graft : {Graft::kNone, Graft::kAdam, Graft::kRmspropNorm})
      for (const bool relative_eps : {false, true}) {
        const int64_t n = 50001, chain = graft == Graft::kAdam ? 1500 : 0, id = 5;
        Plain p(DType::kF32, n), g(DType::kF32, n), m(DType::kBF16, n), rms(DType::kBF16, n);
        std::vector<std::unique_ptr<Plain>> diagonals;
        for (int64_t k = 0; k <= band; ++k) diagonals.push_back(std::make_unique<Plain>(DType::kBF16, n));
        Numbers random(static_cast<uint64_t>(band));
        for (int64_t step = 1; step <= 3; ++step) {
          for (int64_t j = 0; j < n; ++j) g.values<float>()[j] = static_cast<float>(random());
          g.send();
          const auto call = [&](Kernels& kernels, auto side) {
            std::vector<InOut> h;
            for (const auto& diagonal : diagonals) h.push_back(InOut{side(*diagonal)});
            const InOut vp{side(p)}, vm{side(m)}, vr{side(rms)};
            const In vg{side(g)};
            kernels.sonew_step({&vp, 1}, {}, {&vg, 1}, {&vm, 1}, {h.data(), band + 1},
                               graft == Graft::kRmspropNorm ? List<InOut>{&vr, 1} : List<InOut>{}, {&chain, 1},
                               {&id, 1}, {}, 0.01, 0.9, 0.95, 1, relative_eps, 7.8e-3, false, band == 4, graft, 1e-8,
                               true, 0.1, step, 77, {});
          };
          call(lab().cpu(), [](Plain& x) { return x.host(); });
          lab().alone([&] { call(lab().gpu(), [](Plain& x) { return x.device(); }); });
        }
        const std::string what = "band " + std::to_string(band) + " graft " + std::to_string(static_cast<int>(graft));
        std::vector<Plain*> arrays = {&m};
        if (graft == Graft::kRmspropNorm) arrays.push_back(&rms);
        for (const auto& diagonal : diagonals) arrays.push_back(diagonal.get());
        for (size_t i = 0; i < arrays.size(); ++i) {
          const Difference found = difference(*arrays[i]);
          CHECK(found.largest <= 0x1p-7 && found.count < n / 1000, "%s array %zu: %ld differ, by up to %g",
                what.c_str(), i, static_cast<long>(found.count), found.largest);
        }
        const std::vector<uint8_t> bytes = p.received();
        const auto* got = reinterpret_cast<const float*>(bytes.data());
        double total = 0, differing = 0;
        for (int64_t j = 0; j < n; ++j) {
          const double error = static_cast<double>(got[j]) - static_cast<double>(p.values<float>()[j]);
          differing += error * error;
          total += static_cast<double>(got[j]) * static_cast<double>(got[j]);
        }
        CHECK(std::sqrt(differing / total) < 1e-3, "%s: p differs by %g", what.c_str(), std::sqrt(differing / total));
      }
}

// Results do not depend on what a run before left, nor on how blocks are scheduled.
TEST(cuda_sonew_gives_the_same_bits_twice) {
  for (const int64_t band : {0, 1, 4, 10}) {
    const int64_t n = 300001;
    std::vector<uint8_t> first;
    for (int attempt = 0; attempt < 3; ++attempt) {
      Plain p(DType::kF32, n), g(DType::kF32, n), m(DType::kF32, n);
      std::vector<std::unique_ptr<Plain>> diagonals;
      for (int64_t k = 0; k <= band; ++k) diagonals.push_back(std::make_unique<Plain>(DType::kF32, n));
      Numbers random(3);
      const int64_t chain = 0, id = 0;
      for (int64_t step = 1; step <= 3; ++step) {
        for (int64_t j = 0; j < n; ++j) g.values<float>()[j] = static_cast<float>(random());
        g.send();
        std::vector<InOut> h;
        for (const auto& diagonal : diagonals) h.push_back(InOut{diagonal->device()});
        const InOut vp{p.device()}, vm{m.device()};
        const In vg{g.device()};
        lab().alone([&] {
          lab().gpu().sonew_step({&vp, 1}, {}, {&vg, 1}, {&vm, 1}, {h.data(), band + 1}, {}, {&chain, 1}, {&id, 1}, {},
                                 0.01, 0.9, 0.95, 1e-8, false, 1e-6, false, false, Graft::kAdam, 1e-8, true, 0.1, step,
                                 0, {});
        });
      }
      if (attempt == 0) first = p.received();
      CHECK(first == p.received(), "band %ld", static_cast<long>(band));
    }
  }
}

}  // namespace llmeff::test
