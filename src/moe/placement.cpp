#include "moe/placement.h"

#include <string>

namespace eps::moe {

ExpertPlacement place_experts(int num_experts, int num_ranks) {
  EPS_CHECK_GT(num_experts, 0);
  if (num_ranks < 1 || num_experts % num_ranks != 0) {
    std::string divisors;
    for (int d = 1; d <= num_experts; ++d) {
      if (num_experts % d == 0) divisors += (divisors.empty() ? "" : ", ") + std::to_string(d);
    }
    fail(ErrorKind::kUsage, "ep",
         {.what = fmt::format("the ranks must divide the {} experts evenly", num_experts),
          .got = std::to_string(num_ranks),
          .wanted = "one of " + divisors,
          .hint = ""});
  }
  return {num_experts, num_ranks};
}

}  // namespace eps::moe
