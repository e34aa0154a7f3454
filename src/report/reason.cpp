#include "report/reason.h"

#include <fmt/format.h>

#include <cmath>

namespace eps {
namespace {

struct Part {
  const char* what;
  double more_us;
};

// The part that makes the candidate slower than the chosen one: more compute, or more communication that is not hidden.
std::string explain_slower(const Candidate& c, const Candidate& chosen) {
  const auto exposed = [](const Candidate& of) { return of.makespan_us - of.compute_us; };
  const Part compute{"compute", c.compute_us - chosen.compute_us};
  const Part waiting{"waiting for messages", exposed(c) - exposed(chosen)};
  const double behind = c.makespan_us - chosen.makespan_us;
  if (behind <= 1e-9 * chosen.makespan_us) return "equally fast, but not simpler";
  std::string out = fmt::format("+{:.1f} µs", behind);
  for (const Part& part : {waiting, compute}) {
    if (std::abs(part.more_us) < 0.05) continue;
    out += fmt::format("{} {:+.1f} {}", out.find(':') == std::string::npos ? ":" : ",", part.more_us, part.what);
  }
  return out;
}

}  // namespace

std::string reason_of(const Candidate& candidate, const Candidate& chosen) {
  switch (candidate.verdict) {
    case Verdict::kChosen: return "chosen";
    case Verdict::kSlower: return explain_slower(candidate, chosen);
    case Verdict::kTooBig: return fmt::format("does not fit in memory: {:.1f} GB per rank", candidate.memory_gb);
    case Verdict::kNotAsked: return "not requested";
    case Verdict::kSlowerModel: return "the whole prefill takes longer, attention included";
    case Verdict::kCannotRun: return "can be predicted, but not executed";
  }
  return "?";
}

}  // namespace eps
