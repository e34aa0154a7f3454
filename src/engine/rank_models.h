// The weights of all ranks of this process.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "model/model.h"

namespace eps::engine {

class RankModels {
 public:
  // With dp+ep, ranks that compute in host memory share one set of weights. Otherwise each rank has a set of its own,
  // with its local experts and its part of what the strategy splits; ranks in host memory share the matrices that all
  // of them have whole. Ranks with their own memory read and upload their sets at the same time.
  //
  // `make_source` is called once for each set. `progress` is called with the bytes of the checkpoint that have been
  // loaded, one call at a time, from any thread.
  // Errors  as Model::load
  static RankModels load(const arch::ModelSpec& spec, const arch::Family& family,
                         const std::function<std::unique_ptr<model::WeightSource>()>& make_source,
                         std::span<const std::unique_ptr<ops::OpSet>> ops, const model::LoadProgress& progress,
                         plan::Strategy strategy = plan::Strategy::kDpEp);

  const model::Model& of_rank(int rank) const { return *models_[models_.size() == 1 ? 0 : static_cast<size_t>(rank)]; }
  // The sizes of a rank's part, and of the whole model.
  const arch::ModelSpec& spec() const { return models_.front()->spec(); }
  const arch::ModelSpec& whole_spec() const { return whole_spec_; }

 private:
  arch::ModelSpec whole_spec_;
  std::vector<std::unique_ptr<model::Model>> models_;  // one, or one for each rank
};

}  // namespace eps::engine
