// The panel kernel, written once over the vector traits of an instruction set.
//
// Each source file that includes this header is for one instruction set and first defines EPS_PANEL_TARGET, the
// attribute that allows functions to use it. The files are not compiled with -m flags instead, because inline functions
// of the standard library would then be compiled for that instruction set as well, and the linker might choose those
// for the whole program.
//
// A traits type V provides Vec, kWidth (floats in a Vec), kAccumulators (number of Vecs kept in registers), kBlockRows,
// Pair (two Vecs, low and high), and the functions zero, load, load_pair (one k of a panel of f32, bf16 or f16), store,
// broadcast and fma.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>

#include "ops/cpu/panel_gemm.h"

#ifndef EPS_PANEL_TARGET
#error "define EPS_PANEL_TARGET before including this file"
#endif

namespace eps::ops {
namespace {

constexpr int64_t kAheadBytes = 1024;  // prefetch distance for weights: 16 cache lines, about 100 ns
// Length of a block of K when several tiles use the same panel, so that the block (64 KiB of bf16) stays in the L2
// cache.
constexpr int64_t kBlockK = 2048;

template <typename V>
struct PanelGeometry {
  static constexpr int64_t kPanelWidth = 2 * V::kWidth;
  static constexpr int kTileRows = V::kAccumulators / 2;
  // A tile with few rows has few accumulators, and each FMA depends on the previous one of its accumulator. Processing
  // several panels at once hides that latency.
  static constexpr int panels_for(int rows) { return std::clamp(V::kAccumulators / (2 * rows), 1, 4); }
};

template <typename W>
struct TileCall {
  const float* a;  // first row of x
  int64_t lda;
  const W* b;            // first panel, at the first k
  int64_t panel_stride;  // elements from one panel to the next
  int64_t k;
  float* c;
  int64_t ldc;
  bool resume;  // continue from the sums in c
};

// Computes kRows x (kPanels * panel width) elements of c in registers.
template <typename V, typename W, int kRows, int kPanels>
EPS_PANEL_TARGET void run_tile(const TileCall<W>& call) {
  using Vec = typename V::Vec;
  constexpr int64_t kPanelWidth = PanelGeometry<V>::kPanelWidth;
  const int64_t lda = call.lda;
  float* const c = call.c;
  const int64_t ldc = call.ldc;
  // All loops over acc must be unrolled, otherwise the compiler keeps it in memory instead of registers.
  Vec acc[kRows][2 * kPanels];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
    for (int v = 0; v < 2 * kPanels; ++v) acc[r][v] = call.resume ? V::load(c + r * ldc + v * V::kWidth) : V::zero();
  }
  if constexpr (kPanels == 1) {
    // The next tile usually uses the rows of c that follow. Without this prefetch, it would wait for them when it
    // stores its results.
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) __builtin_prefetch(c + (kRows + r) * ldc, 1);
  }
  const float* a = call.a;
  const W* b = call.b;
  const int64_t stride = call.panel_stride;
  for (int64_t k = call.k; k > 0; --k) {
    // Prefetching was measured on Zen 3: 20 % faster for one panel at a time and 5 % faster for several panels of
    // 2-byte weights, but 10 % slower for several panels of f32.
    if constexpr (kPanels == 1 || sizeof(W) == 2) {
#pragma GCC unroll 4
      for (int p = 0; p < kPanels; ++p) {
        __builtin_prefetch(reinterpret_cast<const char*>(b + p * stride) + kAheadBytes);
      }
    }
    if constexpr (kPanels == 1) {
      const typename V::Pair w = V::load_pair(b);
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        const Vec x = V::broadcast(a + r * lda);
        acc[r][0] = V::fma(x, w.low, acc[r][0]);
        acc[r][1] = V::fma(x, w.high, acc[r][1]);
      }
    } else {
      Vec x[kRows];
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) x[r] = V::broadcast(a + r * lda);
#pragma GCC unroll 4
      for (int p = 0; p < kPanels; ++p) {
        const typename V::Pair w = V::load_pair(b + p * stride);
#pragma GCC unroll 16
        for (int r = 0; r < kRows; ++r) {
          acc[r][2 * p] = V::fma(x[r], w.low, acc[r][2 * p]);
          acc[r][2 * p + 1] = V::fma(x[r], w.high, acc[r][2 * p + 1]);
        }
      }
    }
    a += 1;
    b += kPanelWidth;
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
    for (int v = 0; v < 2 * kPanels; ++v) V::store(c + r * ldc + v * V::kWidth, acc[r][v]);
  }
}

template <typename V, typename W, bool kManyPanels, int... kIndex>
constexpr auto make_tile_table(std::integer_sequence<int, kIndex...>) {
  using Tile = void (*)(const TileCall<W>&);
  struct Table {
    Tile tile[sizeof...(kIndex)];
  };
  return Table{{&run_tile < V, W, kIndex + 1, kManyPanels ? PanelGeometry<V>::panels_for(kIndex + 1) : 1 > ...}};
}

