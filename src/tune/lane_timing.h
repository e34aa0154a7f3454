// Times messages between ranks, hand-overs between lanes, and what compute and messages do to each other.
#pragma once

#include "tune/sampler.h"
#include "tune/tune.h"

namespace eps {

// All-to-alls of growing size, all ranks at once.  Edge  one rank has no link
std::vector<LinkPoint> measure_links(Sampler& sampler, const TuneOptions& options);

// From the end of an op on one lane to the start of one on another lane that waits for it.
double measure_handoff_us(Sampler& sampler, const TuneOptions& options);

// GEMMs on the compute lane while messages travel on a communication lane.  Edge  one rank: nothing
Contention measure_contention(OpSet& ops, Sampler& sampler, const TuneOptions& options);

}  // namespace eps
