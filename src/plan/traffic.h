// Distributes a layer's messages over its stages. Totals are exact, but the stage in which a token is first needed is
// an expected value: it depends on the whole routing, of which only the summary is available.
#pragma once

#include <algorithm>
#include <span>
#include <vector>

#include "plan/problem.h"

namespace eps::plan {

// The rows of one message on one rank, within the node (near) and beyond it (far). Links are full duplex, so each is
// the larger of the rows sent and received.
struct MessageRows {
  double near_rows = 0;
  double far_rows = 0;
  double sent_rows = 0;
};

inline MessageRows larger(const MessageRows& a, const MessageRows& b) {
  return {std::max(a.near_rows, b.near_rows), std::max(a.far_rows, b.far_rows), std::max(a.sent_rows, b.sent_rows)};
}

// The number of experts that a token has on average on a rank that it visits; 1 without visits.
double count_copies(const MoeProblem& problem);

class TrafficModel {
 public:
  TrafficModel(const MoeProblem& problem, int ranks_per_node);

  // Splits dispatch and combine over stages.
  //
  // Shapes  rows [num_stages, num_ranks], in the order in which the stages run; dispatch and combine: the same
  // Source  a token with j of a rank's E experts misses a set with the share f of the rows with probability ∏ (1 - f -
  //         i/E) / (1 - i/E), i < j: sampling without replacement, with experts weighted by their rows
  void split(std::span<const double> rows, int num_stages, std::span<MessageRows> dispatch,
             std::span<MessageRows> combine);
  // The same in equal parts, for stages that are parts of the tokens.
  void split_evenly(int num_stages, std::span<MessageRows> dispatch, std::span<MessageRows> combine);

  // Whether tokens of other ranks visit `rank`.
  bool has_visits(size_t rank) const { return near_.tokens.to_rank[rank] + far_.tokens.to_rank[rank] > 0; }
  // Whether some of these tokens have just one expert there, so that every stage with rows has tokens that no other
  // stage needs.
  bool has_single_visits(size_t rank) const { return width_ > 1 && share_of_count_[num_ranks_ + rank] > 0; }
  // The fraction of the tokens visiting `rank` that have an expert in a first stage with the fraction `f` of its rows.
  double first_need(size_t rank, double f) const;
  double near_visits(size_t rank) const { return std::min(near_.tokens.to_rank[rank], near_.partials.to_rank[rank]); }
  bool any_far() const { return any_far_; }  // whether there are ranks on other nodes

  // The rows that are dispatched and returned, over all ranks.
  int64_t dispatch_rows() const { return dispatch_rows_; }
  int64_t combine_rows() const { return combine_rows_; }

 private:
  void find_missing(std::span<const double> rest, std::span<double> out) const;
  double find_missing(size_t rank, double rest) const;  // the same for one rank
  // Sets the messages of one stage, which sends dispatch_part[d] of all rows that rank d receives and combine_part[d]
  // of all rows that it returns.
  void fill(std::span<const double> dispatch_part, std::span<const double> combine_part, MessageRows* dispatch,
            MessageRows* combine);

  // Tokens or partial sums between ranks [expert's, home], without the diagonal, and their sums over homes.
  struct Flows {
    std::vector<double> rows;
    std::vector<double> to_rank;
  };
  struct Place {
    Flows tokens, partials;
  };
  void add_flow(Flows& flows, size_t home, size_t rank, int64_t rows) const;
  void fill_place(const Place& place, std::span<const double> dispatch_part, std::span<const double> combine_part,
                  MessageRows* dispatch, MessageRows* combine, double MessageRows::*larger);

  size_t num_ranks_;
  size_t width_;
  double experts_;
  std::vector<double> share_of_count_;  // [width, num_ranks] fractions of a rank's visits by number of experts
  std::vector<double> left_;            // [width] 1 / (share of the experts not sampled yet)
  Place near_, far_;
  bool any_far_ = false;
  std::vector<double> scratch_;
  std::vector<double> sent_, returned_;  // [num_ranks] scratch
  int64_t dispatch_rows_ = 0;
  int64_t combine_rows_ = 0;
};

}  // namespace eps::plan
