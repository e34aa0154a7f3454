// The commands of README.md and docs/planning.md: each one runs, and prints what the page shows.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "io/file.h"

namespace eps {
namespace {

namespace fs = std::filesystem;
const std::string kRoot = EPSMOE_SOURCE_DIR;

// A command of README's table, and the same command with less work.
struct Documented {
  std::string command;
  std::string more;    // further arguments
  std::string prints;  // a part of standard output
  bool needs_gpus = false;
};

const std::vector<Documented> kTable = {
    {"epsmoe generate -m DIR -p TEXT", "--max-tokens 4", "TEXT"},
    {"epsmoe perplexity -m DIR -f FILE", "", "perplexity"},
    {"epsmoe inspect -m DIR", "", "deepseek_v2"},
    {"epsmoe plan -m dbrx --profile h800 --ep 8 --tokens 8192", "", "dbrx, one MoE layer: 16 experts"},
    {"epsmoe simulate -m deepseek-v2 --profile h800 --ep 8", "", "deepseek-v2: 235.7 B parameters"},
    {"epsmoe bench sweep -m DIR", "-p 8 -n 2 -r 1", " tg2 |"},
    {"epsmoe bench latency -m DIR --batch-size 8",
     "--input-len 8 --output-len 2 --num-iters 1 --num-iters-warmup 0 --limit-tflops 1", "decode step"},
    {"epsmoe bench throughput -m DIR --num-prompts 1000", "--input-len 4 --output-len 1", "10 requests"},
    {"epsmoe bench overlap -m DIR --emulate-link 200MB/s,20us", "--ep 2 --tokens 32 -r 1 --most-stages 2", "| auto"},
    {"epsmoe bench overlap --device cuda --preset deepseek-v2 --ep 2 --as-ep 8", "--tokens 64 -r 1", "| auto", true},
    {"epsmoe bench a2a", "-r 1", "dispatch", true},
    {"epsmoe bench layer --preset deepseek-v2-lite --load-format dummy",
     "--num-experts 8 --tokens 16 -r 1 --limit-size 256", "oneDNN"},
    {"epsmoe bench gemm -m DIR", "--tokens 32 --loads 2 -r 1 --limit-size 256", "regret"},
    {"epsmoe tune", "--quick --ep 1 --threads 1 -m DIR", "stored in"},
    {"epsmoe doctor", "", "profile"},
};

class DocumentedCommands : public ::testing::Test {
 protected:
  DocumentedCommands() : dir_(fs::temp_directory_path() / ("epsmoe_documented_" + std::to_string(getpid()))) {
    fs::create_directories(dir_);
    std::ofstream(path("text")) << "It is a truth universally acknowledged";
  }
  ~DocumentedCommands() override { fs::remove_all(dir_); }

  std::string path(const std::string& name) const { return (dir_ / name).string(); }

  struct Result {
    int exit_code;
    std::string out, err;
  };

  // Runs a line that begins with "epsmoe " in the project's folder.
  Result run(const std::string& line) const {
    const std::string command = "cd " + kRoot + " && XDG_CACHE_HOME=" + path("cache") + " " EPSMOE_PROGRAM +
                                line.substr(line.find(' ')) + " >" + path("out") + " 2>" + path("err") + " </dev/null";
    const int status = std::system(command.c_str());
    return {WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), io::read_file(path("out"), 1 << 24),
            io::read_file(path("err"), 1 << 24)};
  }

  // The line with the bundled model for DIR, a short text for FILE and 10 for 1000 prompts.
  std::string with_files(std::string line) const {
    const auto replace = [&line](const std::string& word, const std::string& by) {
      const size_t at = line.find(" " + word);
      if (at != std::string::npos) line.replace(at + 1, word.size(), by);
    };
    replace("DIR", "models/austen-moe");
    replace("FILE", path("text"));
    replace("1000", "10");
    return line;
  }

  fs::path dir_;
};

std::vector<std::string> lines_of(const std::string& page) {
  std::istringstream in(io::read_file(kRoot + "/" + page, 1 << 24));
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

// The commands in the first column of README's table.
std::set<std::string> table_of_readme() {
  std::set<std::string> commands;
  for (const std::string& line : lines_of("README.md")) {
    const std::string begin = "| `epsmoe ";
    if (line.starts_with(begin)) commands.insert(line.substr(3, line.find('`', 3) - 3));
  }
  return commands;
}

TEST_F(DocumentedCommands, TheTableOfTheReadmeIsTested) {
  std::set<std::string> tested;
  for (const Documented& d : kTable) tested.insert(d.command);
  EXPECT_EQ(table_of_readme(), tested);
}

TEST_F(DocumentedCommands, EveryCommandOfTheTableRuns) {
  const bool has_gpu = run("epsmoe doctor").out.find("on   cuda") != std::string::npos;
  for (const Documented& d : kTable) {
    SCOPED_TRACE(d.command);
    if (d.needs_gpus && has_gpu) continue;  // they run alone on their GPUs: bench/run_cuda.sh
    const Result r = run(with_files(d.command + " " + d.more));
    if (d.needs_gpus) {
      EXPECT_EQ(r.exit_code, 2);
      EXPECT_NE(r.err.find("cuda"), std::string::npos) << r.err;
      continue;
    }
    EXPECT_EQ(r.exit_code, 0) << r.err;
    EXPECT_NE(r.out.find(d.prints), std::string::npos) << r.out << r.err;
  }
}

// A command in a block of code, "$ epsmoe ...", and the lines after it.
struct Example {
  std::string command;
  std::vector<std::string> output;
};

std::vector<Example> examples_of(const std::string& page) {
  std::vector<Example> examples;
  bool in_example = false;
  for (const std::string& line : lines_of(page)) {
    if (line.starts_with("$ epsmoe ")) {
      examples.push_back({line.substr(2), {}});
      in_example = true;
    } else if (line.starts_with("```")) {
      in_example = false;
    } else if (in_example) {
      examples.back().output.push_back(line);
    }
  }
  return examples;
}

// Every line of an example is printed, in that order; "[…]" stands for lines that the page leaves out.
TEST_F(DocumentedCommands, ExamplesPrintWhatThePagesShow) {
  int num_examples = 0;
  for (const std::string page : {"README.md", "docs/planning.md"}) {
    for (const Example& example : examples_of(page)) {
      SCOPED_TRACE(page + ": " + example.command);
      ++num_examples;
      const Result r = run(example.command);
      const std::string printed = r.out + "\n" + r.err;
      size_t from = 0;
      for (const std::string& line : example.output) {
        if (line == "[…]" || line.empty()) continue;
        const size_t at = printed.find(line, from);
        ASSERT_NE(at, std::string::npos) << "not printed: " << line << "\nprinted:\n" << printed;
        from = at + line.size();
      }
    }
  }
  EXPECT_EQ(num_examples, 4);
}

}  // namespace
}  // namespace eps
