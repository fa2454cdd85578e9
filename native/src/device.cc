#include "llmeff/device.h"

#include <exception>
#include <new>

#include "llmeff/error.h"

namespace llmeff {

Buffer::~Buffer() {
  device_.release(data_, bytes_, capacity_);
}

std::shared_ptr<Failure> Device::take_unobserved() {
  std::shared_ptr<Failure> failure = std::move(unobserved_);
  unobserved_ = nullptr;
  if (failure == nullptr || failure->observed) return nullptr;
  failure->observed = true;
  return failure;
}

namespace {

std::shared_ptr<Failure> inherited(const Access& access) {
  for (const auto* group : {&access.in, &access.in_out})
    for (const auto& status : *group)
      if (status->failure) return status->failure;
  return nullptr;
}

std::shared_ptr<Failure> describe(const char* op, uint64_t ticket) {
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

}  // namespace

uint64_t submit_op(Device& device, const char* op, Access access, std::function<void(Kernels&)> work,
                   std::function<void(const std::shared_ptr<Failure>&)> done) {
  return device.submit(
      [&device, op, access = std::move(access), work = std::move(work), done = std::move(done)](uint64_t ticket) {
        std::shared_ptr<Failure> failure = inherited(access);
        if (failure == nullptr) {
          try {
            work(device.kernels());
          } catch (...) {
            failure = describe(op, ticket);
            device.record(failure);
            for (const auto& status : access.in_out) status->failure = failure;
          }
        }
        for (const auto& status : access.out) status->failure = failure;
        if (done) done(failure);
      });
}

}  // namespace llmeff
