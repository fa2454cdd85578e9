// The part of cuBLASLt's interface that is used, declared here so that building needs nothing but the CUDA runtime.
// Names and numbers are those of NVIDIA's documentation of version 12 and 13.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "cuda/shared_library.h"

namespace llmeff::cuda::lt {

enum ComputeType : int { kCompute32F = 68, kCompute32FFastTf32 = 77, kCompute64F = 70 };
enum MatmulAttribute : int {
  kTransA = 3,
  kTransB = 4,
  kEpilogue = 7,
  kBiasPointer = 8,
  kAuxPointer = 11,
  kAuxLd = 12,
  kAuxBatchStride = 13,
  kBiasDataType = 26
};
enum Epilogue : int { kEpilogueDefault = 1, kRelu = 2, kBias = 4, kGelu = 32, kAux = 128 };
enum LayoutAttribute : int { kBatchCount = 5, kBatchOffset = 6 };
enum PreferenceAttribute : int {
  kMaxWorkspace = 1,
  kReductions = 3,
  kAlignmentA = 5,
  kAlignmentB = 6,
  kAlignmentC = 7,
  kAlignmentD = 8
};

struct Algorithm {
  uint64_t data[8];
};
struct Heuristic {
  Algorithm algorithm;
  size_t workspace;
  int status;
  float waves;
  int reserved[4];
};

using Handle = void*;

struct Functions {
  int (*create)(Handle*);
  int (*destroy)(Handle);
  int (*matmul_create)(Handle*, int compute, int scale_type);
  int (*matmul_destroy)(Handle);
  int (*matmul_set)(Handle, int attribute, const void*, size_t);
  int (*layout_create)(Handle*, int type, uint64_t rows, uint64_t columns, int64_t ld);
  int (*layout_destroy)(Handle);
  int (*layout_set)(Handle, int attribute, const void*, size_t);
  int (*preference_create)(Handle*);
  int (*preference_destroy)(Handle);
  int (*preference_set)(Handle, int attribute, const void*, size_t);
  int (*heuristic)(Handle, Handle matmul, Handle a, Handle b, Handle c, Handle d, Handle preference, int wanted,
                   Heuristic*, int* found);
  int (*run)(Handle, Handle matmul, const void* alpha, const void* a, Handle a_layout, const void* b, Handle b_layout,
             const void* beta, const void* c, Handle c_layout, void* d, Handle d_layout, const Algorithm*,
             void* workspace, size_t workspace_bytes, cudaStream_t);

  bool find(const SharedLibrary& library) {
    return library.find(create, "cublasLtCreate") && library.find(destroy, "cublasLtDestroy") &&
           library.find(matmul_create, "cublasLtMatmulDescCreate") &&
           library.find(matmul_destroy, "cublasLtMatmulDescDestroy") &&
           library.find(matmul_set, "cublasLtMatmulDescSetAttribute") &&
           library.find(layout_create, "cublasLtMatrixLayoutCreate") &&
           library.find(layout_destroy, "cublasLtMatrixLayoutDestroy") &&
           library.find(layout_set, "cublasLtMatrixLayoutSetAttribute") &&
           library.find(preference_create, "cublasLtMatmulPreferenceCreate") &&
           library.find(preference_destroy, "cublasLtMatmulPreferenceDestroy") &&
           library.find(preference_set, "cublasLtMatmulPreferenceSetAttribute") &&
           library.find(heuristic, "cublasLtMatmulAlgoGetHeuristic") && library.find(run, "cublasLtMatmul");
  }
};

}  // namespace llmeff::cuda::lt
