#include "plan/candidate_list.h"

#include <fmt/format.h>

#include <algorithm>
#include <tuple>

namespace eps::plan {
namespace {

bool can_run(const Candidate& c) {
  return c.verdict != Verdict::kTooBig && c.verdict != Verdict::kCannotRun && c.verdict != Verdict::kSlowerModel;
}

bool comes_before(const Candidate& a, const Candidate& b) {
  const auto rank = [](const Candidate& c) {
    return std::tuple(c.verdict != Verdict::kChosen, !can_run(c), c.makespan_us, c.num_stages);
  };
  return rank(a) < rank(b);
}

bool same_kind(const Candidate& a, const Candidate& b) {
  return a.policy == b.policy && a.strategy == b.strategy && a.num_stages == b.num_stages;
}

}  // namespace

std::vector<Candidate> sorted_candidates(std::vector<Candidate> candidates) {
  std::ranges::stable_sort(candidates, comes_before);
  return candidates;
}

std::vector<Candidate> best_variants(const std::vector<Candidate>& candidates) {
  std::vector<Candidate> out;
  for (const Candidate& c : sorted_candidates(candidates)) {
    if (std::ranges::none_of(out, [&c](const Candidate& seen) { return same_kind(seen, c); })) out.push_back(c);
  }
  return out;
}

std::vector<Candidate> notable_candidates(const std::vector<Candidate>& candidates, size_t limit) {
  std::vector<Candidate> all = best_variants(candidates);
  const auto is_first_of_policy = [&all](size_t i) {
    return std::ranges::none_of(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(i), [&](const Candidate& c) {
      return c.policy == all[i].policy && c.strategy == all[i].strategy;
    });
  };
  size_t num_first = 0;
  for (size_t i = 0; i < all.size(); ++i) num_first += is_first_of_policy(i) ? 1 : 0;
  size_t num_others = limit > num_first ? limit - num_first : 0;
  std::vector<Candidate> out;
  for (size_t i = 0; i < all.size(); ++i) {
    if (!is_first_of_policy(i)) {
      if (num_others == 0) continue;
      --num_others;
    }
    out.push_back(all[i]);
  }
  return out;
}

const Candidate* find_chosen(const std::vector<Candidate>& candidates) {
  const auto chosen = std::ranges::find(candidates, Verdict::kChosen, &Candidate::verdict);
  return chosen == candidates.end() ? nullptr : &*chosen;
}

std::string short_name(const Candidate& candidate) {
  const std::string_view policy = to_string(candidate.policy);
  if (candidate.policy != Policy::kEps) return std::string(policy);
  return fmt::format("{}, {} stage{}", policy, candidate.num_stages, candidate.num_stages == 1 ? "" : "s");
}

std::string wire_text(const Wire& wire) {
  if (wire.dispatch == wire.combine) return std::string(to_string(wire.dispatch));
  return fmt::format("{}/{}", to_string(wire.dispatch), to_string(wire.combine));
}

std::string kernels_text(const Candidate& candidate) {
  if (candidate.uses_dense && candidate.uses_grouped) return "both";
  return candidate.uses_dense ? "dense" : candidate.uses_grouped ? "grouped" : "-";
}

std::string sms_text(const SmBudget& sms) {
  return sms == SmBudget{} ? "-" : fmt::format("{} comm + {} gemm", sms.comm, sms.gemm);
}

}  // namespace eps::plan
