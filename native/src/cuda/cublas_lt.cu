#include "cuda/cublas_lt.h"

#include <library_types.h>

#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>

#include "cuda/check.h"
#include "cuda/cublas_lt_choice.h"
#include "cuda/product.h"

namespace llmeff::cuda {
namespace {

using namespace lt;

int data_type(DType dtype) {
  switch (dtype) {
    case DType::kF64:
      return CUDA_R_64F;
    case DType::kBF16:
      return CUDA_R_16BF;
    case DType::kF16:
      return CUDA_R_16F;
    default:
      return CUDA_R_32F;
  }
}

// What the choice of an algorithm depends on.
struct Key {
  int64_t m, n, k, lda, ldb, ldd, batch, stride_a, stride_b, stride_d, aux_ld;
  int a_type, b_type, d_type, transposed, epilogue, bias_type, alignments, accumulate;

  bool operator<(const Key& other) const { return std::memcmp(this, &other, sizeof(Key)) < 0; }
};

// A product that the library was asked about before; no algorithm: it doesn't take it.
struct Plan {
  Handle matmul = nullptr, a = nullptr, b = nullptr, d = nullptr;
  // In the order of the library's guess; one, when the choice is made.
  Heuristic candidates[kMostCandidates];
  int count = 0;
};

// log2 of the largest power of two up to 256 that divides the address.
int alignment_of(const void* pointer) {
  const auto address = reinterpret_cast<uintptr_t>(pointer) | 256;
  return __builtin_ctzll(address);
}

struct Opened {
  SharedLibrary library = SharedLibrary::open({"libcublasLt.so.13", "libcublasLt.so.12"});
  Functions functions{};
  std::string why;

  Opened() {
    if (!library) {
      why = library.why();
    } else if (!functions.find(library)) {
      why = "it is not version 12 or 13 of cuBLASLt";
    }
  }
};

const Opened& opened() {
  static const Opened the_library;
  return the_library;
}

// The library's matrices are by columns: ours by rows is its transpose by columns, and out = a·b becomes outᵀ = bᵀ·aᵀ.
struct Operand {
  bool transposed;
  int64_t ld;
};
// Of a matrix of `rows` × `columns` numbers; false when neither stride is 1 or rows overlap.
bool operand_of(int64_t rows, int64_t columns, int64_t row_stride, int64_t column_stride, Operand& operand) {
  if (column_stride == 1 || columns == 1) {
    operand = {false, rows == 1 ? columns : row_stride};
    if (operand.ld >= columns) return true;
  }
  if (row_stride == 1 || rows == 1) {
    operand = {true, columns == 1 ? rows : column_stride};
    return operand.ld >= rows;
  }
  return false;
}

}  // namespace

struct CublasLt::State {
  static constexpr size_t kWorkspace = size_t{32} << 20;

  const Functions& f = opened().functions;
  Handle handle = nullptr;
  void* workspace = nullptr;
  bool tf32 = false;
  std::map<Key, Plan> plans;

