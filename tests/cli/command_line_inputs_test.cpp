// Inputs of the program: numbers in every notation, prompts from pipes and devices, configuration files.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "engine/factory.h"
#include "io/file.h"
#include "io/json.h"
#include "support/tiny_model.h"

namespace eps {
namespace {

struct Result {
  int exit_code;
  std::string out;
  std::string err;
};

class CommandLineInputs : public ::testing::Test {
 protected:
  std::string path(const std::string& name) const { return model_.path() + "/" + name; }
  const test::TinyModel& model() const { return model_; }
  std::string generate() const { return "generate -m " + model_.path() + " --max-tokens 2 --temperature 0 "; }

  // A line of bash in which `epsmoe` is the program; 124: it took longer than a minute.
  Result run(const std::string& line) const {
    std::ofstream(path("line.sh")) << "epsmoe() { \"" EPSMOE_PROGRAM "\" \"$@\"; }\n" << line << "\n";
    const std::string command =
        "timeout 60 bash " + path("line.sh") + " >" + path("out") + " 2>" + path("err") + " </dev/null";
    const int status = std::system(command.c_str());
    return {WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), io::read_file(path("out"), 1 << 24),
            io::read_file(path("err"), 1 << 24)};
  }

  void expect_refused(const std::string& line, const std::string& fragment) const {
    const Result r = run(line);
    EXPECT_EQ(r.exit_code, 2) << line << "\n" << r.err;
    EXPECT_TRUE(r.out.empty()) << line << "\n" << r.out;
    EXPECT_EQ(std::count(r.err.begin(), r.err.end(), '\n'), 1) << line << "\n" << r.err;
    EXPECT_NE(r.err.find(fragment), std::string::npos) << line << "\n" << r.err;
    EXPECT_EQ(r.err.find("check failed"), std::string::npos) << line << "\n" << r.err;
  }

