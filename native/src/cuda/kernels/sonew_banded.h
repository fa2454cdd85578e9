// The launches of SONew with any band from 0 to kMostBand, for parameters in W, state in S (W, or bfloat16 beside
// float32), any dtype of gradients and both rules that drop edges.
#pragma once

#include "cuda/context.h"
#include "cuda/kernels/sonew.cuh"

namespace llmeff::cuda::sonew {

namespace banded {

// A table is a kernel parameter: less than 32 KB.
constexpr int kArrays = kDiagonal + kMostBand + 1, kMostTensors = 128, kChunk = kTile;
using Table = TensorTable<kArrays, kMostTensors>;
using TableChains = Chains<kMostTensors>;

// What a launch does with a chunk.
enum class Work {
  kAll,     // new state, and u of it
  kUpdate,  // new state alone
  kFactor,  // u of the state as it is stored
};

struct Kind {
  int band;
  bool isolate;
  DType grads;

  // Elements after its own that the windows of a chunk read.
  __host__ __device__ int reach() const { return isolate ? 2 * band : band; }
  __host__ __device__ int border_width() const { return band + reach(); }
};

}  // namespace banded

template <class W, class S>
struct Banded {
  using Table = banded::Table;
  using TableChains = banded::TableChains;
  static constexpr int kChunk = banded::kChunk;

  banded::Kind kind;

  void prepare(Context& cuda, const Table& table, const TableChains& chains, const Factors<W>& f,
               const StepGuard& guard, Pass<W>& pass) const;
  void step(Context& cuda, const Table& table, const TableChains& chains, const Factors<W>& f, const StepGuard& guard,
            const Pass<W>& pass, int chunks) const;
};

}  // namespace llmeff::cuda::sonew
