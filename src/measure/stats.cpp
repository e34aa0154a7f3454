#include "measure/stats.h"

#include <algorithm>
#include <cmath>
#include <ctime>

#include "base/error.h"

namespace eps::measure {

MeanDeviation mean_deviation(const std::vector<double>& samples) {
  EPS_CHECK(!samples.empty());
  const auto n = static_cast<double>(samples.size());
  MeanDeviation out;
  for (const double v : samples) out.mean += v / n;
  if (samples.size() < 2) return out;
  for (const double v : samples) out.deviation += (v - out.mean) * (v - out.mean) / (n - 1);
  out.deviation = std::sqrt(out.deviation);
  return out;
}

double quantile(std::vector<double> samples, double share) {
  EPS_CHECK(!samples.empty());
  std::sort(samples.begin(), samples.end());
  const double place = share * static_cast<double>(samples.size() - 1);
  const auto below = static_cast<size_t>(place);
  const size_t above = std::min(below + 1, samples.size() - 1);
  return samples[below] + (place - static_cast<double>(below)) * (samples[above] - samples[below]);
}

Spread spread(std::vector<double> samples) {
  std::sort(samples.begin(), samples.end());
  return {quantile(samples, 0.1), quantile(samples, 0.5), quantile(samples, 0.9)};
}

std::string utc_time_now() {
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  gmtime_r(&now, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text;
}

}  // namespace eps::measure
