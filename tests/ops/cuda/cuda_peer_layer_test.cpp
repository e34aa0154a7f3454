// MoE layers whose experts are spread over GPUs, against a double-precision layer on the host, and against themselves
// on other numbers of ranks and with other plans. Ranks share a GPU where there are not enough.
#include "ops/peer_layer.h"

#include <atomic>
#include <bit>
#include <chrono>
#include <deque>
#include <numeric>
#include <optional>
#include <thread>

#include "engine/cuda_loader.h"
#include "plan/plan_ops.h"
#include "plan/planner.h"
#include "sim/gpu_profile.h"
#include "support/gpu_test.h"
#include "support/moe_oracle.h"
#include "support/ranks.h"

namespace eps::ops {
namespace {

using test::MoeDims;

enum class Spread { kSkewed, kOneExpertEach, kFirstExperts };

// Tokens of all ranks, one rank after the other, and where they go.
struct Batch {
  std::vector<int64_t> tokens_per_rank;
  std::vector<float> x;  // [T, hidden], values that bf16 holds
  std::vector<int32_t> idx;
  std::vector<float> weight;

  int64_t num_tokens() const { return std::accumulate(tokens_per_rank.begin(), tokens_per_rank.end(), int64_t{0}); }
};

// Different experts for each token, best first in no particular order. kFirstExperts: the same for all.
Batch random_batch(test::RandomValues& random, const MoeDims& d, std::vector<int64_t> tokens_per_rank, Spread spread) {
  Batch out;
  out.tokens_per_rank = std::move(tokens_per_rank);
  const int64_t tokens = out.num_tokens();
  out.x = random.normal(tokens * d.hidden, 1.0, DType::kBF16);
  std::vector<int32_t> experts(static_cast<size_t>(d.num_experts));
  std::iota(experts.begin(), experts.end(), 0);
  for (int64_t t = 0; t < tokens; ++t) {
    for (int k = 0; k < d.top_k && spread == Spread::kSkewed; ++k) {
      const int64_t reach = random.draw(0, 1) == 0 ? d.num_experts - 1 : std::max<int64_t>(k, d.num_experts / 4);
      std::swap(experts[static_cast<size_t>(k)],
                experts[static_cast<size_t>(random.draw(k, std::max<int64_t>(k, reach)))]);
    }
    for (int k = 0; k < d.top_k; ++k) {
      const bool in_turn = spread == Spread::kOneExpertEach;
      out.idx.push_back(in_turn ? static_cast<int32_t>((t + k * 7) % d.num_experts) : experts[static_cast<size_t>(k)]);
      out.weight.push_back(static_cast<float>(random.draw(1, 1000)) / 1000.0F);
    }
  }
  return out;
}

// One rank's weights on its GPU.
struct RankWeights {
  std::unique_ptr<WeightPool> gate_up_pool, down_pool;
  std::vector<std::unique_ptr<LinearWeight>> keep;
  MoeWeights weights;
};

RankWeights pack(OpSet& ops, const test::MoeValues& values, int first, int count) {
  const MoeDims& d = values.dims;
  RankWeights out;
  out.gate_up_pool = ops.make_weight_pool(count, 2 * d.inner, d.hidden);
  out.down_pool = ops.make_weight_pool(count, d.hidden, d.inner);
  const auto pack_one = [&](const std::vector<bf16>& w, int64_t n, int64_t k, WeightPool* pool) {
    const TensorView part(w.data(), DType::kBF16, {n, k});
    out.keep.push_back(ops.pack_linear(std::span(&part, 1), Precision::kCompute, pool));
    return out.keep.back().get();
  };
  out.weights.gate_up.assign(static_cast<size_t>(d.num_experts), nullptr);
  out.weights.down.assign(static_cast<size_t>(d.num_experts), nullptr);
  for (int e = first; e < first + count; ++e) {
    const auto at = static_cast<size_t>(e);
    out.weights.gate_up[at] = pack_one(values.experts[at].gate_up, 2 * d.inner, d.hidden, out.gate_up_pool.get());
    out.weights.down[at] = pack_one(values.experts[at].down, d.hidden, d.inner, out.down_pool.get());
  }
  if (d.shared_inner > 0) {
    out.weights.shared_gate_up = pack_one(values.shared.gate_up, 2 * d.shared_inner, d.hidden, nullptr);
    out.weights.shared_down = pack_one(values.shared.down, d.hidden, d.shared_inner, nullptr);
  }
  return out;
}

class CudaPeerLayerTest : public test::GpuTest {
 protected:
  static int num_gpus() {
    static const int count = [] {
      int n = 1;
      while (test::try_gpu([n] { engine::make_cuda_op_set(n); }).why_not.empty()) ++n;
      return n;
    }();
    return count;
  }

