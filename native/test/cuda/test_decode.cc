// What a step of generation does on the GPU: products of few rows, several of one input, and attention of one position
// of each sequence over its own memory.
#include <algorithm>

#include "layouts.h"

namespace llmeff::test {
namespace {

TEST(cuda_products_of_few_rows) {
  for (const DType dtype : kFloating)
    for (const int64_t m : {1, 2, 3, 6, 9})
      for (const int64_t k : {1, 8, 100, 768, 2056})
        for (const int64_t n : {1, 7, 700, 9001}) {
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
          expect_near("product " + what, out, few_roundings(dtype, 24), std::sqrt(static_cast<double>(k)));
          if (kept) expect_near("before " + what, pre, few_roundings(dtype, 24), std::sqrt(static_cast<double>(k)));
        }
}

TEST(cuda_linear_many) {
  for (const DType dtype : kFloating)
    for (const int64_t m : {1, 3, 8, 9})
      for (const int64_t k : {7, 64, 768}) {
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
    for (const int64_t m : {1, 2, 3, 4, 7})
      for (const int64_t k : {5, 768}) {
        const Twin x = lab().uniform(dtype, {m, k}), out(dtype, {m, 301});
        const double scale = 1 / std::sqrt(static_cast<double>(k));
        const Twin gate = lab().uniform(dtype, {301, k}, scale), up = lab().uniform(dtype, {301, k}, scale);
        lab().both([&](Kernels& kernels, auto side) {
          kernels.swiglu_linear(In{side(x)}, In{}, 0, 0, In{side(gate)}, In{side(up)}, Out{side(out)});
        });
        // The products are rounded before they are multiplied.
        expect_near("swiglu_linear of " + std::to_string(m) + " × " + std::to_string(k), out,
                    4 * few_roundings(dtype, 24), 1);
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
