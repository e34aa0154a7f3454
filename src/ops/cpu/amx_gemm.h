// The bf16 GEMM engine for CPUs with AMX: bf16 weights and activations, f32 accumulation in tile registers.
#pragma once

#include <memory>
#include <span>

#include "ops/cpu/packed_linear.h"
#include "tensor/tensor.h"

namespace eps {

// False where the program was not built for AMX. Whether this CPU has it is the caller's question.
bool has_amx_kernels();

// Packs [N_i, K] parts, stacked along N, as bf16 (f32 and f16 are rounded).
//
// Row invariance  every element of the result is one chain over k in pairs, in order, from zero, in one tile
//                 register; blocks over K store the chain to y and load it back, which loses no bit. How many rows a
//                 tile holds, and which others, changes nothing.
std::unique_ptr<PackedLinear> pack_amx(std::span<const TensorView> parts, ThreadPool* pool);

// One panel of packed weights: 32 columns, each given by its row of K bf16. Element (column, k) stands in tile
// (k / 32, column / 16), at row (k % 32) / 2 and bf16 2 * (column % 16) + k % 2 of it: pairs along k are what the tile
// product multiplies. K is padded with zeros to whole tiles. Needs no AMX, so its layout is tested on every CPU.
inline constexpr int64_t kAmxPanelColumns = 32;
inline constexpr int64_t amx_panel_elements(int64_t k) { return (k + 31) / 32 * 1024; }
void pack_amx_panel(const std::byte* const* rows, int64_t k, bf16* to);

}  // namespace eps