  Plan plan(const Key& key, const Product& p) const {
    Plan plan;
    const bool wide = key.d_type == CUDA_R_64F;
    const bool single = key.a_type == CUDA_R_32F;
    f.matmul_create(&plan.matmul,
                    wide             ? kCompute64F
                    : single && tf32 ? kCompute32FFastTf32
                                     : kCompute32F,
                    wide ? CUDA_R_64F : CUDA_R_32F);
    // The library's A is our b, its B our a.
    const int trans_a = key.transposed >> 1 & 1, trans_b = key.transposed & 1;
    f.matmul_set(plan.matmul, kTransA, &trans_a, sizeof trans_a);
    f.matmul_set(plan.matmul, kTransB, &trans_b, sizeof trans_b);
    f.matmul_set(plan.matmul, kEpilogue, &key.epilogue, sizeof key.epilogue);
    if ((key.epilogue & kBias) != 0) f.matmul_set(plan.matmul, kBiasDataType, &key.bias_type, sizeof key.bias_type);
    if ((key.epilogue & kAux) != 0) {
      f.matmul_set(plan.matmul, kAuxLd, &key.aux_ld, sizeof key.aux_ld);
      if (key.batch > 1) f.matmul_set(plan.matmul, kAuxBatchStride, &key.stride_d, sizeof key.stride_d);
    }
    // Before the library chooses: some algorithms read bias and pre by vectors, and it knows their alignment from here
    // alone.
    set_pointers(plan, p);
    const auto layout = [&](Handle& made, int type, int64_t rows, int64_t columns, int64_t ld, int64_t stride) {
      f.layout_create(&made, type, static_cast<uint64_t>(rows), static_cast<uint64_t>(columns), ld);
      if (key.batch == 1) return;
      const int32_t count = static_cast<int32_t>(key.batch);
      f.layout_set(made, kBatchCount, &count, sizeof count);
      f.layout_set(made, kBatchOffset, &stride, sizeof stride);
    };
    layout(plan.a, key.b_type, trans_a ? key.k : key.n, trans_a ? key.n : key.k, key.ldb, key.stride_b);
    layout(plan.b, key.a_type, trans_b ? key.m : key.k, trans_b ? key.k : key.m, key.lda, key.stride_a);
    layout(plan.d, key.d_type, key.n, key.m, key.ldd, key.stride_d);
    Handle preference = nullptr;
    f.preference_create(&preference);
    const size_t limit = kWorkspace;
    f.preference_set(preference, kMaxWorkspace, &limit, sizeof limit);
    // Parts of a sum over k are added in what is computed with: never rounded to 16 bits, never by atomics.
    constexpr uint32_t kComputeTypeOnly = 2;
    f.preference_set(preference, kReductions, &kComputeTypeOnly, sizeof kComputeTypeOnly);
    const auto align = [&](int attribute, int shift) {
      const uint32_t bytes = 1u << (key.alignments >> shift & 15);
      f.preference_set(preference, attribute, &bytes, sizeof bytes);
    };
    align(kAlignmentA, 4), align(kAlignmentB, 0), align(kAlignmentC, 8), align(kAlignmentD, 8);
    const int wanted = is_measured(key) ? kMostCandidates : 1;
    int found = 0;
    const int status =
        f.heuristic(handle, plan.matmul, plan.a, plan.b, plan.d, plan.d, preference, wanted, plan.candidates, &found);
    f.preference_destroy(preference);
    while (status == 0 && plan.count < found && plan.candidates[plan.count].status == 0) ++plan.count;
    return plan;
  }

  void set_pointers(const Plan& plan, const Product& p) const {
    if (p.bias != nullptr) f.matmul_set(plan.matmul, kBiasPointer, &p.bias, sizeof p.bias);
    if (p.pre != nullptr) f.matmul_set(plan.matmul, kAuxPointer, &p.pre, sizeof p.pre);
  }

  // Smaller products have little to gain; batched ones are rare, and `pre` would have to be compared too.
  static bool is_measured(const Key& key) {
    const double operations =
        2.0 * static_cast<double>(key.m) * static_cast<double>(key.n) * static_cast<double>(key.k);
    return key.batch == 1 && (key.epilogue & kAux) == 0 && operations >= 0x1p33;
  }

