#include "plan/op_cost.h"

#include <algorithm>

namespace eps::plan {
namespace {

double message_us(const OpTerms& terms, const MessageRows& rows, DType wire) {
  const auto row_bytes = static_cast<double>(wire_row_bytes(wire, terms.cost->shape().hidden));
  return terms.cost->pack_us(rows.sent_rows, wire) +
         terms.cost->message_us(terms.link, rows.near_rows * row_bytes, rows.far_rows * row_bytes);
}

}  // namespace

double collective_us(const OpTerms& terms, const OpLoad& /*load*/) {
  if (terms.ring_passes == 0) return 0;
  return terms.ring_passes * terms.cost->scatter_us(terms.link, terms.all_tokens, terms.num_ranks, terms.wire.combine);
}

double dispatch_us(const OpTerms& terms, const OpLoad& load) {
  const double us = message_us(terms, load.dispatch, terms.wire.dispatch);
  if (terms.link.spread_gbps <= 0 || load.dispatch.near_rows <= 0) return us;
  const auto row_bytes = static_cast<double>(wire_row_bytes(terms.wire.dispatch, terms.cost->shape().hidden));
  const double written = load.dispatch.near_rows * terms.copies * row_bytes;
  return std::max(us, terms.link.alpha_us + written * 1e-3 / terms.link.spread_gbps);
}

double combine_us(const OpTerms& terms, const OpLoad& load) {
  return message_us(terms, load.combine, terms.wire.combine);
}

double shared_us(const OpTerms& terms, const OpLoad& load) { return terms.cost->shared_us(load.tokens, terms.factors); }

double gate_up_us(const OpTerms& terms, const OpLoad& load) {
  return terms.cost->memory_us(OpKind::kGateUp, load.stage.rows) +
         terms.cost->gemm_us(load.gate_up_kernel, load.stage.gate_up(), terms.factors);
}

double silu_mul_us(const OpTerms& terms, const OpLoad& load) {
  return terms.cost->memory_us(OpKind::kSiluMul, load.stage.rows);
}

double down_us(const OpTerms& terms, const OpLoad& load) {
  return terms.cost->gemm_us(load.down_kernel, load.stage.down(), terms.factors);
}

double reduce_us(const OpTerms& terms, const OpLoad& load) {
  return terms.cost->memory_us(OpKind::kReduce, load.stage.rows);
}

double finish_us(const OpTerms& terms, const OpLoad& load) {
  return terms.cost->memory_us(OpKind::kFinish, load.tokens);
}

ClockRates op_rates(const OpRow& row, const OpTerms& terms, const OpLoad& load) {
  switch (row.rates) {
    case OpRates::kAlone: return {};
    case OpRates::kDenseGemm: return terms.factors.dense_rates;
    case OpRates::kStageGemms: break;
  }
  double dense = 0;
  double grouped = 0;
  const auto add = [&](moe::GemmKind kind, const StageGemm& gemm) {
    (kind == moe::GemmKind::kDense ? dense : grouped) += terms.cost->gemm_us(kind, gemm, terms.factors);
  };
  add(load.gate_up_kernel, load.stage.gate_up());
  add(load.down_kernel, load.stage.down());
  return mix_rates(terms.factors, dense, grouped);
}

}  // namespace eps::plan
