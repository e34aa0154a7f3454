#include "plan/traffic.h"

#include <algorithm>

namespace eps {

TrafficModel::TrafficModel(const MoeProblem& problem, int ranks_per_node)
    : problem_(problem),
      num_ranks_(static_cast<size_t>(problem.placement.num_ranks)),
      node_(static_cast<size_t>(std::max(1, ranks_per_node))),
      width_(problem.routing.visits.size() / num_ranks_),
      experts_(problem.placement.experts_per_rank()),
      visits_by_count_(problem.routing.visits.begin(), problem.routing.visits.end()) {
  for (size_t r = 0; r < num_ranks_; ++r) {
    double all = 0;
    for (size_t j = 0; j < width_; ++j) all += visits_by_count_[r * width_ + j];
    for (size_t j = 0; j < width_ && all > 0; ++j) visits_by_count_[r * width_ + j] /= all;
    for (size_t home = 0; home < num_ranks_; ++home) {
      if (home == r) continue;
      dispatch_rows_ += problem.routing.tokens_between[home * num_ranks_ + r];
      combine_rows_ += problem.routing.partials_between[home * num_ranks_ + r];
    }
  }
}

double TrafficModel::missing(size_t rank, double f) const {
  double sum = 0;
  double miss = 1;
  const double* share = visits_by_count_.data() + rank * width_;
  for (size_t j = 1; j < width_; ++j) {
    const double drawn = static_cast<double>(j - 1) / experts_;
    miss *= drawn < 1 ? std::max(0.0, (1 - f - drawn) / (1 - drawn)) : 0.0;
    if (miss == 0) break;
    sum += share[j] * miss;
  }
  return sum;
}

void TrafficModel::fill(std::span<const double> dispatch_part, std::span<const double> combine_part,
                        MessageRows* dispatch, MessageRows* combine) const {
  struct Flow {
    double sent_near = 0, sent_far = 0, got_near = 0, got_far = 0;
  };
  const auto to_rows = [](const Flow& f) {
    return MessageRows{std::max(f.sent_near, f.got_near), std::max(f.sent_far, f.got_far), f.sent_near + f.sent_far};
  };
  for (size_t r = 0; r < num_ranks_; ++r) {
    Flow out;
    Flow back;
    for (size_t o = 0; o < num_ranks_; ++o) {
      if (o == r) continue;
      const auto count = [this](const std::vector<int64_t>& of, size_t home, size_t rank) {
        return static_cast<double>(of[home * num_ranks_ + rank]);
      };
      const RoutingSummary& routing = problem_.routing;
      const bool near = is_near(r, o);
      (near ? out.sent_near : out.sent_far) += count(routing.tokens_between, r, o) * dispatch_part[o];
      (near ? out.got_near : out.got_far) += count(routing.tokens_between, o, r) * dispatch_part[r];
      (near ? back.sent_near : back.sent_far) += count(routing.partials_between, o, r) * combine_part[r];
      (near ? back.got_near : back.got_far) += count(routing.partials_between, r, o) * combine_part[o];
    }
    dispatch[r] = to_rows(out);
    combine[r] = to_rows(back);
  }
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
