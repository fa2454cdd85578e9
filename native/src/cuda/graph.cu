#include "cuda/graph.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <thread>
#include <unordered_set>
#include <utility>

#include "cuda/check.h"

namespace llmeff::cuda {
namespace {

// The graph's last node so far; null before the first. Calls are captured on one stream, so that nodes form a chain.
cudaGraphNode_t last_node(cudaStream_t stream) {
  cudaStreamCaptureStatus status;
  const cudaGraphNode_t* nodes = nullptr;
  size_t count = 0;
  // Asked for, since a kernel that begins early isn't connected in the ordinary way.
  const cudaGraphEdgeData* edges = nullptr;
#if CUDART_VERSION >= 13000
  LLMEFF_CUDA(cudaStreamGetCaptureInfo(stream, &status, nullptr, nullptr, &nodes, &edges, &count));
#else
  LLMEFF_CUDA(cudaStreamGetCaptureInfo_v3(stream, &status, nullptr, nullptr, &nodes, &edges, &count));
#endif
  if (status != cudaStreamCaptureStatusActive || count > 1)
    fail("ERR_CUDA", "[captureStep] the capture ended before its calls did.");
  return count == 0 ? nullptr : nodes[0];
}

cudaGraphNode_t node_before(cudaGraphNode_t node) {
  cudaGraphNode_t before = nullptr;
  size_t count = 0;
  cudaGraphEdgeData edge;
#if CUDART_VERSION >= 13000
  LLMEFF_CUDA(cudaGraphNodeGetDependencies(node, nullptr, nullptr, &count));
  if (count == 1) LLMEFF_CUDA(cudaGraphNodeGetDependencies(node, &before, &edge, &count));
#else
  LLMEFF_CUDA(cudaGraphNodeGetDependencies_v2(node, nullptr, nullptr, &count));
  if (count == 1) LLMEFF_CUDA(cudaGraphNodeGetDependencies_v2(node, &before, &edge, &count));
#endif
  if (count > 1) fail("ERR_INTERNAL", "[captureStep] a call that takes numbers has kernels side by side.");
  return before;
}

// The kernels after one node up to another, in order.
std::vector<cudaGraphNode_t> kernels_between(cudaGraphNode_t first, cudaGraphNode_t last) {
  std::vector<cudaGraphNode_t> kernels;
  for (cudaGraphNode_t node = last; node != first; node = node_before(node)) {
    cudaGraphNodeType type;
    LLMEFF_CUDA(cudaGraphNodeGetType(node, &type));
    if (type == cudaGraphNodeTypeKernel) kernels.push_back(node);
  }
  std::reverse(kernels.begin(), kernels.end());
  return kernels;
}

// A capture of the context's stream, which ends with it in any case.
class Capture {
 public:
  Capture(Context& cuda, GraphChecks& checks) : cuda_(cuda) {
    // Relaxed: what allocates or waits on other threads meanwhile has nothing to do with this stream.
    LLMEFF_CUDA(cudaStreamBeginCapture(cuda.stream, cudaStreamCaptureModeRelaxed));
    cuda.capture(&checks);
  }
  Capture(const Capture&) = delete;
  Capture& operator=(const Capture&) = delete;
  ~Capture() {
    cuda_.capture(nullptr);
    cuda_.settled.clear();
    if (ended_) return;
    cudaGraph_t broken = nullptr;
    cudaStreamEndCapture(cuda_.stream, &broken);
    if (broken != nullptr) cudaGraphDestroy(broken);
    cudaGetLastError();
  }
  cudaGraph_t end() {
    cudaGraph_t graph = nullptr;
    ended_ = true;
    LLMEFF_CUDA(cudaStreamEndCapture(cuda_.stream, &graph));
    return graph;
  }

