#include "ops/cpu/stacked_rows.h"

#include <algorithm>

#include "base/error.h"
#include "ops/cpu/convert.h"
#include "tensor/widen.h"

namespace eps::ops {
namespace {

void convert_row(const TensorView& row, DType dtype, std::byte* to) {
  if (dtype == DType::kF32) return widen_to_f32(row, reinterpret_cast<float*>(to));
  EPS_CHECK(dtype == DType::kBF16, "rows are converted to f32 or bf16, not {}", to_string(dtype));
  auto* out = reinterpret_cast<bf16*>(to);
  if (row.dtype() == DType::kF32) return convert_f32_to_bf16(row.as<const float>(), out, row.numel());
  const f16* from = row.as<const f16>();
  std::transform(from, from + row.numel(), out, [](f16 v) { return to_bf16(to_float(v)); });
}

}  // namespace

StackedRows::StackedRows(std::span<const TensorView> parts, DType dtype)
    : parts_(parts), dtype_(dtype), width_(parts.front().dim(1)), zeros_(row_bytes()) {
  for (const TensorView& part : parts) num_rows_ += part.dim(0);
}

void StackedRows::get(int64_t begin, std::span<const std::byte*> rows, Buffer& converted) const {
  std::fill(rows.begin(), rows.end(), zeros_.data());
  const int64_t end = begin + std::ssize(rows);
  int64_t first = 0;  // index in the stack of the part's first row
  for (const TensorView& part : parts_) {
    const int64_t last = first + part.dim(0);
    for (int64_t r = std::max(begin, first); r < std::min(end, last); ++r) {
      const auto i = static_cast<size_t>(r - begin);
      if (part.dtype() == dtype_) {
        rows[i] = static_cast<const std::byte*>(part.data()) + static_cast<size_t>(r - first) * row_bytes();
      } else {
        converted.reserve(rows.size() * row_bytes());
        std::byte* to = converted.data() + i * row_bytes();
        convert_row(part.rows(r - first, r - first + 1), dtype_, to);
        rows[i] = to;
      }
    }
    first = last;
  }
}

void for_panels(int64_t num_panels, size_t panel_bytes, ThreadPool* pool,
                const std::function<void(int64_t, int64_t)>& body) {
  constexpr int64_t kTaskBytes = int64_t{1} << 20;
  const int64_t per_task = std::max<int64_t>(1, kTaskBytes / static_cast<int64_t>(std::max<size_t>(1, panel_bytes)));
  const int64_t num_tasks = (num_panels + per_task - 1) / per_task;
  const auto task = [&](int64_t i) { body(i * per_task, std::min(num_panels, (i + 1) * per_task)); };
  if (pool != nullptr) return pool->parallel_for(num_tasks, task);
  for (int64_t i = 0; i < num_tasks; ++i) task(i);
}

}  // namespace eps::ops
