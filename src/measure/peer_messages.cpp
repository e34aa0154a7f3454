#include "measure/peer_messages.h"

#include "arch/presets.h"

namespace eps::measure {

std::unique_ptr<DeviceRanks> make_message_ranks(int64_t hidden, int64_t inner, const moe::ExpertPlacement& placement,
                                                std::vector<std::unique_ptr<ops::OpSet>> ops,
                                                std::vector<std::unique_ptr<comm::Communicator>> comms,
                                                std::span<const moe::Routing> routing, StopToken stop) {
  constexpr std::string_view kPreset = "deepseek-v2-lite";  // for what the sizes leave open
  arch::ModelSpec spec = arch::preset_spec(kPreset);
  spec.hidden = hidden;
  spec.moe.inner = inner;
  spec.moe.shared_inner = 0;
  spec.moe.gate.num_experts = placement.num_experts;
  spec.moe.gate.top_k = routing.front().top_k;
  const arch::Family& family = arch::find_preset_family(kPreset);
  const auto source = model::make_dummy_source(0, stop);
  const plan::MoeShape shape = arch::moe_shape(spec, DType::kBF16, ops.front()->compute_dtype());
  const auto load = [&](const ops::OpSet& on, model::RankShare share) {
    return model::load_moe_layer(spec, family, *source, on, spec.first_moe_layer(), share);
  };
  return std::make_unique<DeviceRanks>(DeviceRanksOptions{shape, placement, 1}, std::move(ops), std::move(comms),
                                       routing, load);
}

std::vector<moe::Routing> route_away(const moe::ExpertPlacement& placement, int64_t tokens, int copies) {
  std::vector<moe::Routing> out;
  for (int rank = 0; rank < placement.num_ranks; ++rank) {
    moe::Routing routing{tokens, copies, {}, {}};
    for (int64_t t = 0; t < tokens; ++t) {
      const auto other = static_cast<int>(t % (placement.num_ranks - 1));
      const int target = (rank + 1 + other) % placement.num_ranks;
      for (int k = 0; k < copies; ++k) {
        routing.expert_idx.push_back(placement.first_expert(target) +
                                     static_cast<int32_t>((t + k) % placement.experts_per_rank()));
        routing.weight.push_back(1.0F / static_cast<float>(copies));
      }
    }
    out.push_back(std::move(routing));
  }
  return out;
}

plan::Plan make_bare_plan(const plan::MoeProblem& problem, plan::SmBudget sms) {
  plan::Plan plan;
  plan.sms = sms;
  plan::Stage stage;
  for (int e = 0; e < problem.placement.num_experts; ++e) stage.experts.push_back(e);
  stage.rows_per_rank = plan::count_stage_rows(plan, stage, problem);
  stage.gate_up_kernel = stage.down_kernel =
      std::vector<moe::GemmKind>(static_cast<size_t>(problem.placement.num_ranks), moe::GemmKind::kGrouped);
  plan.stages = {std::move(stage)};
  return plan;
}

plan::Plan make_messages(const plan::MoeProblem& problem, int sms) {
  plan::Plan plan = make_bare_plan(problem, {sms, 0});
  plan.ops = {{plan::OpKind::kDispatch, plan::Lane::kDispatch, 0, {}},
              {plan::OpKind::kCombine, plan::Lane::kCombine, 0, {0}},
              {plan::OpKind::kFinish, plan::Lane::kCompute, -1, {1}}};
  return plan;
}

}  // namespace eps::measure
