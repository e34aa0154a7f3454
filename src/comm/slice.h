// Lets a few ranks play their part in a larger system: each rank sees all the ranks of that system, and an existing
// rank stands in for those that do not exist.
#pragma once

#include <memory>

#include "comm/communicator.h"

namespace eps::comm {

// Rank r of `inner`, which has at least two ranks, becomes rank r of `num_ranks` ranks. What a rank that does not exist
// would contribute to all_gather is the contribution of an existing one, never the caller's own. Only ranks that
// exchange rows directly between devices can be sliced: all_to_all fails.
//
// Errors  kInternal: all_to_all, or num_ranks is smaller than the number of ranks of `inner`
std::unique_ptr<Communicator> make_slice(std::unique_ptr<Communicator> inner, int num_ranks);

}  // namespace eps::comm