  // The plan that all ranks derive from what they have counted.
  static plan::Plan plan_layer(const MoeDims& d, const Batch& batch, const PeerLoad& load,
                               const std::string& pipeline) {
    const plan::MoeShape shape{d.hidden, d.inner, d.shared_inner, d.top_k, DType::kBF16, DType::kBF16};
    plan::MoeProblem problem;
    problem.shape = shape;
    problem.placement = moe::place_experts(d.num_experts, static_cast<int>(std::ssize(batch.tokens_per_rank)));
    problem.load = load.rows;
    problem.tokens_per_rank = batch.tokens_per_rank;
    problem.routing = load.summary;
    problem.wire = {DType::kBF16, DType::kBF16};
    plan::PlanLimits limits;
    limits.kernel = moe::GemmKind::kGrouped;
    return plan::Planner(sim::gpu_profile(), shape, limits).plan(problem, plan::parse_pipeline_option(pipeline));
  }

  // The same in two stages, with all local rows in stages of their own before and after them, whatever their loads.
  static plan::Plan plan_around(const MoeDims& d, const Batch& batch, const PeerLoad& load) {
    plan::Plan plan = plan_layer(d, batch, load, "2");
    plan::MoeProblem problem;
    problem.placement = moe::place_experts(d.num_experts, static_cast<int>(std::ssize(batch.tokens_per_rank)));
    problem.load = load.rows;
    problem.routing = load.summary;
    std::vector<plan::Stage> stages(4);
    stages[0].part = stages[3].part = moe::TokenPart::kLocal;
    stages[1].part = stages[2].part = moe::TokenPart::kRemote;
    const int each = problem.placement.experts_per_rank();
    for (int32_t e = 0; e < d.num_experts; ++e) {
      stages[e % each < each / 3 ? 0 : 3].experts.push_back(e);
      stages[e % each < each / 2 ? 1 : 2].experts.push_back(e);
    }
    for (plan::Stage& stage : stages) {
      stage.rows_per_rank = plan::count_stage_rows(plan, stage, problem);
      stage.gate_up_kernel = stage.down_kernel =
          std::vector<moe::GemmKind>(batch.tokens_per_rank.size(), moe::GemmKind::kGrouped);
    }
    plan.policy = plan::Policy::kEps;
    plan.stages = std::move(stages);
    plan.ops = plan::pipelined_ops(plan.stages, {batch.tokens_per_rank.size() > 1, false, d.shared_inner > 0, 1000});
    return plan;
  }

  // What every rank must have counted.
  static void check_load(const MoeDims& d, const Batch& batch, const PeerLoad& got) {
    std::vector<moe::Routing> routing;
    int64_t begin = 0;
    for (const int64_t tokens : batch.tokens_per_rank) {
      moe::Routing r{tokens, d.top_k, {}, {}};
      r.expert_idx.assign(batch.idx.begin() + begin * d.top_k, batch.idx.begin() + (begin + tokens) * d.top_k);
      r.weight.assign(batch.weight.begin() + begin * d.top_k, batch.weight.begin() + (begin + tokens) * d.top_k);
      moe::normalize_routing(r, d.num_experts);
      routing.push_back(std::move(r));
      begin += tokens;
    }
    const moe::ExpertPlacement placement =
        moe::place_experts(d.num_experts, static_cast<int>(std::ssize(batch.tokens_per_rank)));
    const moe::RoutingSummary want = moe::summarize_routing(routing, placement);
    EXPECT_EQ(got.rows, moe::count_rows(routing, d.num_experts));
    EXPECT_EQ(got.summary.local_load, want.local_load);
    EXPECT_EQ(got.summary.tokens_between, want.tokens_between);
    EXPECT_EQ(got.summary.visits, want.visits);
  }

