#include "ops/cpu/panel_gemm.h"

#include <algorithm>

#include "base/error.h"
#include "ops/cpu/stacked_rows.h"
#include "ops/cpu/transpose.h"

namespace eps::ops {
namespace {

constexpr size_t kMaxPanelWidth = 32;

DType common_dtype(std::span<const TensorView> parts) {
  const DType dtype = parts.front().dtype();
  return std::ranges::all_of(parts, [dtype](const TensorView& part) { return part.dtype() == dtype; }) ? dtype
                                                                                                       : DType::kF32;
}

// Packs rows of K elements as the columns of a panel [K, width], each k in the order of panel_lane. 16-bit elements are
// moved in pairs, which panel_lane places next to each other.
void pack_panel(std::span<const std::byte* const> rows, int64_t k, DType dtype, std::byte* to) {
  const auto width = std::ssize(rows);
  auto* words = reinterpret_cast<uint32_t*>(to);
  if (dtype == DType::kF32) return transpose_words(rows.data(), width, 0, k, words, width);
  const int64_t half = width / 2;
  if (dtype == DType::kBF16) return transpose_half_pairs(rows.data(), rows.data() + half, half, 0, k, words, half);
  const std::byte* even[kMaxPanelWidth / 2];
  const std::byte* odd[kMaxPanelWidth / 2];
  for (int64_t i = 0; i < half; ++i) {
    even[i] = rows[static_cast<size_t>(2 * i)];
    odd[i] = rows[static_cast<size_t>(2 * i + 1)];
  }
  transpose_half_pairs(even, odd, half, 0, k, words, half);
}

class PanelLinear final : public PackedLinear {
 public:
  PanelLinear(const StackedRows& rows, const PanelKernels& kernels, ThreadPool* pool)
      : PackedLinear(rows.num_rows(), rows.width()), kernels_(kernels), dtype_(rows.dtype()) {
    const auto width = static_cast<size_t>(kernels.panel_width);
    EPS_CHECK_LE(width, kMaxPanelWidth);
    const size_t panel_bytes = width * rows.row_bytes();
    num_bytes_ = static_cast<size_t>(num_panels()) * panel_bytes;
    panels_.reserve(num_bytes_);
    for_panels(num_panels(), panel_bytes, pool, [&](int64_t begin, int64_t end) {
      Buffer converted;
      const std::byte* columns[kMaxPanelWidth];
      const std::span panel(columns, width);
      for (int64_t p = begin; p < end; ++p) {
        rows.get(p * kernels.panel_width, panel, converted);
        pack_panel(panel, rows.width(), dtype_, panels_.data() + static_cast<size_t>(p) * panel_bytes);
      }
    });
  }

  size_t num_bytes() const override { return num_bytes_; }
  DType input_dtype() const override { return DType::kF32; }

  Grain grain() const override {
    // With few rows, 4, 3 or 2 panels are processed at a time; a slice of 12 panels is a multiple of all of them.
    return {12 * kernels_.panel_width, kernels_.rows_per_block};
  }

  void run_block(const void* x, int64_t ldx, float* y, int64_t ldy, int64_t m, int64_t n_begin,
                 int64_t n_end) const override {
    const int64_t width = kernels_.panel_width;
    kernels_.run({panels_.data(), dtype_, out_features(), in_features(), n_begin / width, (n_end + width - 1) / width,
                  static_cast<const float*>(x), ldx, y, ldy, m});
  }

 private:
  int64_t num_panels() const { return (out_features() + kernels_.panel_width - 1) / kernels_.panel_width; }

  const PanelKernels& kernels_;
  DType dtype_;
  size_t num_bytes_ = 0;
  Buffer panels_;
};

}  // namespace

const PanelKernels& panel_kernels(std::string_view isa) {
  if (isa == "portable") return panel_kernels_portable();
  const PanelKernels* kernels = isa == "avx512" ? panel_kernels_avx512()
                                : isa == "avx2" ? panel_kernels_avx2()
                                                : nullptr;
  EPS_CHECK(kernels != nullptr, "no panel kernels for '{}' in this build", isa);
  return *kernels;
}

std::unique_ptr<PackedLinear> pack_panels(std::span<const TensorView> parts, const PanelKernels& kernels,
                                          ThreadPool* pool) {
  return std::make_unique<PanelLinear>(StackedRows(parts, common_dtype(parts)), kernels, pool);
}

}  // namespace eps::ops
