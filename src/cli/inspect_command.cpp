// epsmoe inspect: shows the contents of a model, and the memory that each rank needs for each number of ranks.
#include <fmt/format.h>

#include <memory>

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

struct RankMemory {
  int ep;
  double weight_bytes;  // per rank: its experts and everything that is not a routed expert
};

double bytes_per_parameter(const engine::ModelFolder& folder) {
  if (!folder.checkpoint) return 2.0;  // presets: bf16
  return static_cast<double>(folder.checkpoint->total_bytes()) /
         static_cast<double>(folder.checkpoint->num_parameters());
}

std::vector<RankMemory> memory_by_ep(const engine::ModelFolder& folder) {
  const model::ModelSpec& spec = folder.spec;
  const double each = bytes_per_parameter(folder);
  const double routed = static_cast<double>(spec.num_moe_layers()) * spec.moe.gate.num_experts *
                        static_cast<double>(spec.num_moe_layers() > 0 ? spec.expert_parameters() : 0);
  std::vector<RankMemory> out;
  for (int ep = 1; ep <= std::max(1, spec.moe.gate.num_experts); ++ep) {
    if (spec.moe.gate.num_experts % ep != 0) continue;
    out.push_back({ep, each * (static_cast<double>(spec.total_parameters()) - routed + routed / ep)});
  }
  return out;
}

// The cache contains the latent vector and the rotated key of every layer, stored as f32.
int64_t cache_bytes_per_token(const model::ModelSpec& spec) {
  return int64_t{4} * spec.num_layers() * (spec.attention.mla.kv_lora_rank + spec.attention.mla.rope_dim);
}

std::string size_text(double bytes) {
  for (const char* unit : {"B", "kB", "MB", "GB"}) {
    if (bytes < 1000) return fmt::format("{:.{}f} {}", bytes, unit[0] == 'B' ? 0 : 1, unit);
    bytes /= 1000;
  }
  return fmt::format("{:.2f} TB", bytes);
}

void print_text(const engine::ModelFolder& folder, const std::string& name) {
  const model::ModelSpec& s = folder.spec;
  const ops::MlaParams& a = s.attention.mla;
  const ops::GateParams& g = s.moe.gate;
  print_output("{}\n", printable(name));
  print_output("  family      {}\n", printable(s.family));
  print_output("  parameters  {:.2f} M, {:.2f} M active per token\n", static_cast<double>(s.total_parameters()) * 1e-6,
               static_cast<double>(s.active_parameters()) * 1e-6);
  print_output("  layers      {} ({} dense, {} MoE), hidden {}, vocabulary {}{}, context {}\n", s.num_layers(),
               s.num_layers() - s.num_moe_layers(), s.num_moe_layers(), s.hidden, s.vocab_size,
               s.tie_embeddings ? " (tied)" : "", s.max_positions);
  print_output("  attention   latent: {} heads × ({} + {} rope), value {}, kv rank {}, q rank {}, rope θ {:g}{}\n",
               a.num_heads, a.nope_dim, a.rope_dim, a.v_dim, a.kv_lora_rank,
               s.attention.q_lora_rank == 0 ? "full" : std::to_string(s.attention.q_lora_rank), s.attention.rope.theta,
               s.attention.rope.yarn ? fmt::format(", YaRN ×{:g}", s.attention.rope.yarn->factor) : "");
  if (s.num_moe_layers() > 0) {
    print_output("  experts     {} of inner size {}, top-{}{}{}, scaling {:g}, shared inner size {}\n", g.num_experts,
                 s.moe.inner, g.top_k,
                 g.method == ops::TopkMethod::kGroupLimitedGreedy
                     ? fmt::format(" from the best {} of {} groups", g.topk_group, g.num_groups)
                     : "",
                 g.norm_topk_prob ? ", normalised" : "", g.routed_scaling_factor, s.moe.shared_inner);
  }
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
  print_output("  weights of one rank, by --ep:\n");
  for (const RankMemory& m : memory_by_ep(folder)) print_output("    {:>4}  {:>10}\n", m.ep, size_text(m.weight_bytes));
}

io::Json to_json(const engine::ModelFolder& folder, const std::string& name) {
  const model::ModelSpec& s = folder.spec;
  io::Json by_ep = io::Json::array();
  for (const RankMemory& m : memory_by_ep(folder)) by_ep.push_back({{"ep", m.ep}, {"weight_bytes", m.weight_bytes}});
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
