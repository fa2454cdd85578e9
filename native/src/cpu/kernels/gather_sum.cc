// Sums of rows by number, out[n] = Σ_j w[n, j] · x[ids[n, j]], and the gradient of the weights: each row is read once
// where it lies, and every sum runs in the order of j, or of the columns.
#include "cpu_kernels.h"
#include "llmeff/error.h"
#include "runs.h"

namespace llmeff::cpu::LLMEFF_ISA {
namespace {

// The rows of x that a list of ids names.
template <class T>
struct NamedRows {
  const View &x, &ids;

  int64_t terms() const { return ids.shape[1]; }
  int64_t id(int64_t n, int64_t j) const { return ids.as<int32_t>()[n * ids.strides[0] + j * ids.strides[1]]; }
  // `count` numbers of a row from column c on.
  const T* read(int64_t id, int64_t c, int64_t count, T* block) const {
    return Reader<T>{x, 1, block}.read(id * x.strides[0] + c, count);
  }
  void check() const {
    for (int64_t n = 0; n < ids.shape[0]; ++n)
      for (int64_t j = 0; j < terms(); ++j)
        if (const int64_t i = id(n, j); i < -1 || i >= x.shape[0])
          fail("ERR_INDEX", "[gatherSum] id %lld at position %lld is neither -1 nor one of the %lld rows",
               static_cast<long long>(i), static_cast<long long>(n * terms() + j), static_cast<long long>(x.shape[0]));
  }
};

template <class T>
void sum(const NamedRows<T>& rows, const In& weights, const Out& out) {
  rows.check();
  const int64_t width = out.dim(1);
  parallel_items(out.dim(0), width * rows.terms(), [&](int64_t n, int) {
    T read[kRunBlock], written[kRunBlock], weight_room[1];
    Writer<T> to{out, 1, written};
    for (int64_t c = 0; c < width; c += kRunBlock) {
      const int64_t count = smaller(kRunBlock, width - c), at = n * out.strides[0] + c;
      T* __restrict const sums = to.target(at);
      for (int64_t i = 0; i < count; ++i) sums[i] = 0;
      for (int64_t j = 0; j < rows.terms(); ++j) {
        const int64_t id = rows.id(n, j);
        if (id < 0) continue;
        const int64_t place = n * weights.strides[0] + j * weights.strides[1];
        const T weight = weights.present() ? *Reader<T>{weights, 1, weight_room}.read(place, 1) : T(1);
        const T* __restrict const from = rows.read(id, c, count, read);
        for (int64_t i = 0; i < count; ++i) sums[i] += weight * from[i];
      }
      to.flush(at, count);
    }
  });
}

template <class T>
void sum_grad(const NamedRows<T>& rows, const In& dout, const Out& dweights) {
  rows.check();
  constexpr int64_t L = kLanes<T>;
  const int64_t width = dout.dim(1);
  parallel_items(dout.dim(0), width * rows.terms(), [&](int64_t n, int) {
    T read[kRunBlock], slopes[kRunBlock], result[1];
    Writer<T> to{dweights, 1, result};
    for (int64_t j = 0; j < rows.terms(); ++j) {
      const int64_t id = rows.id(n, j), at = n * dweights.strides[0] + j * dweights.strides[1];
      Vec<T> sums = {};
      for (int64_t c = 0; c < width && id >= 0; c += kRunBlock) {
        const int64_t count = smaller(kRunBlock, width - c);
        const T* const from = rows.read(id, c, count, read);
        const T* const slope = Reader<T>{dout, 1, slopes}.read(n * dout.strides[0] + c, count);
        int64_t i = 0;
        for (; i + L <= count; i += L) sums += load(from + i) * load(slope + i);
        if (i < count) sums += load_part(from + i, count - i) * load_part(slope + i, count - i);
      }
      *to.target(at) = reduce_sum<T>(sums);
      to.flush(at, 1);
    }
  });
}

}  // namespace

void CpuKernels::gather_sum(const In& x, const In& ids, const In& weights, const Out& out) {
  if (x.dtype == DType::kF64) return sum(NamedRows<double>{x, ids}, weights, out);
  sum(NamedRows<float>{x, ids}, weights, out);
}

void CpuKernels::gather_sum_grad(const In& x, const In& ids, const In& dout, const Out& dweights) {
  if (x.dtype == DType::kF64) return sum_grad(NamedRows<double>{x, ids}, dout, dweights);
  sum_grad(NamedRows<float>{x, ids}, dout, dweights);
}

}  // namespace llmeff::cpu::LLMEFF_ISA
