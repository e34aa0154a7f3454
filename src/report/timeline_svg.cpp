#include "report/timeline_svg.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "plan/candidate_list.h"
#include "plan/overlap.h"
#include "report/reason.h"
#include "report/svg.h"
#include "report/time_axis.h"

namespace eps::report {
namespace {

constexpr double kWidth = 1080;
constexpr double kMargin = 28;
constexpr double kPlotLeft = 128;
constexpr double kPlotWidth = kWidth - kMargin - kPlotLeft;
constexpr double kLaneHeight = 46;
constexpr double kLaneStep = 58;
constexpr double kLanesTop = 96;
constexpr double kBarHeight = 16;
constexpr double kBarStep = 26;
constexpr size_t kMaxBars = 9;
constexpr int kMaxStagesInLegend = 12;

constexpr Color kWhite = {255, 255, 255};
constexpr Color kInk = {17, 24, 39};
constexpr Color kSoftInk = {85, 96, 113};
constexpr Color kGrid = {214, 219, 226};
constexpr Color kTrack = {240, 242, 245};
constexpr Color kBound = {190, 24, 60};

// Okabe and Ito's palette without black, which is used for text, and with yellow last because it has the least contrast
// on white.
constexpr std::array<Color, 7> kStageColors = {
    {{0, 114, 178}, {230, 159, 0}, {0, 158, 115}, {213, 94, 0}, {86, 180, 233}, {204, 121, 167}, {240, 228, 66}}};

Color stage_color(int stage) {
  const auto s = static_cast<size_t>(stage);
  const Color base = kStageColors[s % kStageColors.size()];
  return mix(base, kInk, 0.28 * static_cast<double>((s / kStageColors.size()) % 3));
}

// The share of white in an op's colour.
double shade_of(plan::OpKind kind) {
  switch (kind) {
    case plan::OpKind::kDown: return 0.25;
    case plan::OpKind::kSiluMul: return 0.55;
    case plan::OpKind::kReduce: return 0.72;
    default: return 0;
  }
}

Color color_of(const plan::PlanOp& op) {
  if (op.stage >= 0 && op.kind != plan::OpKind::kShared) return mix(stage_color(op.stage), kWhite, shade_of(op.kind));
  switch (op.kind) {
    case plan::OpKind::kShared: return {139, 149, 165};
    case plan::OpKind::kFinish: return {55, 65, 81};
    default: return {110, 120, 135};
  }
}

std::string name_of(const plan::PlanOp& op) {
  return op.stage < 0 ? std::string(plan::to_string(op.kind))
                      : fmt::format("{} {}", plan::to_string(op.kind), op.stage);
}

double percent(double part, double whole) { return whole > 0 ? 100 * part / whole : 0; }

// The longest of an op's names that fits its box, or an empty text.
std::string label_of(const plan::PlanOp& op, double width, double size) {
  for (const std::string& label : {name_of(op), op.stage < 0 ? std::string() : std::to_string(op.stage)}) {
    if (text_width(label, size) + 6 <= width) return label;
  }
  return "";
}

double lane_top(plan::Lane lane) { return kLanesTop + kLaneStep * static_cast<double>(lane); }

void draw_titles(SvgWriter& svg, const plan::Plan& plan, std::string_view subject) {
  svg.text(kMargin, 38, cut_to_width(subject, 19, kWidth - 2 * kMargin), {.size = 19, .color = kInk, .bold = true});
  const int n = plan.num_expert_stages();
  const plan::PlanOverlap overlap = plan::predicted_overlap(plan);
  std::string line =
      fmt::format("{}, {}, N = {}:  {}; perfect overlap would take {} ({:.0f} %)", plan::to_string(plan.policy),
                  plan::to_string(plan.strategy), n, time_text(plan.makespan_us), time_text(plan.bound_us),
                  percent(plan.bound_us, plan.makespan_us));
  if (overlap.communication_us > 0) {
    line += fmt::format(";  communication {}, {:.0f} % of it hidden", time_text(overlap.communication_us),
                        100 * overlap.hidden_fraction());
  }
  svg.text(kMargin, 62, cut_to_width(line, 13.5, kWidth - 2 * kMargin), {.size = 13.5, .color = kSoftInk});
}

void draw_lane_heads(SvgWriter& svg, const plan::Plan& plan, double span_us) {
  for (const plan::Lane lane : {plan::Lane::kCompute, plan::Lane::kDispatch, plan::Lane::kCombine}) {
    const double top = lane_top(lane);
    double busy_us = 0;
    for (size_t i = 0; i < plan.predicted.size(); ++i) {
      if (plan.ops[i].lane == lane) busy_us += plan.predicted[i].end_us - plan.predicted[i].begin_us;
    }
    svg.text(kMargin, top + 21, plan::to_string(lane), {.size = 14, .color = kInk, .bold = true});
    svg.text(kMargin, top + 37, fmt::format("{:.0f} % busy", percent(busy_us, span_us)),
             {.size = 11.5, .color = kSoftInk});
    svg.box({kPlotLeft, top, kPlotWidth, kLaneHeight}, 5, kTrack);
  }
}

void draw_axis(SvgWriter& svg, double span_us, double px_per_us) {
  const double bottom = lane_top(plan::Lane::kCombine) + kLaneHeight;
  const TimeAxis axis = make_time_axis(span_us, 11);
  for (const TimeTick& tick : axis.ticks) {
    const double x = kPlotLeft + tick.at_us * px_per_us;
    svg.line(x, kLanesTop - 6, x, bottom + 6, kGrid);
    svg.text(x, bottom + 21, tick.label, {.size = 11.5, .color = kSoftInk, .anchor = Anchor::kMiddle});
  }
  svg.text(kPlotLeft - 14, bottom + 21, axis.unit, {.size = 11.5, .color = kSoftInk, .anchor = Anchor::kEnd});
}

void draw_ops(SvgWriter& svg, const plan::Plan& plan, double px_per_us) {
  constexpr double kLabelSize = 11.5;
  for (size_t i = 0; i < plan.predicted.size(); ++i) {
    const plan::PlanOp& op = plan.ops[i];
    const plan::OpTime& time = plan.predicted[i];
    const double left = kPlotLeft + time.begin_us * px_per_us;
    const double full = (time.end_us - time.begin_us) * px_per_us;
    // A narrow gap separates neighbouring boxes; the minimum width keeps very short ops visible.
    const double width = std::max(0.7, full > 4 ? full - 1 : full);
    const Color fill = color_of(op);
    const Box box = {left, lane_top(op.lane), width, kLaneHeight};
    svg.box(box, 4, fill,
            fmt::format("{}: {} to {} ({})", name_of(op), time_text(time.begin_us), time_text(time.end_us),
                        time_text(time.end_us - time.begin_us)));
    const std::string label = label_of(op, width, kLabelSize);
    if (label.empty()) continue;
    svg.text(left + width / 2, box.y + kLaneHeight / 2 + 4, label,
             {.size = kLabelSize, .color = text_color_on(fill), .anchor = Anchor::kMiddle});
  }
}

// Draws a colour sample and its name; returns the position of the next one.
double draw_key(SvgWriter& svg, double x, double y, Color color, const std::string& name) {
  svg.box({x, y - 10, 14, 12}, 3, color);
  svg.text(x + 19, y, name, {.size = 11.5, .color = kInk});
  return x + 19 + text_width(name, 11.5) + 16;
}

void draw_legend(SvgWriter& svg, const plan::Plan& plan, double y) {
  double x = kPlotLeft;
  const int num_named = std::min(plan.num_stages(), kMaxStagesInLegend);
  for (int s = 0; s < num_named; ++s) {
    const moe::TokenPart part = plan.stages[static_cast<size_t>(s)].part;
    const std::string name = part == moe::TokenPart::kAll
                                 ? fmt::format("{}{}", s == 0 ? "stage " : "", s)
                                 : fmt::format("{}{} {}", s == 0 ? "stage " : "", s, moe::to_string(part));
    x = draw_key(svg, x, y, stage_color(s), name);
    if (x > kWidth - 140) break;
  }
  if (plan.num_stages() > num_named) {
    svg.text(x, y, fmt::format("… {}", plan.num_stages() - 1), {.size = 11.5, .color = kInk});
  }
  x = kPlotLeft;
  const Color gray = {75, 85, 99};
  for (const plan::OpKind kind :
       {plan::OpKind::kGateUp, plan::OpKind::kDown, plan::OpKind::kSiluMul, plan::OpKind::kReduce}) {
    x = draw_key(svg, x, y + 22, mix(gray, kWhite, shade_of(kind)), std::string(plan::to_string(kind)));
  }
  x += 14;
  for (const plan::OpKind kind :
       {plan::OpKind::kShared, plan::OpKind::kEnter, plan::OpKind::kLeave, plan::OpKind::kFinish}) {
    const auto op = std::ranges::find(plan.ops, kind, &plan::PlanOp::kind);
    if (op != plan.ops.end()) x = draw_key(svg, x, y + 22, color_of(*op), std::string(plan::to_string(kind)));
  }
  svg.text(kMargin, y, "stages", {.size = 11.5, .color = kSoftInk});
  svg.text(kMargin, y + 22, "shades", {.size = 11.5, .color = kSoftInk});
}

std::string why_of(const plan::Candidate& candidate, const plan::Plan& plan) {
  const plan::Candidate* chosen = plan::find_chosen(plan.candidates);
  return chosen == nullptr ? std::string() : reason_of(candidate, *chosen);
}

// Returns the lower edge of the drawing.
double draw_candidates(SvgWriter& svg, const plan::Plan& plan, double top) {
  const std::vector<plan::Candidate> shown = plan::notable_candidates(plan.candidates, kMaxBars);
  if (shown.empty()) return top;
  double longest_us = 0;
  for (const plan::Candidate& c : shown) longest_us = std::max({longest_us, c.makespan_us, c.bound_us});
  constexpr double kBarLeft = 212;
  constexpr double kBarWidth = 380;
  constexpr double kTimeRight = kBarLeft + kBarWidth + 82;
  constexpr double kTextLeft = kTimeRight + 16;
  const double px_per_us = longest_us > 0 ? kBarWidth / longest_us : 0;
  svg.line(kMargin, top, kWidth - kMargin, top, kGrid);
  svg.text(kMargin, top + 26, "Candidates", {.size = 14, .color = kInk, .bold = true});
  svg.text(kBarLeft, top + 26, "predicted time; the mark is max(compute, communication), the time with perfect overlap",
           {.size = 11.5, .color = kSoftInk});
  double y = top + 42;
  for (const plan::Candidate& c : shown) {
    const bool chosen = c.verdict == plan::Verdict::kChosen;
    const double baseline = y + kBarHeight - 4;
    const std::string name = fmt::format("{}, {}", plan::short_name(c), plan::to_string(c.strategy));
    svg.text(kMargin, baseline, cut_to_width(name, 12, kBarLeft - kMargin - 8),
             {.size = 12, .color = kInk, .bold = chosen});
    svg.box({kBarLeft, y, std::max(1.0, c.makespan_us * px_per_us), kBarHeight}, 3,
            chosen ? kStageColors[0] : Color{176, 184, 196});
    const double mark = kBarLeft + c.bound_us * px_per_us;
    svg.line(mark, y - 3, mark, y + kBarHeight + 3, kBound, 2);
    const Color ink = chosen ? kInk : kSoftInk;
    if (c.makespan_us > 0) {
      svg.text(kTimeRight, baseline, time_text(c.makespan_us),
               {.size = 12, .color = ink, .anchor = Anchor::kEnd, .bold = chosen});
    }
    svg.text(kTextLeft, baseline, cut_to_width(why_of(c, plan), 12, kWidth - kMargin - kTextLeft),
             {.size = 12, .color = ink, .bold = chosen});
    y += kBarStep;
  }
  return y;
}

}  // namespace

std::string timeline_svg(const plan::Plan& plan, std::string_view subject) {
  SvgWriter svg;
  double span_us = plan.makespan_us;
  for (const plan::OpTime& time : plan.predicted) span_us = std::max(span_us, time.end_us);
  const double px_per_us = span_us > 0 ? kPlotWidth / span_us : 0;
  draw_titles(svg, plan, subject);
  draw_lane_heads(svg, plan, span_us);
  draw_axis(svg, span_us, px_per_us);
  // Drawn behind the ops, so that the line does not cross their labels.
  if (const double x = kPlotLeft + plan.bound_us * px_per_us; plan.bound_us > 0 && plan.bound_us <= span_us) {
    const double bottom = lane_top(plan::Lane::kCombine) + kLaneHeight;
    svg.line(x, kLanesTop - 8, x, bottom + 6, kBound, 1.5, true);
    svg.text(x - 4, kLanesTop - 11, "bound", {.size = 11.5, .color = kBound, .anchor = Anchor::kEnd});
  }
  draw_ops(svg, plan, px_per_us);
  const double legend = lane_top(plan::Lane::kCombine) + kLaneHeight + 50;
  draw_legend(svg, plan, legend);
  const double bottom = draw_candidates(svg, plan, legend + 42);
  return svg.finish(kWidth, bottom + 18, subject, kWhite, kGrid);
}

}  // namespace eps::report
