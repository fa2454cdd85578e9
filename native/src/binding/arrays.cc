// Arrays by number: made, viewed and released.
#include "binding/environment.h"
#include "binding/marshal.h"

namespace llmeff::binding {
namespace {

std::vector<int64_t> integers(const Napi::Value& value) {
  const auto array = value.As<Napi::Array>();
  if (array.Length() > kMaxRank) fail("ERR_SHAPE", "[native] at most %d axes; received %u.", kMaxRank, array.Length());
  std::vector<int64_t> numbers(array.Length());
  for (uint32_t i = 0; i < array.Length(); ++i) numbers[i] = array.Get(i).As<Napi::Number>().Int64Value();
  return numbers;
}

int64_t checked_size(const std::vector<int64_t>& shape, DType dtype) {
  bool empty = false;
  for (const int64_t n : shape) {
    if (n < 0) fail("ERR_SHAPE", "[native] a dimension is negative: %lld.", static_cast<long long>(n));
    empty |= n == 0;
  }
  if (empty) return 0;
  int64_t bytes = item_size(dtype);
  for (const int64_t n : shape)
    if (__builtin_mul_overflow(bytes, n, &bytes))
      fail("ERR_OUT_OF_MEMORY", "[native] the array would have more than 2^63 bytes.");
  return bytes;
}

Array allocate(DType dtype, const std::vector<int64_t>& shape) {
  const int64_t bytes = checked_size(shape, dtype);
  Array array;
  if (bytes > 0) array.buffer = cpu_device().allocate(static_cast<size_t>(bytes));
  array.view = contiguous_view(array.buffer ? array.buffer->data() : nullptr, dtype, shape);
  return array;
}

Array view_of(const Environment& environment, const Napi::CallbackInfo& info) {
  const Array& base = environment.handles.at(info[0].As<Napi::Number>().DoubleValue());
  const DType dtype = dtype_argument(info[1]);
  const std::vector<int64_t> shape = integers(info[2]), strides = integers(info[3]);
  const int64_t offset = info[4].As<Napi::Number>().Int64Value();
  if (strides.size() != shape.size()) fail("ERR_SHAPE", "[native] a view needs a stride for each axis.");
  if (item_size(dtype) != item_size(base.view.dtype)) fail("ERR_DTYPE", "[native] a view keeps the size of the items.");
  Array array;
  array.view = contiguous_view(nullptr, dtype, shape);
  const bool empty = checked_size(shape, dtype) == 0;
  if (!empty) {
    if (base.buffer == nullptr) fail("ERR_SHAPE", "[native] a view with elements of an array without.");
    // Elements of the block that the view reaches, counted from the start of the block.
    const int64_t item = item_size(dtype);
    auto* const data = static_cast<char*>(base.view.data);
    const int64_t start = (data - static_cast<char*>(base.buffer->data())) / item;
    int64_t low, high;
    bool outside = __builtin_add_overflow(start, offset, &low);
    high = low;
    for (size_t i = 0; i < shape.size(); ++i) {
      int64_t reach = 0;
      outside |= __builtin_mul_overflow(shape[i] - 1, strides[i], &reach);
      int64_t& end = reach < 0 ? low : high;
      outside |= __builtin_add_overflow(end, reach, &end);
      array.view.strides[i] = strides[i];
    }
    if (outside || low < 0 || high >= static_cast<int64_t>(base.buffer->bytes()) / item)
      fail("ERR_SHAPE", "[native] the view reaches outside its memory.");
    array.view.data = data + offset * item;
    array.buffer = base.buffer;
  }

  return array;
}

}  // namespace

void define_arrays(Environment& environment, Napi::Env env, Napi::Object& exports) {
  // create(dtype, shape) → handle; contents undefined.
  environment.define(env, exports, "create", [&environment](const Napi::CallbackInfo& info) {
    return Napi::Number::New(info.Env(),
                             environment.handles.insert(allocate(dtype_argument(info[0]), integers(info[1]))));
  });
  // view(handle, dtype, shape, strides, offset) → handle of the same memory; offset and strides in elements from the
  // start of the view.
  environment.define(env, exports, "view", [&environment](const Napi::CallbackInfo& info) {
    return Napi::Number::New(info.Env(), environment.handles.insert(view_of(environment, info)));
  });
  environment.define(env, exports, "release", [&environment](const Napi::CallbackInfo& info) {
    environment.handles.release(info[0].As<Napi::Number>().DoubleValue());
    return info.Env().Undefined();
  });
  // isShared(handle) → whether another handle names memory of the same block.
  environment.define(env, exports, "isShared", [&environment](const Napi::CallbackInfo& info) {
    const Array& array = environment.handles.at(info[0].As<Napi::Number>().DoubleValue());
    return Napi::Boolean::New(info.Env(), array.buffer.use_count() > 1);
  });
}

}  // namespace llmeff::binding
