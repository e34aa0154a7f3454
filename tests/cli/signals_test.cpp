// Ctrl-C and SIGTERM end the program within a second in every phase, with exit code 130 and a line. On a quiet machine:
// the bound here leaves room for a busy one.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

#include "io/file.h"
#include "io/json.h"
#include "support/child_program.h"

namespace eps {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;
using test::ChildProgram;

const std::string kModel = std::string(EPSMOE_SOURCE_DIR) + "/models/austen-moe";
// Sanitizers make every access to memory several times slower, and freeing it, too, because its shadow is freed with
// it. The thread sanitizer also holds signals back until a thread calls something that it watches, and waits for a
// second before a program with several threads ends.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr double kMostSeconds = 15;
constexpr bool kIsSanitized = true;
#else
constexpr double kMostSeconds = 3;
constexpr bool kIsSanitized = false;
#endif

class Signals : public ::testing::Test {
 protected:
  Signals() : dir_(fs::temp_directory_path() / ("epsmoe_signals_" + std::to_string(getpid()))) {
    fs::create_directories(dir_);
    // The demo model's tokenizer and shape with a context in which a prefill takes minutes. Its weights are random.
    fs::create_directories(path("long"));
    io::Json config = io::read_json_file(kModel + "/config.json");
    config["max_position_embeddings"] = 200000;
    std::ofstream(path("long/config.json")) << config.dump();
    fs::copy_file(kModel + "/tokenizer.json", path("long/tokenizer.json"));
    // The same with 9 GB of weights, whose generation takes longer than a test waits before it interrupts.
    fs::create_directories(path("wide"));
    config["hidden_size"] = 2048;
    config["moe_intermediate_size"] = 4096;
    std::ofstream(path("wide/config.json")) << config.dump();
    fs::copy_file(kModel + "/tokenizer.json", path("wide/tokenizer.json"));
    std::ofstream text(path("text"));
    for (int i = 0; i < 4000; ++i) text << "hello world it is a long text ";
  }
  ~Signals() override { fs::remove_all(dir_); }

  std::string path(const std::string& name) const { return (dir_ / name).string(); }
  std::string err() const { return io::read_file(path("err"), 1 << 24); }
  std::string out() const { return io::read_file(path("out"), 1 << 24); }

  ChildProgram start(std::vector<std::string> arguments, const std::string& input = "/dev/null",
                     void (*prepare)() = nullptr) const {
    arguments.insert(arguments.begin(), EPSMOE_PROGRAM);
    for (const char* name : {"out", "err"}) fs::remove(path(name));  // of the program before
    return {arguments, path("out"), path("err"), input, prepare};
  }

  // Runs until more than `num_bytes` stand in standard output, or for 20 seconds.
  void wait_for_output(uint64_t num_bytes) const {
    for (int i = 0; i < 2000 && (!fs::exists(path("out")) || fs::file_size(path("out")) <= num_bytes); ++i) {
      std::this_thread::sleep_for(milliseconds(10));
    }
  }

  // Waits until standard error contains `text`, for at most two minutes.
  void wait_for_error_text(const std::string& text) const {
    const auto is_there = [&] { return fs::exists(path("err")) && err().find(text) != std::string::npos; };
    for (int i = 0; i < 12000 && !is_there(); ++i) std::this_thread::sleep_for(milliseconds(10));
  }

  // Runs the command for a second, sends it `signal`, and wants it to end in time and in one line on standard error
  // that says what was interrupted.
  void expect_stops(const std::vector<std::string>& arguments, int signal, const std::string& command,
                    const std::string& input = "/dev/null") const {
    expect_stops_in("", arguments, signal, command, input);
  }

  // The second begins when the program says that it does `phase`.
  void expect_stops_in(const std::string& phase, const std::vector<std::string>& arguments, int signal,
                       const std::string& command, const std::string& input = "/dev/null") const {
    std::string line;
    for (const std::string& argument : arguments) line += argument + " ";
    SCOPED_TRACE(line);
    ChildProgram child = start(arguments, input);
    wait_for_error_text(phase);
    std::this_thread::sleep_for(milliseconds(1000));
    ASSERT_TRUE(child.is_running()) << "too short for a test: " << out() << err();
    child.send(signal);
    const ChildProgram::Exit exit = child.wait_at_most(30);
    EXPECT_EQ(exit.code, 130) << err();
    EXPECT_LT(exit.seconds, kMostSeconds);
    EXPECT_NE(err().find("epsmoe: " + command + ": interrupted"), std::string::npos) << err();
  }

