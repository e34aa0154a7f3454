// Formats the result of `epsmoe simulate`.
#pragma once

#include <string>
#include <vector>

#include "plan/profile.h"
#include "sim/comparison.h"

namespace eps::cli {

struct SimulateReport {
  sim::SimulatedModel model;
  plan::HardwareProfile profile;
  sim::PrefillOptions options;
  std::string wire;  // as given on the command line
  std::string skew;
  std::string choice;  // why --strategy auto selected the strategy shown; empty if --strategy was not auto
  std::vector<sim::PrefillRow> rows;
  int baseline = -1;  // the first row that can run
  int fastest = -1;   // the fastest row that fits in memory; -1: none fits
};

// Sets `baseline` and `fastest`.
void mark_fastest(SimulateReport& report);

// A few lines about the model and the batch, a table of results and the choice.
std::string format_simulate_text(const SimulateReport& report);
// One object per row, each on its own line.
std::string format_simulate_json(const SimulateReport& report);

}  // namespace eps::cli
