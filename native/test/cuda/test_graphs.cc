// Programs as CUDA graphs, beside the same calls one by one.
#include <cuda_runtime.h>

#include <string>
#include <vector>

#include "cuda/check.h"
#include "llmeff/call.h"
#include "llmeff/cuda.h"
#include "llmeff/program.h"
#include "programs.h"
#include "test.h"

extern "C" const llmeff::CudaLibrary* llmeff_cuda_library();

namespace llmeff::test {
namespace {

Device& gpu() {
  static Device& device = llmeff_cuda_library()->device(0);
  return device;
}

template <class... P>
void queue(const char* op, void (Kernels::*kernel)(P...), Argument<P>... arguments) {
  submit_call(gpu(), op, Half::kNative, numbered(kernel, std::move(arguments)...), [](const FailurePointer&) {});
}

Stored random(std::vector<int64_t> shape, int64_t stream, DType dtype = DType::kF32) {
  Stored made(gpu(), dtype, std::move(shape));
  queue("random", &Kernels::random, Argument<Distribution>{Distribution::kNormal}, Argument<int64_t>{1},
        Argument<int64_t>{stream}, made.out());
  return made;
}

// A training step in small: lookups that check their ids, more of them than a guard has room for, dropout, a product,
// and an update in place that takes numbers.
struct Step {
  static constexpr int kLookups = 12;
  static constexpr int64_t kRows = 64, kWidth = 96;

  Stored table = random({kRows, kWidth}, 1), weight = random({kWidth, kWidth}, 2), param = random({kRows, kWidth}, 3),
         m = random({kRows, kWidth}, 4), v{gpu(), DType::kF32, {kRows, kWidth}}, norm{gpu(), DType::kF32, {}};
  std::vector<Stored> ids;
  std::shared_ptr<Program> program = std::make_shared<Program>(gpu());

  Step() {
    v.fill(0.5);
    for (int i = 0; i < kLookups; ++i) ids.emplace_back(gpu(), DType::kI32, std::vector<int64_t>{kRows}).fill(i);
    for (const Stored* array : {&table, &weight, &param, &m, &v, &norm}) program->use(array->buffer());
    for (const Stored& array : ids) program->use(array.buffer());
    const auto made = [&] { return Stored(gpu(), DType::kF32, {kRows, kWidth}, program.get()); };
    Stored sum = made();
    program->add("fill", Half::kNative, numbered(&Kernels::fill, Argument<double>{0, program->number(3)}, sum.out()));
    for (const Stored& array : ids) {
      const Stored rows = made(), next = made();
      program->add("embedding", Half::kNative, numbered(&Kernels::embedding, table.in(), array.in(), rows.out()));
      record_add(*program, sum, rows, next);
      sum = next;
    }
    const Stored dropped = made(), product = made();
    program->add("dropout", Half::kNative,
                 numbered(&Kernels::dropout, sum.in(), Argument<double>{0.25}, Argument<int64_t>{7},
                          Argument<int64_t>{0, program->number(2)}, dropped.out()));
    program->add("matmul", Half::kNative,
                 numbered(&Kernels::matmul, dropped.in(), weight.in(), Argument<const In&>{},
                          Argument<Activation>{Activation::kNone}, Argument<const Out&>{}, product.out()));
    program->add("globalNorm", Half::kNative, numbered(&Kernels::global_norm, product.list<In>(), norm.out()));
    record_adam(*program, param, product, m, v, 0, 1);
  }

