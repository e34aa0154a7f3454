// How long planning takes: one DeepSeek-V2 layer of 20 local experts on 8 ranks, a new load every time, and found
// again.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <vector>

#include "plan/plan_cache.h"
#include "report/profile_store.h"
#include "sim/workload.h"

namespace {

using Clock = std::chrono::steady_clock;

// Layers whose loads differ, so that no branch predictor learns one by heart.
std::vector<eps::plan::MoeProblem> make_problems(int64_t tokens) {
  const eps::sim::SimulatedModel model = eps::sim::preset_model("deepseek-v2");
  std::vector<eps::plan::MoeProblem> problems;
  for (uint64_t seed = 1; seed <= 16; ++seed) {
    eps::sim::WorkloadOptions options;
    options.num_ranks = 8;
    options.tokens_per_rank = tokens;
    options.skew = {.alpha = seed % 2 == 0 ? 8.0 : 0.0};
    options.seed = seed;
    problems.push_back(eps::sim::make_problem(model, eps::plan::Strategy::kDpEp, options));
  }
  return problems;
}

void report(benchmark::State& state, std::vector<double>& us) {
  std::sort(us.begin(), us.end());
  state.counters["p50_us"] = us[us.size() / 2];
  state.counters["p99_us"] = us[us.size() * 99 / 100];
}

void plan_uncached(benchmark::State& state) {
  const auto problems = make_problems(state.range(0));
  const eps::plan::Planner planner(eps::report::bundled_profile("h800"), problems.front().shape);
  std::vector<double> us;
  size_t i = 0;
  for (auto unused : state) {
    const auto begin = Clock::now();
    benchmark::DoNotOptimize(planner.plan(problems[i++ % problems.size()], {}));
    us.push_back(std::chrono::duration<double, std::micro>(Clock::now() - begin).count());
  }
  report(state, us);
}

void plan_cached(benchmark::State& state) {
  const auto problems = make_problems(state.range(0));
  const eps::plan::Planner planner(eps::report::bundled_profile("h800"), problems.front().shape);
  eps::plan::PlanCache cache(planner, {});
  for (const auto& problem : problems) cache.plan(problem);
  std::vector<double> us;
  size_t i = 0;
  for (auto unused : state) {
    const auto begin = Clock::now();
    benchmark::DoNotOptimize(&cache.plan(problems[i++ % problems.size()]));
    us.push_back(std::chrono::duration<double, std::micro>(Clock::now() - begin).count());
  }
  report(state, us);
}

BENCHMARK(plan_uncached)->Arg(64)->Arg(1024)->Arg(8192)->Unit(benchmark::kMicrosecond);
BENCHMARK(plan_cached)->Arg(64)->Arg(8192)->Unit(benchmark::kMicrosecond);

}  // namespace

BENCHMARK_MAIN();
