// `bench latency` and `bench throughput` through the command line: their text, their JSON and refused options.
#include "cli/bench_latency_output.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <numeric>

#include "base/error.h"
#include "cli/bench_throughput_output.h"
#include "io/file.h"
#include "measure/stats.h"
#include "support/run_command.h"

namespace eps::cli {
namespace {

const std::string kModel = std::string(EPSMOE_SOURCE_DIR) + "/tests/data/golden/plain";  // context 64

std::string run(const std::string& command, const std::string& arguments) {
  return test::run_command("bench " + command + " --load-format dummy --threads 1 -m " + kModel + " " + arguments);
}

std::string usage_error(const std::string& command, const std::string& arguments) {
  try {
    run(command, arguments);
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kUsage) << e.what();
    return e.what();
  }
  return "no error";
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

TEST(BenchLatency, JsonHasTheKeysOfVllmAndOurs) {
  const auto o = nlohmann::json::parse(
      run("latency",
          "--batch-size 3 --input-len 8 --output-len 5 --num-iters 4 --num-iters-warmup 1 --ep 2 --json "
          "--limit-tflops 0.5"));
  const auto latencies = o.at("latencies").get<std::vector<double>>();
  ASSERT_EQ(latencies.size(), 4U);
  const double sum = std::accumulate(latencies.begin(), latencies.end(), 0.0);
  EXPECT_NEAR(o.at("avg_latency").get<double>(), sum / 4, 1e-9 * sum);
  ASSERT_EQ(o.at("percentiles").size(), 6U);
  for (const int percent : {10, 25, 50, 75, 90, 99}) {
    EXPECT_DOUBLE_EQ(o.at("percentiles").at(std::to_string(percent)).get<double>(),
                     measure::quantile(latencies, percent / 100.0));
  }
  EXPECT_EQ(o.at("device"), "cpu");
  EXPECT_EQ(o.at("model"), kModel);
  EXPECT_EQ(o.at("ep"), 2);
  EXPECT_EQ(o.at("threads"), 1);
  EXPECT_EQ(o.at("batch_size"), 3);
  EXPECT_EQ(o.at("num_iters"), 4);
  EXPECT_TRUE(contains(o.at("op_set").get<std::string>(), o.at("dtype").get<std::string>()));
  const double prefill = o.at("prefill_seconds");
  EXPECT_GT(prefill, 0.0);
  EXPECT_NEAR(o.at("prefill_tokens_per_second").get<double>(), 24 / prefill, 1e-6 * 24 / prefill);
  EXPECT_NEAR(o.at("prefill_tflops").get<double>(), o.at("prefill_flops").get<double>() / prefill * 1e-12, 1e-9);
  EXPECT_EQ(o.at("limit_tflops"), 0.5);
  EXPECT_EQ(o.at("limit_source"), "as given");
  EXPECT_NEAR(o.at("prefill_pct_of_limit").get<double>(), 200 * o.at("prefill_tflops").get<double>(), 1e-9);
  const double step = o.at("decode_ms");
  EXPECT_GE(step, o.at("decode_ms_p10").get<double>());
  EXPECT_LE(step, o.at("decode_ms_p90").get<double>());
  EXPECT_NEAR(o.at("decode_tokens_per_second").get<double>(), 3000 / step, 1e-6 * 3000 / step);
}

TEST(BenchLatency, WithoutOutputThereIsNoDecodingAndElsewhereNoLimit) {
  const std::string flags = "--batch-size 1 --input-len 4 --output-len 0 --num-iters 1 --num-iters-warmup 0 ";
  const auto o = nlohmann::json::parse(run("latency", flags + "--json --device reference"));
  EXPECT_FALSE(o.contains("decode_ms"));
  EXPECT_FALSE(o.contains("limit_tflops"));
  EXPECT_FALSE(o.contains("prefill_pct_of_limit"));
  EXPECT_EQ(o.at("latencies")[0], o.at("prefill_seconds"));
  const std::string text = run("latency", flags + "--limit-tflops 2");
  EXPECT_TRUE(contains(text, "plain (dummy weights), 1 rank x cpu")) << text;
  EXPECT_TRUE(contains(text, "1 sequence of 4 + 0 tokens; 1 iteration after 0")) << text;
  EXPECT_TRUE(contains(text, "| prefill ")) << text;
  EXPECT_FALSE(contains(text, "decode step")) << text;
  EXPECT_TRUE(contains(text, "% of the limit\nlimit    2.0000 TFLOP/s: as given")) << text;
}

TEST(BenchLatency, TextShowsPrefillAndDecodingOfKnownTimes) {
  measure::LatencyOptions options;
  options.engine.model = "some/where/tiny/";
  options.batch_size = 2;
  options.input_len = 10;
  options.output_len = 3;
  measure::LatencyResult r;
  r.latencies = {0.5, 0.5};
  r.prefill_seconds = {0.1, 0.1};
  r.decode_seconds = {0.2, 0.2, 0.2, 0.2};
  r.prefill_flops = 3e9;
  r.limit_tflops = 0.12;
  r.limit_source = "a limit";
  const measure::BenchedModel model{"tiny", "cpu f32 (avx2), 1 thread", "f32", 1, 1000, "dp+ep"};
  const std::string text = format_latency_text(options, model, r);
  EXPECT_TRUE(
      contains(text, "tiny, 1 rank x cpu f32 (avx2), 1 thread, pipeline auto\n2 sequences of 10 + 3 tokens; 2 "))
      << text;
  EXPECT_TRUE(contains(text, "| batch        |     500.000 |     500.000 |     500.000 |       52.0 |")) << text;
  EXPECT_TRUE(contains(text, "| prefill      |     100.000 |     100.000 |     100.000 |      200.0 |")) << text;
  EXPECT_TRUE(contains(text, "| decode step  |     200.000 |     200.000 |     200.000 |       10.0 |")) << text;
  EXPECT_TRUE(contains(text, "latency  0.500000 s on average")) << text;
  EXPECT_TRUE(contains(text, "prefill  0.0300 TFLOP/s (3 GFLOP), 25.0 % of the limit")) << text;
}

TEST(BenchLatency, OnTheCpuTheLimitIsMeasured) {
  const auto o = nlohmann::json::parse(
      run("latency", "--batch-size 1 --input-len 4 --output-len 1 --num-iters 1 --num-iters-warmup 0 --json"));
  EXPECT_GT(o.at("limit_tflops").get<double>(), 0.0);
  EXPECT_TRUE(contains(o.at("limit_source").get<std::string>(), "oneDNN")) << o.at("limit_source");
}

TEST(BenchLatency, WritesTheObjectToAFile) {
  const auto path = (std::filesystem::path(testing::TempDir()) / "latency.json").string();
  const std::string out = run("latency",
                              "--batch-size 1 --input-len 4 --output-len 2 --num-iters 2 "
                              "--num-iters-warmup 0 --limit-tflops 1 --output-json " +
                                  path);
  EXPECT_TRUE(out.starts_with("plain")) << "the text is printed all the same: " << out;
  EXPECT_EQ(nlohmann::json::parse(io::read_file(path, 1 << 20)).at("latencies").size(), 2U);
  std::filesystem::remove(path);
}

TEST(BenchLatency, AnInterruptKeepsFinishedIterations) {
  measure::LatencyOptions options;
  options.engine.model = kModel;
  options.engine.dummy_weights = true;
  options.engine.threads = 1;
  options.input_len = 4;
  options.output_len = 1;  // one step an iteration
  options.batch_size = 1;
  options.num_iters = 3;
  options.num_iters_warmup = 1;
  options.limit_tflops = 1;
  const auto engine = Engine::open(options.engine);
  // keep_going is called before each prefill step and before decoding.
  const std::vector<size_t> want = {0, 0, 1, 2, 3};
  for (size_t iterations = 0; iterations < want.size(); ++iterations) {
    int asked = 0;
    const auto r = measure::run_latency(
        options, *engine, [](int64_t, int64_t) {}, [&] { return ++asked <= static_cast<int>(3 * iterations); });
    EXPECT_EQ(r.latencies.size(), want[iterations]);
    EXPECT_EQ(r.prefill_seconds.size(), want[iterations]);
  }
}

TEST(BenchLatency, RefusesInvalidOptions) {
  const auto error = [](const std::string& arguments) { return usage_error("latency", arguments); };
  EXPECT_TRUE(contains(
      error("--input-len 60 --output-len 5"),
      "--output-len: with --input-len 60 longer than the context of 64 tokens: got 5 tokens, wanted at most 4"))
      << error("--input-len 60 --output-len 5");
  EXPECT_TRUE(contains(error("--input-len 0"), "--input-len: out of range: got 0"));
  EXPECT_TRUE(contains(error("--output-len=-1"), "--output-len: out of range"));
  EXPECT_TRUE(contains(error("--batch-size 0"), "--batch-size: out of range"));
  EXPECT_TRUE(contains(error("--num-iters 0"), "--num-iters: out of range"));
  EXPECT_TRUE(contains(error("--num-iters-warmup=-1"), "--num-iters-warmup: out of range"));
  EXPECT_TRUE(contains(error("--limit-tflops=-1"), "--limit-tflops: out of range"));
  EXPECT_TRUE(contains(error("--input-len 65 --output-len 0"), "--input-len: longer than the context: got 65 tokens"));
  EXPECT_THROW(run("latency", "--limit-tflops nan"), test::ParseError);
  EXPECT_TRUE(contains(error("--output-json /no/such/folder/x.json"), "cannot write /no/such/folder/x.json"));
  EXPECT_THROW(run("latency", "--batch-size x"), test::ParseError);
}

TEST(BenchThroughput, JsonHasTheKeysOfVllmAndOurs) {
  const auto o = nlohmann::json::parse(
      run("throughput", "--num-prompts 7 --input-len 6 --output-len 4 --max-num-seqs 3 --num-warmups 2 --ep 2 --json"));
  const double seconds = o.at("elapsed_time");
  EXPECT_GT(seconds, 0.0);
  EXPECT_EQ(o.at("num_requests"), 7);
  EXPECT_EQ(o.at("total_num_tokens"), 70);
  EXPECT_NEAR(o.at("requests_per_second").get<double>(), 7 / seconds, 1e-6 * 7 / seconds);
  EXPECT_NEAR(o.at("tokens_per_second").get<double>(), 70 / seconds, 1e-6 * 70 / seconds);
  EXPECT_NEAR(o.at("output_tokens_per_second").get<double>(), 28 / seconds, 1e-6 * 28 / seconds);
  EXPECT_EQ(o.at("num_prompt_tokens"), 42);
  EXPECT_EQ(o.at("num_output_tokens"), 28);
  EXPECT_EQ(o.at("max_num_seqs"), 3);
  EXPECT_EQ(o.at("device"), "cpu");
}

TEST(BenchThroughput, TextShowsRatesOfKnownTimes) {
  measure::ThroughputOptions options;
  options.max_num_seqs = 32;
  const std::string text =
      format_throughput_text(options, {"tiny", "cpu f32", "f32", 1, 1000, "dp+ep"}, {2.0, 10, 1280, 640});
  EXPECT_TRUE(contains(text, "10 requests of 128 + 128 tokens, up to 32 at once: 2.000 s")) << text;
  EXPECT_TRUE(contains(text, "throughput  5.000 requests/s, 960.0 total tokens/s, 320.0 output tokens/s")) << text;
  EXPECT_TRUE(contains(text, "tokens      1280 prompt, 640 output")) << text;
}

TEST(BenchThroughput, RefusesInvalidOptions) {
  const auto error = [](const std::string& arguments) { return usage_error("throughput", arguments); };
  EXPECT_TRUE(contains(error("--input-len 60 --output-len 5"), "got 5 tokens, wanted at most 4"));
  EXPECT_TRUE(contains(error("--input-len 0"), "--input-len: out of range"));
  EXPECT_TRUE(contains(error("--output-len 0"), "--output-len: out of range"));
  EXPECT_TRUE(contains(error("--num-prompts 0"), "--num-prompts: out of range"));
  EXPECT_TRUE(contains(error("--max-num-seqs 0"), "--max-num-seqs: out of range"));
  EXPECT_TRUE(contains(error("--num-warmups=-1"), "--num-warmups: out of range"));
  EXPECT_TRUE(contains(error("--output-json /no/such/folder/x.json"), "cannot write"));
}

}  // namespace
}  // namespace eps::cli