  std::vector<double> state() const {
    std::vector<double> all = param.values();
    for (const Stored* array : {&m, &v, &norm})
      for (const double x : array->values()) all.push_back(x);
    return all;
  }
};

std::vector<double> numbers_at(int step) {
  return {0.01 / (step + 1), static_cast<double>(step + 1), static_cast<double>(3 * step), 0.125 * step};
}

TEST(cuda_graph_has_the_bits_of_its_calls) {
  Step plain, graph;
  const FailurePointer failure = compile(*graph.program, numbers_at(0));
  CHECK(failure == nullptr, "%s", failure->message.c_str());
  for (int i = 0; i < 6; ++i) {
    run(plain.program, numbers_at(i));
    run(graph.program, numbers_at(i));
    // Eager calls whose scratch memory outgrows what the graph was captured with.
    const Stored large = random({int64_t{1} << (18 + i)}, 9), sum(gpu(), DType::kF32, {});
    const Stored order(gpu(), DType::kI32, {large.view().shape[0]});
    queue("argsort", &Kernels::argsort, large.in(), Argument<bool>{false}, order.out());
    CHECK(plain.state() == graph.state(), "step %d", i);
  }
  gpu().empty_cache();
  run(plain.program, numbers_at(6));
  run(graph.program, numbers_at(6));
  CHECK(plain.state() == graph.state(), "after the cache was emptied");
}

TEST(cuda_graph_leaves_updates_alone_when_a_check_of_it_fails) {
  Step step;
  CHECK(compile(*step.program, numbers_at(0)) == nullptr, "no graph");
  for (const int lookup : {0, 5, Step::kLookups - 1}) {
    run(step.program, numbers_at(0));
    const std::vector<double> param = step.param.values(), m = step.m.values();
    step.ids[static_cast<size_t>(lookup)].fill(Step::kRows + 3);
    run(step.program, numbers_at(1));
    run(step.program, numbers_at(2));
    gpu().synchronize();
    const FailurePointer failure = step.norm.failure();
    CHECK(failure != nullptr && failure->op == "embedding" &&
              failure->message == "[embedding] token id 67 at position 0 is outside the vocabulary of 64",
          "%s", failure == nullptr ? "nothing failed" : failure->message.c_str());
    CHECK(step.param.values() == param && step.m.values() == m, "lookup %d: an update was made", lookup);
    CHECK(step.param.failure() == nullptr, "the parameter failed");
    step.ids[static_cast<size_t>(lookup)].fill(1);
    run(step.program, numbers_at(3));
    gpu().synchronize();
    CHECK(step.norm.failure() == nullptr, "the failure of an earlier run");
    CHECK(step.param.values() != param, "no update");
  }
}

TEST(cuda_graph_runs_its_calls_one_by_one_when_the_outside_failed) {
  Step step, plain;
  CHECK(compile(*step.program, numbers_at(0)) == nullptr, "no graph");
  const Stored bad(gpu(), DType::kI32, {1}), good(gpu(), DType::kI32, {1});
  bad.fill(-1);
  good.fill(2);
  for (const Stored* at : {&good, &bad, &good}) {
    // The table's rows come from a lookup of their own.
    for (Step* one : {&step, &plain}) {
      const Stored source = random({4, Step::kWidth}, 5);
      Argument<const Out&> out = one->table.row_out(0);
      queue("embedding", &Kernels::embedding, source.in(), at->in(), std::move(out));
      run(one->program, numbers_at(1));
      gpu().synchronize();
      CHECK((one->norm.failure() != nullptr) == (at == &bad), "norm");
      if (at == &bad) one->table.fill(0.5);  // what failed in part stays so until it is written as a whole
    }
    if (at == &good) CHECK(plain.state() == step.state(), "other bits");
  }
}

// A step of generation in small: each run begins with the ids that the last one found, and there is an update in place.
struct Loop {
  static constexpr int64_t kIds = 3, kWidth = 48;

  Stored table = random({kWidth, kWidth}, 1), param = random({kIds, kWidth}, 2), m = random({kIds, kWidth}, 3),
         v{gpu(), DType::kF32, {kIds, kWidth}}, ids{gpu(), DType::kI32, {kIds}}, found{gpu(), DType::kF32, {3, kIds}};
  std::shared_ptr<Program> program = std::make_shared<Program>(gpu());

