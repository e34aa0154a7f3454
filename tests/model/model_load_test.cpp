// Loading a model requests every weight once and releases it, and errors do not depend on the number of threads.
#include <gtest/gtest.h>

#include <map>
#include <mutex>
#include <set>

#include "arch/family.h"
#include "base/error.h"
#include "model/model.h"
#include "ops/cpu/cpu_ops.h"
#include "ops/reference/reference_ops.h"

namespace eps::model {
namespace {

// Dummy weights, some of which are missing. Counts the requests.
class CountingSource final : public WeightSource {
 public:
  struct Counts {
    std::mutex mutex;
    std::map<std::string, int> gets;
    std::set<std::string> held;
    size_t most_held = 0;
  };
  CountingSource(Counts& counts, std::set<std::string> missing) : counts_(counts), missing_(std::move(missing)) {}

  bool has(const arch::StoredTensor& weight) const override { return !missing_.contains(weight.name); }
  TensorView get(const arch::StoredTensor& weight, const Shape& shape) override {
    const std::string& name = weight.name;
    if (missing_.contains(name))
      fail(ErrorKind::kInput, name, {.what = "missing", .got = "", .wanted = "", .hint = ""});
    {
      const std::lock_guard lock(counts_.mutex);
      ++counts_.gets[name];
      counts_.held.insert(name);
      counts_.most_held = std::max(counts_.most_held, counts_.held.size());
    }
    return dummy_->get(name, shape);
  }
  void release(const arch::StoredTensor& weight) override {
    {
      const std::lock_guard lock(counts_.mutex);
      counts_.held.erase(weight.name);
    }
    dummy_->release(weight);
  }
  void end_loading() override { dummy_->end_loading(); }

 private:
  Counts& counts_;
  std::set<std::string> missing_;
  std::unique_ptr<WeightSource> dummy_ = make_dummy_source(2);
};

io::Json tiny_config(bool tied) {
  return io::parse_json(R"({"model_type": "deepseek_v2", "hidden_size": 32, "intermediate_size": 48,
    "moe_intermediate_size": 16, "num_hidden_layers": 3, "first_k_dense_replace": 1, "n_routed_experts": 4,
    "n_shared_experts": 1, "num_experts_per_tok": 2, "num_attention_heads": 2, "num_key_value_heads": 2,
    "q_lora_rank": 8, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 8,
    "vocab_size": 64, "max_position_embeddings": 32, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
    "topk_method": "greedy", "n_group": 1, "topk_group": 1, "norm_topk_prob": false, "routed_scaling_factor": 1.0,
    "hidden_act": "silu", "attention_bias": false, "tie_word_embeddings": )" +
                            std::string(tied ? "true}" : "false}"),
                        "config");
}

struct Loaded {
  CountingSource::Counts counts;
  std::vector<uint64_t> progress;
  std::unique_ptr<Model> model;
};

void load(Loaded& out, const ops::OpSet& ops, bool tied, std::set<std::string> missing, const LoadProgress& progress) {
  const io::Json json = tiny_config(tied);
  const io::JsonObject config(json, "config");
  const arch::Family& family = arch::find_family(config);
  out.model = Model::load(family.read_config(config), family,
                          std::make_unique<CountingSource>(out.counts, std::move(missing)), ops, progress);
}

std::vector<std::unique_ptr<ops::OpSet>> op_sets() {
  std::vector<std::unique_ptr<ops::OpSet>> out;
  out.push_back(ops::make_reference_ops());
  for (const int threads : {1, 2, 4}) out.push_back(ops::make_cpu_ops(ops::choose_cpu_engine(DType::kF32), threads));
  return out;
}

TEST(ModelLoad, RequestsEachWeightOnceAndReportsProgress) {
  for (const auto& ops : op_sets()) {
    for (const bool tied : {false, true}) {
      Loaded loaded;
      load(loaded, *ops, tied, {}, [&loaded](uint64_t done) { loaded.progress.push_back(done); });
      EXPECT_TRUE(loaded.counts.gets.contains("model.embed_tokens.weight"));
      EXPECT_EQ(loaded.counts.gets.contains("lm_head.weight"), !tied);
      for (const auto& [name, count] : loaded.counts.gets) EXPECT_EQ(count, 1) << name;
      EXPECT_EQ(loaded.counts.held, std::set<std::string>{"model.embed_tokens.weight"}) << "the rest is released";
      EXPECT_GE(loaded.progress.size(), 40U);
      EXPECT_TRUE(std::ranges::is_sorted(loaded.progress));
      EXPECT_EQ(loaded.model->lm_head().out_features(), 64);
      for (const LayerWeights& layer : loaded.model->layers()) EXPECT_EQ(layer.attention.o.weight->out_features(), 32);
    }
  }
}

// Few stored weights are in memory at the same time as their packed copies.
TEST(ModelLoad, HoldsNoMoreWeightsThanThreadsAndTheEmbedding) {
  const auto ops = ops::make_cpu_ops(ops::choose_cpu_engine(DType::kF32), 3);
  Loaded loaded;
  load(loaded, *ops, false, {}, {});
  EXPECT_LE(loaded.counts.most_held, 3U * 2 + 1) << "gate and up are read together";
}

TEST(ModelLoad, TheFirstMissingWeightIsReportedForEveryNumberOfThreads) {
  const std::set<std::string> missing = {"model.layers.1.mlp.experts.2.up_proj.weight", "model.norm.weight",
                                         "model.layers.2.self_attn.o_proj.weight"};
  for (const auto& ops : op_sets()) {
    for (int i = 0; i < 20; ++i) {
      Loaded loaded;
      try {
        load(loaded, *ops, false, missing, {});
        FAIL();
      } catch (const Error& e) {
        EXPECT_EQ(e.kind(), ErrorKind::kInput);
        EXPECT_EQ(std::string(e.what()), "model.layers.1.mlp.experts.2.up_proj.weight: missing");
      }
    }
  }
}

TEST(ModelLoad, AnExceptionOfTheProgressCallbackEndsIt) {
  for (const auto& ops : op_sets()) {
    Loaded loaded;
    int calls = 0;
    const auto stop_at_ten = [&calls](uint64_t) {
      if (++calls >= 10) throw Error(ErrorKind::kAborted, "test", "stopped");
    };
    EXPECT_THROW(load(loaded, *ops, false, {}, stop_at_ten), Error);
    EXPECT_LE(calls, 10 + 4) << "weights that other threads were loading at that time";
  }
}

}  // namespace
}  // namespace eps::model