  // On one rank and on four.
  void expect_stops_on_ranks(std::vector<std::string> arguments, const std::string& command) const {
    arguments.insert(arguments.end(), {"--ep", "1"});
    expect_stops(arguments, SIGINT, command);
    arguments.back() = "4";
    expect_stops(arguments, SIGTERM, command);
  }

  fs::path dir_;
};

TEST_F(Signals, Loading) {
  expect_stops_on_ranks({"generate", "-m", path("wide"), "--load-format", "dummy", "-p", "x"}, "generate");
  expect_stops_on_ranks({"bench", "layer", "--preset", "deepseek-v2", "--tokens", "8"}, "bench layer");
}

TEST_F(Signals, Prefill) {
  expect_stops_on_ranks({"generate", "-m", path("long"), "--load-format", "dummy", "-f", path("text")}, "generate");
}

TEST_F(Signals, PrefillOfTheReference) {
  expect_stops({"generate", "-m", path("long"), "--load-format", "dummy", "-f", path("text"), "--device", "reference"},
               SIGINT, "generate");
}

TEST_F(Signals, Perplexity) {
  expect_stops_on_ranks(
      {"perplexity", "-m", path("long"), "--load-format", "dummy", "-f", path("text"), "--window", "20000"},
      "perplexity");
}

TEST_F(Signals, Tune) {
  for (const char* ranks : {"1", "4"}) expect_stops({"tune", "--out", path("box.json"), "--ep", ranks}, SIGINT, "tune");
  EXPECT_FALSE(fs::exists(path("box.json")));
}

TEST_F(Signals, WaitingForTheReaderOfAFifo) {
  ASSERT_EQ(mkfifo(path("unread").c_str(), 0600), 0);
  const std::vector<std::vector<std::string>> commands = {
      {"tune", "--quick", "--ep", "1", "--weight-dtype", "f32", "-m", kModel, "-o"},
      {"generate", "-m", kModel, "-p", "x", "--max-tokens", "2", "--no-tune", "--trace"}};
  for (std::vector<std::string> arguments : commands) {
    arguments.push_back(path("unread"));
    ChildProgram child = start(arguments);
    wait_for_error_text("waiting for a program that reads " + path("unread"));
    child.send(SIGINT);
    const ChildProgram::Exit exit = child.wait_at_most(30);
    EXPECT_EQ(exit.code, 130) << err();
    EXPECT_LT(exit.seconds, kMostSeconds);
    EXPECT_NE(err().find("interrupted"), std::string::npos) << err();
    EXPECT_TRUE(fs::is_fifo(path("unread")));
  }
}

TEST_F(Signals, Benches) {
  const std::vector<std::string> model = {"-m", path("long"), "--load-format", "dummy"};
  const auto with_model = [&model](std::vector<std::string> arguments) {
    arguments.insert(arguments.end(), model.begin(), model.end());
    return arguments;
  };
  expect_stops_on_ranks(with_model({"bench", "sweep", "-p", "100000", "-n", "0"}), "bench sweep");
  expect_stops(with_model({"bench", "sweep", "-p", "0", "-n", "100000"}), SIGINT, "bench sweep");
  expect_stops_on_ranks(with_model({"bench", "latency", "--input-len", "100000"}), "bench latency");
  expect_stops_on_ranks(with_model({"bench", "throughput", "--input-len", "100000"}), "bench throughput");
  expect_stops(with_model({"bench", "gemm", "--repetitions", "10000"}), SIGINT, "bench gemm");
  expect_stops(with_model({"bench", "overlap", "--ep", "4", "--repetitions", "10000"}), SIGINT, "bench overlap");
  // What was measured before the signal is reported: the array of a sweep is closed.
  ChildProgram child = start(with_model({"bench", "sweep", "-p", "1,100000", "-n", "0", "-r", "1", "-o", "json"}));
  wait_for_output(100);
  child.send(SIGINT);
  EXPECT_EQ(child.wait_at_most(30).code, 130) << err();
  EXPECT_EQ(io::parse_json(out(), "output").size(), 1U) << out();
}

// A repetition of these takes five seconds or more on two cores. They need less than 4 GB.
TEST_F(Signals, WithinARepetition) {
  if (kIsSanitized) GTEST_SKIP() << "with a sanitizer, the work before the phase in question takes minutes";
  const auto with_layer = [](std::vector<std::string> arguments, const char* tokens) {
    arguments.insert(arguments.end(), {"--preset", "deepseek-v2-lite", "--num-experts", "8", "--tokens", tokens,
                                       "--repetitions", "1", "--threads", "1"});
    return arguments;
  };
  expect_stops_in("timing", with_layer({"bench", "gemm"}, "8192"), SIGINT, "bench gemm");
  expect_stops_in("timing", with_layer({"bench", "overlap", "--ep", "2", "--most-stages", "1"}, "4096"), SIGTERM,
                  "bench overlap");
  expect_stops_in("timing", with_layer({"bench", "overlap", "--ep", "4", "--most-stages", "1"}, "2048"), SIGINT,
                  "bench overlap");
  expect_stops_in("checking our output", with_layer({"bench", "layer", "--ep", "1"}, "8192"), SIGINT, "bench layer");
  expect_stops_in("checking our output", with_layer({"bench", "layer", "--ep", "4"}, "2048"), SIGTERM, "bench layer");
  expect_stops_in("timing", with_layer({"bench", "layer", "--ep", "1"}, "4096"), SIGINT, "bench layer");
}

// Rows are filled with random numbers before the first repetition: gigabytes of them here.
TEST_F(Signals, FillingRows) {
  if (kIsSanitized) GTEST_SKIP() << "with a sanitizer, the work before the phase in question takes minutes";
  expect_stops_in("packing", {"bench", "gemm", "--preset", "deepseek-v2", "--num-experts", "6", "--tokens", "30000"},
                  SIGINT, "bench gemm");
}

TEST_F(Signals, WaitingForARankOnASlowLink) {
  expect_stops({"generate", "-m", kModel, "-p", "It is", "--ep", "4", "--emulate-link", "1GB/s,30s"}, SIGINT,
               "generate");
}

TEST_F(Signals, APromptThatDoesNotCome) {
  ASSERT_EQ(mkfifo(path("fifo").c_str(), 0600), 0);
  expect_stops({"generate", "-m", kModel}, SIGINT, "generate", path("fifo"));
  expect_stops({"generate", "-m", kModel}, SIGTERM, "generate", path("fifo"));
}

TEST_F(Signals, DecodingReportsWhatThereIs) {
  for (const char* ranks : {"1", "4"}) {
    ChildProgram child = start({"generate", "-m", kModel, "-p", "It is a truth", "--max-tokens", "1000", "--ignore-eos",
                                "--temperature", "0", "--ep", ranks});
    wait_for_output(30);
    child.send(SIGTERM);
    const ChildProgram::Exit exit = child.wait_at_most(30);
    EXPECT_EQ(exit.code, 130) << err();
    EXPECT_LT(exit.seconds, kMostSeconds);
    EXPECT_NE(err().find("(interrupted)"), std::string::npos) << err();
    EXPECT_TRUE(err().ends_with("epsmoe: generate: interrupted\n")) << err();
  }
}

// Ctrl-Z for longer than any slice of a wait; `fg` goes on.
TEST_F(Signals, AStoppedProgramGoesOn) {
  ChildProgram child = start({"generate", "-m", kModel, "-p", "It is a truth", "--max-tokens", "300", "--ignore-eos",
                              "--temperature", "0", "--ep", "2"});
  wait_for_output(20);
  child.send(SIGSTOP);
  std::this_thread::sleep_for(milliseconds(700));
  child.send(SIGCONT);
  EXPECT_EQ(child.wait_at_most(60).code, 0) << err();
}

TEST_F(Signals, AnIgnoredSignalStaysIgnored) {
  ChildProgram child = start(
      {"generate", "-m", kModel, "-p", "It is a truth", "--max-tokens", "200", "--ignore-eos", "--temperature", "0"},
      "/dev/null", [] { signal(SIGINT, SIG_IGN); });
  wait_for_output(20);
  child.send(SIGINT);
  EXPECT_EQ(child.wait_at_most(60).code, 0) << err();
}

TEST_F(Signals, ASecondSignalEndsTheProgramAtOnce) {
  ChildProgram child =
      start({"generate", "-m", path("long"), "--load-format", "dummy", "-f", path("text"), "--device", "reference"});
  std::this_thread::sleep_for(milliseconds(1000));
  child.send(SIGINT);
  child.send(SIGTERM);
  const ChildProgram::Exit exit = child.wait_at_most(30);
  EXPECT_TRUE(exit.code == 130 || exit.code == 128 + SIGTERM) << exit.code;
  EXPECT_LT(exit.seconds, kMostSeconds);
}

}  // namespace
}  // namespace eps
