// A checkpoint opened on ranks, stepped directly: for tests that look at logits.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "engine/factory.h"
#include "engine/model_folder.h"
#include "engine/rank_group.h"
#include "engine/sequence_cache.h"
#include "ops/cpu/cpu_ops.h"

namespace eps::test {

struct RankSettings {
  std::string device = "cpu";
  std::string dtype = "f32";
  int ep = 1;
  std::string pipeline = "off";
  int threads = 1;
  std::vector<int> gpus = {};
  CpuIsa isa = CpuIsa::kAmx;  // the highest that the CPU op set may use
  plan::Strategy strategy = plan::Strategy::kDpEp;
  std::string emulate_link = {};
};

// logits of one sequence: [position][vocab]
using Logits = std::vector<std::vector<float>>;

class ModelRanks {
 public:
  ModelRanks(const engine::ModelFolder& folder, const RankSettings& settings) : folder_(folder) {
    auto ops = settings.device == "cpu"
                   ? make_capped_cpu_ops(settings)
                   : engine::make_op_sets(settings.device, settings.dtype, settings.ep, settings.threads, {},
                                          engine::RankThreadUse::kShared, settings.gpus);
    const model::StoredNames names(folder.spec, *folder.family, *folder.checkpoint);
    models_ = engine::RankModels::load(
        folder.spec, *folder.family,
        [&] { return model::make_checkpoint_source(*folder.checkpoint, names, folder.spec.fp8_blocks); }, ops, {},
        settings.strategy);
    ranks_ = std::make_unique<engine::RankGroup>(
        models_, std::move(ops),
        engine::make_communicators(settings.ep, std::chrono::milliseconds(60000), settings.emulate_link),
        engine::RankGroupOptions{.num_ranks = settings.ep,
                                 .pipeline = plan::parse_pipeline_option(settings.pipeline),
                                 .strategy = settings.strategy});
  }

  // Sequence i lives on rank owner[i % owner.size()]. Each is fed in pieces of at most `chunk` tokens.
  std::vector<Logits> run(const std::vector<std::vector<int32_t>>& sequences, const std::vector<int>& owner,
                          size_t chunk = 1U << 30) {
    std::vector<Logits> out(sequences.size());
    std::vector<std::unique_ptr<engine::SequenceCache>> caches;
    size_t longest = 0;
    for (size_t i = 0; i < sequences.size(); ++i) {
      out[i].resize(sequences[i].size());
      caches.push_back(
          std::make_unique<engine::SequenceCache>(*ranks_, owner[i % owner.size()], folder_.spec.max_positions));
      longest = std::max(longest, sequences[i].size());
    }
    for (size_t begin = 0; begin < longest; begin += chunk) {
      std::vector<engine::PlacedChunk> chunks;
      std::vector<size_t> index;
      for (size_t i = 0; i < sequences.size(); ++i) {
        if (begin >= sequences[i].size()) continue;
        const auto ids = std::span(sequences[i]).subspan(begin, std::min(chunk, sequences[i].size() - begin));
        chunks.push_back(caches[i]->chunk(ids, model::StepOutput::kAllLogits));
        index.push_back(i);
      }
      ranks_->step(chunks, [&](size_t c, int64_t position, std::span<const float> logits) {
        out[index[c]][static_cast<size_t>(position)].assign(logits.begin(), logits.end());
      });
    }
    return out;
  }

  const engine::RankModels& models() const { return models_; }
  const engine::RankGroup& ranks() const { return *ranks_; }
  engine::RankGroup& ranks() { return *ranks_; }

 private:
  static std::vector<std::unique_ptr<ops::OpSet>> make_capped_cpu_ops(const RankSettings& settings) {
    const DType compute = settings.dtype == "bf16" ? DType::kBF16 : DType::kF32;
    return ops::make_cpu_op_sets(ops::choose_cpu_engine(compute, cap_isa(cpu_features(), settings.isa)), settings.ep,
                                 settings.threads, true);
  }

  const engine::ModelFolder& folder_;
  engine::RankModels models_;
  std::unique_ptr<engine::RankGroup> ranks_;
};

}  // namespace eps::test
