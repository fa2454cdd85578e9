// Calls in the queue: order, failures on their way through arrays, and kernels that see float32 copies of
// half-precision arrays.
#include <atomic>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "llmeff/call.h"
#include "llmeff/device.h"
#include "llmeff/error.h"
#include "test.h"

namespace llmeff::test {
namespace {

struct Array {
  Buffer buffer;
  View view;
};

Array array(DType dtype, std::vector<int64_t> shape) {
  Array made;
  made.view.dtype = dtype;
  made.view.rank = static_cast<int>(shape.size());
  int64_t stride = 1;
  for (int axis = made.view.rank - 1; axis >= 0; --axis) {
    made.view.shape[axis] = shape[axis];
    made.view.strides[axis] = stride;
    stride *= shape[axis];
  }
  made.buffer = cpu_device().allocate(static_cast<size_t>(stride * item_size(dtype)));
  made.view.data = made.buffer.data();
  return made;
}

template <class V>
Argument<const V&> argument(const Array& array, bool partial = false) {
  Argument<const V&> made;
  static_cast<View&>(made.view) = array.view;
  made.contents = array.buffer.contents();
  made.partial = partial;
  return made;
}

template <class... P, class... A>
FailurePointer run(const char* op, void (Kernels::*kernel)(P...), Half half, A... arguments) {
  FailurePointer result;
  submit_call(cpu_device(), op, half, Call<P...>(kernel, std::move(arguments)...),
              [&result](const FailurePointer& failure) { result = failure; });
  cpu_device().synchronize();
  return result;
}

FailurePointer fill(const Array& out, double value, bool partial = false) {
  return run("fill", &Kernels::fill, Half::kNative, Argument<double>{value}, argument<Out>(out, partial));
}
FailurePointer add(const Array& a, const Array& b, const Array& out, Half half = Half::kWidened) {
  return run("add", &Kernels::binary, half, Argument<BinaryOp>{BinaryOp::kAdd}, argument<In>(a), argument<In>(b),
             argument<Out>(out));
}
std::vector<float> values(const Array& x) {
  const Array wide = array(DType::kF32, {x.view.shape, x.view.shape + x.view.rank});
  run("copy", &Kernels::copy, Half::kNative, argument<In>(x), argument<Out>(wide));
  const float* const data = wide.view.as<float>();
  return {data, data + wide.view.size()};
}

// An embedding whose id is out of range.
FailurePointer fail_into(const Array& out) {
  const Array table = array(DType::kF32, {1, out.view.shape[1]}), ids = array(DType::kI32, {out.view.shape[0]});
  for (int64_t i = 0; i < ids.view.size(); ++i) ids.view.as<int32_t>()[i] = 7;
  fill(table, 0);
  return run("embedding", &Kernels::embedding, Half::kNative, argument<In>(table), argument<In>(ids),
             argument<Out>(out));
}

TEST(work_runs_in_order_from_several_threads) {
  constexpr int kThreads = 4, kEach = 5000;
  Device& device = cpu_device();
  std::vector<int> next(kThreads);
  std::atomic<int> wrong{0};
  uint64_t last = device.submit([](uint64_t) {});
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t)
    threads.emplace_back([&, t] {
      for (int i = 0; i < kEach; ++i) {
        const uint64_t ticket = device.submit([&, t, i, large = std::vector<int>(i % 50)](uint64_t ticket) {
          wrong += next[t]++ != i || ticket != last + 1;
          last = ticket;
        });
        if (ticket == 0) ++wrong;
        if (i % 1000 == t) device.synchronize();
      }
    });
  for (std::thread& thread : threads) thread.join();
  device.synchronize();
  CHECK(wrong == 0, "%d pieces of work", wrong.load());
  for (const int n : next) CHECK(n == kEach, "%d", n);
}

TEST(failures_pass_through_arrays) {
  const Array bad = array(DType::kF32, {2, 3}), good = array(DType::kF32, {2, 3}), out = array(DType::kF32, {2, 3});
  fill(good, 1);
  const FailurePointer failure = fail_into(bad);
  CHECK(failure && failure->code == "ERR_INDEX" && failure->op == "embedding", "no failure");
  CHECK(add(good, bad, out) == failure, "an op whose input failed");
  CHECK(add(good, out, out) == failure, "an op whose input failed likewise");
  CHECK(add(good, good, out) == nullptr, "an op that writes the array anew");
  CHECK(values(out)[5] == 2, "%f", values(out)[5]);
  CHECK(fill(bad, 0, true) == failure, "writing a part leaves the failure of the rest");
  CHECK(fill(bad, 0) == nullptr && add(bad, bad, out) == nullptr, "writing all of it ends the failure");
  CHECK(cpu_device().take_unobserved() == failure && cpu_device().take_unobserved() == nullptr, "told once");
}

// A block's next owner has nothing to do with the failure of the last.
TEST(failures_end_with_their_owner) {
  void* memory = nullptr;
  {
    const Array bad = array(DType::kF32, {2, 3});
    memory = bad.view.data;
    CHECK(fail_into(bad) != nullptr, "no failure");
  }
  const Array next = array(DType::kF32, {2, 3});
  CHECK(next.view.data == memory, "the test needs the same block");
  CHECK(fill(next, 0, true) == nullptr, "the first owner's failure");
  cpu_device().take_unobserved();
}

TEST(in_place_updates_that_fail_keep_their_value) {
  const Array bad = array(DType::kF32, {2, 3}), sum = array(DType::kF32, {2, 3}), ids = array(DType::kI32, {2, 3});
  fill(sum, 5);
  fill(ids, 0);
  const FailurePointer failure = fail_into(bad);
  CHECK(run("scatterAdd", &Kernels::scatter_add, Half::kWidened, argument<In>(bad), argument<In>(ids),
            Argument<int64_t>{0}, argument<InOut>(sum)) == failure,
        "an update from an input that failed");
  CHECK(add(sum, sum, bad) == nullptr && values(bad)[0] == 10, "what was not updated is as it was");
  cpu_device().take_unobserved();
}

TEST(kernels_see_float32_copies_of_half_precision) {
  for (const DType dtype : {DType::kBF16, DType::kF16}) {
    const Array a = array(dtype, {3, 5}), row = array(dtype, {1, 5}), out = array(dtype, {5, 3});
    fill(a, 1);
    fill(row, 0.75);
    // Strided and broadcast views in, a transposed one out.
    Array broadcast = row, transposed = out;
    broadcast.view.shape[0] = 3;
    broadcast.view.strides[0] = 0;
    transposed.view.shape[0] = 3, transposed.view.shape[1] = 5;
    transposed.view.strides[0] = 1, transposed.view.strides[1] = 3;
    CHECK(add(a, broadcast, transposed) == nullptr, "failed");
    for (const float x : values(out)) CHECK(x == 1.75f, "%f", x);
    // Half of the distance from 1 to the next number: the sum, exact in float32, is rounded once, to even.
    fill(a, 1);
    fill(row, dtype == DType::kBF16 ? 0x1p-8 : 0x1p-11);
    CHECK(add(a, broadcast, transposed) == nullptr && values(out)[0] == 1, "a tie goes to even: %f", values(out)[0]);
  }
}

TEST(widened_calls_leave_memory_as_it_was) {
  const Array a = array(DType::kBF16, {64, 64}), out = array(DType::kBF16, {64, 64});
  fill(a, 1);
  add(a, a, out);
  const MemoryUse before = cpu_device().memory();
  for (int i = 0; i < 10; ++i) add(a, a, out);
  const MemoryUse after = cpu_device().memory();
  CHECK(after.live_bytes == before.live_bytes && after.system_allocations == before.system_allocations, "%zu, %zu",
        after.live_bytes, after.system_allocations);
}

}  // namespace
}  // namespace llmeff::test
