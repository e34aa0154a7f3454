// Fills tensors with values that do not affect timings: normally distributed, without denormals or overflow.
#pragma once

#include "epsmoe/stop.h"
#include "ops/op_set.h"

namespace eps::measure {

// Fills host memory of f32, bf16 or f16 with numbers of mean 0 and variance 1, which depend only on the seed.
// Errors  kInternal: another dtype; kInterrupted if `stop` is requested
void fill_normal(MutableTensorView out, uint64_t seed, StopToken stop = {});
// The same for memory of the op set.
void fill_normal(const ops::OpSet& ops, MutableTensorView out, uint64_t seed, StopToken stop = {});

}  // namespace eps::measure
