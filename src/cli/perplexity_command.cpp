// epsmoe perplexity: measures how well a model predicts a text.
#include <fmt/format.h>

#include <memory>

#include "cli/command.h"
#include "cli/console.h"
#include "cli/input_text.h"
#include "cli/progress.h"
#include "io/json.h"

namespace eps::cli {
namespace {

struct PerplexityFlags {
  EngineOptions engine;
  std::string file;
  int64_t window = 0;
  bool json = false;
};

int run(const PerplexityFlags& flags) {
  const std::string text = read_text(flags.file, kMaxTextBytes);
  const auto engine = open_engine(flags.engine);
  const GracefulStop graceful;
  PerplexityResult result;
  {
    Progress progress("perplexity", "tokens");
    result = engine->perplexity(text, flags.window, [&progress](int64_t done, int64_t total) {
      progress.update(static_cast<uint64_t>(done), static_cast<uint64_t>(total));
      return !interrupted();
    });
  }
  const double rate = result.seconds > 0 ? static_cast<double>(result.num_tokens) / result.seconds : 0.0;
  if (flags.json) {
    const io::Json out = {{"perplexity", result.perplexity},
                          {"nll", result.nll},
                          {"num_tokens", result.num_tokens},
                          {"window", result.window},
                          {"tok_s", rate},
                          {"file", flags.file},
                          {"complete", !interrupted()},
                          {"op_sets", engine->report().op_sets},
                          {"strategy", engine->report().strategy}};
    print_output("{}\n", io::dump_json(out));
  } else {
    print_output("perplexity {:.4f}\n", result.perplexity);
    print_error("{} tokens in windows of {}, {:.1f} tok/s{}\n", result.num_tokens, result.window, rate,
                interrupted() ? ", interrupted: only the tokens scored so far" : "");
  }
  return interrupted() ? kInterruptedExit : 0;
}

}  // namespace

void add_perplexity_command(CLI::App& app, Chosen& chosen) {
  CLI::App& command = *app.add_subcommand("perplexity", "Measure how well a model predicts a text");
  const auto flags = std::make_shared<PerplexityFlags>();
  add_engine_flags(command, flags->engine);
  command.add_option("-f,--file", flags->file, "UTF-8 text to score: a file or a pipe (-: standard input)")
      ->type_name("FILE")
      ->required();
  command.add_option("--window", flags->window, "Tokens scored together, after the begin-of-text token (0: 512)")
      ->check(whole_number_from(0))
      ->capture_default_str();
  command.add_flag("--json", flags->json, "Print one JSON object on stdout");
  command.footer("Example:\n  epsmoe perplexity -m models/austen-moe -f models/austen-moe/heldout.txt --ep 2");
  command.callback([flags, &chosen] { chosen.action = [flags] { return run(*flags); }; });
}

}  // namespace eps::cli
