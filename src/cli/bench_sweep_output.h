// Formats the results of `bench sweep`.
#pragma once

#include <string>
#include <utility>

#include "measure/sweep_bench.h"

namespace eps::cli {

enum class SweepFormat : uint8_t { kMarkdown, kCsv, kJson, kJsonLines };
// "md", "csv", "json" or "jsonl".  Errors  kUsage
SweepFormat parse_sweep_format(const std::string& text);

// Prints one format incrementally: a header, a row for each result, and a footer.
class SweepPrinter {
 public:
  // `options` outlives the object.
  SweepPrinter(const measure::SweepOptions& options, measure::SweepModel model, SweepFormat format)
      : options_(options), model_(std::move(model)), format_(format) {}
  std::string header() const;
  std::string row(const measure::SweepResult& result);
  std::string footer() const;

 private:
  const measure::SweepOptions& options_;
  measure::SweepModel model_;
  SweepFormat format_;
  bool first_ = true;  // JSON arrays have no comma before the first
};

}  // namespace eps::cli
