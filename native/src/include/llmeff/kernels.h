// The operations of the engine: one method each, implemented by every device (CPU now; CUDA has the same table).
//
// Shape letters: B batch, T query length, S key length, H query heads, K key/value heads, D head size, C width, V
// vocabulary, N rows. Shapes, dtypes and devices have been checked by the caller (in TypeScript, where the message can
// name the user's arguments); a kernel checks only what depends on values, such as token ids, and reports it through
// fail().
//
// All floating-point arguments of a call share one dtype, float32 or float64, unless said otherwise; element-wise
// kernels, reductions, softmax, dropout, gather and embedding also take bfloat16 and float16 and compute in float32, to
// the others call.h gives float32 copies of such arrays. Reductions accumulate in float32 or wider in a fixed order
// that does not depend on the number of threads. Views may be strided; where a method says "rows", the last axis must
// be contiguous and the others may have any stride. Gradients are named `d` + the name of the thing.
#pragma once

#include "llmeff/view.h"

namespace llmeff {

enum class UnaryOp : int {
  kNeg,
  kAbs,
  kExp,
  kLog,
  kSqrt,
  kRsqrt,
  kReciprocal,
  kSquare,
  kSin,
  kCos,
  kTanh,
  kSigmoid,
  kSilu,
  kGelu,
  kRelu,
  kIsFinite,
  kExpm1,
  kLog1p,
  kTan,
  kAsin,
  kAcos,
  kAtan,
  kSinh,
  kCosh,
  kErf,
  kGeluErf,
  kSoftplus,
  kFloor,
  kCeil,
  kRound,
  kTrunc,
  kSign,
  kIsNan,
  kLogicalNot
};
inline constexpr int kUnaryOpCount = 34;
enum class BinaryOp : int {
  kAdd,
  kSub,
  kMul,
  kDiv,
  kPow,
  kMaximum,
  kMinimum,
  kEqual,
  kNotEqual,
  kLess,
  kLessEqual,
  kGreater,
  kGreaterEqual,
  kAtan2,
  kRemainder,
  kLogAddExp,
  kLogicalAnd,
  kLogicalOr,
  kLogicalXor
};
inline constexpr int kBinaryOpCount = 19;
enum class ReduceOp : int { kSum, kMean, kMax, kMin, kProd, kVariance, kLogSumExp };
inline constexpr int kReduceOpCount = 7;
// kGelu is the tanh form, kGeluErf the exact one, as in UnaryOp.
enum class Activation : int { kNone, kRelu, kGelu, kGeluErf, kSilu };
inline constexpr int kActivationCount = 5;
enum class Distribution : int { kUniform, kNormal };
inline constexpr int kDistributionCount = 2;
enum class Graft : int { kNone, kAdam, kAdamRaw, kSgd, kMomentum, kRmspropNorm };
inline constexpr int kGraftCount = 6;
// update_rules.h has what they compute, their states and their factors.
enum class UpdateRule : int {
  kSgd,
  kMomentum,
  kAdagrad,
  kRmsprop,
  kRmspropMomentum,
  kRmspropCentered,
  kRmspropCenteredMomentum,
  kAdam,
  kAmsgrad,
  kLion,
  kScheduleFree
};
inline constexpr int kUpdateRuleCount = 11;

class Kernels {
 public:
  virtual ~Kernels() = default;

  // ---- data movement and element-wise

