// Numbers as unsigned keys of the same order, each with its position: what is sorted and selected.
#pragma once

#include "strided.h"

namespace llmeff::cpu::LLMEFF_ISA {

template <class T>
struct KeyOf {
  using type = uint32_t;
};
template <>
struct KeyOf<double> {
  using type = uint64_t;
};
template <class T>
using Key = typename KeyOf<T>::type;

// The best has the smallest key. NaN has the largest in both orders, and −0 that of 0.
template <class T>
LLMEFF_INLINE Key<T> key_of(T x, bool descending) {
  if (x != x) return ~Key<T>{0};
  constexpr int kTop = sizeof(T) * 8 - 1;
  const Key<T> bits = __builtin_bit_cast(Key<T>, x + T(0)), sign = Key<T>{1} << kTop;
  const Key<T> ascending = bits >> kTop ? ~bits : bits | sign;
  return descending ? ~ascending : ascending;
}
template <>
LLMEFF_INLINE uint32_t key_of(int32_t x, bool descending) {
  const uint32_t ascending = static_cast<uint32_t>(x) ^ 0x80000000u;
  return descending ? ~ascending : ascending;
}

template <class K>
struct Item {
  K key;
  int32_t index;
};

template <class K>
LLMEFF_INLINE bool before(const Item<K>& a, const Item<K>& b) {
  return a.key < b.key || (a.key == b.key && a.index < b.index);
}

}  // namespace llmeff::cpu::LLMEFF_ISA
