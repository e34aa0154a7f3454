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
std::unique_ptr<PackedLinear> pack_amx(std::span<const TensorView> parts);

}  // namespace eps
