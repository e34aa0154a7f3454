// The op set for CPUs, over one of the GEMM engines of packed_linear.h.
#pragma once

#include <memory>
#include <vector>

#include "epsmoe/stop.h"
#include "ops/cpu/packed_linear.h"
#include "ops/op_set.h"

namespace eps {

// One op set per rank. `threads_per_rank` work for each, the rank's own thread included. With `share_threads` the ranks
// have one pool, and a rank that waits for others lends them its threads; the results have the same bits either way.
std::vector<std::unique_ptr<OpSet>> make_cpu_op_sets(const CpuEngineChoice& choice, int num_ranks, int threads_per_rank,
                                                     bool share_threads, StopToken stop = {});
// Of one rank.
std::unique_ptr<OpSet> make_cpu_ops(const CpuEngineChoice& choice, int num_threads, StopToken stop = {});

}  // namespace eps
