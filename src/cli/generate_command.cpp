// epsmoe generate: streams text to stdout and prints a summary on stderr.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <limits>
#include <memory>

#include "base/error.h"
#include "cli/command.h"
#include "cli/console.h"
#include "cli/first_use.h"
#include "cli/input_text.h"
#include "cli/output_file.h"
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
  if (!flags.prompt_file.empty()) return read_text(flags.prompt_file, kMaxTextBytes);
  if (isatty(STDIN_FILENO) == 1) {
    fail(ErrorKind::kUsage, "generate",
         {.what = "no prompt", .got = "", .wanted = "-p TEXT, -f FILE or text on standard input", .hint = ""});
  }
  return read_text("-", kMaxTextBytes);
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
  print_error("prompt     {} tokens, {:.1f} tok/s prefill, first token after {:.3f} s\n", prompt,
              per_second(prompt, r.prefill_seconds), r.time_to_first_token_seconds);
  print_error("generated  {} tokens, {:.1f} tok/s decode ({})\n", r.ids.size(),
              per_second(decoded_after_first(r), r.decode_seconds), r.finish_reason);
  print_error("ranks      {} × {}{}\n", report.op_sets.size(), printable(report.op_sets.front()),
              report.op_sets.size() > 1 ? ", " + report.strategy : "");
  print_error("moe        {}\n", list_counts(report));
  if (report.communication_seconds > 0) {
    print_error("overlap    {:.0f} % of {:.1f} ms dispatch and combine ran under compute\n",
                100 * report.hidden_communication_seconds / report.communication_seconds,
                1e3 * report.communication_seconds);
  }
  if (report.measured_seconds > 0) {
    print_error(
        "plans      {:.1f} ms predicted, {:.1f} ms measured in {} MoE layers ({:+.0f} %; a layer is off by {:.0f} %), "
        "profile {}; {} made, {:.1f} ms to plan, sort rows and get memory\n",
        1e3 * report.predicted_seconds, 1e3 * report.measured_seconds, report.moe_layers_timed,
        100 * (report.predicted_seconds / report.measured_seconds - 1),
        100 * report.error_seconds / report.measured_seconds, printable(report.profile), report.plans_made,
        1e3 * report.setup_seconds);
  }
  if (!report.profile_note.empty()) {
    const bool is_measured = flags.engine.device != "reference";  // by `epsmoe tune`
    print_error("profile    {}{}\n", printable(report.profile_note, 400),
                is_measured ? ": `epsmoe tune` measures this machine" : "");
  }
  if (!flags.trace.empty())
    print_error("trace      {} (open in ui.perfetto.dev)\n", printable(flags.trace, kMaxPathShown));
}