 private:
  test::TinyModel model_;
};

// Every numeric flag, by command.
struct NumericFlags {
  const char* command;
  std::vector<const char*> whole;
  std::vector<const char*> real;
};

// Flags of every command that runs a model; tested with a few of these commands.
const std::vector<const char*> kEngineFlags = {"--ep", "--threads", "--max-num-batched-tokens", "--max-model-len"};

const std::vector<NumericFlags>& numeric_flags() {
  static const std::vector<NumericFlags> table = {
      {"generate",
       {"--ep", "--threads", "--max-num-batched-tokens", "--max-model-len", "--max-tokens", "--min-tokens", "--top-k",
        "--no-repeat-ngram-size", "--seed"},
       {"--temperature", "--top-p", "--min-p", "--repetition-penalty", "--presence-penalty", "--frequency-penalty"}},
      {"perplexity -f x", {"--ep", "--threads", "--max-num-batched-tokens", "--max-model-len", "--window"}, {}},
      {"plan -m deepseek-v2 --profile h800", {"--ep", "--tokens", "--seed"}, {}},
      {"simulate -m dbrx", {"--ep", "--batch", "--seq-len", "--seed", "--loads"}, {}},
      {"tune", {"--ep", "--threads"}, {}},
      {"bench sweep",
       {"--ep", "--threads", "--max-num-batched-tokens", "--max-model-len", "--n-prompt", "--n-gen", "--n-depth",
        "--repetitions"},
       {}},
      {"bench latency",
       {"--ep", "--batch-size", "--input-len", "--output-len", "--seed", "--num-iters", "--num-iters-warmup"},
       {"--limit-tflops"}},
      {"bench throughput",
       {"--ep", "--num-prompts", "--input-len", "--output-len", "--max-num-seqs", "--seed", "--num-warmups"},
       {}},
      {"bench layer",
       {"--ep", "--threads", "--tokens", "--seed", "--num-experts", "--repetitions", "--limit-size"},
       {}},
      {"bench overlap",
       {"--ep", "--tokens", "--seed", "--num-experts", "--most-stages", "--as-ep", "--comm-sms", "--gemm-sms",
        "--repetitions"},
       {}},
      {"bench a2a",
       {"--ep", "--row-bytes", "--min-bytes", "--max-bytes", "--copies", "--sms", "--repetitions"},
       {"--factor"}},
      {"bench gemm",
       {"--threads", "--loads", "--tokens", "--rows", "--seed", "--num-experts", "--repetitions", "--limit-size"},
       {}},
  };
  return table;
}

TEST_F(CommandLineInputs, NumbersAreDecimalAndInRangeForEveryFlag) {
  const auto expect = [this](const std::string& command, const std::string& flag, const std::string& value) {
    expect_refused("epsmoe " + command + " " + flag + " '" + value + "'", flag);
  };
  for (const NumericFlags& flags : numeric_flags()) {
    for (const char* flag : flags.whole) {
      for (const char* wrong : {"99999999999999999999", "0x10", "", "1.5", " 3"}) {
        expect(flags.command, flag, wrong);
      }
    }
    for (const char* flag : flags.real) {
      for (const char* wrong : {"nan", "inf", "1e999", "0x1p3", "", " 1"}) {
        expect(flags.command, flag, wrong);
      }
    }
  }
}

// Checks that the table above is complete, using the types of flags in help texts.
TEST_F(CommandLineInputs, EveryNumericFlagIsInTheTable) {
  for (const NumericFlags& flags : numeric_flags()) {
    const std::string command = flags.command;
    const bool is_bench = command.starts_with("bench");
    const size_t end = command.find(' ', is_bench ? command.find(' ') + 1 : 0);
    const Result help = run("epsmoe " + command.substr(0, end) + " --help | grep -E -- '--[a-z-]+ (U?INT|FLOAT)'");
    std::istringstream lines(help.out);
    for (std::string line; std::getline(lines, line);) {
      const size_t begin = line.find("--");
      std::string flag = line.substr(begin, line.find_first_of(" ,", begin) - begin);
      const auto is_known = [&flag](const char* known) { return flag == known; };
      EXPECT_TRUE(std::ranges::any_of(flags.whole, is_known) || std::ranges::any_of(flags.real, is_known) ||
                  std::ranges::any_of(kEngineFlags, is_known))
          << command << ": " << flag;
    }
  }
}

TEST_F(CommandLineInputs, LeadingZerosStayDecimal) {
  for (const char* wrong : {"2e1", "3 ", "nan", "--1", "+-1", "0b1", "1_000", "two"}) {
    expect_refused("epsmoe " + generate() + "-p x --ep '" + wrong + "'", "--ep");
  }
  // 32 experts: 010 is 10, which does not divide them; 08 and 016 do.
  const std::string demo = "epsmoe generate -m " EPSMOE_SOURCE_DIR "/models/austen-moe -p x --max-tokens 1 --json ";
  expect_refused(demo + "--ep 010", "got 10");
  const Result r = run(demo + "--ep 08 --threads 1");
  ASSERT_EQ(r.exit_code, 0) << r.err;
  EXPECT_EQ(io::parse_json(r.out, "output")["op_sets"].size(), 8U);
  EXPECT_EQ(
      run("epsmoe generate -m " + model().path() + " -p hello --max-tokens 1 --temperature +0.0 --top-k +05").exit_code,
      0);
}

TEST_F(CommandLineInputs, NumbersOfTheEnvironmentAndOfConfigFilesAreTheSame) {
  expect_refused("EPSMOE_EP=99999999999999999999 epsmoe " + generate() + "-p x", "--ep");
  expect_refused("EPSMOE_THREADS=0x2 epsmoe " + generate() + "-p x", "--threads");
  expect_refused("EPSMOE_TOP_P=nan epsmoe generate -m x -p x", "--top-p");
  const auto config = [this](const std::string& text) {
    std::ofstream(path("run.toml")) << "[generate]\n" << text << "\n";
    return "epsmoe --config " + path("run.toml") + " " + generate() + "-p x";
  };
  for (const char* wrong : {"ep = 0x2", "ep = \"\"", "ep = 1e3", "threads = 99999999999999999999"}) {
    expect_refused(config(wrong), std::string(wrong).substr(0, 2));
  }
  for (const char* wrong : {"ep = [2,4", "ep = [2,", "ep=[[2]", "eps-pipeline = [2,4\n[bench.sweep]",
                            "profile = \"h800", "profile = 'h800\"", "ep =", "[generate"}) {
    expect_refused(config(wrong), "run.toml:2: ");
  }
}

TEST_F(CommandLineInputs, CountsHaveSensibleBounds) {
  expect_refused("epsmoe tune --ep 1000000000", "--ep: got 1000000000, wanted a whole number from 1 to 1024");
  const std::string threads = fmt::format("wanted a whole number from 0 to {};", engine::max_threads_per_rank());
  expect_refused("epsmoe tune --ep 1 --threads 1000000", "--threads: got 1000000, " + threads);
  for (const char* many : {"5000", "99999999999"}) {
    expect_refused("epsmoe " + generate() + "-p x --threads " + many,
                   fmt::format("--threads: got {}, {}", many, threads));
  }
  expect_refused("epsmoe bench layer --preset deepseek-v2-lite --threads 5000", "--threads: ");
}

TEST_F(CommandLineInputs, WrongNumbersStateTheSameRange) {
  for (const char* wrong : {"x", "0", "-1", "1.5", "1025", "99999999999", "99999999999999999999"}) {
    const std::string got = std::string("--ep: got ") + wrong + ", wanted a whole number from 1 to 1024; try";
    expect_refused("epsmoe " + generate() + "-p x --ep " + wrong, got);
    expect_refused("epsmoe tune --ep " + std::string(wrong), got);
  }
  for (const char* wrong : {"x", "0", "99999999999"}) {
    const std::string range = std::string("got ") + wrong + ", wanted a whole number from 1 to 10";
    expect_refused("epsmoe plan -m deepseek-v2 --profile h800 --tokens 1 --ep " + std::string(wrong), "--ep: " + range);
    expect_refused("epsmoe plan -m deepseek-v2 --profile h800 --ep 1 --tokens " + std::string(wrong),
                   "--tokens: " + range);
    expect_refused("epsmoe simulate -m dbrx --ep " + std::string(wrong), "--ep: " + range);
  }
  expect_refused("epsmoe simulate -m dbrx --seq-len -5", "--seq-len: got -5, wanted a whole number from 1 to 1048576");
  expect_refused("epsmoe simulate -m dbrx --loads 0", "--loads: got 0, wanted a whole number from 1 to 1000");
  expect_refused("epsmoe " + generate() + "-p x --top-k 1.5", "--top-k: got 1.5, wanted a whole number from -1");
  expect_refused("epsmoe bench gemm --loads 99999999999", "--loads: got 99999999999, wanted a whole number up to 2147");
  expect_refused("epsmoe " + generate() + "-p x --ep", "--ep: got no value, wanted a whole number from 1 to 1024");
  expect_refused("epsmoe " + generate() + "-p x --trace", "--trace: got no value, wanted the path of a file");
  expect_refused("epsmoe " + generate() + "-p x --ep 2 --ep 4", "--ep: got 2 values (2, 4), wanted one");
}

TEST_F(CommandLineInputs, EmptyValuesAndListItemsAreRefused) {
  for (const char* flag : {"--profile", "--trace", "--emulate-link", "--file", "--model", "--device"}) {
    expect_refused("epsmoe generate " + std::string(flag) + " ''", std::string(flag) + ": got an empty text, wanted ");
  }
  expect_refused("epsmoe tune --output ''", "--output");
  expect_refused("epsmoe " + generate() + "--trace= -p x", "--trace: got an empty text, wanted the path of a file");
  expect_refused("epsmoe generate --ep=", "--ep: got an empty text, wanted a whole number from 1 to 1024");
  EXPECT_TRUE(run("epsmoe " + generate() + "-p --trace=").out.starts_with("--trace="));
  for (const char* list : {"8,,9", ",8", "8,", ",", "8 9,,10"}) {
    expect_refused("epsmoe bench sweep -m x -p " + std::string(list), "--n-prompt: an empty item in a list: got ");
  }
  expect_refused("epsmoe bench sweep -m x --n-prompt=8,,9", "--n-prompt: an empty item in a list: got 8,,9");
  expect_refused("epsmoe bench sweep -m x -p8,,9", "--n-prompt: an empty item in a list: got 8,,9");
  expect_refused("EPSMOE_N_PROMPT=8,,9 epsmoe bench sweep -m x",
                 "--n-prompt (from EPSMOE_N_PROMPT): an empty item in a list: got 8,,9");
  expect_refused("epsmoe tune --weight-dtype f32,,bf16", "--weight-dtype: an empty item in a list: got f32,,bf16");
  expect_refused("epsmoe doctor --json=2", "--json: got 2, wanted true or false");
  expect_refused("EPSMOE_JSON=maybe epsmoe doctor", "--json (from EPSMOE_JSON): got maybe, wanted true or false");
  EXPECT_EQ(run("EPSMOE_JSON=1 epsmoe doctor").out.front(), '{');
  EXPECT_NE(run("epsmoe doctor --json=false").out.front(), '{');
}

TEST_F(CommandLineInputs, WrongValuesNameTheirVariable) {
  expect_refused("EPSMOE_EP=x epsmoe " + generate() + "-p x", "--ep (from EPSMOE_EP): got x, wanted a whole number");
  expect_refused("EPSMOE_EP=3 epsmoe " + generate() + "-p x", "--ep (from EPSMOE_EP): the ranks must divide");
  EXPECT_EQ(run("EPSMOE_EP=x epsmoe " + generate() + "-p hello --ep 1").exit_code, 0);
  EXPECT_EQ(run("EPSMOE_EP=x epsmoe doctor").exit_code, 0);
  EXPECT_NE(run("epsmoe generate --help").out.find("Env:EPSMOE_EP"), std::string::npos);
}

TEST_F(CommandLineInputs, UnknownVariablesAreWarnedOfInOneLine) {
  const Result r = run("EPSMOE_BOGUS=1 EPSMOE_eps=2 EPSMOE_CPU_ISA= EPSMOE_TEST_BRIEF= EPSMOE_EP=2 epsmoe doctor");
  EXPECT_EQ(r.exit_code, 0) << r.err;
  EXPECT_EQ(std::count(r.err.begin(), r.err.end(), '\n'), 1) << r.err;
  EXPECT_TRUE(r.err.starts_with("epsmoe: warning: no flag or setting reads ")) << r.err;
  EXPECT_NE(r.err.find("EPSMOE_BOGUS"), std::string::npos) << r.err;
  EXPECT_NE(r.err.find("EPSMOE_eps (did you mean EPSMOE_EP?)"), std::string::npos) << r.err;
  EXPECT_EQ(r.err.find("BRIEF"), std::string::npos) << r.err;
  EXPECT_EQ(run("EPSMOE_NO_TUNE=1 EPSMOE_PROFILE_DIR=" + path("x") + " epsmoe doctor").err, "");
}

TEST_F(CommandLineInputs, EveryCommandRefusesAnUnknownInstructionSet) {
  for (const std::string command : {"plan -m deepseek-v2-lite --ep 4 --profile h800 --tokens 64", "simulate -m dbrx",
                                    "inspect -m deepseek-v2", "doctor", "tune", "bench sweep -m x"}) {
    expect_refused("EPSMOE_CPU_ISA=sse9 epsmoe " + command, "EPSMOE_CPU_ISA: unknown instruction set: got sse9");
  }
  EXPECT_EQ(run("EPSMOE_CPU_ISA=sse9 epsmoe generate --help").exit_code, 0);
}

TEST_F(CommandLineInputs, WrongWordsAreNamed) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"bench foo", "there is no command bench foo; try epsmoe bench --help"},
      {"bench swep", "there is no command bench swep; did you mean bench sweep? Try epsmoe bench --help"},
      {"fly", "there is no command fly; try epsmoe --help"},
      {"generat", "there is no command generat; did you mean generate? Try epsmoe --help"},
      {"--bogus", "there is no flag --bogus; try epsmoe --help"},
      {"bench", "bench: got no subcommand, wanted one of sweep, latency"},
      {"", "got no subcommand, wanted one of generate, perplexity"},
      {"bench gemm --ep 2", "bench gemm has no flag --ep; try epsmoe bench gemm --help"},
      {"bench sweep --bogus 3", "bench sweep has no flag --bogus; try epsmoe bench sweep --help"},
      {"bench sweep -r x", "--repetitions: got x, wanted a whole number; try epsmoe bench sweep --help"},
      {"generate --prompts x", "generate has no flag --prompts; did you mean --prompt? Try epsmoe generate --help"},
      {"generate --max_tokens=2", "generate has no flag --max_tokens; did you mean --max-tokens?"},
      {"plan --modle x", "plan has no flag --modle; did you mean --model?"},
      {"generate -p x word", "unexpected argument word; try epsmoe generate --help"},
      {"--ep 2 generate -p x", "--ep must come after the command generate"},
      {"generate --config x", "--config must come before the command"},
      {"perplexity -m x", "--file is required; try epsmoe perplexity --help"},
      {"generate -p x -f y", "--prompt: cannot be combined with --file"}};
  for (const auto& [arguments, message] : cases) expect_refused("epsmoe " + arguments, "epsmoe: " + message);
}

