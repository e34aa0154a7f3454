// The program as a whole: exit codes, one-line errors, help, output formats. Runs build/…/bin/epsmoe.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "arch/presets.h"
#include "base/cpu_features.h"
#include "base/error.h"
#include "base/utf8.h"
#include "cli/command.h"
#include "engine/profile_cache.h"
#include "engine/profile_lookup.h"
#include "io/file.h"
#include "io/json.h"

namespace eps {
namespace {

namespace fs = std::filesystem;
const std::string kModel = std::string(EPSMOE_SOURCE_DIR) + "/models/austen-moe";

struct Result {
  int exit_code;
  std::string out;
  std::string err;
};

class CommandLine : public ::testing::Test {
 protected:
  CommandLine() : dir_(fs::temp_directory_path() / ("epsmoe_cli_" + std::to_string(getpid()))) {
    fs::create_directories(dir_);
  }
  ~CommandLine() override { fs::remove_all(dir_); }

  std::string path(const std::string& name) const { return (dir_ / name).string(); }

  // `arguments` go through the shell, with stdin from /dev/null unless they say otherwise.
  Result run(const std::string& arguments, const std::string& prefix = "") {
    const std::string command = prefix + " " EPSMOE_PROGRAM " " + arguments + " >" + path("out") + " 2>" + path("err") +
                                (arguments.find('<') == std::string::npos ? " </dev/null" : "");
    const int status = std::system(command.c_str());
    return {WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), io::read_file(path("out"), 1 << 24),
            io::read_file(path("err"), 1 << 24)};
  }

  void expect_refused(const std::string& arguments, const std::string& fragment) {
    Result r = run(arguments);
    // Under a sanitizer loading takes over a second, so its progress shows before the error.
    while (r.err.starts_with("loading weights")) r.err.erase(0, r.err.find('\n') + 1);
    EXPECT_EQ(r.exit_code, 2) << arguments << "\n" << r.err;
    EXPECT_TRUE(r.out.empty()) << arguments;
    EXPECT_EQ(std::count(r.err.begin(), r.err.end(), '\n'), 1) << arguments << "\n" << r.err;
    EXPECT_TRUE(r.err.starts_with("epsmoe: ")) << r.err;
    EXPECT_NE(r.err.find(fragment), std::string::npos) << arguments << "\n" << r.err;
  }

  // The message on a machine without a GPU, by whether this build has the CUDA backend. With a GPU there is nothing to
  // refuse.
  void expect_refused_without_gpu(const std::string& arguments) {
    if (run("doctor").out.find("on   cuda") != std::string::npos) GTEST_SKIP() << "this machine has a GPU";
    expect_refused(arguments, "--device");
    expect_refused(arguments, "cuda");
    expect_refused(arguments, "try --device cpu");
  }

