// epsmoe inspect: shows the contents of a model, and the memory that each rank needs for each number of ranks.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <iterator>
#include <memory>

#include "arch/rank_part.h"
#include "base/error.h"
#include "cli/command.h"
#include "cli/console.h"
#include "engine/model_folder.h"
#include "io/json.h"

namespace eps::cli {
namespace {

struct InspectFlags {
  std::string model;
  bool json = false;
};

constexpr plan::Strategy kStrategies[] = {plan::Strategy::kDpEp, plan::Strategy::kTpEp, plan::Strategy::kTpTp};

// Of one rank, by strategy in the order above; 0 where the ranks cannot split the model so.
struct RankMemory {
  int ep;
  std::array<double, std::size(kStrategies)> weight_bytes;
  std::array<int64_t, std::size(kStrategies)> cache_bytes;  // of one token
};

double bytes_per_parameter(const engine::ModelFolder& folder) {
  // Presets have bf16 weights, and quantised ones are unpacked to bf16.
  if (!folder.checkpoint || folder.spec.fp8_blocks || folder.spec.mxfp4) return 2.0;
  return static_cast<double>(folder.checkpoint->total_bytes()) /
         static_cast<double>(folder.checkpoint->num_parameters());
}

// On the CPU, the cache of latent attention is f32; that of grouped-query attention has the compute dtype, bf16 or f32,
// of which the smaller one is shown.
int64_t cache_bytes_per_token(const arch::ModelSpec& spec) {
  const int64_t element_bytes = spec.attention.latent() ? 4 : 2;
  return element_bytes * spec.num_layers() * spec.attention.cache_elements_per_token();
}

bool can_split(const arch::ModelSpec& spec, plan::Strategy strategy, int ep) {
  try {
    arch::check_split(spec, strategy, ep, spec.family);
    return true;
  } catch (const Error&) {
    return false;
  }
}

std::vector<RankMemory> memory_by_ep(const engine::ModelFolder& folder) {
  const arch::ModelSpec& spec = folder.spec;
  const double each = bytes_per_parameter(folder);
  std::vector<RankMemory> out;
  for (int ep = 1; ep <= std::max(1, spec.moe.gate.num_experts); ++ep) {
    if (spec.moe.gate.num_experts % ep != 0) continue;
    RankMemory memory{ep, {}, {}};
    for (size_t i = 0; i < std::size(kStrategies); ++i) {
      if (!can_split(spec, kStrategies[i], ep)) continue;
      memory.weight_bytes[i] = each * arch::parameters_of_rank(spec, kStrategies[i], ep);
      memory.cache_bytes[i] = cache_bytes_per_token(arch::part_of(spec, kStrategies[i], ep));
    }
    out.push_back(memory);
  }
  return out;
}

std::string describe(const arch::RopeSpec& rope, int head_dim) {
  std::string out = fmt::format("rope θ {:g}", rope.theta);
  if (rope.dim < head_dim) out += fmt::format(" on {} elements", rope.dim);
  if (const auto* linear = std::get_if<arch::LinearScaling>(&rope.scaling))
    out += fmt::format(", ÷{:g}", linear->factor);
  if (const auto* llama3 = std::get_if<arch::Llama3Scaling>(&rope.scaling)) {
    out += fmt::format(", Llama 3 ×{:g}", llama3->factor);
  }
  if (rope.yarn()) out += fmt::format(", YaRN ×{:g}", rope.yarn()->factor);
  return out;
}

std::string describe_attention(const arch::ModelSpec& spec) {
  const arch::AttentionSpec& a = spec.attention;
  if (const arch::LatentAttention* latent = a.latent()) {
    const ops::MlaParams& p = latent->mla;
    return fmt::format("latent: {} heads × ({} + {} rope), value {}, kv rank {}, q rank {}, {}", p.num_heads,
                       p.nope_dim, p.rope_dim, p.v_dim, p.kv_lora_rank,
                       latent->q_lora_rank == 0 ? "full" : std::to_string(latent->q_lora_rank),
                       describe(a.rope, p.rope_dim));
  }
  const arch::GroupedAttention& grouped = *a.grouped();
  std::string out = fmt::format("grouped-query: {} heads × {}, {} key-value heads, {}", grouped.gqa.num_heads,
                                grouped.gqa.head_dim, grouped.gqa.num_kv_heads, describe(a.rope, grouped.gqa.head_dim));
  if (grouped.qk_norm == arch::QkNorm::kHead) out += ", q and k normalised by head";
  if (grouped.qk_norm == arch::QkNorm::kWhole) out += ", q and k normalised";
  if (grouped.qkv_bias) out += ", biases";
  if (grouped.clip_qkv > 0) out += fmt::format(", clipped to ±{:g}", grouped.clip_qkv);
  if (grouped.sinks) out += ", sinks";
  const auto windows = std::ranges::count_if(spec.layers, [](const arch::LayerSpec& l) { return l.window > 0; });
  if (windows > 0) {
    const auto with = std::ranges::find_if(spec.layers, [](const arch::LayerSpec& l) { return l.window > 0; });
    out += fmt::format(", window {} in {} layers", with->window, windows);
  }
  return out;
}

std::string describe_experts(const arch::MoeSpec& moe) {
  const ops::GateParams& g = moe.gate;
  std::string out = fmt::format("{} of inner size {}, top-{}", g.num_experts, moe.inner, g.top_k);
  if (g.limits_groups()) out += fmt::format(" from the best {} of {} groups", g.topk_group, g.num_groups);
  if (g.score == ops::RouterScore::kSigmoid) out += ", sigmoid";
  if (g.correction) out += " with correction";
  if (g.norm_topk_prob) out += ", normalised";
  out += fmt::format(", scaling {:g}, shared inner size {}", g.routed_scaling_factor, moe.shared_inner);
  if (moe.shared_gate) out += " (gated)";
  if (moe.residual_inner > 0) out += fmt::format(", dense FFN of {} beside them", moe.residual_inner);
  return out;
}

std::string size_text(double bytes) {
  for (const char* unit : {"B", "kB", "MB", "GB"}) {
    if (bytes < 1000) return fmt::format("{:.{}f} {}", bytes, unit[0] == 'B' ? 0 : 1, unit);
    bytes /= 1000;
  }
  return fmt::format("{:.2f} TB", bytes);
}

void print_text(const engine::ModelFolder& folder, const std::string& name) {
  const arch::ModelSpec& s = folder.spec;
  print_output("{}\n", printable(name));
  print_output("  family      {}\n", printable(s.family));
  print_output("  parameters  {:.2f} M, {:.2f} M active per token\n", static_cast<double>(s.total_parameters()) * 1e-6,
               static_cast<double>(s.active_parameters()) * 1e-6);
  print_output("  layers      {} ({} dense, {} MoE), hidden {}, vocabulary {}{}, context {}\n", s.num_layers(),
               s.num_layers() - s.num_moe_layers(), s.num_moe_layers(), s.hidden, s.vocab_size,
               s.tie_embeddings ? " (tied)" : "", s.max_positions);
  print_output("  attention   {}\n", describe_attention(s));
  if (s.num_moe_layers() > 0) print_output("  experts     {}\n", describe_experts(s.moe));
  if (folder.checkpoint) {
    for (const auto& [dtype, totals] : folder.checkpoint->dtype_totals()) {
      print_output("  stored      {} tensors of {}, {}\n", totals.num_tensors, printable(dtype),
                   size_text(static_cast<double>(totals.num_bytes)));
    }
  }
  print_output("  kv cache    {} a token\n", size_text(static_cast<double>(cache_bytes_per_token(s))));
  for (const std::string& key : folder.unknown_keys) print_output("  unknown     {}\n", printable(key));
  const model::WeightCensus& w = folder.weights;
  for (const auto& [label, names] :
       {std::pair("skipped", &w.skipped), std::pair("not used", &w.suspicious), std::pair("no place", &w.misplaced)}) {
    if (!names->empty()) print_output("  {:<11} {} weights: {}\n", label, names->size(), model::summarize(w, *names));
  }
  for (const LoadNote& note : folder.notes) {
    print_output("  {:<11} {}\n", note.is_warning ? "warning" : "note", printable(note.text, 2000));
  }
  print_output("  weights of one rank and its cache a token, by --ep and --strategy:\n    {:>4}", "");
  for (const plan::Strategy strategy : kStrategies) print_output("  {:^20}", plan::to_string(strategy));
  print_output("\n");
  for (const RankMemory& m : memory_by_ep(folder)) {
    print_output("    {:>4}", m.ep);
    for (size_t i = 0; i < std::size(kStrategies); ++i) {
      const bool is_possible = m.weight_bytes[i] > 0;
      print_output("  {:>10} {:>9}", is_possible ? size_text(m.weight_bytes[i]) : "–",
                   is_possible ? size_text(static_cast<double>(m.cache_bytes[i])) : "–");
    }
    print_output("\n");
  }
}

io::Json to_json(const engine::ModelFolder& folder, const std::string& name) {
  const arch::ModelSpec& s = folder.spec;
  io::Json by_ep = io::Json::array();
  for (const RankMemory& m : memory_by_ep(folder)) {
    io::Json strategies = io::Json::object();
    for (size_t i = 0; i < std::size(kStrategies); ++i) {
      if (m.weight_bytes[i] == 0) continue;
      strategies[std::string(plan::to_string(kStrategies[i]))] = {{"weight_bytes", m.weight_bytes[i]},
                                                                  {"kv_cache_bytes_per_token", m.cache_bytes[i]}};
    }
    by_ep.push_back({{"ep", m.ep}, {"weight_bytes", m.weight_bytes.front()}, {"strategies", strategies}});
  }
  io::Json dtypes = io::Json::object();
  if (folder.checkpoint) {
    for (const auto& [dtype, totals] : folder.checkpoint->dtype_totals()) dtypes[dtype] = totals.num_bytes;
  }
  io::Json notes = io::Json::array();
  for (const LoadNote& note : folder.notes) notes.push_back({{"text", note.text}, {"warning", note.is_warning}});
  return {{"model", name},
          {"family", s.family},
          {"parameters", s.total_parameters()},
          {"active_parameters", s.active_parameters()},
          {"num_layers", s.num_layers()},
          {"num_moe_layers", s.num_moe_layers()},
          {"hidden", s.hidden},
          {"vocab_size", s.vocab_size},
          {"context", s.max_positions},
          {"num_experts", s.moe.gate.num_experts},
          {"top_k", s.moe.gate.top_k},
          {"kv_cache_bytes_per_token", cache_bytes_per_token(s)},
          {"bytes_by_dtype", dtypes},
          {"unknown_keys", folder.unknown_keys},
          {"skipped_weights", folder.weights.skipped},
          {"suspicious_weights", folder.weights.suspicious},
          {"misplaced_weights", folder.weights.misplaced},
          {"notes", notes},
          {"memory_per_rank", by_ep}};
}

}  // namespace

void add_inspect_command(CLI::App& app, Chosen& chosen) {
  CLI::App& command =
      *app.add_subcommand("inspect", "Show the contents of a model, and the memory per rank for each --ep");
  const auto flags = std::make_shared<InspectFlags>();
  command.add_option("-m,--model", flags->model, "A model folder, or a preset such as deepseek-v2-lite")->required();
  command.add_flag("--json", flags->json, "Print one JSON object on stdout");
  command.footer("Examples:\n  epsmoe inspect -m models/austen-moe\n  epsmoe inspect -m deepseek-v2");
  command.callback([flags, &chosen] {
    chosen.action = [flags] {
      const engine::ModelFolder folder = engine::open_model_folder(flags->model, engine::is_preset(flags->model));
      if (flags->json) {
        print_output("{}\n", io::dump_json(to_json(folder, flags->model)));
      } else {
        print_text(folder, flags->model);
      }
      return 0;
    };
  });
}

}  // namespace eps::cli