TEST_F(CommandLineInputs, ConfigFilesAreASubsetOfToml) {
  const auto with = [this](const std::string& text) {
    std::ofstream(path("run.toml")) << text;
    return "epsmoe --config " + path("run.toml") + " ";
  };
  const std::string base = "generate -m " + model().path() + " --max-tokens 1 --temperature 0 ";
  const auto prompt_of = [&](const std::string& value) {
    const Result r = run(with("[generate] # a comment\r\nprompt = " + value + "  # another\n") + base);
    EXPECT_EQ(r.exit_code, 0) << value << "\n" << r.err;
    return r.out;
  };
  const auto expect_prompt = [&](const std::string& value, const std::string& text) {
    EXPECT_TRUE(prompt_of(value).starts_with(text)) << value << "\n" << prompt_of(value);
  };
  expect_prompt(R"("a\nb")", "a\nb");
  expect_prompt(R"('a\nb')", "a\\nb");
  expect_prompt(R"("\t\"\\ # \u00e9\U0001F600")", "\t\"\\ # \u00e9\U0001F600");
  expect_prompt(R"("two, words")", "two, words");
  const auto refuse = [&](const std::string& text, const std::string& message) {
    expect_refused(with(text) + base + "-p x", "run.toml:" + message);
  };
  refuse("[generate]\nprompt = \"\\x\"\n", "2: prompt: an unknown escape in double quotes: got \\x");
  refuse("[generate]\nprompt = \"\\ud800\"\n", "2: prompt: an unknown escape");
  refuse("[[generate]]\n", "1: arrays of tables are not supported");
  refuse("[generate]\nprompt = \"\"\"\na\"\"\"\n", "2: prompt: multi-line texts are not supported");
  refuse("[generate]\nprompt = '''a'''\n", "2: prompt: multi-line texts are not supported");
  refuse("\n[generate]\nmax-tokens = 1_000\n", "3: max-tokens: underscores in numbers are not supported: got 1_000");
  refuse("[generate]\nmax-tokens = 0x10\n", "2: max-tokens: only decimal numbers are supported: got 0x10");
  refuse("[generate]\nep = {a = 1}\n", "2: ep: inline tables are not supported");
  refuse("[generate]\ngpus = [\n1,\n[2]]\n", "2: gpus: a list");
  refuse("[generate]\ngpus = [1,,2]\n", "2: gpus: a list without an item");
  refuse("[generate]\ndevice = cpu\n", "2: device: texts must be in quotes: got cpu, wanted \"cpu\"");
  refuse("[generate]\njson\n", "2: not a section or a flag: got json");
  refuse("[generate]\ndevice = \"cpu\" x\n", "2: device: text after the end of the value: got x");
  refuse("[generate]\nep = 1\nep = 2\n", "3: generate.ep: is set twice");
  EXPECT_EQ(
      run(with("[bench.sweep]\nn-prompt = [ # lengths\n  1,\n  2,\n]\n[generate]\nprompt = 'x'") + base).exit_code, 0);
  EXPECT_EQ(run(with("\xef\xbb\xbf[generate]\nep = 1\n") + "doctor --json").out.front(), '{');
  EXPECT_EQ(run(with("[perplexity]\nep = 2\n[generate]\nep = 1\n") + "doctor --json").out.front(), '{');
}

