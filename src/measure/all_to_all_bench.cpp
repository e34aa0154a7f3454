#include "measure/all_to_all_bench.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/stop.h"
#include "engine/factory.h"
#include "measure/device_ranks.h"
#include "measure/layer_source.h"
#include "measure/peer_messages.h"
#include "measure/stats.h"

namespace eps::measure {
namespace {

constexpr int64_t kMostBytes = int64_t{4} << 30;
constexpr int64_t kMostRowBytes = 1 << 20;
constexpr int kMostCopies = 8;

void check_options(const AllToAllOptions& options) {
  const EngineOptions& engine = options.engine;
  if (engine.device != "cuda") {
    fail(ErrorKind::kUsage, "device",
         {.what = "only GPUs exchange rows directly",
          .got = engine.device,
          .wanted = "cuda",
          .hint = "`epsmoe tune --ep 2`, which measures messages between ranks on the host"});
  }
  require_in_range("ep", engine.ep, 2, 16);
  require_in_range("row_bytes", options.row_bytes, 16, kMostRowBytes);
  if (options.row_bytes % 16 != 0) {
    fail(ErrorKind::kUsage, "row_bytes",
         {.what = "rows are copied 16 bytes at a time",
          .got = std::to_string(options.row_bytes),
          .wanted = "a multiple of 16",
          .hint = ""});
  }
  require_in_range("max_bytes", options.max_bytes, options.row_bytes, kMostBytes);
  require_in_range("min_bytes", options.min_bytes, 1, options.max_bytes);
  require_in_range("copies", options.copies, 1, kMostCopies);
  require_in_range("repetitions", options.repetitions, 1, 10000);
  if (!(options.factor >= 1.1 && options.factor <= 1024)) {
    fail(ErrorKind::kUsage, "factor",
         {.what = "out of range", .got = fmt::format("{:g}", options.factor), .wanted = "1.1 to 1024", .hint = ""});
  }
  for (const int sms : options.sms) require_in_range("sms", sms, 1, 1024);
}

}  // namespace

double AllToAllPoint::gbps() const {
  const double median = spread(us).median;
  return median > 0 ? static_cast<double>(bytes) * 1e-3 / median : 0.0;
}

AllToAllResult run_all_to_all_bench(const AllToAllOptions& options, const std::function<void(std::string_view)>& note,
                                    const std::function<bool()>& keep_going) {
  check_options(options);
  const EngineOptions& engine = options.engine;
  auto ops = engine::make_op_sets(engine.device, engine.dtype, engine.ep, 1, engine.stop,
                                  engine::RankThreadUse::kSeparate, engine.gpus);
  AllToAllResult result;
  result.op_set = ops.front()->description();
  const moe::ExpertPlacement placement = moe::place_experts(engine.ep * kMostCopies, engine.ep);
  // Only the width of its rows matters here.
  constexpr int64_t kInner = 64;
  const auto rows_of = [&](double bytes) {
    return std::max<int64_t>(1, static_cast<int64_t>(std::llround(bytes / static_cast<double>(options.row_bytes))));
  };
  const int64_t most_rows = rows_of(static_cast<double>(options.max_bytes));
  const int64_t hidden = options.row_bytes / static_cast<int64_t>(size_of(ops.front()->compute_dtype()));
  const auto ranks = make_message_ranks(
      hidden, kInner, placement, std::move(ops),
      engine::make_communicators(engine.ep, std::chrono::milliseconds(engine.comm_timeout_ms), "", engine.stop),
      route_away(placement, most_rows, options.copies), engine.stop);

  std::string why_not;
  const int peers = engine.ep - 1;
  const auto baseline =
      engine::make_all_to_all_baseline(engine.ep, engine.gpus, most_rows * options.row_bytes, why_not);
  result.baseline = baseline ? baseline->implementation() : why_not;
  const auto max_bytes = static_cast<double>(options.max_bytes);
  for (auto bytes = static_cast<double>(options.min_bytes); bytes <= max_bytes * 1.001; bytes *= options.factor) {
    const int64_t rows = rows_of(bytes);
    note(fmt::format("{} rows of {} bytes", rows, options.row_bytes));
    ranks->route(route_away(placement, rows, options.copies));
    std::vector<AllToAllPoint> points;
    for (const int sms : options.sms) {
      for (const auto& [op, way] : {std::pair("dispatch", "pull"), std::pair("combine", "push")}) {
        points.push_back({op, way, sms, rows * options.row_bytes, rows, {}});
      }
    }
    const size_t num_own = points.size();
    if (baseline) points.push_back({"send", "nccl", 0, rows * options.row_bytes, rows, {}});
    for (int i = 0; i <= options.repetitions; ++i) {
      if (!keep_going()) return result;
      if (baseline) {
        const double us = baseline->time_us(rows * options.row_bytes / peers);
        if (i > 0) points.back().us.push_back(us);
      }
      for (size_t p = 0; p < num_own; p += 2) {
        LayerTimes times;
        const plan::Plan plan = make_messages(ranks->problem(), points[p].sms);
        if (!completes([&] { times = ranks->run_timed(plan); })) return result;
        if (i == 0) continue;  // warm-up
        points[p].us.push_back(us_of(times.op_ns, plan::OpKind::kDispatch));
        points[p + 1].us.push_back(us_of(times.op_ns, plan::OpKind::kCombine));
      }
    }
    result.points.insert(result.points.end(), points.begin(), points.end());
  }
  return result;
}

}  // namespace eps::measure
