// The f32 GEMM engine: weights stay in their stored dtype, packed into panels, and are widened inside the kernel.
//
// Every kernel must preserve row invariance: an element of the result is the sum acc = acc + x[k] * w[k] over k = 0, 1,
// 2, ... in f32, starting from zero. Between blocks of K the sum is stored to y and loaded again, which is exact.
// Tiles, blocks, threads and neighbouring rows therefore affect only the speed, never the result.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "ops/cpu/packed_linear.h"
#include "tensor/dtype.h"
#include "tensor/tensor.h"

namespace eps::ops {

// One piece of y = x * W^T: rows [0, m) of x against panels [panel_begin, panel_end).
struct PanelBlock {
  const void* panels;  // [num_panels, K, panel_width] of `dtype`, 64-byte aligned, columns in panel_lane order
  DType dtype;
  int64_t n;  // columns of the whole weight; the last panel is padded with zeros beyond it
  int64_t k;
  int64_t panel_begin;
  int64_t panel_end;
  const float* x;  // [m, K], rows ldx apart
  int64_t ldx;
  float* y;  // [m, n], rows ldy apart; only the columns of the given panels are written
  int64_t ldy;
  int64_t m;
};

// The kernels of one instruction set.
struct PanelKernels {
  const char* isa;         // "avx512", "avx2", "portable"
  int64_t panel_width;     // columns of a panel: two vectors
  int64_t rows_per_block;  // rows of x that stay in the cache while the weights stream past; larger m are split
  void (*run)(const PanelBlock& block);
};

// The position of column `column` among the `width` elements that a panel has for one k. For 16-bit types, the two
// vectors are interleaved: each 32-bit lane then holds one element of each, and widening both takes a shift and a mask.
constexpr int64_t panel_lane(DType dtype, int64_t column, int64_t width) {
  if (dtype != DType::kBF16) return column;
  const int64_t half = width / 2;
  return column < half ? 2 * column : 2 * (column - half) + 1;
}

const PanelKernels& panel_kernels_portable();
// Null if this build does not contain the kernels. Callers must check separately whether the CPU supports them.
const PanelKernels* panel_kernels_avx2();
const PanelKernels* panel_kernels_avx512();
// The kernels for an instruction set, named as in CpuEngineChoice::isa. The CPU must support it.
const PanelKernels& panel_kernels(std::string_view isa);

// Packs [N_i, K] parts, stacked along N. Parts that all have the same dtype keep it; otherwise all are widened to f32.
std::unique_ptr<PackedLinear> pack_panels(std::span<const TensorView> parts, const PanelKernels& kernels,
                                          ThreadPool* pool);

}  // namespace eps::ops
