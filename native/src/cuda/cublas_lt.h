// cuBLASLt, opened at run time: one binary serves machines with and without it.
#pragma once

#include "cuda/context.h"
#include "cuda/product.h"

namespace llmeff::cuda {

class CublasLt {
 public:
  // Null when the library is not to be had; why_missing() tells.
  static CublasLt* open(Context& cuda);
  static const char* why_missing();
  ~CublasLt();

  // False for what the library doesn't take: a mixture of dtypes, or strides that it has no layout for.
  bool product(Context& cuda, const Product& product);

 private:
  CublasLt() = default;
  struct State;
  State* state_ = nullptr;
};

}  // namespace llmeff::cuda
