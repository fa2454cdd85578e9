#include "llmeff/call.h"

#include <exception>
#include <new>

#include "llmeff/error.h"

namespace llmeff {

View distinct(const View& view) {
  View once = view;
  for (int axis = 0; axis < view.rank; ++axis)
    if (view.strides[axis] == 0) once.shape[axis] = 1;
  return once;
}

View widened(const View& narrow, Memory& memory, Buffer& buffer) {
  View wide = narrow;
  const View once = distinct(narrow);
  int64_t count = 1;
  for (int axis = narrow.rank - 1; axis >= 0; --axis) {
    wide.strides[axis] = once.shape[axis] < narrow.shape[axis] ? 0 : count;
    count *= once.shape[axis];
  }
  wide.dtype = DType::kF32;
  buffer = memory.allocate(static_cast<size_t>(count * item_size(wide.dtype)));
  wide.data = buffer.data();
  return wide;
}

FailurePointer current_failure(const char* op, uint64_t ticket) {
  auto failure = std::make_shared<Failure>();
  failure->op = op;
  failure->ticket = ticket;
  try {
    throw;
  } catch (const Error& error) {
    failure->code = error.code();
    failure->message = error.what();
  } catch (const std::bad_alloc&) {
    failure->code = "ERR_OUT_OF_MEMORY";
    failure->message = "out of memory";
  } catch (const std::exception& error) {
    failure->code = "ERR_INTERNAL";
    failure->message = error.what();
  }
  return failure;
}

}  // namespace llmeff
