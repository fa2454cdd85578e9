// AdamW and the global norm on the GPU: sizes around every chunk, several tensors in one call, some of them not
// aligned, copies, and steps of all optimizers that must not happen. test_sonew.cc has SONew.
#include "twins.h"

namespace llmeff::test {
namespace {

TEST(cuda_global_norm) {
  for (const DType dtype : kDTypes) {
    const Twins xs = uniform(dtype, kSizes);
    const DType wide = dtype == DType::kF64 ? DType::kF64 : DType::kF32;
    const Twin norm(wide, {});
    lab().both([&](Kernels& kernels, auto side) { kernels.global_norm(Views<In>(xs, side), Out{side(norm)}); });
    lab().expect("norm", norm, 2 * rounding(wide) + 0x1p-50);
  }
  // Squares that overflow float32, and more tensors than a launch takes.
  const Twins xs = uniform(DType::kF32, std::vector<int64_t>(700, 3), 3e30);
  const Twin norm(DType::kF32, {});
  lab().both([&](Kernels& kernels, auto side) { kernels.global_norm(Views<In>(xs, side), Out{side(norm)}); });
  lab().expect("norm of 700", norm, 2 * rounding(DType::kF32));
}

TEST(cuda_adamw) {
  for (const DType dtype : kDTypes)
    for (const DType grad_dtype : grad_dtypes(dtype))
      for (const int options : {0, 1, 2, 3})
        for (const bool copied : {false, true}) {
          const bool decoupled = options & 1, amsgrad = options & 2;
          const std::vector<int64_t> sizes = options == 0 ? std::vector<int64_t>(600, 5) : kSizes;
          const Twins p = uniform(dtype, sizes), g = uniform(grad_dtype, sizes), m = uniform(dtype, sizes),
                      v = uniform(dtype, sizes, 0.5, 0.5), top = amsgrad ? uniform(dtype, sizes, 0.5, 0.5) : Twins();
          const DType copy = options % 2 == 0 ? DType::kBF16 : DType::kF16;
          const Twins copies = copied ? outputs(copy, sizes) : Twins();
          const Twin scale = lab().uniform(dtype == DType::kF64 ? DType::kF64 : DType::kF32, {}, 0.5, 1);
          lab().both([&](Kernels& kernels, auto side) {
            kernels.adamw_step(Views<InOut>(p, side), Views<InOut>(copies, side), Views<In>(g, side),
                               Views<InOut>(m, side), Views<InOut>(v, side), Views<InOut>(top, side), In{side(scale)},
                               0.01, 0.9, 0.95, 1e-3, 0.1, decoupled, 3);
          });
          // Steps are at most lr·m/√v·(corrections): √v may be small, but not below eps.
          const double error = rounding(dtype) + 16 * arithmetic(dtype);
          expect_all("p", p, 2 * error);
          expect_all("m", m, error);
          expect_all("v", v, error);
          if (amsgrad) expect_all("max v", top, error);
          if (copied) expect_all("copy", copies, rounding(copy) + 32 * arithmetic(dtype));
        }
}

TEST(cuda_steps_that_must_not_happen_change_nothing) {
  // A lookup whose result the gradients might depend on, with a bad id, of which nobody has been told.
  Twin ids(DType::kI32, {1});
  *ids.integers() = 9;
  ids.send(lab().cpu());
  const Twin table = lab().uniform(DType::kF32, {3, 4}), row(DType::kF32, {1, 4});
  cuda::Context& context = lab().context();
  for (const bool failed : {false, true})
    for (const double scale : std::initializer_list<double>{NAN, INFINITY, -INFINITY, 1.0})
      for (const Graft graft : {Graft::kNone, Graft::kAdam}) {
        if (!failed && scale == 1) continue;
        const std::vector<int64_t> sizes = {3, 5000};
        const Twins p = uniform(DType::kF32, sizes), g = uniform(DType::kF32, sizes), m = uniform(DType::kF32, sizes),
                    h0 = uniform(DType::kF32, sizes, 0.5, 1), h1 = uniform(DType::kF32, sizes, 0.1),
                    h2 = uniform(DType::kF32, sizes, 0.1);
        Twins tridiagonal = h0, banded;
        tridiagonal.insert(tridiagonal.end(), h1.begin(), h1.end());
        banded = tridiagonal;
        banded.insert(banded.end(), h2.begin(), h2.end());
        Twin factor(DType::kF32, {});
        *factor.values() = scale;
        factor.send(lab().cpu());
        const std::vector<int64_t> chains(2, 0);
        const auto side = [](const Twin& twin) -> const View& { return twin.device(); };
        std::vector<FailurePointer> pending;
        if (failed) {
          context.begin("test", 1, {});
          lab().gpu().embedding(In{table.device()}, In{ids.device()}, Out{row.device()});
          pending.push_back(context.end());
        }
        lab().alone(
            [&] {
              for (const Twins& diagonals : {tridiagonal, banded})
                lab().gpu().sonew_step(Views<InOut>(p, side), {}, Views<In>(g, side), Views<InOut>(m, side),
                                       Views<InOut>(diagonals, side), {}, {chains.data(), 2}, {chains.data(), 2},
                                       In{factor.device()}, 0.1, 0.9, 0.99, 1e-8, false, 0, false, false, graft, 1e-8,
                                       true, 0.1, 1, 0, {});
              lab().gpu().adamw_step(Views<InOut>(p, side), {}, Views<In>(g, side), Views<InOut>(m, side),
                                     Views<InOut>(h0, side), {}, In{factor.device()}, 0.1, 0.9, 0.99, 1e-8, 0.1, true,
                                     1);
            },
            pending);
        for (const FailurePointer& check : pending) context.settle(*check);
        for (const Twins* twins : {&p, &m, &banded}) expect_all("state", *twins, 0);
      }
}

}  // namespace
}  // namespace llmeff::test
