// Arrays by number: made, viewed and released.
#include "binding/environment.h"
#include "binding/marshal.h"

namespace llmeff::binding {
namespace {

// `rank` numbers from the arguments on.
struct Integers {
  Integers(const Arguments& arguments, size_t first, size_t rank) : rank(static_cast<int>(rank)) {
    if (rank > kMaxRank) fail("ERR_SHAPE", "[native] at most %d axes; received %zu.", kMaxRank, rank);
    for (size_t i = 0; i < rank; ++i) values[i] = integer_argument(arguments[first + i]);
  }
  const int64_t* begin() const { return values; }
  const int64_t* end() const { return values + rank; }

  int rank;
  int64_t values[kMaxRank];
};

int64_t checked_size(const Integers& shape, DType dtype) {
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

Array allocate(const Arguments& info) {
  Device& device = device_argument(info[0]);
  const DType dtype = dtype_argument(info[1]);
  const Integers shape(info, 2, info.Length() < 2 ? 0 : info.Length() - 2);
  const int64_t bytes = checked_size(shape, dtype);
  Array array;
  if (bytes > 0) array.buffer = device.allocate(static_cast<size_t>(bytes));
  array.view = contiguous_view(array.buffer ? array.buffer.data() : nullptr, dtype, shape.values, shape.rank);
  return array;
}

Array view_of(const Environment& environment, const Arguments& info) {
  const Array& base = environment.handles.at(number_argument(info[0]));
  const DType dtype = dtype_argument(info[1]);
  const int64_t offset = integer_argument(info[2]);
  const size_t axes = info.Length() > 3 ? info.Length() - 3 : 0;
  if (axes % 2 != 0) fail("ERR_SHAPE", "[native] a view needs a stride for each axis.");
  const Integers shape(info, 3, axes / 2), strides(info, 3 + axes / 2, axes / 2);
  if (item_size(dtype) != item_size(base.view.dtype)) fail("ERR_DTYPE", "[native] a view keeps the size of the items.");
  Array array;
  array.view = contiguous_view(nullptr, dtype, shape.values, shape.rank);
  const bool empty = checked_size(shape, dtype) == 0;
  if (!empty) {
    if (!base.buffer) fail("ERR_SHAPE", "[native] a view with elements of an array without.");
    // Elements of the block that the view reaches, counted from the start of the block.
    const int64_t item = item_size(dtype);
    auto* const data = static_cast<char*>(base.view.data);
    const int64_t start = (data - static_cast<char*>(base.buffer.data())) / item;
    int64_t low, high;
    bool outside = __builtin_add_overflow(start, offset, &low);
    high = low;
    for (int i = 0; i < shape.rank; ++i) {
      int64_t reach = 0;
      outside |= __builtin_mul_overflow(shape.values[i] - 1, strides.values[i], &reach);
      int64_t& end = reach < 0 ? low : high;
      outside |= __builtin_add_overflow(end, reach, &end);
      array.view.strides[i] = strides.values[i];
    }
    if (outside || low < 0 || high >= static_cast<int64_t>(base.buffer.bytes()) / item)
      fail("ERR_SHAPE", "[native] the view reaches outside its memory.");
    array.view.data = data + offset * item;
    array.buffer = base.buffer;
  }
  return array;
}

}  // namespace

void define_arrays(Environment& environment, Napi::Env env, Napi::Object& exports) {
  // create(device, dtype, ...shape) → handle; contents undefined.
  environment.define(env, exports, "create", [&environment](const Arguments& info) {
    return Napi::Number::New(info.Env(), environment.handles.insert(allocate(info)));
  });
  // view(handle, dtype, offset, ...shape, ...strides) → handle of the same memory; offset and strides in elements from
  // the start of the view.
  environment.define(env, exports, "view", [&environment](const Arguments& info) {
    return Napi::Number::New(info.Env(), environment.handles.insert(view_of(environment, info)));
  });
  environment.define(env, exports, "release", [&environment](const Arguments& info) {
    environment.handles.release(number_argument(info[0]));
    return info.Env().Undefined();
  });
  // isShared(handle) → whether another handle names memory of the same block.
  environment.define(env, exports, "isShared", [&environment](const Arguments& info) {
    return Napi::Boolean::New(info.Env(), environment.handles.at(number_argument(info[0])).buffer.shared());
  });
  // isOverlapped(handle) → whether another handle names some of the same elements, or ones between them.
  environment.define(env, exports, "isOverlapped", [&environment](const Arguments& info) {
    return Napi::Boolean::New(info.Env(), environment.handles.overlapped(number_argument(info[0])));
  });
  // distance(a, b) → elements from the first of a to the first of b; undefined if they are not of one block.
  environment.define(env, exports, "distance", [&environment](const Arguments& info) -> Napi::Value {
    const Array &a = environment.handles.at(number_argument(info[0])),
                &b = environment.handles.at(number_argument(info[1]));
    if (!a.buffer || !b.buffer || a.buffer.data() != b.buffer.data()) return info.Env().Undefined();
    const int64_t bytes = static_cast<const char*>(b.view.data) - static_cast<const char*>(a.view.data);
    return Napi::Number::New(info.Env(), static_cast<double>(bytes) / static_cast<double>(item_size(a.view.dtype)));
  });
  // haveSharedMemory(a, b) → whether both handles name memory of one block.
  environment.define(env, exports, "haveSharedMemory", [&environment](const Arguments& info) {
    const Buffer& a = environment.handles.at(number_argument(info[0])).buffer;
    const Buffer& b = environment.handles.at(number_argument(info[1])).buffer;
    return Napi::Boolean::New(info.Env(), a && b && a.data() == b.data());
  });
}

}  // namespace llmeff::binding
