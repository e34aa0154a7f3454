#include "plan/plan_ops.h"

#include "plan/op_table.h"

namespace eps::plan {
namespace {

class OpList {
 public:
  // Dependencies of -1 are ignored.
  int add(OpKind kind, int stage, std::vector<int> deps, TokenShare share = {}) {
    std::erase(deps, -1);
    ops_.push_back({kind, op_row(kind).lane, stage, std::move(deps), share});
    return static_cast<int>(ops_.size()) - 1;
  }
  // Adds gate_up, silu_mul, down and reduce of one stage and returns the index of the last one.
  int add_expert_ffn(int stage, int after) {
    const int gate_up = add(OpKind::kGateUp, stage, {after});
    const int silu = add(OpKind::kSiluMul, stage, {gate_up});
    const int down = add(OpKind::kDown, stage, {silu});
    return add(OpKind::kReduce, stage, {down});
  }
  std::vector<PlanOp> take() { return std::move(ops_); }

 private:
  std::vector<PlanOp> ops_;
};

}  // namespace

std::vector<PlanOp> serial_ops(const OpShape& shape) {
  OpList ops;
  int last = -1;
  if (shape.collectives) last = ops.add(OpKind::kEnter, -1, {});
  if (shape.ranks) last = ops.add(OpKind::kDispatch, 0, {last});
  last = ops.add_expert_ffn(0, last);
  if (shape.ranks) last = ops.add(OpKind::kCombine, 0, {last});
  if (shape.shared) last = ops.add(OpKind::kShared, -1, {last});
  last = ops.add(OpKind::kFinish, -1, {last});
  if (shape.collectives) ops.add(OpKind::kLeave, -1, {last});
  return ops.take();
}

std::vector<PlanOp> pipelined_ops(std::span<const Stage> stages, const OpShape& shape) {
  OpList ops;
  const int enter = shape.collectives ? ops.add(OpKind::kEnter, -1, {}) : -1;
  std::vector<int> rows_here;
  for (size_t s = 0; s < stages.size(); ++s) {
    const bool travels = shape.ranks && stages[s].part != moe::TokenPart::kLocal;
    rows_here.push_back(travels ? ops.add(OpKind::kDispatch, static_cast<int>(s), {enter}) : enter);
  }
  // The shared experts do not depend on other ranks, so they run during the first dispatch.
  std::vector<int> before_finish;
  if (shape.shared && shape.first_share > 0) {
    before_finish.push_back(ops.add(OpKind::kShared, -1, {enter}, {0, shape.first_share}));
  }
  for (size_t s = 0; s < stages.size(); ++s) {
    const int reduce = ops.add_expert_ffn(static_cast<int>(s), rows_here[s]);
    const bool travels = shape.ranks && stages[s].part != moe::TokenPart::kLocal;
    before_finish.push_back(travels ? ops.add(OpKind::kCombine, static_cast<int>(s), {reduce}) : reduce);
  }
  if (shape.shared && shape.first_share < 1000) {
    before_finish.push_back(ops.add(OpKind::kShared, -1, {enter}, {shape.first_share, 1000}));
  }
  const int finish = ops.add(OpKind::kFinish, -1, std::move(before_finish));
  if (shape.collectives) ops.add(OpKind::kLeave, -1, {finish});
  return ops.take();
}

}  // namespace eps::plan
