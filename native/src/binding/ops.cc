// The table of kernels: `op.<name>(…)` takes the arguments of the kernel, in order, and returns its ticket.
#include "binding/environment.h"
#include "binding/marshal.h"
#include "llmeff/kernels.h"

namespace llmeff::binding {

void define_ops(Environment& environment, Napi::Env env, Napi::Object& exports) {
  Napi::Object op = Napi::Object::New(env);
  const auto define = [&]<class... P>(const char* name, void (Kernels::*method)(P...), Traits traits = {}) {
    environment.define(env, op, name, [&environment, name, method, traits](const Arguments& info) {
      const uint64_t ticket =
          call_kernel(info, environment.handles, environment.recording.get(), name, method, traits);
      return Napi::Number::New(info.Env(), static_cast<double>(ticket));
    });
  };
  define("copy", &Kernels::copy, {.half = Half::kNative});
  define("fill", &Kernels::fill, {.half = Half::kNative});
  define("random", &Kernels::random);
  define("unary", &Kernels::unary, {.half = Half::kNative});
  define("unaryGrad", &Kernels::unary_grad, {.half = Half::kNative});
  define("binary", &Kernels::binary, {.half = Half::kNative});
  define("addAll", &Kernels::add_all);
  define("where", &Kernels::where, {.half = Half::kNative});
  define("reduce", &Kernels::reduce, {.half = Half::kNative});
  define("dropout", &Kernels::dropout, {.half = Half::kNative});
  define("gather", &Kernels::gather, {.half = Half::kNative});
  define("scatterAdd", &Kernels::scatter_add);
  define("scatter", &Kernels::scatter, {.half = Half::kNative});
  define("cumsum", &Kernels::cumsum);
  define("argsort", &Kernels::argsort);
  define("topK", &Kernels::top_k);
  define("argReduce", &Kernels::arg_reduce);
  define("likeliest", &Kernels::likeliest);
  define("sampleTokens", &Kernels::sample_tokens);
  define("matmul", &Kernels::matmul, {.optional = 1u << 2 | 1u << 4, .half = Half::kNative});  // bias, pre
  // The same of b[…, N, K], as the weights of linear layers lie.
  define("matmulTransposed", &Kernels::matmul,
         {.optional = 1u << 2 | 1u << 4, .transposed = 1u << 1, .half = Half::kNative});
  define("linearMany", &Kernels::linear_many, {.optional = 1u << 1, .half = Half::kNative});  // norm
  define("linearAdd", &Kernels::linear_add);
  define("groupedMatmul", &Kernels::grouped_matmul, {.half = Half::kNative});
  define("groupedMatmulGrad", &Kernels::grouped_matmul_grad, {.half = Half::kNative});
  define("gatherSum", &Kernels::gather_sum, {.optional = 1u << 2, .half = Half::kNative});
  define("gatherSumGrad", &Kernels::gather_sum_grad, {.half = Half::kNative});
  define("softmax", &Kernels::softmax, {.half = Half::kNative});
  define("softmaxGrad", &Kernels::softmax_grad, {.half = Half::kNative});
  define("logSoftmax", &Kernels::log_softmax, {.half = Half::kNative});
  define("logSoftmaxGrad", &Kernels::log_softmax_grad, {.half = Half::kNative});
  define("embedding", &Kernels::embedding, {.half = Half::kNative});
  define("embeddingGrad", &Kernels::embedding_grad);
  define("rmsNorm", &Kernels::rms_norm, {.optional = 1u << 1 | 1u << 5 | 1u << 7});  // residual, sum, rstd
  define("rmsNormGrad", &Kernels::rms_norm_grad, {.optional = 1u << 1});             // dsum
  // residual, weight, bias, sum, mean, rstd
  define("layerNorm", &Kernels::layer_norm, {.optional = 1u << 1 | 1u << 2 | 1u << 3 | 1u << 5 | 1u << 7 | 1u << 8});
  define("layerNormGrad", &Kernels::layer_norm_grad, {.optional = 1u << 1 | 1u << 3 | 1u << 7 | 1u << 8});
  define("rope", &Kernels::rope);
  define("ropeAndKeep", &Kernels::rope_and_keep);
  define("swiglu", &Kernels::swiglu);
  define("swigluLinear", &Kernels::swiglu_linear, {.optional = 1u << 1});  // norm
  define("swigluGrad", &Kernels::swiglu_grad);
  define("conv2d", &Kernels::conv2d, {.optional = 1u << 2});
  define("conv2dGrad", &Kernels::conv2d_grad, {.optional = 1u << 10 | 1u << 11 | 1u << 12});
  define("maxPool2d", &Kernels::max_pool2d);
  define("maxPool2dGrad", &Kernels::max_pool2d_grad);
  define("avgPool2d", &Kernels::avg_pool2d);
  define("avgPool2dGrad", &Kernels::avg_pool2d_grad);
  define("crossEntropy", &Kernels::cross_entropy);
  define("crossEntropyGrad", &Kernels::cross_entropy_grad);
  define("linearCrossEntropy", &Kernels::linear_cross_entropy, {.optional = 1u << 10 | 1u << 11});  // dhidden, dweight
  define("attention", &Kernels::attention, {.optional = 1u << 3 | 1u << 4 | 1u << 5});  // q_doc, k_doc, prefix
  define("decodeAttention", &Kernels::decode_attention, {.optional = 1u << 7 | 1u << 8});  // cos, sin
  // dlse, the same, cos, sin
  define("attentionGrad", &Kernels::attention_grad,
         {.optional = 1u << 1 | 1u << 7 | 1u << 8 | 1u << 9 | 1u << 15 | 1u << 16});
  define("simplicialAttention", &Kernels::simplicial_attention);
  define("simplicialAttentionGrad", &Kernels::simplicial_attention_grad);
  define("eigh", &Kernels::eigh);
  define("qr", &Kernels::qr);
  define("svd", &Kernels::svd);
  define("cholesky", &Kernels::cholesky);
  define("triangularSolve", &Kernels::triangular_solve);
  define("globalNorm", &Kernels::global_norm);
  define("optimizerStep", &Kernels::optimizer_step, {.optional = 1u << 6, .half = Half::kNative});  // grad_scale
  define("sonewStep", &Kernels::sonew_step,
         {.optional = 1u << 8 | 1u << 23, .half = Half::kNative});  // grad_scale, dropped
  exports.Set("op", op);
}

}  // namespace llmeff::binding
