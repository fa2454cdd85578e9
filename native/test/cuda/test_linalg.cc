// Factorizations on the GPU: spectra and factors beside the CPU's in float64, vectors by what they must give.
#include "../factor_checks.h"
#include "layouts.h"

namespace llmeff::test {
namespace {

double eps_of(DType dtype) {
  return 2 * rounding(dtype);
}
double bound_of(DType dtype, int64_t n) {
  return factor_bound(n, eps_of(dtype));
}

void check(const std::string& what, DType dtype, double distance, double bound) {
  CHECK(distance <= bound, "%s (%s): %.3g is more than %.3g", what.c_str(), name_of(dtype), distance, bound);
}

Twin symmetric(DType dtype, int64_t n, int64_t batch, bool definite) {
  Twin a(dtype, {batch, n, n});
  for (int64_t b = 0; b < batch; ++b) {
    const auto x = lab().random.vector<double>(n * n);
    double* const to = a.values() + b * n * n;
    const Numbers64 square = product_of(x.data(), x.data(), n, n, n, true);
    for (int64_t i = 0; i < n; ++i)
      for (int64_t j = 0; j < n; ++j) {
        const double plain = x[static_cast<size_t>(i > j ? i * n + j : j * n + i)];
        to[i * n + j] = definite ? square[static_cast<size_t>(i * n + j)] / static_cast<double>(n) + (i == j) : plain;
      }
  }
  a.send(lab().cpu());
  return a;
}

void check_eigh(DType dtype, int64_t n, int64_t batch) {
  const Twin a = symmetric(dtype, n, batch, false), values(dtype, {batch, n}), vectors(dtype, {batch, n, n});
  lab().both([&](Kernels& kernels, auto side) { kernels.eigh(In{side(a)}, Out{side(values)}, Out{side(vectors)}); });
  const std::string what = "eigh of " + std::to_string(batch) + " × " + std::to_string(n);
  lab().expect(what, values, bound_of(dtype, n), std::sqrt(static_cast<double>(n)));
  const Numbers64 l = values.received(lab().cpu()), v = vectors.received(lab().cpu()), want = a.wanted(lab().cpu());
  for (int64_t b = 0; b < batch; ++b) {
    const double* const vb = v.data() + b * n * n;
    const Numbers64 back = product_of(scaled_columns(vb, l.data() + b * n, n, n).data(), vb, n, n, n, true);
    check(what, dtype, distance_of(back.data(), want.data() + b * n * n, n * n), bound_of(dtype, n));
    check(what + ": orthonormal", dtype, distance_from_orthonormal(vb, n, n), bound_of(dtype, n));
  }
}

void check_svd_and_qr(DType dtype, int64_t m, int64_t n, int64_t batch) {
  const int64_t k = m < n ? m : n, most = m < n ? n : m;
  const Twin a = lab().uniform(dtype, {batch, m, n});
  const Twin u(dtype, {batch, m, k}), s(dtype, {batch, k}), vh(dtype, {batch, k, n}), q(dtype, {batch, m, k}),
      r(dtype, {batch, k, n});
  lab().both([&](Kernels& kernels, auto side) { kernels.svd(In{side(a)}, Out{side(u)}, Out{side(s)}, Out{side(vh)}); });
  lab().both([&](Kernels& kernels, auto side) { kernels.qr(In{side(a)}, Out{side(q)}, Out{side(r)}); });
  const std::string what = std::to_string(batch) + " × [" + std::to_string(m) + ", " + std::to_string(n) + "]";
  const double bound = bound_of(dtype, most);
  lab().expect("svd of " + what, s, bound, std::sqrt(static_cast<double>(most)));
  Kernels& cpu = lab().cpu();
  const Numbers64 wu = u.received(cpu), ws = s.received(cpu), wv = vh.received(cpu), wq = q.received(cpu),
                  wr = r.received(cpu), want = a.wanted(cpu);
  for (int64_t b = 0; b < batch; ++b) {
    const double *const ub = wu.data() + b * m * k, *const vb = wv.data() + b * k * n,
                        *const qb = wq.data() + b * m * k;
    const Numbers64 usv = product_of(scaled_columns(ub, ws.data() + b * k, m, k).data(), vb, m, k, n);
    const Numbers64 qr = product_of(qb, wr.data() + b * k * n, m, k, n);
    check("svd of " + what, dtype, distance_of(usv.data(), want.data() + b * m * n, m * n), bound);
    check("qr of " + what, dtype, distance_of(qr.data(), want.data() + b * m * n, m * n), bound);
    check("svd of " + what + ": u", dtype, distance_from_orthonormal(ub, m, k), bound);
    check("svd of " + what + ": vh", dtype, distance_from_orthonormal(transpose_of(vb, k, n).data(), n, k), bound);
    check("qr of " + what + ": q", dtype, distance_from_orthonormal(qb, m, k), bound);
    for (int64_t i = 0; i < k; ++i)
      for (int64_t j = 0; j < i; ++j)
        CHECK(wr[static_cast<size_t>((b * k + i) * n + j)] == 0, "qr of %s: below the diagonal", what.c_str());
  }
}

void check_cholesky(DType dtype, int64_t n, int64_t batch) {
  const Twin a = symmetric(dtype, n, batch, true), l(dtype, {batch, n, n});
  lab().both([&](Kernels& kernels, auto side) { kernels.cholesky(In{side(a)}, Out{side(l)}); });
  const std::string what = "cholesky of " + std::to_string(batch) + " × " + std::to_string(n);
  lab().expect(what, l, bound_of(dtype, n), 1);
  for (int bits = 0; bits < 8; ++bits) {
    const bool upper = bits & 1, transposed = bits & 2, left = bits & 4;
    // The diagonal outweighs the rest.
    Twin t(dtype, {batch, n, n});
    for (int64_t i = 0; i < batch * n * n; ++i)
      t.values()[i] = lab().random() / static_cast<double>(n) + (i % (n * n) % (n + 1) == 0 ? 2 : 0);
    t.send(lab().cpu());
    const Shape sides = left ? Shape{batch, n, 9} : Shape{batch, 9, n};
    const Twin b = lab().uniform(dtype, sides), x(dtype, sides);
    lab().both([&](Kernels& kernels, auto side) {
      kernels.triangular_solve(In{side(t)}, In{side(b)}, upper, transposed, left, Out{side(x)});
    });
    lab().expect(
        "triangular_solve " + std::to_string(bits) + " of " + std::to_string(batch) + " × " + std::to_string(n), x,
        bound_of(dtype, n), 1);
  }
}

TEST(cuda_factorizations) {
  for (const DType dtype : {DType::kF32, DType::kF64})
    for (const int64_t batch : {1, 3}) {
      for (const int64_t n : {1, 2, 5, 17, 32, 64, 100}) {
        check_eigh(dtype, n, batch);
        check_cholesky(dtype, n, batch);
      }
      for (const auto& [m, n] : std::vector<std::pair<int64_t, int64_t>>{
               {1, 1}, {1, 7}, {7, 1}, {2, 3}, {17, 16}, {16, 17}, {64, 64}, {90, 33}, {33, 90}})
        check_svd_and_qr(dtype, m, n, batch);
    }
  check_eigh(DType::kF32, 300, 1);
  check_cholesky(DType::kF32, 300, 2);
}

// Matrices that aren't finite give NaN, all others of the batch what they would alone.
TEST(cuda_factorizations_not_finite) {
  for (const DType dtype : {DType::kF32, DType::kF64}) {
    Twin a = symmetric(dtype, 6, 3, true);
    a.values()[36 + 6] = kNan;
    a.values()[72 + 1] = kInf;  // above the diagonal: not read by eigh and cholesky
    a.send(lab().cpu());
    const Twin values(dtype, {3, 6}), vectors(dtype, {3, 6, 6}), l(dtype, {3, 6, 6}), q(dtype, {3, 6, 6}),
        r(dtype, {3, 6, 6}), u(dtype, {3, 6, 6}), s(dtype, {3, 6}), vh(dtype, {3, 6, 6});
    Kernels& gpu = lab().gpu();
    for (const FailurePointer& found :
         {lab().alone([&] { gpu.eigh(In{a.device()}, Out{values.device()}, Out{vectors.device()}); }),
          lab().alone([&] { gpu.cholesky(In{a.device()}, Out{l.device()}); }),
          lab().alone([&] { gpu.svd(In{a.device()}, Out{u.device()}, Out{s.device()}, Out{vh.device()}); })})
      CHECK(found == nullptr || found->state == Failure::State::kPassed, "%s", found->message.c_str());
    lab().alone([&] { gpu.qr(In{a.device()}, Out{q.device()}, Out{r.device()}); });
    for (const auto& [twin, bad] : std::vector<std::pair<Twin, int>>{
             {values, 2}, {vectors, 2}, {l, 2}, {q, 6}, {r, 6}, {u, 6}, {s, 6}, {vh, 6}}) {
      const Numbers64 got = twin.received(lab().cpu());
      const size_t each = got.size() / 3;
      for (size_t i = 0; i < got.size(); ++i)
        CHECK(std::isnan(got[i]) == ((bad >> i / each & 1) != 0), "element %zu of %zu is %g", i, got.size(), got[i]);
    }
  }
}

TEST(cuda_cholesky_not_definite) {
  for (const DType dtype : {DType::kF32, DType::kF64})
    for (const int64_t n : {5, 300}) {
      Twin a = symmetric(dtype, n, 3, true);
      for (int64_t b = 1; b < 3; ++b) a.values()[b * n * n + 3 * (n + 1)] = -1;
      a.send(lab().cpu());
      const Twin l(dtype, {3, n, n});
      const FailurePointer found = lab().alone([&] { lab().gpu().cholesky(In{a.device()}, Out{l.device()}); });
      CHECK(found != nullptr && found->state == Failure::State::kFailed && found->code == "ERR_LINALG", "of %lld",
            static_cast<long long>(n));
      if (found != nullptr)
        CHECK(found->message.find("matrix 1 of the batch is not positive definite: pivot 3 is") != std::string::npos,
              "%s", found->message.c_str());
    }
}

}  // namespace
}  // namespace llmeff::test