  // The plan of a layer that runs without the host.
  static plan::Plan plan_flags(const MoeDims& d, const Batch& batch) {
    const plan::MoeShape shape{d.hidden, d.inner, d.shared_inner, d.top_k, DType::kBF16, DType::kBF16};
    const int64_t most = std::ranges::max(batch.tokens_per_rank);
    return plan::Planner(sim::gpu_profile(), shape, {.kernel = moe::GemmKind::kGrouped})
        .plan_without_load(moe::place_experts(d.num_experts, static_cast<int>(std::ssize(batch.tokens_per_rank))),
                           static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(std::max<int64_t>(1, most)))),
                           {DType::kBF16, DType::kBF16});
  }
  // Whether so many ranks can run layers without the host.
  static bool has_flags(const Batch& batch) {
    const auto num_ranks = std::ssize(batch.tokens_per_rank);
    return num_ranks > 1 && num_ranks <= num_gpus();
  }

  // One rank of a batch: its part on its GPU.
  struct Rank {
    Rank(comm::Communicator& c, const test::MoeValues& values, const Batch& batch)
        : comm(c), ops(engine::make_cuda_op_set(c.rank() % num_gpus())), dims(values.dims), all(batch) {
      ops->bind_thread();
      const MoeDims& d = dims;
      const int count = d.num_experts / comm.size();
      packed = pack(*ops, values, count * comm.rank(), count);
      layer = ops->make_peer_layer(comm);
      const int64_t begin =
          std::accumulate(batch.tokens_per_rank.begin(), batch.tokens_per_rank.begin() + comm.rank(), int64_t{0});
      tokens = batch.tokens_per_rank[static_cast<size_t>(comm.rank())];
      const auto part = [&](const auto& from, int64_t width) {
        return std::span(from.data() + begin * width, static_cast<size_t>(tokens * width));
      };
      x_values.assign(part(batch.x, d.hidden).begin(), part(batch.x, d.hidden).end());
      x.emplace(*ops, DType::kBF16, Shape{tokens, d.hidden}, x_values);
      idx.emplace(*ops, Shape{tokens, d.top_k}, part(batch.idx, d.top_k));
      weight.emplace(*ops, DType::kF32, Shape{tokens, d.top_k}, part(batch.weight, d.top_k));
    }

    void begin_step() {
      layer->begin_step(all.tokens_per_rank, dims.top_k, dims.hidden);
      layer->set_routing(dims.num_experts, idx->view(), weight->view());
    }
    void run(const plan::Plan& plan, const test::DeviceTensor& y) {
      ASSERT_EQ(layer->why_not(plan), "");
      layer->begin(plan, packed.weights, y.view());
      layer->lanes().run(
          plan, [&](int op) { layer->run(plan.ops[static_cast<size_t>(op)]); },
          [&](const char* what) { comm.abort(what); });
    }
    // The layer without the host, whose step must have begun.
    void run_flags(const plan::Plan& plan, const test::DeviceTensor& y) {
      layer->set_rows(x->view());
      run(plan, y);
    }

    comm::Communicator& comm;
    std::unique_ptr<OpSet> ops;
    MoeDims dims;
    const Batch& all;
    RankWeights packed;
    std::unique_ptr<PeerLayer> layer;
    int64_t tokens = 0;
    std::vector<float> x_values;
    std::optional<test::DeviceTensor> x, idx, weight;
  };

