// Measures this machine briefly before a model runs on it for the first time.
#pragma once

#include "epsmoe/engine.h"

namespace eps::cli {

// Measures a quick profile of this machine for the model's sizes and stores it in the user's folder, where engines find
// it. Progress is shown on stderr. Does nothing if a profile was requested or one already fits, if the device is a GPU,
// or if the profile could not be stored for the next time.
//
// Returns  whether a profile has been stored
// Errors   those of opening the model; kInterrupted
// Cost     1 to 3 s for a small model
bool measure_on_first_use(const EngineOptions& options);

}  // namespace eps::cli
