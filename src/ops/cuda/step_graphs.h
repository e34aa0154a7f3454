// Steps recorded as CUDA graphs and replayed.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>

#include "ops/cuda/cuda_context.h"

namespace eps::cuda {

class StepGraphs {
 public:
  StepGraphs(const DeviceMemory& memory, cudaStream_t stream) : memory_(memory), stream_(stream) {}

  // Runs `body`: the first time for a key it is called, so that it allocates what it needs; the second time it is
  // recorded; from then on the recording is replayed. If memory was allocated or freed in between, the key starts over,
  // because addresses in the recording may be stale. Returns whether `body` ran.
  //
  // Errors  kInternal, naming the op, if `body` waits for the device or allocates while it is recorded
  bool run(int64_t key, const std::function<void()>& body);

 private:
  struct Close {
    void operator()(cudaGraphExec_t graph) const { cudaGraphExecDestroy(graph); }
  };
  using GraphPtr = std::unique_ptr<std::remove_pointer_t<cudaGraphExec_t>, Close>;
  struct Recording {
    uint64_t memory_changes = 0;
    GraphPtr graph;  // null: not recorded yet
  };
  GraphPtr record(const std::function<void()>& body);

  const DeviceMemory& memory_;
  cudaStream_t stream_;
  std::map<int64_t, Recording> recordings_;
};

}  // namespace eps::cuda
