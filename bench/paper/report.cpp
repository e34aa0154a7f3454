#include "report.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

namespace eps::paper {
namespace {

// The different values of a member, in the order they come.
std::vector<std::string> names_of(const std::vector<Cell>& cells, std::string Cell::*member) {
  std::vector<std::string> out;
  for (const Cell& cell : cells) {
    if (std::ranges::find(out, cell.*member) == out.end()) out.push_back(cell.*member);
  }
  return out;
}

std::string cell_text(const Cell& cell, int digits) {
  std::string text = fmt::format("{:.{}f} / {:.{}f} ({:+.{}f}{})", cell.paper, digits, cell.ours, digits, cell.error(),
                                 cell.relative || digits < 3 ? 1 : 2, cell.relative ? " %" : "");
  if (cell.counts() && !cell.is_within()) text = fmt::format("**{}**", text);
  return cell.note.empty() ? text : text + " " + cell.note;
}

std::string table_text(const Section& section) {
  const auto rows = names_of(section.cells, &Cell::row);
  const auto columns = names_of(section.cells, &Cell::column);
  std::string out = fmt::format("| {} | {} |\n|-|", section.unit, fmt::join(columns, " | "));
  for (size_t i = 0; i < columns.size(); ++i) out += "-|";
  out += "\n";
  for (const std::string& row : rows) {
    out += fmt::format("| {} |", row);
    for (const std::string& column : columns) {
      const auto cell =
          std::ranges::find_if(section.cells, [&](const Cell& c) { return c.row == row && c.column == column; });
      out += cell == section.cells.end() ? " |" : fmt::format(" {} |", cell_text(*cell, section.digits));
    }
    out += "\n";
  }
  return out;
}

int count_within(const Section& section) {
  return static_cast<int>(
      std::ranges::count_if(section.cells, [](const Cell& c) { return c.counts() && c.is_within(); }));
}

int count_counted(const Section& section) {
  return static_cast<int>(std::ranges::count_if(section.cells, &Cell::counts));
}

}  // namespace

int Report::counted() const {
  int n = 0;
  for (const Section& section : sections) n += count_counted(section);
  return n;
}

int Report::within() const {
  int n = 0;
  for (const Section& section : sections) n += count_within(section);
  return n;
}

std::string format_markdown(const Report& report) {
  std::string out = "Each cell: paper / ours (error). Bold: outside its target.\n";
  for (const std::string& line : report.heading) out += line + "\n";
  int claims = 0;
  int hold = 0;
  for (const Section& section : report.sections) {
    out += fmt::format("\n## Table {}: {}\n", section.table, section.title);
    for (const std::string& line : section.lines) out += line + "\n";
    if (!section.cells.empty()) out += "\n" + table_text(section) + "\n";
    if (count_counted(section) > 0) {
      out += fmt::format("Within the target: {} of {} cells.\n", count_within(section), count_counted(section));
    }
    for (const Claim& claim : section.claims) {
      out += fmt::format("* {}: {} ({})\n", claim.holds ? "holds" : "**does not hold**", claim.text, claim.ours);
      ++claims;
      hold += claim.holds ? 1 : 0;
    }
  }
  out += fmt::format("\nAll tables: {} of {} cells within their targets, {} of {} statements hold.\n", report.within(),
                     report.counted(), hold, claims);
  return out;
}

std::string format_json_lines(const Report& report) {
  std::string out;
  for (const Section& section : report.sections) {
    for (const Cell& cell : section.cells) {
      nlohmann::ordered_json json = {{"table", cell.table},   {"row", cell.row},
                                     {"column", cell.column}, {"unit", section.unit},
                                     {"paper", cell.paper},   {"ours", cell.ours},
                                     {"error", cell.error()}, {"error_unit", cell.relative ? "%" : section.unit}};
      if (cell.counts()) {
        json["target"] = cell.within;
        json["within"] = cell.is_within();
      }
      if (!cell.note.empty()) json["note"] = cell.note;
      out += json.dump() + "\n";
    }
    for (const Claim& claim : section.claims) {
      const nlohmann::ordered_json json = {
          {"table", claim.table}, {"claim", claim.text}, {"holds", claim.holds}, {"ours", claim.ours}};
      out += json.dump() + "\n";
    }
  }
  return out;
}

}  // namespace eps::paper
