#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "sim/strategy.h"
#include "sim/workload.h"
#include "tables.h"

namespace eps::paper {
namespace {

constexpr int64_t kTokensPerRank = 4096;

// A machine on which a message takes 1 µs for 1000 bytes and nothing else takes time, so that the time of a plan's
// messages is their bytes.
plan::HardwareProfile byte_counter(plan::HardwareProfile profile) {
  profile.links = {{16, 1, 0}};
  profile.handoff_us = 0;
  for (const char* op : {"pack", "quantize"}) profile.ops[op] = {0, 1e12};
  return profile;
}

// Bytes that leave the slowest rank before its experts run, as the planner charges them.
double charged_bytes(const plan::HardwareProfile& counter, const plan::MoeProblem& problem) {
  const plan::Planner planner(counter, problem.shape);
  const plan::Plan plan = planner.plan(problem, {plan::PipelineOption::Mode::kOff, 1});
  double us = 0;
  for (size_t i = 0; i < plan.ops.size(); ++i) {
    const plan::OpKind kind = plan.ops[i].kind;
    if (kind == plan::OpKind::kEnter || kind == plan::OpKind::kDispatch)
      us += plan.predicted[i].end_us - plan.predicted[i].begin_us;
  }
  return us * 1e3;
}

// Ranks that a token visits, its own included where it has an expert.
double ranks_per_token(const plan::MoeProblem& problem) {
  const double ranks = problem.placement.num_ranks;
  double visits = 0;
  for (const int64_t v : problem.routing.visits) visits += static_cast<double>(v);
  const double others_per_token = visits / (static_cast<double>(kTokensPerRank) * ranks);
  return others_per_token * ranks / (ranks - 1);  // all ranks are alike, and `ranks - 1` are not its own
}

}  // namespace

Section volumes(const TableOptions& options) {
  Section section{"1", "bytes that leave a GPU before the experts run, 4096 tokens a GPU", "MB", 2, {}, {}, {}};
  section.lines = {
      "Paper: V_TP+TP = 2 (P/D)(D−1), V_DP+EP = g (P/D²)(D−1), V_TP+EP = (P/D)(D−1) + V_DP+EP, with g of the routing",
      "(uniform). Ours: what the planner charges the slowest GPU for the same problem, so the excess of the EP rows is",
      "the difference between the busiest GPU and the mean one."};
  const plan::HardwareProfile counter = byte_counter(options.profile);
  struct Model {
    std::string_view name;
    int ranks;
  };
  constexpr std::array<Model, 3> kModels = {{{"deepseek-v2", 8}, {"mixtral-8x7b", 4}, {"dbrx", 8}}};
  for (const Model& model : kModels) {
    sim::SimulatedModel simulated = sim::preset_model(model.name);
    simulated.weight_dtype = options.weights;
    const double bytes = static_cast<double>(kTokensPerRank * model.ranks) *
                         static_cast<double>(plan::wire_row_bytes(DType::kBF16, simulated.spec.hidden));
    double dp_ep = 0;
    double tp_ep = 0;
    double tp_tp = 0;
    double g = 0;
    for (const plan::Strategy strategy : {plan::Strategy::kDpEp, plan::Strategy::kTpEp, plan::Strategy::kTpTp}) {
      const plan::MoeProblem problem =
          sim::make_problem(simulated, strategy, {.num_ranks = model.ranks, .tokens_per_rank = kTokensPerRank});
      const double ours = charged_bytes(counter, problem);
      if (strategy == plan::Strategy::kDpEp) g = ranks_per_token(problem);
      double paper = sim::volume_tp_tp(bytes, model.ranks);
      if (strategy == plan::Strategy::kDpEp) paper = sim::volume_dp_ep(bytes, model.ranks, g);
      if (strategy == plan::Strategy::kTpEp) paper = sim::volume_tp_ep(bytes, model.ranks, g);
      (strategy == plan::Strategy::kDpEp ? dp_ep : strategy == plan::Strategy::kTpEp ? tp_ep : tp_tp) = ours;
      section.cells.push_back({"1", std::string(plan::to_string(strategy)),
                               fmt::format("{}, {} GPUs", model.name, model.ranks), paper * 1e-6, ours * 1e-6, 2, true,
                               ""});
    }
    const int most = std::min(simulated.spec.moe.gate.top_k, model.ranks);
    section.claims.push_back({"1", fmt::format("{}: 1 ≤ g ≤ min(k, D) = {}", model.name, most), g >= 1 && g <= most,
                              fmt::format("g = {:.2f}", g)});
    section.claims.push_back({"1", fmt::format("{}: V_DP+EP < V_TP+EP < V_TP+TP", model.name),
                              dp_ep < tp_ep && tp_ep < tp_tp,
                              fmt::format("{:.0f}, {:.0f}, {:.0f} MB", dp_ep * 1e-6, tp_ep * 1e-6, tp_tp * 1e-6)});
  }
  return section;
}

}  // namespace eps::paper
