// 2-simplicial attention on the GPU: both forms, every kind of window, offset, group and odd size; and the identities
// of its gradients.
#include "lab.h"
#include "simplicial_reference.h"

namespace llmeff::test {
namespace {

constexpr bool kCausal = true, kAll = false, kDeterminant = true, kTrilinear = false;

constexpr SimplicialCase kCases[] = {
    // name, batch, tokens, s1, s2, heads, kv heads, d, dv, causal, w1, w2, offsets of q, k1, k2, form, biases, scale
    {"one token", 1, 1, 1, 1, 2, 1, 8, 8, kCausal, 512, 32, 0, 0, 0, kTrilinear, 0, 0, 0},
    {"one channel", 2, 5, 5, 5, 2, 2, 1, 1, kCausal, 3, 2, 0, 0, 0, kTrilinear, 0, 0, 0},
    {"windows of 1", 1, 6, 6, 6, 2, 1, 8, 8, kCausal, 1, 1, 0, 0, 0, kTrilinear, 0, 0, 0},
    {"w2 = 1", 2, 12, 12, 12, 4, 2, 8, 8, kCausal, 5, 1, 0, 0, 0, kTrilinear, 0.1, 1, 0},
    {"w1 < w2", 1, 19, 19, 19, 2, 1, 9, 10, kCausal, 3, 11, 0, 0, 0, kTrilinear, 0.125, 1, 0},
    {"w1 = 1 < w2", 1, 9, 9, 9, 3, 1, 7, 5, kCausal, 1, 4, 0, 0, 0, kDeterminant, 0.2, 0.5, 0},
    {"no windows", 2, 33, 33, 33, 4, 4, 32, 32, kCausal, 0, 0, 0, 0, 0, kTrilinear, 0, 0, 0},
    {"window past the end", 1, 11, 11, 11, 2, 1, 8, 8, kCausal, 64, 32, 0, 0, 0, kTrilinear, 0, 0, 0},
    {"one window only", 1, 40, 40, 40, 2, 1, 16, 16, kCausal, 0, 3, 0, 0, 0, kTrilinear, 0, 0, 0},
    {"keys in segments", 1, 3, 2090, 2090, 2, 1, 9, 8, kCausal, 0, 2, 2087, 0, 0, kTrilinear, 0.1, 0, 0},
    {"keys in segments, some chunks without", 1, 21, 2060, 40, 2, 1, 4, 4, kCausal, 0, 3, 2038, 0, 2020, kTrilinear, 0,
     0, 0},
    {"keys in segments, all pairs, determinant", 1, 2, 2, 4100, 17, 1, 7, 5, kAll, 0, 0, 0, 0, 0, kDeterminant, 0, 0.5,
     0},
    {"keys in segments, large group", 1, 2, 2050, 2050, 16, 1, 4, 4, kCausal, 0, 1, 2048, 0, 0, kTrilinear, 0, 0, 0},
    {"long side second", 1, 40, 40, 40, 2, 1, 16, 16, kCausal, 5, 0, 0, 0, 0, kTrilinear, 0.3, 1, 0},
    {"training", 2, 70, 70, 70, 4, 1, 32, 32, kCausal, 32, 8, 0, 0, 0, kTrilinear, 1.0 / 32, 1, 0},
    {"rows of 13, keys of 47", 1, 50, 50, 50, 1, 1, 20, 24, kCausal, 47, 13, 0, 0, 0, kTrilinear, 0, 0, 0},
    {"rows of 49, keys of 129", 1, 4, 140, 140, 2, 1, 33, 31, kCausal, 129, 49, 136, 0, 0, kTrilinear, 0, 0, 0},
    {"keys of 127", 1, 3, 140, 140, 3, 1, 17, 16, kCausal, 127, 7, 137, 0, 0, kTrilinear, 0, 0, 0},
    {"many heads of a group", 1, 9, 9, 9, 67, 1, 24, 40, kCausal, 6, 4, 0, 0, 0, kTrilinear, 0.1, 1, 0},
    {"group of 24, two kv heads", 2, 6, 6, 6, 48, 2, 16, 15, kCausal, 4, 5, 0, 0, 0, kTrilinear, 0, 0, 0},
    {"group of 64, long window", 1, 2, 150, 150, 64, 1, 32, 32, kCausal, 140, 3, 148, 0, 0, kTrilinear, 0, 0, 0},
    {"group of 30, determinant", 1, 5, 5, 5, 30, 1, 13, 9, kCausal, 3, 2, 0, 0, 0, kDeterminant, 0.1, 1, 0},
    {"determinant, D = 6", 1, 9, 9, 9, 2, 1, 6, 6, kCausal, 4, 3, 0, 0, 0, kDeterminant, 0, 0, 0},
    {"determinant, D mod 3 = 2, swapped", 2, 14, 14, 14, 4, 2, 35, 8, kCausal, 4, 9, 0, 0, 0, kDeterminant, 0.1, 1, 0},
    {"determinant, D = 2", 1, 5, 5, 5, 1, 1, 2, 2, kCausal, 4, 3, 0, 0, 0, kDeterminant, 0, 0, 1},
    {"determinant, no windows", 1, 21, 21, 21, 2, 2, 24, 24, kCausal, 0, 0, 0, 0, 0, kDeterminant, 0, 0, 0},
    {"decode", 2, 1, 40, 40, 8, 2, 16, 16, kCausal, 24, 8, 39, 0, 0, kTrilinear, 0, 0, 0},
    {"prefill chunk of two lengths", 1, 7, 20, 13, 4, 2, 12, 8, kCausal, 9, 5, 30, 17, 24, kTrilinear, 0.2, 1, 0},
    {"prefill chunk, determinant", 1, 7, 20, 13, 2, 1, 12, 8, kCausal, 9, 5, 30, 17, 24, kDeterminant, 0.2, 1, 0},
    {"ring of two lengths", 1, 2, 9, 5, 4, 1, 16, 16, kAll, 0, 0, 0, 0, 0, kTrilinear, 0, 0, 0},
    {"all pairs", 2, 17, 17, 17, 2, 1, 8, 12, kAll, 0, 0, 0, 0, 0, kTrilinear, 0.1, 1, 0.5},
    {"all pairs, fewer first rows, determinant", 1, 3, 4, 18, 2, 1, 10, 8, kAll, 0, 0, 0, 0, 0, kDeterminant, 0.1, 1,
     0.5},
    {"rows without keys", 1, 6, 4, 4, 2, 1, 8, 8, kCausal, 3, 2, 0, 2, 2, kTrilinear, 0, 0, 0},
    {"training, tiles of tensor cores", 1, 150, 150, 150, 8, 2, 64, 64, kCausal, 70, 16, 0, 0, 0, kTrilinear, 0, 0, 0},
    {"group of 64", 1, 40, 40, 40, 64, 1, 128, 128, kCausal, 24, 32, 0, 0, 0, kTrilinear, 0.1, 1, 0},
    {"long window, determinant", 1, 12, 300, 300, 4, 1, 128, 64, kCausal, 280, 8, 288, 0, 0, kDeterminant, 0.1, 0, 0},
    {"long short window", 1, 9, 400, 300, 2, 1, 64, 64, kCausal, 300, 150, 391, 0, 100, kTrilinear, 0, 1, 0},
    {"many channels", 1, 20, 20, 20, 2, 1, 200, 150, kCausal, 9, 4, 0, 0, 0, kDeterminant, 0.1, 1, 0},
    {"more channels than a tile", 1, 11, 11, 11, 2, 1, 270, 290, kCausal, 6, 4, 0, 0, 0, kDeterminant, 0, 1, 0},
    {"large logits", 1, 12, 12, 12, 2, 1, 16, 16, kCausal, 6, 4, 0, 0, 0, kTrilinear, 0, 0, 60},
};

constexpr DType kDTypes[] = {DType::kF32, DType::kF64, DType::kBF16, DType::kF16};

// [B, N, H, D], or a view in that order of [B, H, N, D + pad].
Twin laid_out(DType dtype, int64_t b, int64_t n, int64_t h, int64_t d, int64_t pad) {
  if (pad < 0) return lab().uniform(dtype, {b, n, h, d}, 1.5);
  return lab().uniform(dtype, {b, h, n, d + pad}, 1.5).as({b, n, h, d}, {h * n * (d + pad), d + pad, n * (d + pad), 1});
}

struct Arrays {
  Twin q, k1, k2, v1, v2, dout, o, lse, dq, dk1, dk2, dv1, dv2;

