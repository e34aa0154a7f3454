// epsmoe generate: text on stdout as it comes, a summary on stderr.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <iostream>
#include <iterator>
#include <memory>

#include "base/error.h"
#include "cli/command.h"
#include "cli/first_use.h"
#include "cli/output_file.h"
#include "io/file.h"
#include "io/json.h"

namespace eps::cli {
namespace {

struct GenerateFlags {
  EngineOptions engine;
  GenerateRequest request;
  std::string prompt_file;
  bool has_prompt = false;
  std::string trace;
  bool json = false;
  bool no_tune = false;
};

std::string read_prompt(const GenerateFlags& flags) {
  if (flags.has_prompt) return flags.request.prompt;
  if (!flags.prompt_file.empty() && flags.prompt_file != "-") return read_file(flags.prompt_file, kMaxTextBytes);
  if (isatty(STDIN_FILENO) == 1 && flags.prompt_file.empty()) {
    fail(ErrorKind::kUsage, "generate",
         {.what = "no prompt", .got = "", .wanted = "-p TEXT, -f FILE or text on standard input", .hint = ""});
  }
  return {std::istreambuf_iterator<char>(std::cin), std::istreambuf_iterator<char>()};
}

double per_second(int64_t count, double seconds) { return seconds > 0 ? static_cast<double>(count) / seconds : 0.0; }

int64_t decoded_after_first(const GenerateResult& r) { return std::max<int64_t>(0, std::ssize(r.ids) - 1); }

std::string list_counts(const EngineReport& report) {
  std::string out;
  for (const auto& [stages, layers] : report.moe_layers_by_stages) {
    out +=
        fmt::format("{}{} stage{} in {} layer runs", out.empty() ? "" : ", ", stages, stages == 1 ? "" : "s", layers);
  }
  for (const auto& [kernel, count] : report.stages_by_kernel) out += fmt::format(", {} × {}", kernel, count);
  return out;
}

void print_summary(const GenerateFlags& flags, const GenerateResult& r, const EngineReport& report) {
  const auto prompt = std::ssize(r.prompt_ids);
  fmt::print(stderr, "prompt     {} tokens, {:.1f} tok/s prefill, first token after {:.3f} s\n", prompt,
             per_second(prompt, r.prefill_seconds), r.time_to_first_token_seconds);
  fmt::print(stderr, "generated  {} tokens, {:.1f} tok/s decode ({})\n", r.ids.size(),
             per_second(decoded_after_first(r), r.decode_seconds), r.finish_reason);
  fmt::print(stderr, "ranks      {} × {}\n", report.op_sets.size(), report.op_sets.front());
  fmt::print(stderr, "moe        {}\n", list_counts(report));
  if (report.communication_seconds > 0) {
    fmt::print(stderr, "overlap    {:.0f} % of {:.1f} ms dispatch and combine ran under compute\n",
               100 * report.hidden_communication_seconds / report.communication_seconds,
               1e3 * report.communication_seconds);
  }
  if (report.measured_seconds > 0) {
    fmt::print(
        stderr,
        "plans      {:.1f} ms predicted, {:.1f} ms measured in MoE layers ({:+.0f} %; a layer is off by {:.0f} %), "
        "profile {}; {} made, {:.1f} ms with sorting rows\n",
        1e3 * report.promised_seconds, 1e3 * report.measured_seconds,
        100 * (report.promised_seconds / report.measured_seconds - 1),
        100 * report.error_seconds / report.measured_seconds, report.profile, report.plans_made,
        1e3 * report.setup_seconds);
  }
  if (!report.profile_note.empty())
    fmt::print(stderr, "profile    {}: `epsmoe tune` measures this machine\n", report.profile_note);
  if (!flags.trace.empty()) fmt::print(stderr, "trace      {} (open in ui.perfetto.dev)\n", flags.trace);
}

Json to_json(const GenerateFlags& flags, const GenerateResult& r, const EngineReport& report) {
  Json out = {{"text", r.text},
              {"prompt_tokens", r.prompt_ids.size()},
              {"generated_tokens", r.ids.size()},
              {"token_ids", r.ids},
              {"finish_reason", r.finish_reason},
              {"prefill_tok_s", per_second(std::ssize(r.prompt_ids), r.prefill_seconds)},
              {"decode_tok_s", per_second(decoded_after_first(r), r.decode_seconds)},
              {"ttft_s", r.time_to_first_token_seconds},
              {"op_sets", report.op_sets},
              {"stages_by_kernel", report.stages_by_kernel},
              {"communication_s", report.communication_seconds},
              {"hidden_communication_s", report.hidden_communication_seconds},
              {"profile", report.profile},
              {"promised_moe_s", report.promised_seconds},
              {"measured_moe_s", report.measured_seconds},
              {"prediction_error_s", report.error_seconds},
              {"setup_moe_s", report.setup_seconds},
              {"plans_made", report.plans_made}};
  for (const auto& [stages, layers] : report.moe_layers_by_stages) {
    out["moe_layers_by_stages"][std::to_string(stages)] = layers;
  }
  if (!flags.trace.empty()) out["trace"] = flags.trace;
  return out;
}

int run(GenerateFlags& flags) {
  flags.engine.record_trace = !flags.trace.empty();
  if (flags.engine.record_trace) require_writable("--trace", flags.trace);
  flags.request.prompt = read_prompt(flags);
  if (!flags.no_tune) {
    try {
      measure_on_first_use(flags.engine);
    } catch (const Error&) {
      if (!interrupted()) throw;
      fmt::print(stderr, "(interrupted)\n");
      return kInterruptedExit;
    }
  }
  const auto engine = open_engine(flags.engine);
  bool begun = false;  // the prompt is repeated only once it was accepted
  const auto write = [&](std::string_view text) {
    if (flags.json) return;
    if (!begun) fmt::print("{}", flags.request.prompt);
    begun = true;
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fflush(stdout);
  };
  const GenerateResult result = engine->generate(flags.request, [&write](std::string_view text) {
    write(text);
    return !interrupted();
  });
  if (!flags.json) write("\n");
  if (flags.engine.record_trace) write_file(flags.trace, engine->trace_json());
  const EngineReport report = engine->report();
  if (flags.json) {
    fmt::print("{}\n", dump_json(to_json(flags, result, report)));
  } else {
    print_summary(flags, result, report);
  }
  return result.finish_reason == "interrupted" ? kInterruptedExit : 0;
}

}  // namespace

void add_generate_command(CLI::App& app, Chosen& chosen) {
  CLI::App& command = *app.add_subcommand("generate", "Continue a text, streaming it to stdout");
  const auto flags = std::make_shared<GenerateFlags>();  // shared with the callback, which outlives this function
  add_engine_flags(command, flags->engine);
  command
      .add_option_function<std::string>(
          "-p,--prompt",
          [flags](const std::string& text) {
            flags->request.prompt = text;
            flags->has_prompt = true;
          },
          "The text to continue")
      ->type_name("TEXT");
  command.add_option("-f,--file", flags->prompt_file, "Read the prompt from a file (-: standard input)")
      ->type_name("FILE")
      ->excludes("--prompt");
  CLI::Option_group& sampling = *command.add_option_group("Sampling", "Defaults come from generation_config.json");
  sampling.add_option("--max-tokens", flags->request.max_tokens, "Most tokens to generate")
      ->check(whole_number_from(1));
  sampling.add_option("--temperature", flags->request.temperature, "0 always takes the likeliest token");
  sampling.add_option("--top-k", flags->request.top_k, "Draw among the k likeliest tokens only (0: all)");
  sampling.add_option("--top-p", flags->request.top_p, "Draw among the likeliest tokens that reach this probability");
  sampling.add_option("--seed", flags->request.seed, "The same seed gives the same text")
      ->check(whole_number_from(0))
      ->capture_default_str();
  sampling.add_flag("--ignore-eos", flags->request.ignore_eos, "Go on after an end-of-text token");
  command.add_flag("--no-tune", flags->no_tune,
                   "Do not measure this machine first where there is no profile of it; plan with a rough model");
  command.add_option("--trace", flags->trace, "Write a Chrome/Perfetto trace, one track per rank and lane")
      ->type_name("FILE");
  command.add_flag("--json", flags->json, "One JSON object on stdout instead of streamed text");
  command.footer(
      "Examples:\n"
      "  epsmoe generate -m models/austen-moe -p \"It is a truth\" --ep 2 --eps-pipeline 4\n"
      "  echo \"My dear Jane,\" | epsmoe generate -m models/austen-moe --temperature 0 --max-tokens 64\n"
      "  epsmoe generate -m models/austen-moe -f letter.txt --ep 2 --trace trace.json");
  command.callback([flags, &chosen] { chosen.action = [flags] { return run(*flags); }; });
}

}  // namespace eps::cli
