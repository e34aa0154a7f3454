#include "moe/row_layout.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <random>
#include <set>

namespace eps::moe {
namespace {

struct World {
  ExpertPlacement placement;
  std::vector<std::vector<int32_t>> stages;  // experts of each
  std::vector<TokenPart> parts;
  std::vector<Routing> routing;
  std::vector<RowLayout> layouts;
};

World random_world(std::mt19937& rng) {
  const auto draw = [&rng](int lo, int hi) { return std::uniform_int_distribution<int>(lo, hi)(rng); };
  World w;
  const int ranks = draw(1, 5);
  const int per_rank = draw(1, 6);
  w.placement = place_experts(ranks * per_rank, ranks);
  const int num_stages = draw(1, per_rank);
  w.stages.resize(static_cast<size_t>(num_stages));
  for (int e = 0; e < w.placement.num_experts; ++e) {
    const int s = (e % per_rank) < num_stages ? e % per_rank : draw(0, num_stages - 1);
    w.stages[static_cast<size_t>(s)].push_back(e);
  }
  w.parts.assign(w.stages.size(), TokenPart::kAll);
  // Any stage may be split in two parts, as policies do with the first stage (local, remote) or all stages.
  if (const int split = draw(0, 2); split > 0) {
    const auto at = static_cast<std::ptrdiff_t>(draw(0, num_stages - 1));
    w.parts[static_cast<size_t>(at)] = split == 1 ? TokenPart::kLocal : TokenPart::kFirstHalf;
    w.parts.insert(w.parts.begin() + at + 1, split == 1 ? TokenPart::kRemote : TokenPart::kSecondHalf);
    w.stages.insert(w.stages.begin() + at + 1, std::vector<int32_t>(w.stages[static_cast<size_t>(at)]));
  }
  const int k = draw(1, std::min(6, w.placement.num_experts));
  const bool skewed = draw(0, 1) == 1;
  for (int r = 0; r < ranks; ++r) {
    Routing routing;
    routing.num_tokens = draw(0, 3) == 0 ? 0 : draw(0, 20);
    routing.top_k = k;
    std::vector<int32_t> all(static_cast<size_t>(w.placement.num_experts));
    std::iota(all.begin(), all.end(), 0);
    for (int64_t t = 0; t < routing.num_tokens; ++t) {
      if (!skewed) std::shuffle(all.begin(), all.end(), rng);
      for (int i = 0; i < k; ++i) {
        routing.expert_idx.push_back(all[static_cast<size_t>(i)]);
        routing.weight.push_back(static_cast<float>(draw(1, 1000)) / 1000.0F);
      }
    }
    normalize_routing(routing, w.placement.num_experts);
    w.routing.push_back(routing);
  }
  StageMap map(w.placement.num_experts, static_cast<int>(w.stages.size()));
  for (size_t s = 0; s < w.stages.size(); ++s) map.add(static_cast<int>(s), w.stages[s], w.parts[s]);
  for (int r = 0; r < ranks; ++r) w.layouts.push_back(make_row_layout(w.routing, w.placement, map, r));
  return w;
}

// Runs the layer on symbolic values: a row's value is weight × f(token, expert); sums are doubles.
double expert_value(int home, int64_t token, int32_t expert) {
  return home * 1e4 + static_cast<double>(token) * 50 + expert;
}

void check_world(const World& w) {
  const auto ranks = static_cast<size_t>(w.placement.num_ranks);
  std::vector<std::vector<std::pair<int, int64_t>>> received(ranks);  // [rank] slot -> (home, token)
  std::vector<std::vector<double>> rows(ranks);
  std::vector<std::vector<double>> returned(ranks);
  for (size_t r = 0; r < ranks; ++r) {
    received[r].resize(static_cast<size_t>(w.layouts[r].num_recv_tokens), {-1, -1});
    rows[r].resize(static_cast<size_t>(w.layouts[r].num_rows));
    returned[r].resize(static_cast<size_t>(w.layouts[r].num_recv_partials), 1e300);
  }
  std::set<std::tuple<size_t, size_t, int32_t>> crossings;
  for (int s = 0; s < static_cast<int>(w.stages.size()); ++s) {
    const auto si = static_cast<size_t>(s);
    for (size_t src = 0; src < ranks; ++src) {
      for (size_t dst = 0; dst < ranks; ++dst) {
        const auto& tokens = w.layouts[src].stages[si].send_tokens[dst];
        const Span64 place = w.layouts[dst].stages[si].recv_tokens[src];
        ASSERT_EQ(static_cast<int64_t>(tokens.size()), place.count);
        for (size_t i = 0; i < tokens.size(); ++i) {
          EXPECT_TRUE(crossings.insert({src, dst, tokens[i]}).second) << "a token crossed twice";
          received[dst][static_cast<size_t>(place.begin) + i] = {static_cast<int>(src), tokens[i]};
        }
      }
    }
    for (size_t r = 0; r < ranks; ++r) {
      const RowLayout& layout = w.layouts[r];
      const StageLayout& stage = layout.stages[si];
      for (const ExpertRows& block : stage.experts) {
        EXPECT_TRUE(std::ranges::binary_search(w.stages[si], block.expert));
        EXPECT_EQ(w.placement.rank_of(block.expert), static_cast<int>(r));
        for (int64_t row = block.begin; row < block.end; ++row) {
          const RowRef ref = layout.row_token[static_cast<size_t>(row)];
          const auto [home, token] = ref.remote ? received[r][static_cast<size_t>(ref.index)]
                                                : std::pair<int, int64_t>{static_cast<int>(r), ref.index};
          ASSERT_GE(home, 0) << "a row is computed before its token came";
          const int64_t of_home = w.routing[static_cast<size_t>(home)].num_tokens;
          EXPECT_TRUE(holds(w.parts[si], token, of_home, home, static_cast<int>(r))) << to_string(w.parts[si]);
          rows[r][static_cast<size_t>(row)] =
              layout.row_weight[static_cast<size_t>(row)] * expert_value(home, token, block.expert);
        }
      }
      for (const RowAdd& add : stage.adds) {
        ASSERT_LT(std::max(add.dst.index, add.src.index), stage.row_end) << "added before it was computed";
        rows[r][static_cast<size_t>(add.dst.index)] += rows[r][static_cast<size_t>(add.src.index)];
      }
      for (size_t home = 0; home < ranks; ++home) {
        const Span64 place = w.layouts[home].stages[si].recv_partials[r];
        ASSERT_EQ(static_cast<int64_t>(stage.return_rows[home].size()), place.count);
        for (size_t i = 0; i < stage.return_rows[home].size(); ++i) {
          returned[home][static_cast<size_t>(place.begin) + i] =
              rows[r][static_cast<size_t>(stage.return_rows[home][i])];
        }
      }
    }
  }
  for (size_t r = 0; r < ranks; ++r) {
    const auto at = [&](RowRef ref) -> double& {
      return ref.remote ? returned[r][static_cast<size_t>(ref.index)] : rows[r][static_cast<size_t>(ref.index)];
    };
    for (const RowAdd& add : w.layouts[r].home_adds) at(add.dst) += at(add.src);
    for (int64_t t = 0; t < w.routing[r].num_tokens; ++t) {
      double want = 0;
      for (size_t i = 0; i < static_cast<size_t>(w.routing[r].top_k); ++i) {
        want += w.routing[r].weights_of(t)[i] * expert_value(static_cast<int>(r), t, w.routing[r].experts_of(t)[i]);
      }
      EXPECT_NEAR(at(w.layouts[r].token_sum[static_cast<size_t>(t)]), want, 1e-9 * std::abs(want) + 1e-9);
    }
  }
}

TEST(RowLayout, EveryRowIsDispatchedComputedAndReturnedExactlyOnce) {
  std::mt19937 rng(11);
  for (int trial = 0; trial < 500; ++trial) check_world(random_world(rng));
}

TEST(RowLayout, RowsOfAnExpertKeepTokenOrder) {
  const ExpertPlacement placement = place_experts(2, 2);
  const std::vector<Routing> routing = {{3, 1, {0, 1, 0}, {1, 1, 1}}, {2, 1, {0, 0}, {1, 1}}};
  StageMap stages(2, 1);
  stages.add(0, std::vector<int32_t>{0, 1}, TokenPart::kAll);
  const RowLayout layout = make_row_layout(routing, placement, stages, 0);
  ASSERT_EQ(layout.num_rows, 4);
  const std::vector<RowRef> want = {{0, false}, {2, false}, {0, true}, {1, true}};
  EXPECT_EQ(layout.row_token, want);
  EXPECT_EQ(layout.stages[0].send_tokens[1], std::vector<int32_t>{1});
}

TEST(StageMap, RowsWithoutAStageAreFound) {
  StageMap stages(2, 2);
  stages.add(0, std::vector<int32_t>{0, 1}, TokenPart::kLocal);
  EXPECT_THROW(stages.check(), Error);
  stages.add(1, std::vector<int32_t>{0, 1}, TokenPart::kRemote);
  stages.check();
  EXPECT_EQ(stages.stage_of(1, true, false), 0);
  EXPECT_EQ(stages.stage_of(1, false, true), 1);
}

TEST(RowLayout, NoTokensAnywhere) {
  const ExpertPlacement placement = place_experts(4, 2);
  const std::vector<Routing> routing(2);
  StageMap stages(4, 2);
  stages.add(0, std::vector<int32_t>{0, 2}, TokenPart::kAll);
  stages.add(1, std::vector<int32_t>{1, 3}, TokenPart::kAll);
  const RowLayout layout = make_row_layout(routing, placement, stages, 1);
  EXPECT_EQ(layout.num_rows + layout.num_recv_tokens + layout.num_recv_partials, 0);
}

}  // namespace
}  // namespace eps::moe