  // The layer's output for all tokens. Each rank runs it `times` times over, as layers follow one another.
  std::vector<float> run(const test::MoeValues& values, const Batch& batch, const std::string& pipeline,
                         int times = 1) {
    const MoeDims& d = values.dims;
    const auto num_ranks = static_cast<int>(std::ssize(batch.tokens_per_rank));
    std::vector<std::vector<float>> out(static_cast<size_t>(num_ranks));
    test::on_ranks(num_ranks, [&](comm::Communicator& comm) {
      Rank rank(comm, values, batch);
      // Allocated first, because nothing may be allocated while a GPU may wait for another one's host.
      std::deque<test::DeviceTensor> y;
      for (int i = 0; i < times; ++i) y.emplace_back(*rank.ops, DType::kBF16, Shape{rank.tokens, d.hidden});
      for (int i = 0; i < times; ++i) {
        rank.begin_step();
        if (pipeline == "flags") {
          rank.run_flags(plan_flags(d, batch), y[static_cast<size_t>(i)]);
        } else {
          const PeerLoad load = rank.layer->exchange(rank.x->view());
          check_load(d, batch, load);
          rank.run(pipeline == "around" ? plan_around(d, batch, load) : plan_layer(d, batch, load, pipeline),
                   y[static_cast<size_t>(i)]);
        }
        out[static_cast<size_t>(comm.rank())] = y[static_cast<size_t>(i)].values();
        rank.layer->check();
        EXPECT_EQ(rank.x->values(), rank.x_values);
      }
      rank.layer->wait();
      comm.barrier();  // no rank frees memory that another one still reads
    });
    std::vector<float> all;
    for (const auto& part : out) all.insert(all.end(), part.begin(), part.end());
    return all;
  }

  void check_oracle(const test::MoeValues& values, const Batch& batch, const std::vector<float>& got,
                    const std::string& what) {
    const MoeDims& d = values.dims;
    const int64_t tokens = batch.num_tokens();
    const int64_t cost = 3 * d.hidden * (d.top_k * d.inner + d.shared_inner);
    const int64_t most = std::max<int64_t>(8, 100'000'000 / cost);
    std::vector<int64_t> wanted;
    for (int64_t i = 0; i < std::min(tokens, most); ++i) {
      wanted.push_back(tokens <= most ? i : i * (tokens - 1) / (most - 1));
    }
    std::vector<float> part, exact;
    std::vector<double> allowed;
    const auto rows = test::run_moe(values, batch.x, batch.idx, batch.weight, wanted);
    for (size_t i = 0; i < wanted.size(); ++i) {
      for (int64_t h = 0; h < d.hidden; ++h) {
        const auto at = static_cast<size_t>(h);
        part.push_back(got[static_cast<size_t>(wanted[i] * d.hidden + h)]);
        exact.push_back(static_cast<float>(rows[i].value[at]));
        // Besides what a layer on one device rounds: every node of the sum below the root, three levels of them.
        const double node = std::abs(rows[i].value[at]) + 4 * std::sqrt(rows[i].square[at]);
        allowed.push_back(test::moe_tolerance(rows[i].value[at], rows[i].square[at]) +
                          3 * test::unit_roundoff(DType::kBF16) * node);
      }
    }
    expect_close(
        part, exact, [&](size_t i) { return allowed[i]; }, what);
  }

  // Every plan on these ranks against the oracle, and bit for bit against each other.
  void check_plans(const MoeDims& d, const std::vector<int64_t>& tokens_per_rank, Spread spread,
                   std::initializer_list<const char*> pipelines) {
    const test::MoeValues values = test::random_moe(random_, d);
    const Batch batch = random_batch(random_, d, tokens_per_rank, spread);
    std::vector<float> first;
    for (const char* pipeline : pipelines) {
      if (std::string_view(pipeline) == "flags" && !has_flags(batch)) continue;
      const std::string what = fmt::format("{} ranks, tokens {}, pipeline {}", tokens_per_rank.size(),
                                           fmt::join(tokens_per_rank, " "), pipeline);
      const std::vector<float> got = run(values, batch, pipeline);
      if (first.empty()) {
        first = got;
        check_oracle(values, batch, got, what);
      } else {
        expect_equal(got, first, what);
      }
    }
  }
};

