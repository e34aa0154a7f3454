// The position of every row on one rank during one MoE layer: what to send, receive, compute, add up and return in each
// stage. A pure function of the routing of all ranks, so both ends of every message agree on its size and order.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "moe/placement.h"
#include "moe/reduction_tree.h"
#include "moe/routing.h"
#include "moe/token_part.h"

namespace eps::moe {

// The position of a row: `index` into one of two buffers.
struct RowRef {
  int32_t index = 0;
  bool remote =
      false;  // for tokens: false = of this rank, true = received. For partial sums: true = returned by another rank
  bool operator==(const RowRef&) const = default;
};

struct RowAdd {
  RowRef dst;
  RowRef src;
};

struct ExpertRows {
  int32_t expert;
  int64_t begin;  // rows [begin, end) of the rank's row buffers
  int64_t end;
};

// Consecutive positions in a buffer, for rows from one rank.
struct Span64 {
  int64_t begin = 0;
  int64_t count = 0;
};

struct StageLayout {
  std::vector<std::vector<int32_t>>
      send_tokens;                  // [num_ranks][…] tokens of this rank that are first needed there in this stage
  std::vector<Span64> recv_tokens;  // [num_ranks] positions in the received-token buffer
  int64_t row_begin = 0;            // the stage's rows are [row_begin, row_end), experts ascending
  int64_t row_end = 0;
  std::vector<ExpertRows> experts;  // local experts of the stage that have rows
  std::vector<RowAdd> adds;         // for tokens whose last local expert is in this stage; all refs are local rows
  std::vector<std::vector<int32_t>> return_rows;  // [num_ranks][…] rows that are returned to that rank after `adds`
  std::vector<Span64> recv_partials;              // [num_ranks] positions in the returned-row buffer
};

struct RowLayout {
  int64_t num_tokens = 0;         // of this rank
  int64_t num_recv_tokens = 0;    // tokens of other ranks that this rank works on, each counted once
  int64_t num_rows = 0;           // over all stages
  int64_t num_recv_partials = 0;  // rows that other ranks return
  std::vector<StageLayout> stages;
  std::vector<RowRef> row_token;  // [num_rows] the token a row is a copy of
  std::vector<float> row_weight;  // [num_rows]
  std::vector<RowAdd> home_adds;  // for tokens of this rank, in order; `remote` = returned row
  std::vector<RowRef> token_sum;  // [num_tokens] position of the token's routed sum at the end
};

// Maps rows to stages. Built from the experts and the token part of every stage.
class StageMap {
 public:
  StageMap(int num_experts, int num_stages)
      : num_stages_(num_stages), stage_(static_cast<size_t>(num_experts) * 4, -1) {}

  // Assigns those rows of `experts` that are in `part` to stage `stage`.
  void add(int stage, std::span<const int32_t> experts, TokenPart part);

  int num_stages() const { return num_stages_; }
  int num_experts() const { return static_cast<int>(stage_.size() / 4); }
  // Errors  kInternal when a row has no stage
  void check() const;
  int stage_of(int32_t expert, bool local, bool second_half) const {
    return stage_[static_cast<size_t>(expert) * 4 + (local ? 2 : 0) + (second_half ? 1 : 0)];
  }

 private:
  int num_stages_;
  std::vector<int> stage_;  // [num_experts, local, second half]
};

// Builds the layout of `rank`.
//
// Shapes  routing [num_ranks]
// Order   the rows of one expert and stage are sorted by (home rank, token); messages are sorted by token, and by tree
//         position within a token
// Source  EPS-MoE §4.3; dispatch at first need and combine at last completion are our own design rules
RowLayout make_row_layout(std::span<const Routing> routing, const ExpertPlacement& placement, const StageMap& stages,
                          int rank);

}  // namespace eps::moe
