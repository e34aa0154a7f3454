// The panel kernel, written once over the vector traits of an instruction set.
//
// Included by one source file per instruction set, after it defined EPS_PANEL_TARGET: the attribute that lets the
// functions use the instruction set without compiling the file for it. (Compiling the file for it would also compile
// the standard library's inline functions for it, and the linker may pick those for the whole program.)
//
// A traits type V provides: Vec, kWidth (floats in a Vec), kAccumulators (Vecs kept in registers), kBlockK, kBlockRows,
// and zero, load (f32, bf16, f16), store, broadcast, fma, prefetch.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "ops/cpu/panel_gemm.h"

#ifndef EPS_PANEL_TARGET
#error "define EPS_PANEL_TARGET before including this file"
#endif

namespace eps {
namespace {

template <typename V>
struct PanelGeometry {
  static constexpr int64_t kPanelWidth = 2 * V::kWidth;
  static constexpr int kTileRows = V::kAccumulators / 2;
  // Rows of the copied x block: the pad keeps rows out of each other's cache sets.
  static constexpr int64_t kLdCopy = V::kBlockK + 16;
  static constexpr int64_t kCopyFloats = V::kBlockRows * kLdCopy;
  static constexpr int64_t kWideFloats = V::kBlockK * kPanelWidth;
  // A tile of few rows has few chains, each waiting for its own last FMA: several panels at once hide the wait.
  static constexpr int panels_for(int rows) { return std::clamp(V::kAccumulators / (2 * rows), 1, 4); }
};

template <typename W>
struct TileCall {
  const float* a;        // first row of x
  int64_t lda;           // used where the kernel was not built for a fixed one
  const W* b;            // first panel, at the first k
  int64_t panel_stride;  // elements from one panel to the next
  int64_t k;
  float* c;
  int64_t ldc;
  bool resume;           // continue the chains stored in c
};

// kRows x (kPanels * panel width) of c in registers. kLda 0: take it from the call.
template <typename V, typename W, int kRows, int kPanels, int64_t kLda>
EPS_PANEL_TARGET void run_tile(const TileCall<W>& call) {
  using Vec = typename V::Vec;
  constexpr int kVecs = 2 * kPanels;
  constexpr int64_t kPanelWidth = PanelGeometry<V>::kPanelWidth;
  const int64_t lda = kLda != 0 ? kLda : call.lda;
  float* const c = call.c;
  const int64_t ldc = call.ldc;
  const auto column = [](int v) { return (v / 2) * kPanelWidth + (v % 2) * V::kWidth; };
  // The unrolling is what lets the compiler keep acc in registers.
  Vec acc[kRows][kVecs];
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
    for (int v = 0; v < kVecs; ++v) acc[r][v] = call.resume ? V::load(c + r * ldc + column(v)) : V::zero();
  }
  if constexpr (kLda != 0) {
    for (int r = 0; r < kRows; ++r) __builtin_prefetch(c + (kRows + r) * ldc, 1);
  }
  const float* a = call.a;
  const W* b = call.b;
  const int64_t stride = call.panel_stride;
  for (int64_t k = call.k; k > 0; --k) {
    if constexpr (kPanels == 1) {
      const Vec w0 = V::load(b);
      const Vec w1 = V::load(b + V::kWidth);
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) {
        const Vec x = V::broadcast(a + r * lda);
        acc[r][0] = V::fma(x, w0, acc[r][0]);
        acc[r][1] = V::fma(x, w1, acc[r][1]);
      }
    } else {
      Vec x[kRows];
#pragma GCC unroll 16
      for (int r = 0; r < kRows; ++r) x[r] = V::broadcast(a + r * lda);
#pragma GCC unroll 16
      for (int v = 0; v < kVecs; ++v) {
        const Vec w = V::load(b + (v / 2) * stride + (v % 2) * V::kWidth);
#pragma GCC unroll 16
        for (int r = 0; r < kRows; ++r) acc[r][v] = V::fma(x[r], w, acc[r][v]);
      }
    }
    a += 1;
    b += kPanelWidth;
  }
#pragma GCC unroll 16
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 16
    for (int v = 0; v < kVecs; ++v) V::store(c + r * ldc + column(v), acc[r][v]);
  }
}

