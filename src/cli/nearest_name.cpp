#include "cli/nearest_name.h"

#include <algorithm>
#include <cctype>

namespace eps::cli {
namespace {

// Longer names are not misspelled but something else, and comparing them takes quadratic time.
constexpr size_t kMaxLength = 64;

char folded(char c) { return c == '_' ? '-' : static_cast<char>(std::tolower(static_cast<unsigned char>(c))); }

// In half edits.
size_t distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j < row.size(); ++j) row[j] = 2 * j;
  for (size_t i = 0; i < a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = 2 * (i + 1);
    for (size_t j = 0; j < b.size(); ++j) {
      const size_t change = a[i] == b[j] ? 0 : folded(a[i]) == folded(b[j]) ? 1 : 2;
      const size_t cost = std::min({diagonal + change, row[j] + 2, row[j + 1] + 2});
      diagonal = row[j + 1];
      row[j + 1] = cost;
    }
  }
  return row.back();
}

}  // namespace

std::string nearest_name(std::string_view name, const std::vector<std::string>& known) {
  if (name.size() > kMaxLength) return {};
  std::string best;
  size_t least = 0;
  for (const std::string& candidate : known) {
    const size_t cost = distance(name, candidate);
    // At most a third of the letters may be wrong.
    if (3 * cost > 2 * std::max(name.size(), candidate.size())) continue;
    if (best.empty() || cost < least) {
      best = candidate;
      least = cost;
    }
  }
  return best;
}

}  // namespace eps::cli