// tile[rows - 1] is the kernel for each number of rows that a tile can have.
template <typename V, typename W, bool kManyPanels>
constexpr auto kTiles =
    make_tile_table<V, W, kManyPanels>(std::make_integer_sequence<int, PanelGeometry<V>::kTileRows>());

// Multiplies one tile with a panel that extends beyond n, through a full-width copy of c.
template <typename V, typename W>
EPS_PANEL_TARGET void run_edge_tile(const TileCall<W>& call, int64_t rows, int64_t columns) {
  constexpr int64_t kPanelWidth = PanelGeometry<V>::kPanelWidth;
  // Twice the rows of a tile, because run_tile prefetches the rows that follow its own.
  alignas(64) float full[2 * PanelGeometry<V>::kTileRows * kPanelWidth] = {};
  if (call.resume) {
    for (int64_t r = 0; r < rows; ++r) std::copy_n(call.c + r * call.ldc, columns, full + r * kPanelWidth);
  }
  TileCall<W> inner = call;
  inner.c = full;
  inner.ldc = kPanelWidth;
  kTiles<V, W, false>.tile[rows - 1](inner);
  for (int64_t r = 0; r < rows; ++r) std::copy_n(full + r * kPanelWidth, columns, call.c + r * call.ldc);
}

// Multiplies rows [row, row + rows) with panels [first, last) over the range [k0, k0 + kc) of K.
template <typename V, typename W>
EPS_PANEL_TARGET void run_tile_row(const PanelBlock& block, int64_t row, int64_t rows, int64_t first, int64_t last,
                                   int64_t k0, int64_t kc) {
  using Geometry = PanelGeometry<V>;
  const int64_t full_panels = block.n / Geometry::kPanelWidth;
  const int64_t stride = block.k * Geometry::kPanelWidth;
  const int64_t together = Geometry::panels_for(static_cast<int>(rows));
  for (int64_t p = first; p < last;) {
    const int64_t column = p * Geometry::kPanelWidth;
    const TileCall<W> call{block.x + row * block.ldx + k0,
                           block.ldx,
                           static_cast<const W*>(block.panels) + p * stride + k0 * Geometry::kPanelWidth,
                           stride,
                           kc,
                           block.y + row * block.ldy + column,
                           block.ldy,
                           k0 > 0};
    if (p + together <= std::min(last, full_panels)) {
      kTiles<V, W, true>.tile[rows - 1](call);
      p += together;
    } else if (p < full_panels) {
      kTiles<V, W, false>.tile[rows - 1](call);
      p += 1;
    } else {
      run_edge_tile<V, W>(call, rows, block.n - column);
      p += 1;
    }
  }
}

template <typename V, typename W>
EPS_PANEL_TARGET void run_typed(const PanelBlock& block) {
  using Geometry = PanelGeometry<V>;
  // Tile heights differ by at most one: 7 rows are processed as 4 + 3, not as 6 + 1.
  const int64_t tiles = (block.m + Geometry::kTileRows - 1) / Geometry::kTileRows;
  const int64_t base = block.m / tiles;
  const int64_t longer = block.m % tiles;
  const int64_t group = Geometry::panels_for(static_cast<int>(base + (longer > 0 ? 1 : 0)));
  // A single tile reads each weight only once, so blocking K has no benefit.
  const int64_t blocks = tiles == 1 ? 1 : (block.k + kBlockK - 1) / kBlockK;
  const int64_t block_k = (block.k + blocks - 1) / blocks;
  for (int64_t k0 = 0; k0 < block.k; k0 += block_k) {
    const int64_t kc = std::min(block_k, block.k - k0);
    // All tiles are multiplied with one group of panels before the next group, because the first tile loads the group
    // into the cache.
    for (int64_t first = block.panel_begin; first < block.panel_end; first += group) {
      const int64_t last = std::min(first + group, block.panel_end);
      int64_t row = 0;
      for (int64_t i = 0; i < tiles; ++i) {
        const int64_t rows = base + (i < longer ? 1 : 0);
        run_tile_row<V, W>(block, row, rows, first, last, k0, kc);
        row += rows;
      }
    }
  }
}

template <typename V>
EPS_PANEL_TARGET void run_panel_block(const PanelBlock& block) {
  switch (block.dtype) {
    case DType::kBF16: return run_typed<V, bf16>(block);
    case DType::kF16: return run_typed<V, f16>(block);
    default: return run_typed<V, float>(block);
  }
}

template <typename V>
constexpr PanelKernels make_panel_kernels(const char* isa) {
  static_assert(V::kBlockRows % PanelGeometry<V>::kTileRows == 0);
  return {isa, PanelGeometry<V>::kPanelWidth, V::kBlockRows, &run_panel_block<V>};
}

}  // namespace
}  // namespace eps::ops
