// 2-simplicial attention and its gradients by plain loops over all pairs in float64, straight from the equations.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

namespace llmeff::test {

struct SimplicialCase {
  const char* name;
  int64_t batch, tokens, s1, s2, heads, kv_heads, d, dv;
  bool causal;
  int64_t w1, w2, q_offset, k1_offset, k2_offset;
  bool determinant;
  double k2_bias, v2_bias, scale;  // scale 0: 1 / sqrt(d)

  double factor() const { return scale != 0 ? scale : 1 / std::sqrt(static_cast<double>(d)); }
};

template <class T>
struct SimplicialTensors {
  std::vector<T> q, k1, k2, v1, v2, dout, o, lse, dq, dk1, dk2, dv1, dv2;
};

class SimplicialReference {
 public:
  using Doubles = SimplicialTensors<double>;

  // Fills o, lse and the gradients of x from its inputs.
  static void run(const SimplicialCase& c, Doubles& x) {
    x.o.assign(c.batch * c.tokens * c.heads * c.dv, 0);
    x.lse.assign(c.batch * c.heads * c.tokens, 0);
    x.dq.assign(x.q.size(), 0), x.dk1.assign(x.k1.size(), 0), x.dk2.assign(x.k2.size(), 0);
    x.dv1.assign(x.v1.size(), 0), x.dv2.assign(x.v2.size(), 0);
    for (int64_t b = 0; b < c.batch; ++b)
      for (int64_t t = 0; t < c.tokens; ++t)
        for (int64_t h = 0; h < c.heads; ++h) row(c, x, b, t, h);
  }

 private:
  static bool allowed(const SimplicialCase& c, int64_t i, int64_t j, int64_t window) {
    return !c.causal || (j <= i && (window == 0 || j > i - window));
  }

  // form(q, k1, k2) and, when g ≠ 0, g times its derivatives added to dq, dk1, dk2.
  static double form(const SimplicialCase& c, const double* q, const double* k1, const double* k2, double g, double* dq,
                     double* dk1, double* dk2) {
    static constexpr int kEven[3][3] = {{0, 1, 2}, {1, 2, 0}, {2, 0, 1}},
                         kOdd[3][3] = {{0, 2, 1}, {2, 1, 0}, {1, 0, 2}};
    double sum = 0;
    const auto add = [&](int64_t x, int64_t y, int64_t z, double sign) {
      sum += sign * q[x] * k1[y] * (k2[z] + c.k2_bias);
      if (g == 0) return;
      dq[x] += g * sign * k1[y] * (k2[z] + c.k2_bias);
      dk1[y] += g * sign * q[x] * (k2[z] + c.k2_bias);
      dk2[z] += g * sign * q[x] * k1[y];
    };
    const int64_t chunks = c.determinant ? c.d / 3 : 0;
    for (int64_t n = 0; n < chunks; ++n)
      for (int i = 0; i < 3; ++i) {
        add(3 * n + kEven[i][0], 3 * n + kEven[i][1], 3 * n + kEven[i][2], 1);
        add(3 * n + kOdd[i][0], 3 * n + kOdd[i][1], 3 * n + kOdd[i][2], -1);
      }
    for (int64_t n = 3 * chunks; n < c.d; ++n) add(n, n, n, 1);
    return sum;
  }

  static void row(const SimplicialCase& c, Doubles& x, int64_t b, int64_t t, int64_t h) {
    const int64_t g = h / (c.heads / c.kv_heads), i = c.q_offset + t;
    const int64_t q_at = ((b * c.tokens + t) * c.heads + h) * c.d, o_at = ((b * c.tokens + t) * c.heads + h) * c.dv;
    const auto at = [&](int64_t rows, int64_t r, int64_t n) { return ((b * rows + r) * c.kv_heads + g) * n; };
    const auto for_pairs = [&](auto&& body) {
      for (int64_t j = 0; j < c.s1; ++j)
        for (int64_t k = 0; k < c.s2; ++k)
          if (allowed(c, i, j + c.k1_offset, c.w1) && allowed(c, i, k + c.k2_offset, c.w2)) body(j, k);
    };
    std::vector<double> logits;
    double top = -INFINITY, total = 0;
    for_pairs([&](int64_t j, int64_t k) {
      logits.push_back(c.factor() * form(c, &x.q[q_at], &x.k1[at(c.s1, j, c.d)], &x.k2[at(c.s2, k, c.d)], 0, nullptr,
                                         nullptr, nullptr));
      top = std::fmax(top, logits.back());
    });
    for (double a : logits) total += std::exp(a - top);
    const double lse = logits.empty() ? -INFINITY : top + std::log(total);
    x.lse[(b * c.heads + h) * c.tokens + t] = lse;
    size_t n = 0;
    for_pairs([&](int64_t j, int64_t k) {
      const double p = std::exp(logits[n++] - lse);
      for (int64_t e = 0; e < c.dv; ++e)
        x.o[o_at + e] += p * x.v1[at(c.s1, j, c.dv) + e] * (x.v2[at(c.s2, k, c.dv) + e] + c.v2_bias);
    });
    double delta = 0;
    for (int64_t e = 0; e < c.dv; ++e) delta += x.o[o_at + e] * x.dout[o_at + e];
    n = 0;
    for_pairs([&](int64_t j, int64_t k) {
      const double p = std::exp(logits[n++] - lse);
      const int64_t v1 = at(c.s1, j, c.dv), v2 = at(c.s2, k, c.dv), k1 = at(c.s1, j, c.d), k2 = at(c.s2, k, c.d);
      double dp = 0;
      for (int64_t e = 0; e < c.dv; ++e) {
        const double y = x.dout[o_at + e], value2 = x.v2[v2 + e] + c.v2_bias;
        dp += y * x.v1[v1 + e] * value2;
        x.dv1[v1 + e] += p * y * value2;
        x.dv2[v2 + e] += p * y * x.v1[v1 + e];
      }
      form(c, &x.q[q_at], &x.k1[k1], &x.k2[k2], c.factor() * p * (dp - delta), &x.dq[q_at], &x.dk1[k1], &x.dk2[k2]);
    });
  }
};

}  // namespace llmeff::test
