// Embeddings, rotary embedding and SwiGLU on the GPU.
#include "lab.h"

namespace llmeff::test {
namespace {

constexpr DType kDTypes[] = {DType::kF32, DType::kF64, DType::kBF16, DType::kF16};

TEST(cuda_embedding) {
  for (const DType dtype : kDTypes)
    for (const int64_t width : {1, 3, 8, 33, 64, 768, 1001}) {
      const Twin table = lab().uniform(dtype, {50, width}), ids = lab().integers({7, 9}, 0, 50),
                 out(dtype, {7, 9, width});
      lab().both(
          [&](Kernels& kernels, auto side) { kernels.embedding(In{side(table)}, In{side(ids)}, Out{side(out)}); });
      lab().expect("rows of " + std::to_string(width), out, 0);
    }
}

TEST(cuda_embedding_grad) {
  for (const DType dtype : kDTypes)
    for (const int64_t width : {1, 3, 8, 33, 64, 264, 768})
      for (const int64_t count : {1, 31, 33, 1023, 5000})
        for (const int32_t vocabulary : {1, 2, 40, 5000}) {
          const Twin dout = lab().uniform(dtype, {count, width}), ids = lab().integers({count}, 0, vocabulary);
          const Twin dtable(dtype, {vocabulary, width});
          lab().both([&](Kernels& kernels, auto side) {
            kernels.embedding_grad(In{side(dout)}, In{side(ids)}, Out{side(dtable)});
          });
          // Numbers below 1: partial sums below the count.
          const double terms = static_cast<double>(count) / vocabulary * 2 + 40;
          lab().expect("gradient of " + std::to_string(count) + " ids", dtable,
                       rounding(dtype) + terms * (dtype == DType::kF64 ? 0x1p-53 : 0x1p-24), std::sqrt(terms));
        }
}

TEST(cuda_embedding_reports_ids_outside_the_vocabulary) {
  for (const int32_t bad : {-1, 50}) {
    const Twin table = lab().uniform(DType::kF32, {50, 8}), out(DType::kF32, {3, 8}), dtable(DType::kF32, {50, 8});
    Twin ids = lab().integers({3}, 0, 50);
    ids.integers()[1] = bad;
    ids.send(lab().cpu());
    for (const bool gradient : {false, true}) {
      const FailurePointer check = lab().alone([&] {
        if (gradient)
          lab().gpu().embedding_grad(In{out.device()}, In{ids.device()}, Out{dtable.device()});
        else
          lab().gpu().embedding(In{table.device()}, In{ids.device()}, Out{out.device()});
      });
      CHECK(check != nullptr && check->state == Failure::State::kFailed, "id %d, gradient %d", bad, gradient);
      const std::string message =
          "[embedding] token id " + std::to_string(bad) + " at position 1 is outside the vocabulary of 50";
      CHECK(check != nullptr && check->message == message, "%s", check == nullptr ? "" : check->message.c_str());
    }
    const std::vector<double> rows = out.received(lab().cpu());
    for (int i = 8; i < 16; ++i) CHECK(rows[static_cast<size_t>(i)] == 0, "element %d", i);
  }
}

TEST(cuda_rope) {
  for (const DType dtype : kDTypes)
    for (const int64_t size : {2, 6, 8, 16, 64, 80, 128})
      for (const int64_t turned : {int64_t{2}, size / 2 / 2 * 2, size})
        for (const int options : {0, 1, 2, 3}) {
          if (turned < 2) continue;
          const bool interleaved = options & 1, inverse = options & 2;
          const int64_t B = 2, T = 17, H = 3;
          const DType wide = dtype == DType::kF64 ? DType::kF64 : DType::kF32;
          const Twin tables = lab().uniform(wide, {2, T, turned / 2});
          const Twin cos = tables.as({T, turned / 2}, {turned / 2, 1}),
                     sin = tables.as({T, turned / 2}, {turned / 2, 1}, T * turned / 2);
          // Of heads that lie among others, as q in a fused product.
          const int64_t width = 3 * H * size;
          const Twin x = lab().uniform(dtype, {B, T, width}).as({B, T, H, size}, {T * width, width, size, 1}, H * size);
          const Twin out(dtype, {B, T, H, size});
          lab().both([&](Kernels& kernels, auto side) {
            kernels.rope(In{side(x)}, In{side(cos)}, In{side(sin)}, interleaved, inverse, Out{side(out)});
          });
          lab().expect("rope of " + std::to_string(turned) + " of " + std::to_string(size), out,
                       rounding(dtype) + 4 * (dtype == DType::kF64 ? 0x1p-53 : 0x1p-24));
        }
}

TEST(cuda_rope_and_keep) {
  for (const DType dtype : kDTypes)
    for (const int64_t size : {2, 6, 8, 64, 80, 128})
      for (const int64_t turned : {int64_t{2}, size / 2 / 2 * 2, size})
        for (const bool interleaved : {false, true}) {
          if (turned < 2) continue;
          // Values with heads of another width, in memory with rows before and behind the new ones.
          const int64_t B = 2, T = 17, H = 4, K = 2, value_size = size == 80 ? 24 : size, S = T + 8, before = 5;
          const DType wide = dtype == DType::kF64 ? DType::kF64 : DType::kF32;
          const Twin tables = lab().uniform(wide, {2, T, turned / 2});
          const Twin cos = tables.as({T, turned / 2}, {turned / 2, 1}),
                     sin = tables.as({T, turned / 2}, {turned / 2, 1}, T * turned / 2);
          const int64_t width = (H + K) * size + K * value_size;
          const Twin all = lab().uniform(dtype, {B, T, width});
          const Twin q = all.as({B, T, H, size}, {T * width, width, size, 1}),
                     k = all.as({B, T, K, size}, {T * width, width, size, 1}, H * size),
                     v = all.as({B, T, K, value_size}, {T * width, width, value_size, 1}, (H + K) * size);
          const Twin queries(dtype, {B, T, H, size});
          const Twin keys = lab().uniform(dtype, {B, S, K, size}), values = lab().uniform(dtype, {B, S, K, value_size});
          const auto new_rows = [&](const Twin& memory, int64_t channels) {
            return memory.as({B, T, K, channels}, {S * K * channels, K * channels, channels, 1}, before * K * channels);
          };
          const Twin new_keys = new_rows(keys, size), new_values = new_rows(values, value_size);
          lab().both([&](Kernels& kernels, auto side) {
            kernels.rope_and_keep(In{side(q)}, In{side(k)}, In{side(v)}, In{side(cos)}, In{side(sin)}, interleaved,
                                  Out{side(queries)}, Out{side(new_keys)}, Out{side(new_values)});
          });
          const std::string what = std::to_string(turned) + " of " + std::to_string(size);
          const double allowed = rounding(dtype) + 4 * (dtype == DType::kF64 ? 0x1p-53 : 0x1p-24);
          lab().expect("queries turned by " + what, queries, allowed);
          lab().expect("keys turned by " + what, keys, allowed);
          lab().expect("values beside keys turned by " + what, values, 0);
        }
}

TEST(cuda_swiglu) {
  for (const DType dtype : kDTypes)
    for (const int64_t n : {1, 7, 8, 31, 64, 520, 2048}) {
      // Gate and up are the halves of one array.
      const Twin both = lab().uniform(dtype, {5, 3, 2 * n}, 6);
      const Twin gate = both.as({5, 3, n}, {6 * n, 2 * n, 1}), up = both.as({5, 3, n}, {6 * n, 2 * n, 1}, n);
      const Twin dout = lab().uniform(dtype, {5, 3, n}), out(dtype, {5, 3, n}), dgate(dtype, {5, 3, n}),
                 dup(dtype, {5, 3, n});
      lab().both([&](Kernels& kernels, auto side) {
        kernels.swiglu(In{side(gate)}, In{side(up)}, Out{side(out)});
        kernels.swiglu_grad(In{side(dout)}, In{side(gate)}, In{side(up)}, Out{side(dgate)}, Out{side(dup)});
      });
      // e^-x of |x| ≤ 6 has an error of 6 roundings and 2 of its own; all else is products.
      const double error = rounding(dtype) + 16 * (dtype == DType::kF64 ? 0x1p-53 : 0x1p-24);
      lab().expect("out of " + std::to_string(n), out, error, 6);
      lab().expect("dgate of " + std::to_string(n), dgate, 2 * error, 6);
      lab().expect("dup of " + std::to_string(n), dup, error, 6);
    }
}

TEST(cuda_swiglu_of_large_and_missing_numbers) {
  Twin gate(DType::kF32, {8});
  const double values[] = {NAN, INFINITY, 1e30, 100, -100, -1e30, 0, -0.0};
  for (int i = 0; i < 8; ++i) gate.values()[i] = values[i];
  gate.send(lab().cpu());
  const Twin up = lab().uniform(DType::kF32, {8}, 0.5, 1), out(DType::kF32, {8});
  lab().both([&](Kernels& kernels, auto side) { kernels.swiglu(In{side(gate)}, In{side(up)}, Out{side(out)}); });
  lab().expect("out", out, 8 * 0x1p-24);
}

}  // namespace
}  // namespace llmeff::test
