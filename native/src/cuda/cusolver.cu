// The parts of the interfaces of cuSOLVER and cuBLAS that are used, declared here so that building needs nothing but
// the CUDA runtime. Names and numbers are those of NVIDIA's documentation of CUDA 12 and 13.
#include "cuda/cusolver.h"

#include <library_types.h>

#include <memory>
#include <vector>

#include "cuda/check.h"
#include "cuda/shared_library.h"

namespace llmeff::cuda {
namespace {

using Handle = void*;

enum : int { kNoTranspose = 0, kTranspose = 1 };
enum : int { kLower = 0, kUpper = 1 };
enum : int { kLeft = 0, kRight = 1 };
constexpr int kNonUnit = 0;
constexpr int kVectors = 1;
constexpr signed char kReduced = 'S';

// Larger matrices of a batch keep the GPU busy one by one.
constexpr int64_t kBatchedEigh = 512, kBatchedCholesky = 256, kBatchedSolve = 256;

// The functions of one element type.
template <class T>
struct Typed {
  int (*orgqr_size)(Handle, int m, int n, int k, const T* a, int lda, const T* tau, int* size);
  int (*orgqr)(Handle, int m, int n, int k, T* a, int lda, const T* tau, T* work, int size, int* info);
  int (*potrf_batched)(Handle, int uplo, int n, T** a, int lda, int* info, int batch);
  int (*trsm)(Handle, int side, int uplo, int trans, int diag, int m, int n, const T* alpha, const T* a, int lda, T* b,
              int ldb);
  int (*trsm_batched)(Handle, int side, int uplo, int trans, int diag, int m, int n, const T* alpha, const T* const* a,
                      int lda, T* const* b, int ldb, int batch);
};

struct Functions {
  int (*create)(Handle*);
  int (*destroy)(Handle);
  int (*set_stream)(Handle, cudaStream_t);
  int (*create_params)(Handle*);
  int (*destroy_params)(Handle);
  int (*syevd_size)(Handle, Handle params, int vectors, int uplo, int64_t n, int a_type, const void* a, int64_t lda,
                    int w_type, const void* w, int compute, size_t* device, size_t* host);
  int (*syevd)(Handle, Handle params, int vectors, int uplo, int64_t n, int a_type, void* a, int64_t lda, int w_type,
               void* w, int compute, void* device, size_t device_size, void* host, size_t host_size, int* info);
  // Of CUDA 12.6 or newer; null before.
  int (*syev_batched_size)(Handle, Handle params, int vectors, int uplo, int64_t n, int a_type, const void* a,
                           int64_t lda, int w_type, const void* w, int compute, size_t* device, size_t* host,
                           int64_t batch);
  int (*syev_batched)(Handle, Handle params, int vectors, int uplo, int64_t n, int a_type, void* a, int64_t lda,
                      int w_type, void* w, int compute, void* device, size_t device_size, void* host, size_t host_size,
                      int* info, int64_t batch);
  int (*geqrf_size)(Handle, Handle params, int64_t m, int64_t n, int a_type, const void* a, int64_t lda, int tau_type,
                    const void* tau, int compute, size_t* device, size_t* host);
  int (*geqrf)(Handle, Handle params, int64_t m, int64_t n, int a_type, void* a, int64_t lda, int tau_type, void* tau,
               int compute, void* device, size_t device_size, void* host, size_t host_size, int* info);
  int (*gesvd_size)(Handle, Handle params, signed char u_job, signed char vt_job, int64_t m, int64_t n, int a_type,
                    const void* a, int64_t lda, int s_type, const void* s, int u_type, const void* u, int64_t ldu,
                    int vt_type, const void* vt, int64_t ldvt, int compute, size_t* device, size_t* host);
  int (*gesvd)(Handle, Handle params, signed char u_job, signed char vt_job, int64_t m, int64_t n, int a_type, void* a,
               int64_t lda, int s_type, void* s, int u_type, void* u, int64_t ldu, int vt_type, void* vt, int64_t ldvt,
               int compute, void* device, size_t device_size, void* host, size_t host_size, int* info);
  int (*potrf_size)(Handle, Handle params, int uplo, int64_t n, int a_type, const void* a, int64_t lda, int compute,
                    size_t* device, size_t* host);
  int (*potrf)(Handle, Handle params, int uplo, int64_t n, int a_type, void* a, int64_t lda, int compute, void* device,
               size_t device_size, void* host, size_t host_size, int* info);
  int (*blas_create)(Handle*);
  int (*blas_destroy)(Handle);
  int (*blas_set_stream)(Handle, cudaStream_t);
  Typed<float> f32;
  Typed<double> f64;

