// Products of rows packed by group, and sums of rows by number, on the GPU.
#include "layouts.h"

namespace llmeff::test {
namespace {

struct Case {
  int64_t rows, k, n;
  std::vector<int32_t> counts;  // fewer than all rows: the last ones belong to no group
};
const std::vector<Case> kCases = {
    {1, 1, 1, {1}},
    {5, 3, 2, {0, 5, 0}},
    {7, 4, 6, {0, 0, 0}},
    {64, 16, 64, {64}},
    {65, 17, 65, {64, 1}},
    {200, 33, 70, {3, 0, 129, 1, 60}},
    {700, 130, 67, {65, 63, 64, 1, 0, 0, 300, 128, 0, 70}},
    {900, 20, 40, std::vector<int32_t>(300, 3)},
};

// Matrices by rows or, every second, by columns: [E, M, N] either way.
Twin matrices(DType dtype, int64_t groups, int64_t m, int64_t n, bool turned) {
  if (!turned) return lab().uniform(dtype, {groups, m, n});
  return lab().uniform(dtype, {groups, n, m}).as({groups, m, n}, {m * n, 1, m});
}
Twin list_of(const std::vector<int32_t>& values) {
  Twin list(DType::kI32, {static_cast<int64_t>(values.size())});
  for (size_t i = 0; i < values.size(); ++i) list.integers()[i] = values[i];
  list.send(lab().cpu());
  return list;
}
std::string text(const Case& c, int layout) {
  return std::to_string(c.rows) + " rows, " + std::to_string(c.counts.size()) + " groups, k " + std::to_string(c.k) +
         ", n " + std::to_string(c.n) + ", layout " + std::to_string(layout);
}

TEST(cuda_grouped_matmul) {
  for (const DType dtype : kFloating)
    for (const Case& c : kCases)
      for (int layout = 0; layout < 4; ++layout) {
        const int64_t groups = static_cast<int64_t>(c.counts.size());
        const Twin counts = list_of(c.counts), out(dtype, {c.rows, c.n});
        // One product, or the sum of two.
        const Twin x = lab().uniform(dtype, {c.rows, c.k}), w = matrices(dtype, groups, c.k, c.n, layout & 1);
        const Twin wide = lab().uniform(dtype, {c.rows, c.k + 9}).as({c.rows, c.k + 5}, {c.k + 9, 1}, 2);
        const Twin more = matrices(dtype, groups, c.k + 5, c.n, !(layout & 1));
        const int64_t terms = layout & 2 ? 2 : 1;
        lab().both([&](Kernels& kernels, auto side) {
          const In xs[] = {In{side(x)}, In{side(wide)}}, ws[] = {In{side(w)}, In{side(more)}};
          kernels.grouped_matmul({xs, terms}, {ws, terms}, In{side(counts)}, Out{side(out)});
        });
        expect_near("grouped_matmul of " + text(c, layout), out, few_roundings(dtype, 24),
                    std::sqrt(2.0 * static_cast<double>(c.k) + 5));
      }
}

TEST(cuda_grouped_matmul_grad) {
  for (const DType dtype : kFloating)
    for (const Case& c : kCases)
      for (int layout = 0; layout < 2; ++layout) {
        const int64_t groups = static_cast<int64_t>(c.counts.size());
        const Twin counts = list_of(c.counts), dw(dtype, {groups, c.k, c.n});
        const Twin a = layout == 0 ? lab().uniform(dtype, {c.rows, c.k})
                                   : lab().uniform(dtype, {c.k, c.rows}).as({c.rows, c.k}, {1, c.rows});
        const Twin b = lab().uniform(dtype, {c.rows, c.n + 3}).as({c.rows, c.n}, {c.n + 3, 1}, 1);
        lab().both([&](Kernels& kernels, auto side) {
          kernels.grouped_matmul_grad(In{side(a)}, In{side(b)}, In{side(counts)}, Out{side(dw)});
        });
        expect_near("grouped_matmul_grad of " + text(c, layout), dw, few_roundings(dtype, 24),
                    std::sqrt(static_cast<double>(c.rows)));
      }
}

TEST(cuda_bad_counts) {
  const Twin x = lab().uniform(DType::kF32, {5, 3}), w = lab().uniform(DType::kF32, {3, 3, 2}),
             out(DType::kF32, {5, 2});
  struct Bad {
    std::vector<int32_t> counts;
    const char* words;
  };
  for (const Bad& bad : {Bad{{2, -1, 3}, "counts[1] is -1"}, Bad{{2, 2, 2}, "counts[2] is 2"},
                         Bad{{INT32_MAX, INT32_MAX, 1}, "counts[0] is 2147483647"}}) {
    const Twin counts = list_of(bad.counts);
    const FailurePointer failure = lab().alone([&] {
      const In xs[] = {In{x.device()}}, ws[] = {In{w.device()}};
      lab().gpu().grouped_matmul({xs, 1}, {ws, 1}, In{counts.device()}, Out{out.device()});
    });
    CHECK(failure != nullptr && failure->state == Failure::State::kFailed &&
              failure->message.find(bad.words) != std::string::npos,
          "%s: %s", bad.words, failure == nullptr ? "no failure" : failure->message.c_str());
  }
}

TEST(cuda_gather_sum) {
  struct Sizes {
    int64_t rows, sums, terms, width;
  };
  for (const DType dtype : kFloating)
    for (const Sizes& s : {Sizes{1, 1, 1, 1}, Sizes{9, 5, 3, 7}, Sizes{50, 70, 1, 64}, Sizes{40, 300, 8, 130}})
      for (int layout = 0; layout < 4; ++layout) {
        const bool turned = layout & 1, weighted = layout & 2;
        const Twin x = lab().uniform(dtype, {s.rows, s.width + 2}).as({s.rows, s.width}, {s.width + 2, 1}, 1);
        const Twin straight = lab().integers({s.sums, s.terms}, -1, static_cast<int32_t>(s.rows));
        const Twin ids = turned ? straight.as({s.sums, s.terms}, {1, s.sums}) : straight;
        // Those of 16-bit rows are float32 every second time.
        const bool wide = turned && item_size(dtype) == 2;
        const Twin weights = lab().uniform(wide ? DType::kF32 : dtype, {s.sums, s.terms}), absent;
        const Twin dout = lab().uniform(dtype, {s.sums, s.width}), out(dtype, {s.sums, s.width});
        const Twin dweights(weights.dtype(), {s.sums, s.terms});
        lab().both([&](Kernels& kernels, auto side) {
          kernels.gather_sum(In{side(x)}, In{side(ids)}, In{side(weighted ? weights : absent)}, Out{side(out)});
          kernels.gather_sum_grad(In{side(x)}, In{side(ids)}, In{side(dout)}, Out{side(dweights)});
        });
        const std::string what = std::to_string(s.sums) + " of " + std::to_string(s.terms) + " rows of " +
                                 std::to_string(s.width) + ", layout " + std::to_string(layout);
        expect_near("gather_sum: " + what, out, few_roundings(dtype, 8), std::sqrt(static_cast<double>(s.terms)));
        expect_near("gather_sum_grad: " + what, dweights, few_roundings(weights.dtype(), 8),
                    std::sqrt(static_cast<double>(s.width)));
      }
}

TEST(cuda_bad_ids_of_gather_sum) {
  const Twin x = lab().uniform(DType::kF32, {5, 3}), out(DType::kF32, {4, 3});
  for (const int32_t bad : {-2, 5, INT32_MAX}) {
    const Twin list = list_of({0, -1, 4, 1, bad, 2, bad, 0}), ids = list.as({4, 2}, {2, 1});
    const FailurePointer failure =
        lab().alone([&] { lab().gpu().gather_sum(In{x.device()}, In{ids.device()}, In{}, Out{out.device()}); });
    const std::string words = "id " + std::to_string(bad) + " at position 4 ";
    CHECK(failure != nullptr && failure->state == Failure::State::kFailed &&
              failure->message.find(words) != std::string::npos,
          "%s: %s", words.c_str(), failure == nullptr ? "no failure" : failure->message.c_str());
  }
}

}  // namespace
}  // namespace llmeff::test