constexpr MoeDims kDemo{256, 64, 128, 32, 4};
const auto kPipelines = {"off", "2", "3", "all", "microbatch", "around", "auto", "flags"};

TEST_F(CudaPeerLayerTest, OneRank) { check_plans(kDemo, {100}, Spread::kSkewed, {"off", "2", "all"}); }
TEST_F(CudaPeerLayerTest, TwoRanks) { check_plans(kDemo, {70, 33}, Spread::kSkewed, kPipelines); }
TEST_F(CudaPeerLayerTest, FourRanks) { check_plans(kDemo, {40, 1, 64, 17}, Spread::kSkewed, kPipelines); }
TEST_F(CudaPeerLayerTest, ARankWithoutTokens) { check_plans(kDemo, {0, 50}, Spread::kSkewed, kPipelines); }
TEST_F(CudaPeerLayerTest, OneTokenInAll) { check_plans(kDemo, {0, 1}, Spread::kSkewed, {"off", "2", "all", "flags"}); }
TEST_F(CudaPeerLayerTest, NoTokens) { check_plans(kDemo, {0, 0}, Spread::kSkewed, {"off", "2", "flags"}); }
TEST_F(CudaPeerLayerTest, EverythingToTheFirstExperts) {
  check_plans(kDemo, {65, 90}, Spread::kFirstExperts, kPipelines);
}
TEST_F(CudaPeerLayerTest, EvenLoads) { check_plans(kDemo, {64, 64}, Spread::kOneExpertEach, kPipelines); }
TEST_F(CudaPeerLayerTest, NoSharedExperts) { check_plans({256, 64, 0, 16, 2}, {31, 32}, Spread::kSkewed, kPipelines); }
TEST_F(CudaPeerLayerTest, RanksThatAreNoNodesOfTheSum) {
  check_plans({128, 64, 64, 12, 3}, {20, 30, 25}, Spread::kSkewed, {"off", "2", "all", "flags"});
}
TEST_F(CudaPeerLayerTest, RowsThatTakeSeveralPieces) {
  check_plans({20480, 64, 0, 8, 2}, {40, 50}, Spread::kSkewed, {"off", "2", "flags"});
}
TEST_F(CudaPeerLayerTest, ManyTokens) {
  if (test::is_brief()) GTEST_SKIP() << "takes long under a sanitizer";
  check_plans({512, 128, 128, 64, 6}, {3000, 2500}, Spread::kSkewed, {"off", "3", "auto"});
}
TEST_F(CudaPeerLayerTest, AsManyTokensAsFlagsAllow) {
  check_plans({512, 128, 128, 64, 6}, {1024, 1023}, Spread::kSkewed, {"off", "flags"});
}
TEST_F(CudaPeerLayerTest, FewTokensOfV2LiteSizes) {
  check_plans({2048, 1408, 2816, 16, 6}, {64, 3}, Spread::kSkewed, {"off", "flags"});
}
TEST_F(CudaPeerLayerTest, SizesOfV2Lite) {
  if (test::is_brief()) GTEST_SKIP() << "takes long under a sanitizer";
  check_plans({2048, 1408, 2816, 16, 6}, {700, 500}, Spread::kSkewed, {"off", "4", "around"});
}

// The same tokens on one, two, four and eight ranks: the same bits.
TEST_F(CudaPeerLayerTest, TheNumberOfRanksDoesNotChangeABit) {
  const test::MoeValues values = test::random_moe(random_, kDemo);
  Batch batch = random_batch(random_, kDemo, {96}, Spread::kSkewed);
  const std::vector<float> one = run(values, batch, "off");
  for (const auto& split :
       {std::vector<int64_t>{50, 46}, {10, 40, 0, 46}, {12, 12, 12, 12, 12, 12, 12, 12}, {0, 0, 96, 0, 0, 0, 0, 0}}) {
    batch.tokens_per_rank = split;
    for (const char* pipeline : {"off", "2"}) {
      expect_equal(run(values, batch, pipeline), one, fmt::format("{} ranks, pipeline {}", split.size(), pipeline));
    }
  }
}