  bool find(const SharedLibrary& solver, const SharedLibrary& blas) {
    solver.find(syev_batched_size, "cusolverDnXsyevBatched_bufferSize");
    solver.find(syev_batched, "cusolverDnXsyevBatched");
    return solver.find(create, "cusolverDnCreate") && solver.find(destroy, "cusolverDnDestroy") &&
           solver.find(set_stream, "cusolverDnSetStream") && solver.find(create_params, "cusolverDnCreateParams") &&
           solver.find(destroy_params, "cusolverDnDestroyParams") &&
           solver.find(syevd_size, "cusolverDnXsyevd_bufferSize") && solver.find(syevd, "cusolverDnXsyevd") &&
           solver.find(geqrf_size, "cusolverDnXgeqrf_bufferSize") && solver.find(geqrf, "cusolverDnXgeqrf") &&
           solver.find(gesvd_size, "cusolverDnXgesvd_bufferSize") && solver.find(gesvd, "cusolverDnXgesvd") &&
           solver.find(potrf_size, "cusolverDnXpotrf_bufferSize") && solver.find(potrf, "cusolverDnXpotrf") &&
           solver.find(f32.orgqr_size, "cusolverDnSorgqr_bufferSize") && solver.find(f32.orgqr, "cusolverDnSorgqr") &&
           solver.find(f64.orgqr_size, "cusolverDnDorgqr_bufferSize") && solver.find(f64.orgqr, "cusolverDnDorgqr") &&
           solver.find(f32.potrf_batched, "cusolverDnSpotrfBatched") &&
           solver.find(f64.potrf_batched, "cusolverDnDpotrfBatched") && blas.find(blas_create, "cublasCreate_v2") &&
           blas.find(blas_destroy, "cublasDestroy_v2") && blas.find(blas_set_stream, "cublasSetStream_v2") &&
           blas.find(f32.trsm, "cublasStrsm_v2") && blas.find(f64.trsm, "cublasDtrsm_v2") &&
           blas.find(f32.trsm_batched, "cublasStrsmBatched") && blas.find(f64.trsm_batched, "cublasDtrsmBatched");
  }
};

struct Opened {
  SharedLibrary blas = SharedLibrary::open({"libcublas.so.13", "libcublas.so.12"});
  SharedLibrary solver = SharedLibrary::open({"libcusolver.so.12", "libcusolver.so.11"});
  Functions functions{};
  std::string why;

  Opened() {
    if (!blas) {
      why = blas.why();
    } else if (!solver) {
      why = solver.why();
    } else if (!functions.find(solver, blas)) {
      why = "they are not those of CUDA 12 or 13";
    }
  }
};

const Opened& opened() {
  static const Opened the_libraries;
  return the_libraries;
}

int data_type(DType dtype) {
  return dtype == DType::kF64 ? CUDA_R_64F : CUDA_R_32F;
}

void check_status(int status, const char* function) {
  if (status != 0) fail("ERR_CUDA", "[cuda] %s failed with status %d.", function, status);
}

int narrow(int64_t n) {
  if (n > INT32_MAX)
    fail("ERR_SHAPE", "[cuda] cuSOLVER takes no matrices of %lld rows or columns.", static_cast<long long>(n));
  return static_cast<int>(n);
}

void* at(void* data, int64_t index, int64_t numbers, DType dtype) {
  return static_cast<char*>(data) + index * numbers * item_size(dtype);
}
const void* at(const void* data, int64_t index, int64_t numbers, DType dtype) {
  return at(const_cast<void*>(data), index, numbers, dtype);
}

template <class T>
__global__ void addresses_kernel(T* first, int64_t numbers, T** addresses, int64_t count) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < count) addresses[i] = first + i * numbers;
}
template <class T>
T** addresses(Context& cuda, T* first, int64_t numbers, int64_t count) {
  T** const made = cuda.scratch<T*>(count);
  addresses_kernel<<<static_cast<unsigned>((count + 255) / 256), 256, 0, cuda.stream>>>(first, numbers, made, count);
  LLMEFF_LAUNCHED("addresses_kernel");
  return made;
}

}  // namespace

struct Cusolver::State {
  const Functions& f = opened().functions;
  Handle solver = nullptr, params = nullptr, blas = nullptr;
  std::vector<char> host;  // the library's scratch space; a call may still use it after it has returned