TEST_F(CommandLineInputs, ConfigErrorsNameFileLineKeyAndWhatToTry) {
  const auto refuse = [this](const std::string& text, const std::string& message) {
    std::ofstream(path("run.toml")) << text;
    expect_refused("epsmoe --config " + path("run.toml") + " " + generate() + "-p x", "run.toml:" + message);
  };
  refuse("[generate]\nbogus = 1\n", "2: generate.bogus: there is no such flag\n");
  refuse("[generate]\nmax_tokens = 1\n", "2: generate.max_tokens: there is no such flag; try max-tokens\n");
  refuse("window = 1\n", "1: window: belongs to a command: wanted a line under [perplexity]\n");
  refuse("ep = 1\n", "1: ep: belongs to a command: wanted a line under one of [generate], [perplexity], ");
  refuse("[bench]\nn-prompt = 1\n", "2: bench.n-prompt: belongs to a command: wanted a line under [bench.sweep]\n");
  refuse("[generat]\n", "1: [generat]: there is no such command: wanted one of [generate], [perplexity], ");
  refuse("[bench.swep]\n", "1: [bench.swep]: there is no such command: wanted one of [bench.sweep], ");
  refuse("[generate]\n\nep = \"x\"\n", "3: generate.ep: got x, wanted a whole number from 1 to 1024\n");
  refuse("[generate]\njson = 2\n", "2: generate.json: got 2, wanted true or false\n");
  refuse("[generate]\nep = [2, 4]\n", "2: generate.ep: got 2 values (2, 4), wanted one\n");
  refuse("[generate]\nprofile = \"\"\n", "2: generate.profile: got an empty text, wanted a value\n");
  refuse("[bench.sweep]\nn-prompt = \"8,,9\"\n", "2: bench.sweep.n-prompt: an empty item in a list: got 8,,9");
  refuse("[generate]\nep = 3\n", "2): the ranks must divide");
}