  // out = x, any strides, any pair of dtypes (float → integer truncates; → bool is `x != 0`; NaN stays NaN in float
  // types).
  virtual void copy(const In& x, const Out& out) = 0;
  virtual void fill(double value, const Out& out) = 0;
  // out[i] = the i-th number (row-major) of the stream (seed, stream): Philox 4x32-10, key = seed, counter = (i / 4,
  // stream); uniform in [0, 1), or standard normal by Box-Muller. float32 or float64.
  virtual void random(Distribution distribution, int64_t seed, int64_t stream, const Out& out) = 0;
  // Same shape, any strides. kIsFinite, kIsNan and kLogicalNot (of bool) write bool; all others the dtype of x
  // (float32, float64; kNeg, kAbs, kSquare, kSign also int32). kGelu is the tanh form, kGeluErf the exact one, x·Φ(x);
  // kRound goes half to even.
  virtual void unary(UnaryOp op, const In& x, const Out& out) = 0;
  // dx = dy · f'(x) in one pass, for the differentiable ones.
  virtual void unary_grad(UnaryOp op, const In& x, const In& dy, const Out& dx) = 0;
  // The caller has broadcast a and b to the shape of out (stride 0). Comparisons write bool; float32, float64, int32.
  // kRemainder has the sign of b, as in Python; the logical ones take bool and write bool.
  virtual void binary(BinaryOp op, const In& a, const In& b, const Out& out) = 0;
  // out = the sum of all xs (at least one), which have its shape and any strides and floating dtypes: added from first
  // to last in float32, or float64 where out is that, and rounded once. out is contiguous.
  virtual void add_all(const List<In>& xs, const Out& out) = 0;
  // out = condition ? a : b, condition bool, all broadcast to the shape of out.
  virtual void where(const In& condition, const In& a, const In& b, const Out& out) = 0;
  // out has the rank of x, with size 1 on the reduced axes. NaN propagates through max and min. kVariance divides by
  // the count (two passes over x); kLogSumExp of nothing but -inf is -inf. kMax and kMin also of int32, uint8 and bool.
  virtual void reduce(ReduceOp op, const In& x, const Out& out) = 0;
  // out[i] = keep ? x[i] / (1 − rate) : 0, where keep means that the i-th uniform float32 number (row-major) of the
  // stream (seed, stream), as of random(), is at least rate, whatever the dtype of x. Any strides.
  virtual void dropout(const In& x, double rate, int64_t seed, int64_t stream, const Out& out) = 0;

  // ---- indexing and order
  // Along `axis`, with int32 indices of the shape of the smaller side (any strides, so broadcast axes cost nothing):
  // out[…, i, …] = x[…, indices[…, i, …], …]. Fails with ERR_INDEX on an index outside [0, size of x along axis). Any
  // dtype.
  virtual void gather(const In& x, const In& indices, int64_t axis, const Out& out) = 0;
  // out[…, indices[…, i, …], …] += x[…, i, …], equal targets in the order of the positions. float32, float64, int32.
  virtual void scatter_add(const In& x, const In& indices, int64_t axis, const InOut& out) = 0;
  // out[…, indices[…, i, …], …] = x[…, i, …]; the targets of a list of indices differ. Any dtype.
  virtual void scatter(const In& x, const In& indices, int64_t axis, const InOut& out) = 0;
  // Running sums along `axis`, from its end when reverse; float32 is added up in float64.
  virtual void cumsum(const In& x, int64_t axis, bool reverse, const Out& out) = 0;
  // Along the last axis, int32 positions; equal values in the order of their positions, NaN after everything. float32,
  // float64, int32; x of any strides, out contiguous.
  virtual void argsort(const In& x, bool descending, const Out& out) = 0;
  // The out.dim(-1) largest (or smallest) of the last axis, best first, otherwise as argsort.
  virtual void top_k(const In& x, bool largest, const Out& out) = 0;
  // The first position of the maximum (kMax) or minimum (kMin) along the last axis, int32; the first NaN if there is
  // one. out has the shape of x without that axis, contiguous.
  virtual void arg_reduce(ReduceOp op, const In& x, const Out& out) = 0;

  // Of rows x [N, V] (N < 2^16), V < 2^24: ids [N] int32 as arg_reduce of kMax, and found [3, N] (float32, or float64 of
  // float64) = {ids, the largest numbers, the log-sum-exps}; ids and found contiguous.
  virtual void likeliest(const In& x, const Out& ids, const Out& found) = 0;

  // Of such rows a token each, drawn by u [N] of those that how [N, 4] = {temperature, k, p, minimum} keeps, both float64
  // and contiguous; each applies to what those before it left: scores at least as large as the k-th (all unless 1 ≤ k <
  // V); then, by their weights w = e^((x − largest) / temperature), the largest while those before weigh less than p of
  // all, equal ones in their order (all unless p < 1), and w ≥ minimum. Taken is the first whose weight, added up in the
  // order of the columns, exceeds u in [0, 1) of all that are kept; for a temperature that isn't above 0, or where the
  // largest isn't finite, the one of `likeliest`. Weights may be rounded to multiples of 2^-(62 - log2 V).
  // found [4, N] = {ids, their scores, log-sum-exps of the rows, the largest scores}.
  virtual void sample_tokens(const In& x, const In& how, const In& u, const Out& ids, const Out& found) = 0;

