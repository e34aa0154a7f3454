#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "paper_data.h"
#include "sim/prefill.h"
#include "tables.h"

namespace eps::paper {
namespace {

// A way to run a whole model.
struct Variant {
  plan::Strategy strategy = plan::Strategy::kDpEp;
  std::optional<moe::GemmKind> kernel = {};
  int num_stages = 1;
  bool fused_rows = false;
};

sim::SimulatedModel simulated_model(std::string_view name, const TableOptions& options) {
  sim::SimulatedModel model = sim::preset_model(name);
  model.weight_dtype = options.weights;
  if (!options.shared_overlap) {
    // As a dense FFN beside the experts they cost the same, one after the other.
    model.spec.moe.residual_inner += model.spec.moe.shared_inner;
    model.spec.moe.shared_inner = 0;
  }
  return model;
}

plan::HardwareProfile with_ring(plan::HardwareProfile profile, const plan::LinkPoint& ring) {
  profile.links = {ring};
  return profile;
}

double ttft_us(const sim::SimulatedModel& model, int num_ranks, const sim::PrefillBatch& batch, const Variant& variant,
               const TableOptions& table) {
  sim::PrefillOptions options;
  options.num_ranks = num_ranks;
  options.strategy = variant.strategy;
  options.batch = batch;
  options.pipeline = paper_pipeline(variant.num_stages);
  // Grouped GEMMs leave the messages their SMs; dense ones cannot.
  options.limits = paper_limits({variant.num_stages, variant.kernel, 116});
  std::vector<plan::MoeProblem> problems = sim::prefill_problems(model, options);
  plan::HardwareProfile profile =
      variant.fused_rows ? with_fused_rows(table.profile, model.spec.moe.gate.top_k) : table.profile;
  const bool has_ring = table.ring.gbps > 0 && variant.strategy != plan::Strategy::kDpEp;
  const plan::HardwareProfile ring = with_ring(profile, has_ring ? table.ring : profile.links.front());
  if (variant.strategy == plan::Strategy::kTpTp) return sim::simulate_prefill(model, ring, options, problems).ttft_us;
  for (plan::MoeProblem& problem : problems) {
    if (!table.reading.once_per_rank) send_once_an_expert(problem);
    if (has_ring) problem.strategy = plan::Strategy::kDpEp;  // without the rings around it, which are added below
  }
  const sim::PrefillResult result = sim::simulate_prefill(model, profile, options, problems);
  if (!has_ring) return result.ttft_us;
  // A reduce-scatter and an all-gather around each MoE layer are an all-reduce; nothing runs beside them.
  const double all_reduce = sim::DecoderCost(model, ring, variant.strategy, num_ranks).all_reduce_us(batch);
  const int rings = 1 + 2 * model.spec.num_dense_layers() + model.spec.num_moe_layers();
  return result.ttft_us - result.parts.collectives_us + rings * all_reduce;
}

std::string length_name(int64_t length) {
  return length % 1024 == 0 ? fmt::format("{}k", length / 1024)
                            : fmt::format("{:.1f}k", static_cast<double>(length) / 1024);
}

// Cells of a table of times to first token against a baseline.
void add_ttft_cells(Section& section, const TtftTable& table, const Variant& base, const std::vector<Variant>& variants,
                    const TableOptions& options) {
  sim::SimulatedModel model = simulated_model(table.model, options);
  // Of other numbers of layers, the dense ones stay.
  if (table.num_layers > 0) model.spec.layers.resize(static_cast<size_t>(table.num_layers));
  for (const BatchCell& cell : table.cells) {
    const sim::PrefillBatch batch{cell.batch, cell.length};
    const double base_us = ttft_us(model, table.num_ranks, batch, base, options);
    const bool seconds = table.num_layers == 0;
    const std::string row = fmt::format("batch {} × {}", cell.batch, length_name(cell.length));
    for (size_t i = 0; i < variants.size(); ++i) {
      const double us = ttft_us(model, table.num_ranks, batch, variants[i], options);
      section.cells.push_back(
          {section.table, row, std::string(table.variants[i]), cell.change[i], 100 * (us / base_us - 1), 6, false, ""});
    }
    section.cells.push_back({section.table, row, seconds ? "base, s (not fitted)" : "base, ms (not fitted)", cell.base,
                             base_us * (seconds ? 1e-6 : 1e-3), 0, true, ""});
  }
}

Section ttft_section(std::string number, const TtftTable& table, std::string what) {
  return {fmt::format("{} {}", number, table.model),
          fmt::format("{}, {} GPUs: time to first token", table.model, table.num_ranks),
          "change, %",
          2,
          {std::move(what)},
          {},
          {}};
}

Variant vllm(const TableOptions& options) {
  return {plan::Strategy::kTpTp, moe::GemmKind::kGrouped, 1, options.fused_base};
}

}  // namespace

plan::HardwareProfile with_fused_rows(plan::HardwareProfile profile, int top_k) {
  profile.ops["gather"] = {0, 1e9};
  plan::OpCost& reduce = profile.ops["reduce"];
  reduce.gbps *= 3.0 * top_k / (top_k + 1);
  profile.ops["finish"] = {0, 1e9};
  return profile;
}

Section deepseek_gains(const TableOptions& options) {
  Section section{
      "2", "DeepSeekV2, 8 GPUs, dp+ep: prefill throughput against serial with grouped GEMMs", "gain, %", 2, {}, {}, {}};
  section.lines = {
      fmt::format("Batch {} (not in the paper), PN=1 and PN=20 dense as the paper says, PN=5 in the "
                  "better kernel of each stage.",
                  options.t2_batch)};
  const sim::SimulatedModel model = simulated_model("deepseek-v2", options);
  for (const int64_t length : kT2Lengths) {
    const sim::PrefillBatch batch{options.t2_batch, length};
    const double base = ttft_us(model, 8, batch, {plan::Strategy::kDpEp, moe::GemmKind::kGrouped, 1, false}, options);
    const double rate = static_cast<double>(batch.tokens()) / base;  // tokens a µs
    section.cells.push_back(
        {"2", "base, 1000 tokens/s (not fitted)", length_name(length), 100, rate * 1e3, 0, true, ""});
    double gain[3] = {};
    for (size_t i = 0; i < table2().size(); ++i) {
      const T2Row& row = table2()[i];
      Variant variant{plan::Strategy::kDpEp, moe::GemmKind::kDense, row.num_stages, false};
      if (row.num_stages == 5) variant.kernel.reset();
      gain[i] = 100 * (base / ttft_us(model, 8, batch, variant, options) - 1);
      const auto column = static_cast<size_t>(std::ranges::find(kT2Lengths, length) - kT2Lengths.begin());
      section.cells.push_back(
          {"2", fmt::format("PN={}", row.num_stages), length_name(length), row.gain[column], gain[i], 5, false, ""});
    }
    section.claims.push_back({"2", fmt::format("{}: PN=5 > PN=20 > PN=1", length_name(length)),
                              gain[1] > gain[2] && gain[2] > gain[0],
                              fmt::format("{:.1f}, {:.1f}, {:.1f} %", gain[1], gain[2], gain[0])});
  }
  return section;
}

Section mixtral_ttft(const TableOptions& options) {
  const TtftTable& table = table3_mixtral();
  Section section = ttft_section("3", table,
                                 "Base: tp+tp with one fused grouped kernel. Same GEMM: tp+ep with that kernel. PN=1, "
                                 "PN=2: tp+ep, the better kernel of each stage.");
  add_ttft_cells(section, table, vllm(options),
                 {{plan::Strategy::kTpEp, moe::GemmKind::kGrouped, 1, options.fused_base},
                  {plan::Strategy::kTpEp, {}, 1, false},
                  {plan::Strategy::kTpEp, {}, 2, false}},
                 options);
  return section;
}

Section dbrx_ttft(const TableOptions& options) {
  const TtftTable& table = table3_dbrx();
  Section section = ttft_section("3", table,
                                 "Base: tp+tp with one fused grouped kernel. PN=1, PN=2: tp+ep, the better kernel of "
                                 "each stage.");
  add_ttft_cells(section, table, vllm(options),
                 {{plan::Strategy::kTpEp, {}, 1, false}, {plan::Strategy::kTpEp, {}, 2, false}}, options);
  return section;
}

Section arctic_ttft(const TableOptions& options) {
  const TtftTable& table = table4_arctic();
  Section section = ttft_section("4", table,
                                 "3 layers. Base: tp+ep without a pipeline, kernels as in the pipelined rows: the "
                                 "paper does not say what its base is.");
  add_ttft_cells(section, table, {plan::Strategy::kTpEp, {}, 1, false},
                 {{plan::Strategy::kTpEp, {}, 4, false}, {plan::Strategy::kTpEp, {}, 8, false}}, options);
  return section;
}

}  // namespace eps::paper