TEST_F(CommandLineInputs, LibraryErrorsNameFlags) {
  const std::string latency = "epsmoe bench latency --load-format dummy --threads 1 -m " + model().path() + " ";
  expect_refused(latency + "--input-len 600 --output-len 0", "--input-len: longer than the context");
  expect_refused(latency + "--input-len 500 --output-len 30", "--output-len: with --input-len 500 longer");
  expect_refused("epsmoe generate -m deepseek-v2-lite -p x", "try --load-format dummy");
  expect_refused("epsmoe " + generate() + "-p x --min-tokens 3", "--min-tokens: more than --max-tokens");
  expect_refused("epsmoe " + generate() + "-p x --max-model-len 5000", "--max-model-len: ");
  model().write_generation_config(R"({"num_beams": 3})");
  expect_refused("epsmoe " + generate() + "-p x", "try --generation-config none");
  EXPECT_EQ(run("epsmoe " + generate() + "-p hello --generation-config none").exit_code, 0);
  expect_refused("epsmoe " + generate() + "-p hello --generation-config vllm", "auto or none");
}

TEST_F(CommandLineInputs, NotesOfGenerationSettingsGoToStderrOnce) {
  model().write_generation_config(R"({"num_return_sequences": 3})");
  const Result r = run("epsmoe " + generate() + "-p hello --json");
  EXPECT_EQ(r.exit_code, 0) << r.err;
  EXPECT_EQ(io::parse_json(r.out, "output")["generated_tokens"], 2);
  const size_t first = r.err.find("num_return_sequences");
  ASSERT_NE(first, std::string::npos) << r.err;
  EXPECT_EQ(r.err.find("num_return_sequences", first + 1), std::string::npos) << r.err;
}