  Loop() {
    v.fill(0.5);
    ids.fill(1);
    for (const Stored* array : {&table, &param, &m, &v, &ids, &found}) program->use(array->buffer());
    const Stored rows(gpu(), DType::kF32, {kIds, kWidth}, program.get());
    program->add("embedding", Half::kNative, numbered(&Kernels::embedding, table.in(), ids.in(), rows.out()));
    program->add("likeliest", Half::kNative, numbered(&Kernels::likeliest, rows.in(), ids.out(), found.out()));
    record_adam(*program, param, rows, m, v, 0, 1);
  }
};

TEST(cuda_graph_goes_on_with_what_it_left) {
  Loop graph, plain;
  CHECK(compile(*graph.program, numbers_at(0)) == nullptr, "no graph");
  for (int i = 0; i < 5; ++i) {
    run(graph.program, numbers_at(i));
    run(plain.program, numbers_at(i));
  }
  CHECK(graph.param.values() == plain.param.values() && graph.ids.values() == plain.ids.values(), "other bits");
  for (int i = 0; i < 3; ++i) {
    const std::vector<double> param = graph.param.values();
    graph.ids.fill(Loop::kWidth);
    for (int j = 0; j <= i; ++j) run(graph.program, numbers_at(j));  // before the first of them is known to have failed
    gpu().synchronize();
    const FailurePointer failure = graph.ids.failure();
    CHECK(failure != nullptr && failure->op == "embedding", "%d runs: %s", i + 1,
          failure ? failure->op.c_str() : "none");
    CHECK(graph.found.failure() != nullptr, "%d runs: what was found is told to be right", i + 1);
    CHECK(graph.param.values() == param && graph.param.failure() == nullptr, "%d runs: an update was made", i + 1);
    graph.ids.fill(2);
    run(graph.program, numbers_at(1));
    gpu().synchronize();
    CHECK(graph.ids.failure() == nullptr && graph.found.failure() == nullptr, "the failure of an earlier run");
    CHECK(graph.param.values() != param, "no update");
  }
}

TEST(cuda_graphs_take_turns_and_give_back_their_memory) {
  gpu().synchronize();
  gpu().empty_cache();
  const size_t before = gpu().memory().live_bytes;
  {
    Step a, b, plain_a, plain_b;
    CHECK(compile(*a.program, numbers_at(0)) == nullptr && compile(*b.program, numbers_at(1)) == nullptr, "no graphs");
    for (int i = 0; i < 4; ++i) {
      for (Step* one : {&a, &plain_a}) run(one->program, numbers_at(i));
      for (Step* one : {&b, &plain_b}) run(one->program, numbers_at(2 * i));
    }
    CHECK(a.state() == plain_a.state() && b.state() == plain_b.state(), "other bits");
    // Released while runs are queued.
    for (Step* one : {&a, &plain_a}) {
      run(one->program, numbers_at(7));
      one->program->release();
      std::shared_ptr<Program> program = std::move(one->program);
      gpu().submit([program = std::move(program)](uint64_t ticket) {
        gpu().finish(ticket, [program](const FailurePointer&) {});
      });
    }
    const Stored other = random({Step::kRows, Step::kWidth}, 8);
    CHECK(a.state() == plain_a.state(), "after the release");
    gpu().synchronize();
  }
  gpu().synchronize();
  CHECK(gpu().memory().live_bytes == before, "%zu bytes more", gpu().memory().live_bytes - before);
}

TEST(cuda_graph_tells_the_call_that_can_not_be_captured) {
  const Stored x = random({8}, 1), m = random({8}, 2), v = random({8}, 3), steps(gpu(), DType::kI32, {8});
  Program program(gpu());
  // A gradient of another dtype than its parameter: the kernel is refused when it is launched.
  record_adam(program, x, steps, m, v, 0, 1);
  const std::vector<double> before = x.values();
  const FailurePointer failure = compile(program, {0.01, 1});
  CHECK(failure != nullptr && failure->code == "ERR_DTYPE", "%s", failure ? failure->message.c_str() : "no failure");
  CHECK(x.failure() == nullptr && x.values() == before, "it was changed");
  queue("fill", &Kernels::fill, Argument<double>{3}, x.out());
  CHECK(x.values() == std::vector<double>(8, 3), "the device stays usable");
}

}  // namespace
}  // namespace llmeff::test
