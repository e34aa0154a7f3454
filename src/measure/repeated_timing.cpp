#include "measure/repeated_timing.h"

#include <algorithm>
#include <cstring>

#include "base/clock.h"
#include "base/error.h"
#include "measure/stats.h"

namespace eps::measure {
namespace {

// Ranks leave a barrier about 20 µs apart, and reading the clock takes 30 ns. A sample is long enough for both to be
// small, and short enough to be rarely interrupted by the scheduler.
constexpr double kSampleUs = 1000;
// A call that takes longer than this needs no further warm-up.
constexpr double kLongUs = 20000;
// After being idle, a GPU runs faster than it can for long, so samples begin only when it has worked for some time.
constexpr double kDeviceWarmUpUs = 60000;
constexpr double kDeviceSampleUs = 5000;

struct SampleCounts {
  int usual, of_long;
};
constexpr SampleCounts kSamples = {15, 5};
constexpr SampleCounts kQuickSamples = {7, 2};
constexpr SampleCounts kDeviceSamples = {7, 4};
constexpr SampleCounts kQuickDeviceSamples = {3, 2};

// On a host, other programs prolong some samples, but no sample is shorter than the work itself. The lower quartile is
// the time of the work as long as one sample in four is undisturbed.
constexpr double kHostQuantile = 0.25;

}  // namespace

double RepeatedTiming::time_us(const std::function<void()>& body) { return times_us(std::span(&body, 1)).front(); }

std::vector<double> RepeatedTiming::times_us(std::span<const std::function<void()>> bodies) {
  std::vector<int> calls;
  bool is_long = false;
  for (const auto& body : bodies) {
    double once = largest(timed_us(body, 1));
    if (once < kLongUs) once = largest(timed_us(body, 1));
    calls.push_back(calls_of_sample(once));
    is_long = is_long || once >= kLongUs;
  }
  if (ops_.device() != nullptr && !quick_) {
    for (double us = 0; us < kDeviceWarmUpUs;) {
      for (size_t i = 0; i < bodies.size(); ++i) us += largest(timed_us(bodies[i], calls[i]));
    }
  }
  const bool on_device = ops_.device() != nullptr;
  const SampleCounts counts =
      on_device ? (quick_ ? kQuickDeviceSamples : kDeviceSamples) : (quick_ ? kQuickSamples : kSamples);
  const int samples = is_long ? counts.of_long : counts.usual;
  std::vector<std::vector<double>> mine(bodies.size());
  for (int sample = 0; sample < samples; ++sample) {
    for (size_t i = 0; i < bodies.size(); ++i) mine[i].push_back(timed_us(bodies[i], calls[i]) / calls[i]);
  }
  std::vector<double> out;
  for (const auto& samples_of_body : mine) {
    out.push_back(quantile(gather(samples_of_body), on_device ? 0.5 : kHostQuantile));
  }
  return out;
}

int RepeatedTiming::calls_of_sample(double once_us) const {
  const double sample_us = ops_.device() != nullptr ? kDeviceSampleUs : kSampleUs;
  return static_cast<int>(std::clamp(sample_us / std::max(once_us, 0.01), 1.0, 1e5));
}

double RepeatedTiming::timed_us(const std::function<void()>& body, int calls) {
  comm_.barrier();
  const int64_t begin = now_ns();
  for (int i = 0; i < calls; ++i) body();
  ops_.wait();
  return static_cast<double>(now_ns() - begin) * 1e-3;
}

double RepeatedTiming::median(const std::vector<double>& mine) { return quantile(gather(mine), 0.5); }

double RepeatedTiming::largest(double mine) { return std::ranges::max(gather({mine})); }

// Every rank also sends whether it continues, so that all ranks stop at the same place and none waits for another.
std::vector<double> RepeatedTiming::gather(const std::vector<double>& mine) {
  std::vector<double> message = {!keep_going_ || keep_going_() ? 1.0 : 0.0};
  message.insert(message.end(), mine.begin(), mine.end());
  std::vector<double> all;
  bool go_on = true;
  for (const std::vector<std::byte>& bytes : comm_.all_gather(std::as_bytes(std::span(message)))) {
    std::vector<double> values(bytes.size() / sizeof(double));
    std::memcpy(values.data(), bytes.data(), bytes.size());
    go_on = go_on && values.front() != 0;
    all.insert(all.end(), values.begin() + 1, values.end());
  }
  if (!go_on) throw Error(ErrorKind::kAborted, "tune", "interrupted");
  return all;
}

}  // namespace eps::measure
