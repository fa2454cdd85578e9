#include "binding/marshal.h"

#include "llmeff/cuda.h"

namespace llmeff::binding {

DType dtype_of(const Napi::TypedArray& array) {
  switch (array.TypedArrayType()) {
    case napi_float32_array:
      return DType::kF32;
    case napi_float64_array:
      return DType::kF64;
    case napi_int32_array:
      return DType::kI32;
    case napi_uint8_array:
      return DType::kU8;
    case napi_uint16_array:
      return DType::kBF16;
    default:
      fail("ERR_DTYPE", "[native] expected a Float32Array, Float64Array, Int32Array, Uint8Array or Uint16Array.");
  }
}

void* data_of(const Napi::TypedArray& array) {
  void* data = nullptr;
  napi_get_typedarray_info(array.Env(), array, nullptr, nullptr, &data, nullptr, nullptr);
  return data;
}

View contiguous_view(void* data, DType dtype, const int64_t* shape, int rank) {
  View view;
  view.data = data;
  view.dtype = dtype;
  view.rank = rank;
  int64_t stride = 1;
  for (int axis = view.rank - 1; axis >= 0; --axis) {
    view.shape[axis] = shape[axis];
    view.strides[axis] = stride;
    // An array without elements may have axes whose product is too large for a number; its strides mean nothing.
    if (__builtin_mul_overflow(stride, shape[axis], &stride)) stride = 0;
  }
  return view;
}

void transpose(View& view) {
  if (view.rank < 2) fail("ERR_SHAPE", "[native] expected an array of at least two axes; received %d.", view.rank);
  std::swap(view.shape[view.rank - 2], view.shape[view.rank - 1]);
  std::swap(view.strides[view.rank - 2], view.strides[view.rank - 1]);
}

double number_argument(const Napi::Value& value) {
  return value.As<Napi::Number>().DoubleValue();
}

int64_t integer_argument(const Napi::Value& value) {
  return value.As<Napi::Number>().Int64Value();
}

DType dtype_argument(const Napi::Value& value) {
  const int number = value.As<Napi::Number>().Int32Value();
  if (number < 0 || number >= kDTypeCount) fail("ERR_DTYPE", "[native] %d names no dtype.", number);
  return static_cast<DType>(number);
}

Device& device_argument(const Napi::Value& value) {
  if (value.IsUndefined()) return cpu_device();
  const int number = value.As<Napi::Number>().Int32Value();
  return number == 0 ? cpu_device() : cuda_device(number - 1);
}

Napi::TypedArray typed_array_argument(const Napi::Value& value) {
  if (!value.IsTypedArray()) fail("ERR_DTYPE", "[native] expected a typed array.");
  return value.As<Napi::TypedArray>();
}

void CallContext::check_device(Device& owner) {
  if (device != nullptr && device != &owner)
    fail("ERR_DEVICE", "[native] arrays of one call must be on one device; received %s and %s.", device->name().c_str(),
         owner.name().c_str());
  device = &owner;
}

void CallContext::read_typed_array(const Napi::Value& value, View& view) {
  const Napi::TypedArray array = typed_array_argument(value);
  const int64_t size = static_cast<int64_t>(array.ElementLength());
  view = contiguous_view(data_of(array), dtype_of(array), &size, 1);
  if (device != nullptr && device != &cpu_device())
    fail("ERR_DEVICE", "[native] typed arrays go with arrays on the CPU only.");
  device = &cpu_device();
  host = true;
  empty |= size == 0;
}

}  // namespace llmeff::binding
