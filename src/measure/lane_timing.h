// Times messages between ranks, hand-overs between lanes, and the contention between compute and messages.
#pragma once

#include "measure/repeated_timing.h"
#include "measure/tune.h"

namespace eps::measure {

// Times all-to-alls of growing size.  Edge  no links for one rank
std::vector<plan::LinkPoint> measure_links(RepeatedTiming& timing, const TuneOptions& options);

// The time from the end of an op to the start of an op on another lane that waits for it.
double measure_handoff_us(RepeatedTiming& timing, const TuneOptions& options);

// How much GEMMs on the compute lane and messages on a communication lane slow each other down.  Edge  zero for one
// rank
plan::Contention measure_contention(ops::OpSet& ops, RepeatedTiming& timing, const TuneOptions& options);

}  // namespace eps::measure
