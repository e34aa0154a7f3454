// The tables' cells, what of them is within its target, and how they are written.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace eps::paper {

// One figure of the paper beside ours.
struct Cell {
  std::string table;   // "2", "3 mixtral-8x7b"
  std::string row;     // "PN=5"
  std::string column;  // "4K"
  double paper = 0;
  double ours = 0;
  double within = 0;      // target: |error| at most this; 0: shown, not counted
  bool relative = false;  // error in % of the paper's figure; else the plain difference
  std::string note;

  double error() const { return relative ? 100 * (ours / paper - 1) : ours - paper; }
  bool counts() const { return within > 0; }
  bool is_within() const { return error() <= within && error() >= -within; }
};

// A statement of the paper that holds in our figures or not.
struct Claim {
  std::string table, text;
  bool holds = false;
  std::string ours;
};

struct Section {
  std::string table, title, unit;
  int digits = 2;
  std::vector<std::string> lines;  // before the table: what the rows mean
  std::vector<Cell> cells;
  std::vector<Claim> claims;
};

struct Report {
  std::vector<std::string> heading;
  std::vector<Section> sections;

  int counted() const;
  int within() const;
};

std::string format_markdown(const Report& report);
// An object a cell and a claim, one a line.
std::string format_json_lines(const Report& report);

}  // namespace eps::paper
