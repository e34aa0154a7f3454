#include "moe/row_layout.h"

#include <algorithm>

#include "base/error.h"

namespace eps::moe {
namespace {

// The first and the last stage in which a token has experts on a rank; `first` < 0: none. The token is dispatched to
// the rank in the first one, and its partial sums are returned in the last one.
struct Visit {
  int first = -1;
  int last = -1;
};

// Builds the layout in two passes over all tokens of all ranks: the first one counts, because the position of a row in
// a buffer depends on the size of everything before it. Every rank visits the tokens in the same order, so the order of
// the rows in a message does not have to be sent.
class LayoutBuilder {
 public:
  LayoutBuilder(std::span<const Routing> routing, const ExpertPlacement& placement, const StageMap& stages, int rank)
      : routing_(routing),
        placement_(placement),
        stage_map_(stages),
        rank_(rank),
        num_ranks_(static_cast<size_t>(placement.num_ranks)),
        visits_(num_ranks_) {
    layout_.stages.resize(static_cast<size_t>(stages.num_stages()));
    for (StageLayout& stage : layout_.stages) {
      stage.send_tokens.resize(num_ranks_);
      stage.recv_tokens.resize(num_ranks_);
      stage.return_rows.resize(num_ranks_);
      stage.recv_partials.resize(num_ranks_);
    }
  }

  RowLayout build() {
    layout_.num_tokens = routing_[static_cast<size_t>(rank_)].num_tokens;
    count();
    fill();
    return std::move(layout_);
  }

 private:
  StageLayout& stage(int s) { return layout_.stages[static_cast<size_t>(s)]; }

  // Sets the token that the following functions refer to.
  void set_token(size_t home, int64_t token) {
    home_ = static_cast<int>(home);
    second_half_ = holds(TokenPart::kSecondHalf, token, routing_[home].num_tokens, 0, 0);
  }
  int stage_of(int32_t expert) const {
    return stage_map_.stage_of(expert, placement_.rank_of(expert) == home_, second_half_);
  }
  // Index into arrays by stage and local expert.
  size_t local_index(int stage, int32_t expert) const {
    return static_cast<size_t>(stage) * static_cast<size_t>(placement_.experts_per_rank()) +
           static_cast<size_t>(expert - placement_.first_expert(rank_));
  }

  void find_visits(std::span<const int32_t> experts) {
    std::fill(visits_.begin(), visits_.end(), Visit{});
    for (const int32_t e : experts) {
      Visit& visit = visits_[static_cast<size_t>(placement_.rank_of(e))];
      const int s = stage_of(e);
      visit.first = visit.first < 0 ? s : std::min(visit.first, s);
      visit.last = std::max(visit.last, s);
    }
  }

  // First pass: counts the sizes of everything, then assigns positions in the buffers.
  void count() {
    std::vector<int64_t> load(layout_.stages.size() * static_cast<size_t>(placement_.experts_per_rank()), 0);
    for (size_t home = 0; home < num_ranks_; ++home) {
      const Routing& routing = routing_[home];
      for (int64_t t = 0; t < routing.num_tokens; ++t) {
        const auto experts = routing.experts_of(t);
        set_token(home, t);
        find_visits(experts);
        const Visit mine = visits_[static_cast<size_t>(rank_)];
        if (static_cast<int>(home) == rank_) {
          count_returns(experts);
        } else if (mine.first >= 0) {
          ++stage(mine.first).recv_tokens[home].count;
        }
        if (mine.first < 0) continue;
        for (const int32_t e : experts) {
          if (placement_.rank_of(e) == rank_) ++load[local_index(stage_of(e), e)];
        }
      }
    }
    place(load);
  }

  // Counts the partial sums of a token of this rank that other ranks return after their last stage with the token.
  void count_returns(std::span<const int32_t> experts) {
    build_reduction(experts, placement_.num_experts, placement_.experts_per_rank(), schedule_);
    for (size_t peer = 0; peer < num_ranks_; ++peer) {
      if (static_cast<int>(peer) == rank_ || visits_[peer].first < 0) continue;
      stage(visits_[peer].last).recv_partials[peer].count += static_cast<int64_t>(schedule_.partials[peer].size());
    }
  }

  // Assigns positions. The rows of a stage are consecutive and sorted by expert, so that its GEMMs read contiguous
  // blocks. The rows of one message are consecutive as well, so that they are received without another copy.
  void place(const std::vector<int64_t>& load) {
    next_row_.assign(load.size(), 0);
    for (size_t s = 0; s < layout_.stages.size(); ++s) {
      StageLayout& stage = layout_.stages[s];
      stage.row_begin = layout_.num_rows;
      const int first = placement_.first_expert(rank_);
      for (int e = first; e < first + placement_.experts_per_rank(); ++e) {
        const size_t at = local_index(static_cast<int>(s), e);
        const int64_t rows = load[at];
        next_row_[at] = layout_.num_rows;
        if (rows > 0) stage.experts.push_back({e, layout_.num_rows, layout_.num_rows + rows});
        layout_.num_rows += rows;
      }
      stage.row_end = layout_.num_rows;
      for (Span64& span : stage.recv_tokens) {
        span.begin = layout_.num_recv_tokens;
        layout_.num_recv_tokens += span.count;
      }
      for (Span64& span : stage.recv_partials) {
        span.begin = layout_.num_recv_partials;
        layout_.num_recv_partials += span.count;
      }
    }
    EPS_CHECK_LT(std::max({layout_.num_rows, layout_.num_recv_tokens, layout_.num_recv_partials}), int64_t{1} << 31);
    layout_.row_token.resize(static_cast<size_t>(layout_.num_rows));
    layout_.row_weight.resize(static_cast<size_t>(layout_.num_rows));
    layout_.token_sum.resize(static_cast<size_t>(layout_.num_tokens));
    taken_tokens_.assign(layout_.stages.size() * num_ranks_, 0);
    taken_partials_.assign(layout_.stages.size() * num_ranks_, 0);
  }

