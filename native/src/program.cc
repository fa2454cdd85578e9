#include "llmeff/program.h"

#include <algorithm>

#include "llmeff/error.h"
#include "runtime/block_pool.h"

namespace llmeff {

// Above those of all queues (each device's begin at its own multiple of 2^40), and exact in a double.
std::atomic<uint64_t> Program::next_ticket_{uint64_t{1} << 52};

Program::Program(Device& device) : device_(device), pool_(std::make_shared<BlockPool>(device)) {}

Program::~Program() {
  release();
}

Buffer Program::allocate(size_t bytes) {
  return pool_->allocate(bytes);
}

void Program::use(const Buffer& buffer) {
  if (!buffer || buffer.is_of(*pool_)) return;
  if (&buffer.device() != &device_)
    fail("ERR_DEVICE", "[captureStep] the step is captured on %s; an operation in it has tensors on %s.",
         device_.name().c_str(), buffer.device().name().c_str());
  if (held_.emplace(buffer.data(), buffer).second) outside_.push_back(buffer.contents());
}

int Program::number(uint64_t index) {
  if (index >= uint64_t{1} << 24) fail("ERR_OPTION", "[captureStep] a program has fewer than 2^24 numbers.");
  numbers_ = std::max(numbers_, static_cast<size_t>(index) + 1);
  return static_cast<int>(index);
}

void Program::release() {
  held_.clear();
  pool_->close();
}

void Program::begin(std::vector<double> numbers) {
  values_ = std::move(numbers);
  for (const auto& call : calls_)
    if (call->takes_numbers) call->set_numbers(values_.data());
  forget_failures();
}

void Program::forget_failures() {
  for (Block* const block : pool_->blocks()) block->failure = nullptr;
}

void Device::run(Program& program) {
  for (const auto& call : program.calls()) call->run(*this);
}

}  // namespace llmeff
