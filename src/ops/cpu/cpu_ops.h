// The op set for CPUs, over one of the GEMM engines of packed_linear.h.
#pragma once

#include <memory>
#include <vector>

#include "epsmoe/stop.h"
#include "ops/cpu/packed_linear.h"
#include "ops/op_set.h"

namespace eps::ops {

// Creates one op set per rank. Each uses `threads_per_rank` threads, including the rank's own. With `share_threads`,
// all ranks use one pool, and a rank that waits for others lends its threads to them; the results are bit for bit the
// same either way.
std::vector<std::unique_ptr<OpSet>> make_cpu_op_sets(const CpuEngineChoice& choice, int num_ranks, int threads_per_rank,
                                                     bool share_threads, StopToken stop = {});
// Creates the op set of a single rank.
std::unique_ptr<OpSet> make_cpu_ops(const CpuEngineChoice& choice, int num_threads, StopToken stop = {});

}  // namespace eps::ops
