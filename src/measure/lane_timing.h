// Times messages between ranks, hand-overs between lanes, and what compute and messages do to each other.
#pragma once

#include "measure/repeated_timing.h"
#include "measure/tune.h"

namespace eps {

// All-to-alls of growing size, all ranks at once.  Edge  one rank has no link
std::vector<LinkPoint> measure_links(RepeatedTiming& timing, const TuneOptions& options);

// From the end of an op on one lane to the start of one on another lane that waits for it.
double measure_handoff_us(RepeatedTiming& timing, const TuneOptions& options);

// GEMMs on the compute lane while messages travel on a communication lane.  Edge  one rank: nothing
Contention measure_contention(OpSet& ops, RepeatedTiming& timing, const TuneOptions& options);

}  // namespace eps