  // ---- products
  // out[…, M, N] = activation(a[…, M, K] · b[…, K, N] (+ bias[N])), with the leading axes of out; b[K, N] serves all.
  // Each of the last two axes pairs of a and b has one stride of 1 (either), out is contiguous in its last axis, bias
  // contiguous. `pre`, with the dtype and the strides of out, receives what the activation is applied to. a, b, bias
  // and out may each be float32, bfloat16 or float16: sums are in float32 and rounded once; or all float64.
  virtual void matmul(const In& a, const In& b, const In& bias, Activation activation, const Out& pre,
                      const Out& out) = 0;
  // The products x[…, I] · weights[i][O_i, I]ᵀ (8 at most) side by side, out[…, Σ O_i]; formats as of matmul, x and the
  // weights contiguous in their last axis. With norm [I] they are those of rms_norm(x, norm, norm_offset, eps), and all
  // arrays float32 or wider, or of one dtype on a device that takes the narrower ones.
  virtual void linear_many(const In& x, const In& norm, double norm_offset, double eps, const List<In>& weights,
                           const Out& out) = 0;
  // out[…, O] = residual + x[…, I] · weight[O, I]ᵀ, the product rounded before; last axes contiguous.
  virtual void linear_add(const In& x, const In& weight, const In& residual, const Out& out) = 0;
  // Of rows that lie packed by group: counts [E] (int32, contiguous) says how many belong to each, one group behind the
  // other from row 0 on. out[A, N] = Σ_i xs[i][A, K_i] · ws[i][E, K_i, N] (8 terms at most), each row with its group's
  // matrices, and zeros in rows behind the last group. Each x and each matrix has one stride of 1 (either), out is
  // contiguous in its last axis; formats as of matmul, the same for all i. ERR_INDEX on counts < 0 or beyond A rows.
  virtual void grouped_matmul(const List<In>& xs, const List<In>& ws, const In& counts, const Out& out) = 0;
  // dw[E, M, N], contiguous, = a[A, M]ᵀ · b[A, N] over the rows of each group; zeros for a group without rows.
  virtual void grouped_matmul_grad(const In& a, const In& b, const In& counts, const Out& dw) = 0;
  // Sums of rows by number: out[N, C] = Σ_j weights[N, k] · x[ids[N, k], C] in the order of j; an id of -1 adds nothing.
  // ids int32; x and out rows of one dtype, weights of that or, beside 16 bits, float32, or absent (all 1). Sums are in
  // float32 or wider and rounded once. Fails with ERR_INDEX on another id outside [0, rows of x).
  virtual void gather_sum(const In& x, const In& ids, const In& weights, const Out& out) = 0;
  // dweights[N, k] = Σ_c x[ids[N, k], c] · dout[N, c], with the dtypes that weights may have; 0 where the id is -1.
  virtual void gather_sum_grad(const In& x, const In& ids, const In& dout, const Out& dweights) = 0;

  // ---- layers

