#include "plan/traffic.h"

#include <algorithm>
#include <array>

namespace eps::plan {

double count_copies(const MoeProblem& problem) {
  const size_t width = problem.routing.visits.size() / static_cast<size_t>(problem.placement.num_ranks);
  double visits = 0;
  double rows = 0;
  for (size_t i = 0; i < problem.routing.visits.size(); ++i) {
    const auto tokens = static_cast<double>(problem.routing.visits[i]);
    visits += tokens;
    rows += static_cast<double>(i % width) * tokens;
  }
  return visits > 0 ? rows / visits : 1;
}

TrafficModel::TrafficModel(const MoeProblem& problem, int ranks_per_node)
    : num_ranks_(static_cast<size_t>(problem.placement.num_ranks)),
      width_(problem.routing.visits.size() / num_ranks_),
      experts_(problem.placement.experts_per_rank()),
      share_of_count_(problem.routing.visits.size(), 0.0),
      sent_(num_ranks_),
      returned_(num_ranks_) {
  const auto node = static_cast<size_t>(std::max(1, ranks_per_node));
  any_far_ = num_ranks_ > node;
  for (Place* place : {&near_, &far_}) {
    for (Flows* flows : {&place->tokens, &place->partials}) {
      flows->rows.assign(num_ranks_ * num_ranks_, 0.0);
      flows->to_rank.assign(num_ranks_, 0.0);
    }
  }
  for (size_t j = 0; j < width_; ++j) {
    const double sampled = static_cast<double>(j) / experts_;
    left_.push_back(sampled < 1 ? 1 / (1 - sampled) : 0.0);
  }
  for (size_t r = 0; r < num_ranks_; ++r) {
    double all = 0;
    for (size_t j = 0; j < width_; ++j) all += static_cast<double>(problem.routing.visits[r * width_ + j]);
    for (size_t j = 0; j < width_ && all > 0; ++j) {
      share_of_count_[j * num_ranks_ + r] = static_cast<double>(problem.routing.visits[r * width_ + j]) / all;
    }
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
  flows.rows[rank * num_ranks_ + home] = static_cast<double>(rows);
  flows.to_rank[rank] += static_cast<double>(rows);
}

// out[r] = the fraction of the tokens visiting rank r that have no expert in a set with the share 1 - rest[r] of its
// rows. traffic.h has the formula.
void TrafficModel::find_missing(std::span<const double> rest, std::span<double> out) const {
  // Four ranks at a time, whose products stay in registers.
  constexpr size_t kRanks = 4;
  const double step = 1 / experts_;
  size_t begin = 0;
  for (; begin + kRanks <= num_ranks_; begin += kRanks) {
    std::array<double, kRanks> left, miss, missing;
    for (size_t r = 0; r < kRanks; ++r) left[r] = rest[begin + r];
    miss.fill(1);
    missing.fill(0);
    for (size_t j = 1; j < width_; ++j) {
      const double* share = &share_of_count_[j * num_ranks_ + begin];
      for (size_t r = 0; r < kRanks; ++r) {
        miss[r] *= std::max(0.0, left[r]) * left_[j - 1];
        missing[r] += share[r] * miss[r];
        left[r] -= step;
      }
    }
    for (size_t r = 0; r < kRanks; ++r) out[begin + r] = missing[r];
  }
  for (; begin < num_ranks_; ++begin) out[begin] = find_missing(begin, rest[begin]);
}

double TrafficModel::find_missing(size_t rank, double rest) const {
  double miss = 1;
  double missing = 0;
  for (size_t j = 1; j < width_; ++j, rest -= 1 / experts_) {
    miss *= std::max(0.0, rest) * left_[j - 1];
    missing += share_of_count_[j * num_ranks_ + rank] * miss;
  }
  return missing;
}

double TrafficModel::first_need(size_t rank, double f) const {
  double visits = 0;
  for (size_t j = 1; j < width_; ++j) visits += share_of_count_[j * num_ranks_ + rank];
  return visits - find_missing(rank, 1 - f);
}

void TrafficModel::fill_place(const Place& place, std::span<const double> dispatch_part,
                              std::span<const double> combine_part, MessageRows* dispatch, MessageRows* combine,
                              double MessageRows::*larger) {
  std::fill(sent_.begin(), sent_.end(), 0.0);
  std::fill(returned_.begin(), returned_.end(), 0.0);
  for (size_t o = 0; o < num_ranks_; ++o) {
    const double* tokens = &place.tokens.rows[o * num_ranks_];
    const double* partials = &place.partials.rows[o * num_ranks_];
    const double out = dispatch_part[o];
    const double back = combine_part[o];
    for (size_t r = 0; r < num_ranks_; ++r) {
      sent_[r] += tokens[r] * out;
      returned_[r] += partials[r] * back;
    }
  }
  for (size_t r = 0; r < num_ranks_; ++r) {
    const double sends_back = place.partials.to_rank[r] * combine_part[r];
    dispatch[r].*larger = std::max(sent_[r], place.tokens.to_rank[r] * dispatch_part[r]);
    dispatch[r].sent_rows += sent_[r];
    combine[r].*larger = std::max(returned_[r], sends_back);
    combine[r].sent_rows += sends_back;
  }
}

void TrafficModel::fill(std::span<const double> dispatch_part, std::span<const double> combine_part,
                        MessageRows* dispatch, MessageRows* combine) {
  fill_place(near_, dispatch_part, combine_part, dispatch, combine, &MessageRows::near_rows);
  if (any_far_) fill_place(far_, dispatch_part, combine_part, dispatch, combine, &MessageRows::far_rows);
}

void TrafficModel::split(std::span<const double> rows, int num_stages, std::span<MessageRows> dispatch,
                         std::span<MessageRows> combine) {
  const auto stages = static_cast<size_t>(num_stages);
  const size_t n = num_ranks_;
  // Per rank: the total rows and those so far, the fraction of visiting tokens that no stage so far has needed
  // (`unseen`), and the fraction that later stages still need (`unfinished`).
  scratch_.assign(9 * n, 0.0);
  const auto array = [&](size_t i) { return std::span<double>(&scratch_[i * n], n); };
  const auto all = array(0), done = array(1), unseen = array(2), unfinished = array(3), first = array(4),
             last = array(5), rest = array(6), missing = array(7), present = array(8);
  std::fill(unseen.begin(), unseen.end(), 1.0);
  std::fill(unfinished.begin(), unfinished.end(), 1.0);
  for (size_t s = 0; s < stages; ++s) {
    for (size_t r = 0; r < n; ++r) all[r] += rows[s * n + r];
  }
  for (size_t s = 0; s < stages; ++s) {
    for (size_t r = 0; r < n; ++r) {
      done[r] += rows[s * n + r];
      rest[r] = all[r] > 0 ? 1 - done[r] / all[r] : 0.0;
    }
    find_missing(rest, missing);
    // A token is complete if it has no expert in the remaining stages, which together are a set with the remaining
    // rows.
    for (size_t r = 0; r < n; ++r) rest[r] = all[r] > 0 ? done[r] / all[r] : 1.0;
    find_missing(rest, present);
    for (size_t r = 0; r < n; ++r) {
      first[r] = last[r] = 0;
      if (rows[s * n + r] == 0)
        continue;  // the messages must be exactly 0, because even one of 1e-16 rows would cost its latency
      const bool is_last = done[r] == all[r];
      const double now_unseen = is_last ? 0 : missing[r];
      const double now_unfinished = is_last ? 0 : 1 - present[r];
      first[r] = unseen[r] - now_unseen;
      last[r] = unfinished[r] - now_unfinished;
      unseen[r] = now_unseen;
      unfinished[r] = now_unfinished;
    }
    fill(first, last, &dispatch[s * n], &combine[s * n]);
  }
}

void TrafficModel::split_evenly(int num_stages, std::span<MessageRows> dispatch, std::span<MessageRows> combine) {
  const std::vector<double> part(num_ranks_, 1.0 / num_stages);
  for (size_t s = 0; s < static_cast<size_t>(num_stages); ++s) {
    fill(part, part, &dispatch[s * num_ranks_], &combine[s * num_ranks_]);
  }
}

}  // namespace eps::plan
