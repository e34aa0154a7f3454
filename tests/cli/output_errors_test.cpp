// Standard output and standard error that are closed, full, or a pipe whose reader has gone: no command crashes, and
// results that are lost are a failure. Output files that cannot be written, or must not be.
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

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

// A symbolic link keeps pointing to its target, and a device, FIFO or stream is not replaced by a file.
TEST_F(OutputErrors, ProfilesAreWrittenThroughLinksAndDevices) {
  const std::string tune = "epsmoe tune --quick --ep 1 --threads 1 --weight-dtype f32 -m " + kModel + " -o ";
  const auto is_profile = [this](const std::string& name) { return io::read_json_file(path(name)).contains("gemms"); };
  fs::create_directories(path("there"));
  fs::create_symlink("there/box.json", path("link"));
  for (const char* when : {"the target is missing", "the target exists"}) {
    SCOPED_TRACE(when);
    EXPECT_EQ(run(tune + path("link") + " >/dev/null 2>" + path("err")), 0) << err();
    EXPECT_TRUE(fs::is_symlink(path("link")));
    EXPECT_TRUE(is_profile("there/box.json"));
  }
  EXPECT_EQ(std::distance(fs::directory_iterator(path("there")), {}), 1) << "a temporary file is left";
  fs::create_symlink("/dev/full", path("full"));
  EXPECT_EQ(run(tune + path("full") + " >/dev/null 2>" + path("err")), 1);
  EXPECT_NE(err().find("could not be written in full: got No space left on device"), std::string::npos) << err();
  EXPECT_TRUE(fs::is_symlink(path("full")));
  ASSERT_EQ(mkfifo(path("fifo").c_str(), 0600), 0);
  EXPECT_EQ(run("cat " + path("fifo") + " >" + path("read") + " & " + tune + path("fifo") + " >/dev/null 2>" +
                path("err") + "; code=$?; wait; exit $code"),
            0)
      << err();
  EXPECT_TRUE(fs::is_fifo(path("fifo")));
  EXPECT_TRUE(is_profile("read"));
}

// The file that standard output goes to gets the trace after what was written before it.
TEST_F(OutputErrors, StandardOutputAsAFileIsNotOverwritten) {
  EXPECT_EQ(run("epsmoe generate -m " + kModel + " -p hello --max-tokens 2 --trace /dev/stdout >" + path("out") +
                " 2>" + path("err")),
            0)
      << err();
  const std::string out = io::read_file(path("out"), 1 << 24);
  EXPECT_TRUE(out.starts_with("hello")) << out.substr(0, 100);
  EXPECT_NE(out.find("traceEvents"), std::string::npos);
}

TEST_F(OutputErrors, UnwritableFilesAreRefusedBeforeMeasuring) {
  fs::create_symlink("loop", path("loop"));
  const std::string files[] = {path("loop"), path("loop/box.json"), path("nosuch/box.json"),
                               path(std::string(300, 'x'))};
  for (const std::string& file : files) {
    SCOPED_TRACE(file);
    EXPECT_EQ(run("epsmoe tune -o " + file + " 2>" + path("err")), 2);
    EXPECT_TRUE(err().starts_with("epsmoe: --output: cannot write " + path(""))) << err();
    EXPECT_EQ(std::ranges::count(err(), '\n'), 1) << err();
  }
  if (geteuid() != 0) return;
  fs::create_directories(path("private"));
  fs::permissions(path("private"), fs::perms::owner_all);
  const std::string as_other = "setpriv --reuid=65534 --regid=65534 --clear-groups ";
  if (run(as_other + EPSMOE_PROGRAM " --version >/dev/null 2>&1") != 0) return;  // the program is in a private folder
  EXPECT_EQ(run(as_other + EPSMOE_PROGRAM " tune -o " + path("private/box.json") + " 2>" + path("err")), 2);
  EXPECT_NE(err().find("box.json: got Permission denied"), std::string::npos) << err();
}

TEST_F(OutputErrors, InputsAreNotOverwritten) {
  const std::string generate = "epsmoe generate --max-tokens 2 -m " + kModel;
  const auto expect_refused = [this](const std::string& line, const std::string& message) {
    SCOPED_TRACE(line);
    EXPECT_EQ(run(line + " >" + path("out") + " 2>" + path("err")), 2);
    EXPECT_TRUE(err().starts_with("epsmoe: " + message)) << err();
    EXPECT_EQ(std::ranges::count(err(), '\n'), 1) << err();
  };
  std::ofstream(path("text")) << "hello";
  fs::create_hard_link(path("text"), path("hard"));
  fs::create_symlink("text", path("soft"));
  for (const std::string name : {"text", "hard", "soft"}) {
    expect_refused(generate + " -f " + path("text") + " --trace " + path(name),
                   "--trace: would overwrite the file of --file: got " + path(name) + ", wanted another file");
    expect_refused(generate + " --trace " + path(name) + " <" + path("text"),
                   "--trace: would overwrite the file on standard input");
  }
  EXPECT_EQ(io::read_file(path("text"), 100), "hello");
  std::ofstream(path("settings")) << "[generate]\n";
  expect_refused("epsmoe --config " + path("settings") + " generate -p x --trace " + path("settings"),
                 "--trace: would overwrite the file of --config");
  fs::copy_file(kModel + "/../../src/report/profiles/h800.json", path("box.json"));
  const std::string plan = "epsmoe plan -m deepseek-v2 --ep 8 --tokens 64 --profile ";
  expect_refused(plan + path("box.json") + " --svg " + path("box.json"),
                 "--svg: would overwrite the file of --profile");
  expect_refused("EPSMOE_PROFILE_DIR=" + path("") + " " + plan + "box --svg " + path("box.json"),
                 "--svg: would overwrite the file of --profile");
  fs::create_directories(path("model"));
  fs::copy_file(kModel + "/config.json", path("model/config.json"));
  const std::string config = path("model/config.json");
  expect_refused("epsmoe tune -m " + path("model") + " -o " + config, "--output: would overwrite a file of the model");
  for (const std::string bench : {"latency", "throughput"}) {
    expect_refused("epsmoe bench " + bench + " --load-format dummy -m " + path("model") + " --output-json " + config,
                   "--output-json: would overwrite a file of the model");
  }
  EXPECT_EQ(io::read_file(config, 1 << 20), io::read_file(kModel + "/config.json", 1 << 20));
  // A file in the model's folder that is no part of the model, a second time.
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(run(plan + "h800 --trace " + path("model/trace.json") + " >/dev/null 2>&1"), 0);
  }
}

TEST_F(OutputErrors, AFileSizeLimitIsAnError) {
  const auto expect_fails = [this](const std::string& line, const std::string& file) {
    SCOPED_TRACE(line);
    EXPECT_EQ(run("ulimit -f 1; epsmoe " + line + path(file) + " >/dev/null 2>" + path("err")), 1);
    EXPECT_NE(err().find(file + ": could not be written: got File too large"), std::string::npos) << err();
  };
  expect_fails("plan -m deepseek-v2 --ep 8 --profile h800 --tokens 64 --svg ", "plan.svg");
  expect_fails("tune --quick --ep 1 --threads 1 --weight-dtype f32 -m " + kModel + " -o ", "box.json");
  std::vector<std::string> left;
  for (const auto& entry : fs::directory_iterator(dir_)) left.push_back(entry.path().filename().string());
  EXPECT_EQ(left, std::vector<std::string>{"err"});
}

}  // namespace
}  // namespace eps
