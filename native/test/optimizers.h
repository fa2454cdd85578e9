// Lists of arrays of awkward sizes, and comparisons with them in double, for the tests of the optimizers.
#pragma once

#include <algorithm>
#include <initializer_list>

#include "isas.h"
#include "test.h"

namespace llmeff::test {

using Doubles = std::vector<double>;

inline const std::vector<int64_t> kSizes = {1, 2, 15, 16, 17, 511, 512, 513, 16383, 16384, 16385, 16400, 40000, 300001};

// The arrays of one kind, one for each tensor.
template <class T>
struct Arrays {
  std::vector<std::vector<T>> data;

  static Arrays zeros(const std::vector<int64_t>& sizes = kSizes) {
    Arrays a;
    for (const int64_t n : sizes) a.data.emplace_back(static_cast<size_t>(n), T{0});
    return a;
  }
  static Arrays random(Numbers& numbers, const std::vector<int64_t>& sizes = kSizes) {
    Arrays a;
    for (const int64_t n : sizes) a.data.push_back(numbers.vector<T>(n));
    return a;
  }
  template <class V>
  std::vector<V> views() const {
    std::vector<V> v;
    for (const auto& x : data) v.push_back(view<V>(x.data(), {static_cast<int64_t>(x.size())}));
    return v;
  }
};

template <class V>
List<V> list(const std::vector<V>& views) {
  return {views.data(), static_cast<int64_t>(views.size())};
}

// The same numbers in another precision.
template <class T>
std::vector<Doubles> widen(const Arrays<T>& a) {
  std::vector<Doubles> wide;
  for (const auto& x : a.data) wide.emplace_back(x.begin(), x.end());
  return wide;
}

template <class T>
double largest_difference(const Arrays<T>& got, const std::vector<Doubles>& want) {
  double worst = 0;
  for (size_t t = 0; t < want.size(); ++t)
    for (size_t i = 0; i < want[t].size(); ++i) {
      const double error = std::fabs(static_cast<double>(got.data[t][i]) - want[t][i]);
      worst = std::isnan(error) ? INFINITY : std::max(worst, error);
    }
  return worst;
}

template <class T>
bool copies_are(const Arrays<float>& copies, const Arrays<T>& p) {
  for (size_t t = 0; t < p.data.size(); ++t)
    for (size_t i = 0; i < p.data[t].size(); ++i)
      if (copies.data[t][i] != static_cast<float>(p.data[t][i])) return false;
  return true;
}

}  // namespace llmeff::test
