// Ranks with their own memory load their local experts and everything that is not an expert.
#include "engine/rank_models.h"

#include <gtest/gtest.h>

#include "engine/model_folder.h"
#include "support/golden.h"

namespace eps::engine {
namespace {

TEST(RankShare, ARankLoadsItsLocalExpertsAndEverythingElse) {
  const ModelFolder folder = test::open_golden("dense_first");
  const model::StoredNames names(folder.spec, *folder.family, *folder.checkpoint);
  const auto ops = make_op_sets("reference", "f32", 1, 1);
  const auto load = [&](model::RankShare share, const model::LoadProgress& progress) {
    return model::Model::load(folder.spec, *folder.family, model::make_checkpoint_source(*folder.checkpoint, names),
                              *ops.front(), progress, share);
  };
  const auto whole = load({}, {});
  const int num_experts = folder.spec.moe.gate.num_experts;
  for (const int num_ranks : {2, 3}) {
    const moe::ExpertPlacement placement = moe::place_experts(num_experts, num_ranks);
    uint64_t done_by_all = 0;
    for (int rank = 0; rank < num_ranks; ++rank) {
      uint64_t done = 0;
      const auto part = load({rank, num_ranks}, [&done](uint64_t bytes) { done = bytes; });
      done_by_all += done;
      ASSERT_EQ(part->layers().size(), whole->layers().size());
      for (size_t i = 0; i < whole->layers().size(); ++i) {
        const model::LayerWeights& got = part->layers()[i];
        ASSERT_EQ(got.experts.size(), whole->layers()[i].experts.size());
        EXPECT_EQ(got.router == nullptr, whole->layers()[i].router == nullptr);
        EXPECT_EQ(got.shared.down == nullptr, whole->layers()[i].shared.down == nullptr);
        for (size_t e = 0; e < got.experts.size(); ++e) {
          const bool is_own = placement.rank_of(static_cast<int>(e)) == rank;
          EXPECT_EQ(got.experts[e].gate_up != nullptr, is_own) << "layer " << i << ", expert " << e;
          EXPECT_EQ(got.experts[e].down != nullptr, is_own) << "layer " << i << ", expert " << e;
        }
        if (got.experts.empty()) continue;
        const ops::MoeWeights seen = model::rank_weights(got, placement, rank);
        for (int e = 0; e < num_experts; ++e) {
          EXPECT_EQ(seen.down[static_cast<size_t>(e)] != nullptr, placement.rank_of(e) == rank);
        }
      }
    }
    // The mean over the ranks ends at the whole checkpoint.
    EXPECT_EQ(done_by_all, static_cast<uint64_t>(num_ranks) * folder.checkpoint->total_bytes()) << num_ranks;
  }
}

TEST(RankShare, RanksMustDivideTheExperts) {
  const ModelFolder folder = test::open_golden("plain");
  const model::StoredNames names(folder.spec, *folder.family, *folder.checkpoint);
  const auto ops = make_op_sets("reference", "f32", 1, 1);
  EXPECT_THROW(model::Model::load(folder.spec, *folder.family, model::make_checkpoint_source(*folder.checkpoint, names),
                                  *ops.front(), {}, {0, 3}),
               Error);
}

TEST(RankModels, RanksInOneMemoryShareTheWeights) {
  const ModelFolder folder = test::open_golden("plain");
  const model::StoredNames names(folder.spec, *folder.family, *folder.checkpoint);
  const auto ops = make_op_sets("cpu", "f32", 2, 1);
  int num_sources = 0;
  const RankModels models = RankModels::load(folder.spec, *folder.family,
                                             [&] {
                                               ++num_sources;
                                               return model::make_checkpoint_source(*folder.checkpoint, names);
                                             },
                                             ops, {});
  EXPECT_EQ(num_sources, 1);
  EXPECT_EQ(&models.of_rank(0), &models.of_rank(1));
}

}  // namespace
}  // namespace eps::engine
