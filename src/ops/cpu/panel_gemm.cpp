#include "ops/cpu/panel_gemm.h"

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "base/error.h"

namespace eps {
namespace {

// Row-major [N, K] rows go into columns from `column` on of [panel][k][panel_lane].
template <typename To, typename From>
void pack_rows(const From* from, int64_t rows, int64_t k, int64_t column, int64_t width, To* to) {
  // k is the outer loop within a panel: the rows of a panel share each cache line that is written.
  for (int64_t row = 0; row < rows;) {
    const int64_t begin = (column + row) % width;
    const int64_t count = std::min(rows - row, width - begin);
    To* panel = to + (column + row) / width * width * k;
    const From* source = from + row * k;
    for (int64_t i = 0; i < k; ++i) {
      for (int64_t r = 0; r < count; ++r) {
        To& target = panel[i * width + panel_lane(DTypeOf<To>::value, begin + r, width)];
        if constexpr (std::is_same_v<To, From>) {
          target = source[r * k + i];
        } else {
          target = to_float(source[r * k + i]);
        }
      }
    }
    row += count;
  }
}

template <typename To>
void pack_part(const TensorView& part, int64_t column, int64_t width, To* to) {
  const auto go = [&]<typename From>(const From* from) {
    if constexpr (std::is_same_v<To, float> || std::is_same_v<To, From>) {
      pack_rows(from, part.dim(0), part.dim(1), column, width, to);
    }
  };
  if (part.dtype() == DType::kF32) return go(part.as<const float>());
  if (part.dtype() == DType::kBF16) return go(part.as<const bf16>());
  go(part.as<const f16>());
}

class PanelLinear final : public PackedLinear {
 public:
  PanelLinear(std::span<const TensorView> parts, int64_t n, const PanelKernels& kernels)
      : PackedLinear(n, parts[0].dim(1)), kernels_(kernels), dtype_(parts[0].dtype()) {
    for (const TensorView& part : parts) {
      if (part.dtype() != dtype_) dtype_ = DType::kF32;
    }
    num_bytes_ = static_cast<size_t>(num_panels() * kernels.panel_width * in_features()) * size_of(dtype_);
    panels_.reserve(num_bytes_);
    if (n % kernels.panel_width != 0) {
      const size_t panel_bytes = num_bytes_ / static_cast<size_t>(num_panels());
      std::memset(panels_.data() + (num_bytes_ - panel_bytes), 0, panel_bytes);
    }
    int64_t column = 0;
    for (const TensorView& part : parts) {
      if (dtype_ == DType::kF32) {
        pack_part(part, column, kernels.panel_width, reinterpret_cast<float*>(panels_.data()));
      } else if (dtype_ == DType::kBF16) {
        pack_part(part, column, kernels.panel_width, reinterpret_cast<bf16*>(panels_.data()));
      } else {
        pack_part(part, column, kernels.panel_width, reinterpret_cast<f16*>(panels_.data()));
      }
      column += part.dim(0);
    }
  }

  size_t num_bytes() const override { return num_bytes_; }
  DType input_dtype() const override { return DType::kF32; }

  Grain grain() const override {
    // Few rows run 4, 3 or 2 panels at once: slices of 12 leave no rest.
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

std::unique_ptr<PackedLinear> pack_panels(std::span<const TensorView> parts, const PanelKernels& kernels) {
  int64_t n = 0;
  for (const TensorView& part : parts) n += part.dim(0);
  return std::make_unique<PanelLinear>(parts, n, kernels);
}

}  // namespace eps
