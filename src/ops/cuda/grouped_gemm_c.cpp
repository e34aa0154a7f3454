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
         {.what = "sizes that no kernel takes",
          .got = fmt::format("{} groups, n {}, k {}", from.num_groups, from.n, from.k),
          .wanted = "columns of y and k in multiples of 8",
          .hint = ""});
  }
  const GroupedTile tile{from.tile_rows, from.tile_cols};
  const bool is_chosen = tile == GroupedTile{};
  if (!is_chosen && !is_grouped_tile(tile)) {
    fail(ErrorKind::kUsage, "epsmoe_grouped_gemm",
         {.what = "a tile that no kernel has",
          .got = fmt::format("{} rows, {} columns", tile.rows, tile.cols),
          .wanted = "one that grouped_gemm_c.h lists, or 0 and 0",
          .hint = ""});
  }
  const std::span<const int64_t> rows(from.rows, static_cast<size_t>(from.num_groups));
  const GroupedWeight weight =
      make_grouped_weight(static_cast<const nv_bf16*>(from.w), from.num_groups, from.n, from.k);
  GroupedGemmCall call;
  call.weight = &weight;
  call.x = static_cast<const nv_bf16*>(from.x);
  call.y = static_cast<nv_bf16*>(from.y);
  call.offsets = from.offsets;
  call.next_unit = static_cast<int32_t*>(from.workspace);
  call.max_rows = std::accumulate(rows.begin(), rows.end(), int64_t{0});
  call.epilogue = epilogue;
  call.tile = is_chosen ? choose_tile(rows, from.n, epilogue, from.num_sms) : tile;
  call.num_sms = from.num_sms;
  grouped_gemm(call, static_cast<cudaStream_t>(from.stream));
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
