// The CUDA implementation of Kernels: each method launches on the context's stream and returns. Files of this folder hold
// one group of methods each; every launch is followed by LLMEFF_LAUNCHED.
//
// Arrays may be of any floating dtype, bfloat16 and float16 included: the call layer converts nothing for this device.
// Arithmetic is in float32 (float64 for float64), sums in a fixed order, and each result is rounded once. Statistics
// and losses (rstd, lse, loss, …) have the dtype of their view: float32, or float64 with float64 arrays.
#pragma once

#include "cuda/check.h"
#include "cuda/context.h"
#include "llmeff/kernels.h"

namespace llmeff::cuda {

class CudaKernels final : public Kernels {
 public:
  explicit CudaKernels(Context& cuda) : cuda_(cuda) {}
  ~CudaKernels() override;  // in context.cu: the class's table of methods goes there

  void copy(const In& x, const Out& out) override;
  void fill(double value, const Out& out) override;
  void random(Distribution distribution, int64_t seed, int64_t stream, const Out& out) override;
  void unary(UnaryOp op, const In& x, const Out& out) override;
  void unary_grad(UnaryOp op, const In& x, const In& dy, const Out& dx) override;
  void binary(BinaryOp op, const In& a, const In& b, const Out& out) override;
  void add_all(const List<In>& xs, const Out& out) override;
  void where(const In& condition, const In& a, const In& b, const Out& out) override;
  void reduce(ReduceOp op, const In& x, const Out& out) override;
  void dropout(const In& x, double rate, int64_t seed, int64_t stream, const Out& out) override;
  void gather(const In& x, const In& indices, int64_t axis, const Out& out) override;
  void scatter_add(const In& x, const In& indices, int64_t axis, const InOut& out) override;
  void scatter(const In& x, const In& indices, int64_t axis, const InOut& out) override;
  void cumsum(const In& x, int64_t axis, bool reverse, const Out& out) override;
  void argsort(const In& x, bool descending, const Out& out) override;
  void top_k(const In& x, bool largest, const Out& out) override;
  void arg_reduce(ReduceOp op, const In& x, const Out& out) override;
  void likeliest(const In& x, const Out& ids, const Out& found) override;
  void sample_tokens(const In& x, const In& how, const In& u, const Out& ids, const Out& found) override;
  void matmul(const In& a, const In& b, const In& bias, Activation activation, const Out& pre, const Out& out) override;
  void linear_many(const In& x, const In& norm, double norm_offset, double eps, const List<In>& weights,
                   const Out& out) override;
  void linear_add(const In& x, const In& weight, const In& residual, const Out& out) override;
  void grouped_matmul(const List<In>& xs, const List<In>& ws, const In& counts, const Out& out) override;
  void grouped_matmul_grad(const In& a, const In& b, const In& counts, const Out& dw) override;
  void gather_sum(const In& x, const In& ids, const In& weights, const Out& out) override;
  void gather_sum_grad(const In& x, const In& ids, const In& dout, const Out& dweights) override;
  void softmax(const In& x, const Out& y) override;
  void softmax_grad(const In& y, const In& dy, const Out& dx) override;
  void log_softmax(const In& x, const Out& y) override;
  void log_softmax_grad(const In& y, const In& dy, const Out& dx) override;
  void embedding(const In& table, const In& ids, const Out& out) override;
  void embedding_grad(const In& dout, const In& ids, const Out& dtable) override;
  void rms_norm(const In& x, const In& residual, const In& weight, double weight_offset, double eps, const Out& sum,
                const Out& y, const Out& rstd) override;
  void rms_norm_grad(const In& dy, const In& dsum, const In& x, const In& weight, double weight_offset, const In& rstd,
                     const Out& dx, const Out& dweight) override;
  void layer_norm(const In& x, const In& residual, const In& weight, const In& bias, double eps, const Out& sum,
                  const Out& y, const Out& mean, const Out& rstd) override;
  void layer_norm_grad(const In& dy, const In& dsum, const In& x, const In& weight, const In& mean, const In& rstd,
                       const Out& dx, const Out& dweight, const Out& dbias) override;
  void rope(const In& x, const In& cos, const In& sin, bool interleaved, bool inverse, const Out& out) override;
  void rope_and_keep(const In& q, const In& k, const In& v, const In& cos, const In& sin, bool interleaved,
                     const Out& turned, const Out& keys, const Out& values) override;
  void swiglu(const In& gate, const In& up, const Out& out) override;
  void swiglu_linear(const In& x, const In& norm, double norm_offset, double eps, const In& gate, const In& up,
                     const Out& out) override;
  void swiglu_grad(const In& dout, const In& gate, const In& up, const Out& dgate, const Out& dup) override;
  void conv2d(const In& x, const In& weight, const In& bias, int64_t stride_h, int64_t stride_w, int64_t padding_h,
              int64_t padding_w, int64_t dilation_h, int64_t dilation_w, int64_t groups, const Out& out) override;
  void conv2d_grad(const In& dout, const In& x, const In& weight, int64_t stride_h, int64_t stride_w, int64_t padding_h,
                   int64_t padding_w, int64_t dilation_h, int64_t dilation_w, int64_t groups, const Out& dx,
                   const Out& dweight, const Out& dbias) override;
  void max_pool2d(const In& x, int64_t kernel_h, int64_t kernel_w, int64_t stride_h, int64_t stride_w,
                  int64_t padding_h, int64_t padding_w, const Out& out, const Out& indices) override;
  void max_pool2d_grad(const In& dout, const In& indices, const Out& dx) override;
  void avg_pool2d(const In& x, int64_t kernel_h, int64_t kernel_w, int64_t stride_h, int64_t stride_w,
                  int64_t padding_h, int64_t padding_w, const Out& out) override;
  void avg_pool2d_grad(const In& dout, int64_t kernel_h, int64_t kernel_w, int64_t stride_h, int64_t stride_w,
                       int64_t padding_h, int64_t padding_w, const Out& dx) override;
  void cross_entropy(const In& logits, const In& targets, int64_t ignore_index, double label_smoothing, double z_loss,
                     double softcap, const Out& loss, const Out& stats, const Out& ce, const Out& lse) override;
  void cross_entropy_grad(const In& dloss, const In& logits, const In& targets, const In& stats, const In& lse,
                          int64_t ignore_index, double label_smoothing, double z_loss, double softcap,
                          const Out& dlogits) override;
  void linear_cross_entropy(const In& hidden, const In& weight, const In& targets, int64_t ignore_index,
                            double label_smoothing, double z_loss, double softcap, const Out& loss, const Out& stats,
                            const Out& ce, const Out& dhidden, const Out& dweight) override;
  void attention(const In& q, const In& k, const In& v, const In& q_doc, const In& k_doc, const In& prefix,
                 double scale, bool causal, int64_t window, int64_t q_offset, double softcap, const Out& o,
                 const Out& lse) override;
  void decode_attention(const In& q, const In& k, const In& v, const List<InOut>& keys, const List<InOut>& values,
                        const List<int64_t>& offsets, const In& positions, const In& cos, const In& sin,
                        bool interleaved, double scale, int64_t window, double softcap, const Out& o) override;
  void attention_grad(const In& dout, const In& dlse, const In& q, const In& k, const In& v, const In& o, const In& lse,
                      const In& q_doc, const In& k_doc, const In& prefix, double scale, bool causal, int64_t window,
                      int64_t q_offset, double softcap, const In& cos, const In& sin, bool interleaved, const Out& dq,
                      const Out& dk, const Out& dv) override;
  void simplicial_attention(const In& q, const In& k1, const In& k2, const In& v1, const In& v2, double scale,
                            bool causal, int64_t w1, int64_t w2, double k2_bias, double v2_bias, int64_t q_offset,
                            int64_t k1_offset, int64_t k2_offset, bool determinant, const Out& o,
                            const Out& lse) override;
  void simplicial_attention_grad(const In& dout, const In& q, const In& k1, const In& k2, const In& v1, const In& v2,
                                 const In& o, const In& lse, double scale, bool causal, int64_t w1, int64_t w2,
                                 double k2_bias, double v2_bias, int64_t q_offset, int64_t k1_offset, int64_t k2_offset,
                                 bool determinant, const Out& dq, const Out& dk1, const Out& dk2, const Out& dv1,
                                 const Out& dv2) override;
  void eigh(const In& a, const Out& values, const Out& vectors) override;
  void qr(const In& a, const Out& q, const Out& r) override;
  void svd(const In& a, const Out& u, const Out& s, const Out& vh) override;
  void cholesky(const In& a, const Out& l) override;
  void triangular_solve(const In& l, const In& b, bool upper, bool transposed, bool left, const Out& x) override;
  void global_norm(const List<In>& xs, const Out& norm) override;
  void optimizer_step(UpdateRule rule, const List<InOut>& params, const List<InOut>& copies, const List<In>& grads,
                      const List<InOut>& states, const List<double>& factors, const In& grad_scale) override;
  void sonew_step(const List<InOut>& params, const List<InOut>& copies, const List<In>& grads,
                  const List<InOut>& m, const List<InOut>& h, const List<InOut>& rms, const List<int64_t>& chain_length,
                  const List<int64_t>& rounding_ids, const In& grad_scale, double lr, double beta1, double beta2,
                  double eps, bool relative_eps, double gamma, bool absolute_gamma, bool isolate, Graft graft,
                  double graft_eps, bool bias_correction, double weight_decay, int64_t step, int64_t seed,
                  const InOut& dropped) override;

 private:
  // By the kernels that run on every GPU; nothing is turned.
  void attention_grad_portable(const In& dout, const In& dlse, const In& q, const In& k, const In& v, const In& o,
                               const In& lse, const In& q_doc, const In& k_doc, const In& prefix, double scale,
                               bool causal, int64_t window, int64_t q_offset, double softcap, const Out& dq,
                               const Out& dk, const Out& dv);

  Context& cuda_;
};

}  // namespace llmeff::cuda
