#include "moe/routing.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace eps::moe {

void normalize_routing(Routing& routing, int num_experts) {
  const int k = routing.top_k;
  EPS_CHECK_EQ(static_cast<int64_t>(routing.expert_idx.size()), routing.num_tokens * k);
  EPS_CHECK_EQ(static_cast<int64_t>(routing.weight.size()), routing.num_tokens * k);
  std::vector<std::pair<int32_t, float>> row(static_cast<size_t>(k));
  for (int64_t t = 0; t < routing.num_tokens; ++t) {
    int32_t* idx = routing.expert_idx.data() + t * k;
    float* weight = routing.weight.data() + t * k;
    for (int i = 0; i < k; ++i) {
      EPS_CHECK(idx[i] >= 0 && idx[i] < num_experts, "token {} goes to expert {} of {}", t, idx[i], num_experts);
      row[static_cast<size_t>(i)] = {idx[i], weight[i]};
    }
    std::sort(row.begin(), row.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    for (int i = 0; i < k; ++i) {
      idx[i] = row[static_cast<size_t>(i)].first;
      weight[i] = row[static_cast<size_t>(i)].second;
      EPS_CHECK(i == 0 || idx[i] != idx[i - 1], "token {} goes to expert {} twice", t, idx[i]);
    }
  }
}

std::vector<int64_t> count_rows(std::span<const Routing> per_rank, int num_experts) {
  std::vector<int64_t> load(static_cast<size_t>(num_experts), 0);
  for (const Routing& routing : per_rank) {
    for (const int32_t e : routing.expert_idx) ++load[static_cast<size_t>(e)];
  }
  return load;
}

}  // namespace eps::moe
