// Random numbers by position: Philox 4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2,
// 3", 2011), the numbers of the CPU (cpu/kernels/philox.h says how elements are made of words).
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace llmeff::cuda {

// The four words of a block of the stream.
__device__ __forceinline__ uint4 philox(uint64_t seed, uint64_t stream, uint64_t block) {
  uint4 c = {static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32), static_cast<uint32_t>(stream),
             static_cast<uint32_t>(stream >> 32)};
  uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
#pragma unroll
  for (int round = 0; round < 10; ++round, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
    const uint64_t a = uint64_t{0xD2511F53u} * c.x, b = uint64_t{0xCD9E8D57u} * c.z;
    c = {static_cast<uint32_t>(b >> 32) ^ c.y ^ k0, static_cast<uint32_t>(b), static_cast<uint32_t>(a >> 32) ^ c.w ^ k1,
         static_cast<uint32_t>(a)};
  }
  return c;
}

__device__ __forceinline__ float uniform_of(uint32_t word) {
  return static_cast<float>(word >> 8) * 0x1p-24f;
}
__device__ __forceinline__ double uniform_of(uint32_t a, uint32_t b) {
  return (static_cast<double>(a >> 5) * 0x1p26 + static_cast<double>(b >> 6)) * 0x1p-53;
}

// Two standard normal numbers of two words, by Box and Muller's transformation.
__device__ __forceinline__ double2 normal_of(uint32_t a, uint32_t b) {
  const double u1 = (a + 0.5) * 0x1p-32, u2 = (b + 0.5) * 0x1p-32, radius = sqrt(-2 * log(u1));
  double sine, cosine;
  sincospi(2 * u2, &sine, &cosine);
  return {radius * cosine, radius * sine};
}

}  // namespace llmeff::cuda
