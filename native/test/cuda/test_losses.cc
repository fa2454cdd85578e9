// Cross-entropy on the GPU, of logits and of a linear layer.
#include "lab.h"

namespace llmeff::test {
namespace {

constexpr DType kDTypes[] = {DType::kF32, DType::kF64, DType::kBF16, DType::kF16};
constexpr int64_t kIgnore = -100;

struct Settings {
  double smoothing, z_loss, softcap;
};
constexpr Settings kSettings[] = {{0, 0, 0}, {0.1, 0, 0}, {0, 1e-2, 0}, {0, 0, 3}, {0.2, 1e-3, 5}};

DType wide(DType dtype) {
  return dtype == DType::kF64 ? DType::kF64 : DType::kF32;
}
double arithmetic(DType dtype) {
  return dtype == DType::kF64 ? 0x1p-53 : 0x1p-24;
}

Twin targets_of(int64_t rows, int64_t vocabulary, bool none = false) {
  Twin targets = lab().integers({rows}, 0, static_cast<int32_t>(vocabulary));
  for (int64_t i = 0; i < rows; ++i)
    if (none || i % 5 == 3) targets.integers()[i] = static_cast<int32_t>(kIgnore);
  targets.send(lab().cpu());
  return targets;
}

TEST(cuda_cross_entropy) {
  for (const DType dtype : kDTypes)
    for (const int64_t n : {1, 2, 7, 8, 31, 256, 257, 4099, 50257})
      for (const Settings& s : kSettings)
        for (const bool none : {false, true}) {
          const int64_t rows = 11;
          // Rows that begin anywhere.
          const Twin logits = lab().uniform(dtype, {rows, n + 3}, 8).as({rows, n}, {n + 3, 1}, 1);
          const Twin targets = targets_of(rows, n, none), dloss = lab().uniform(wide(dtype), {}, 0.5, 1);
          const Twin loss(wide(dtype), {}), stats(wide(dtype), {3}), ce(wide(dtype), {rows}), lse(wide(dtype), {rows});
          const Twin dlogits(dtype, {rows, n});
          lab().both([&](Kernels& kernels, auto side) {
            kernels.cross_entropy(In{side(logits)}, In{side(targets)}, kIgnore, s.smoothing, s.z_loss, s.softcap,
                                  Out{side(loss)}, Out{side(stats)}, Out{side(ce)}, Out{side(lse)});
            kernels.cross_entropy_grad(In{side(dloss)}, In{side(logits)}, In{side(targets)}, In{side(stats)},
                                       In{side(lse)}, kIgnore, s.smoothing, s.z_loss, s.softcap, Out{side(dlogits)});
          });
          const std::string of = " of " + std::to_string(n) + " logits";
          // A logit of 8 in e^x, and sums of n / 512 terms in a thread.
          const double error = (64 + static_cast<double>(n) / 512) * arithmetic(dtype);
          lab().expect("lse" + of, lse, error);
          lab().expect("ce" + of, ce, error, 8);
          lab().expect("loss" + of, loss, error, 8);
          lab().expect("stats" + of, stats, error, 8);
          // A probability has the error of lse, in float32; they are multiplied by dloss over the number of rows.
          lab().expect("dlogits" + of, dlogits, 2 * rounding(dtype) + error, 1 / static_cast<double>(rows));
        }
}

TEST(cuda_cross_entropy_of_infinite_and_missing_logits) {
  for (const DType dtype : kDTypes) {
    const int64_t rows = 6, n = 40;
    Twin logits = lab().uniform(dtype, {rows, n}, 4), targets = lab().integers({rows}, 0, 20);
    for (int64_t v = 20; v < n; ++v) logits.values()[v] = -INFINITY;  // a padded vocabulary
    logits.values()[n + 30] = NAN;
    logits.values()[2 * n + 30] = INFINITY;
    for (int64_t v = 0; v < n; ++v) logits.values()[3 * n + v] = -INFINITY;
    logits.values()[4 * n + 3] = 60000;
    logits.send(lab().cpu());
    const Twin loss(wide(dtype), {}), stats(wide(dtype), {3}), ce(wide(dtype), {rows}), lse(wide(dtype), {rows});
    lab().both([&](Kernels& kernels, auto side) {
      kernels.cross_entropy(In{side(logits)}, In{side(targets)}, kIgnore, 0, 0, 0, Out{side(loss)}, Out{side(stats)},
                            Out{side(ce)}, Out{side(lse)});
    });
    lab().expect("lse", lse, 64 * arithmetic(dtype));
    lab().expect("ce", ce, 64 * arithmetic(dtype), 8);
    lab().expect("loss", loss, 64 * arithmetic(dtype));
  }
}

TEST(cuda_cross_entropy_reports_targets_outside_the_vocabulary) {
  const Twin logits = lab().uniform(DType::kF32, {3, 5}), weight = lab().uniform(DType::kF32, {5, 4}),
             hidden = lab().uniform(DType::kF32, {3, 4});
  const Twin loss(DType::kF32, {}), stats(DType::kF32, {3}), ce(DType::kF32, {3}), lse(DType::kF32, {3});
  for (const int32_t bad : {-1, 5})
    for (const bool linear : {false, true}) {
      Twin targets = targets_of(3, 5);
      targets.integers()[1] = bad;
      targets.send(lab().cpu());
      const FailurePointer check = lab().alone([&] {
        if (linear)
          lab().gpu().linear_cross_entropy(In{hidden.device()}, In{weight.device()}, In{targets.device()}, kIgnore, 0,
                                           0, 0, Out{loss.device()}, Out{stats.device()}, Out{ce.device()}, {}, {});
        else
          lab().gpu().cross_entropy(In{logits.device()}, In{targets.device()}, kIgnore, 0, 0, 0, Out{loss.device()},
                                    Out{stats.device()}, Out{ce.device()}, Out{lse.device()});
      });
      CHECK(check != nullptr && check->state == Failure::State::kFailed, "target %d, linear %d", bad, linear);
      const std::string message = "[crossEntropy] target " + std::to_string(bad) + " at row 1 is outside [0, 5)";
      CHECK(check != nullptr && check->message == message, "%s", check == nullptr ? "" : check->message.c_str());
      CHECK(ce.received(lab().cpu())[1] == 0, "linear %d: the row of a bad target has a loss", linear);
    }
}

void check_linear(DType dtype, int64_t rows, int64_t n, int64_t width, const Settings& s, bool gradients, bool none) {
  const double largest = std::sqrt(6.0 / static_cast<double>(width));
  const Twin hidden = lab().uniform(dtype, {rows, width}), weight = lab().uniform(dtype, {n, width}, largest);
  const Twin targets = targets_of(rows, n, none);
  const Twin loss(wide(dtype), {}), stats(wide(dtype), {3}), ce(wide(dtype), {rows});
  const Twin dhidden = gradients ? Twin(wide(dtype), {rows, width}) : Twin(),
             dweight = gradients ? Twin(wide(dtype), {n, width}) : Twin();
  lab().both([&](Kernels& kernels, auto side) {
    kernels.linear_cross_entropy(In{side(hidden)}, In{side(weight)}, In{side(targets)}, kIgnore, s.smoothing, s.z_loss,
                                 s.softcap, Out{side(loss)}, Out{side(stats)}, Out{side(ce)}, Out{side(dhidden)},
                                 Out{side(dweight)});
  });
  const std::string of = " of " + std::to_string(rows) + " rows, " + std::to_string(n) + " logits";
  // Logits are sums of `width` products, at most 6 in size, rounded to the dtype.
  const double logit =
      6 * rounding(dtype) + (64 + static_cast<double>(width) + static_cast<double>(n) / 512) * arithmetic(dtype);
  lab().expect("ce" + of, ce, 2 * logit);
  lab().expect("loss" + of, loss, 2 * logit);
  lab().expect("stats" + of, stats, 2 * logit);
  if (!gradients) return;
  // A gradient by logits adds up to at most 2 / rows in a row, each with the error of its logit; z-loss doubles it.
  const double valid = std::max(1.0, 0.8 * static_cast<double>(rows));
  const double error = 2 * logit + 2 * rounding(dtype);
  lab().expect("dhidden" + of, dhidden, 2 * error, 2 * largest / valid);
  lab().expect("dweight" + of, dweight, 2 * error, 2);
}

TEST(cuda_linear_cross_entropy) {
  for (const DType dtype : kDTypes)
    for (const int64_t rows : {1, 5, 130})
      for (const int64_t n : {1, 7, 64, 1001})
        for (const int64_t width : {8, 33})
          for (const Settings& s : kSettings) {
            check_linear(dtype, rows, n, width, s, true, false);
            check_linear(dtype, rows, n, width, s, false, rows == 5);
          }
  for (const DType dtype : kDTypes) check_linear(dtype, 6, 9, 8, kSettings[4], true, true);
}

// More logits than are made at once.
TEST(cuda_linear_cross_entropy_in_blocks) {
  check_linear(DType::kF64, 2000, 60000, 3, kSettings[0], true, false);
}

}  // namespace
}  // namespace llmeff::test
