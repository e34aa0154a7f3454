// The numbers of a profile that the paper's tables 5 and 6 decide, as one list, and the profile that they make.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "layer_case.h"
#include "plan/profile.h"

namespace eps::paper {

// One fitted number and where it may lie.
struct Parameter {
  std::string name;
  double value, least, most;
};

// Start values, in the order make_profile reads them. No GEMM may be faster than the GPU's data sheet allows.
std::vector<Parameter> parameters();

// `base` (the bundled h800) with the fitted numbers in place of its 8-bit GEMMs, links within the node, contention and
// hand-over.
plan::HardwareProfile make_profile(const plan::HardwareProfile& base, const std::vector<double>& values);

// A cell of table 5 or 6 beside what `profile` says, ms.
struct FittedCell {
  int table;
  int row;  // table 5: its ID; table 6: its number
  int64_t m, inner;
  int gemm_sms;
  double paper_ms, ours_ms;
  bool counts;  // false: an outlier of the paper's
};

// Everything that the fit looks at. Constructing one samples the routing of every problem, once.
class FitCells {
 public:
  explicit FitCells(const Reading& reading);
  std::vector<FittedCell> predict(const plan::HardwareProfile& profile) const;

 private:
  std::array<std::array<std::array<plan::MoeProblem, 2>, 2>, 3> table5_;  // [m, inner, fp8]
  std::vector<plan::MoeProblem> table6_;
};

// How to weigh cells: their times, or table 5's ratios to its row 0 and table 6's to 116 SMs.
enum class Weighing : uint8_t { kTimes, kRatios };

// Mean over the cells of a loss that is quadratic up to 5 % and linear beyond, so that no outlier decides.
double loss_of(const std::vector<FittedCell>& cells, Weighing weighing);

// ln(ours / paper) of the cell itself, and of its ratio.
double time_error(const FittedCell& cell);
double ratio_error(const std::vector<FittedCell>& cells, const FittedCell& cell);

}  // namespace eps::paper