  void* host_scratch(Context& cuda, size_t bytes) {
    if (bytes > host.size()) {
      LLMEFF_CUDA(cudaStreamSynchronize(cuda.stream));
      host.resize(bytes);
    }
    return host.data();
  }

  template <class F>
  void with(DType dtype, F&& call) const {
    if (dtype == DType::kF64)
      call(f.f64, double{});
    else
      call(f.f32, float{});
  }
};

Cusolver* Cusolver::open(Context& cuda) {
  if (!opened().why.empty()) return nullptr;
  auto state = std::make_unique<State>();
  const Functions& f = state->f;
  check_status(f.create(&state->solver), "cusolverDnCreate");
  check_status(f.set_stream(state->solver, cuda.stream), "cusolverDnSetStream");
  check_status(f.create_params(&state->params), "cusolverDnCreateParams");
  check_status(f.blas_create(&state->blas), "cublasCreate");
  check_status(f.blas_set_stream(state->blas, cuda.stream), "cublasSetStream");
  auto* const library = new Cusolver();
  library->state_ = state.release();
  return library;
}

const char* Cusolver::why_missing() {
  return opened().why.c_str();
}

Cusolver::~Cusolver() {
  const Functions& f = state_->f;
  f.blas_destroy(state_->blas);
  f.destroy_params(state_->params);
  f.destroy(state_->solver);
  delete state_;
}

void Cusolver::eigh(Context& cuda, DType dtype, int64_t n, void* a, void* values, int64_t batch, int* info) {
  const Functions& f = state_->f;
  const int type = data_type(dtype);
  size_t device_size = 0, host_size = 0;
  if (batch > 1 && n <= kBatchedEigh && f.syev_batched_size != nullptr && f.syev_batched != nullptr) {
    check_status(f.syev_batched_size(state_->solver, state_->params, kVectors, kUpper, n, type, a, n, type, values,
                                     type, &device_size, &host_size, batch),
                 "cusolverDnXsyevBatched_bufferSize");
    void* const device = cuda.scratch_bytes(device_size);
    void* const host = state_->host_scratch(cuda, host_size);
    check_status(f.syev_batched(state_->solver, state_->params, kVectors, kUpper, n, type, a, n, type, values, type,
                                device, device_size, host, host_size, info, batch),
                 "cusolverDnXsyevBatched");
    return;
  }
  check_status(f.syevd_size(state_->solver, state_->params, kVectors, kUpper, n, type, a, n, type, values, type,
                            &device_size, &host_size),
               "cusolverDnXsyevd_bufferSize");
  void* const device = cuda.scratch_bytes(device_size);
  void* const host = state_->host_scratch(cuda, host_size);
  for (int64_t i = 0; i < batch; ++i)
    check_status(f.syevd(state_->solver, state_->params, kVectors, kUpper, n, type, at(a, i, n * n, dtype), n, type,
                         at(values, i, n, dtype), type, device, device_size, host, host_size, info + i),
                 "cusolverDnXsyevd");
}

void Cusolver::qr(Context& cuda, DType dtype, int64_t m, int64_t n, void* a, void* tau, int64_t batch, int* info) {
  const Functions& f = state_->f;
  const int type = data_type(dtype);
  const int64_t k = m < n ? m : n;
  size_t device_size = 0, host_size = 0;
  check_status(
      f.geqrf_size(state_->solver, state_->params, m, n, type, a, m, type, tau, type, &device_size, &host_size),
      "cusolverDnXgeqrf_bufferSize");
  void* const device = cuda.scratch_bytes(device_size);
  void* const host = state_->host_scratch(cuda, host_size);
  for (int64_t i = 0; i < batch; ++i)
    check_status(f.geqrf(state_->solver, state_->params, m, n, type, at(a, i, m * n, dtype), m, type,
                         at(tau, i, k, dtype), type, device, device_size, host, host_size, info + i),
                 "cusolverDnXgeqrf");
}

void Cusolver::orthonormal(Context& cuda, DType dtype, int64_t m, int64_t k, void* a, int64_t stride, const void* tau,
                           int64_t batch, int* info) {
  state_->with(dtype, [&]<class T>(const Typed<T>& f, T) {
    const int rows = narrow(m), columns = narrow(k);
    int size = 0;
    check_status(f.orgqr_size(state_->solver, rows, columns, columns, static_cast<T*>(a), rows,
                              static_cast<const T*>(tau), &size),
                 "cusolverDnSorgqr_bufferSize");
    T* const work = cuda.scratch<T>(size);
    for (int64_t i = 0; i < batch; ++i)
      check_status(f.orgqr(state_->solver, rows, columns, columns, static_cast<T*>(at(a, i, stride, dtype)), rows,
                           static_cast<const T*>(at(tau, i, k, dtype)), work, size, info + i),
                   "cusolverDnSorgqr");
  });
}

