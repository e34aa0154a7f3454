#include "ops/cpu/amx_gemm.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "ops/cpu/gemm_schedule.h"
#include "ops/cpu/stacked_rows.h"
#include "ops/cpu/transpose.h"

#if defined(__x86_64__)
#include <immintrin.h>
#define EPS_AMX __attribute__((target("amx-tile,amx-bf16,avx512f")))
#endif

namespace eps::ops {

void pack_amx_panel(const std::byte* const* rows, int64_t k, bf16* to) {
  constexpr int64_t kStep = 32;  // of k in a tile
  constexpr int64_t kTile = 16;  // rows, and pairs along k
  auto* words = reinterpret_cast<uint32_t*>(to);
  const int64_t whole_steps = k / kStep;
  for (int64_t step = 0; step < whole_steps; ++step) {
    for (int64_t tile = 0; tile < 2; ++tile, words += kTile * kTile) {
      transpose_words(rows + tile * kTile, kTile, step * kStep * 2, kTile, words, kTile);
    }
  }
  if (k % kStep == 0) return;
  std::byte padded[kAmxPanelColumns][kStep * sizeof(bf16)] = {};
  const std::byte* padded_rows[kAmxPanelColumns];
  for (int64_t c = 0; c < kAmxPanelColumns; ++c) {
    std::memcpy(padded[c], rows[c] + static_cast<size_t>(whole_steps * kStep) * sizeof(bf16),
                static_cast<size_t>(k % kStep) * sizeof(bf16));
    padded_rows[c] = padded[c];
  }
  for (int64_t tile = 0; tile < 2; ++tile, words += kTile * kTile) {
    transpose_words(padded_rows + tile * kTile, kTile, 0, kTile, words, kTile);
  }
}

#if defined(__x86_64__)

namespace {

// A tile register holds 16 rows of 64 bytes. Two tiles of x (32 rows) are multiplied with two tiles of the weights (32
// columns) into four accumulators, so every loaded tile is used twice. Loading the tiles then takes half as long as
// multiplying them.
constexpr int64_t kTileRows = 16;
constexpr int64_t kStep = 32;  // k of one tile: 32 bf16 = 64 bytes
constexpr int64_t kPanel = kAmxPanelColumns;
constexpr int64_t kRowTile = 32;          // rows
constexpr int64_t kStepBytes = 2 * 1024;  // two weight tiles
constexpr int64_t kTileFloats = kRowTile * kPanel;
// The loop over row tiles reuses one block of a panel along K (32 KB of weights), which stays in the L1 cache
// meanwhile.
constexpr int64_t kStepsPerBlock = 16;
// Number of rows that are processed together while the weights stream past: 256 rows with K = 2048 fill half of a 2 MB
// L2 cache.
constexpr int64_t kRowsPerBlock = 256;
// A product is split between threads at multiples of this many columns.
constexpr int64_t kSliceColumns = 4 * kPanel;

struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {};
};

// Tiles 0 to 3 are the accumulators (top left, top right, bottom left, bottom right), 4 and 5 hold x, and 6 and 7 hold
// the weights.
EPS_AMX void configure_tiles(int64_t rows) {
  const auto top = static_cast<uint8_t>(std::min(rows, kTileRows));
  const auto bottom = static_cast<uint8_t>(std::max<int64_t>(rows - kTileRows, 1));
  TileConfig config;
  config.rows[0] = config.rows[1] = config.rows[4] = top;
  config.rows[2] = config.rows[3] = config.rows[5] = bottom;
  config.rows[6] = config.rows[7] = kTileRows;
  // The intrinsic of GCC 12 declares that it reads only the first bytes of the configuration. Without this statement,
  // the compiler drops the stores to `rows` above.
  asm volatile("" : : "r"(&config) : "memory");
  _tile_loadconfig(&config);
}

struct TileTask {
  const bf16* x;     // first row, at the first k of the block
  int64_t ldx;       // elements
  const bf16* tail;  // [32, 32] the columns of x after the last complete step, padded with zeros; null: none
  const std::byte* weights;
  int64_t steps;  // complete steps only
  float* y;
  int64_t ldy;
  bool accumulate;  // continue from the sums in y
};

template <bool kTwo>
EPS_AMX inline void multiply_step(const void* x, int64_t stride, const std::byte* weights) {
  const auto* top = static_cast<const std::byte*>(x);
  _tile_loadd(4, top, stride);
  _tile_loadd(6, weights, 64);
  _tile_loadd(7, weights + 1024, 64);
  _tile_dpbf16ps(0, 4, 6);
  _tile_dpbf16ps(1, 4, 7);
  if constexpr (kTwo) {
    _tile_loadd(5, top + kTileRows * stride, stride);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
}

template <bool kTwo>
// Every element has one accumulator, whatever the number of rows, so a result does not depend on neighbouring rows.
EPS_AMX void run_tile(const TileTask& task) {
  // The compiler does not model the memory accesses of the tile loads below, so earlier stores must be completed here.
  asm volatile("" ::: "memory");
  float* bottom = task.y + kTileRows * task.ldy;
  const int64_t y_stride = task.ldy * static_cast<int64_t>(sizeof(float));
  if (task.accumulate) {
    _tile_loadd(0, task.y, y_stride);
    _tile_loadd(1, task.y + kTileRows, y_stride);
    if constexpr (kTwo) {
      _tile_loadd(2, bottom, y_stride);
      _tile_loadd(3, bottom + kTileRows, y_stride);
    }
  } else {
    _tile_zero(0);
    _tile_zero(1);
    if constexpr (kTwo) {
      _tile_zero(2);
      _tile_zero(3);
    }
  }
  const bf16* x = task.x;
  const std::byte* weights = task.weights;
  for (int64_t s = 0; s < task.steps; ++s, x += kStep, weights += kStepBytes) {
    multiply_step<kTwo>(x, task.ldx * static_cast<int64_t>(sizeof(bf16)), weights);
  }
  if (task.tail != nullptr) multiply_step<kTwo>(task.tail, kStep * static_cast<int64_t>(sizeof(bf16)), weights);
  _tile_stored(0, task.y, y_stride);
  _tile_stored(1, task.y + kTileRows, y_stride);
  if constexpr (kTwo) {
    _tile_stored(2, bottom, y_stride);
    _tile_stored(3, bottom + kTileRows, y_stride);
  }
}

EPS_AMX void release_tiles() { _tile_release(); }

struct Product {
  const std::byte* panels;
  int64_t n, k;
  const bf16* x;
  int64_t ldx;
  float* y;
  int64_t ldy, m;

  int64_t whole_steps() const { return k / kStep; }
  int64_t num_steps() const { return divide_up(k, kStep); }
};

// Each thread keeps this between calls, so that a product allocates no memory.
struct Scratch {
  Buffer rows;  // x of the last row tile, zero padded to 32 rows and whole steps
};

class Runner {
 public:
  Runner(const Product& p, Scratch& scratch) : p_(p), two_(p.m > kTileRows) {
    // Up to one tile pair of rows is computed with tiles of exactly that height. With more rows, the last ones are
    // copied and padded to full height, because reconfiguring the tiles for them would take longer than the additional
    // work.
    full_rows_ = p.m <= kRowTile ? 0 : p.m / kRowTile * kRowTile;
    rest_rows_ = p.m - full_rows_;
    configure_tiles(p.m <= kRowTile ? p.m : kRowTile);
    if (full_rows_ > 0 && rest_rows_ > 0) copy_rest(scratch);
  }
  ~Runner() { release_tiles(); }
  Runner(const Runner&) = delete;
  Runner& operator=(const Runner&) = delete;

  void run_panel(int64_t panel) {
    const int64_t columns = std::min(kPanel, p_.n - panel * kPanel);
    const bool whole = columns == kPanel;
    const int64_t steps_per_block = whole && full_rows_ > 0 ? kStepsPerBlock : p_.num_steps();
    for (int64_t step = 0; step < p_.num_steps(); step += steps_per_block) {
      const int64_t end = std::min(p_.num_steps(), step + steps_per_block);
      for (int64_t row = 0; row < full_rows_; row += kRowTile) {
        if (whole) {
          run_rows(panel, row, step, end, p_.y + row * p_.ldy + panel * kPanel, p_.ldy);
        } else {
          run_rows(panel, row, step, end, staged_, kPanel);
          copy_out(row, kRowTile, panel, columns);
        }
      }
      if (rest_rows_ > 0) run_rest(panel, step, end);
    }
    if (rest_rows_ > 0) copy_out(full_rows_, rest_rows_, panel, columns, rest_);
  }

 private:
  const std::byte* weights(int64_t panel, int64_t step) const {
    return p_.panels + (panel * p_.num_steps() + step) * kStepBytes;
  }

  void copy_rest(Scratch& scratch) {
    const int64_t width = p_.num_steps() * kStep;
    rest_x_ = scratch.rows.view(DType::kBF16, {kRowTile, width}).as<bf16>();
    std::memset(static_cast<void*>(rest_x_), 0, static_cast<size_t>(kRowTile * width) * sizeof(bf16));
    for (int64_t r = 0; r < rest_rows_; ++r) {
      std::memcpy(rest_x_ + r * width, p_.x + (full_rows_ + r) * p_.ldx, static_cast<size_t>(p_.k) * sizeof(bf16));
    }
  }

  // Reads complete steps directly from x. The last, incomplete step goes through a copy that is padded with zeros: the
  // memory after column K belongs to another row, and if it contained an infinity or a NaN, multiplying that with a
  // zero weight would not give zero.
  void run_rows(int64_t panel, int64_t row, int64_t step, int64_t end, float* y, int64_t ldy) {
    TileTask task{
        p_.x + row * p_.ldx + step * kStep, p_.ldx, nullptr, weights(panel, step), end - step, y, ldy, step > 0};
    if (end > p_.whole_steps()) {
      const int64_t left = p_.k - p_.whole_steps() * kStep;
      std::memset(static_cast<void*>(tail_), 0, sizeof(tail_));
      for (int64_t r = 0; r < std::min(kRowTile, p_.m - row); ++r) {
        std::memcpy(tail_ + r * kStep, p_.x + (row + r) * p_.ldx + p_.whole_steps() * kStep,
                    static_cast<size_t>(left) * sizeof(bf16));
      }
      task.tail = tail_;
      --task.steps;
    }
    run(task);
  }

  void run_rest(int64_t panel, int64_t step, int64_t end) {
    if (full_rows_ == 0) {
      run_rows(panel, 0, step, end, rest_, kPanel);
      return;
    }
    const int64_t width = p_.num_steps() * kStep;
    run({rest_x_ + step * kStep, width, nullptr, weights(panel, step), end - step, rest_, kPanel, step > 0});
  }

  void run(const TileTask& task) const { two_ ? run_tile<true>(task) : run_tile<false>(task); }

  void copy_out(int64_t row, int64_t rows, int64_t panel, int64_t columns, const float* from) {
    for (int64_t r = 0; r < rows; ++r) {
      std::memcpy(p_.y + (row + r) * p_.ldy + panel * kPanel, from + r * kPanel,
                  static_cast<size_t>(columns) * sizeof(float));
    }
  }
  void copy_out(int64_t row, int64_t rows, int64_t panel, int64_t columns) {
    copy_out(row, rows, panel, columns, staged_);
  }

  Product p_;
  bool two_;  // there are more than 16 rows, so a tile pair is used
  int64_t full_rows_ = 0;
  int64_t rest_rows_ = 0;
  bf16* rest_x_ = nullptr;
  alignas(64) float staged_[kTileFloats] = {};  // output of a panel with fewer than 32 columns
  alignas(64) float rest_[kTileFloats] = {};    // sums of the remaining rows, carried across the blocks of K
  alignas(64) bf16 tail_[kRowTile * kStep] = {};
};

class AmxLinear final : public PackedLinear {
 public:
  AmxLinear(std::span<const TensorView> parts, ThreadPool* pool) : AmxLinear(StackedRows(parts, DType::kBF16), pool) {}

  size_t num_bytes() const override { return num_bytes_; }
  DType input_dtype() const override { return DType::kBF16; }
  Grain grain() const override { return {kSliceColumns, kRowsPerBlock}; }

  void run_block(const void* x, int64_t ldx, float* y, int64_t ldy, int64_t m, int64_t n_begin,
                 int64_t n_end) const override {
    static thread_local Scratch scratch;
    Runner runner({panels_.data(), out_features(), in_features(), static_cast<const bf16*>(x), ldx, y, ldy, m},
                  scratch);
    for (int64_t panel = n_begin / kPanel; panel < divide_up(n_end, kPanel); ++panel) runner.run_panel(panel);
  }

 private:
  AmxLinear(const StackedRows& rows, ThreadPool* pool) : PackedLinear(rows.num_rows(), rows.width()) {
    const int64_t num_panels = divide_up(rows.num_rows(), kPanel);
    const auto elements = amx_panel_elements(rows.width());
    num_bytes_ = static_cast<size_t>(num_panels * elements) * sizeof(bf16);
    auto* panels = panels_.view(DType::kBF16, {num_panels, elements}).as<bf16>();
    for_panels(num_panels, num_bytes_ / static_cast<size_t>(num_panels), pool, [&](int64_t begin, int64_t end) {
      Buffer converted;
      const std::byte* columns[kPanel];
      for (int64_t p = begin; p < end; ++p) {
        rows.get(p * kPanel, columns, converted);
        pack_amx_panel(columns, rows.width(), panels + p * elements);
      }
    });
  }

  size_t num_bytes_ = 0;
  Buffer panels_;
};

}  // namespace

bool has_amx_kernels() { return true; }

std::unique_ptr<PackedLinear> pack_amx(std::span<const TensorView> parts, ThreadPool* pool) {
  return std::make_unique<AmxLinear>(parts, pool);
}

#else

bool has_amx_kernels() { return false; }

std::unique_ptr<PackedLinear> pack_amx(std::span<const TensorView>, ThreadPool*) {
  EPS_CHECK(false, "this build has no AMX kernels");
  return nullptr;
}

#endif

}  // namespace eps::ops
