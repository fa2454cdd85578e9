// The table of kernels: `op.<name>(…)` takes the arguments of the kernel, in order, and returns its ticket.
#include "binding/environment.h"
#include "binding/marshal.h"
#include "llmeff/kernels.h"

namespace llmeff::binding {

void define_ops(Environment& environment, Napi::Env env, Napi::Object& exports) {
  Napi::Object op = Napi::Object::New(env);
  const auto define = [&]<class... P>(const char* name, void (Kernels::*method)(P...), uint32_t optional = 0) {
    environment.define(env, op, name, [&environment, name, method, optional](const Napi::CallbackInfo& info) {
      const uint64_t ticket = call_kernel(info, environment.handles, name, method, optional);
      return Napi::Number::New(info.Env(), static_cast<double>(ticket));
    });
  };
  define("copy", &Kernels::copy);
  define("fill", &Kernels::fill);
  define("random", &Kernels::random);
  define("unary", &Kernels::unary);
  define("unaryGrad", &Kernels::unary_grad);
  define("binary", &Kernels::binary);
  define("where", &Kernels::where);
  define("reduce", &Kernels::reduce);
  define("dropout", &Kernels::dropout);
  define("gather", &Kernels::gather);
  define("scatterAdd", &Kernels::scatter_add);
  define("cumsum", &Kernels::cumsum);
  define("argsort", &Kernels::argsort);
  define("topK", &Kernels::top_k);
  define("argReduce", &Kernels::arg_reduce);
  define("matmul", &Kernels::matmul, 1u << 2 | 1u << 4);  // bias, pre
  define("softmax", &Kernels::softmax);
  define("softmaxGrad", &Kernels::softmax_grad);
  define("embedding", &Kernels::embedding);
  define("embeddingGrad", &Kernels::embedding_grad);
  define("rmsNorm", &Kernels::rms_norm);
  define("rmsNormGrad", &Kernels::rms_norm_grad);
  define("layerNorm", &Kernels::layer_norm, 1u << 1 | 1u << 2);
  define("layerNormGrad", &Kernels::layer_norm_grad, 1u << 2 | 1u << 6 | 1u << 7);
  define("rope", &Kernels::rope);
  define("swiglu", &Kernels::swiglu);
  define("swigluGrad", &Kernels::swiglu_grad);
  define("conv2d", &Kernels::conv2d, 1u << 2);
  define("conv2dGrad", &Kernels::conv2d_grad, 1u << 10 | 1u << 11 | 1u << 12);
  define("maxPool2d", &Kernels::max_pool2d);
  define("maxPool2dGrad", &Kernels::max_pool2d_grad);
  define("avgPool2d", &Kernels::avg_pool2d);
  define("avgPool2dGrad", &Kernels::avg_pool2d_grad);
  define("crossEntropy", &Kernels::cross_entropy);
  define("crossEntropyGrad", &Kernels::cross_entropy_grad);
  define("linearCrossEntropy", &Kernels::linear_cross_entropy, 1u << 10 | 1u << 11);  // dhidden, dweight
  define("attention", &Kernels::attention);
  define("attentionGrad", &Kernels::attention_grad);
  define("simplicialAttention", &Kernels::simplicial_attention);
  define("simplicialAttentionGrad", &Kernels::simplicial_attention_grad);
  define("globalNorm", &Kernels::global_norm);
  define("adamwStep", &Kernels::adamw_step, 1u << 5);             // grad_scale
  define("sonewStep", &Kernels::sonew_step, 1u << 7 | 1u << 20);  // grad_scale, dropped
  exports.Set("op", op);
}

}  // namespace llmeff::binding
