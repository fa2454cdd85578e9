// Recorded programs: memory of their own, numbers that change, failures that don't stay.
#include <string>
#include <vector>

#include "llmeff/call.h"
#include "llmeff/device.h"
#include "llmeff/error.h"
#include "llmeff/program.h"
#include "programs.h"
#include "test.h"

namespace llmeff::test {
namespace {

TEST(program_runs_with_the_numbers_of_each_run) {
  Device& device = cpu_device();
  Stored total(device, DType::kF32, {3});
  total.fill(1);
  auto program = std::make_shared<Program>(device);
  {
    Stored step(device, DType::kF32, {3}, program.get());
    program->add("fill", Half::kNative, numbered(&Kernels::fill, Argument<double>{0, program->number(0)}, step.out()));
    record_add(*program, total, step, total);
  }
  run(program, {2});
  run(program, {0.5});
  CHECK(total.values() == std::vector<double>(3, 3.5), "%g", total.values()[0]);
}

TEST(program_gives_its_numbers_to_entries_of_lists) {
  Device& device = cpu_device();
  const auto trained = [&](bool recorded) {
    Stored p(device, DType::kF32, {5}), g(device, DType::kF32, {5}), m(device, DType::kF32, {5}),
        v(device, DType::kF32, {5});
    p.fill(1);
    g.fill(0.5);
    m.fill(0.25);
    v.fill(0.125);
    const auto program = std::make_shared<Program>(device);
    record_adam(*program, p, g, m, v, 1, 0);
    for (const double rate : {0.5, 0.01, 0.125}) {
      if (recorded) {
        run(program, {1 + rate, rate});
        continue;
      }
      Argument<const List<double>&> factors;
      factors.numbers = adam_factors(1 + rate, rate);
      submit_call(device, "optimizerStep", Half::kNative, adam_call(p, g, m, v, std::move(factors)),
                  [](const FailurePointer&) {});
    }
    return p.values();
  };
  const std::vector<double> values = trained(true);
  CHECK(values == trained(false) && values[4] < 1, "%g", values[4]);
  CHECK(values != std::vector<double>(5, 1), "no step");
}

TEST(program_memory_is_reused_within_it_and_returns_when_it_is_released) {
  Device& device = cpu_device();
  device.synchronize();
  const size_t before = device.memory().live_bytes;
  auto program = std::make_shared<Program>(device);
  Stored total(device, DType::kF32, {1000});
  total.fill(0);
  const void* last = nullptr;
  for (int i = 0; i < 5; ++i) {
    Stored part(device, DType::kF32, {1000}, program.get());
    CHECK(last == nullptr || part.view().data == last, "a new block");
    last = part.view().data;
    program->add("fill", Half::kNative,
                 numbered(&Kernels::fill, Argument<double>{static_cast<double>(i), -1}, part.out()));
    record_add(*program, total, part, total);
  }
  // Nobody else gets it.
  {
    Stored other(device, DType::kF32, {1000});
    CHECK(other.view().data != last, "the program's memory");
    other.fill(99);
    run(program, {});
    run(program, {});
    CHECK(other.values()[7] == 99 && total.values()[7] == 20, "%g %g", other.values()[7], total.values()[7]);
  }
  Stored left(device, DType::kF32, {1000}, program.get());
  program->release();
  program = nullptr;
  device.synchronize();
  CHECK(device.memory().live_bytes == before + total.bytes() + left.bytes(), "%zu",
        device.memory().live_bytes - before);
}

TEST(program_failures_are_those_of_one_run) {
  Device& device = cpu_device();
  Stored table(device, DType::kF32, {4, 2}), ids(device, DType::kI32, {1}), sum(device, DType::kF32, {1, 2});
  table.fill(1);
  ids.fill(0);
  sum.fill(0);
  auto program = std::make_shared<Program>(device);
  Stored rows(device, DType::kF32, {1, 2}, program.get()), both(device, DType::kF32, {2, 2}, program.get());
  for (const Stored* array : {&table, &ids, &sum}) program->use(array->buffer());
  program->add("embedding", Half::kNative, numbered(&Kernels::embedding, table.in(), ids.in(), rows.out()));
  // Two halves of one array: what the other half keeps must not keep the failure of an earlier run.
  for (int half : {0, 1}) program->add("copy", Half::kNative, numbered(&Kernels::copy, rows.in(), both.row_out(half)));
  record_add(*program, sum, rows, sum);
  const auto code_of = [](const Stored& array) {
    const FailurePointer failure = array.failure();
    return failure == nullptr ? std::string() : failure->code;
  };
  for (const double id : {0.0, 9.0, 3.0, 9.0, 1.0}) {
    ids.fill(id);
    sum.fill(0);
    run(program, {});
    device.synchronize();
    const std::string want = id < 4 ? "" : "ERR_INDEX";
    CHECK(code_of(rows) == want && code_of(both) == want && code_of(sum) == want, "id %g: %s %s %s", id,
          code_of(rows).c_str(), code_of(both).c_str(), code_of(sum).c_str());
  }
  device.submit([&device](uint64_t) { device.take_unobserved(); });
  device.synchronize();
}

}  // namespace
}  // namespace llmeff::test
