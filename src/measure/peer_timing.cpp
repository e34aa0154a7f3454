#include "measure/peer_timing.h"

#include <algorithm>

#include "base/error.h"
#include "measure/device_ranks.h"
#include "measure/fit.h"
#include "measure/peer_messages.h"
#include "measure/stats.h"
#include "sim/workload.h"

namespace eps::measure {
namespace {

constexpr int kExpertsEach = 16;
constexpr int kTopK = 6;            // as DeepSeek-V2
constexpr int kManyCopies = 4;      // enough that writing limits a dispatch, not the link
constexpr int kContentionSms = 16;  // of the messages beside GEMMs
constexpr int kLinkSms[] = {4, 8, 12, 16, 24};

class PeerTiming {
 public:
  PeerTiming(DeviceRanks& ranks, const RowWidths& sizes, bool quick, const std::function<bool()>& keep_going,
             plan::HardwareProfile& profile)
      : ranks_(ranks), sizes_(sizes), quick_(quick), keep_going_(keep_going), profile_(profile) {}

  void measure_links() {
    constexpr double kLarge = 48e6;  // bytes: far more than a message's latency
    const int64_t few = 16;
    const int64_t many = std::max<int64_t>(few + 1, static_cast<int64_t>(kLarge / row_bytes()));
    profile_.links.clear();
    for (const int sms : kLinkSms) {
      if (sms < profile_.num_sms) profile_.links.push_back({.sms = sms});
    }
    const auto time_all = [&](int64_t tokens, int copies, const auto& set) {
      route(route_away(ranks_.problem().placement, tokens, copies));
      for (plan::LinkPoint& link : profile_.links) {
        const plan::Plan plan = make_messages(ranks_.problem(), link.sms);
        const std::vector<double> us = medians(plan, [](const LayerTimes& times) {
          return std::vector{us_of(times.op_ns, plan::OpKind::kDispatch), us_of(times.op_ns, plan::OpKind::kCombine)};
        });
        set(link, us);
      }
    };
    const double span = static_cast<double>(many - few) * row_bytes();
    std::vector<double> small;
    time_all(few, 1, [&](const plan::LinkPoint&, const std::vector<double>& us) { small.push_back(mean(us)); });
    size_t i = 0;
    time_all(many, 1, [&](plan::LinkPoint& link, const std::vector<double>& us) {
      link.gbps = span * 1e-3 / (mean(us) - small[i]);
      link.alpha_us = std::max(0.0, small[i] - static_cast<double>(few) * row_bytes() * 1e-3 / link.gbps);
      ++i;
    });
    i = 0;
    time_all(many, kManyCopies, [&](plan::LinkPoint& link, const std::vector<double>& us) {
      link.spread_gbps = kManyCopies * span * 1e-3 / std::max(1.0, us.front() - small[i]);
      ++i;
    });
    keep_ascending();
  }

  // The sums of a layer's tokens.
  void measure_sums() {
    plan::Curve reduce, finish;
    for (const int64_t tokens : {int64_t{128}, int64_t{1024}, int64_t{4096}}) {
      route(random_routing(tokens));
      plan::Plan plan = make_bare_plan(ranks_.problem(), {kContentionSms, profile_.num_sms});
      plan.ops = {{plan::OpKind::kDispatch, plan::Lane::kDispatch, 0, {}},
                  {plan::OpKind::kReduce, plan::Lane::kCompute, 0, {0}}};
      add_end(plan, {1});
      const std::vector<double> us = medians(plan, [](const LayerTimes& times) {
        return std::vector{us_of(times.least_op_ns, plan::OpKind::kReduce),
                           us_of(times.least_op_ns, plan::OpKind::kFinish)};
      });
      const auto rows = static_cast<double>(std::ranges::max(plan.stages.front().rows_per_rank));
      reduce.push_back({3 * rows * row_bytes(), us[0]});
      finish.push_back({3 * static_cast<double>(tokens) * row_bytes(), us[1]});
    }
    profile_.ops["reduce"] = fit_cost(reduce);
    profile_.ops["finish"] = fit_cost(finish);
  }

  void measure_handoff() {
    constexpr int kTurns = 24;
    route(random_routing(16));
    plan::Plan plan = make_bare_plan(ranks_.problem(), {kContentionSms, profile_.num_sms});
    plan.policy = plan::Policy::kEps;
    for (int i = 0; i < kTurns; ++i) {
      const bool is_message = i % 2 == 0;
      plan.ops.push_back({is_message ? plan::OpKind::kDispatch : plan::OpKind::kReduce,
                          is_message ? plan::Lane::kDispatch : plan::Lane::kCompute, 0,
                          i == 0 ? std::vector<int>{} : std::vector{i - 1}});
    }
    add_end(plan, {kTurns - 1});
    const std::vector<double> us = medians(plan, [](const LayerTimes& times) {
      const double busy = us_of(times.op_ns, plan::OpKind::kDispatch) + us_of(times.op_ns, plan::OpKind::kReduce);
      const double span =
          std::max(us_of(times.op_span_ns, plan::OpKind::kDispatch), us_of(times.op_span_ns, plan::OpKind::kReduce));
      return std::vector{std::max(0.0, span - busy) / (kTurns - 2)};
    });
    profile_.handoff_us = us.front();
  }

  void measure_contention() {
    route(random_routing(quick_ ? 2048 : 4096));
    const int left = profile_.num_sms - kContentionSms;
    profile_.contention.compute = std::max(0.0, slowdown(left, true));
    profile_.contention.comm = std::max(0.0, slowdown(left, false));
    profile_.contention.uncapped_compute = std::max(0.0, slowdown(profile_.num_sms, true));
    profile_.contention.uncapped_comm = std::max(0.0, slowdown(profile_.num_sms, false));
  }

