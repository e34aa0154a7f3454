#include "ops/cuda/step_graphs.h"

namespace eps::cuda {

bool StepGraphs::run(int64_t key, const std::function<void()>& body) {
  const auto [it, is_new] = recordings_.try_emplace(key);
  Recording& recording = it->second;
  if (is_new || recording.memory_changes != memory_.num_changes()) {
    recording.graph.reset();
    body();
    recording.memory_changes = memory_.num_changes();
    return true;
  }
  const bool is_first = !recording.graph;
  if (is_first) recording.graph = record(body);
  EPS_CUDA(cudaGraphLaunch(recording.graph.get(), stream_));
  return is_first;
}

StepGraphs::GraphPtr StepGraphs::record(const std::function<void()>& body) {
  // Thread-local mode, because other ranks of the process may make calls meanwhile that are not allowed in a recording.
  EPS_CUDA(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal));
  cudaGraph_t graph = nullptr;
  try {
    const RecordingScope scope;
    body();
  } catch (...) {
    cudaStreamEndCapture(stream_, &graph);
    if (graph != nullptr) cudaGraphDestroy(graph);
    throw;
  }
  EPS_CUDA(cudaStreamEndCapture(stream_, &graph));
  cudaGraphExec_t executable = nullptr;
  const cudaError_t made = cudaGraphInstantiate(&executable, graph, 0);
  cudaGraphDestroy(graph);
  EPS_CUDA(made);
  return GraphPtr(executable);
}

}  // namespace eps::cuda
