// Times batches of random tokens; implements Engine::time_batch and Engine::time_requests.
#pragma once

#include "engine/batch_run.h"
#include "epsmoe/engine.h"

namespace eps::engine {

// Both first cancel the sequences that an interrupted call left in `run`.
// Errors  kUsage if a sequence has more tokens than the context
Engine::BatchTimes time_batch(BatchRun& run, const arch::ModelSpec& spec, const Engine::BatchWork& work,
                              const std::function<bool()>& keep_going);
Engine::RequestTimes time_requests(BatchRun& run, const arch::ModelSpec& spec, const Engine::RequestWork& work,
                                   const std::function<bool(int64_t, int64_t)>& keep_going);

}  // namespace eps::engine