io::Json to_json(const GenerateFlags& flags, const GenerateResult& r, const EngineReport& report) {
  io::Json out = {{"text", r.text},
                  {"prompt_tokens", r.prompt_ids.size()},
                  {"generated_tokens", r.ids.size()},
                  {"token_ids", r.ids},
                  {"finish_reason", r.finish_reason},
                  {"prefill_tok_s", per_second(std::ssize(r.prompt_ids), r.prefill_seconds)},
                  {"decode_tok_s", per_second(decoded_after_first(r), r.decode_seconds)},
                  {"ttft_s", r.time_to_first_token_seconds},
                  {"op_sets", report.op_sets},
                  {"strategy", report.strategy},
                  {"stages_by_kernel", report.stages_by_kernel},
                  {"communication_s", report.communication_seconds},
                  {"hidden_communication_s", report.hidden_communication_seconds},
                  {"profile", report.profile},
                  {"moe_layers_timed", report.moe_layers_timed},
                  {"promised_moe_s", report.predicted_seconds},  // check_words: allow (a key of the file format)
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
  flags.engine.first_request = &flags.request;
  if (!flags.no_tune) flags.engine.on_unmeasured = [&flags] { return measure_on_first_use(flags.engine); };
  const auto engine = open_engine(flags.engine);
  bool begun = false;  // set when the engine has accepted the prompt, which is echoed only then
  // The text is written unchanged, even to a terminal, as other programs of this kind do, because escaping would break
  // the joiners of emoji and the direction marks of Arabic and Hebrew. For models that are not trusted, --json escapes
  // control characters.
  const auto write = [&](std::string_view text) {
    if (flags.json) return;
    if (!begun) write_output(flags.request.prompt);
    begun = true;
    write_output(text);
  };
  const GracefulStop graceful;
  const GenerateResult result = engine->generate(flags.request, [&write](std::string_view text) {
    write(text);
    return !interrupted();
  });
  if (!flags.json) write("\n");
  if (flags.engine.record_trace) write_file(flags.trace, engine->trace_json());
  for (const std::string& note : result.notes) print_error("note       {}\n", printable(note, 400));
  const EngineReport report = engine->report();
  if (flags.json) {
    print_output("{}\n", io::dump_json(to_json(flags, result, report)));
  } else {
    print_summary(flags, result, report);
  }
  return result.finish_reason == "interrupted" ? kInterruptedExit : 0;
}

// Names and ranges as in vLLM's SamplingParams.
void add_sampling_flags(CLI::App& command, GenerateFlags& flags) {
  constexpr double kAny = std::numeric_limits<double>::infinity();
  GenerateRequest& request = flags.request;
  CLI::Option_group& group = *command.add_option_group("Sampling", "Defaults come from generation_config.json");
  group.add_option("--max-tokens", request.max_tokens, "Maximum number of tokens to generate")
      ->check(whole_number_from(1));
  group
      .add_option("--min-tokens", request.min_tokens, "Minimum number of tokens before an end-of-text token (0: none)")
      ->check(whole_number_from(0));
  group.add_option("--temperature", request.temperature, "0 always takes the most likely token")
      ->check(number_between(0, kAny));
  group.add_option("--top-k", request.top_k, "Sample among the k most likely tokens only (0 or -1: all)")
      ->check(whole_number_from(-1));
  group
      .add_option("--top-p", request.top_p, "Sample among the most likely tokens that reach this probability (1: all)")
      ->check(number_above(0, 1));
  group
      .add_option("--min-p", request.min_p,
                  "Sample among tokens with at least this fraction of the most likely one's probability (0: all)")
      ->check(number_between(0, 1));
  group
      .add_option("--repetition-penalty", request.repetition_penalty,
                  "Above 1 penalises tokens of the prompt and the output, below 1 favours them (1: off)")
      ->check(number_above(0, kAny));
  group
      .add_option("--presence-penalty", request.presence_penalty,
                  "Subtracted from the logits of tokens that occur in the output (0: off)")
      ->check(number_between(-2, 2));
  group
      .add_option("--frequency-penalty", request.frequency_penalty,
                  "Subtracted from the logits of tokens once per occurrence in the output (0: off)")
      ->check(number_between(-2, 2));
  group
      .add_option("--no-repeat-ngram-size", request.no_repeat_ngram_size,
                  "Never repeat a sequence of this many tokens of the prompt or the output (0: off)")
      ->check(whole_number_from(0));
  group.add_option("--seed", request.seed, "The same seed gives the same text")
      ->check(whole_number_from(0))
      ->capture_default_str();
  group.add_flag("--ignore-eos", request.ignore_eos, "Continue after an end-of-text token");
  group
      .add_option_function<std::string>(
          "--generation-config",
          [&request](const std::string& choice) {
            if (choice != "auto" && choice != "none") {
              throw CLI::ValidationError("--generation-config", "got " + printable(choice) + ", wanted auto or none");
            }
            request.use_generation_config = choice == "auto";
          },
          "auto: defaults come from the model's generation_config.json; none: as if there were no such "
          "file")
      ->type_name("CHOICE")
      ->default_str("auto");
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
  command.add_option("-f,--file", flags->prompt_file, "Read the prompt from a file or a pipe (-: standard input)")
      ->type_name("FILE")
      ->excludes("--prompt");
  add_sampling_flags(command, *flags);
  command.add_flag("--no-tune", flags->no_tune,
                   "Do not measure this machine first if there is no profile of it; plan with a rough model instead");
  command.add_option("--trace", flags->trace, "Write a Chrome/Perfetto trace, one track per rank and lane")
      ->type_name("FILE");
  command.add_flag("--json", flags->json, "Print one JSON object on stdout instead of streaming the text");
  command.footer(
      "Examples:\n"
      "  epsmoe generate -m models/austen-moe -p \"It is a truth\" --ep 2 --eps-pipeline 4\n"
      "  echo \"My dear Jane,\" | epsmoe generate -m models/austen-moe --temperature 0 --max-tokens 64\n"
      "  epsmoe generate -m models/austen-moe -f letter.txt --ep 2 --trace trace.json");
  command.callback([flags, &chosen] { chosen.action = [flags] { return run(*flags); }; });
}

}  // namespace eps::cli
