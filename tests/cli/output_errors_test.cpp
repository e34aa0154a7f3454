// Standard output and standard error that are closed, full, or a pipe whose reader has gone: no command crashes, and
// results that are lost are a failure.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <string>

#include "io/file.h"
#include "io/json.h"

namespace eps {
namespace {

namespace fs = std::filesystem;
const std::string kModel = std::string(EPSMOE_SOURCE_DIR) + "/models/austen-moe";

class OutputErrors : public ::testing::Test {
 protected:
  OutputErrors() : dir_(fs::temp_directory_path() / ("epsmoe_output_" + std::to_string(getpid()))) {
    fs::create_directories(dir_);
  }
  ~OutputErrors() override { fs::remove_all(dir_); }

  std::string path(const std::string& name) const { return (dir_ / name).string(); }
  std::string err() const { return io::read_file(path("err"), 1 << 20); }

  // The exit code of a line of bash in which "epsmoe" is the program; 128 + the signal that killed it.
  static int run(const std::string& line) {
    const std::string script = "ulimit -c 0; epsmoe() { " EPSMOE_PROGRAM " \"$@\"; }; " + line;
    const int status = std::system(("bash -c '" + script + "' </dev/null").c_str());
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }

  fs::path dir_;
};

TEST_F(OutputErrors, StandardErrorIsNotNeeded) {
  const std::string generate = "epsmoe generate -m " + kModel + " -p hello --max-tokens 2 --temperature 0 --ep 2";
  for (const std::string lost : {" 2>&-", " 2>/dev/full"}) {
    SCOPED_TRACE(lost);
    EXPECT_EQ(run(generate + lost + " >" + path("out")), 0);
    EXPECT_TRUE(io::read_file(path("out"), 1 << 20).starts_with("hello"));
    EXPECT_EQ(run("epsmoe generate -m nosuch -p x" + lost), 2);
    EXPECT_EQ(run("epsmoe nosuch" + lost), 2);
    EXPECT_EQ(run("epsmoe generate --nosuch" + lost), 2);
    EXPECT_EQ(run("epsmoe generate --ep two" + lost), 2);
    EXPECT_EQ(run("epsmoe" + lost), 2);
    EXPECT_EQ(run("epsmoe plan -m deepseek-v2 --ep 8 --profile h800 --tokens 64 --svg " + path("plan.svg") + lost +
                  " >/dev/null"),
              0);
    EXPECT_EQ(run("epsmoe bench sweep -m " + kModel + " -p 8 -n 2 -r 1" + lost + " >/dev/null"), 0);
  }
}

TEST_F(OutputErrors, LostResultsAreAFailure) {
  const std::string commands[] = {"--help",
                                  "--version",
                                  "generate --help",
                                  "doctor",
                                  "doctor --json",
                                  "inspect -m " + kModel,
                                  "plan -m deepseek-v2 --ep 8 --profile h800 --tokens 64",
                                  "simulate -m mixtral-8x7b --ep 4",
                                  "generate -m " + kModel + " -p hello --max-tokens 2",
                                  "generate --json -m " + kModel + " -p hello --max-tokens 2",
                                  "bench sweep -m " + kModel + " -p 8 -n 2 -r 1"};
  for (const std::string& command : commands) {
    for (const std::string lost : {" >/dev/full", " >&-"}) {
      SCOPED_TRACE(command + lost);
      EXPECT_EQ(run("epsmoe " + command + lost + " 2>" + path("err")), 1);
      EXPECT_NE(err().find("epsmoe: standard output could not be written in full ("), std::string::npos) << err();
      EXPECT_EQ(run("epsmoe " + command + lost + " 2>&-"), 1);
    }
  }
}

// As under a supervisor that ignores SIGPIPE: the first write into a closed pipe ends the run.
TEST_F(OutputErrors, AReaderThatGoesAwayEndsTheRun) {
  const auto expect_ends = [this](const std::string& command) {
    SCOPED_TRACE(command);
    EXPECT_EQ(run("trap \"\" PIPE; epsmoe " + command + " 2>" + path("err") +
                  " | head -c 20 >/dev/null; exit ${PIPESTATUS[0]}"),
              1);
    EXPECT_NE(err().find("Broken pipe"), std::string::npos) << err();
    EXPECT_EQ(err().find("generated"), std::string::npos) << "it went on to the end: " << err();
  };
  expect_ends("generate -m " + kModel + " -p It --max-tokens 900 --temperature 0 --ignore-eos");
  expect_ends("bench sweep -m " + kModel + " -n 0 -r 1 -p 8,16,24,32");
}

TEST_F(OutputErrors, FilesDoNotTakeThePlaceOfClosedStreams) {
  const std::string line = "epsmoe generate -m " + kModel + " -p hello --max-tokens 2 --ep 2 --trace " + path("trace");
  EXPECT_EQ(run(line + " 2>&- >/dev/null"), 0);
  EXPECT_GT(io::read_json_file(path("trace"))["traceEvents"].size(), 10U);
  EXPECT_EQ(run(line + " >&- 2>&-"), 1);
  EXPECT_EQ(run("epsmoe tune --quick --ep 1 --threads 1 --shape 32,64 -m " + kModel + " --out " + path("box.json") +
                " <&- 2>&- >/dev/null"),
            0);
  EXPECT_TRUE(io::read_json_file(path("box.json")).is_object());
}

}  // namespace
}  // namespace eps
