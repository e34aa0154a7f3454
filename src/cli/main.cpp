// The command line: parses flags, runs the chosen subcommand, and converts errors to one line and an exit code.
#include <cctype>
#include <memory>
#include <new>
#include <sstream>

#include "base/error.h"
#include "cli/command.h"
#include "cli/config_file.h"
#include "cli/console.h"
#include "cli/flag_names.h"
#include "cli/kept_inputs.h"
#include "epsmoe/version.h"

namespace {

using eps::cli::print_error;

// Every flag --some-flag except those for input texts can also be set by the variable EPSMOE_SOME_FLAG. The command
// line takes precedence.
void add_environment(CLI::App& app) {
  for (CLI::Option* option : app.get_options()) {
    if (option->get_lnames().empty()) continue;
    const std::string& name = option->get_lnames().front();
    // Input texts are excluded, because EPSMOE_FILE would be the prompt of one command and the text to score of
    // another.
    if (name == "help" || name == "version" || name == "config" || name == "prompt" || name == "file") continue;
    std::string variable = "EPSMOE_";
    for (const char c : name) variable += c == '-' ? '_' : static_cast<char>(std::toupper(c));
    option->envname(variable);
  }
  for (CLI::App* child : app.get_subcommands({})) add_environment(*child);
}

// The commands that were parsed, in order: "bench sweep".
std::string parsed_command(const CLI::App& app) {
  std::string out;
  for (const CLI::App* at = &app; !at->get_subcommands().empty();) {
    at = at->get_subcommands().front();
    out += (out.empty() ? "" : " ") + at->get_name();
  }
  return out;
}

std::vector<const CLI::App*> named_commands(const CLI::App& app, const std::string& name) {
  return app.get_subcommands([&name](const CLI::App* command) { return command->get_name() == name; });
}

int run(int argc, char** argv) {
  CLI::App app("epsmoe runs Mixture-of-Experts language models and hides their communication under their computation.");
  app.name("epsmoe");
  app.set_version_flag("--version", EPSMOE_VERSION);
  const std::shared_ptr<const std::string> config = eps::cli::add_config_flag(app);
  app.require_subcommand(1);
  app.fallthrough(false);
  app.footer(
      "Flags can also be set as EPSMOE_<FLAG> (EPSMOE_EP=2) or in the --config file; the command line wins.\n"
      "EPSMOE_CPU_ISA=portable|avx2|avx512|avx512_bf16|amx caps the instruction sets that CPU kernels use.\n"
      "Exit codes: 0 done, 1 failed, 2 wrong usage or input, 130 interrupted.\n"
      "`epsmoe COMMAND --help` explains a command.");
  eps::cli::Chosen chosen;
  eps::cli::add_generate_command(app, chosen);
  eps::cli::add_perplexity_command(app, chosen);
  eps::cli::add_inspect_command(app, chosen);
  eps::cli::add_plan_command(app, chosen);
  eps::cli::add_simulate_command(app, chosen);
  eps::cli::add_bench_command(app, chosen);
  eps::cli::add_tune_command(app, chosen);
  eps::cli::add_doctor_command(app, chosen);
  add_environment(app);
  eps::cli::require_decimal_numbers(app);
  if (argc > 1 && argv[1][0] != '-' && named_commands(app, argv[1]).empty()) {
    print_error("epsmoe: there is no command {}; try epsmoe --help\n", eps::printable(argv[1]));
    return 2;
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& e) {
    std::ostringstream text;  // --help, --version
    const int code = app.exit(e, text, text);
    eps::cli::write_output(text.str());
    return code;
  } catch (const CLI::ParseError& e) {
    const auto named = argc > 1 ? named_commands(app, argv[1]) : std::vector<const CLI::App*>{};
    print_error("epsmoe: {}; try epsmoe {}--help\n", eps::printable(e.what(), 400),
                named.empty() ? "" : named.front()->get_name() + " ");
    return 2;
  }
  const std::string command = parsed_command(app);
  eps::cli::name_interrupted_command(command);
  std::string what = "interrupted";
  try {
    eps::cli::require_inputs_kept(app, *config);
    const int code = chosen.action();
    if (code != eps::cli::kInterruptedExit) return code;
  } catch (const eps::Error& e) {
    if (e.kind() != eps::ErrorKind::kInterrupted) throw eps::cli::with_flags(app, e);
    what = e.what();
  }
  print_error("epsmoe: {}: {}\n", command, what);
  return eps::cli::kInterruptedExit;
}

}  // namespace

int main(int argc, char** argv) {
  eps::cli::occupy_standard_streams();
  eps::cli::watch_interrupts();
  try {
    return run(argc, argv);
  } catch (const eps::Error& e) {
    print_error("epsmoe: {}\n", eps::printable(e.what(), 4000));
    return eps::exit_code(e.kind());
  } catch (const std::bad_alloc&) {
    print_error("epsmoe: out of memory\n");
  } catch (const std::exception& e) {
    print_error("epsmoe: {}\n", eps::printable(e.what(), 400));
  }
  return 1;
}