  Arrays(DType dtype, const SimplicialCase& c, int64_t pad)
      : q(laid_out(dtype, c.batch, c.tokens, c.heads, c.d, pad)),
        k1(laid_out(dtype, c.batch, c.s1, c.kv_heads, c.d, pad)),
        k2(laid_out(dtype, c.batch, c.s2, c.kv_heads, c.d, pad)),
        v1(laid_out(dtype, c.batch, c.s1, c.kv_heads, c.dv, pad)),
        v2(laid_out(dtype, c.batch, c.s2, c.kv_heads, c.dv, pad)),
        dout(laid_out(dtype, c.batch, c.tokens, c.heads, c.dv, pad)),
        o(dtype, {c.batch, c.tokens, c.heads, c.dv}),
        lse(dtype == DType::kF64 ? DType::kF64 : DType::kF32, {c.batch, c.heads, c.tokens}),
        dq(dtype, {c.batch, c.tokens, c.heads, c.d}),
        dk1(dtype, {c.batch, c.s1, c.kv_heads, c.d}),
        dk2(dtype, {c.batch, c.s2, c.kv_heads, c.d}),
        dv1(dtype, {c.batch, c.s1, c.kv_heads, c.dv}),
        dv2(dtype, {c.batch, c.s2, c.kv_heads, c.dv}) {}

