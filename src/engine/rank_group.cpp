#include "engine/rank_group.h"

#include <numeric>
#include <system_error>

#include "arch/rank_part.h"
#include "base/error.h"

namespace eps::engine {

RankThreads::RankThreads(int num_ranks) : errors_(static_cast<size_t>(num_ranks)) {
  threads_.reserve(static_cast<size_t>(num_ranks));
  try {
    for (int rank = 0; rank < num_ranks; ++rank) threads_.emplace_back([this, rank] { loop(rank); });
  } catch (const std::exception& e) {
    const size_t started = threads_.size();
    stop();
    if (dynamic_cast<const std::system_error*>(&e) == nullptr) throw;
    fail(ErrorKind::kResource, "threads",
         {.what = fmt::format("cannot start rank {} of {}", started, num_ranks),
          .got = e.what(),
          .wanted = "",
          .hint = "a smaller `ep`"});
  }
}

RankThreads::~RankThreads() { stop(); }

void RankThreads::stop() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

// Nothing here may throw except `body_`, whose exceptions are caught: one that leaves a thread's function ends the
// program.
void RankThreads::loop(int rank) {
  uint64_t seen = 0;
  while (true) {
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] { return stop_ || generation_ != seen; });
      if (stop_) return;
      seen = generation_;
    }
    std::exception_ptr error;
    try {
      (*body_)(rank);
    } catch (const std::exception& e) {
      error = std::current_exception();
      (*on_error_)(rank, e.what());
    }
    const std::lock_guard lock(mutex_);
    errors_[static_cast<size_t>(rank)] = error;
    if (--busy_ == 0) changed_.notify_all();
  }
}

void RankThreads::run(const std::function<void(int)>& body, const std::function<void(int, const char*)>& on_error) {
  std::unique_lock lock(mutex_);
  body_ = &body;
  on_error_ = &on_error;
  busy_ = static_cast<int>(threads_.size());
  ++generation_;
  changed_.notify_all();
  changed_.wait(lock, [this] { return busy_ == 0; });
  std::exception_ptr first;
  for (const std::exception_ptr& error : errors_) {
    if (!error) continue;
    if (!first) first = error;
    try {
      std::rethrow_exception(error);
    } catch (const Error& e) {
      if (e.kind() != ErrorKind::kAborted) std::rethrow_exception(error);
    }
  }
  if (first) std::rethrow_exception(first);
}

void check_rank_options(const arch::ModelSpec& spec, const RankGroupOptions& options) {
  if (options.num_ranks > 1) arch::check_split(spec, options.strategy, options.num_ranks, "the model");
  if (options.num_ranks > 1 && options.strategy == plan::Strategy::kTpTp) {
    using Mode = plan::PipelineOption::Mode;
    if (options.pipeline.mode == Mode::kAuto || options.pipeline.mode == Mode::kOff) return;
    fail(ErrorKind::kUsage, "eps_pipeline",
         {.what = "with `strategy` tp+tp every rank has a part of every expert, so there is no dispatch to hide",
          .got = plan::to_string(options.pipeline),
          .wanted = "auto or off",
          .hint = "`strategy` tp+ep"});
  }
  if (spec.first_moe_layer() >= 0) {
    plan::check_stages(options.pipeline, moe::place_experts(spec.moe.gate.num_experts, options.num_ranks));
  } else if (options.num_ranks > 1 && options.strategy == plan::Strategy::kDpEp) {
    fail(ErrorKind::kUsage, "ep",
         {.what = "the model has no experts to distribute over ranks",
          .got = std::to_string(options.num_ranks),
          .wanted = "1",
          .hint = "`strategy` tp+ep"});
  }
}

plan::PlanLimits plan_limits(const ops::OpSet& ops, int num_ranks) {
  plan::PlanLimits limits;
  limits.layer_only = true;
  // On several GPUs, stages support only grouped kernels (PeerLayer::why_not).
  if (num_ranks > 1 && ops.device() != nullptr) limits.kernel = moe::GemmKind::kGrouped;
  return limits;
}

void check_local_pipeline(ops::OpSet& ops, const RankGroupOptions& options) {
  const plan::PipelineOption::Mode mode = options.pipeline.mode;
  if (ops.local_moe() == nullptr || options.num_ranks > 1) return;
  if (mode == plan::PipelineOption::Mode::kAuto || mode == plan::PipelineOption::Mode::kOff) return;
  fail(ErrorKind::kUsage, "eps_pipeline",
       {.what = "one rank on a GPU has no communication that stages could hide",
        .got = plan::to_string(options.pipeline),
        .wanted = "auto or off",
        .hint = ""});
}

