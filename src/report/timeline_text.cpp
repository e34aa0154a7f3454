#include "report/timeline_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <string_view>

#include "plan/overlap.h"
#include "report/time_axis.h"

namespace eps::report {
namespace {

constexpr int kMinWidth = 40;
constexpr int kNameWidth = 10;  // "dispatch" and two blanks
constexpr std::string_view kStageGlyphs = "0123456789abcdefghijklmnopqrstuvwxyz";

struct Run {
  char glyph;
  double begin;  // in columns
  double end;
};

std::vector<Run> runs_of(const plan::Plan& plan, plan::Lane lane, double columns_per_us) {
  std::vector<Run> runs;
  for (size_t i = 0; i < plan.predicted.size(); ++i) {
    if (plan.ops[i].lane != lane) continue;
    const Run run{timeline_glyph(plan.ops[i]), plan.predicted[i].begin_us * columns_per_us,
                  plan.predicted[i].end_us * columns_per_us};
    if (!runs.empty() && runs.back().glyph == run.glyph && run.begin - runs.back().end < 1) {
      runs.back().end = run.end;
    } else {
      runs.push_back(run);
    }
  }
  return runs;
}

// The characters of one lane. Even the shortest run gets a column: it moves later ones to the right, and those that
// would cross the right edge are moved back to the left. `num_lost` counts runs for which there was no column left.
std::string draw_lane(const std::vector<Run>& runs, int columns, int& num_lost) {
  struct Cells {
    int begin;
    int end;
  };
  std::vector<Cells> cells;
  int cursor = 0;
  for (const Run& run : runs) {
    const int begin = std::max(cursor, static_cast<int>(std::lround(run.begin)));
    cursor = std::max(begin + 1, static_cast<int>(std::lround(run.end)));
    cells.push_back({begin, cursor});
  }
  std::string row(static_cast<size_t>(columns), '.');
  int limit = columns;
  for (size_t i = runs.size(); i-- > 0;) {
    const int end = std::min(cells[i].end, limit);
    const int begin = std::min(cells[i].begin, end - 1);
    if (begin < 0) {
      ++num_lost;
      continue;
    }
    std::fill(row.begin() + begin, row.begin() + end, runs[i].glyph);
    limit = begin;
  }
  return row;
}

// Two lines: the tick marks, and below them the labels, which begin at the marks.
std::string draw_axis(double span_us, int columns, double columns_per_us) {
  constexpr int kColumnsPerTick = 8;
  const TimeAxis axis = make_time_axis(span_us, std::max(2, columns / kColumnsPerTick));
  std::string marks(static_cast<size_t>(columns), '-');
  std::string labels;
  for (const TimeTick& tick : axis.ticks) {
    const auto at =
        static_cast<size_t>(std::min(columns - 1, static_cast<int>(std::lround(tick.at_us * columns_per_us))));
    marks[at] = '+';
    const bool is_last = &tick == &axis.ticks.back();
    const std::string label = tick.label + (is_last ? fmt::format(" {}", axis.unit) : "");
    const size_t length = tick.label.size() + (is_last ? 1 + (axis.unit == "s" ? 1 : 2) : 0);  // µ has two bytes
    const size_t begin = std::min(at, static_cast<size_t>(columns) - length);
    if (!labels.empty() && begin < labels.size() + 1) continue;
    labels.resize(begin, ' ');
    labels += label;
  }
  return fmt::format("{:{}}{}\n{:{}}{}\n", "", kNameWidth, marks, "", kNameWidth, labels);
}

std::string draw_legend(const plan::Plan& plan) {
  std::vector<std::string> parts;
  const auto last = static_cast<size_t>(plan.num_stages() - 1);
  if (plan.num_stages() == 1) parts.push_back("0 the only stage");
  if (plan.num_stages() > 1) parts.push_back(fmt::format("0-{} stages", kStageGlyphs[std::min<size_t>(last, 35)]));
  if (plan.num_stages() > 36) parts.back() += " (again from 0 after z)";
  const auto explain = [&](plan::OpKind kind, std::string_view text) {
    if (std::ranges::find(plan.ops, kind, &plan::PlanOp::kind) != plan.ops.end()) parts.emplace_back(text);
  };
  explain(plan::OpKind::kShared, "S shared experts");
  explain(plan::OpKind::kEnter, "E enter");
  explain(plan::OpKind::kLeave, "L leave");
  explain(plan::OpKind::kFinish, "F finish");
  parts.emplace_back(". idle");
  std::string out = fmt::format("{:{}}{}\n", "", kNameWidth, fmt::join(parts, ", "));
  std::string by_part;
  for (int s = 0; s < std::min(plan.num_stages(), 8); ++s) {
    const moe::TokenPart part = plan.stages[static_cast<size_t>(s)].part;
    if (part == moe::TokenPart::kAll) continue;
    by_part += fmt::format("{}{} {}", by_part.empty() ? "rows of stage " : ", ", kStageGlyphs[static_cast<size_t>(s)],
                           moe::to_string(part));
  }
  return by_part.empty() ? out : out + fmt::format("{:{}}{}\n", "", kNameWidth, by_part);
}

}  // namespace

char timeline_glyph(const plan::PlanOp& op) {
  switch (op.kind) {
    case plan::OpKind::kShared: return 'S';
    case plan::OpKind::kEnter: return 'E';
    case plan::OpKind::kLeave: return 'L';
    case plan::OpKind::kFinish: return 'F';
    default: break;
  }
  return op.stage < 0 ? '?' : kStageGlyphs[static_cast<size_t>(op.stage) % kStageGlyphs.size()];
}

std::string timeline_text(const plan::Plan& plan, int width) {
  if (plan.predicted.empty()) return "no timeline: nothing was predicted for this plan\n";
  const int columns = std::max(width, kMinWidth) - kNameWidth;
  double span_us = plan.makespan_us;
  for (const plan::OpTime& time : plan.predicted) span_us = std::max(span_us, time.end_us);
  const double columns_per_us = span_us > 0 ? columns / span_us : 0.0;
  std::string out;
  int num_lost = 0;
  for (const plan::Lane lane : {plan::Lane::kCompute, plan::Lane::kDispatch, plan::Lane::kCombine}) {
    const std::string row = draw_lane(runs_of(plan, lane, columns_per_us), columns, num_lost);
    out += fmt::format("{:{}}{}\n", plan::to_string(lane), kNameWidth, row);
  }
  out += draw_axis(span_us, columns, columns_per_us);
  out += draw_legend(plan);
  if (num_lost > 0)
    out += fmt::format("{} ops are not shown for lack of columns; a wider terminal shows them\n", num_lost);
  const plan::PlanOverlap overlap = plan::predicted_overlap(plan);
  if (overlap.communication_us <= 0) return out + "communication 0 µs: there is none\n";
  return out + fmt::format("communication {}, of it hidden {} ({:.0f} %)\n", time_text(overlap.communication_us),
                           time_text(overlap.hidden_us), 100 * overlap.hidden_fraction());
}

}  // namespace eps::report
