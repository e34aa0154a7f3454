// The clock around batches of random tokens: what Engine::time_batch and time_requests do.
#pragma once

#include "engine/batch_run.h"
#include "epsmoe/engine.h"

namespace eps {

// Both drop what an earlier call left in `run`.
// Errors  kUsage: more tokens than the context holds
Engine::BatchTimes time_batch(BatchRun& run, const ModelSpec& spec, const Engine::BatchWork& work,
                              const std::function<bool()>& keep_going);
Engine::RequestTimes time_requests(BatchRun& run, const ModelSpec& spec, const Engine::RequestWork& work,
                                   const std::function<bool(int64_t, int64_t)>& keep_going);

}  // namespace eps