  // Leaves one candidate; while the stream is captured all stay, and the first is used, whose bits are the same.
  void choose(Context& cuda, const Key& key, const Product& p, const void* alpha, const void* beta, Plan& plan) const {
    cudaStreamCaptureStatus capture;
    LLMEFF_CUDA(cudaStreamIsCapturing(cuda.stream, &capture));
    if (capture != cudaStreamCaptureStatusNone) return;
    const auto extent = [](DType dtype, bool transposed, int64_t rows, int64_t columns, int64_t ld) {
      return Extent{dtype, transposed ? (columns - 1) * ld + rows : (rows - 1) * ld + columns};
    };
    const Trial trial = {handle,
                         plan.matmul,
                         plan.a,
                         plan.b,
                         plan.d,
                         extent(p.b.dtype, (key.transposed & 2) != 0, p.k, p.n, key.ldb),
                         extent(p.a.dtype, (key.transposed & 1) != 0, p.m, p.k, key.lda),
                         extent(p.out.dtype, false, p.m, p.n, key.ldd),
                         {p.bias_dtype, p.bias != nullptr ? p.n : 0},
                         alpha,
                         beta,
                         workspace};
    plan.candidates[0] = plan.candidates[fastest_alike(cuda, f, trial, plan.candidates, plan.count)];
    plan.count = 1;
  }
};

CublasLt* CublasLt::open(Context&) {
  if (!opened().why.empty()) return nullptr;
  auto state = std::make_unique<State>();
  if (state->f.create(&state->handle) != 0) return nullptr;
  LLMEFF_CUDA(cudaMalloc(&state->workspace, State::kWorkspace));
  const char* const tf32 = std::getenv("LLMEFF_CUDA_TF32");
  state->tf32 = tf32 != nullptr && std::strcmp(tf32, "1") == 0;
  auto* const library = new CublasLt();
  library->state_ = state.release();
  return library;
}

const char* CublasLt::why_missing() {
  return opened().why.c_str();
}

CublasLt::~CublasLt() {
  const Functions& f = state_->f;
  for (auto& [key, plan] : state_->plans) {
    f.matmul_destroy(plan.matmul);
    for (const Handle layout : {plan.a, plan.b, plan.d}) f.layout_destroy(layout);
  }
  f.destroy(state_->handle);
  cudaFree(state_->workspace);
  delete state_;
}

bool CublasLt::product(Context& cuda, const Product& p) {
  const bool same_inputs = p.a.dtype == p.b.dtype;
  const bool output_fits = p.out.dtype == p.a.dtype || (p.out.dtype == DType::kF32 && p.a.dtype != DType::kF64);
  if (!same_inputs || !output_fits || p.batch > INT32_MAX) return false;
  Operand a, b;
  if (!operand_of(p.m, p.k, p.a.row_stride, p.a.column_stride, a)) return false;
  if (!operand_of(p.k, p.n, p.b.row_stride, p.b.column_stride, b)) return false;
  const int64_t ldd = p.m == 1 ? p.n : p.out.row_stride;
  if (ldd < p.n) return false;

  Key key;
  std::memset(&key, 0, sizeof key);
  key.m = p.m, key.n = p.n, key.k = p.k, key.batch = p.batch;
  key.lda = a.ld, key.ldb = b.ld, key.ldd = ldd;
  key.stride_a = p.a.batch_stride, key.stride_b = p.b.batch_stride, key.stride_d = p.out.batch_stride;
  key.a_type = data_type(p.a.dtype), key.b_type = data_type(p.b.dtype), key.d_type = data_type(p.out.dtype);
  key.transposed = (a.transposed ? 1 : 0) | (b.transposed ? 2 : 0);
  key.accumulate = p.accumulate ? 1 : 0;
  key.epilogue = (p.activation == Activation::kGelu   ? kGelu
                  : p.activation == Activation::kRelu ? kRelu
                                                      : 0) |
                 (p.bias != nullptr ? kBias : 0) | (p.pre != nullptr ? kAux : 0);
  if (key.epilogue == 0) key.epilogue = kEpilogueDefault;
  if (p.bias != nullptr) key.bias_type = data_type(p.bias_dtype);
  if (p.pre != nullptr) key.aux_ld = ldd;
  key.alignments = alignment_of(p.a.data) | alignment_of(p.b.data) << 4 | alignment_of(p.out.data) << 8 |
                   (p.bias != nullptr ? alignment_of(p.bias) : 0) << 12 |
                   (p.pre != nullptr ? alignment_of(p.pre) : 0) << 16;

  auto [entry, fresh] = state_->plans.try_emplace(key);
  Plan& plan = entry->second;
  if (fresh) plan = state_->plan(key, p);
  if (plan.count == 0) return false;
  const double wide[2] = {p.accumulate ? 1.0 : 0.0, 1.0};
  const float single[2] = {p.accumulate ? 1.0f : 0.0f, 1.0f};
  const bool in_double = p.out.dtype == DType::kF64;
  const void* const beta = in_double ? static_cast<const void*>(&wide[0]) : &single[0];
  const void* const alpha = in_double ? static_cast<const void*>(&wide[1]) : &single[1];
  if (plan.count > 1) state_->choose(cuda, key, p, alpha, beta, plan);
  state_->set_pointers(plan, p);
  const Heuristic& chosen = plan.candidates[0];
  const int status =
      state_->f.run(state_->handle, plan.matmul, alpha, p.b.data, plan.a, p.a.data, plan.b, beta, p.out.data, plan.d,
                    p.out.data, plan.d, &chosen.algorithm, state_->workspace, chosen.workspace, cuda.stream);
  // Its own choice, which it finds out only now that it can't run, before anything is launched.
  constexpr int kNotSupported = 15;
  if (status == kNotSupported) {
    plan.count = 0;
    return false;
  }
  if (status != 0)
    fail("ERR_CUDA", "[matmul] cuBLASLt failed with status %d on [%lld, %lld] · [%lld, %lld].", status,
         static_cast<long long>(p.m), static_cast<long long>(p.k), static_cast<long long>(p.k),
         static_cast<long long>(p.n));
  return true;
}

}  // namespace llmeff::cuda
