#include "cli/bench_a2a_output.h"

#include <fmt/format.h>

#include "base/error.h"
#include "cli/table.h"
#include "epsmoe/version.h"
#include "io/json.h"
#include "measure/stats.h"

namespace eps::cli {

std::string format_a2a_text(const measure::AllToAllOptions& options, const measure::AllToAllResult& r) {
  std::string out = fmt::format(
      "{} ranks x {}; rows of {} bytes, {} cop{} each; both directions at once; baseline: {}\n\n", options.engine.ep,
      r.op_set, options.row_bytes, options.copies, options.copies == 1 ? "y" : "ies", printable(r.baseline));
  const std::vector<TableColumn> columns = {{"size B", 11, true}, {"rows", 7, true}, {"op", 8, false},
                                            {"way", 6, false},    {"SMs", 4, true},  {"time us", 9, true},
                                            {"p10", 8, true},     {"p90", 8, true},  {"GB/s", 6, true}};
  out += markdown_header(columns);
  for (const measure::AllToAllPoint& point : r.points) {
    const measure::Spread s = measure::spread(point.us);
    const std::vector<std::string> cells = {std::to_string(point.bytes),
                                            std::to_string(point.rows),
                                            point.op,
                                            point.way,
                                            point.sms > 0 ? std::to_string(point.sms) : "-",
                                            fmt::format("{:.1f}", s.median),
                                            fmt::format("{:.1f}", s.p10),
                                            fmt::format("{:.1f}", s.p90),
                                            fmt::format("{:.1f}", point.gbps())};
    out += markdown_row(columns, cells);
  }
  return out;
}

std::string format_a2a_json(const measure::AllToAllOptions& options, const measure::AllToAllResult& r) {
  std::string out;
  for (const measure::AllToAllPoint& point : r.points) {
    const measure::Spread s = measure::spread(point.us);
    const io::Json line = {{"bench", "a2a"},
                           {"version", EPSMOE_VERSION},
                           {"op_set", r.op_set},
                           {"baseline", r.baseline},
                           {"ep", options.engine.ep},
                           {"row_bytes", options.row_bytes},
                           {"copies", options.copies},
                           {"op", point.op},
                           {"way", point.way},
                           {"sms", point.sms},
                           {"bytes", point.bytes},
                           {"rows", point.rows},
                           {"us", {{"p10", s.p10}, {"median", s.median}, {"p90", s.p90}}},
                           {"gbps", point.gbps()}};
    out += io::dump_json(line) + "\n";
  }
  return out;
}

}  // namespace eps::cli
