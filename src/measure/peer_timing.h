// Times what ranks on devices do together: messages by the SMs that they use, hand-overs between lanes, sums of tokens,
// and the contention between GEMMs and messages.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "comm/communicator.h"
#include "measure/tune.h"
#include "ops/op_set.h"

namespace eps::measure {

// Replaces the profile's links, contention, hand-over and the costs of ops that depend on messages. `sizes` are those
// of the expert layers. One op set and one communicator per rank, at least two.
//
// Errors  kAborted if keep_going returned false
// Cost    2 to 5 s
void measure_peers(std::vector<std::unique_ptr<ops::OpSet>> ops, std::vector<std::unique_ptr<comm::Communicator>> comms,
                   const RowWidths& sizes, bool quick, const std::function<bool()>& keep_going,
                   plan::HardwareProfile& profile);

}  // namespace eps::measure
