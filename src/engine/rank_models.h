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
  // Ranks that compute in host memory share one set of weights. Ranks with their own memory get a set each, which
  // contains only their local experts; all ranks read and upload their sets at the same time.
  //
  // `make_source` is called once for each set. `progress` is called with the bytes of the checkpoint that have been
  // loaded, one call at a time, from any thread.
  // Errors  as Model::load
  static RankModels load(const arch::ModelSpec& spec, const arch::Family& family,
                         const std::function<std::unique_ptr<model::WeightSource>()>& make_source,
                         std::span<const std::unique_ptr<ops::OpSet>> ops, const model::LoadProgress& progress);

  const model::Model& of_rank(int rank) const { return *models_[models_.size() == 1 ? 0 : static_cast<size_t>(rank)]; }
  const arch::ModelSpec& spec() const { return models_.front()->spec(); }

 private:
  std::vector<std::unique_ptr<model::Model>> models_;  // one, or one for each rank
};

}  // namespace eps::engine
