// Programs by number: recorded, run and released.
#include <future>
#include <utility>
#include <vector>

#include "binding/environment.h"
#include "binding/marshal.h"

namespace llmeff::binding {
namespace {

const std::shared_ptr<Program>& program_argument(const Environment& environment, const Napi::Value& value) {
  const auto found = environment.programs.find(static_cast<uint32_t>(integer_argument(value)));
  if (found == environment.programs.end()) fail("ERR_DISPOSED", "[native] there is no such program; it was released.");
  return found->second;
}

std::vector<double> numbers_argument(const Program& program, const Napi::Value& value) {
  const auto array = value.As<Napi::Float64Array>();
  if (array.ElementLength() < program.numbers())
    fail("ERR_OPTION", "[native] the program takes %zu numbers; received %zu.", program.numbers(),
         array.ElementLength());
  return {array.Data(), array.Data() + array.ElementLength()};
}

// recordProgram(device): from here on kernels are not queued but added to a new program.
Napi::Value record_program(Environment& environment, const Arguments& info) {
  environment.refuse_while_recording("captureStep");
  environment.recording = std::make_shared<Program>(device_argument(info[0]));
  return info.Env().Undefined();
}

// endProgram(keep) → its number; keep = false: it is forgotten, and 0.
Napi::Value end_program(Environment& environment, const Arguments& info) {
  const std::shared_ptr<Program> program = std::exchange(environment.recording, nullptr);
  if (program == nullptr) fail("ERR_OPTION", "[native] no program is being recorded.");
  if (!info[0].ToBoolean().Value()) return Napi::Number::New(info.Env(), 0);
  const uint32_t number = environment.next_program++;
  environment.programs.emplace(number, program);
  return Napi::Number::New(info.Env(), number);
}

// compileProgram(program, numbers): makes it ready to run; holds up the thread meanwhile.
Napi::Value compile_program(Environment& environment, const Arguments& info) {
  const std::shared_ptr<Program>& program = program_argument(environment, info[0]);
  Device& device = program->device();
  std::promise<FailurePointer> compiled;
  device.submit([&, numbers = numbers_argument(*program, info[1])](uint64_t ticket) {
    try {
      program->begin(numbers);
      device.compile(*program);
      compiled.set_value(nullptr);
    } catch (...) {
      compiled.set_value(current_failure("captureStep", ticket));
    }
  });
  if (const FailurePointer failure = compiled.get_future().get()) throw Error(failure->code, failure->message);
  return info.Env().Undefined();
}

// runProgram(program, numbers): queues a run of all its calls.
Napi::Value run_program(Environment& environment, const Arguments& info) {
  environment.refuse_while_recording("captureStep");
  const std::shared_ptr<Program>& program = program_argument(environment, info[0]);
  Device& device = program->device();
  device.submit([&device, program, numbers = numbers_argument(*program, info[1])](uint64_t) {
    program->begin(numbers);
    device.run(*program);
  });
  return info.Env().Undefined();
}

// releaseProgram(program): its memory returns to the device; what was queued still runs.
Napi::Value release_program(Environment& environment, const Arguments& info) {
  std::shared_ptr<Program> program = program_argument(environment, info[0]);
  environment.programs.erase(static_cast<uint32_t>(integer_argument(info[0])));
  program->release();
  Device& device = program->device();
  device.submit([&device, program = std::move(program)](uint64_t ticket) {
    device.finish(ticket, [program](const FailurePointer&) {});
  });
  return info.Env().Undefined();
}

}  // namespace

void define_programs(Environment& environment, Napi::Env env, Napi::Object& exports) {
  const auto define = [&](const char* name, Napi::Value (*call)(Environment&, const Arguments&)) {
    environment.define(env, exports, name,
                       [&environment, call](const Arguments& info) { return call(environment, info); });
  };
  define("recordProgram", record_program);
  define("endProgram", end_program);
  define("compileProgram", compile_program);
  define("runProgram", run_program);
  define("releaseProgram", release_program);
}

}  // namespace llmeff::binding