// Layers follow one another without the host waiting in between.
TEST_F(CudaPeerLayerTest, LayersInARow) {
  const test::MoeValues values = test::random_moe(random_, kDemo);
  const Batch batch = random_batch(random_, kDemo, {80, 75}, Spread::kSkewed);
  const std::vector<float> once = run(values, batch, "2");
  expect_equal(run(values, batch, "2", 20), once, "the twentieth layer");
}

// Without the host, layers follow one another on the device alone.
TEST_F(CudaPeerLayerTest, LayersInARowWithoutTheHost) {
  const test::MoeValues values = test::random_moe(random_, kDemo);
  const Batch batch = random_batch(random_, kDemo, {80, 75}, Spread::kSkewed);
  if (!has_flags(batch)) GTEST_SKIP() << "needs two GPUs";
  const std::vector<float> once = run(values, batch, "off");
  expect_equal(run(values, batch, "flags", 50), once, "the fiftieth layer");
}

// Steps of three layers are recorded and replayed with other rows: zeros every other time, so that a replay that does
// nothing is noticed.
TEST_F(CudaPeerLayerTest, LayersWithoutTheHostAreRecordedAndReplayed) {
  const test::MoeValues values = test::random_moe(random_, kDemo);
  for (const auto& tokens : {std::vector<int64_t>{64, 64}, {1, 0}, {5, 40}}) {
    const Batch batch = random_batch(random_, kDemo, tokens, Spread::kSkewed);
    if (!has_flags(batch)) GTEST_SKIP() << "needs two GPUs";
    const std::vector<float> once = run(values, batch, "off");
    std::vector<std::vector<float>> out(2);
    test::on_ranks(2, [&](comm::Communicator& comm) {
      Rank rank(comm, values, batch);
      const test::DeviceTensor y(*rank.ops, DType::kBF16, {rank.tokens, kDemo.hidden});
      const test::DeviceTensor given(*rank.ops, DType::kBF16, {rank.tokens, kDemo.hidden}, rank.x_values);
      const test::DeviceTensor zeros(*rank.ops, DType::kBF16, {rank.tokens, kDemo.hidden},
                                     std::vector<float>(rank.x_values.size(), 0.0F));
      const plan::Plan plan = plan_flags(kDemo, batch);
      for (int i = 0; i < 9; ++i) {
        const bool is_zero = i % 2 == 1;
        if (rank.tokens > 0) rank.ops->copy((is_zero ? zeros : given).view(), rank.x->view());
        rank.begin_step();
        const StepRun next = i == 0 ? StepRun::kRun : i == 1 ? StepRun::kRecord : StepRun::kReplay;
        EXPECT_EQ(rank.ops->next_run(7), next) << "step " << i;
        const bool was_run = rank.ops->run_step(
            7,
            [&] {
              for (int layer = 0; layer < 3; ++layer) rank.run_flags(plan, y);
            },
            [&] {
              if (i == 1) comm.barrier();
            });
        EXPECT_EQ(was_run, i < 2);
        const std::vector<float> got = y.values();
        rank.layer->check();
        if (is_zero) {
          EXPECT_EQ(got, std::vector<float>(got.size(), 0.0F)) << "step " << i;
        } else {
          out[static_cast<size_t>(comm.rank())] = got;
        }
      }
      rank.layer->wait();
      comm.barrier();
    });
    std::vector<float> all = out[0];
    all.insert(all.end(), out[1].begin(), out[1].end());
    expect_equal(all, once, fmt::format("replays with {} tokens", fmt::join(tokens, " ")));
  }
}

