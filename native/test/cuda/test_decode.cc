// What a step of generation does on the GPU: products of few rows, several of one input, and attention of one position
// of each sequence over its own memory.
#include <algorithm>

#include "layouts.h"

namespace llmeff::test {
namespace {

TEST(cuda_products_of_few_rows) {
  for (const DType dtype : kFloating)
    for (const int64_t m : {1, 2, 3, 6, 8, 9, 16, 17, 33})
      for (const int64_t k : {1, 8, 100, 768, 2056, 4104})
        for (const int64_t n : {1, 7, 700, 9001, 20'001}) {
          // The CPU takes its time for the largest.
          if ((n == 9001 && (m > 9 || k > 2056)) || (n > 9001 && k != 8 && k != 768)) continue;
          const Twin x = lab().uniform(dtype, {m, k + 8}).as({m, k}, {k + 8, 1}), w = lab().uniform(dtype, {n, k});
          const Twin bias = lab().uniform(dtype, {n}), out(dtype, {m, n}), pre(dtype, {m, n});
          const Twin turned = w.as({k, n}, {1, k});
          const Activation activation = n == 700 ? Activation::kSilu : Activation::kNone;
          const bool kept = activation != Activation::kNone && m > 1;
          lab().both([&](Kernels& kernels, auto side) {
            kernels.matmul(In{side(x)}, In{side(turned)}, n == 7 ? In{} : In{side(bias)}, activation,
                           kept ? Out{side(pre)} : Out{}, Out{side(out)});
          });
          const std::string what = std::to_string(m) + " × " + std::to_string(k) + " × " + std::to_string(n);
          const double roundings = few_roundings(dtype, k > 4000 ? 48 : 24),
                       magnitude = std::sqrt(static_cast<double>(k));
          expect_near("product " + what, out, roundings, magnitude);
          if (kept) expect_near("before " + what, pre, roundings, magnitude);
        }
}

TEST(cuda_linear_many) {
  for (const DType dtype : kFloating)
    for (const int64_t m : {1, 3, 8, 9, 16, 32, 33})
      for (const int64_t k : {7, 64, 768, 4096}) {
        const std::vector<int64_t> sizes = {33, 1, 768, 6};
        const Twin x = lab().uniform(dtype, {1, m, k}), out(dtype, {1, m, 808}), of_norm(dtype, {1, m, 808});
        const Twin norm = lab().uniform(dtype, {k}), residual = lab().uniform(dtype, {1, m, 768});
        const Twin sum(dtype, {1, m, 768});
        std::vector<Twin> weights;
        for (const int64_t n : sizes) weights.push_back(lab().uniform(dtype, {n, k}));
        lab().both([&](Kernels& kernels, auto side) {
          std::vector<In> list;
          for (const Twin& weight : weights) list.push_back(In{side(weight)});
          const List<In> all = {list.data(), static_cast<int64_t>(list.size())};
          kernels.linear_many(In{side(x)}, In{}, 0, 0, all, Out{side(out)});
          kernels.linear_many(In{side(x)}, In{side(norm)}, 1, 1e-3, all, Out{side(of_norm)});
          kernels.linear_add(In{side(x)}, list[2], In{side(residual)}, Out{side(sum)});
        });
        const std::string what = std::to_string(m) + " × " + std::to_string(k);
        const double magnitude = std::sqrt(static_cast<double>(k));
        expect_near("linear_many of " + what, out, few_roundings(dtype, 24), magnitude);
        // Normed numbers reach 2, their weights too, and may have been rounded before.
        expect_near("linear_many of a norm of " + what, of_norm, few_roundings(dtype, 24), 4 * magnitude);
        expect_near("linear_add of " + what, sum, 2 * few_roundings(dtype, 24), magnitude);
      }
}

TEST(cuda_swiglu_linear) {
  for (const DType dtype : kFloating)
    for (const int64_t m : {1, 2, 3, 4, 7, 8, 13, 32, 33})
      for (const int64_t k : {5, 768, 1024})
        for (const bool normed : {false, true}) {
          const Twin x = lab().uniform(dtype, {m, k}), norm = lab().uniform(dtype, {k}, 0.5), out(dtype, {m, 301});
          const double scale = 1 / std::sqrt(static_cast<double>(k));
          const Twin gate = lab().uniform(dtype, {301, k}, scale), up = lab().uniform(dtype, {301, k}, scale);
          lab().both([&](Kernels& kernels, auto side) {
            kernels.swiglu_linear(In{side(x)}, normed ? In{side(norm)} : In{}, 0.5, 1e-3, In{side(gate)}, In{side(up)},
                                  Out{side(out)});
          });
          // The products are rounded before they are multiplied; normed numbers reach 2, and may have been rounded,
          // too.
          expect_near("swiglu_linear of " + std::to_string(m) + " × " + std::to_string(k) + (normed ? " normed" : ""),
                      out, 4 * few_roundings(dtype, 24), normed ? 4 : 1);
        }
}

TEST(cuda_likeliest) {
  for (const DType dtype : kFloating)
    for (const int64_t n : {1, 3})
      for (const int64_t v : {1, 9, 4096, 50'305}) {
        const Twin x = lab().uniform(dtype, {n, v + 7}, 20).as({n, v}, {v + 7, 1}, v % 2 == 0 ? 0 : 1);
        const DType wide = dtype == DType::kF64 ? DType::kF64 : DType::kF32;
        const Twin ids(DType::kI32, {n}), found(wide, {3, n});
        lab().both(
            [&](Kernels& kernels, auto side) { kernels.likeliest(In{side(x)}, Out{side(ids)}, Out{side(found)}); });
        const std::string what = std::to_string(n) + " rows of " + std::to_string(v);
        expect_near("ids of " + what, ids, 0);
        expect_near("found of " + what, found, 24 * rounding(wide), 1);
      }
}

// Temperature, k, p, minimum.
constexpr double kFilters[][4] = {{1, 0, 1, 0},      {0.8, 0, 1, 0},        {0, 3, 0.5, 0},   {1.3, 40, 1, 0},
                                  {1, 1, 1, 0},      {1, 1e6, 1, 0},        {1, 0, 0.9, 0},   {8, 0, 0.9, 0},
                                  {20, 0, 0.999, 0}, {1, 0, 1e-12, 0},      {3, 0, 1, 0.2},   {1, 0, 1, 1},
                                  {5, 500, 0.8, 0},  {4, 2000, 0.97, 1e-3}, {1e-300, 0, 1, 0}};

// The token of a row by all tokens sorted.
int32_t plain_token(const double* x, int64_t v, const double (&how)[4], double u) {
  std::vector<int64_t> order(static_cast<size_t>(v));
  for (int64_t i = 0; i < v; ++i) order[static_cast<size_t>(i)] = i;
  std::stable_sort(order.begin(), order.end(), [x](int64_t a, int64_t b) { return x[a] > x[b]; });
  if (how[0] == 0) return static_cast<int32_t>(order[0]);
  const double least =
      how[1] >= 1 && how[1] < static_cast<double>(v) ? x[order[static_cast<size_t>(how[1]) - 1]] : -kInf;
  std::vector<double> weights(static_cast<size_t>(v));
  long double total = 0, before = 0, kept = 0, sum = 0;
  for (const int64_t i : order) {
    weights[static_cast<size_t>(i)] = x[i] >= least ? std::exp((x[i] - x[order[0]]) / how[0]) : 0;
    total += weights[static_cast<size_t>(i)];
  }
  for (const int64_t i : order) {
    double& weight = weights[static_cast<size_t>(i)];
    const bool heavy = (how[2] >= 1 || before == 0 || before < how[2] * total) && weight >= how[3];
    before += weight;
    if (!heavy) weight = 0;
    kept += weight;
  }
  int64_t id = 0;
  while (id + 1 < v && !((sum += weights[static_cast<size_t>(id)]) > u * kept)) ++id;
  return static_cast<int32_t>(id);
}

TEST(cuda_sample_tokens) {
  constexpr int64_t kRows = std::size(kFilters);
  for (const DType dtype : kFloating)
    for (const int64_t v : {1, 9, 700, 4096, 50'305}) {
      Twin x = lab().uniform(dtype, {kRows, v + 7}, 20).as({kRows, v}, {v + 7, 1}, v % 2 == 0 ? 0 : 1);
      const DType wide = dtype == DType::kF64 ? DType::kF64 : DType::kF32;
      Twin how(DType::kF64, {kRows, 4}), u(DType::kF64, {kRows});
      const Twin ids(DType::kI32, {kRows}), found(wide, {4, kRows});
      for (int64_t row = 0; row < kRows; ++row) {
        std::copy_n(kFilters[row], 4, how.values() + 4 * row);
        u.values()[row] = (1 + lab().random()) / 2;
      }
      how.send(lab().cpu()), u.send(lab().cpu());
      lab().both([&](Kernels& kernels, auto side) {
        kernels.sample_tokens(In{side(x)}, In{side(how)}, In{side(u)}, Out{side(ids)}, Out{side(found)});
      });
      const std::string what = "rows of " + std::to_string(v);
      expect_near("ids of " + what, ids, 0);
      expect_near("found of " + what, found, 24 * rounding(wide), 1);
      const std::vector<double> drawn = ids.received(lab().cpu());
      for (int64_t row = 0; row < kRows; ++row) {
        const double* scores = static_cast<const double*>(x.host().data) + row * (v + 7);
        const int32_t wanted = plain_token(scores, v, kFilters[row], u.values()[row]);
        CHECK(drawn[static_cast<size_t>(row)] == wanted, "%s, row %d: token %g, and %d by a sort", what.c_str(),
              static_cast<int>(row), drawn[static_cast<size_t>(row)], wanted);
      }
    }
}

// Ties are kept from the first on, zeros of both signs are one score, and rows by which nothing can be drawn are told.
TEST(cuda_sample_tokens_of_special_rows) {
  constexpr int64_t kRows = 8, kV = 5000;
  for (const DType dtype : kFloating) {
    Twin x(dtype, {kRows, kV}), how(DType::kF64, {kRows, 4}), u(DType::kF64, {kRows});
    const DType wide = dtype == DType::kF64 ? DType::kF64 : DType::kF32;
    const Twin ids(DType::kI32, {kRows}), found(wide, {4, kRows});
    const double filters[kRows][4] = {{1, 0, 0.777, 0},  {2, 0, 0.4, 0},   {1, 100, 1, 0}, {1, 3000, 0.61, 0.5},
                                      {1, 0, 0.5, 0.01}, {0.7, 7, 0.9, 0}, {1, 0, 1, 0},   {1, 2, 0.5, 0}};
    for (int64_t row = 0; row < kRows; ++row) {
      std::copy_n(filters[row], 4, how.values() + 4 * row);
      u.values()[row] = 0.98765;
      for (int64_t i = 0; i < kV; ++i) {
        const double special[kRows] = {-7.5,
                                       static_cast<double>(i % 5),
                                       i % 2 == 0 ? 0.0 : -0.0,
                                       i % 3 == 0 ? -kInf : (i % 7 == 0 ? 1.0 : 0.0),
                                       i == 4321 ? 3.0 : -kInf,
                                       i == 4000 ? kNan : static_cast<double>(i % 11),
                                       -kInf,
                                       i == 17 || i == 4444 ? kInf : 0.5};
        x.values()[row * kV + i] = special[row];
      }
    }
    x.send(lab().cpu()), how.send(lab().cpu()), u.send(lab().cpu());
    lab().both([&](Kernels& kernels, auto side) {
      kernels.sample_tokens(In{side(x)}, In{side(how)}, In{side(u)}, Out{side(ids)}, Out{side(found)});
    });
    expect_near("ids of special rows", ids, 0);
    const std::vector<double> drawn = ids.received(lab().cpu()), all = found.received(lab().cpu());
    // floor(0.98765 · ⌈0.777 · 5000⌉); all scores of −7.5.
    CHECK(drawn[0] == 3837 && drawn[2] == 4938 && drawn[4] == 4321, "tokens %g, %g, %g", drawn[0], drawn[2], drawn[4]);
    CHECK(drawn[5] == 4000 && drawn[6] == 0 && drawn[7] == 17, "bad rows %g, %g, %g", drawn[5], drawn[6], drawn[7]);
    const double* largest = all.data() + 3 * kRows;
    CHECK(largest[0] == -7.5 && std::isnan(largest[5]) && largest[6] == -kInf && largest[7] == kInf, "largest of %s",
          name_of(dtype));
  }
}

struct Decode {
  std::vector<int32_t> kept;  // of each sequence
  int64_t heads, kv_heads, width, half, window;
  double softcap;
  bool interleaved;
};
const std::vector<Decode> kDecodes = {
    {{0}, 1, 1, 8, 0, 0, 0, false},
    {{5, 0, 63}, 4, 2, 16, 8, 0, 0, false},
    {{700}, 3, 3, 64, 32, 0, 0, false},
    {{3000, 64}, 8, 2, 128, 64, 0, 0, true},
    {{333, 90}, 2, 1, 256, 100, 100, 6, false},
    {{1029}, 2, 2, 96, 0, 64, 0, false},
    {{40, 7}, 3, 1, 6, 2, 0, 4, true},
    {std::vector<int32_t>(70, 17), 2, 2, 32, 16, 0, 0, false},
};

TEST(cuda_decode_attention) {
  for (const DType dtype : kFloating)
    for (const Decode& x : kDecodes) {
      const int64_t sequences = static_cast<int64_t>(x.kept.size());
      const int64_t room = *std::max_element(x.kept.begin(), x.kept.end()) + 3;
      // q, k and v lie side by side, as of a product for all three.
      const int64_t all = x.heads + 2 * x.kv_heads, step = all * x.width;
      const Twin rows = lab().uniform(dtype, {1, sequences, all, x.width});
      const auto part = [&](int64_t first, int64_t heads) {
        return rows.as({1, sequences, heads, x.width}, {sequences * step, step, x.width, 1}, first * x.width);
      };
      const Twin q = part(0, x.heads), k = part(x.heads, x.kv_heads), v = part(x.heads + x.kv_heads, x.kv_heads);
      const DType exact = dtype == DType::kF64 ? DType::kF64 : DType::kF32;
      const Twin cos = x.half == 0 ? Twin() : lab().uniform(exact, {sequences, x.half});
      const Twin sin = x.half == 0 ? Twin() : lab().uniform(exact, {sequences, x.half});
      std::vector<Twin> keys, values;
      std::vector<int64_t> offsets;
      Twin positions(DType::kI32, {sequences});
      for (int64_t i = 0; i < sequences; ++i) {
        keys.push_back(lab().uniform(dtype, {1, room, x.kv_heads, x.width}));
        values.push_back(lab().uniform(dtype, {1, room, x.kv_heads, x.width}));
        offsets.push_back(10 * i);
        positions.integers()[i] = x.kept[static_cast<size_t>(i)] + static_cast<int32_t>(10 * i);
      }
      positions.send(lab().cpu());
      const Twin out(dtype, {1, sequences, x.heads, x.width});
      lab().both([&](Kernels& kernels, auto side) {
        std::vector<InOut> own_keys, own_values;
        for (const Twin& twin : keys) own_keys.push_back(InOut{side(twin)});
        for (const Twin& twin : values) own_values.push_back(InOut{side(twin)});
        const bool turns = x.half > 0;
        kernels.decode_attention(In{side(q)}, In{side(k)}, In{side(v)}, {own_keys.data(), sequences},
                                 {own_values.data(), sequences}, {offsets.data(), sequences}, In{side(positions)},
                                 turns ? In{side(cos)} : In{}, turns ? In{side(sin)} : In{}, x.interleaved, 0.3,
                                 x.window, x.softcap, Out{side(out)});
      });
      const std::string what = std::to_string(sequences) + " sequences, width " + std::to_string(x.width);
      // Turned queries and keys are rounded, which shifts the logits.
      const double magnitude = std::sqrt(static_cast<double>(x.width));
      expect_near("decode_attention of " + what, out, few_roundings(dtype, 16), magnitude);
      for (const Twin& twin : keys) expect_near("keys of " + what, twin, few_roundings(dtype, 4), 2);
      for (const Twin& twin : values) expect_near("values of " + what, twin, 0, 1);
    }
}

TEST(cuda_decode_attention_outside_of_its_memory) {
  for (const int32_t bad : {-1, 4, 100}) {
    const Twin rows = lab().uniform(DType::kBF16, {1, 2, 2, 16});
    const Twin keys = lab().uniform(DType::kBF16, {1, 4, 2, 16}), values = lab().uniform(DType::kBF16, {1, 4, 2, 16});
    const Twin more = lab().uniform(DType::kBF16, {1, 4, 2, 16}), out(DType::kBF16, {1, 2, 2, 16});
    Twin positions(DType::kI32, {2});
    positions.integers()[0] = 1, positions.integers()[1] = bad;
    positions.send(lab().cpu());
    const std::vector<double> before = keys.received(lab().cpu());
    const FailurePointer failure = lab().alone([&] {
      const InOut own_keys[] = {InOut{more.device()}, InOut{keys.device()}};
      const InOut own_values[] = {InOut{more.device()}, InOut{values.device()}};
      const int64_t offsets[] = {0, 0};
      const In x{rows.device()};
      lab().gpu().decode_attention(x, x, x, {own_keys, 2}, {own_values, 2}, {offsets, 2}, In{positions.device()}, In{},
                                   In{}, false, 1, 0, 0, Out{out.device()});
    });
    CHECK(failure != nullptr && failure->state == Failure::State::kFailed &&
              failure->message.find("of sequence 1 is outside its memory") != std::string::npos,
          "position %d", bad);
    CHECK(keys.received(lab().cpu()) == before, "position %d was written", bad);
  }
}

}  // namespace
}  // namespace llmeff::test
