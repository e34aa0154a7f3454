#include "plan/traffic.h"

#include <algorithm>

namespace eps {

TrafficModel::TrafficModel(const MoeProblem& problem, int ranks_per_node)
    : num_ranks_(static_cast<size_t>(problem.placement.num_ranks)),
      width_(problem.routing.visits.size() / num_ranks_),
      experts_(problem.placement.experts_per_rank()),
      visits_by_count_(problem.routing.visits.begin(), problem.routing.visits.end()) {
  const auto node = static_cast<size_t>(std::max(1, ranks_per_node));
  any_far_ = num_ranks_ > node;
  for (Place* place : {&near_, &far_}) {
    for (Flows* flows : {&place->tokens, &place->partials}) {
      flows->rows.assign(num_ranks_ * num_ranks_, 0.0);
      flows->to_rank.assign(num_ranks_, 0.0);
    }
  }
  for (size_t j = 0; j < width_; ++j) {
    const double drawn = static_cast<double>(j) / experts_;
    left_.push_back(drawn < 1 ? 1 / (1 - drawn) : 0.0);
  }
  for (size_t r = 0; r < num_ranks_; ++r) {
    double all = 0;
    for (size_t j = 0; j < width_; ++j) all += visits_by_count_[r * width_ + j];
    for (size_t j = 0; j < width_ && all > 0; ++j) visits_by_count_[r * width_ + j] /= all;
    for (size_t home = 0; home < num_ranks_; ++home) {
      if (home == r) continue;
      Place& place = home / node == r / node ? near_ : far_;
      const int64_t tokens = problem.routing.tokens_between[home * num_ranks_ + r];
      const int64_t partials = problem.routing.partials_between[home * num_ranks_ + r];
      add_flow(place.tokens, home, r, tokens);
      add_flow(place.partials, home, r, partials);
      dispatch_rows_ += tokens;
      combine_rows_ += partials;
    }
  }
}

void TrafficModel::add_flow(Flows& flows, size_t home, size_t rank, int64_t rows) const {
  flows.rows[home * num_ranks_ + rank] = static_cast<double>(rows);
  flows.to_rank[rank] += static_cast<double>(rows);
}

double TrafficModel::missing(size_t rank, double f) const {
  double sum = 0;
  double miss = 1;
  const double* share = visits_by_count_.data() + rank * width_;
  const double step = 1 / experts_;
  double rest = 1 - f;
  for (size_t j = 1; j < width_ && rest > 0; ++j, rest -= step) {
    miss *= rest * left_[j - 1];
    sum += share[j] * miss;
  }
  return sum;
}

void TrafficModel::fill_place(const Place& place, std::span<const double> dispatch_part,
                              std::span<const double> combine_part, MessageRows* dispatch, MessageRows* combine,
                              double MessageRows::*larger) const {
  for (size_t r = 0; r < num_ranks_; ++r) {
    const double* tokens = &place.tokens.rows[r * num_ranks_];
    const double* partials = &place.partials.rows[r * num_ranks_];
    double sent = 0;
    double returned = 0;
    for (size_t o = 0; o < num_ranks_; ++o) {
      sent += tokens[o] * dispatch_part[o];
      returned += partials[o] * combine_part[o];
    }
    const double sends_back = place.partials.to_rank[r] * combine_part[r];
    dispatch[r].*larger = std::max(sent, place.tokens.to_rank[r] * dispatch_part[r]);
    dispatch[r].sent_rows += sent;
    combine[r].*larger = std::max(returned, sends_back);
    combine[r].sent_rows += sends_back;
  }
}

void TrafficModel::fill(std::span<const double> dispatch_part, std::span<const double> combine_part,
                        MessageRows* dispatch, MessageRows* combine) const {
  fill_place(near_, dispatch_part, combine_part, dispatch, combine, &MessageRows::near_rows);
  if (any_far_) fill_place(far_, dispatch_part, combine_part, dispatch, combine, &MessageRows::far_rows);
}

void TrafficModel::split(std::span<const double> rows, int num_stages, std::span<MessageRows> dispatch,
                         std::span<MessageRows> combine) const {
  struct Progress {
    double all = 0, done = 0, unseen = 1, unfinished = 1;
  };
  std::vector<Progress> progress(num_ranks_);
  std::vector<double> first(num_ranks_);
  std::vector<double> last(num_ranks_);
  const auto stages = static_cast<size_t>(num_stages);
  for (size_t s = 0; s < stages; ++s) {
    for (size_t r = 0; r < num_ranks_; ++r) progress[r].all += rows[s * num_ranks_ + r];
  }
  for (size_t s = 0; s < stages; ++s) {
    for (size_t r = 0; r < num_ranks_; ++r) {
      Progress& p = progress[r];
      first[r] = last[r] = 0;
      if (rows[s * num_ranks_ + r] == 0) continue;  // exactly nothing: a message of 1e-16 rows would cost its latency
      p.done += rows[s * num_ranks_ + r];
      const bool is_last = p.done == p.all;
      const double f = p.done / p.all;
      const double unseen = is_last ? 0 : missing(r, f);
      // A token is complete when nothing of it is among the stages still to come: the share 1 - f of the rows.
      const double unfinished = is_last ? 0 : 1 - missing(r, 1 - f);
      first[r] = p.unseen - unseen;
      last[r] = p.unfinished - unfinished;
      p.unseen = unseen;
      p.unfinished = unfinished;
    }
    fill(first, last, &dispatch[s * num_ranks_], &combine[s * num_ranks_]);
  }
}

void TrafficModel::split_evenly(int num_stages, std::span<MessageRows> dispatch, std::span<MessageRows> combine) const {
  const std::vector<double> part(num_ranks_, 1.0 / num_stages);
  for (size_t s = 0; s < static_cast<size_t>(num_stages); ++s) {
    fill(part, part, &dispatch[s * num_ranks_], &combine[s * num_ranks_]);
  }
}

}  // namespace eps
