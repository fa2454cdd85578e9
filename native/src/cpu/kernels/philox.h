// Random numbers by position: Philox 4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2,
// 3", 2011), so that any element can be made alone, on any thread and on any device.
//
//   key     = (low, high 32 bits of seed)
//   counter = (low, high 32 bits of the block number, low, high 32 bits of stream)
//
// Block n gives the words 4n … 4n+3 of the stream. Element i (row-major) is made of
//   uniform float32: word i:                    (word >> 8) · 2^-24
//   uniform float64: words a = 2i, b = 2i + 1:  ((a >> 5) · 2^26 + (b >> 6)) · 2^-53
//   normal (both):   u1 = (word 2j + 0.5) · 2^-32 and u2 = (word 2j+1 + 0.5) · 2^-32 of pair j = i / 2:
//                    √(−2 ln u1) · cos(2π u2) for even i, · sin(2π u2) for odd, in float64, rounded for float32.
#pragma once

#include "strided.h"

namespace llmeff::cpu::LLMEFF_ISA {

inline constexpr int64_t kLanesOfPhilox = 64;          // blocks made together: a loop long enough to be vectorised
inline constexpr int64_t kWords = 4 * kLanesOfPhilox;  // words of one call

// The words of kLanesOfPhilox blocks from `block` on, in stream order.
inline void philox(uint64_t seed, uint64_t stream, uint64_t block, uint32_t* words) {
  uint32_t c0[kLanesOfPhilox], c1[kLanesOfPhilox], c2[kLanesOfPhilox], c3[kLanesOfPhilox];
  for (int64_t i = 0; i < kLanesOfPhilox; ++i) {
    c0[i] = static_cast<uint32_t>(block + static_cast<uint64_t>(i));
    c1[i] = static_cast<uint32_t>((block + static_cast<uint64_t>(i)) >> 32);
    c2[i] = static_cast<uint32_t>(stream);
    c3[i] = static_cast<uint32_t>(stream >> 32);
  }
  uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
    for (int64_t i = 0; i < kLanesOfPhilox; ++i) {
      const uint64_t a = uint64_t{0xD2511F53u} * c0[i], b = uint64_t{0xCD9E8D57u} * c2[i];
      c0[i] = static_cast<uint32_t>(b >> 32) ^ c1[i] ^ k0;
      c1[i] = static_cast<uint32_t>(b);
      c2[i] = static_cast<uint32_t>(a >> 32) ^ c3[i] ^ k1;
      c3[i] = static_cast<uint32_t>(a);
    }
  }
  for (int64_t i = 0; i < kLanesOfPhilox; ++i) {
    words[4 * i] = c0[i];
    words[4 * i + 1] = c1[i];
    words[4 * i + 2] = c2[i];
    words[4 * i + 3] = c3[i];
  }
}

template <class T>
inline constexpr int64_t kUniformWords = static_cast<int64_t>(sizeof(T)) / 4;

LLMEFF_INLINE void make_uniform(const uint32_t* words, float* out) {
  for (int64_t i = 0; i < kWords; ++i) out[i] = static_cast<float>(static_cast<int32_t>(words[i] >> 8)) * 0x1p-24f;
}
LLMEFF_INLINE void make_uniform(const uint32_t* words, double* out) {
  for (int64_t i = 0; i < kWords / 2; ++i)
    out[i] = (static_cast<double>(words[2 * i] >> 5) * 0x1p26 + static_cast<double>(words[2 * i + 1] >> 6)) * 0x1p-53;
}

}  // namespace llmeff::cpu::LLMEFF_ISA