void Cusolver::svd(Context& cuda, DType dtype, int64_t m, int64_t n, void* a, void* u, void* s, void* vt, int64_t batch,
                   int* info) {
  const Functions& f = state_->f;
  const int type = data_type(dtype);
  size_t device_size = 0, host_size = 0;
  check_status(f.gesvd_size(state_->solver, state_->params, kReduced, kReduced, m, n, type, a, m, type, s, type, u, m,
                            type, vt, n, type, &device_size, &host_size),
               "cusolverDnXgesvd_bufferSize");
  void* const device = cuda.scratch_bytes(device_size);
  void* const host = state_->host_scratch(cuda, host_size);
  for (int64_t i = 0; i < batch; ++i)
    check_status(f.gesvd(state_->solver, state_->params, kReduced, kReduced, m, n, type, at(a, i, m * n, dtype), m,
                         type, at(s, i, n, dtype), type, at(u, i, m * n, dtype), m, type, at(vt, i, n * n, dtype), n,
                         type, device, device_size, host, host_size, info + i),
                 "cusolverDnXgesvd");
}

void Cusolver::cholesky(Context& cuda, DType dtype, int64_t n, void* a, int64_t batch, int* info) {
  const Functions& f = state_->f;
  if (batch > 1 && n <= kBatchedCholesky && batch <= INT32_MAX) {
    state_->with(dtype, [&]<class T>(const Typed<T>& typed, T) {
      T** const matrices = addresses(cuda, static_cast<T*>(a), n * n, batch);
      const int size = narrow(n);
      check_status(typed.potrf_batched(state_->solver, kUpper, size, matrices, size, info, static_cast<int>(batch)),
                   "cusolverDnSpotrfBatched");
    });
    return;
  }
  const int type = data_type(dtype);
  size_t device_size = 0, host_size = 0;
  check_status(f.potrf_size(state_->solver, state_->params, kUpper, n, type, a, n, type, &device_size, &host_size),
               "cusolverDnXpotrf_bufferSize");
  void* const device = cuda.scratch_bytes(device_size);
  void* const host = state_->host_scratch(cuda, host_size);
  for (int64_t i = 0; i < batch; ++i)
    check_status(f.potrf(state_->solver, state_->params, kUpper, n, type, at(a, i, n * n, dtype), n, type, device,
                         device_size, host, host_size, info + i),
                 "cusolverDnXpotrf");
}

void Cusolver::solve(Context& cuda, DType dtype, int64_t m, int64_t n, const void* t, bool upper, bool transposed,
                     bool left, void* b, int64_t batch) {
  state_->with(dtype, [&]<class T>(const Typed<T>& f, T) {
    const int rows = narrow(m), columns = narrow(n), size = left ? rows : columns;
    const int side = left ? kLeft : kRight, triangle = upper ? kUpper : kLower,
              op = transposed ? kTranspose : kNoTranspose;
    const T one = 1;
    if (batch > 1 && size <= kBatchedSolve && batch <= INT32_MAX) {
      T** const triangles = addresses(cuda, static_cast<T*>(const_cast<void*>(t)), int64_t{size} * size, batch);
      T** const sides = addresses(cuda, static_cast<T*>(b), m * n, batch);
      check_status(f.trsm_batched(state_->blas, side, triangle, op, kNonUnit, rows, columns, &one, triangles, size,
                                  sides, rows, static_cast<int>(batch)),
                   "cublasStrsmBatched");
      return;
    }
    for (int64_t i = 0; i < batch; ++i)
      check_status(f.trsm(state_->blas, side, triangle, op, kNonUnit, rows, columns, &one,
                          static_cast<const T*>(at(t, i, int64_t{size} * size, dtype)), size,
                          static_cast<T*>(at(b, i, m * n, dtype)), rows),
                   "cublasStrsm");
  });
}

Cusolver& cusolver_for(Context& cuda, const char* op) {
  Cusolver* const library = cuda.find_cusolver();
  if (library == nullptr)
    fail("ERR_DEVICE",
         "[%s] on a GPU needs cuSOLVER (libcusolver.so.12 or .11) and cuBLAS (libcublas.so.13 or .12): %s. Install the "
         "CUDA "
         "toolkit, or compute on the device \"cpu\".",
         op, Cusolver::why_missing());
  return *library;
}

}  // namespace llmeff::cuda