// The ranks of a layer without the host, one of which does not take part in the second layer but calls `instead`. The
// other one must stop waiting soon, name it, and be able to run another layer after an abort.
TEST_F(CudaPeerLayerTest, ARankThatHangsOrDiesIsNamedWithoutTheHost) {
  const test::MoeValues values = test::random_moe(random_, kDemo);
  const Batch batch = random_batch(random_, kDemo, {30, 20}, Spread::kSkewed);
  if (!has_flags(batch)) GTEST_SKIP() << "needs two GPUs";
  const std::vector<float> once = run(values, batch, "off");
  for (const bool dies : {false, true}) {
    for (const int missing : {0, 1}) {
      std::atomic<int> arrived = 0;
      // The communicator is aborted, so the ranks meet here.
      const auto meet = [&arrived] {
        const int goal = (arrived.fetch_add(1) / 2 + 1) * 2;
        while (arrived.load() < goal) std::this_thread::yield();
      };
      std::vector<std::vector<float>> out(2);
      test::on_ranks(2, [&](comm::Communicator& comm) {
        Rank rank(comm, values, batch);
        const test::DeviceTensor y(*rank.ops, DType::kBF16, {rank.tokens, kDemo.hidden});
        const plan::Plan plan = plan_flags(kDemo, batch);
        rank.begin_step();
        rank.run_flags(plan, y);
        y.values();
        rank.layer->check();
        if (comm.rank() == missing) {
          if (dies) comm.abort("injected");
        } else {
          const auto begin = std::chrono::steady_clock::now();
          rank.run_flags(plan, y);
          y.values();
          try {
            rank.layer->check();
            ADD_FAILURE() << "rank " << missing << " is not missed";
          } catch (const Error& e) {
            EXPECT_EQ(e.kind(), dies ? ErrorKind::kAborted : ErrorKind::kTimeout);
            const std::string wanted = dies ? "another rank failed" : fmt::format("the tokens of rank {}", missing);
            EXPECT_NE(std::string(e.what()).find(wanted), std::string::npos) << e.what();
            comm.abort(e.what());
          }
          EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(dies ? 3 : 10));
        }
        meet();
        rank.layer->wait();
        if (comm.rank() == 0) comm.recover();
        meet();
        rank.begin_step();
        rank.run_flags(plan, y);
        out[static_cast<size_t>(comm.rank())] = y.values();
        rank.layer->check();
        comm.barrier();
      });
      std::vector<float> all = out[0];
      all.insert(all.end(), out[1].begin(), out[1].end());
      expect_equal(all, once, "the layer after it");
    }
  }
}

TEST_F(CudaPeerLayerTest, FlagsAreRefusedWhereRanksShareAGpu) {
  const test::MoeValues values = test::random_moe(random_, kDemo);
  const Batch batch = random_batch(random_, kDemo, {3, 4}, Spread::kSkewed);
  test::on_ranks(2, [&](comm::Communicator& comm) {
    const std::unique_ptr<OpSet> ops = engine::make_cuda_op_set(0);
    ops->bind_thread();
    const std::unique_ptr<PeerLayer> layer = ops->make_peer_layer(comm);
    layer->begin_step(batch.tokens_per_rank, kDemo.top_k, kDemo.hidden);
    EXPECT_EQ(layer->most_tokens_without_host(), 0);
    EXPECT_NE(layer->why_not(plan_flags(kDemo, batch)).find("a GPU of its own"), std::string::npos);
    comm.barrier();
  });
}