TEST_F(CommandLineInputs, SamplingFlagsChangeTheText) {
  const std::string base = "epsmoe generate -m " + model().path() +
                           " -p 'hello world, it is' --max-tokens 16 --dtype f32 "
                           "--temperature 0 --json ";
  const auto ids = [&](const std::string& flags) {
    const Result r = run(base + flags);
    EXPECT_EQ(r.exit_code, 0) << r.err;
    return io::parse_json(r.out, "output")["token_ids"].get<std::vector<int>>();
  };
  const std::vector<int> plain = ids("");
  EXPECT_EQ(ids("--repetition-penalty 1.3"),
            (std::vector<int>{38, 84, 13, 78, 94, 38, 19, 56, 46, 51, 4, 91, 44, 93, 41, 51}));
  for (const char* flag : {"--presence-penalty 2", "--frequency-penalty 2", "--no-repeat-ngram-size 1"}) {
    EXPECT_NE(ids(flag), plain) << flag;
    EXPECT_EQ(ids(std::string(flag) + " --device reference"), ids(flag)) << flag;
  }
  EXPECT_EQ(ids("--min-p 0.1 --top-k -1"), plain);
  EXPECT_EQ(ids("--repetition-penalty 1 --no-repeat-ngram-size 0"), plain);
}

TEST_F(CommandLineInputs, PromptsComeFromPipesAndDevices) {
  const std::string wanted = run("epsmoe " + generate() + "-p hello").out;
  ASSERT_FALSE(wanted.empty());
  for (const std::string source :
       {"-f <(printf hello)", "-f /dev/stdin <<<hello", "-f - < <(printf hello)",
        "-f /dev/fd/5 5< <(sleep 0.3; printf hello)", "< <(printf hel; sleep 0.3; printf lo)"}) {
    const Result r = run("epsmoe " + generate() + source);
    EXPECT_EQ(r.exit_code, 0) << source << "\n" << r.err;
    const bool has_newline = source.find("<<<") != std::string::npos;
    EXPECT_TRUE(has_newline || r.out == wanted) << source << "\n" << r.out;
  }
  const std::string perplexity = "epsmoe perplexity -m " + model().path() + " ";
  const Result of_file = run("printf 'hello world' >" + path("text") + "; " + perplexity + "-f " + path("text"));
  ASSERT_EQ(of_file.exit_code, 0) << of_file.err;
  for (const std::string source : {"-f - < <(printf 'hello world')", "-f <(printf 'hello world')"}) {
    EXPECT_EQ(run(perplexity + source).out, of_file.out) << source;
  }
  expect_refused("epsmoe " + generate() + "-f <(exit)", "prompt: is empty");
  expect_refused("epsmoe " + generate() + "-f /dev/null", "prompt: is empty");
  expect_refused("epsmoe " + generate() + "-f " + model().path(), "a directory");
  expect_refused("epsmoe " + generate() + "-f - <&-", "standard input: cannot read");
}

