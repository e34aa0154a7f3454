// Finds the name that a misspelled one probably stands for.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace eps::cli {

// Returns the element of `known` with the smallest edit distance to `name`, or an empty text if none is similar. Letter
// case and the difference between - and _ count as half an edit.
std::string nearest_name(std::string_view name, const std::vector<std::string>& known);

}  // namespace eps::cli
