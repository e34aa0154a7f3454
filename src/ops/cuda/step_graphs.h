// Records steps as CUDA graphs and replays them.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>

#include "ops/cuda/cuda_context.h"
#include "ops/op_set.h"

namespace eps::cuda {

class StepGraphs {
 public:
  StepGraphs(const DeviceMemory& memory, cudaStream_t stream) : memory_(memory), stream_(stream) {}

  // Runs `body`. For each key, the first call runs it normally, so that it allocates the memory it needs; the second
  // call records it; later calls replay the recording. If memory was allocated or freed in between, the key starts
  // over, because addresses in the recording may have become invalid. Returns whether `body` ran. `before_launch` is
  // called before each launch of a recording.
  //
  // Errors  kInternal, naming the op, if `body` waits for the device or allocates while it is recorded
  bool run(int64_t key, const std::function<void()>& body, const std::function<void()>& before_launch);
  // What run() will do with this key, unless memory is allocated or freed before the call.
  ops::StepRun next_run(int64_t key) const;

 private:
  struct Close {
    void operator()(cudaGraphExec_t graph) const { cudaGraphExecDestroy(graph); }
  };
  using GraphPtr = std::unique_ptr<std::remove_pointer_t<cudaGraphExec_t>, Close>;
  struct Recording {
    uint64_t memory_changes = 0;
    GraphPtr graph;  // null: not yet recorded
  };
  GraphPtr record(const std::function<void()>& body);

  const DeviceMemory& memory_;
  cudaStream_t stream_;
  std::map<int64_t, Recording> recordings_;
};

}  // namespace eps::cuda