  // Softmax over the last axis, of any stride; a row of -inf gives zeros.
  virtual void softmax(const In& x, const Out& y) = 0;
  // dx = y ∘ (dy − Σ y∘dy).
  virtual void softmax_grad(const In& y, const In& dy, const Out& dx) = 0;
  // Its logarithm, (x − max) − log Σ e^(x − max); a row of -inf stays.
  virtual void log_softmax(const In& x, const Out& y) = 0;
  // dx = dy − e^y Σ dy.
  virtual void log_softmax_grad(const In& y, const In& dy, const Out& dx) = 0;
  // out[…, C] = table[ids[…], :]; ids int32 contiguous, table [V, C] contiguous. Fails with ERR_INDEX on an id outside
  // [0, V).
  virtual void embedding(const In& table, const In& ids, const Out& out) = 0;
  // dtable[V, C] = Σ over equal ids of dout rows, in the order of the rows.
  virtual void embedding_grad(const In& dout, const In& ids, const Out& dtable) = 0;
  // y = x · rstd ∘ (weight + weight_offset), rstd[…] = (mean(x²) + eps)^(-1/2) (models.md §2.1). x rows, weight [C]; y,
  // rstd contiguous; rstd may be absent. With a residual (rows, shape of x) it is sum = x + residual that is written
  // and normed; both are given or neither.
  virtual void rms_norm(const In& x, const In& residual, const In& weight, double weight_offset, double eps,
                        const Out& sum, const Out& y, const Out& rstd) = 0;
  // x is what was normed. dsum, the gradient of `sum`, may be absent; dx = dsum + the gradient through the norm.
  virtual void rms_norm_grad(const In& dy, const In& dsum, const In& x, const In& weight, double weight_offset,
                             const In& rstd, const Out& dx, const Out& dweight) = 0;
  // y = (x − mean) · rstd ∘ weight + bias over the last axis, rstd = (variance + eps)^(-1/2). x rows; weight and bias
  // [C], each may be absent; y, mean, rstd contiguous, the statistics if wanted; residual and sum as above.
  virtual void layer_norm(const In& x, const In& residual, const In& weight, const In& bias, double eps, const Out& sum,
                          const Out& y, const Out& mean, const Out& rstd) = 0;
  // dweight and dbias may be absent.
  virtual void layer_norm_grad(const In& dy, const In& dsum, const In& x, const In& weight, const In& mean,
                               const In& rstd, const Out& dx, const Out& dweight, const Out& dbias) = 0;
  // Rotary embedding (models.md §2.2) of x [B, T, H, D] rows by the angles of cos, sin [T, R/2] (contiguous), R ≤ D
  // even: channels past R are copied. Pairs are (i, i + R/2), or (2i, 2i+1) when interleaved. inverse turns the other
  // way (the gradient). out may be x.
  virtual void rope(const In& x, const In& cos, const In& sin, bool interleaved, bool inverse, const Out& out) = 0;
  // Rows for the memory of a cache, in one pass: q [B, T, H, D] and k [B, T, K, D] turned into turned [B, T, H, D] and
  // keys [B, T, K, D] as by rope, v [B, T, K, Dv] copied into values [B, T, K, Dv]. All rows.
  virtual void rope_and_keep(const In& q, const In& k, const In& v, const In& cos, const In& sin, bool interleaved,
                             const Out& turned, const Out& keys, const Out& values) = 0;
  // out = silu(gate) ∘ up, rows of equal shape.
  virtual void swiglu(const In& gate, const In& up, const Out& out) = 0;
  // out[…, F] = silu(x · gateᵀ) ∘ (x · upᵀ) of x[…, I] and gate, up [F, I], as linear_many (of a norm too) and swiglu; last
  // axes contiguous.
  virtual void swiglu_linear(const In& x, const In& norm, double norm_offset, double eps, const In& gate, const In& up,
                             const Out& out) = 0;
  virtual void swiglu_grad(const In& dout, const In& gate, const In& up, const Out& dgate, const Out& dup) = 0;

  // ---- convolution and pooling
  // x [B, C, H, W], weight [O, C / groups, R, S], bias [O] or absent, out [B, O, OH, OW], all contiguous: cross-
  // correlation with zero padding, OH = (H + 2·padding_h − dilation_h·(R − 1) − 1) / stride_h + 1.
  virtual void conv2d(const In& x, const In& weight, const In& bias, int64_t stride_h, int64_t stride_w,
                      int64_t padding_h, int64_t padding_w, int64_t dilation_h, int64_t dilation_w, int64_t groups,
                      const Out& out) = 0;
  // Each of dx, dweight, dbias may be absent.
  virtual void conv2d_grad(const In& dout, const In& x, const In& weight, int64_t stride_h, int64_t stride_w,
                           int64_t padding_h, int64_t padding_w, int64_t dilation_h, int64_t dilation_w, int64_t groups,
                           const Out& dx, const Out& dweight, const Out& dbias) = 0;
  // Windows of kernel_h × kernel_w over x [B, C, H, W]; padding never wins a maximum and is not counted in a mean.
  // indices int32: the position h·W + w that won (the first of equals; a NaN wins).
  virtual void max_pool2d(const In& x, int64_t kernel_h, int64_t kernel_w, int64_t stride_h, int64_t stride_w,
                          int64_t padding_h, int64_t padding_w, const Out& out, const Out& indices) = 0;
  virtual void max_pool2d_grad(const In& dout, const In& indices, const Out& dx) = 0;
  virtual void avg_pool2d(const In& x, int64_t kernel_h, int64_t kernel_w, int64_t stride_h, int64_t stride_w,
                          int64_t padding_h, int64_t padding_w, const Out& out) = 0;
  virtual void avg_pool2d_grad(const In& dout, int64_t kernel_h, int64_t kernel_w, int64_t stride_h, int64_t stride_w,
                               int64_t padding_h, int64_t padding_w, const Out& dx) = 0;

  // ---- losses (models.md §3)

