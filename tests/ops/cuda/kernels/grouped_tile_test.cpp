// The choice of a grouped GEMM's tile and the division of rows among tiles: plain host code, so no GPU is needed.
#include "ops/cuda/kernels/gemm/grouped_tile.h"

#include <gtest/gtest.h>

#include <vector>

#include "base/error.h"

namespace eps::cuda {
namespace {

constexpr int kSms = 132;
constexpr GroupedEpilogue kEpilogues[] = {GroupedEpilogue::kStore, GroupedEpilogue::kSiluMul};

// Tiles must cover the rows of a group without gaps, in whole granules and within the tile's height.
template <bool kIsTall>
void check_division(int rows, int max_tile_rows) {
  const RowTiles<kIsTall> tiles(rows, max_tile_rows);
  constexpr int kGranule = RowTiles<kIsTall>::kGranule;
  EXPECT_EQ(tiles.begin(0), 0);
  EXPECT_GE(tiles.begin(tiles.count), rows);
  EXPECT_LT(tiles.begin(tiles.count), rows + kGranule);
  for (int i = 0; i < tiles.count; ++i) {
    const int height = tiles.begin(i + 1) - tiles.begin(i);
    EXPECT_GT(height, 0) << rows;
    EXPECT_LE(height, max_tile_rows) << rows;
    EXPECT_EQ(height % kGranule, 0) << rows;
    EXPECT_LE(tiles.begin(1) - height, kGranule) << "tiles of " << rows << " rows differ by more than a granule";
  }
}

TEST(GroupedTile, RowsAreDividedEvenly) {
  for (int rows = 0; rows <= 1100; ++rows) {
    check_division<false>(rows, kWideRows);
    for (const GroupedTile tile : kGroupedTiles) {
      if (tile.is_tall()) check_division<true>(rows, tile.rows);
    }
  }
  const RowTiles<true> two(320, 256);
  EXPECT_EQ(two.count, 2);
  EXPECT_EQ(two.begin(1), 160);
}

TEST(GroupedTile, OnlyTilesWithAKernelAreTiles) {
  for (const GroupedTile tile : kGroupedTiles) EXPECT_TRUE(is_grouped_tile(tile)) << tile.rows << " x " << tile.cols;
  EXPECT_FALSE(is_grouped_tile({}));
  EXPECT_FALSE(is_grouped_tile({100, 128}));
  EXPECT_FALSE(is_grouped_tile({256, 256}));
}

TEST(GroupedTile, TheChoiceHasTheLeastPredictedTime) {
  for (const int64_t rows : {0, 1, 31, 32, 33, 64, 128, 192, 256, 320, 4096}) {
    for (const size_t groups : {1U, 20U, 160U, 256U, 257U, 600U}) {
      const std::vector<int64_t> load(groups, rows);
      for (const GroupedEpilogue epilogue : kEpilogues) {
        const GroupedTile chosen = choose_tile(load, 3072, epilogue, kSms);
        EXPECT_TRUE(is_grouped_tile(chosen));
        for (const GroupedTile tile : kGroupedTiles) {
          EXPECT_LE(predict_grouped_cost(load, 3072, chosen, epilogue, kSms),
                    predict_grouped_cost(load, 3072, tile, epilogue, kSms));
        }
      }
    }
  }
  EXPECT_TRUE(is_grouped_tile(choose_tile({}, 3072, GroupedEpilogue::kStore, kSms)));
}

// DeepSeek-V2 with 20 experts, as measured (docs/kernels/cuda-grouped-gemm.md).
TEST(GroupedTile, TilesOfDeepSeekV2) {
  const auto gate_up = [](int64_t rows) {
    return choose_tile(std::vector<int64_t>(20, rows), 3072, GroupedEpilogue::kSiluMul, kSms);
  };
  const auto down = [](int64_t rows) {
    return choose_tile(std::vector<int64_t>(20, rows), 5120, GroupedEpilogue::kStore, kSms);
  };
  EXPECT_EQ(gate_up(64), (GroupedTile{128, 128}));
  EXPECT_EQ(gate_up(192), (GroupedTile{256, 128}));  // one tile of 192 rows
  EXPECT_EQ(gate_up(256), (GroupedTile{128, 192}));
  EXPECT_EQ(gate_up(320), (GroupedTile{160, 128}));  // two tiles of 160 rows
  EXPECT_EQ(down(128), (GroupedTile{128, 128}));
  EXPECT_EQ(down(1024), (GroupedTile{256, 128}));
}

// A call with more than 256 groups runs as several launches, one after the other: the last SMs of each wait for its
// end, and the prediction must count that for every launch.
TEST(GroupedTile, MoreGroupsThanALaunchArePredictedLaunchByLaunch) {
  std::vector<int64_t> load(260, 512);
  std::fill_n(load.begin(), kMaxGroupsPerLaunch, 128);
  const std::span<const int64_t> all = load;
  for (const GroupedEpilogue epilogue : kEpilogues) {
    for (const GroupedTile tile : kGroupedTiles) {
      EXPECT_DOUBLE_EQ(predict_grouped_cost(all, 256, tile, epilogue, kSms),
                       predict_grouped_cost(all.first(kMaxGroupsPerLaunch), 256, tile, epilogue, kSms) +
                           predict_grouped_cost(all.subspan(kMaxGroupsPerLaunch), 256, tile, epilogue, kSms));
    }
  }
  // As one launch of 260 groups, tiles of 256 rows would look best.
  EXPECT_EQ(choose_tile(all, 256, GroupedEpilogue::kStore, kSms), (GroupedTile{128, 128}));
}

TEST(GroupedTile, TheNumberOfSmsMustBeKnown) { EXPECT_THROW(choose_tile({}, 3072, GroupedEpilogue::kStore, 0), Error); }

}  // namespace
}  // namespace eps::cuda
