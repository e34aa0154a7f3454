#include "cli/kept_inputs.h"

#include <filesystem>
#include <system_error>
#include <vector>

#include "base/error.h"
#include "cli/flag_origin.h"
#include "engine/model_folder.h"
#include "engine/profile_lookup.h"
#include "io/file.h"

namespace eps::cli {
namespace {

namespace fs = std::filesystem;

// The --output of `bench sweep` is a format, whose name would have to be that of an input to be refused.
constexpr const char* kOutputFlags[] = {"--trace", "--svg", "--output-json", "--output"};

struct KeptInput {
  std::string path;
  std::string what;  // "the file of --file"
};

std::vector<std::string> values_of(const CLI::App& command, const std::string& flag) {
  const CLI::Option* option = command.get_option_no_throw(flag);
  return option == nullptr ? std::vector<std::string>{} : option->results();
}

void add_model_files(std::vector<KeptInput>& inputs, const std::string& model) {
  std::error_code error;  // opening the model reports it
  for (fs::directory_iterator it(model, error), end; !error && it != end; it.increment(error)) {
    if (engine::is_model_file(it->path().filename().string()))
      inputs.push_back({it->path().string(), "a file of the model"});
  }
}

std::vector<KeptInput> list_inputs(const CLI::App& command, const std::string& config) {
  std::vector<KeptInput> inputs = {{"/dev/stdin", "the file on standard input"}};
  if (!config.empty()) inputs.push_back({config, "the file of --config"});
  for (const std::string& path : values_of(command, "--file")) inputs.push_back({path, "the file of --file"});
  for (const std::string& name : values_of(command, "--profile")) {
    const std::string path = engine::profile_path(name);
    if (!path.empty()) inputs.push_back({path, "the file of --profile"});
  }
  for (const std::string& model : values_of(command, "--model")) add_model_files(inputs, model);
  return inputs;
}

}  // namespace

void require_inputs_kept(CLI::App& app, const std::string& config) {
  const CLI::App* command = list_parsed(app).back();
  std::vector<KeptInput> inputs;  // listed for the first output that exists; most commands have none
  for (const char* flag : kOutputFlags) {
    for (const std::string& output : values_of(*command, flag)) {
      std::error_code ignored;  // require_writable reports it
      // The same device may be read and written, such as a terminal.
      if (!fs::is_regular_file(output, ignored)) continue;
      if (inputs.empty()) inputs = list_inputs(*command, config);
      for (const KeptInput& input : inputs) {
        if (!fs::equivalent(output, input.path, ignored)) continue;
        fail(ErrorKind::kUsage, flag,
             {.what = "would overwrite " + input.what, .got = output, .wanted = "another file", .hint = ""});
      }
    }
  }
}

}  // namespace eps::cli
