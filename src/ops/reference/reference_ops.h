// The oracle: every op as a direct loop with double accumulation. Slow on purpose.
#pragma once

#include <memory>

#include "epsmoe/stop.h"
#include "ops/op_set.h"

namespace eps {

std::unique_ptr<OpSet> make_reference_ops(StopToken stop = {});

}  // namespace eps
