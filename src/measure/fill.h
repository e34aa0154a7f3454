// Harmless values to compute with: no denormals, nothing that grows.
#pragma once

#include "epsmoe/stop.h"
#include "ops/op_set.h"

namespace eps {

// Fills host memory of f32, bf16 or f16 with numbers of mean 0 and variance 1, the same for the same seed.
// Errors  kInternal: another dtype; kInterrupted when `stop` asks for it
void fill_normal(MutableTensorView out, uint64_t seed, StopToken stop = {});
// The same in the op set's memory.
void fill_normal(const OpSet& ops, MutableTensorView out, uint64_t seed, StopToken stop = {});

}  // namespace eps
