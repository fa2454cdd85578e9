// Lists of twins of awkward sizes, for the tests of the optimizers.
#pragma once

#include <initializer_list>

#include "lab.h"

namespace llmeff::test {

inline constexpr DType kDTypes[] = {DType::kF32, DType::kF64, DType::kBF16, DType::kF16};

inline double arithmetic(DType dtype) {
  return dtype == DType::kF64 ? 0x1p-53 : 0x1p-24;
}

inline const std::vector<int64_t> kSizes = {1,    2,    3,    4,    5,    31,   128,   1023,
                                            1024, 1025, 2047, 2048, 2049, 4096, 10000, 100003};

using Twins = std::vector<Twin>;

// Every third one begins one element into its memory.
inline Twins uniform(DType dtype, const std::vector<int64_t>& sizes, double scale = 1, double offset = 0) {
  Twins twins;
  for (const int64_t n : sizes) {
    const int64_t shift = twins.size() % 3 == 2;
    twins.push_back(lab().uniform(dtype, {n + shift}, scale, offset).as({n}, {1}, shift));
  }
  return twins;
}
inline Twins outputs(DType dtype, const std::vector<int64_t>& sizes) {
  Twins twins;
  for (const int64_t n : sizes) twins.emplace_back(dtype, std::vector<int64_t>{n});
  return twins;
}

// The views of a list on one side.
template <class V>
struct Views {
  std::vector<V> views;
  template <class Side>
  Views(const Twins& twins, const Side& side) {
    for (const Twin& twin : twins) views.push_back(V{side(twin)});
  }
  operator List<V>() const { return {views.data(), static_cast<int64_t>(views.size())}; }
};

inline void expect_all(const char* what, const Twins& twins, double tolerance, double magnitude = 1) {
  for (size_t i = 0; i < twins.size(); ++i)
    lab().expect(std::string(what) + " " + std::to_string(i), twins[i], tolerance, magnitude);
}

// The dtypes that gradients may have.
inline std::vector<DType> grad_dtypes(DType dtype) {
  if (dtype == DType::kF32) return {DType::kF32, DType::kBF16, DType::kF16};
  return {dtype};
}

}  // namespace llmeff::test
