#include "ops/cuda/step_graphs.h"

namespace eps::cuda {

ops::StepRun StepGraphs::next_run(int64_t key) const {
  const auto it = recordings_.find(key);
  if (it == recordings_.end() || it->second.memory_changes != memory_.num_changes()) return ops::StepRun::kRun;
  return it->second.graph ? ops::StepRun::kReplay : ops::StepRun::kRecord;
}

bool StepGraphs::run(int64_t key, const std::function<void()>& body, const std::function<void()>& before_launch) {
  const ops::StepRun next = next_run(key);
  Recording& recording = recordings_[key];
  if (next == ops::StepRun::kRun) {
    recording.graph.reset();
    body();
    recording.memory_changes = memory_.num_changes();
    return true;
  }
  const bool is_first = next == ops::StepRun::kRecord;
  if (is_first) recording.graph = record(body);
  before_launch();
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
