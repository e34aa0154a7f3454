// What `epsmoe simulate` prints.
#pragma once

#include <string>
#include <vector>

#include "plan/profile.h"
#include "sim/comparison.h"

namespace eps::cli {

struct SimulateReport {
  ModelShape shape;
  HardwareProfile profile;
  PrefillOptions options;
  std::string wire;  // as on the command line
  std::string skew;
  std::string choice;  // why --strategy auto took the one that is shown; empty: it was not asked
  std::vector<PrefillRow> rows;
  int baseline = -1;  // the first row that runs
  int fastest = -1;   // of those that fit; -1: none does
};

// Finds baseline and fastest.
void mark_fastest(SimulateReport& report);

// Facts, a table and the choice.
std::string format_simulate_text(const SimulateReport& report);
// One object a row, a line each.
std::string format_simulate_json(const SimulateReport& report);

}  // namespace eps::cli