  template <class Side>
  void run(const SimplicialCase& c, Kernels& kernels, Side&& side) const {
    const auto in = [&](const Twin& twin) { return In{side(twin)}; };
    const auto out = [&](const Twin& twin) { return Out{side(twin)}; };
    kernels.simplicial_attention(in(q), in(k1), in(k2), in(v1), in(v2), c.factor(), c.causal, c.w1, c.w2, c.k2_bias,
                                 c.v2_bias, c.q_offset, c.k1_offset, c.k2_offset, c.determinant, out(o), out(lse));
    kernels.simplicial_attention_grad(in(dout), in(q), in(k1), in(k2), in(v1), in(v2), in(o), in(lse), c.factor(),
                                      c.causal, c.w1, c.w2, c.k2_bias, c.v2_bias, c.q_offset, c.k1_offset, c.k2_offset,
                                      c.determinant, out(dq), out(dk1), out(dk2), out(dv1), out(dv2));
  }
};

// ‖got − want‖ / ‖want‖, or an error of the size of what cancels where the gradient is zero (one pair for each row).
void expect_close(const char* name, const char* what, const Twin& twin, double tolerance) {
  const std::vector<double> got = twin.received(lab().cpu()), want = twin.wanted(lab().cpu());
  double difference = 0, norm = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    if (std::isinf(want[i]) && got[i] == want[i]) continue;
    difference += (got[i] - want[i]) * (got[i] - want[i]);
    norm += want[i] * want[i];
  }
  const double size = std::sqrt(norm) + 1e-2 * std::sqrt(static_cast<double>(want.size()));
  CHECK(std::sqrt(difference) <= tolerance * size, "%s (%s): %s is off by %g of %g", name, name_of(twin.dtype()), what,
        std::sqrt(difference), size);
}

// Of the pairs that the windows allow.
int64_t multiplications(const SimplicialCase& c) {
  const auto within = [](int64_t window, int64_t length) { return window > 0 && window < length ? window : length; };
  return c.batch * c.tokens * c.heads * within(c.w1, c.s1) * within(c.w2, c.s2) * (c.d + c.dv);
}

TEST(cuda_simplicial) {
  for (const DType dtype : kDTypes)
    for (const SimplicialCase& c : kCases)
      for (const int64_t pad : {-1, 3, 8}) {
        if (!fits(multiplications(c))) continue;
        // Rows padded by 8 can be copied 16 bytes at a time, which matters to 16-bit types; by 3 they can't.
        if (pad == 8 && rounding(dtype) <= rounding(DType::kF32)) continue;
        const Arrays x(dtype, c, pad);
        lab().both([&](Kernels& kernels, auto side) { x.run(c, kernels, side); });
        // simplicial-attention.md §11; in float16 an eighth of what bfloat16 may err by.
        const bool half = dtype == DType::kF16, narrow = half || dtype == DType::kBF16;
        const bool zero = c.s1 == 1 || (c.causal && c.w1 == 1 && c.w2 == 1);  // one pair for each row
        const double wide = 512 * rounding(dtype) * (c.scale > 1 ? 240 : 1);  // large logits lose some digits
        const double values = narrow ? (half ? 1e-2 / 8 : 1e-2) : wide,
                     keys = narrow ? 2 * values * (zero ? 100 : 1) : wide;
        if (narrow && c.scale > 1) {
          // The rounding of q∘k alone moves logits of hundreds by about one: they are still numbers.
          for (const Twin* twin : {&x.o, &x.lse, &x.dq, &x.dk1, &x.dk2, &x.dv1, &x.dv2})
            for (const double got : twin->received(lab().cpu()))
              CHECK(std::isfinite(got), "%s (%s): %g", c.name, name_of(dtype), got);
          continue;
        }
        expect_close(c.name, "o", x.o, values), expect_close(c.name, "lse", x.lse, narrow ? values : wide);
        expect_close(c.name, "dq", x.dq, keys), expect_close(c.name, "dk1", x.dk1, keys);
        expect_close(c.name, "dk2", x.dk2, keys), expect_close(c.name, "dv1", x.dv1, values);
        expect_close(c.name, "dv2", x.dv2, values);
      }
}

// Rescaling a channel of q against k1 or k2 changes nothing, so Σ dq∘q = Σ dk1∘k1 = Σ dk2∘k2 channel by channel (only
// their sum over channels in the determinant form), and Σ dv1∘v1 = Σ dv2∘v2 = Σ do∘o.
TEST(cuda_simplicial_gauge_identities) {
  for (const SimplicialCase& c : kCases) {
    if (c.k2_bias != 0 || c.v2_bias != 0 || !fits(multiplications(c))) continue;
    const Arrays x(DType::kF64, c, -1);
    x.run(c, lab().gpu(), [](const Twin& twin) -> const View& { return twin.device(); });
    LLMEFF_CUDA(cudaStreamSynchronize(lab().context().stream));
    const auto sums = [&](const Twin& a, const Twin& b, int64_t n, bool per_channel) {
      const std::vector<double> left = a.received(lab().cpu()), right = b.received(lab().cpu());
      std::vector<double> sum(static_cast<size_t>(per_channel ? n : 1));
      for (size_t i = 0; i < left.size(); ++i) sum[i % sum.size()] += left[i] * right[i];
      return sum;
    };
    const auto equal = [&](const char* what, const std::vector<double>& a, const std::vector<double>& b) {
      for (size_t i = 0; i < a.size(); ++i)
        CHECK(close(a[i], b[i], 1e-9), "%s: %s: %g and %g", c.name, what, a[i], b[i]);
    };
    const auto q = sums(x.dq, x.q, c.d, !c.determinant);
    equal("dq and dk1", q, sums(x.dk1, x.k1, c.d, !c.determinant));
    equal("dq and dk2", q, sums(x.dk2, x.k2, c.d, !c.determinant));
    const auto o = sums(x.dout, x.o, c.dv, true);
    equal("do and dv1", o, sums(x.dv1, x.v1, c.dv, true));
    equal("do and dv2", o, sums(x.dv2, x.v2, c.dv, true));
  }
}

// Same inputs, same bits: nothing depends on how blocks are scheduled.
TEST(cuda_simplicial_repeats) {
  const SimplicialCase c = {"training", 1, 200, 200, 200, 8, 2, 64, 64, kCausal, 64, 16, 0, 0, 0, kTrilinear, 0, 0, 0};
  for (const DType dtype : kDTypes) {
    const Arrays x(dtype, c, -1);
    std::vector<double> first;
    for (int run = 0; run < 3; ++run) {
      x.run(c, lab().gpu(), [](const Twin& twin) -> const View& { return twin.device(); });
      LLMEFF_CUDA(cudaStreamSynchronize(lab().context().stream));
      std::vector<double> all;
      for (const Twin* twin : {&x.o, &x.lse, &x.dq, &x.dk1, &x.dk2, &x.dv1, &x.dv2}) {
        const std::vector<double> got = twin->received(lab().cpu());
        all.insert(all.end(), got.begin(), got.end());
      }
      if (run == 0) first = all;
      CHECK(all == first, "%s, run %d differs", name_of(dtype), run);
    }
  }
}

TEST(cuda_simplicial_nan_reaches_the_output) {
  for (const DType dtype : kDTypes) {
    const SimplicialCase& c = kCases[6];
    Arrays x(dtype, c, -1);
    x.k2.values()[0] = NAN;
    x.k2.send(lab().cpu());
    x.run(c, lab().gpu(), [](const Twin& twin) -> const View& { return twin.device(); });
    LLMEFF_CUDA(cudaStreamSynchronize(lab().context().stream));
    CHECK(std::isnan(x.o.received(lab().cpu())[0]) && std::isnan(x.lse.received(lab().cpu())[0]) &&
              std::isnan(x.dq.received(lab().cpu())[0]),
          "%s lost the NaN", name_of(dtype));
  }
}

}  // namespace
}  // namespace llmeff::test
