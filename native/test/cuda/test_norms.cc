// The norms on the GPU: rows of all lengths around the kernels' borders, with and without the optional arguments,
// slices.
#include "lab.h"

namespace llmeff::test {
namespace {

constexpr DType kDTypes[] = {DType::kF32, DType::kF64, DType::kBF16, DType::kF16};
constexpr int64_t kWidths[] = {1,    2,    7,    31,   32,   33,   64,   130,   255,  768,
                               1000, 1024, 1025, 2048, 4100, 8192, 8200, 20000, 40000};

double arithmetic(DType dtype) {
  return dtype == DType::kF64 ? 0x1p-53 : 0x1p-24;
}
// Sums of n terms, in pairs within a warp and one after the other within a thread; short rows may have a tiny variance,
// and rstd, up to 1/√eps = 316, multiplies the rounding of their terms.
double norm_error(DType dtype, int64_t n) {
  return 2 * rounding(dtype) + (n < 8 ? 316 : 8 + std::sqrt(static_cast<double>(n))) * 8 * arithmetic(dtype);
}

DType wide(DType dtype) {
  return dtype == DType::kF64 ? DType::kF64 : DType::kF32;
}

std::string name(const char* what, int64_t n) {
  return what + (" of rows of " + std::to_string(n));
}

// Rows that lie apart: [a, b, n] out of wider ones.
Twin slices(DType dtype, int64_t a, int64_t b, int64_t n, double scale = 1, double offset = 0) {
  const int64_t width = n + 8;
  return lab().uniform(dtype, {b, a, width}, scale, offset).as({a, b, n}, {width, a * width, 1}, 8);
}

TEST(cuda_rms_norm) {
  for (const DType dtype : kDTypes)
    for (const int64_t n : kWidths)
      for (const bool fused : {false, true}) {
        const Twin x = slices(dtype, 3, 5, n, 2), residual = fused ? slices(dtype, 3, 5, n, 2) : Twin();
        const Twin weight = lab().uniform(dtype, {n});
        const Twin sum = fused ? Twin(dtype, {3, 5, n}) : Twin(), y(dtype, {3, 5, n}), rstd(wide(dtype), {3, 5});
        lab().both([&](Kernels& kernels, auto side) {
          kernels.rms_norm(In{side(x)}, In{side(residual)}, In{side(weight)}, 1, 1e-5, Out{side(sum)}, Out{side(y)},
                           Out{side(rstd)});
        });
        // y is that of the rounded sum.
        const double error = norm_error(dtype, n) + (fused ? rounding(dtype) : 0);
        lab().expect(name("y", n), y, 2 * error);
        lab().expect(name("rstd", n), rstd, (fused ? 2 * rounding(dtype) : 0) + norm_error(wide(dtype), n));
        if (fused) lab().expect(name("sum", n), sum, rounding(dtype), 0);
      }
}

TEST(cuda_rms_norm_grad) {
  for (const DType dtype : kDTypes)
    for (const int64_t n : kWidths)
      for (const bool fused : {false, true}) {
        const int64_t a = n > 100 ? 7 : 41, rows = 5 * a;
        const Twin x = slices(dtype, a, 5, n, 0.5, 1), dy = slices(dtype, a, 5, n),
                   dsum = fused ? slices(dtype, a, 5, n) : Twin();
        const Twin weight = lab().uniform(dtype, {n}), rstd(wide(dtype), {a, 5});
        const Twin y(dtype, {a, 5, n}), dx(dtype, {a, 5, n}), dweight(dtype, {n});
        lab().both([&](Kernels& kernels, auto side) {
          kernels.rms_norm(In{side(x)}, {}, In{side(weight)}, 0, 1e-5, {}, Out{side(y)}, Out{side(rstd)});
          kernels.rms_norm_grad(In{side(dy)}, In{side(dsum)}, In{side(x)}, In{side(weight)}, 0, In{side(rstd)},
                                Out{side(dx)}, Out{side(dweight)});
        });
        lab().expect(name("dx", n), dx, 4 * norm_error(dtype, n));
        lab().expect(name("dweight", n), dweight,
                     2 * rounding(dtype) +
                         (static_cast<double>(rows) + std::sqrt(static_cast<double>(n))) * 8 * arithmetic(dtype));
      }
}

TEST(cuda_layer_norm) {
  for (const DType dtype : kDTypes)
    for (const int64_t n : kWidths)
      for (const int options : {0, 1, 2, 3}) {
        const bool fused = options & 1, affine = options & 2;
        const Twin x = slices(dtype, 3, 5, n, 2), residual = fused ? slices(dtype, 3, 5, n, 2) : Twin();
        const Twin weight = affine ? lab().uniform(dtype, {n}) : Twin(),
                   bias = affine ? lab().uniform(dtype, {n}) : Twin();
        const Twin sum = fused ? Twin(dtype, {3, 5, n}) : Twin(), y(dtype, {3, 5, n});
        const Twin mean(wide(dtype), {3, 5}), rstd(wide(dtype), {3, 5});
        lab().both([&](Kernels& kernels, auto side) {
          kernels.layer_norm(In{side(x)}, In{side(residual)}, In{side(weight)}, In{side(bias)}, 1e-5, Out{side(sum)},
                             Out{side(y)}, Out{side(mean)}, Out{side(rstd)});
        });
        // With a residual the rounding of the sum reaches y, times rstd.
        const double scale = n < 8 ? 316 : 4, from_sum = fused ? scale * rounding(dtype) : 0;
        lab().expect(name("y", n), y, 2 * norm_error(dtype, n) + 4 * from_sum);
        lab().expect(name("mean", n), mean, norm_error(wide(dtype), n) + 4 * (fused ? rounding(dtype) : 0));
        // The relative error of rstd is that of the variance, which is a difference where it is small.
        lab().expect(name("rstd", n), rstd, (norm_error(wide(dtype), n) + 4 * from_sum) * (n < 8 ? 316 : 1));
        if (fused) lab().expect(name("sum", n), sum, rounding(dtype), 0);
      }
}

TEST(cuda_layer_norm_grad) {
  for (const DType dtype : kDTypes)
    for (const int64_t n : kWidths)
      for (const int options : {0, 1, 2, 3}) {
        const bool fused = options & 1, affine = options & 2;
        const int64_t a = n > 100 ? 7 : 41, rows = 5 * a;
        const Twin x = slices(dtype, a, 5, n, 2), dy = slices(dtype, a, 5, n),
                   dsum = fused ? slices(dtype, a, 5, n) : Twin();
        const Twin weight = affine ? lab().uniform(dtype, {n}) : Twin();
        const Twin y(dtype, {a, 5, n}), mean(wide(dtype), {a, 5}), rstd(wide(dtype), {a, 5});
        const Twin dx(dtype, {a, 5, n}), dweight = affine ? Twin(dtype, {n}) : Twin(),
                                         dbias = affine ? Twin(dtype, {n}) : Twin();
        lab().both([&](Kernels& kernels, auto side) {
          kernels.layer_norm(In{side(x)}, {}, In{side(weight)}, {}, 1e-5, {}, Out{side(y)}, Out{side(mean)},
                             Out{side(rstd)});
          kernels.layer_norm_grad(In{side(dy)}, In{side(dsum)}, In{side(x)}, In{side(weight)}, In{side(mean)},
                                  In{side(rstd)}, Out{side(dx)}, Out{side(dweight)}, Out{side(dbias)});
        });
        const double scale = n < 8 ? 316 : 1;
        lab().expect(name("dx", n), dx, 4 * rounding(dtype) + norm_error(wide(dtype), n) * scale * 4);
        if (!affine) continue;
        lab().expect(name("dweight", n), dweight,
                     2 * rounding(dtype) + norm_error(wide(dtype), n) * static_cast<double>(rows));
        lab().expect(name("dbias", n), dbias, 2 * rounding(dtype) + static_cast<double>(rows) * arithmetic(dtype));
      }
}

// The mean is large beside the deviation: multiples of 1/64 about 10⁵, which float32 holds exactly, but no sum of them.
TEST(cuda_layer_norm_is_exact_under_a_large_mean) {
  const int64_t n = 1000;
  Twin x(DType::kF32, {3, n});
  for (int64_t i = 0; i < 3 * n; ++i) x.values()[i] = 1e5 + std::round(64 * lab().random()) / 64;
  x.send(lab().cpu());
  const Twin y(DType::kF32, {3, n}), mean(DType::kF32, {3}), rstd(DType::kF32, {3}), dx(DType::kF32, {3, n});
  const Twin dy = lab().uniform(DType::kF32, {3, n});
  lab().both([&](Kernels& kernels, auto side) {
    kernels.layer_norm(In{side(x)}, {}, {}, {}, 1e-5, {}, Out{side(y)}, Out{side(mean)}, Out{side(rstd)});
    kernels.layer_norm_grad(In{side(dy)}, {}, In{side(x)}, {}, In{side(mean)}, In{side(rstd)}, Out{side(dx)}, {}, {});
  });
  lab().expect("y", y, norm_error(DType::kF32, n));
  lab().expect("dx", dx, 4 * norm_error(DType::kF32, n));
}

TEST(cuda_norms_keep_a_nan_in_its_row) {
  Twin x = lab().uniform(DType::kBF16, {4, 64});
  x.values()[64] = NAN;
  x.values()[2 * 64 + 63] = INFINITY;
  x.send(lab().cpu());
  const Twin weight = lab().uniform(DType::kBF16, {64}), y(DType::kBF16, {4, 64}), z(DType::kBF16, {4, 64});
  lab().both([&](Kernels& kernels, auto side) {
    kernels.rms_norm(In{side(x)}, {}, In{side(weight)}, 0, 1e-5, {}, Out{side(y)}, {});
    kernels.layer_norm(In{side(x)}, {}, In{side(weight)}, {}, 1e-5, {}, Out{side(z)}, {}, {});
  });
  lab().expect("rms", y, norm_error(DType::kBF16, 64));
  lab().expect("layer", z, norm_error(DType::kBF16, 64));
}

}  // namespace
}  // namespace llmeff::test