 private:
  Context& cuda_;
  bool ended_ = false;
};

constexpr int kCheckThreads = 128;

// Makes the checks ready for a launch. If it carries on with what the last one wrote, failures of that stay known.
__global__ void __launch_bounds__(kCheckThreads)
    renew_checks_kernel(unsigned long long* found, int used, const uint8_t* carried, unsigned long long* outside,
                        bool carries) {
  if (!carries && threadIdx.x == 0) *outside = ~0ull;
  for (int i = static_cast<int>(threadIdx.x); i < used; i += kCheckThreads) {
    if (carries && carried[i] != 0 && found[i] != ~0ull) *outside = 0;
    found[i] = ~0ull;
  }
}

// Hands them to the host, whose memory the kernel writes: the next launch needn't wait for the copy engine.
__global__ void __launch_bounds__(kCheckThreads)
    tell_checks_kernel(const unsigned long long* found, int used, unsigned long long* told) {
  for (int i = static_cast<int>(threadIdx.x); i < used; i += kCheckThreads) told[i] = found[i];
}

// What nobody needs at the end of a scope.
struct Discarded {
  cudaGraph_t graph;
  ~Discarded() { cudaGraphDestroy(graph); }
};

}  // namespace

Graph::Graph(Context& cuda, Device& device, Program& program)
    : cuda_(cuda), device_(device), program_(program), checks_(2 * static_cast<int>(program.calls().size()) + 1) {
  LLMEFF_CUDA(cudaStreamSynchronize(cuda.stream));
  if (const FailurePointer failure = outside_failure()) throw Error(failure->code, failure->message);
  any_earlier_->state = Failure::State::kPending;
  any_earlier_->check = checks_.outside();
  try {
    // Of a call that needs more scratch memory than there was the earlier ones know nothing: then all are captured
    // again; and so they are when there turns out to be more that a launch leaves for the next one.
    do {
      cuda.begin("captureStep", 0, {});
      cuda.end();
      arena_ = cuda.arena();
      capture();
      collect_dependents();
    } while (cuda.arena() != arena_ || find_carried());
    mark_carried();
    LLMEFF_CUDA(cudaGraphInstantiate(&executable_, graph_, 0));
  } catch (...) {
    program.forget_failures();
    for (const Contents& contents : program.outside()) contents.set(nullptr);
    if (graph_ != nullptr) cudaGraphDestroy(graph_);
    throw;
  }
  numbers_ = program.values();
}

Graph::~Graph() {
  cudaGraphExecDestroy(executable_);
  cudaGraphDestroy(graph_);
}

void Graph::capture() {
  if (graph_ != nullptr) cudaGraphDestroy(std::exchange(graph_, nullptr));
  checks_.used = 0;
  checks_.checks.clear();
  checks_.joint = {};
  varying_.clear();
  program_.forget_failures();
  for (const Contents& contents : program_.outside())
    contents.set(carried_.contains(contents.block()) ? any_earlier_ : nullptr);
  struct Place {
    cudaGraphNode_t first, last;
  };
  std::vector<Place> places;  // of the calls that vary
  Capture capture(cuda_, checks_);
  for (const Contents& contents : program_.outside()) {
    const auto* const first = static_cast<const char*>(contents.block()->data);
    cuda_.settled[first] = first + contents.block()->capacity;
  }
  for (const auto& call : program_.calls()) {
    const int first_slot = checks_.used;
    const GraphChecks::Joint joint = checks_.joint;
    const cudaGraphNode_t first = call->takes_numbers ? last_node(cuda_.stream) : nullptr;
    if (const FailurePointer failure = happened(call->run(device_))) {
      failure->observed = true;
      throw Error(failure->code, failure->message);
    }
    std::vector<Contents> written;
    call->add_written(written);
    for (const Contents& contents : written)
      if (contents.block() != nullptr) cuda_.settled.erase(static_cast<const char*>(contents.block()->data));
    if (!call->takes_numbers) continue;
    varying_.push_back({call.get(), cuda_.pending(), first_slot, joint, {}});
    places.push_back({first, last_node(cuda_.stream)});
  }
  graph_ = capture.end();
  for (size_t i = 0; i < varying_.size(); ++i) varying_[i].kernels = kernels_between(places[i].first, places[i].last);
}

void Graph::collect_dependents() {
  written_.clear();
  dependents_.clear();
  std::map<const Failure*, size_t> positions = {{any_earlier_.get(), kEarlier}};
  for (size_t i = 0; i < checks_.checks.size(); ++i) positions.emplace(checks_.checks[i].get(), i);
  for (const auto& call : program_.calls()) call->add_written(written_);
  std::unordered_set<const Block*> seen;
  for (const Contents& contents : written_) {
    if (!contents.may_have_failed() || !seen.insert(contents.block()).second) continue;
    std::vector<FailurePointer> pending;
    add_pending(contents.failure(), pending);
    Dependent& dependent = dependents_.emplace_back(Dependent{contents, {}});
    for (const FailurePointer& check : pending) dependent.checks.push_back(positions.at(check.get()));
  }
  program_.forget_failures();
  for (const Contents& contents : program_.outside()) contents.set(nullptr);
}

// Whether there is more of it than was known.
bool Graph::find_carried() {
  const size_t known = carried_.size();
  std::unordered_set<const Block*> outside;
  for (const Contents& contents : program_.outside()) outside.insert(contents.block());
  for (const Dependent& dependent : dependents_)
    if (outside.contains(dependent.contents.block())) carried_.insert(dependent.contents.block());
  return carried_.size() > known;
}

void Graph::mark_carried() {
  std::vector<uint8_t> slots(static_cast<size_t>(checks_.slots), 0);
  for (const Dependent& dependent : dependents_)
    if (carried_.contains(dependent.contents.block()))
      for (const size_t position : dependent.checks)
        if (position != kEarlier) slots[static_cast<size_t>(Context::slot_of(*checks_.checks[position]))] = 1;
  carried_slots_ = std::make_unique<DeviceMemory>(slots.size());
  LLMEFF_CUDA(cudaMemcpy(carried_slots_->data, slots.data(), slots.size(), cudaMemcpyHostToDevice));
}

FailurePointer Graph::outside_failure() {
  bool waited = false;
  earlier_.clear();
  const std::vector<Contents>& outside = program_.outside();
  for (size_t i = 0; i < outside.size(); ++i) {
    const Contents& contents = outside[i];
    if (!contents.may_have_failed()) continue;
    const FailurePointer failure = contents.failure();
    std::vector<FailurePointer> pending;
    add_pending(failure, pending);
    const bool left = i < left_.size() && failure == left_[i];
    if (!left && !pending.empty()) {
      if (!std::exchange(waited, true)) LLMEFF_CUDA(cudaStreamSynchronize(cuda_.stream));
      for (const FailurePointer& check : pending)
        while (check->state == Failure::State::kPending) std::this_thread::yield();
      pending.clear();
    }
    // Of those that were pending, some may fail from here on: the launch is told of all.
    if (const FailurePointer one = happened(failure)) return one;
    if (pending.empty()) contents.set(nullptr);
    for (const FailurePointer& check : pending)
      if (std::find(earlier_.begin(), earlier_.end(), check) == earlier_.end()) earlier_.push_back(check);
  }
  return nullptr;
}

void Graph::update_kernels() {
  if (numbers_ == program_.values()) return;
  // As they were captured: with the graph's scratch memory, guards and slots.
  const std::shared_ptr<DeviceMemory> arena = cuda_.arena();
  const int used = checks_.used;
  const size_t made = checks_.checks.size();
  std::vector<cudaGraphNode_t> ends;
  cudaGraph_t again = nullptr;
  const auto restore = [&] {
    cuda_.set_arena(arena);
    checks_.used = used;
    checks_.checks.resize(made);
  };
  try {
    cuda_.set_arena(arena_);
    Capture capture(cuda_, checks_);
    for (const Varying& varying : varying_) {
      checks_.used = varying.first_slot;
      checks_.joint = varying.joint;
      cuda_.begin(varying.call->op, varying.call->ticket, varying.pending);
      varying.call->launch(device_.kernels());
      cuda_.end();
      ends.push_back(last_node(cuda_.stream));
    }
    if (cuda_.arena() != arena_) fail("ERR_INTERNAL", "[captureStep] a call takes more scratch memory than it did.");
    again = capture.end();
  } catch (...) {
    restore();
    throw;
  }
  restore();
  const Discarded discarded{again};
  cudaGraphNode_t before = nullptr;
  for (size_t i = 0; i < varying_.size(); before = ends[i++]) {
    const std::vector<cudaGraphNode_t> kernels = kernels_between(before, ends[i]);
    if (kernels.size() != varying_[i].kernels.size())
      fail("ERR_INTERNAL", "[%s] takes other kernels with other numbers.", varying_[i].call->op);
    for (size_t k = 0; k < kernels.size(); ++k) {
      cudaKernelNodeParams params;
      LLMEFF_CUDA(cudaGraphKernelNodeGetParams(kernels[k], &params));
      LLMEFF_CUDA(cudaGraphExecKernelNodeSetParams(executable_, varying_[i].kernels[k], &params));
    }
  }
  numbers_ = program_.values();
}

Graph::Results Graph::launch(const Staging& staging) {
  update_kernels();
  const size_t bytes = static_cast<size_t>(checks_.used) * sizeof(unsigned long long);
  if (bytes > 0) {
    renew_checks_kernel<<<1, kCheckThreads, 0, cuda_.stream>>>(checks_.found(), checks_.used,
                                                               static_cast<const uint8_t*>(carried_slots_->data),
                                                               checks_.outside(), !earlier_.empty());
    LLMEFF_LAUNCHED("renew_checks_kernel");
  }
  LLMEFF_CUDA(cudaGraphLaunch(executable_, cuda_.stream));
  Results results;
  if (checks_.checks.empty()) return results;
  const std::shared_ptr<void> staged = staging(bytes);
  results.found = {staged, static_cast<unsigned long long*>(staged.get())};
  tell_checks_kernel<<<1, kCheckThreads, 0, cuda_.stream>>>(checks_.found(), checks_.used, results.found.get());
  LLMEFF_LAUNCHED("tell_checks_kernel");
  results.templates = checks_.checks;
  for (const FailurePointer& check : checks_.checks) {
    auto made = std::make_shared<Failure>();
    made->code = check->code;
    made->op = check->op;
    made->ticket = check->ticket;
    made->state = Failure::State::kPending;
    made->check = check->check;
    results.checks.push_back(std::move(made));
  }
  // Arrays that depend on the same checks share what joins them.
  std::map<std::vector<size_t>, FailurePointer> joint;
  for (const Dependent& dependent : dependents_) {
    FailurePointer& failure = joint[dependent.checks];
    if (failure == nullptr) {
      std::vector<FailurePointer> checks;
      for (const size_t position : dependent.checks)
        if (position == kEarlier)
          checks.insert(checks.end(), earlier_.begin(), earlier_.end());
        else
          checks.push_back(results.checks[position]);
      failure = joined(checks);
    }
    dependent.contents.set(failure);
  }
  left_.clear();
  for (const Contents& contents : program_.outside()) left_.push_back(contents.failure());
  return results;
}

void Graph::Results::settle() const {
  for (size_t i = 0; i < checks.size(); ++i) {
    const unsigned long long value = found[Context::slot_of(*templates[i])];
    if (value != ~0ull) checks[i]->message = Context::message_of(*templates[i], value);
    checks[i]->state = value == ~0ull ? Failure::State::kPassed : Failure::State::kFailed;
  }
}

void Graph::fail_all(const FailurePointer& failure) const {
  for (const Contents& contents : written_) contents.set(failure);
}

}  // namespace llmeff::cuda
