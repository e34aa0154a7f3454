#include "sim/decoder_cost.h"

#include <algorithm>

#include "arch/rank_part.h"
#include "base/error.h"

namespace eps::sim {
namespace {

int64_t divided_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

plan::OpCost find_op(const plan::HardwareProfile& profile, const char* name) {
  const auto it = profile.ops.find(name);
  return it == profile.ops.end() ? plan::OpCost{} : it->second;
}

// Head and gate are not quantised. If the profile has no times for their type, those of the quantised type are used.
const plan::GemmProfile& dense_gemm(const plan::HardwareProfile& profile, DType wanted, DType fallback) {
  const bool has = std::ranges::any_of(profile.gemms, [wanted](const plan::GemmProfile& gemm) {
    return gemm.kind == moe::GemmKind::kDense && gemm.weight_dtype == wanted;
  });
  return plan::find_gemm(profile, moe::GemmKind::kDense, has ? wanted : fallback);
}

}  // namespace

DecoderCost::DecoderCost(const SimulatedModel& model, const plan::HardwareProfile& profile, plan::Strategy strategy,
                         int num_ranks)
    : spec_(model.spec),
      part_(arch::part_of(model.spec, strategy, num_ranks)),
      profile_(profile),
      moe_(model.moe()),
      heads_split_(strategy != plan::Strategy::kDpEp),
      experts_split_(strategy == plan::Strategy::kTpTp),
      num_ranks_(num_ranks),
      linear_(plan::find_gemm(profile, moe::GemmKind::kDense, model.weight_dtype)),
      plain_(dense_gemm(profile, model.act_dtype, model.weight_dtype)),
      layer_(profile, moe_, 1) {
  if (profile.attention_tflops <= 0) {
    fail(ErrorKind::kUsage, "profile",
         {.what = fmt::format("profile {} has no rate of attention", profile.name),
          .got = fmt::format("attention_tflops {:g}", profile.attention_tflops),
          .wanted = "more than 0",
          .hint = ""});
  }
}

int64_t DecoderCost::attention_tokens(const PrefillBatch& batch) const {
  return heads_split_ ? batch.tokens() : own_tokens(batch);
}

int64_t DecoderCost::own_tokens(const PrefillBatch& batch) const {
  // Data-parallel attention gives each rank whole sequences; a reduce-scatter can split the tokens anywhere.
  return heads_split_ ? divided_up(batch.tokens(), num_ranks_)
                      : divided_up(batch.batch, num_ranks_) * batch.sequence_length;
}

int64_t DecoderCost::moe_tokens(const PrefillBatch& batch) const {
  return experts_split_ ? attention_tokens(batch) : own_tokens(batch);
}

double DecoderCost::gemm_us(const plan::GemmProfile& gemm, int64_t n, int64_t k, int64_t rows) const {
  if (rows == 0 || n == 0) return 0;
  return gemm.call_us + plan::RowTable(gemm, n, k)(rows);
}

double DecoderCost::embedding_us(const PrefillBatch& batch) const {
  const auto bytes =
      2.0 * static_cast<double>(attention_tokens(batch) * spec_.hidden) * static_cast<double>(size_of(moe_.act_dtype));
  return plan::time_us(find_op(profile_, "gather"), bytes);
}

double DecoderCost::projections_us(const PrefillBatch& batch) const {
  double us = 0;
  for (const Projection& p : attention_projections(part_.attention, part_.hidden)) {
    us += gemm_us(linear_, p.n, p.k, attention_tokens(batch));
  }
  return us;
}

double DecoderCost::scores_us(const PrefillBatch& batch, int64_t window) const {
  const auto s = static_cast<double>(batch.sequence_length);
  const arch::AttentionSpec& a = part_.attention;
  const double sequences = static_cast<double>(attention_tokens(batch)) / s;
  const double heads = a.num_heads();
  const double seen = window == 0 ? s : std::min(s, static_cast<double>(window));
  const double pairs = seen * (seen + 1) / 2 + (s - seen) * seen;
  // One multiplication and one addition for each element of the key and of the value.
  const double flops = 2.0 * (a.qk_dim() + a.v_dim()) * pairs * heads * sequences;
  return flops * 1e-6 / profile_.attention_tflops;
}

double DecoderCost::norm_us(int64_t tokens) const {
  const auto bytes = 4.0 * static_cast<double>(tokens * spec_.hidden) * static_cast<double>(size_of(moe_.act_dtype));
  return plan::time_us(find_op(profile_, "norm"), bytes);
}

double DecoderCost::gate_us(int64_t tokens) const {
  return gemm_us(plain_, spec_.moe.gate.num_experts, spec_.hidden, tokens);
}

double DecoderCost::ffn_us(int64_t inner, int64_t tokens) const {
  if (inner == 0 || tokens == 0) return 0;
  const auto silu_bytes = 3.0 * static_cast<double>(tokens * inner) * static_cast<double>(size_of(moe_.act_dtype));
  return gemm_us(linear_, 2 * inner, spec_.hidden, tokens) + plan::time_us(find_op(profile_, "silu_mul"), silu_bytes) +
         gemm_us(linear_, spec_.hidden, inner, tokens);
}

double DecoderCost::dense_ffn_us(const PrefillBatch& batch) const {
  return ffn_us(part_.dense_inner(), attention_tokens(batch));
}

double DecoderCost::residual_ffn_us(const PrefillBatch& batch) const {
  return ffn_us(part_.moe.residual_inner, moe_tokens(batch));
}

double DecoderCost::lm_head_us(const PrefillBatch& batch) const {
  const int64_t rows = heads_split_ ? batch.batch : divided_up(batch.batch, num_ranks_);
  return gemm_us(plain_, heads_split_ ? divided_up(spec_.vocab_size, num_ranks_) : spec_.vocab_size, spec_.hidden,
                 rows);
}

double DecoderCost::all_reduce_us(const PrefillBatch& batch) const {
  if (!heads_split_ || num_ranks_ == 1 || profile_.links.empty()) return 0;
  // Nothing runs beside it, so it uses the fastest link.
  const plan::LinkPoint& link = *std::ranges::max_element(profile_.links, {}, &plan::LinkPoint::gbps);
  return 2 * layer_.scatter_us(link, batch.tokens(), num_ranks_, moe_.act_dtype);
}

}  // namespace eps::sim
