// Statistics of samples.
#pragma once

#include <string>
#include <vector>

namespace eps::measure {

struct MeanDeviation {
  double mean = 0;
  double deviation = 0;  // sample standard deviation (n - 1); 0 for one value
};
MeanDeviation mean_deviation(const std::vector<double>& samples);

// The quantile `share` (0 to 1), by linear interpolation between neighbours.  Errors  kInternal without samples
double quantile(std::vector<double> samples, double share);

struct Spread {
  double p10 = 0;
  double median = 0;
  double p90 = 0;
};
// Errors  kInternal without samples
Spread spread(std::vector<double> samples);

// 0 without a limit.
inline double percent_of(double value, double limit) { return limit > 0 ? 100 * value / limit : 0.0; }

// "2026-01-31T12:00:00Z"
std::string utc_time_now();

}  // namespace eps::measure