template <typename V, typename W, int64_t kLda, bool kManyPanels, int... kIndex>
constexpr auto make_tile_table(std::integer_sequence<int, kIndex...>) {
  using Tile = void (*)(const TileCall<W>&);
  struct Table {
    Tile tile[sizeof...(kIndex)];
  };
  return Table{{&run_tile<V, W, kIndex + 1, kManyPanels ? PanelGeometry<V>::panels_for(kIndex + 1) : 1, kLda>...}};
}

// tile[rows - 1] for every number of rows a tile can have.
template <typename V, typename W, int64_t kLda, bool kManyPanels>
constexpr auto kTiles = make_tile_table<V, W, kLda, kManyPanels>(
    std::make_integer_sequence<int, PanelGeometry<V>::kTileRows>());

// One tile against one panel whose last columns lie beyond n: goes through a full-width copy of c.
template <typename V, typename W>
EPS_PANEL_TARGET void run_edge_tile(void (*tile)(const TileCall<W>&), const TileCall<W>& call, int64_t rows,
                                    int64_t columns) {
  constexpr int64_t kPanelWidth = PanelGeometry<V>::kPanelWidth;
  alignas(64) float full[PanelGeometry<V>::kTileRows * kPanelWidth] = {};
  if (call.resume) {
    for (int64_t r = 0; r < rows; ++r) std::copy_n(call.c + r * call.ldc, columns, full + r * kPanelWidth);
  }
  TileCall<W> inner = call;
  inner.c = full;
  inner.ldc = kPanelWidth;
  tile(inner);
  for (int64_t r = 0; r < rows; ++r) std::copy_n(full + r * kPanelWidth, columns, call.c + r * call.ldc);
}

// Splits m rows into tiles whose sizes differ by at most one: 7 rows are 4 + 3, never 6 + 1.
template <typename V, typename Body>
EPS_PANEL_TARGET inline void for_each_tile(int64_t m, const Body& body) {
  constexpr int64_t kTileRows = PanelGeometry<V>::kTileRows;
  const int64_t tiles = (m + kTileRows - 1) / kTileRows;
  const int64_t base = m / tiles;
  const int64_t longer = m % tiles;
  int64_t row = 0;
  for (int64_t i = 0; i < tiles; ++i) {
    const int64_t rows = base + (i < longer ? 1 : 0);
    body(row, rows);
    row += rows;
  }
}

// Few rows: x is read where it lies and weights are widened in registers, each K-long panel read from memory once.
template <typename V, typename W>
EPS_PANEL_TARGET void run_few_rows(const PanelBlock& block) {
  using Geometry = PanelGeometry<V>;
  const int64_t full_panels = block.n / Geometry::kPanelWidth;
  const int64_t stride = block.k * Geometry::kPanelWidth;
  // Both tiles of a group pass before the next group, so that the second finds the weights in the cache.
  const int64_t tiles = (block.m + Geometry::kTileRows - 1) / Geometry::kTileRows;
  const int64_t group = Geometry::panels_for(static_cast<int>((block.m + tiles - 1) / tiles));
  for (int64_t first = block.panel_begin; first < block.panel_end; first += group) {
    const int64_t last = std::min(first + group, block.panel_end);
    for_each_tile<V>(block.m, [&](int64_t row, int64_t rows) {
      const int64_t together = Geometry::panels_for(static_cast<int>(rows));
      int64_t p = first;
      while (p < last) {
        const int64_t column = p * Geometry::kPanelWidth;
        const TileCall<W> call{block.x + row * block.ldx,
                               block.ldx,
                               static_cast<const W*>(block.panels) + p * stride,
                               stride,
                               block.k,
                               block.y + row * block.ldy + column,
                               block.ldy,
                               false};
        if (p + together <= std::min(last, full_panels)) {
          kTiles<V, W, 0, true>.tile[rows - 1](call);
          p += together;
          continue;
        }
        const auto tile = kTiles<V, W, 0, false>.tile[rows - 1];
        if (p < full_panels) {
          tile(call);
        } else {
          run_edge_tile<V, W>(tile, call, rows, block.n - column);
        }
        p += 1;
      }
    });
  }
}

