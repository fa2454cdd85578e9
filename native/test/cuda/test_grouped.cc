// Products of rows packed by group, and sums of rows by number, on the GPU.
#include <algorithm>

#include "layouts.h"

namespace llmeff::test {
namespace {

struct Case {
  int64_t rows, k, n;
  std::vector<int32_t> counts;  // fewer than all rows: the last ones belong to no group
};
// Where k and n are multiples of 8 Hopper's tensor cores do bfloat16: tiles of 128 rows, 64 deep, 128 or (above 1024
// and in multiples of 256) 256 columns wide; two tiles together from 1024 rows a group on, and of the gradient from k
// 1024 on.
const std::vector<Case> kCases = {
    {1, 1, 1, {1}},
    {5, 3, 2, {0, 5, 0}},
    {7, 4, 6, {0, 0, 0}},
    {64, 16, 64, {64}},
    {65, 17, 65, {64, 1}},
    {200, 33, 70, {3, 0, 129, 1, 60}},
    {700, 130, 67, {65, 63, 64, 1, 0, 0, 300, 128, 0, 70}},
    {900, 20, 40, std::vector<int32_t>(300, 3)},
    {1, 8, 8, {1}},
    {130, 64, 128, {0, 0, 0}},
    {386, 72, 136, {0, 1, 127, 128, 129, 0}},
    {700, 136, 256, {129, 0, 128, 0, 0, 127, 1, 257, 0, 40}},
    {515, 264, 512, {0, 515, 0}},
    {300, 120, 1032, {63, 65, 64, 0, 100}},
    {2200, 24, 264, {2184, 3, 5, 1}},
    {960, 128, 104, std::vector<int32_t>(300, 3)},
    {2100, 72, 136, {1025, 1025}},
    {3300, 64, 256, {1152, 0, 2111}},
    {1100, 200, 1032, {1100}},
    {193, 1032, 128, {3, 0, 129, 1, 60}},
    {200, 1160, 264, {72, 128}},
    {200, 1096, 256, {64, 65, 63, 0}},
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

// Sums of `terms` products of numbers below 1: each of the additions, in float32 or wider, is wrong by at most a
// rounding (on tensor cores two) of a partial sum, whose size is about √terms / 3, and their signs differ: 2 · terms
// roundings of 1 are far beyond what they make together, also of the reference's. Then the result is rounded, perhaps
// to the other side.
void expect_sums(const std::string& what, const Twin& sums, int64_t terms) {
  const DType dtype = sums.dtype();
  const double relative = 2.1 * rounding(dtype);
  const double absolute = 2.0 * static_cast<double>(terms) * rounding(item_size(dtype) == 2 ? DType::kF32 : dtype);
  expect_near(what, sums, relative, absolute / relative);
}

TEST(cuda_grouped_matmul) {
  for (const DType dtype : kFloating)
    for (const Case& c : kCases)
      for (int layout = 0; layout < 6; ++layout) {
        const int64_t groups = static_cast<int64_t>(c.counts.size());
        const Twin counts = list_of(c.counts), out(dtype, {c.rows, c.n});
        // One product, or the sum of two: with matrices of both layouts, or of one.
        const bool turned = layout & 1, turned_too = layout < 4 ? !turned : turned;
        const int64_t terms = layout < 2 ? 1 : 2, more_k = c.k % 8 == 0 ? 8 : 5;
        const Twin x = lab().uniform(dtype, {c.rows, c.k}), w = matrices(dtype, groups, c.k, c.n, turned);
        const Twin wide = lab().uniform(dtype, {c.rows, c.k + 3 * more_k});
        const Twin slice = wide.as({c.rows, c.k + more_k}, {c.k + 3 * more_k, 1}, more_k);
        const Twin more = matrices(dtype, groups, c.k + more_k, c.n, turned_too);
        lab().both([&](Kernels& kernels, auto side) {
          const In xs[] = {In{side(x)}, In{side(slice)}}, ws[] = {In{side(w)}, In{side(more)}};
          kernels.grouped_matmul({xs, terms}, {ws, terms}, In{side(counts)}, Out{side(out)});
        });
        expect_sums("grouped_matmul of " + text(c, layout), out, terms * (c.k + more_k));
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
        const int64_t gap = c.n % 8 == 0 ? 8 : 3;
        const Twin b = lab().uniform(dtype, {c.rows + 1, c.n + gap}).as({c.rows, c.n}, {c.n + gap, 1}, gap);
        lab().both([&](Kernels& kernels, auto side) {
          kernels.grouped_matmul_grad(In{side(a)}, In{side(b)}, In{side(counts)}, Out{side(dw)});
        });
        expect_sums("grouped_matmul_grad of " + text(c, layout), dw,
                    *std::max_element(c.counts.begin(), c.counts.end()));
      }
}

// More pairs of tiles than a GPU has multiprocessors, and more stages than lie in shared memory: blocks go on to
// further tiles, and stages are used again.
TEST(cuda_grouped_many_tiles) {
  const std::vector<int32_t> list = {1500, 1300, 250, 2000};
  const int64_t rows = 5200, k = 1032, n = 2304, groups = 4;
  if (!fits(rows * k * n)) return;
  const DType dtype = DType::kBF16;
  const Twin counts = list_of(list), x = lab().uniform(dtype, {rows, k}), slope = lab().uniform(dtype, {rows, n});
  for (const bool turned : {false, true}) {
    const Twin w = matrices(dtype, groups, k, n, turned), out(dtype, {rows, n});
    lab().both([&](Kernels& kernels, auto side) {
      const In xs[] = {In{side(x)}}, ws[] = {In{side(w)}};
      kernels.grouped_matmul({xs, 1}, {ws, 1}, In{side(counts)}, Out{side(out)});
    });
    expect_sums("grouped_matmul of many tiles", out, k);
  }
  const Twin dw(dtype, {groups, k, n});
  lab().both([&](Kernels& kernels, auto side) {
    kernels.grouped_matmul_grad(In{side(x)}, In{side(slope)}, In{side(counts)}, Out{side(dw)});
  });
  expect_sums("grouped_matmul_grad of many tiles", dw, 2000);
}

// NaN in the rows of one group, and in those of none, which tiles and stages of its neighbour reach into.
TEST(cuda_grouped_keeps_groups_apart) {
  const std::vector<int32_t> list = {100, 5, 70};
  const int64_t rows = 300, k = 72, n = 136, second = 100, third = 105, behind = 175;
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const Twin counts = list_of(list), x(dtype, {rows, k}), w = matrices(dtype, 3, k, n, true), out(dtype, {rows, n});
    const Twin slope = lab().uniform(dtype, {rows, n}), dw(dtype, {3, k, n});
    for (Twin twin : {x, slope})
      for (int64_t i = 0; i < twin.capacity(); ++i) {
        const int64_t row = i / (twin.capacity() / rows);
        twin.values()[i] = (row >= second && row < third) || row >= behind ? kNan : lab().random();
      }
    for (Twin twin : {x, slope}) twin.send(lab().cpu());
    lab().both([&](Kernels& kernels, auto side) {
      const In xs[] = {In{side(x)}}, ws[] = {In{side(w)}};
      kernels.grouped_matmul({xs, 1}, {ws, 1}, In{side(counts)}, Out{side(out)});
      kernels.grouped_matmul_grad(In{side(x)}, In{side(slope)}, In{side(counts)}, Out{side(dw)});
    });
    expect_sums("grouped_matmul beside NaN", out, k);
    expect_sums("grouped_matmul_grad beside NaN", dw, 100);
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
      for (int layout = 0; layout < 8; ++layout) {
        const bool turned = layout & 1, weighted = layout & 2;
        const int64_t beside = layout & 4 ? 0 : 2;  // without, rows of 64 can be read 16 bytes at a time
        const Twin x =
            lab().uniform(dtype, {s.rows, s.width + beside}).as({s.rows, s.width}, {s.width + beside, 1}, beside / 2);
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
