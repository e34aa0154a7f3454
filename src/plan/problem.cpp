#include "plan/problem.h"

#include <charconv>

#include "base/error.h"

namespace eps {

PipelineOption parse_pipeline_option(std::string_view text) {
  if (text == "off") return {PipelineOption::Mode::kOff, 1};
  if (text == "auto") return {PipelineOption::Mode::kAuto, 1};
  if (text == "all") return {PipelineOption::Mode::kAll, 1};
  int stages = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), stages);
  if (error != std::errc() || end != text.data() + text.size() || stages < 1) {
    fail(ErrorKind::kUsage, "--eps-pipeline",
         {.what = "not a pipeline setting",
          .got = std::string(text),
          .wanted = "auto, off, all or a number of stages from 1",
          .hint = ""});
  }
  return {PipelineOption::Mode::kFixed, stages};
}

std::string to_string(const PipelineOption& option) {
  switch (option.mode) {
    case PipelineOption::Mode::kOff: return "off";
    case PipelineOption::Mode::kAuto: return "auto";
    case PipelineOption::Mode::kAll: return "all";
    case PipelineOption::Mode::kFixed: return std::to_string(option.num_stages);
  }
  return "?";
}

}  // namespace eps