 private:
  double row_bytes() const { return static_cast<double>(sizes_.hidden) * 2; }
  static double mean(const std::vector<double>& us) { return (us[0] + us[1]) / 2; }

  void route(const std::vector<moe::Routing>& routing) { ranks_.route(routing); }
  std::vector<moe::Routing> random_routing(int64_t tokens) const {
    const moe::ExpertPlacement& placement = ranks_.problem().placement;
    return sim::random_routing({.num_ranks = placement.num_ranks,
                                .tokens_per_rank = tokens,
                                .num_experts = placement.num_experts,
                                .top_k = kTopK});
  }

  // Adds the layer's last ops, which it needs to end in an orderly way, after the ops `deps`.
  static void add_end(plan::Plan& plan, std::vector<int> deps) {
    const auto combine = static_cast<int>(plan.ops.size());
    plan.ops.push_back({plan::OpKind::kCombine, plan::Lane::kCombine, 0, std::move(deps)});
    plan.ops.push_back({plan::OpKind::kFinish, plan::Lane::kCompute, -1, {combine}});
  }

  // The medians, over repetitions, of the values that `read` finds in the times of a plan.
  template <typename Read>
  std::vector<double> medians(const plan::Plan& plan, const Read& read) {
    const int repetitions = quick_ ? 5 : 11;
    std::vector<std::vector<double>> samples;
    for (int i = 0; i <= repetitions; ++i) {
      if (keep_going_ && !keep_going_()) throw Error(ErrorKind::kAborted, "tune", "interrupted");
      const std::vector<double> values = read(ranks_.run_timed(plan));
      samples.resize(values.size());
      if (i == 0) continue;  // warm-up
      for (size_t k = 0; k < values.size(); ++k) samples[k].push_back(values[k]);
    }
    std::vector<double> out;
    for (const auto& values : samples) out.push_back(quantile(values, 0.5));
    return out;
  }

  // How much longer GEMMs on `gemm_sms` SMs take beside messages than alone, or messages beside GEMMs.
  double slowdown(int gemm_sms, bool of_gemms) {
    constexpr int kGemms = 4;
    constexpr double kLonger = 1.5;  // the other lane works this much longer
    const auto time = [&](int gemms, int messages) {
      plan::Plan plan = make_bare_plan(ranks_.problem(), {kContentionSms, gemm_sms});
      // In a serial plan, GEMMs leave no SMs to messages.
      plan.policy = messages > 0 ? plan::Policy::kEps : plan::Policy::kSerial;
      // In turn, so that both lanes begin at about the same time although ops are issued one by one.
      int last_gemm = -1;
      int last_message = -1;
      const int total = gemms + messages;
      for (int i = 0, sent = 0; i < total; ++i) {
        const bool is_message = sent * total <= i * messages && sent < messages;
        sent += is_message ? 1 : 0;
        plan.ops.push_back({is_message ? plan::OpKind::kDispatch : plan::OpKind::kGateUp,
                            is_message ? plan::Lane::kDispatch : plan::Lane::kCompute,
                            0,
                            {}});
        (is_message ? last_message : last_gemm) = i;
      }
      std::vector<int> ends;
      if (last_gemm >= 0) ends.push_back(last_gemm);
      if (last_message >= 0) ends.push_back(last_message);
      add_end(plan, std::move(ends));
      return medians(plan, [](const LayerTimes& times) {
        return std::vector{us_of(times.op_span_ns, plan::OpKind::kGateUp),
                           us_of(times.op_span_ns, plan::OpKind::kDispatch)};
      });
    };
    const double gemms_us = time(kGemms, 0)[0];
    const double message_us = time(0, 8)[1] / 8;
    const auto fill = [&](double us) { return std::max(2, static_cast<int>(us / message_us)); };
    if (of_gemms) return time(kGemms, fill(kLonger * gemms_us))[0] / gemms_us - 1;
    const int messages = fill(gemms_us / kLonger);
    return time(kGemms, messages)[1] / (messages * message_us) - 1;
  }

  // A link with more SMs is as fast as one with fewer; small differences are noise.
  void keep_ascending() {
    for (size_t i = 1; i < profile_.links.size(); ++i) {
      profile_.links[i].gbps = std::max(profile_.links[i].gbps, profile_.links[i - 1].gbps);
      profile_.links[i].spread_gbps = std::max(profile_.links[i].spread_gbps, profile_.links[i - 1].spread_gbps);
    }
  }

  DeviceRanks& ranks_;
  RowWidths sizes_;
  bool quick_;
  const std::function<bool()>& keep_going_;
  plan::HardwareProfile& profile_;
};

}  // namespace

void measure_peers(std::vector<std::unique_ptr<ops::OpSet>> ops, std::vector<std::unique_ptr<comm::Communicator>> comms,
                   const RowWidths& sizes, bool quick, const std::function<bool()>& keep_going,
                   plan::HardwareProfile& profile) {
  const auto num_ranks = static_cast<int>(ops.size());
  const moe::ExpertPlacement placement = moe::place_experts(num_ranks * kExpertsEach, num_ranks);
  const auto ranks = make_message_ranks(sizes.hidden, sizes.inner, placement, std::move(ops), std::move(comms),
                                        route_away(placement, 16, kTopK));
  PeerTiming timing(*ranks, sizes, quick, keep_going, profile);
  timing.measure_links();
  timing.measure_sums();
  timing.measure_handoff();
  timing.measure_contention();
}

}  // namespace eps::measure
