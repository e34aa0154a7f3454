// The reference that other op sets are tested against: every op is a simple loop with double accumulation. Deliberately
// slow.
#pragma once

#include <memory>

#include "epsmoe/stop.h"
#include "ops/op_set.h"

namespace eps::ops {

std::unique_ptr<OpSet> make_reference_ops(StopToken stop = {});

}  // namespace eps::ops
