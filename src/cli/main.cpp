// The command line: parses flags, runs the chosen subcommand, and converts errors to one line and an exit code.
#include <algorithm>
#include <new>
#include <sstream>

#include "base/cpu_features.h"
#include "base/error.h"
#include "cli/command.h"
#include "cli/config_file.h"
#include "cli/console.h"
#include "cli/environment.h"
#include "cli/flag_names.h"
#include "cli/flag_origin.h"
#include "cli/kept_inputs.h"
#include "cli/numbers.h"
#include "cli/parse_errors.h"
#include "epsmoe/version.h"

namespace {

using eps::cli::print_error;

// The commands that were parsed, in order: "bench sweep".
std::string parsed_command(CLI::App& app) {
  std::string out;
  for (const CLI::App* command : eps::cli::list_parsed(app)) {
    if (command != &app) out += (out.empty() ? "" : " ") + command->get_name();
  }
  return out;
}

bool is_command(CLI::App& app, const std::string& name) {
  const std::vector<CLI::App*> commands = eps::cli::list_commands(app);
  return std::ranges::any_of(commands, [&name](const CLI::App* command) { return command->get_name() == name; });
}

// Ends with what to try next.
int report_usage(CLI::App& app, const std::string& message) {
  const std::string command = parsed_command(app);
  print_error("epsmoe: {}{} epsmoe {}{}--help\n", eps::printable(message, 600),
              message.ends_with('?') ? " Try" : "; try", command, command.empty() ? "" : " ");
  return 2;
}

// Adds to an error of the library which flag it is about, and where its value comes from.
eps::Error with_origin(CLI::App& app, const eps::Error& error, const eps::cli::ConfigLines& lines) {
  const eps::Error named = eps::cli::with_flags(app, error);
  const CLI::Option* flag =
      named.where().starts_with("--") ? eps::cli::list_parsed(app).back()->get_option_no_throw(named.where()) : nullptr;
  const std::string origin = flag == nullptr ? std::string() : eps::cli::origin_of(app, *flag, lines);
  if (origin.empty()) return named;
  return {named.kind(), named.where() + " (from " + origin + ")", named.message()};
}

int run(int argc, char** argv) {
  CLI::App app("epsmoe runs Mixture-of-Experts language models and hides their communication under their computation.");
  app.name("epsmoe");
  app.set_version_flag("--version", EPSMOE_VERSION);
  const auto config = eps::cli::add_config_flag(app);
  app.require_subcommand(1);
  app.fallthrough(false);
  app.footer(
      "Flags can also be set as EPSMOE_<FLAG> (EPSMOE_EP=2) or in the --config file, a subset of TOML; the command "
      "line wins.\n"
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
  eps::cli::add_environment(app);
  eps::cli::check_notation(app);
  if (argc > 1 && argv[1][0] != '-' && !is_command(app, argv[1])) {
    return report_usage(app, eps::cli::unknown_command(app, argv[1]));
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& e) {
    std::ostringstream text;  // --help, --version
    const int code = app.exit(e, text, text);
    eps::cli::write_output(text.str());
    return code;
  } catch (const CLI::ParseError& e) {
    eps::cli::check_arguments(app, argc, argv);
    return report_usage(app, eps::cli::describe_parse_error(app, e, config->lines));
  }
  eps::cli::check_arguments(app, argc, argv);
  eps::cpu_features();  // rejects unknown values of its variable, which not every command would use
  eps::cli::warn_of_unknown_variables(app);
  const std::string command = parsed_command(app);
  eps::cli::name_interrupted_command(command);
  std::string what = "interrupted";
  try {
    eps::cli::require_inputs_kept(app, config->path);
    const int code = chosen.action();
    if (code != eps::cli::kInterruptedExit) return code;
  } catch (const eps::Error& e) {
    if (e.kind() != eps::ErrorKind::kInterrupted) throw with_origin(app, e, config->lines);
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