RankGroup::RankGroup(const RankModels& models, std::vector<std::unique_ptr<ops::OpSet>> ops,
                     std::vector<std::unique_ptr<comm::Communicator>> comms, const RankGroupOptions& options)
    : models_(models),
      splits_attention_(options.strategy != plan::Strategy::kDpEp && options.num_ranks > 1),
      ops_(std::move(ops)),
      comms_(std::move(comms)),
      threads_(options.num_ranks) {
  EPS_CHECK_EQ(ops_.size(), static_cast<size_t>(options.num_ranks));
  EPS_CHECK_EQ(comms_.size(), static_cast<size_t>(options.num_ranks));
  check_rank_options(models.whole_spec(), options);
  check_local_pipeline(*ops_.front(), options);
  if (options.record_trace) trace_ = std::make_unique<exec::TraceRecorder>();
  // A device that runs whole layers runs those of its part of the experts.
  const bool runs_part =
      splits_attention_ && options.strategy == plan::Strategy::kTpTp && ops_.front()->local_moe() != nullptr;
  const arch::ModelSpec& planned = runs_part ? models.of_rank(0).spec() : models.whole_spec();
  planner_ = std::make_unique<const plan::Planner>(
      options.profile, arch::moe_shape(planned, options.weight_dtype, ops_.front()->compute_dtype()),
      plan_limits(*ops_.front(), options.num_ranks));
  for (size_t r = 0; r < ops_.size(); ++r) {
    ops_[r]->bind_thread();  // a decoder creates streams on the current device
    decoders_.push_back(std::make_unique<model::Decoder>(models.of_rank(static_cast<int>(r)), *ops_[r], *comms_[r],
                                                         *planner_, options.pipeline, trace_.get(), options.stop,
                                                         options.strategy));
  }
  threads_.run([this](int rank) { ops_[static_cast<size_t>(rank)]->bind_thread(); }, [](int, const char*) {});
}

RankGroup::~RankGroup() { wait_for_ranks(); }

void RankGroup::wait_for_ranks() noexcept {
  for (const auto& decoder : decoders_) decoder->wait();
}

std::vector<model::SequenceChunk> RankGroup::chunks_of(int rank, std::span<const PlacedChunk> chunks,
                                                       std::vector<size_t>& index) const {
  std::vector<model::SequenceChunk> out;
  for (size_t i = 0; i < chunks.size(); ++i) {
    if (!splits_attention_ && chunks[i].rank != rank) continue;
    out.push_back(chunks[i].chunk);
    out.back().home_rank = chunks[i].rank;
    if (splits_attention_) out.back().cache = chunks[i].parts[static_cast<size_t>(rank)];
    index.push_back(i);
  }
  return out;
}

std::vector<int32_t> RankGroup::step(std::span<const PlacedChunk> chunks, const model::LogitSink& sink) {
  // Checked before any rank begins, because then only this call fails and no rank has to be aborted.
  for (const PlacedChunk& c : chunks) {
    EPS_CHECK_EQ(c.parts.size(), splits_attention_ ? ops_.size() : size_t{0});
    const model::KvCache& cache = splits_attention_ ? *c.parts.front() : *c.chunk.cache;
    cache.require_room(std::ssize(c.chunk.ids));
  }
  std::vector<int64_t> tokens_per_rank(ops_.size(), 0);
  for (const PlacedChunk& c : chunks) tokens_per_rank[static_cast<size_t>(c.rank)] += std::ssize(c.chunk.ids);
  // Shared by all ranks; each of them writes only the elements of its own chunks.
  std::vector<int32_t> tokens(chunks.size(), ops::kNoToken);
  try {
    run([&](int rank) {
      std::vector<size_t> index;
      const std::vector<model::SequenceChunk> mine = chunks_of(rank, chunks, index);
      const std::vector<int32_t> sampled = decoders_[static_cast<size_t>(rank)]->forward(
          mine, tokens_per_rank,
          [&](size_t i, int64_t position, std::span<const float> logits) { sink(index[i], position, logits); });
      for (size_t i = 0; i < sampled.size(); ++i) {
        if (mine[i].home_rank == rank) tokens[index[i]] = sampled[i];
      }
    });
  } catch (const model::LogitsError&) {
    // Names the router that the invalid values come from, if there is one.
    run([&](int rank) { decoders_[static_cast<size_t>(rank)]->check_routers(tokens_per_rank); });
    throw;
  }
  return tokens;
}

void RankGroup::run(const std::function<void(int)>& body) {
  try {
    threads_.run(body, [this](int rank, const char* what) { comms_[static_cast<size_t>(rank)]->abort(what); });
  } catch (...) {
    // All ranks have left the body, so the communicators can be reset for the next one.
    wait_for_ranks();
    comms_.front()->recover();
    throw;
  }
}

std::vector<std::string> RankGroup::op_set_descriptions() const {
  std::vector<std::string> out;
  for (const auto& ops : ops_) out.push_back(ops->description());
  return out;
}

}  // namespace eps::engine
