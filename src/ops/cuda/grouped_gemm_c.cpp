#include "ops/cuda/grouped_gemm_c.h"

#include <exception>
#include <numeric>
#include <string>

#include "base/error.h"
#include "ops/cuda/kernels/gemm/grouped_gemm.h"

namespace eps::cuda {
namespace {

thread_local std::string last_error;  // NOLINT(cppcoreguidelines-avoid-non-const-global-variables): C has no exceptions

void run(const EpsmoeGroupedGemm& from) {
  const auto epilogue = from.silu_mul != 0 ? GroupedEpilogue::kSiluMul : GroupedEpilogue::kStore;
  if (from.num_groups < 0 || !can_run_grouped(from.n, from.k, epilogue)) {
    fail(ErrorKind::kUsage, "epsmoe_grouped_gemm",
         {.what = "sizes that no kernel supports",
          .got = fmt::format("{} groups, n {}, k {}", from.num_groups, from.n, from.k),
          .wanted = "columns of y and k in multiples of 8",
          .hint = ""});
  }
  const GroupedTile requested{from.tile_rows, from.tile_cols};
  const bool is_chosen = requested == GroupedTile{};
  if (!is_chosen && !is_grouped_tile(requested)) {
    fail(ErrorKind::kUsage, "epsmoe_grouped_gemm",
         {.what = "a tile that no kernel has",
          .got = fmt::format("{} rows, {} columns", requested.rows, requested.cols),
          .wanted = "one that grouped_gemm_c.h lists, or 0 and 0",
          .hint = ""});
  }
  const std::span<const int64_t> rows(from.rows, static_cast<size_t>(from.num_groups));
  const GroupedTile tile = is_chosen ? choose_tile(rows, from.n, epilogue, resolve_sms(from.num_sms)) : requested;
  const GroupedWeight weight =
      make_grouped_weight(static_cast<const nv_bf16*>(from.w), from.num_groups, from.n, from.k, tile, epilogue);
  GroupedGemmParams params;
  params.weight = &weight;
  params.x = static_cast<const nv_bf16*>(from.x);
  params.y = static_cast<nv_bf16*>(from.y);
  params.offsets = from.offsets;
  params.next_unit = static_cast<int32_t*>(from.workspace);
  params.max_rows = std::accumulate(rows.begin(), rows.end(), int64_t{0});
  params.epilogue = epilogue;
  params.tile = tile;
  params.num_sms = from.num_sms;
  launch_grouped_gemm(params, static_cast<cudaStream_t>(from.stream));
}

}  // namespace
}  // namespace eps::cuda

extern "C" [[gnu::visibility("default")]] int epsmoe_grouped_gemm(const EpsmoeGroupedGemm* call) {
  try {
    eps::cuda::run(*call);
    return 0;
  } catch (const std::exception& error) {
    eps::cuda::last_error = error.what();
    return 1;
  }
}

extern "C" [[gnu::visibility("default")]] const char* epsmoe_grouped_gemm_error() {
  return eps::cuda::last_error.c_str();
}
