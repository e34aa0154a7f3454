#include "exec/moe_executor.h"

#include "base/error.h"

namespace eps::exec {
namespace {

std::string why_not(const ops::LayerOps& layer, const plan::Plan& plan) {
  if (plan.strategy == plan::Strategy::kTpEp) {
    return "a plan of strategy tp+ep contains the collectives of attention, which are not part of a layer that runs";
  }
  if (plan.strategy == plan::Strategy::kTpTp && !layer.splits_experts()) {
    return "plans of strategy tp+tp can be predicted, but not executed on this device";
  }
  return layer.why_not(plan);
}

}  // namespace

void MoeExecutor::run(const plan::Plan& plan, const ops::MoeWeights& weights, MutableTensorView out) {
  const auto abort = [this](const char* what) { comm_.abort(what); };
  try {
    // A refusal aborts the communicator like any other error: the other ranks may already wait for this one.
    const std::string refusal = why_not(layer_, plan);
    if (!refusal.empty()) fail(ErrorKind::kUsage, "plan", {.what = refusal, .got = "", .wanted = "", .hint = ""});
    layer_.begin(plan, weights, out);
  } catch (const std::exception& e) {
    abort(e.what());
    throw;
  }
  layer_.lanes().run(
      plan, [&](int i) { layer_.run(plan.ops[static_cast<size_t>(i)]); }, abort);
}

}  // namespace eps::exec