  // Per row n with targets[n] ≠ ignore_index, z = logits or softcap·tanh(logits/softcap) when softcap > 0:
  //   ce[n] = (1−s)·(lse − z[target]) + s·mean_v(lse − z[v]),  loss = mean_n(ce[n] + z_loss·lse²), s = label_smoothing.
  // stats[3] = {mean ce, mean z_loss·lse², number of valid rows}; no valid row gives zeros. logits [N, V] rows, targets
  // int32 [N], loss [] , ce [N], lse [N]. ERR_INDEX on a target outside [0, V) that is not ignore_index.
  virtual void cross_entropy(const In& logits, const In& targets, int64_t ignore_index, double label_smoothing,
                             double z_loss, double softcap, const Out& loss, const Out& stats, const Out& ce,
                             const Out& lse) = 0;
  // dlogits [N, V] = dloss · ∂loss/∂logits; dloss [].
  virtual void cross_entropy_grad(const In& dloss, const In& logits, const In& targets, const In& stats, const In& lse,
                                  int64_t ignore_index, double label_smoothing, double z_loss, double softcap,
                                  const Out& dlogits) = 0;
  // The same loss of logits = hidden [N, C] · weightᵀ, weight [V, C] (both contiguous), in blocks of rows: the logits
  // of the whole batch never exist. Since the loss is a scalar its gradients are made in the same pass, for an upstream
  // gradient of 1; dhidden [N, C] and dweight [V, C] may be absent.
  virtual void linear_cross_entropy(const In& hidden, const In& weight, const In& targets, int64_t ignore_index,
                                    double label_smoothing, double z_loss, double softcap, const Out& loss,
                                    const Out& stats, const Out& ce, const Out& dhidden, const Out& dweight) = 0;

  // ---- attention

  // Dot-product attention, flash-style: q [B, T, H, D], k [B, S, K, D], v [B, S, K, Dv] (D and Dv axes contiguous,
  // others strided), o [B, T, H, Dv], lse [B, H, T] contiguous. Query row t is position i = q_offset + t; key j is
  // allowed when (not causal or j ≤ i or j < start + prefix[b, t]) and, with window > 0, j > i − window (not causal:
  // |i − j| < window), and k_doc[b, j] = q_doc[b, t], where start is the first key of that document. q_doc [B, T] and
  // k_doc [B, S] (both or neither) and prefix [B, T] are int32, strided, optional. s = scale·q·k, then
  // softcap·tanh(s/softcap) when softcap > 0. A row without keys: o = 0, lse = −inf.
  virtual void attention(const In& q, const In& k, const In& v, const In& q_doc, const In& k_doc, const In& prefix,
                         double scale, bool causal, int64_t window, int64_t q_offset, double softcap, const Out& o,
                         const Out& lse) = 0;
  // The next position of each of T sequences, causally over memory of its own: q [1, T, H, D], k and v [1, T, K, D] (rows),
  // o [1, T, H, D], keys[t] and values[t] [1, S_t, K, D], contiguous, D ≤ 256. positions [T], int32 and contiguous, is
  // where the sequences are; row 0 of their memory is position offsets[t]. k and v are written to their rows, and q
  // attends to these and those before. With tables cos and sin [T, R/2] as rope's, both or neither, q and k are turned
  // first. ERR_INDEX where a position has no row; nothing is written to that memory.
  virtual void decode_attention(const In& q, const In& k, const In& v, const List<InOut>& keys,
                                const List<InOut>& values, const List<int64_t>& offsets, const In& positions,
                                const In& cos, const In& sin, bool interleaved, double scale, int64_t window,
                                double softcap, const Out& o) = 0;
  // dlse [B, H, T], optional, contiguous; dq, dk, dv with heads and channels contiguous, the other axes strided, as of
  // one array for all three. Rows without keys add nothing. With tables cos and sin as rope's, both or neither, q and k
  // are ones that rope turned by them: dq and dk are turned back, into the gradients of what it turned.
  virtual void attention_grad(const In& dout, const In& dlse, const In& q, const In& k, const In& v, const In& o,
                              const In& lse, const In& q_doc, const In& k_doc, const In& prefix, double scale,
                              bool causal, int64_t window, int64_t q_offset, double softcap, const In& cos,
                              const In& sin, bool interleaved, const Out& dq, const Out& dk, const Out& dv) = 0;
  // 2-simplicial attention (simplicial-attention.md §2–§4): q [B, T, H, D], k1 [B, S1, K, D], k2 [B, S2, K, D], v1 [B,
  // S1, K, Dv], v2 [B, S2, K, Dv] (channels contiguous, others strided), o [B, T, H, Dv], lse [B, H, T] contiguous.
  // Windows w1, w2 (0 = unlimited); offsets are the absolute positions of row 0 of q, of (k1, v1), of (k2, v2).
  virtual void simplicial_attention(const In& q, const In& k1, const In& k2, const In& v1, const In& v2, double scale,
                                    bool causal, int64_t w1, int64_t w2, double k2_bias, double v2_bias,
                                    int64_t q_offset, int64_t k1_offset, int64_t k2_offset, bool determinant,
                                    const Out& o, const Out& lse) = 0;
  virtual void simplicial_attention_grad(const In& dout, const In& q, const In& k1, const In& k2, const In& v1,
                                         const In& v2, const In& o, const In& lse, double scale, bool causal,
                                         int64_t w1, int64_t w2, double k2_bias, double v2_bias, int64_t q_offset,
                                         int64_t k1_offset, int64_t k2_offset, bool determinant, const Out& dq,
                                         const Out& dk1, const Out& dk2, const Out& dv1, const Out& dv2) = 0;

