// Times the elementwise ops of a layer, attention and reading memory.
#pragma once

#include <map>
#include <string>

#include "measure/repeated_timing.h"
#include "measure/tune.h"

namespace eps {

// By op name. Bytes are counted as plans count them; e is the size of the compute dtype:
//   gather 2·rows·hidden·e, silu_mul 3·rows·inner·e, reduce 3·rows·hidden·e (rows weighted, half of them added up),
//   finish 3·tokens·hidden·e, pack 2·rows·hidden·e, norm 2·tokens·hidden·e, other 3·tokens·hidden·e (a sum)
// On a device reduce and finish are taken to cost what a sum does, pack what gather does.
std::map<std::string, OpCost> measure_ops(OpSet& ops, RepeatedTiming& timing, const TuneOptions& options);

// Of scores and values alone: what grows with the square of a sequence's length.
double measure_attention_tflops(OpSet& ops, RepeatedTiming& timing, const TuneOptions& options);

// Every rank reads a buffer of its own, larger than the caches, with its threads; a device copies one.
double measure_memory_gbps(const OpSet& ops, RepeatedTiming& timing, const TuneOptions& options);

}  // namespace eps
