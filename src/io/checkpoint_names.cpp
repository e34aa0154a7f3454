// nearest_name: the "did you mean" suggestion in errors about missing tensors.
#include <algorithm>
#include <numeric>

#include "io/checkpoint.h"

namespace eps::io {
namespace {

// The edit distance (insert, delete, replace one byte) between a and b, or `limit` if it is at least that.
size_t edit_distance(std::string_view a, std::string_view b, size_t limit) {
  const size_t length_gap = a.size() > b.size() ? a.size() - b.size() : b.size() - a.size();
  if (length_gap >= limit) return limit;
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    size_t smallest = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({replaced, row[j] + 1, row[j - 1] + 1});
      smallest = std::min(smallest, row[j]);
    }
    if (smallest >= limit) return limit;
  }
  return std::min(row.back(), limit);
}

bool is_dotted_suffix(std::string_view suffix, std::string_view name) {
  return name.size() > suffix.size() && name.ends_with(suffix) && name[name.size() - suffix.size() - 1] == '.';
}

}  // namespace

std::string nearest_name(std::string_view name, const std::vector<std::string>& candidates) {
  // A missing or additional prefix ("model.") takes many edits but is a single mistake.
  for (const std::string& candidate : candidates) {
    if (is_dotted_suffix(name, candidate) || is_dotted_suffix(candidate, name)) return candidate;
  }
  // If there are fewer edits than a third of the name's length, the names are probably related. The time to compare two
  // names grows with the product of their lengths, and names in untrusted files may have any length.
  constexpr size_t kMaxLength = 256;
  if (name.size() > kMaxLength) return {};
  size_t limit = std::max<size_t>(3, name.size() / 3 + 1);
  std::string best;
  for (const std::string& candidate : candidates) {
    if (candidate.size() > kMaxLength) continue;
    if (const size_t distance = edit_distance(name, candidate, limit); distance < limit) {
      limit = distance;
      best = candidate;
    }
  }
  return best;
}

}  // namespace eps::io
