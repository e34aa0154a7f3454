// CPU GEMM: our engine against oneDNN called one product at a time, with the percent of the machine's own limits.
//
//   cpu_gemm_bench [--threads N] [--seconds S] [--dtype f32|bf16|f16] [--experts] [--cpu-clock]
//                  [--jsonl FILE]
//
// Limits measured in the same run: FMA peak of the cores used (register-only loop) and read bandwidth (a sum over
// memory beyond the caches). Weights rotate through copies larger than the last-level cache, so small M reads memory as
// a model does. Times are medians; p10 and p90 stand beside them. --cpu-clock counts the time the thread ran instead of
// the time that passed: for one thread on a machine that others use, too.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <random>
#include <string>
#include <vector>

#include "base/cpu_features.h"
#include "base/error.h"
#include "base/thread_pool.h"
#include "ops/cpu/convert.h"
#include "ops/cpu/onednn_baseline.h"
#include "ops/cpu/packed_linear.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace {

using namespace eps;

struct Options {
  int threads = 1;
  double seconds = 0.15;  // for each arm of each line
  DType dtype = DType::kBF16;
  bool experts = false;
  bool cpu_clock = false;
  std::string jsonl;
};

struct Times {
  double p10;
  double median;
  double p90;
};

double now(bool cpu_clock) {
  timespec time{};
  clock_gettime(cpu_clock ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

template <typename Body>
Times measure(double seconds, bool cpu_clock, const Body& body) {
  body(0);  // warm-up: creates primitives, touches pages
  std::vector<double> samples;
  const double begin = now(cpu_clock);
  for (int i = 1; samples.size() < 5 || now(cpu_clock) - begin < seconds; ++i) {
    const double start = now(cpu_clock);
    body(i);
    samples.push_back(now(cpu_clock) - start);
  }
  std::sort(samples.begin(), samples.end());
  const auto at = [&](double q) { return samples[static_cast<size_t>(q * static_cast<double>(samples.size() - 1))]; };
  return {at(0.1), at(0.5), at(0.9)};
}

#if defined(__x86_64__)
constexpr int kChains = 12;  // latency 4 x 2 a cycle needs 8
constexpr int64_t kFmaSteps = 1'000'000;

__attribute__((target("avx2,fma"))) double fma_flops_avx2() {
  __m256 acc[kChains];
  for (auto& a : acc) a = _mm256_set1_ps(1.0F);
  const __m256 x = _mm256_set1_ps(0.999F);
  for (int64_t i = 0; i < kFmaSteps; ++i) {
#pragma GCC unroll 12
    for (int c = 0; c < kChains; ++c) acc[c] = _mm256_fmadd_ps(acc[c], x, x);
  }
  float sum[8];
  for (int c = 1; c < kChains; ++c) acc[0] = _mm256_add_ps(acc[0], acc[c]);
  _mm256_storeu_ps(sum, acc[0]);
  return std::isfinite(sum[0]) ? 2.0 * 8 * kChains * kFmaSteps : 0;
}

__attribute__((target("avx512f"))) double fma_flops_avx512() {
  __m512 acc[kChains];
  for (auto& a : acc) a = _mm512_set1_ps(1.0F);
  const __m512 x = _mm512_set1_ps(0.999F);
  for (int64_t i = 0; i < kFmaSteps; ++i) {
#pragma GCC unroll 12
    for (int c = 0; c < kChains; ++c) acc[c] = _mm512_fmadd_ps(acc[c], x, x);
  }
  float sum[16];
  for (int c = 1; c < kChains; ++c) acc[0] = _mm512_add_ps(acc[0], acc[c]);
  _mm512_storeu_ps(sum, acc[0]);
  return std::isfinite(sum[0]) ? 2.0 * 16 * kChains * kFmaSteps : 0;
}
#endif

// FLOP/s of `threads` cores with operands in registers; 0 where the CPU has no FMA.
double measure_peak(ThreadPool& pool, bool cpu_clock) {
#if defined(__x86_64__)
  const CpuFeatures& cpu = cpu_features();
  if (!cpu.has_avx2_kernels()) return 0;
  double flops = 0;
  const Times times = measure(0.2, cpu_clock, [&](int) {
    std::vector<double> each(static_cast<size_t>(pool.num_threads()));
    pool.parallel_for(pool.num_threads(), [&](int64_t i) {
      each[static_cast<size_t>(i)] = cpu.has_avx512_kernels() ? fma_flops_avx512() : fma_flops_avx2();
    });
    flops = 0;
    for (const double f : each) flops += f;
  });
  return flops / times.median;
#else
  (void)pool;
  (void)cpu_clock;
  return 0;
#endif
}

// Bytes a second that `threads` cores read from memory.
double measure_bandwidth(ThreadPool& pool, bool cpu_clock) {
  constexpr int64_t kFloats = 64 << 20;
  constexpr int64_t kParts = 64;
  std::vector<float> data(kFloats, 1.0F);
  std::vector<float> sums(kParts);
  const Times times = measure(0.4, cpu_clock, [&](int) {
    pool.parallel_for(kParts, [&](int64_t p) {
      const float* from = data.data() + p * (kFloats / kParts);
      float lanes[64] = {};
      for (int64_t i = 0; i < kFloats / kParts; i += 64) {
        for (int64_t l = 0; l < 64; ++l) lanes[l] += from[i + l];
      }
      sums[static_cast<size_t>(p)] = lanes[0] + lanes[63];
    });
  });
  return static_cast<double>(kFloats) * sizeof(float) / times.median;
}

std::vector<float> random_floats(int64_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> uniform(-1.0F, 1.0F);
  std::vector<float> out(static_cast<size_t>(count));
  for (float& v : out) v = uniform(random);
  return out;
}

// `values` in `dtype`, as bytes.
std::vector<std::byte> stored(const std::vector<float>& values, DType dtype) {
  std::vector<std::byte> out(values.size() * size_of(dtype));
  const auto count = static_cast<int64_t>(values.size());
  if (dtype == DType::kF32) {
    std::memcpy(out.data(), values.data(), out.size());
  } else if (dtype == DType::kBF16) {
    convert_f32_to_bf16(values.data(), reinterpret_cast<bf16*>(out.data()), count);
  } else {
    std::transform(values.begin(), values.end(), reinterpret_cast<f16*>(out.data()), [](float v) { return to_f16(v); });
  }
  return out;
}

struct Limits {
  double peak;
  double bandwidth;
};

struct Line {
  int64_t m, n, k;
  int experts;
  double flops;
  double weight_bytes;
  Times ours;
  Times onednn;
  double difference;  // largest |ours - oneDNN| over the scale of a result
};

// `experts` products of m rows each, ours in one grouped call, oneDNN one by one.
Line measure_line(int64_t m, int64_t n, int64_t k, int experts, const Options& options, const CpuEngineChoice& choice,
                  ThreadPool& pool) {
  const DType baseline_dtype = choice.compute;
  const auto weights_f32 = random_floats(n * k, 1);
  const auto weights = stored(weights_f32, options.dtype);
  const auto weights_baseline = stored(weights_f32, baseline_dtype);
  const TensorView view(weights.data(), options.dtype, Shape{n, k});
  const TensorView view_baseline(weights_baseline.data(), baseline_dtype, Shape{n, k});

  // Copies beyond a last-level cache of 64 MiB where that matters (few rows), at most 1 GiB.
  const int64_t ours_bytes = n * k * static_cast<int64_t>(size_of(options.dtype));
  const int64_t sets = m * experts >= 128 ? 1 : std::clamp<int64_t>((160 << 20) / (ours_bytes * experts), 1, 64);
  std::vector<std::unique_ptr<PackedLinear>> ours;
  std::vector<std::unique_ptr<OneDnnBaseline>> baseline;
  for (int64_t i = 0; i < sets * experts; ++i) {
    ours.push_back(pack_linear({&view, 1}, choice));
    baseline.push_back(std::make_unique<OneDnnBaseline>(baseline_dtype, view_baseline, options.threads));
    baseline.back()->implementation(m);
  }

  const int64_t rows = m * experts;
  const auto x = stored(random_floats(rows * k, 2), choice.compute);
  std::vector<float> y(static_cast<size_t>(rows * n));
  std::vector<float> y_baseline(y.size());
  std::vector<GemmTask> tasks(static_cast<size_t>(experts));
  const size_t x_bytes = static_cast<size_t>(m * k) * size_of(choice.compute);
  const auto run_ours = [&](int i) {
    for (size_t e = 0; e < tasks.size(); ++e) {
      tasks[e] = {ours[static_cast<size_t>(i % sets) * tasks.size() + e].get(),
                  x.data() + e * x_bytes,
                  k,
                  y.data() + static_cast<int64_t>(e) * m * n,
                  n,
                  m};
    }
    run_gemms(tasks, pool);
  };
  const auto run_baseline = [&](int i) {
    for (size_t e = 0; e < tasks.size(); ++e) {
      baseline[static_cast<size_t>(i % sets) * tasks.size() + e]->run(
          m, x.data() + e * x_bytes, y_baseline.data() + static_cast<int64_t>(e) * m * n);
    }
  };

  Line line{m,  n,  k, experts, 2.0 * static_cast<double>(rows * n * k), static_cast<double>(ours_bytes * experts),
            {}, {}, 0};
  // Correctness first. The f32 baseline has unrounded weights: the difference then includes the rounding of a weight.
  run_ours(0);
  run_baseline(0);
  for (size_t i = 0; i < y.size(); ++i) {
    line.difference = std::max(
        line.difference, std::fabs(static_cast<double>(y[i]) - y_baseline[i]) / std::sqrt(static_cast<double>(k)));
  }
  EPS_CHECK(line.difference < 0.01, "m {} n {} k {}: results differ by {}", m, n, k, line.difference);
  line.ours = measure(options.seconds, options.cpu_clock, run_ours);
  line.onednn = measure(options.seconds, options.cpu_clock, run_baseline);
  return line;
}

void print_line(const Line& line, const Limits& limits, const Options& options, const CpuEngineChoice& choice,
                std::FILE* jsonl) {
  const double gflops = line.flops / line.ours.median * 1e-9;
  const double gflops_onednn = line.flops / line.onednn.median * 1e-9;
  const double gbps = line.weight_bytes / line.ours.median * 1e-9;
  fmt::print(
      "{:>5} {:>5} {:>5} {:>3} | {:>9.1f} {:>9.1f} {:>9.1f} | {:>7.1f} {:>5.1f}% {:>6.1f} {:>5.1f}% | {:>9.1f} "
      "{:>7.1f} | {:>5.2f}x\n",
      line.m, line.n, line.k, line.experts, line.ours.p10 * 1e6, line.ours.median * 1e6, line.ours.p90 * 1e6, gflops,
      100 * gflops * 1e9 / limits.peak, gbps, 100 * gbps * 1e9 / limits.bandwidth, line.onednn.median * 1e6,
      gflops_onednn, line.onednn.median / line.ours.median);
  if (jsonl == nullptr) return;
  fmt::print(
      jsonl,
      "{{\"bench\":\"cpu_gemm\",\"cpu\":\"{}\",\"isa\":\"{}\",\"threads\":{},\"weights\":\"{}\",\"m\":{},\"n\":{},"
      "\"k\":{},"
      "\"experts\":{},\"p10_us\":{:.2f},\"median_us\":{:.2f},\"p90_us\":{:.2f},\"onednn_p10_us\":{:.2f},"
      "\"onednn_median_us\":{:.2f},\"onednn_p90_us\":{:.2f},\"gflops\":{:.2f},\"peak_gflops\":{:.2f},\"gbps\":{:.2f},"
      "\"bandwidth_gbps\":{:.2f}}}\n",
      cpu_features().brand, choice.isa, options.threads, to_string(options.dtype), line.m, line.n, line.k, line.experts,
      line.ours.p10 * 1e6, line.ours.median * 1e6, line.ours.p90 * 1e6, line.onednn.p10 * 1e6, line.onednn.median * 1e6,
      line.onednn.p90 * 1e6, gflops, limits.peak * 1e-9, gbps, limits.bandwidth * 1e-9);
}

Options parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string flag = argv[i];
    if (flag == "--experts") {
      options.experts = true;
      continue;
    }
    if (flag == "--cpu-clock") {
      options.cpu_clock = true;
      continue;
    }
    const std::string value = i + 1 < argc ? argv[++i] : "";
    if (flag == "--threads") {
      options.threads = std::stoi(value);
    } else if (flag == "--seconds") {
      options.seconds = std::stod(value);
    } else if (flag == "--jsonl") {
      options.jsonl = value;
    } else if (flag == "--dtype" && (value == "f32" || value == "bf16" || value == "f16")) {
      options.dtype = value == "f32" ? DType::kF32 : value == "bf16" ? DType::kBF16 : DType::kF16;
    } else {
      fail(ErrorKind::kUsage, flag,
           {"unknown flag or value", value, "--threads --seconds --dtype --experts --jsonl", ""});
    }
  }
  return options;
}