// Half a gigabyte of address space holds the program but not what /dev/zero has.
TEST_F(CommandLineInputs, EndlessInputsAreRefusedByTheirSize) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "sanitizers need more address space than the limit leaves";
#endif
  const std::string limit = "ulimit -v 2000000; ";
  for (const std::string source : {"-f /dev/zero", "< /dev/zero", "-f <(yes)"}) {
    expect_refused(limit + "epsmoe " + generate() + source, "too large");
  }
  expect_refused(limit + "epsmoe perplexity -m " + model().path() + " -f /dev/zero", "too large");
  expect_refused(limit + "epsmoe --config /dev/zero doctor", "too large");
}

TEST_F(CommandLineInputs, ConfigFilesMayBePipesAndAreBounded) {
  EXPECT_EQ(run("epsmoe --config <(printf '[doctor]\\njson = true\\n') doctor").out.front(), '{');
  EXPECT_EQ(run("printf '[doctor]\\njson = true\\n' | epsmoe --config - doctor").out.front(), '{');
  expect_refused("epsmoe --config /nowhere doctor", "/nowhere");
  expect_refused("epsmoe --config '' doctor", "");
  std::string deep = "[a";
  for (int i = 0; i < 200000; ++i) deep += ".a";
  std::ofstream(path("deep.toml")) << deep << "]\nx = 1\n";
  expect_refused("epsmoe --config " + path("deep.toml") + " doctor", "deep.toml:1: a name with too many dots");
  std::ofstream(path("deep.toml")) << deep.substr(1) << " = 1\n";
  expect_refused("epsmoe --config " + path("deep.toml") + " doctor", "deep.toml:1: a name with too many dots");
}

