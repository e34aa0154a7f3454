// Times the elementwise ops of a layer, attention and reading memory.
#pragma once

#include <map>
#include <string>

#include "measure/repeated_timing.h"
#include "measure/tune.h"

namespace eps::measure {

// Costs by op name. The bytes are defined as in plans, where e is the size of the compute dtype:
//   gather 2·rows·hidden·e, silu_mul 3·rows·inner·e, reduce 3·rows·hidden·e (rows weighted, and those of each token
//   added up), finish 3·tokens·hidden·e, pack 2·rows·hidden·e, norm 2·tokens·hidden·e, other 3·tokens·hidden·e (a sum)
// On a host the costs are curves. On a device they are lines, reduce and finish are assumed to cost as much as a sum,
// and pack as much as gather.
std::map<std::string, plan::OpCost> measure_ops(ops::OpSet& ops, RepeatedTiming& timing, const TuneOptions& options);

// The rate of scores and values only, which are the part whose work grows with the square of the sequence length.
double measure_attention_tflops(ops::OpSet& ops, RepeatedTiming& timing, const TuneOptions& options);

// On a host, every rank reads its own buffer, which is larger than the caches, with all its threads. A device copies
// one.
double measure_memory_gbps(const ops::OpSet& ops, RepeatedTiming& timing, const TuneOptions& options);

}  // namespace eps::measure