  // ---- linear algebra
  // Of the matrices on the last two axes, one by one; float32 or float64, all arrays contiguous. A matrix with a NaN or an
  // infinity gives NaN in all its results. ERR_LINALG, with the matrix's number in the batch, when an iteration does not
  // converge.

  // a[…, n, n] = vectors · diag(values) · vectorsᵀ, by its lower triangle; values[…, n] ascend, vectors are columns.
  virtual void eigh(const In& a, const Out& values, const Out& vectors) = 0;
  // a[…, m, n] = q[…, m, k] · r[…, k, n], k = min(m, n), by Householder reflections.
  virtual void qr(const In& a, const Out& q, const Out& r) = 0;
  // a[…, m, n] = u[…, m, k] · diag(s[…, k]) · vh[…, k, n]; s descends.
  virtual void svd(const In& a, const Out& u, const Out& s, const Out& vh) = 0;
  // a = l · lᵀ, by its lower triangle. ERR_LINALG on a pivot that is not positive.
  virtual void cholesky(const In& a, const Out& l) = 0;
  // op(l) · x = b, or x · op(l) = b when not left; op transposes, or not. Of l that triangle alone is read; batch by batch.
  virtual void triangular_solve(const In& l, const In& b, bool upper, bool transposed, bool left, const Out& x) = 0;

  // ---- optimizers (optimizers.md §2, §3)

  // All arrays contiguous, equal sizes list by list; params, grads and state of one dtype. `copies` is empty, or has
  // for each parameter an array of its size, usually of a 16-bit dtype, that receives the new parameter, rounded.

  // norm [] = sqrt(Σ over all arrays of Σ x²), accumulated in float64.
  virtual void global_norm(const List<In>& xs, const Out& norm) = 0;
  // One step of an element-wise rule. states: the first state of every parameter, then the second of every one, and so
  // on. Parameters and states are float32 or float64, gradients the same, or of 16 bits with float32. grad_scale []
  // (optional, float32 or float64) multiplies every gradient; when it is not finite nothing is changed.
  virtual void optimizer_step(UpdateRule rule, const List<InOut>& params, const List<InOut>& copies,
                              const List<In>& grads, const List<InOut>& states, const List<double>& factors,
                              const In& grad_scale) = 0;
  // SONew of band b (optimizers.md §3), 0 ≤ b ≤ 10. Beside m, tensor i of params.size has the b+1 diagonals of its
  // statistics, h[k·params.size + i] for k = 0 (the main one) … b, n entries each with zeros where a chain has no
  // neighbour k elements on. A chain is a run of chain_length[i] consecutive elements (0: the whole tensor). rms is the
  // extra state of Graft::kRmspropNorm and empty otherwise. Parameters are float32 or float64, state (m, h, rms) is of
  // their dtype or, beside float32, bfloat16: rounded stochastically by Philox words that seed, rounding_ids[i] (below
  // 2^17), step (below 2^32), array and element determine. Gradients are only read, and may have 16 bits beside
  // float32. isolate: where the stability rule fails, edges to the left are cut too, and the rest is factorised again.
  // dropped (optional, float64 []) += elements that failed.
  virtual void sonew_step(const List<InOut>& params, const List<InOut>& copies, const List<In>& grads,
                          const List<InOut>& m, const List<InOut>& h, const List<InOut>& rms,
                          const List<int64_t>& chain_length, const List<int64_t>& rounding_ids, const In& grad_scale,
                          double lr, double beta1, double beta2, double eps, bool relative_eps, double gamma,
                          bool absolute_gamma, bool isolate, Graft graft, double graft_eps, bool bias_correction,
                          double weight_decay, int64_t step, int64_t seed, const InOut& dropped) = 0;
};

}  // namespace llmeff
