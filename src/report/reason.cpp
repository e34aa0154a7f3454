#include "report/reason.h"

#include <fmt/format.h>

#include <cmath>

namespace eps::report {
namespace {

struct Part {
  const char* what;
  double more_us;
};

// The part that makes the candidate slower than the chosen one: more compute, or more communication that is not hidden.
std::string explain_slower(const plan::Candidate& c, const plan::Candidate& chosen) {
  const auto exposed = [](const plan::Candidate& of) { return of.makespan_us - of.compute_us; };
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

std::string reason_of(const plan::Candidate& candidate, const plan::Candidate& chosen) {
  switch (candidate.verdict) {
    case plan::Verdict::kChosen: return "chosen";
    case plan::Verdict::kSlower: return explain_slower(candidate, chosen);
    case plan::Verdict::kTooBig: return fmt::format("does not fit in memory: {:.1f} GB per rank", candidate.memory_gb);
    case plan::Verdict::kNotAsked: return "not requested";
    case plan::Verdict::kSlowerModel: return "the whole prefill takes longer, attention included";
    case plan::Verdict::kCannotRun: return "can be predicted, but not executed";
  }
  return "?";
}

}  // namespace eps::report