template <typename V, typename W>
EPS_PANEL_TARGET const float* widen_panel(const W* from, int64_t count, float* to) {
  if constexpr (std::is_same_v<W, float>) {
    return from;
  } else {
    for (int64_t i = 0; i < count; i += V::kWidth) V::store(to + i, V::load(from + i));
    return to;
  }
}

// Many rows: x goes block by block into a compact copy (L2), each panel block is widened once into L1, and the tiles
// sweep over them.
template <typename V, typename W>
EPS_PANEL_TARGET void run_many_rows(const PanelBlock& block) {
  using Geometry = PanelGeometry<V>;
  float* const copy = block.scratch;
  float* const wide = block.scratch + Geometry::kCopyFloats;
  const int64_t blocks = (block.k + V::kBlockK - 1) / V::kBlockK;
  const int64_t block_k = (block.k + blocks - 1) / blocks;
  for (int64_t k0 = 0; k0 < block.k; k0 += block_k) {
    const int64_t kc = std::min(block_k, block.k - k0);
    for (int64_t r = 0; r < block.m; ++r) std::copy_n(block.x + r * block.ldx + k0, kc, copy + r * Geometry::kLdCopy);
    for (int64_t p = block.panel_begin; p < block.panel_end; ++p) {
      const W* stored = static_cast<const W*>(block.panels) + (p * block.k + k0) * Geometry::kPanelWidth;
      const float* panel = widen_panel<V, W>(stored, kc * Geometry::kPanelWidth, wide);
      const int64_t column = p * Geometry::kPanelWidth;
      const int64_t columns = std::min(block.n - column, Geometry::kPanelWidth);
      for_each_tile<V>(block.m, [&](int64_t row, int64_t rows) {
        const auto tile = kTiles<V, float, Geometry::kLdCopy, false>.tile[rows - 1];
        const TileCall<float> call{
            copy + row * Geometry::kLdCopy, 0, panel, 0, kc, block.y + row * block.ldy + column, block.ldy, k0 > 0};
        if (columns == Geometry::kPanelWidth) {
          tile(call);
        } else {
          run_edge_tile<V, float>(tile, call, rows, columns);
        }
      });
    }
  }
}

template <typename V, typename W>
EPS_PANEL_TARGET void run_typed(const PanelBlock& block) {
  // Up to two tiles, widening in registers twice costs less than a pass through the scratch.
  if (block.m <= 2 * PanelGeometry<V>::kTileRows) {
    run_few_rows<V, W>(block);
  } else {
    run_many_rows<V, W>(block);
  }
}

template <typename V>
EPS_PANEL_TARGET void run_panel_block(const PanelBlock& block) {
  switch (block.dtype) {
    case DType::kBF16:
      return run_typed<V, bf16>(block);
    case DType::kF16:
      return run_typed<V, f16>(block);
    default:
      return run_typed<V, float>(block);
  }
}

template <typename V>
constexpr PanelKernels make_panel_kernels(const char* isa) {
  using Geometry = PanelGeometry<V>;
  static_assert(V::kBlockRows % Geometry::kTileRows == 0);
  return {isa,
          Geometry::kPanelWidth,
          V::kBlockRows,
          Geometry::kTileRows,
          Geometry::kCopyFloats + Geometry::kWideFloats,
          &run_panel_block<V>};
}

}  // namespace
}  // namespace eps
