#include "engine/rank_models.h"

#include <atomic>
#include <mutex>
#include <numeric>

#include "base/error.h"
#include "engine/rank_group.h"

namespace eps::engine {
namespace {

// Combines the progress of ranks that load at the same time into one.
class JointProgress {
 public:
  JointProgress(size_t num_ranks, const model::LoadProgress& progress) : done_(num_ranks, 0), progress_(progress) {}

  void update(size_t rank, uint64_t bytes) {
    if (has_failed_) throw Error(ErrorKind::kAborted, "loading", "another rank could not load its weights");
    const std::lock_guard lock(mutex_);
    done_[rank] = bytes;
    if (progress_) progress_(std::accumulate(done_.begin(), done_.end(), uint64_t{0}) / done_.size());
  }
  void fail() { has_failed_ = true; }

 private:
  std::mutex mutex_;
  std::vector<uint64_t> done_;
  const model::LoadProgress& progress_;
  std::atomic<bool> has_failed_{false};
};

}  // namespace

RankModels RankModels::load(const arch::ModelSpec& spec, const arch::Family& family,
                            const std::function<std::unique_ptr<model::WeightSource>()>& make_source,
                            std::span<const std::unique_ptr<ops::OpSet>> ops, const model::LoadProgress& progress,
                            plan::Strategy strategy) {
  RankModels out;
  out.whole_spec_ = spec;
  const bool on_host = ops.front()->memory().on_host();
  if (ops.size() == 1 || (on_host && strategy == plan::Strategy::kDpEp)) {
    ops.front()->bind_thread();
    out.models_.push_back(model::Model::load(spec, family, make_source(), *ops.front(), progress));
    return out;
  }
  const auto num_ranks = static_cast<int>(ops.size());
  out.models_.resize(ops.size());
  JointProgress joint(ops.size(), progress);
  if (on_host) {
    // One after the other, each with all threads of its op set.
    model::WholeWeights whole;
    for (size_t r = 0; r < ops.size(); ++r) {
      out.models_[r] = model::Model::load(
          spec, family, make_source(), *ops[r], [&](uint64_t bytes) { joint.update(r, bytes); },
          {static_cast<int>(r), num_ranks, strategy}, &whole);
    }
    return out;
  }
  std::vector<std::unique_ptr<model::WeightSource>> sources;
  for (size_t r = 0; r < ops.size(); ++r) sources.push_back(make_source());
  RankThreads(num_ranks).run(
      [&](int rank) {
        const auto r = static_cast<size_t>(rank);
        ops[r]->bind_thread();
        out.models_[r] =
            model::Model::load(spec, family, std::move(sources[r]), *ops[r],
                               [&](uint64_t bytes) { joint.update(r, bytes); }, {rank, num_ranks, strategy});
        ops[r]->wait();  // the source and its buffers must outlive the uploads
      },
      [&](int, const char*) { joint.fail(); });
  return out;
}

}  // namespace eps::engine