void run(const Options& options) {
  if (options.cpu_clock && options.threads != 1)
    fail(ErrorKind::kUsage, "--cpu-clock", {"it counts one thread", "", "--threads 1", ""});
  ThreadPool pool(options.threads);
  const CpuEngineChoice choice = choose_cpu_engine(std::nullopt);
  const Limits limits{measure_peak(pool, options.cpu_clock), measure_bandwidth(pool, options.cpu_clock)};
  fmt::print("{} ({})\n{}; weights {}, {} thread(s)\nFMA peak {:.1f} GFLOP/s, read bandwidth {:.1f} GB/s\n\n",
             cpu_features().brand, cpu_features().isa_list(), choice.reason, to_string(options.dtype), options.threads,
             limits.peak * 1e-9, limits.bandwidth * 1e-9);
  fmt::print(
      "    m     n     k   e |   p10 us    median   p90 us | GFLOP/s  peak   GB/s  band. | oneDNN us GFLOP/s | "
      "speed\n");
  std::FILE* jsonl = options.jsonl.empty() ? nullptr : std::fopen(options.jsonl.c_str(), "a");
  EPS_CHECK(options.jsonl.empty() || jsonl != nullptr, "cannot write {}", options.jsonl);
  const std::pair<int64_t, int64_t> shapes[] = {{512, 512}, {2816, 2048}, {2048, 1408}};
  for (const auto& [n, k] : shapes) {
    for (const int64_t m : {1, 2, 4, 8, 16, 32, 64, 128, 256, 1024}) {
      if (options.experts && m > 64) continue;
      print_line(measure_line(m, n, k, options.experts ? 16 : 1, options, choice, pool), limits, options, choice,
                 jsonl);
    }
  }
  if (jsonl != nullptr) std::fclose(jsonl);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    run(parse(argc, argv));
    return 0;
  } catch (const eps::Error& e) {
    fmt::print(stderr, "{}\n", e.what());
    return eps::exit_code(e.kind());
  } catch (const std::exception& e) {
    fmt::print(stderr, "{}\n", e.what());
    return 1;
  }
}
