// All ranks of this process, with their threads, op sets, communicators and decoders, which run steps together.
#pragma once

#include <condition_variable>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "engine/rank_models.h"
#include "exec/trace.h"
#include "model/decoder.h"
#include "plan/builtin_profile.h"
#include "plan/planner.h"

namespace eps::engine {

// One thread per rank; all of them run the same body, and run() waits for all.
class RankThreads {
 public:
  explicit RankThreads(int num_ranks);
  ~RankThreads();
  RankThreads(const RankThreads&) = delete;
  RankThreads& operator=(const RankThreads&) = delete;

  // Runs body(rank) on every rank. `on_error(rank, what)`, which must not throw, is called on a rank that threw; then
  // the first error that is not a consequence of another rank's (kAborted) is rethrown here.
  void run(const std::function<void(int)>& body, const std::function<void(int, const char*)>& on_error);

 private:
  void loop(int rank);
  void stop();

  std::mutex mutex_;
  std::condition_variable changed_;
  const std::function<void(int)>* body_ = nullptr;
  const std::function<void(int, const char*)>* on_error_ = nullptr;
  uint64_t generation_ = 0;
  int busy_ = 0;
  bool stop_ = false;
  std::vector<std::exception_ptr> errors_;
  std::vector<std::thread> threads_;
};

struct RankGroupOptions {
  int num_ranks = 1;
  plan::PipelineOption pipeline;
  plan::HardwareProfile profile = plan::builtin_cpu_profile(1);  // used for planning
  DType weight_dtype = DType::kBF16;                             // of the experts as the op set stores them
  bool record_trace = false;
  StopToken stop = {};  // ends a step between layers
  plan::Strategy strategy = plan::Strategy::kDpEp;
};

// Checks whether a model of this shape can run with these options. Called before weights are read, and again by
// RankGroup.
// Errors  kUsage if the ranks do not divide the experts or what the strategy splits, hold too few experts for the
//         requested stages, or if stages are requested for split experts
void check_rank_options(const arch::ModelSpec& spec, const RankGroupOptions& options);

// What restricts the plans of `num_ranks` ranks with such op sets.
plan::PlanLimits plan_limits(const ops::OpSet& ops, int num_ranks);

// Checks whether a single rank whose op set runs whole layers supports the requested pipeline.
// Errors  kUsage: stages were requested, but there is no communication that they could hide
void check_local_pipeline(ops::OpSet& ops, const RankGroupOptions& options);

// A chunk and the rank that owns its sequence. If attention is split over the ranks, `parts` [num_ranks] are the parts
// of its cache, and chunk.cache is not used.
struct PlacedChunk {
  int rank = 0;
  model::SequenceChunk chunk;
  std::span<model::KvCache* const> parts = {};
};

class RankGroup {
 public:
  // `models`, loaded for the strategy of `options`, outlive the group; op sets and communicators: one per rank.
  // Errors  as check_rank_options
  RankGroup(const RankModels& models, std::vector<std::unique_ptr<ops::OpSet>> ops,
            std::vector<std::unique_ptr<comm::Communicator>> comms, const RankGroupOptions& options);
  ~RankGroup();
  RankGroup(const RankGroup&) = delete;
  RankGroup& operator=(const RankGroup&) = delete;

  int num_ranks() const { return static_cast<int>(decoders_.size()); }
  // Whether every rank attends for all sequences, with a part of their heads.
  bool splits_attention() const { return splits_attention_; }
  // The sizes of a rank's part of the model.
  const arch::ModelSpec& part_spec() const { return models_.spec(); }

  // Runs one step on all ranks; results and errors are those of Decoder::forward, except that a router with invalid
  // logits is reported for every device. sink(i, position, logits) is called
  // with the logits of chunks[i] on the thread of the rank that owns the sequence. A step that fails or is stopped ends
  // on all ranks. The caches of its chunks are then in an unknown state, but the group can be used again. A sequence
  // that does not fit in its cache (kUsage) is refused before any rank starts.
  std::vector<int32_t> step(std::span<const PlacedChunk> chunks, const model::LogitSink& sink);

  ops::OpSet& op_set(int rank) { return *ops_[static_cast<size_t>(rank)]; }
  std::vector<std::string> op_set_descriptions() const;
  const exec::MoeStats& stats(int rank) const { return decoders_[static_cast<size_t>(rank)]->stats(); }
  const exec::TraceRecorder* trace() const { return trace_.get(); }

 private:
  // Runs body(rank) on every rank. A rank that fails ends the others; afterwards all can run another body.
  void run(const std::function<void(int)>& body);
  // Waits for devices that may still read or write the memory of other ranks.
  void wait_for_ranks() noexcept;
  // Those of `chunks` that `rank` takes part in, and their indices.
  std::vector<model::SequenceChunk> chunks_of(int rank, std::span<const PlacedChunk> chunks,
                                              std::vector<size_t>& index) const;

  const RankModels& models_;
  bool splits_attention_;
  std::vector<std::unique_ptr<ops::OpSet>> ops_;
  std::vector<std::unique_ptr<comm::Communicator>> comms_;
  std::unique_ptr<exec::TraceRecorder> trace_;
  std::unique_ptr<const plan::Planner> planner_;
  std::vector<std::unique_ptr<model::Decoder>> decoders_;
  RankThreads threads_;
};

}  // namespace eps::engine