  // Second pass: fills the positions, visiting the tokens in the same order as the first pass.
  void fill() {
    for (size_t home = 0; home < num_ranks_; ++home) {
      const Routing& routing = routing_[home];
      for (int64_t t = 0; t < routing.num_tokens; ++t) {
        const auto experts = routing.experts_of(t);
        set_token(home, t);
        find_visits(experts);
        const bool own = static_cast<int>(home) == rank_;
        const Visit mine = visits_[static_cast<size_t>(rank_)];
        if (!own && mine.first < 0) continue;
        build_reduction(experts, placement_.num_experts, placement_.experts_per_rank(), schedule_);
        row_of_.assign(experts.size(), RowRef{});
        if (mine.first >= 0) fill_rows(home, t, experts, routing.weights_of(t), mine);
        if (own) fill_home(t);
      }
    }
  }

  // Adds the token's rows on this rank, and what is added up and returned once the last of them has been computed.
  void fill_rows(size_t home, int64_t token, std::span<const int32_t> experts, std::span<const float> weights,
                 Visit mine) {
    RowRef source{static_cast<int32_t>(token), false};
    if (static_cast<int>(home) != rank_) {
      const int64_t taken = taken_tokens_[static_cast<size_t>(mine.first) * num_ranks_ + home]++;
      source = {static_cast<int32_t>(stage(mine.first).recv_tokens[home].begin + taken), true};
    }
    for (size_t i = 0; i < experts.size(); ++i) {
      if (placement_.rank_of(experts[i]) != rank_) continue;
      const int64_t row = next_row_[local_index(stage_of(experts[i]), experts[i])]++;
      layout_.row_token[static_cast<size_t>(row)] = source;
      layout_.row_weight[static_cast<size_t>(row)] = weights[i];
      row_of_[i] = {static_cast<int32_t>(row), false};
    }
    StageLayout& last = stage(mine.last);
    for (const TreeAdd add : schedule_.local_adds[static_cast<size_t>(rank_)]) {
      last.adds.push_back({row_of_[static_cast<size_t>(add.dst)], row_of_[static_cast<size_t>(add.src)]});
    }
    if (static_cast<int>(home) == rank_) return;
    for (const int16_t p : schedule_.partials[static_cast<size_t>(rank_)]) {
      last.return_rows[home].push_back(row_of_[static_cast<size_t>(p)].index);
    }
  }

  // For a token of this rank: adds where it is sent to, and how the returned partial sums are added up.
  void fill_home(int64_t token) {
    for (size_t peer = 0; peer < num_ranks_; ++peer) {
      const Visit visit = visits_[peer];
      if (static_cast<int>(peer) == rank_ || visit.first < 0) continue;
      stage(visit.first).send_tokens[peer].push_back(static_cast<int32_t>(token));
      for (const int16_t p : schedule_.partials[peer]) {
        const int64_t taken = taken_partials_[static_cast<size_t>(visit.last) * num_ranks_ + peer]++;
        const int64_t place = stage(visit.last).recv_partials[peer].begin + taken;
        row_of_[static_cast<size_t>(p)] = {static_cast<int32_t>(place), true};
      }
    }
    for (const TreeAdd add : schedule_.home_adds) {
      layout_.home_adds.push_back({row_of_[static_cast<size_t>(add.dst)], row_of_[static_cast<size_t>(add.src)]});
    }
    layout_.token_sum[static_cast<size_t>(token)] = row_of_[0];
  }

  std::span<const Routing> routing_;
  const ExpertPlacement& placement_;
  const StageMap& stage_map_;
  int rank_;
  size_t num_ranks_;
  RowLayout layout_;
  std::vector<Visit> visits_;
  ReductionSchedule schedule_;
  std::vector<RowRef> row_of_;  // [experts of the token]
  int home_ = 0;
  bool second_half_ = false;
  std::vector<int64_t> next_row_;        // [num_stages, experts_per_rank]
  std::vector<int64_t> taken_tokens_;    // [num_stages, num_ranks]
  std::vector<int64_t> taken_partials_;  // [num_stages, num_ranks]
};

}  // namespace

void StageMap::add(int stage, std::span<const int32_t> experts, TokenPart part) {
  for (const int32_t e : experts) {
    for (int at = 0; at < 4; ++at) {
      const bool local = (at & 2) != 0;
      const int token =
          at & 1;  // tests each part with two tokens per rank, of which one is in the first half and one in the second
      if (holds(part, token, 2, local ? 0 : 1, 0)) stage_[static_cast<size_t>(e) * 4 + static_cast<size_t>(at)] = stage;
    }
  }
}

void StageMap::check() const {
  for (size_t i = 0; i < stage_.size(); ++i) {
    EPS_CHECK(stage_[i] >= 0 && stage_[i] < num_stages_, "rows of expert {} are in no stage", i / 4);
  }
}

RowLayout make_row_layout(std::span<const Routing> routing, const ExpertPlacement& placement, const StageMap& stages,
                          int rank) {
  EPS_CHECK_EQ(routing.size(), static_cast<size_t>(placement.num_ranks));
  EPS_CHECK_EQ(stages.num_experts(), placement.num_experts);
  stages.check();
  for (const Routing& r : routing) EPS_CHECK(r.num_tokens == 0 || r.top_k > 0);
  return LayoutBuilder(routing, placement, stages, rank).build();
}

}  // namespace eps::moe
