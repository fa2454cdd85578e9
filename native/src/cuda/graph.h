// A recorded program as a CUDA graph: its calls are captured once, and every run launches them together.
//
// Kernels are given their numbers by value, in a graph as elsewhere: the same code, the same bits. Before a launch the
// calls whose numbers have changed are captured again by themselves, and the parameters of their kernels take the place
// of those in the graph. (Numbers in the GPU's memory would cost kernels that are bound by memory registers and a load,
// and every one that takes numbers would need a second form.)
//
// Scratch memory is the context's arena, which the graph keeps also when eager calls outgrow it: they take turns on one
// stream. Checks of values have slots of the graph's own.
//
// A launch needn't wait for the checks of earlier ones: contents of the outside that they leave behind, such as a token
// that the next launch begins with, are captured as pending on one check more. A launch finds out on the GPU whether
// that failed.
#pragma once

#include <cuda_runtime.h>

#include <functional>
#include <memory>
#include <unordered_set>
#include <vector>

#include "cuda/context.h"
#include "llmeff/program.h"

namespace llmeff::cuda {

class Graph final : public Program::Compiled {
 public:
  // For work on the stream, which it waits for. Throws Error, that of the call that can't be captured.
  Graph(Context& cuda, Device& device, Program& program);
  ~Graph() override;

  // Why something that the program uses of the outside is not what it should be: then a run must look at its calls one
  // by one. Null: all is well, or pending on earlier launches. Waits for other checks that are still to be made, of
  // which the graph's guards know nothing.
  FailurePointer outside_failure();

  // What the checks of a launch will find.
  struct Results {
    std::shared_ptr<unsigned long long[]> found;  // on the host
    std::vector<FailurePointer> templates, checks;

    void settle() const;
  };
  // Launches it with the program's numbers. `staging` gives memory that the GPU writes. Throws Error.
  using Staging = std::function<std::shared_ptr<void>(size_t bytes)>;
  Results launch(const Staging& staging);
  // Nothing that it should have written is what it should be.
  void fail_all(const FailurePointer& failure) const;

 private:
  // A call that takes numbers, and its kernels in the graph.
  struct Varying {
    RecordedCall* call;
    std::vector<FailurePointer> pending;
    int first_slot;
    GraphChecks::Joint joint;  // before it
    std::vector<cudaGraphNode_t> kernels;
  };
  // Contents that depend on checks, by their positions; kEarlier: on those of earlier launches.
  static constexpr size_t kEarlier = ~size_t{0};
  struct Dependent {
    Contents contents;
    std::vector<size_t> checks;
  };

  void capture();
  void collect_dependents();
  bool find_carried();
  void mark_carried();
  void update_kernels();

  Context& cuda_;
  Device& device_;
  Program& program_;
  GraphChecks checks_;
  std::shared_ptr<DeviceMemory> arena_;
  std::vector<Varying> varying_;
  std::vector<Contents> written_;
  std::vector<Dependent> dependents_;
  // Of the outside, what a launch leaves behind that depends on its checks; by slot, on the GPU, which checks.
  std::unordered_set<const Block*> carried_;
  std::unique_ptr<DeviceMemory> carried_slots_;
  // What stands for the checks of earlier launches; these, of those that the next one goes on with; and of all contents
  // of the outside, in their order, what the last one made of them.
  const FailurePointer any_earlier_ = std::make_shared<Failure>();
  std::vector<FailurePointer> earlier_, left_;
  cudaGraph_t graph_ = nullptr;
  cudaGraphExec_t executable_ = nullptr;
  std::vector<double> numbers_;  // that its kernels have
};

}  // namespace llmeff::cuda
