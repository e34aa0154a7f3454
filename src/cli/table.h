// Result tables as Markdown and CSV. They are written line by line, so that a long run shows each row when it is
// complete.
#pragma once

#include <span>
#include <string>
#include <vector>

namespace eps::cli {

struct TableColumn {
  std::string title;
  int width = 0;         // minimum width in Markdown; longer cells widen their line
  bool numeric = false;  // aligned right
};

// The width of a cell in Markdown in characters, including escapes.
int cell_width(const std::string& cell);
// Title line and rule, each with its line end.
std::string markdown_header(std::span<const TableColumn> columns);
// Edge  | in a cell is escaped
std::string markdown_row(std::span<const TableColumn> columns, std::span<const std::string> cells);

// A whole table, whose columns are as wide as their longest cell.
std::string markdown_table(std::vector<TableColumn> columns, const std::vector<std::vector<std::string>>& rows);

// Every cell quoted, as llama-bench does; quotes doubled (RFC 4180).
std::string csv_row(std::span<const std::string> cells);

}  // namespace eps::cli
