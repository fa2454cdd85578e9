// Attention and its gradient on the GPU, over odd shapes, masks, layouts and dtypes.
#include "lab.h"

namespace llmeff::test {
namespace {

constexpr DType kDTypes[] = {DType::kF32, DType::kF64, DType::kBF16, DType::kF16};

struct Shape {
  int64_t b, t, s, h, k, d, dv;
  bool causal;
  int64_t window, q_offset;
  double softcap, magnitude;  // of q
  // Documents of this many positions (0: none), the last two positions padding; alternating ones leave gaps.
  int64_t document = 0;
  bool alternating = false;
  int64_t prefix = 0;  // of every second query, one less for the others
};

int32_t document_of(const Shape& x, int64_t i, int64_t n) {
  if (i >= n - 2) return -1;
  return static_cast<int32_t>(x.alternating ? i / x.document % 2 : i / x.document);
}

constexpr Shape kShapes[] = {
    {1, 1, 1, 1, 1, 1, 1, true, 0, 0, 0, 1},
    {2, 7, 7, 3, 3, 5, 5, true, 0, 0, 0, 1},
    {1, 64, 64, 4, 2, 32, 32, true, 0, 0, 0, 1},
    {2, 65, 65, 2, 1, 16, 24, true, 0, 0, 0, 1},
    {1, 63, 129, 2, 2, 64, 64, true, 0, 66, 0, 1},
    {1, 129, 129, 2, 2, 17, 9, true, 0, 0, 0, 1},
    {1, 128, 128, 2, 1, 128, 128, true, 0, 0, 0, 1},
    {2, 127, 127, 4, 2, 128, 128, false, 0, 0, 0, 1},
    {1, 200, 200, 1, 1, 64, 64, true, 33, 0, 0, 1},
    {1, 300, 300, 6, 2, 64, 128, true, 100, 0, 0, 1},
    {1, 150, 150, 2, 2, 80, 80, true, 0, 0, 0, 1},
    {1, 100, 100, 2, 1, 96, 40, true, 0, 0, 0, 1},
    {1, 100, 100, 2, 1, 192, 128, true, 0, 0, 0, 1},
    {1, 140, 140, 2, 1, 256, 256, true, 0, 0, 0, 1},
    {1, 70, 70, 1, 1, 257, 130, true, 0, 0, 0, 1},  // wider than a tile
    {1, 40, 40, 1, 1, 300, 320, false, 0, 0, 0, 1},
    {1, 40, 70, 3, 1, 65, 66, true, 0, 30, 0, 1},
    {1, 131, 131, 2, 1, 20, 20, false, 0, 0, 0, 1},
    {1, 131, 131, 2, 2, 20, 20, false, 17, 0, 0, 1},
    {1, 200, 200, 2, 2, 64, 64, false, 70, 0, 0, 1},
    {2, 1, 300, 8, 2, 64, 64, true, 0, 299, 0, 1},      // decoding
    {1, 1, 4000, 8, 1, 128, 128, true, 0, 3999, 0, 1},  // parts of the keys
    {1, 1, 3000, 2, 1, 64, 64, true, 700, 2999, 0, 1},
    {1, 5, 77, 4, 4, 8, 8, true, 0, 72, 0, 1},       // decoding several
    {1, 40, 10, 2, 1, 8, 8, true, 4, 0, 0, 1},       // late rows see nothing
    {1, 20, 30, 1, 1, 8, 8, true, 0, -6, 0, 1},      // early rows see nothing
    {1, 30, 70, 2, 2, 12, 12, false, 5, 100, 0, 1},  // no row sees anything
    {1, 90, 90, 2, 1, 32, 32, true, 0, 0, 5, 3},     // capped
    {1, 150, 150, 2, 1, 128, 128, true, 0, 0, 20, 3},
    {1, 70, 150, 2, 1, 16, 16, false, 40, 30, 20, 3},
    {1, 100, 100, 2, 2, 16, 16, true, 0, 0, 0, 60},  // nearly one-hot
    {1, 700, 700, 3, 1, 8, 8, true, 0, 0, 0, 1},
    {1, 100, 1100, 1, 1, 16, 8, false, 0, 0, 0, 1},
    {1, 4, 2100, 4, 1, 32, 16, true, 0, 2096, 10, 1},
    {2, 40, 40, 2, 2, 8, 8, true, 0, 0, 0, 1, 7},  // documents
    {1, 300, 300, 2, 1, 16, 16, true, 20, 0, 0, 1, 50},
    {1, 300, 300, 2, 1, 64, 64, false, 0, 0, 5, 3, 65},
    {2, 200, 200, 4, 2, 128, 128, true, 0, 0, 0, 1, 70},
    {2, 150, 150, 2, 1, 8, 8, true, 0, 0, 0, 1, 9, true},  // with gaps
    {1, 90, 200, 2, 1, 8, 8, true, 30, 100, 4, 3, 13, true, 20},
    {1, 20, 1500, 2, 2, 8, 8, true, 0, 1480, 0, 1, 100},
    {1, 150, 150, 2, 1, 64, 64, true, 0, 0, 0, 1, 0, false, 90},  // a prefix
    {2, 100, 100, 2, 1, 8, 8, true, 12, 0, 0, 1, 0, false, 40},
    {1, 130, 130, 1, 1, 8, 8, true, 0, 0, 0, 1, 33, false, 10},
    {2, 3, 400, 4, 2, 16, 12, true, 0, 397, 0, 1, 30, true},
    {1, 4, 300, 2, 1, 8, 8, true, 25, 200, 5, 3, 40, false, 260},
    {1, 6, 40, 1, 1, 8, 8, true, 0, -2, 0, 1},
    {1, 70, 70, 64, 1, 64, 64, true, 0, 0, 0, 1},  // a tile for each query
    {1, 23, 23, 96, 2, 16, 16, true, 0, 0, 0, 1},
};

// [B, N, H, D], or a view in that order of [B, H, N, D + pad].
Twin laid_out(DType dtype, int64_t b, int64_t n, int64_t h, int64_t d, int64_t pad, double magnitude) {
  if (pad < 0) return lab().uniform(dtype, {b, n, h, d}, magnitude);
  return lab()
      .uniform(dtype, {b, h, n, d + pad}, magnitude)
      .as({b, n, h, d}, {h * n * (d + pad), d + pad, n * (d + pad), 1});
}

// A gradient [B, N, H, D]; its rows, with pad ≥ 0, with a gap of so many elements behind the heads.
Twin gradient_place(DType dtype, int64_t b, int64_t n, int64_t h, int64_t d, int64_t pad) {
  if (pad < 0) return Twin(dtype, {b, n, h, d});
  const int64_t row = h * d + pad;
  return Twin(dtype, {b, n, row}).as({b, n, h, d}, {n * row, row, d, 1});
}

void check(DType dtype, const Shape& x, int index, int64_t pad) {
  const double scale = 1 / std::sqrt(static_cast<double>(x.d));
  const DType stat = dtype == DType::kF64 ? DType::kF64 : DType::kF32;
  const Twin q = laid_out(dtype, x.b, x.t, x.h, x.d, pad, x.magnitude), k = laid_out(dtype, x.b, x.s, x.k, x.d, pad, 1);
  const Twin v = laid_out(dtype, x.b, x.s, x.k, x.dv, pad, 1), dout = laid_out(dtype, x.b, x.t, x.h, x.dv, pad, 1);
  const Twin dlse = index % 2 == 0 ? Twin() : lab().uniform(stat, {x.b, x.h, x.t});
  Twin q_doc, k_doc, prefix;
  if (x.document > 0) {
    q_doc = Twin(DType::kI32, {x.t}), k_doc = Twin(DType::kI32, {x.s});
    for (int64_t t = 0; t < x.t; ++t) q_doc.integers()[t] = document_of(x, t, x.t);
    for (int64_t j = 0; j < x.s; ++j) k_doc.integers()[j] = document_of(x, j, x.s);
    q_doc.send(lab().cpu()), k_doc.send(lab().cpu());
    q_doc = q_doc.as({x.b, x.t}, {0, 1}), k_doc = k_doc.as({x.b, x.s}, {0, 1});
  }
  if (x.prefix > 0) {
    prefix = Twin(DType::kI32, {x.t});
    for (int64_t t = 0; t < x.t; ++t) prefix.integers()[t] = static_cast<int32_t>(x.prefix - t % 2);
    prefix.send(lab().cpu());
    prefix = prefix.as({x.b, x.t}, {0, 1});
  }
  // Of queries and keys at the same positions most gradients are turned back, all channels or half of them.
  const int64_t half = index % 2 == 0 || x.d == 64 ? x.d / 2 : x.d / 4;
  const bool turned = x.t == x.s && half > 0 && index % 5 != 4, interleaved = (index + (pad > 0 ? 1 : 0)) % 3 == 1;
  const Twin cos = turned ? lab().uniform(stat, {x.t, half}) : Twin(),
             sin = turned ? lab().uniform(stat, {x.t, half}) : Twin();
  const Twin o(dtype, {x.b, x.t, x.h, x.dv}), lse(stat, {x.b, x.h, x.t});
  const Twin dq = gradient_place(dtype, x.b, x.t, x.h, x.d, pad), dk = gradient_place(dtype, x.b, x.s, x.k, x.d, pad),
             dv = gradient_place(dtype, x.b, x.s, x.k, x.dv, pad);
  lab().both([&](Kernels& kernels, auto side) {
    const auto in = [&](const Twin& twin) { return twin.present() ? In{side(twin)} : In{}; };
    kernels.attention(in(q), in(k), in(v), in(q_doc), in(k_doc), in(prefix), scale, x.causal, x.window, x.q_offset,
                      x.softcap, Out{side(o)}, Out{side(lse)});
  });
  lab().both([&](Kernels& kernels, auto side) {
    const auto in = [&](const Twin& twin) { return twin.present() ? In{side(twin)} : In{}; };
    kernels.attention_grad(in(dout), in(dlse), in(q), in(k), in(v), in(o), in(lse), in(q_doc), in(k_doc), in(prefix),
                           scale, x.causal, x.window, x.q_offset, x.softcap, in(cos), in(sin), interleaved,
                           Out{side(dq)}, Out{side(dk)}, Out{side(dv)});
  });
  // Sums of hundreds of roundings in float32 and float64; in the others P, dS and the results are rounded.
  const bool narrow = dtype == DType::kBF16 || dtype == DType::kF16;
  const double tolerance = (narrow ? 4 : 64) * rounding(dtype), large = std::fmax(1, x.magnitude * x.magnitude / 4);
  const std::string what = "shape " + std::to_string(index) + (pad < 0 ? "" : ", strided by " + std::to_string(pad));
  lab().expect(what + ", o", o, tolerance, large);
  lab().expect(what + ", lse", lse, 64 * rounding(stat), large);
  // A turned one is a sum of two that were rounded.
  const double twice = turned ? 2 : 1;
  lab().expect(what + ", dq", dq, tolerance * twice, large);
  // Those of keys are sums over the heads of a group too.
  const double heads = std::sqrt(static_cast<double>(x.h / x.k));
  lab().expect(what + ", dk", dk, tolerance * twice * heads, large);
  lab().expect(what + ", dv", dv, tolerance * heads, large);
}

TEST(cuda_attention) {
  for (const DType dtype : kDTypes) {
    int index = 0;
    for (const Shape& shape : kShapes) {
      if (!fits(shape.b * shape.t * shape.s * shape.h * (shape.d + shape.dv))) continue;
      // Rows padded by 8 can be copied 16 bytes at a time, which matters to 16-bit types; by 3 they can't.
      check(dtype, shape, index, -1), check(dtype, shape, index, 3);
      if (rounding(dtype) > rounding(DType::kF32)) check(dtype, shape, index, 8);
      ++index;
    }
  }
}

// Rows and keys that are not finite reach exactly those that they meet under the mask.
struct Spread {
  int64_t t, h, k, d, window, q_offset;
  bool causal;
  double softcap;
};

constexpr Spread kSpreads[] = {
    {9, 1, 1, 4, 0, 0, true, 0},     {70, 2, 1, 8, 0, 0, true, 0},     {150, 3, 1, 5, 40, 0, true, 0},
    {150, 2, 2, 20, 0, 0, true, 15}, {90, 1, 1, 8, 7, 3, false, 0},    {300, 1, 1, 8, 100, 0, true, 0},
    {150, 2, 1, 64, 0, 0, true, 0},  {150, 2, 1, 128, 40, 0, true, 0}, {70, 2, 2, 256, 0, 0, true, 0},
};

void check_spread(DType dtype, const Spread& x, int index, double bad) {
  enum Target { kQuery, kKey, kValue, kDout };
  const DType stat = dtype == DType::kF64 ? DType::kF64 : DType::kF32;
  const int64_t groups = x.h / x.k;
  const auto sees = [&](int64_t i, int64_t j) {
    const int64_t at = x.q_offset + i;
    return (!x.causal || j <= at) && (x.window == 0 || (j > at - x.window && (x.causal || j < at + x.window)));
  };
  for (const Target target : {kQuery, kKey, kValue, kDout})
    for (const int64_t at : {int64_t{0}, x.t / 2, x.t - 1}) {
      Twin q = lab().uniform(dtype, {1, x.t, x.h, x.d}), k = lab().uniform(dtype, {1, x.t, x.k, x.d});
      Twin v = lab().uniform(dtype, {1, x.t, x.k, x.d}), dout = lab().uniform(dtype, {1, x.t, x.h, x.d});
      Twin& changed = target == kQuery ? q : target == kKey ? k : target == kValue ? v : dout;
      changed.values()[at * (target == kQuery || target == kDout ? x.h : x.k) * x.d] = bad;
      changed.send(lab().cpu());
      const Twin o(dtype, {1, x.t, x.h, x.d}), lse(stat, {1, x.h, x.t});
      const Twin dq(dtype, {1, x.t, x.h, x.d}), dk(dtype, {1, x.t, x.k, x.d}), dv(dtype, {1, x.t, x.k, x.d});
      lab().gpu().attention(In{q.device()}, In{k.device()}, In{v.device()}, In{}, In{}, In{}, 0.5, x.causal, x.window,
                            x.q_offset, x.softcap, Out{o.device()}, Out{lse.device()});
      lab().gpu().attention_grad(In{dout.device()}, In{}, In{q.device()}, In{k.device()}, In{v.device()},
                                 In{o.device()}, In{lse.device()}, In{}, In{}, In{}, 0.5, x.causal, x.window,
                                 x.q_offset, x.softcap, In{}, In{}, false, Out{dq.device()}, Out{dk.device()},
                                 Out{dv.device()});
      LLMEFF_CUDA(cudaStreamSynchronize(lab().context().stream));
      const std::vector<double> got_o = o.received(lab().cpu()), got_dq = dq.received(lab().cpu()),
                                got_dk = dk.received(lab().cpu()), got_dv = dv.received(lab().cpu());
      // Row i of head 0 computes with the bad number; a key is reached when some such row sees it.
      const bool by_key = target == kKey || target == kValue;
      const auto meets = [&](int64_t i) { return by_key ? sees(i, at) : i == at; };
      const auto reached = [&](int64_t j) {
        for (int64_t i = 0; i < x.t; ++i)
          if (meets(i) && sees(i, j)) return true;
        return false;
      };
      const auto finite = [&](const std::vector<double>& data, int64_t row) {
        for (int64_t c = 0; c < x.d; ++c)
          if (!std::isfinite(data[static_cast<size_t>(row * x.d + c)])) return false;
        return true;
      };
      for (int64_t i = 0; i < x.t; ++i)
        for (int64_t h = 0; h < x.h; ++h) {
          // Another head of the group meets the same keys, another row its own numbers only.
          const bool met = meets(i) && (by_key ? h / groups == 0 : h == 0);
          CHECK(met || (finite(got_o, i * x.h + h) && finite(got_dq, i * x.h + h)),
                "%s spread %d: %g of %d at %ld reaches row %ld head %ld", name_of(dtype), index, bad, target,
                static_cast<long>(at), static_cast<long>(i), static_cast<long>(h));
          if (std::isnan(bad) && met && target != kDout)
            CHECK(!finite(got_o, i * x.h + h), "%s spread %d: NaN of %d at %ld does not reach row %ld", name_of(dtype),
                  index, target, static_cast<long>(at), static_cast<long>(i));
        }
      for (int64_t j = 0; j < x.t; ++j)
        for (int64_t h = 0; h < x.k; ++h) {
          const bool met = h == 0 && reached(j);
          CHECK(met || (finite(got_dk, j * x.k + h) && finite(got_dv, j * x.k + h)),
                "%s spread %d: %g of %d at %ld reaches the gradient of key %ld", name_of(dtype), index, bad, target,
                static_cast<long>(at), static_cast<long>(j));
          if (std::isnan(bad) && met)
            CHECK(!finite(target == kDout ? got_dv : got_dk, j * x.k + h),
                  "%s spread %d: NaN of %d at %ld does not reach key %ld", name_of(dtype), index, target,
                  static_cast<long>(at), static_cast<long>(j));
        }
    }
}

TEST(cuda_attention_not_finite) {
  for (const DType dtype : kDTypes) {
    int index = 0;
    for (const Spread& spread : kSpreads) {
      // Hopper's kernels multiply what is masked by 0, so that it reaches rows of the same tile.
      const bool hopper = lab().context().facts.capability == 90 && dtype == DType::kBF16;
      if (hopper && (spread.d == 64 || spread.d == 128)) continue;
      for (const double bad : {static_cast<double>(NAN), static_cast<double>(INFINITY)})
        check_spread(dtype, spread, index, bad);
      ++index;
    }
  }
}

}  // namespace
}  // namespace llmeff::test
