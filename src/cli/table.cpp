#include "cli/table.h"

#include <algorithm>
#include <vector>

#include "base/error.h"

namespace eps::cli {
namespace {

constexpr size_t kWhole = std::string::npos;  // cells contain names from files, which are escaped but not shortened

std::string replace_all(const std::string& text, char what, const std::string& with) {
  std::string out;
  for (const char c : text) c == what ? out += with : out += c;
  return out;
}

std::string escaped(const std::string& cell) { return replace_all(printable(cell, kWhole), '|', "\\|"); }

int column_width(const TableColumn& column) { return std::max(column.width, cell_width(column.title)); }

}  // namespace

int cell_width(const std::string& cell) {
  // Every byte except the continuation bytes of UTF-8 begins a character.
  return static_cast<int>(std::ranges::count_if(escaped(cell), [](char c) { return (c & 0xc0) != 0x80; }));
}

std::string markdown_row(std::span<const TableColumn> columns, std::span<const std::string> cells) {
  EPS_CHECK_EQ(columns.size(), cells.size());
  std::string out = "|";
  for (size_t i = 0; i < cells.size(); ++i) {
    const int width = column_width(columns[i]);
    const std::string cell = escaped(cells[i]);
    out += columns[i].numeric ? fmt::format(" {:>{}} |", cell, width) : fmt::format(" {:<{}} |", cell, width);
  }
  return out + "\n";
}

std::string markdown_header(std::span<const TableColumn> columns) {
  std::vector<std::string> titles;
  std::string rule = "|";
  for (const TableColumn& column : columns) {
    titles.push_back(column.title);
    const auto width = static_cast<size_t>(column_width(column));
    rule += column.numeric ? " " + std::string(width - 1, '-') + ": |" : " " + std::string(width, '-') + " |";
  }
  return markdown_row(columns, titles) + rule + "\n";
}

std::string markdown_table(std::vector<TableColumn> columns, const std::vector<std::vector<std::string>>& rows) {
  for (const std::vector<std::string>& cells : rows) {
    EPS_CHECK_EQ(columns.size(), cells.size());
    for (size_t i = 0; i < cells.size(); ++i) columns[i].width = std::max(columns[i].width, cell_width(cells[i]));
  }
  std::string out = markdown_header(columns);
  for (const std::vector<std::string>& cells : rows) out += markdown_row(columns, cells);
  return out;
}

std::string csv_row(std::span<const std::string> cells) {
  std::string out;
  for (const std::string& cell : cells) {
    out += (out.empty() ? "\"" : ",\"") + replace_all(printable(cell, kWhole), '"', "\"\"") + "\"";
  }
  return out + "\n";
}

}  // namespace eps::cli