  fs::path dir_;
};

TEST_F(CommandLine, HelpDescribesEveryCommand) {
  const Result top = run("--help");
  EXPECT_EQ(top.exit_code, 0);
  for (const std::string command :
       {"generate", "perplexity", "inspect", "plan", "simulate", "bench", "tune", "doctor"}) {
    EXPECT_NE(top.out.find(command), std::string::npos);
    const Result r = run(command + " --help");
    EXPECT_EQ(r.exit_code, 0) << command;
    EXPECT_GT(r.out.size(), 150U) << command;
  }
  EXPECT_EQ(run("--version").out, "0.1.0\n");
}

TEST_F(CommandLine, WrongUsageIsOneLineAndExitCode2) {
  const std::string generate = "generate -m " + kModel + " ";
  expect_refused("", "subcommand");
  expect_refused("fly", "fly");
  expect_refused("bench gemm -m " + kModel + " --loads 0", "--loads");
  expect_refused(generate + "-p x --warp 9", "--warp");
  expect_refused(generate + "-p x --ep 3", "wanted one of 1, 2, 4, 8, 16, 32");
  expect_refused(generate + "-p x --ep two", "--ep");
  expect_refused(generate + "-p x --eps-pipeline fast", "--eps-pipeline");
  expect_refused(generate + "-p x --ep 2 --emulate-link fast", "1GB/s,20us");
  expect_refused(generate + "-p x --gpus 0,1 --ep 2", "--gpus");
  expect_refused(generate + "-p x --gpus 0,1 --ep 2 --device reference", "got 0,1");
  expect_refused(generate + "-p x --gpus 0,x --device cuda", "--gpus");
  expect_refused(generate + "-p x --gpus=-1 --device cuda", "--gpus");
  expect_refused("bench layer --model " + kModel + " --device cuda --ep 2", "one rank on a GPU");
  expect_refused("bench overlap --model " + kModel + " --as-ep 8", "only GPUs");
  expect_refused("bench overlap --model " + kModel + " --comm-sms 7", "wanted one of 0");
  expect_refused("bench overlap --model " + kModel + " --gemm-sms 0", "--gemm-sms");
  expect_refused("bench a2a --device cpu", "only GPUs");
  expect_refused("bench a2a --row-bytes 100", "a multiple of 16");
  expect_refused("bench a2a --ep 1", "--ep");
  expect_refused("bench a2a --sms 0", "--sms");
  expect_refused("bench a2a --factor 1", "--factor");
  expect_refused("bench a2a --copies 9", "--copies");
  expect_refused("bench a2a -b 2000000 -e 1000000", "--min-bytes");
  expect_refused_without_gpu("bench overlap --model " + kModel + " --device cuda --ep 2");
  expect_refused_without_gpu("bench a2a");
  expect_refused_without_gpu("tune --device cuda --ep 2");
  expect_refused_without_gpu(generate + "-p x --device cuda");
  expect_refused_without_gpu(generate + "-p x --device cuda --ep 2");
  expect_refused_without_gpu(generate + "-p x --device cuda --ep 2 --gpus 0,0");
  expect_refused(generate + "-p x --max-tokens 0", "--max-tokens");
  expect_refused(generate + "-p x --temperature -1", "--temperature");
  expect_refused(generate + "-p x --seed -1", "whole number from 0");
  expect_refused(generate + "-p x --threads -3", "--threads");
  expect_refused(generate + "-p x --emulate-link 1GB/s", "a single rank has no link to emulate");
  expect_refused(generate + "-p x --load-format gguf", "--load-format");
  expect_refused(generate + "-p ''", "is empty");
  expect_refused(generate, "prompt: is empty");  // nothing on standard input
  expect_refused(generate + "-p \"$(printf 'caf\\351')\"", "UTF-8");
  expect_refused(generate + "-f /nowhere", "/nowhere");
  expect_refused(generate + "-p x -f y", "--file");
  expect_refused(generate + "-p x --trace /nowhere/trace.json", "--trace");
  expect_refused("generate -m /nowhere -p x", "no such model folder");
  expect_refused("generate -m deepseek-v2-lite -p x", "--load-format dummy");
  expect_refused("generate -p x", "no model named");
  expect_refused("perplexity -m " + kModel, "--file");
  expect_refused("perplexity -m " + kModel + " -f " + kModel, "");
  expect_refused("inspect -m deepseek-v9", "deepseek-v9");
  expect_refused("plan -m deepseek-v9 --ep 8 --profile h800 --tokens 64", "deepseek-v2-lite");
  expect_refused("plan -m deepseek-v2 --ep 8 --profile h800 --tokens 0", "--tokens");
  expect_refused("plan -m deepseek-v2 --ep 8 --profile h800", "--tokens");
  expect_refused("simulate -m deepseek-v9", "deepseek-v2-lite");
  expect_refused("simulate -m dbrx --ep 99999999999999", "--ep");
  expect_refused("simulate -m dbrx --profile abacus", "abacus");
  std::ofstream(path("long")) << std::string(60000, 'a') + " truth";
  expect_refused(generate + "-f " + path("long"), "at most 1023");
}

TEST_F(CommandLine, GenerateStreamsTextAndSummarises) {
  const Result r = run("generate -m " + kModel +
                       " -p 'It is a truth' --ep 2 --eps-pipeline 2 --max-tokens 12 --trace " + path("trace.json"));
  EXPECT_EQ(r.exit_code, 0) << r.err;
  EXPECT_TRUE(r.out.starts_with("It is a truth")) << r.out;
  EXPECT_GT(r.out.size(), 30U);
  for (const char* word : {"prompt", "tok/s prefill", "tok/s decode", "first token", "2 stages", "overlap", "trace"}) {
    EXPECT_NE(r.err.find(word), std::string::npos) << word << "\n" << r.err;
  }
  EXPECT_GT(io::read_json_file(path("trace.json"))["traceEvents"].size(), 100U);
  EXPECT_NE(io::read_file(path("trace.json"), 1 << 24).find("rank 1 predicted"), std::string::npos);
  // The same from standard input, from the environment, and as JSON.
  std::ofstream(path("prompt")) << "It is a truth";
  const Result piped = run("generate -m " + kModel + " --ep 2 --max-tokens 12 <" + path("prompt"));
  EXPECT_EQ(piped.out, r.out);
  const Result json = run("generate -m " + kModel + " -f " + path("prompt") + " --max-tokens 12 --json",
                          "EPSMOE_EP=2 EPSMOE_EPS_PIPELINE=all");
  ASSERT_EQ(json.exit_code, 0) << json.err;
  const io::Json object = io::parse_json(json.out, "output");
  EXPECT_EQ("It is a truth" + object["text"].get<std::string>() + "\n", r.out);
  EXPECT_TRUE(object["moe_layers_by_stages"].contains("16"));
}

TEST_F(CommandLine, ConfigFileSetsFlagsAndTheCommandLineWins) {
  std::ofstream(path("run.toml")) << "[generate]\nmodel = \"" << kModel << "\"\nmax-tokens = 3\nep = 4\n";
  const Result r = run("--config " + path("run.toml") + " generate -p 'My dear' --ep 2 --json");
  ASSERT_EQ(r.exit_code, 0) << r.err;
  const io::Json object = io::parse_json(r.out, "output");
  EXPECT_EQ(object["generated_tokens"], 3);
  EXPECT_EQ(object["op_sets"].size(), 2U);
}

TEST_F(CommandLine, ConfigFilesWithUnknownKeysAreRefused) {
  for (const char* text : {"[generate]\nfoo = 3\n", "[generat]\nep = 2\n", "ep = 2\n"}) {
    std::ofstream(path("bad.toml")) << text;
    const Result r = run("--config " + path("bad.toml") + " generate -m " + kModel + " -p x --max-tokens 1");
    EXPECT_EQ(r.exit_code, 2) << text << r.out << r.err;
  }
}

TEST_F(CommandLine, LostOutputIsAFailure) {
  const int status = std::system((std::string(EPSMOE_PROGRAM) + " doctor >/dev/full 2>" + path("err")).c_str());
  EXPECT_EQ(WEXITSTATUS(status), 1);
  EXPECT_NE(io::read_file(path("err"), 1 << 20).find("standard output"), std::string::npos);
}

TEST_F(CommandLine, PlanIsOneLineOfJson) {
  const Result r = run("plan --json -m deepseek-v2 --ep 8 --profile h800 --tokens 8192 --svg " + path("plan.svg"));
  ASSERT_EQ(r.exit_code, 0) << r.err;
  EXPECT_EQ(std::count(r.out.begin(), r.out.end(), '\n'), 1);
  EXPECT_EQ(io::parse_json(r.out, "output")["about"]["model"], "deepseek-v2");
  EXPECT_TRUE(io::read_file(path("plan.svg"), 1 << 24).ends_with("</svg>\n"));
}

TEST_F(CommandLine, InspectAndDoctorPrintJson) {
  const io::Json model = io::parse_json(run("inspect -m " + kModel + " --json").out, "output");
  EXPECT_EQ(model["num_experts"], 32);
  EXPECT_EQ(model["memory_per_rank"].size(), 6U);
  EXPECT_EQ(run("inspect -m deepseek-v2").exit_code, 0);
  const io::Json doctor = io::parse_json(run("doctor --json").out, "output");
  EXPECT_TRUE(doctor["backends"][0]["available"].get<bool>());
  EXPECT_NE(run("doctor").out.find("cpu"), std::string::npos);
}

TEST_F(CommandLine, EveryCommandKnowsTheSamePresets) {
  for (const arch::Preset& preset : arch::presets()) {
    const std::string model = "-m " + std::string(preset.name);
    const io::Json shown = io::parse_json(run("inspect --json " + model).out, "output");
    EXPECT_EQ(shown["parameters"], arch::preset_spec(preset.name).total_parameters()) << preset.name;
    EXPECT_EQ(run("plan --profile h800 --ep 2 --tokens 16 " + model).exit_code, 0) << preset.name;
    EXPECT_EQ(run("simulate --profile h800 --ep 2 --batch 2 --seq-len 32 " + model).exit_code, 0) << preset.name;
  }
}

// In memory, weights that are stored in e4m3 or MXFP4 take the two bytes of bf16.
TEST_F(CommandLine, InspectShowsTheMemoryOfUnpackedWeights) {
  for (const char* name : {"qwen3_moe_fp8", "gpt_oss_mxfp4"}) {
    const std::string folder = std::string(EPSMOE_SOURCE_DIR) + "/tests/data/golden/" + name;
    const io::Json shown = io::parse_json(run("inspect --json -m " + folder).out, "output");
    EXPECT_EQ(shown["memory_per_rank"][0]["weight_bytes"], 2.0 * shown["parameters"].get<double>()) << name;
  }
}

TEST_F(CommandLine, NotesAboutAModelsFilesAreWarningsOrNeedVerbose) {
  fs::copy(kModel, path("model"));
  io::Json config = io::read_json_file(kModel + "/config.json");
  config["frobnicate"] = 1;
  config["num_hidden_layers"] = 6;
  std::ofstream(path("model/config.json")) << config.dump();
  const std::string generate = "generate -m " + path("model") + " -p x --max-tokens 1";
  const std::string unknown = "epsmoe: note: " + path("model") + "/config.json: unknown key \"frobnicate\"\n";
  const std::string unused = "weights that this model does not use: model.layers.6.* (";
  const Result quiet = run(generate);
  EXPECT_EQ(quiet.exit_code, 0) << quiet.err;
  EXPECT_EQ(quiet.err.find("frobnicate"), std::string::npos) << quiet.err;
  EXPECT_NE(quiet.err.find("epsmoe: warning: "), std::string::npos) << quiet.err;
  EXPECT_NE(quiet.err.find(unused), std::string::npos) << quiet.err;
  for (const char* flag : {" -v", " --verbose"}) {
    const Result verbose = run(generate + flag);
    EXPECT_EQ(verbose.exit_code, 0) << verbose.err;
    EXPECT_NE(verbose.err.find(unknown), std::string::npos) << verbose.err;
    EXPECT_NE(verbose.err.find(unused), std::string::npos) << verbose.err;
    EXPECT_EQ(verbose.out, quiet.out);
  }
  const Result text = run("inspect -m " + path("model"));
  EXPECT_NE(text.out.find("unknown     config.json: frobnicate"), std::string::npos) << text.out;
  EXPECT_NE(text.out.find("model.layers.6.* ("), std::string::npos) << text.out;
  const io::Json json = io::parse_json(run("inspect --json -m " + path("model")).out, "output");
  EXPECT_EQ(json["unknown_keys"], io::Json::array({"config.json: frobnicate"}));
  EXPECT_GT(json["suspicious_weights"].size(), 90U);
  EXPECT_EQ(json["skipped_weights"].size(), 0U);
  EXPECT_EQ(json["notes"].size(), 2U);
}

TEST(TooManyThreads, SaysWhatWouldFit) {
  EXPECT_EQ(cli::too_many_threads(1, 0, 1), "");
  EXPECT_EQ(cli::too_many_threads(2, 4, 8), "");
  EXPECT_EQ(cli::too_many_threads(2, 3, 4),
            "2 ranks x 3 threads on 4 usable cores will wait for each other; try --threads 2");
  EXPECT_EQ(cli::too_many_threads(4, 0, 1), "4 ranks x 1 thread on 1 usable core will wait for each other; try --ep 1");
}

TEST_F(CommandLine, TooManyThreadsAreWarnedOfOnce) {
  const int cores = cpu_features().usable_cores;
  const std::string generate = "generate -m " + kModel + " -p x --max-tokens 1 --threads ";
  EXPECT_EQ(run(generate + std::to_string(cores)).err.find("warning"), std::string::npos);
  const Result r = run(generate + std::to_string(cores + 1));
  EXPECT_EQ(r.exit_code, 0) << r.err;
  EXPECT_NE(r.err.find("epsmoe: warning: 1 rank x " + std::to_string(cores + 1) + " threads"), std::string::npos)
      << r.err;
}

TEST_F(CommandLine, TheCpuIsaVariableCapsTheKernels) {
  const io::Json doctor = io::parse_json(run("doctor --json", "EPSMOE_CPU_ISA=portable").out, "output");
  EXPECT_EQ(doctor["isa"], "");
  EXPECT_EQ(doctor["isa_level"], "portable");
  const Result r =
      run("generate -m " + kModel + " -p 'It is a truth' --max-tokens 3 --json", "EPSMOE_CPU_ISA=portable");
  ASSERT_EQ(r.exit_code, 0) << r.err;
  EXPECT_TRUE(io::parse_json(r.out, "output")["op_sets"][0].get<std::string>().starts_with("cpu f32 (portable)"))
      << r.out;
  for (const std::string& command :
       std::vector<std::string>{"doctor", "generate -m " + kModel + " -p x --max-tokens 1"}) {
    const Result refused = run(command, "EPSMOE_CPU_ISA=avx1024");
    EXPECT_EQ(refused.exit_code, 2) << command;
    EXPECT_EQ(std::count(refused.err.begin(), refused.err.end(), '\n'), 1) << refused.err;
    EXPECT_NE(refused.err.find("EPSMOE_CPU_ISA: unknown instruction set: got avx1024"), std::string::npos)
        << refused.err;
  }
}

TEST_F(CommandLine, TuneWritesAProfileThatReadsBack) {
  const Result r = run("tune --quick --ep 1 --threads 1 --shape 32,64 -m " + kModel + " --out " + path("box.json"));
  ASSERT_EQ(r.exit_code, 0) << r.err;
  const plan::HardwareProfile profile = engine::load_profile(path("box.json"));
  EXPECT_EQ(profile.name, "box");
  EXPECT_EQ(profile.origin, "measured");
  const auto& shapes = plan::find_gemm(profile, moe::GemmKind::kGrouped, DType::kBF16).shapes;
  for (const int64_t n : {32, 128, 256}) {  // the flag's and those of the model
    EXPECT_EQ(std::ranges::count(shapes, n, &plan::GemmShapeCurve::n), 1) << n;
  }
  const std::string dir = "EPSMOE_PROFILE_DIR=" + path("profiles");
  const Result kept = run("tune --quick --ep 1 --threads 1 -m " + kModel, dir);
  ASSERT_EQ(kept.exit_code, 0) << kept.err;
  const std::vector<std::string> files = engine::list_profile_files(path("profiles"));
  ASSERT_EQ(files.size(), 1U) << kept.out;
  EXPECT_NE(kept.out.find(files[0]), std::string::npos) << kept.out;
  EXPECT_EQ(engine::load_profile(files[0]).name, "cpu-1x1");
  for (const char* word : {"32 x 64", "GFLOP/s", "attention", "--profile "}) {
    EXPECT_NE(r.out.find(word), std::string::npos) << word << "\n" << r.out;
  }
}

// Names in files and flags are untrusted: nothing in them may move the cursor, hide text or reverse its direction.
TEST_F(CommandLine, NoControlCharactersOfFilesOrFlagsReachTheTerminal) {
  const std::string evil = "\x1b[2J\u009b31m\u202e\u200b\u2028";
  const auto expect_plain = [](const std::string& text, const std::string& what) {
    ASSERT_EQ(utf8_find_invalid(text), std::string::npos) << what;
    for (size_t at = 0; at < text.size(); at += utf8_sequence_length(text, at)) {
      ASSERT_TRUE(text[at] == '\n' || is_plain_character(utf8_decode(text, at)))
          << what << ": " << printable(text, 2000);
    }
  };
  io::Json profile = io::read_json_file(std::string(EPSMOE_SOURCE_DIR) + "/src/report/profiles/cpu.json");
  for (const char* key : {"name", "device", "origin"}) profile[key] = evil + "\n" + key;
  std::ofstream(path("evil.json")) << profile.dump();
  fs::copy(kModel, path(evil));
  std::ofstream(path("config.toml")) << "[generate]\n\"" << evil << "\" = 1\n";
  const std::string with_profile = " --profile " + path("evil.json");
  const std::vector<std::string> commands = {"plan -m deepseek-v2 --ep 2 --tokens 64" + with_profile,
                                             "plan -m deepseek-v2 --ep 2 --tokens 64 --json" + with_profile,
                                             "plan --ep 2 --tokens 64 -m '" + path(evil) + "'",
                                             "simulate -m deepseek-v2 --ep 2" + with_profile,
                                             "simulate -m deepseek-v2 --ep 2 --json" + with_profile,
                                             "inspect -m '" + path(evil) + "'",
                                             "inspect --json -m '" + path(evil) + "'",
                                             "bench gemm --tokens 16 -m '" + path(evil) + "'" + with_profile,
                                             "bench sweep -p 8 -n 0 -r 1 -m '" + path(evil) + "'",
                                             "bench sweep -p 8 -n 0 -r 1 -o csv -m '" + path(evil) + "'",
                                             "generate --max-tokens 1 -p a -m '" + path(evil) + "'" + with_profile,
                                             "generate --max-tokens 1 --json -p '" + evil + "' -m " + kModel,
                                             "generate -p a -m '/nowhere/" + evil + "'",
                                             "generate -p a -m " + kModel + " --profile '" + evil + "'",
                                             "generate -p a -m " + kModel + " --trace '/nowhere/" + evil + "'",
                                             "generate -p a -m " + kModel + " --eps-pipeline '" + evil + "'",
                                             "generate --'" + evil + "'",
                                             "--config " + path("config.toml") + " generate",
                                             "'" + evil + "'"};
  for (const std::string& command : commands) {
    const Result r = run(command);
    expect_plain(r.out, command);
    expect_plain(r.err, command);
    EXPECT_FALSE(r.out.empty() && r.err.empty()) << command;
  }
  run("plan -m deepseek-v2 --ep 2 --tokens 64 --svg " + path("plan.svg") + with_profile);
  const std::string svg = io::read_file(path("plan.svg"), 1 << 24);
  EXPECT_NE(svg.find("<svg"), std::string::npos) << svg.substr(0, 100);
  expect_plain(svg, "SVG");
  // Each line of the header stays one line, whatever the names are.
  const Result plan = run(commands.front());
  EXPECT_EQ(plan.exit_code, 0) << plan.err;
  EXPECT_NE(plan.out.find("\\x1b[2J\\u009b31m\\u202e\\u200b\\u2028\\x0aname"), std::string::npos) << plan.out;
}

// The cost of a tokenizer or a prompt is bounded by their sizes (tests/io/tokenizer_bounds_test.cpp).
TEST_F(CommandLine, PromptsThatCannotFitAreRefusedEarly) {
  for (const size_t size : {size_t{20'000}, size_t{250'000}, size_t{50'000'000}}) {
    std::ofstream(path("prompt")) << std::string(size, 'a');
    expect_refused("generate -m " + kModel + " -f " + path("prompt"), "leaves no room");
  }
}

TEST_F(CommandLine, GenerateMeasuresOnFirstUseAndFindsTheProfileAgain) {
  const std::string cache = "EPSMOE_NO_TUNE= XDG_CACHE_HOME=" + path("cache");
  const std::string generate = "generate -m " + kModel + " -p Jane --max-tokens 2 --temperature 0";
  const Result first = run(generate, cache);
  ASSERT_EQ(first.exit_code, 0) << first.err;
  EXPECT_NE(first.err.find("measuring this machine"), std::string::npos) << first.err;
  EXPECT_EQ(first.err.find("`epsmoe tune` measures"), std::string::npos) << first.err;
  const std::vector<std::string> files = engine::list_profile_files(path("cache/epsmoe/profiles"));
  ASSERT_EQ(files.size(), 1U);
  const Result second = run(generate, cache);
  EXPECT_EQ(second.err.find("measuring this machine"), std::string::npos) << second.err;
  EXPECT_NE(second.err.find("profile " + engine::load_profile(files[0]).name), std::string::npos) << second.err;
  EXPECT_EQ(second.out, first.out);
  const io::Json doctor = io::parse_json(run("doctor --json", cache).out, "output");
  EXPECT_TRUE(doctor["profiles"][0]["fits"].get<bool>()) << doctor.dump();
  EXPECT_EQ(doctor["profiles"][0]["source"], files[0]);
  EXPECT_NE(run("doctor", cache).out.find(files[0]), std::string::npos);
}

TEST_F(CommandLine, WrongFlagsAreRefusedBeforeThisMachineIsMeasured) {
  const std::string cache = "EPSMOE_NO_TUNE= XDG_CACHE_HOME=" + path("cache");
  for (const char* wrong :
       {"-p x --eps-pipeline fast", "-p x --gpus 0,1 --ep 2", "-p x --ep 3", "-p x --max-model-len 99999",
        "-p x --emulate-link fast", "-p x --min-tokens 9 --max-tokens 8", "-p ''"}) {
    const Result r = run("generate -m " + kModel + " " + wrong, cache);
    EXPECT_EQ(r.exit_code, 2) << wrong;
    EXPECT_EQ(std::count(r.err.begin(), r.err.end(), '\n'), 1) << wrong << "\n" << r.err;
  }
  EXPECT_FALSE(fs::exists(path("cache/epsmoe/profiles")));
}

TEST_F(CommandLine, GenerateWorksWhereNoProfileCanBeKept) {
  const std::string generate = "generate -m " + kModel + " -p Jane --max-tokens 2 --temperature 0";
  std::ofstream(path("file")) << "not a folder";
  for (const std::string environment :
       {"EPSMOE_NO_TUNE= XDG_CACHE_HOME= HOME=", "EPSMOE_NO_TUNE= XDG_CACHE_HOME=/dev/null/cache"}) {
    const Result r = run(generate, environment);
    EXPECT_EQ(r.exit_code, 0) << r.err;
    EXPECT_EQ(r.err.find("measuring"), std::string::npos) << "measured anew each time: " << r.err;
  }
  const Result left_out = run(generate + " --no-tune", "EPSMOE_NO_TUNE= XDG_CACHE_HOME=" + path("cache"));
  EXPECT_EQ(left_out.exit_code, 0) << left_out.err;
  EXPECT_FALSE(fs::exists(path("cache"))) << left_out.err;
  const Result tune = run("tune --quick --ep 1 -m " + kModel, "XDG_CACHE_HOME= HOME=");
  EXPECT_EQ(tune.exit_code, 2);
  EXPECT_NE(tune.err.find("--output"), std::string::npos) << tune.err;
}

TEST_F(CommandLine, BrokenProfilesAreNamedOnce) {
  fs::create_directories(path("profiles"));
  fs::create_directories(path("cache/epsmoe/profiles"));
  std::ofstream(path("profiles/bad.json")) << "{";
  std::ofstream(path("cache/epsmoe/profiles/old.json")) << R"({"epsmoe_profile": 99})";
  const std::string environment = "EPSMOE_PROFILE_DIR=" + path("profiles") + " XDG_CACHE_HOME=" + path("cache");
  const Result r = run("generate -m " + kModel + " -p Jane --max-tokens 1", environment);
  EXPECT_EQ(r.exit_code, 0) << r.err;
  for (const std::string& part :
       {"epsmoe: warning: " + path("profiles/bad.json") + ": ",
        "epsmoe: warning: " + path("cache/epsmoe/profiles/old.json") + ": key \"epsmoe_profile\": got 99, wanted 1"}) {
    const size_t first = r.err.find(part);
    ASSERT_NE(first, std::string::npos) << part << "\n" << r.err;
    EXPECT_EQ(r.err.find(part, first + 1), std::string::npos) << r.err;
  }
}

TEST_F(CommandLine, OnlyDevicesThatTuneMeasuresAreAdvisedToUseIt) {
  const std::string generate = "generate -m " + kModel + " -p Jane --max-tokens 1 --dtype f32";
  const std::string cache = "XDG_CACHE_HOME=" + path("cache");
  EXPECT_NE(run(generate, cache).err.find("`epsmoe tune` measures"), std::string::npos);
  const Result reference = run(generate + " --device reference", cache);
  EXPECT_NE(reference.err.find("\nprofile    there is no profile for reference"), std::string::npos) << reference.err;
  EXPECT_EQ(reference.err.find("epsmoe tune"), std::string::npos) << reference.err;
}

TEST_F(CommandLine, TuneRefusesInvalidOptions) {
  expect_refused_without_gpu("tune --device cuda");
  expect_refused("tune --device reference", "not optimised, so it is not measured");
  expect_refused("tune --ep 0", "--ep");
  expect_refused("tune --shape 32", "wanted n,k");
  expect_refused("tune --shape 32,0", "wanted n,k");
  expect_refused("tune --shape 32,64x", "wanted n,k");
  expect_refused("tune --shape 32,64", "--shape: requires --output");
  expect_refused("tune --shape 32,64 -m " + kModel, "try --output FILE");
  expect_refused("tune --weight-dtype fp8", "--weight-dtype");
  expect_refused("tune -m /nowhere", "no such model folder");
  expect_refused("tune --out /nowhere/profile.json", "--output");
}

TEST_F(CommandLine, CtrlCFinishesTheStepAndReportsIt) {
  const pid_t child = fork();
  if (child == 0) {
    if (std::freopen(path("out").c_str(), "w", stdout) == nullptr) std::abort();
    if (std::freopen(path("err").c_str(), "w", stderr) == nullptr) std::abort();
    execl(EPSMOE_PROGRAM, "epsmoe", "generate", "-m", kModel.c_str(), "-p", "It is a truth", "--ep", "2",
          "--max-tokens", "1000", "--ignore-eos", static_cast<char*>(nullptr));
    _exit(99);
  }
  // Interrupt as soon as there is text.
  for (int i = 0; i < 600 && (!fs::exists(path("out")) || fs::file_size(path("out")) < 30); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  kill(child, SIGINT);
  int status = 0;
  waitpid(child, &status, 0);
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 130);
  EXPECT_NE(io::read_file(path("err"), 1 << 20).find("(interrupted)"), std::string::npos);
}

}  // namespace
}  // namespace eps
