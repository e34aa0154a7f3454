#include "comm/emulated_link.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <mutex>
#include <optional>
#include <span>
#include <thread>

#include "base/error.h"
#include "base/stop.h"

namespace eps::comm {
namespace {

struct Unit {
  std::string_view name;
  double factor;
};
constexpr Unit kRates[] = {{"GB/s", 1e9}, {"MB/s", 1e6}, {"kB/s", 1e3}, {"B/s", 1.0}};
constexpr Unit kTimes[] = {{"ns", 1e-9}, {"us", 1e-6}, {"ms", 1e-3}, {"s", 1.0}};

std::optional<double> parse_quantity(std::string_view text, std::span<const Unit> units) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc()) return std::nullopt;
  const std::string_view rest(end, static_cast<size_t>(text.data() + text.size() - end));
  for (const Unit& unit : units) {
    if (rest == unit.name) return value * unit.factor;
  }
  return std::nullopt;
}

class EmulatedLink final : public Communicator {
 public:
  EmulatedLink(std::unique_ptr<Communicator> inner, const LinkSpec& spec, StopToken stop)
      : inner_(std::move(inner)), spec_(spec), stop_(stop) {}

  int rank() const override { return inner_->rank(); }
  int size() const override { return inner_->size(); }
  void barrier() override { inner_->barrier(); }
  std::vector<std::vector<std::byte>> all_gather(ConstBytes mine) override { return inner_->all_gather(mine); }
  void abort(std::string_view reason) noexcept override { inner_->abort(reason); }
  void recover() override { inner_->recover(); }
  void watch_aborts(AbortWatch* watch) override { inner_->watch_aborts(watch); }

  void all_to_all(Channel channel, std::span<const ConstBytes> send, std::span<const MutableBytes> recv) override {
    size_t sent = 0;
    size_t received = 0;
    for (const ConstBytes& bytes : send) sent += bytes.size();
    for (const MutableBytes& bytes : recv) received += bytes.size();
    const Clock::time_point done = reserve(std::max(sent, received));
    inner_->all_to_all(channel, send, recv);
    wait_until(done);
  }

 private:
  using Clock = std::chrono::steady_clock;
  static Clock::duration seconds(double s) {
    return std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(s));
  }

  // Sleeps in short slices, so that a stop request is noticed.
  void wait_until(Clock::time_point done) const {
    constexpr std::chrono::milliseconds kSlice{50};
    while (done - Clock::now() > kSlice) {
      std::this_thread::sleep_for(kSlice);
      throw_if_stopped(stop_);
    }
    std::this_thread::sleep_until(done);
  }

  Clock::time_point reserve(size_t num_bytes) {
    const Clock::time_point now = Clock::now();
    if (num_bytes == 0) return now;
    const std::lock_guard lock(mutex_);
    free_at_ = std::max(now, free_at_) + seconds(static_cast<double>(num_bytes) / spec_.bytes_per_second);
    return free_at_ + seconds(spec_.latency_seconds);
  }

  std::unique_ptr<Communicator> inner_;
  LinkSpec spec_;
  StopToken stop_;
  std::mutex mutex_;
  Clock::time_point free_at_;
};

}  // namespace

LinkSpec parse_link_spec(std::string_view text, const std::string& field) {
  const size_t comma = text.find(',');
  const auto rate = parse_quantity(text.substr(0, comma), kRates);
  const auto latency =
      comma == std::string_view::npos ? std::optional<double>(0.0) : parse_quantity(text.substr(comma + 1), kTimes);
  // With a rate below 1 kB/s or a latency above a minute, every message would exceed the timeout.
  const bool is_in_range = rate && latency && *rate >= 1e3 && *rate <= 1e15 && *latency >= 0.0 && *latency <= 60.0;
  if (rate && latency && !is_in_range) {
    fail(ErrorKind::kUsage, field,
         {.what = "a link out of range",
          .got = std::string(text),
          .wanted = "a bandwidth from 1kB/s to 1000000GB/s and a latency from 0us to 60s",
          .hint = ""});
  }
  if (!is_in_range) {
    fail(ErrorKind::kUsage, field,
         {.what = "not a link",
          .got = std::string(text),
          .wanted = "BANDWIDTH or BANDWIDTH,LATENCY, such as 1GB/s,20us",
          .hint = ""});
  }
  return {*rate, *latency};
}

std::unique_ptr<Communicator> make_emulated_link(std::unique_ptr<Communicator> inner, const LinkSpec& spec,
                                                 StopToken stop) {
  return std::make_unique<EmulatedLink>(std::move(inner), spec, stop);
}

}  // namespace eps::comm