TEST_F(CommandLineInputs, CtrlCEndsTheWaitForAPipeWithoutAWriter) {
  const std::string fifo = path("fifo");
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  const std::string folder = model().path();
  const std::vector<std::vector<std::string>> commands = {
      {"generate", "-m", folder, "-f", fifo}, {"perplexity", "-m", folder, "-f", fifo}, {"--config", fifo, "doctor"}};
  for (const auto& command : commands) {
    const pid_t child = fork();
    if (child == 0) {
      if (std::freopen("/dev/null", "w", stderr) == nullptr) std::abort();
      std::vector<char*> args = {const_cast<char*>("epsmoe")};
      for (const std::string& word : command) args.push_back(const_cast<char*>(word.c_str()));
      args.push_back(nullptr);
      execv(EPSMOE_PROGRAM, args.data());
      _exit(99);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1500));
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, WNOHANG), 0) << command.front() << " did not wait";
    kill(child, SIGINT);
    const auto begin = std::chrono::steady_clock::now();
    while (waitpid(child, &status, WNOHANG) == 0) {
      if (std::chrono::steady_clock::now() - begin > std::chrono::seconds(10)) {
        kill(child, SIGKILL);
        waitpid(child, &status, 0);
        break;
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    ASSERT_TRUE(WIFEXITED(status)) << command.front();
    EXPECT_EQ(WEXITSTATUS(status), 130) << command.front();
  }
}

TEST_F(CommandLineInputs, TwoOutputsDoNotShareAFile) {
  const std::string plan =
      "epsmoe plan -m deepseek-v2-lite --ep 4 --profile h800 --tokens 64 --svg " + path("x") + " --trace ";
  expect_refused(plan + path("x"), "--trace: the same file as --svg");
  expect_refused(plan + path("./x"), "--trace: the same file as --svg");
  ASSERT_EQ(::symlink(path("x").c_str(), path("y").c_str()), 0);
  expect_refused(plan + path("y"), "--trace: the same file as --svg");
  EXPECT_EQ(run(plan + path("z")).exit_code, 0);
}

TEST_F(CommandLineInputs, ARouterWithNaNIsOneLineOnEveryDevice) {
  model().fill_row(test::kTinyRouter, 0, test::kNaN);
  for (const char* flags : {"", "--ep 2", "--device reference"}) {
    expect_refused("epsmoe " + generate() + "-p hello --dtype f32 " + flags,
                   "epsmoe: layer 1's router: the model produced NaN or Inf logits");
  }
}

}  // namespace
}  // namespace eps