TEST_F(CudaPeerLayerTest, FlagsAreRefusedForManyTokensAndForStages) {
  const test::MoeValues values = test::random_moe(random_, kDemo);
  const Batch few = random_batch(random_, kDemo, {3, 4}, Spread::kSkewed);
  if (!has_flags(few)) GTEST_SKIP() << "needs two GPUs";
  test::on_ranks(2, [&](comm::Communicator& comm) {
    Rank rank(comm, values, few);
    rank.begin_step();
    plan::Plan staged = plan_layer(kDemo, few, rank.layer->exchange(rank.x->view()), "2");
    staged.transport = plan::Transport::kFlags;
    EXPECT_NE(rank.layer->why_not(staged).find("one stage"), std::string::npos);
    const plan::Plan plan = plan_flags(kDemo, few);
    EXPECT_EQ(rank.layer->why_not(plan), "");
    const int64_t many = rank.layer->most_tokens_without_host() + 1;
    rank.layer->begin_step(std::vector<int64_t>{many, 1}, kDemo.top_k, kDemo.hidden);
    EXPECT_NE(rank.layer->why_not(plan).find(fmt::format("got {} tokens", many)), std::string::npos);
    comm.barrier();
  });
}

// One rank fails in the middle of a layer, at any op: the others end with its reason, and no GPU is left waiting.
TEST_F(CudaPeerLayerTest, ARankThatFailsEndsTheLayerOfAll) {
  const test::MoeValues values = test::random_moe(random_, kDemo);
  const Batch batch = random_batch(random_, kDemo, {60, 50}, Spread::kSkewed);
  const int64_t split = batch.tokens_per_rank[0];
  for (const int failing : {0, 1}) {
    for (const int failing_op : {0, 3, 7}) {
      std::vector<ErrorKind> kinds(2, ErrorKind::kUsage);
      test::on_ranks(2, [&](comm::Communicator& comm) {
        const auto rank = static_cast<size_t>(comm.rank());
        const std::unique_ptr<OpSet> ops = engine::make_cuda_op_set(comm.rank() % num_gpus());
        ops->bind_thread();
        const int count = kDemo.num_experts / 2;
        const RankWeights packed = pack(*ops, values, count * comm.rank(), count);
        const std::unique_ptr<PeerLayer> layer = ops->make_peer_layer(comm);
        const int64_t begin = rank == 0 ? 0 : split;
        const int64_t tokens = batch.tokens_per_rank[rank];
        const auto part = [&](const auto& all, int64_t width) {
          return std::span(all.data() + begin * width, static_cast<size_t>(tokens * width));
        };
        const test::DeviceTensor x(*ops, DType::kBF16, {tokens, kDemo.hidden}, part(batch.x, kDemo.hidden));
        const test::DeviceTensor idx(*ops, {tokens, kDemo.top_k}, part(batch.idx, kDemo.top_k));
        const test::DeviceTensor weight(*ops, DType::kF32, {tokens, kDemo.top_k}, part(batch.weight, kDemo.top_k));
        const test::DeviceTensor y(*ops, DType::kBF16, {tokens, kDemo.hidden});
        layer->begin_step(batch.tokens_per_rank, kDemo.top_k, kDemo.hidden);
        layer->set_routing(kDemo.num_experts, idx.view(), weight.view());
        const PeerLoad load = layer->exchange(x.view());
        const plan::Plan plan = plan_layer(kDemo, batch, load, "2");
        layer->begin(plan, packed.weights, y.view());
        try {
          layer->lanes().run(
              plan,
              [&](int op) {
                if (comm.rank() == failing && op == failing_op) throw Error(ErrorKind::kInternal, "test", "injected");
                layer->run(plan.ops[static_cast<size_t>(op)]);
              },
              [&](const char* what) { comm.abort(what); });
        } catch (const Error& e) {
          kinds[rank] = e.kind();
        }
        layer->wait();
        // The communicator is aborted, so the ranks meet here: no rank frees memory that another one still uses.
        static std::atomic<int> arrived;
        const int goal = (arrived.fetch_add(1) / 2 + 1) * 2;
        while (arrived.load() < goal) std::this_thread::yield();
      });
      EXPECT_EQ(kinds[static_cast<size_t>(failing)], ErrorKind::kInternal) << "op " << failing_op;
      EXPECT_EQ(kinds[static_cast<size_t>(1 - failing)], ErrorKind::kAborted) << "op " << failing_op;
    }
  }
}

}  // namespace
}  // namespace eps::ops
