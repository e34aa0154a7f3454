#include "cli/nearest_name.h"

#include <algorithm>
#include <cctype>

namespace eps::cli {
namespace {

// Longer names are not misspelled but something else, and comparing them takes quadratic time.
constexpr size_t kMaxLength = 64;

char folded(char c) { return c == '_' ? '-' : static_cast<char>(std::tolower(static_cast<unsigned char>(c))); }

// In half edits: a letter replaced, left out, added, or exchanged with the next.
size_t distance(std::string_view a, std::string_view b) {
  std::vector<std::vector<size_t>> cost(a.size() + 1, std::vector<size_t>(b.size() + 1));
  for (size_t i = 0; i <= a.size(); ++i) cost[i][0] = 2 * i;
  for (size_t j = 0; j <= b.size(); ++j) cost[0][j] = 2 * j;
  for (size_t i = 1; i <= a.size(); ++i) {
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t change = a[i - 1] == b[j - 1] ? 0 : folded(a[i - 1]) == folded(b[j - 1]) ? 1 : 2;
      cost[i][j] = std::min({cost[i - 1][j - 1] + change, cost[i - 1][j] + 2, cost[i][j - 1] + 2});
      const bool is_exchanged = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
      if (is_exchanged) cost[i][j] = std::min(cost[i][j], cost[i - 2][j - 2] + 2);
    }
  }
  return cost[a.size()][b.size()];
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
