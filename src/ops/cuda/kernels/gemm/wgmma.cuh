// Hopper's warp group matrix instructions on bf16 operands in shared memory, accumulated in f32 registers (sm_90a).
// An accumulator d [64, n] is distributed over the 128 threads: thread (warp w, lane l) holds, for j in [0, n / 8), the
// columns j * 8 + l % 4 * 2 and the next one of row w * 16 + l / 4 in d[j * 4], d[j * 4 + 1], and of that row + 8 in
// d[j * 4 + 2], d[j * 4 + 3].
#pragma once

#include <cstdint>

namespace eps::cuda {

// The descriptor of an operand tile [rows, 64] bf16 in shared memory in the layout that the TMA writes with the
// 128-byte swizzle: rows of 128 bytes, groups of 8 rows 1024 bytes apart, the first one aligned to 1024 bytes. The next
// 16 elements of k follow after 32 bytes.
__device__ __forceinline__ uint64_t make_operand_desc(uint32_t smem_address) {
  constexpr uint64_t kLeadingBytes = 16;  // ignored with this swizzle
  constexpr uint64_t kGroupBytes = 1024;
  constexpr uint64_t kSwizzle128 = uint64_t{1} << 62;
  return ((smem_address & 0x3FFFF) >> 4) | ((kLeadingBytes >> 4) << 16) | ((kGroupBytes >> 4) << 32) | kSwizzle128;
}

// Orders register accesses to the accumulator before the products that follow.
__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
// Returns when at most kPending committed groups are still running.
template <int kPending>
__device__ __forceinline__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

#define EPS_ACC4(d, i) "+f"(d[i]), "+f"(d[(i) + 1]), "+f"(d[(i) + 2]), "+f"(d[(i) + 3])
#define EPS_ACC16(d, i) EPS_ACC4(d, i), EPS_ACC4(d, (i) + 4), EPS_ACC4(d, (i) + 8), EPS_ACC4(d, (i) + 12)
#define EPS_ACC32(d, i) EPS_ACC16(d, i), EPS_ACC16(d, (i) + 16)

// clang-format off
// The first 16, 32, … registers by their numbers in the assembly.
#define EPS_REGISTERS_16 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define EPS_REGISTERS_32 EPS_REGISTERS_16 ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define EPS_REGISTERS_48 EPS_REGISTERS_32 ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47"
#define EPS_REGISTERS_64 EPS_REGISTERS_48 ", %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define EPS_REGISTERS_80 EPS_REGISTERS_64 ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79"
#define EPS_REGISTERS_96 EPS_REGISTERS_80 ", %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"
#define EPS_REGISTERS_112 EPS_REGISTERS_96 ", %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111"
#define EPS_REGISTERS_128 EPS_REGISTERS_112 ", %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"

// a_index, b_index and predicate are operand numbers; these operands follow the registers.
#define EPS_WGMMA(cols, registers, a_index, b_index, predicate, ...)                                                  \
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" #predicate ", 0;\nwgmma.mma_async.sync.aligned.m64n" #cols         \
               "k16.f32.bf16.bf16 {" registers "}, %" #a_index ", %" #b_index ", p, 1, 1, 0, 0;\n}\n"                  \
               : __VA_ARGS__                                                                                          \
               : "l"(a), "l"(b), "r"(static_cast<int>(accumulate)))
// clang-format on

// d [64, kCols] f32 (a warp group's share: kCols / 2 registers a thread) = a [64, 16] . b [kCols, 16]^T, plus d itself
// if `accumulate`.
template <int kCols, int kRegisters>
__device__ __forceinline__ void wgmma(float (&d)[kRegisters], uint64_t a, uint64_t b, bool accumulate) {
  static_assert(kCols / 2 <= kRegisters);
  if constexpr (kCols == 256) {
    EPS_WGMMA(256, EPS_REGISTERS_128, 128, 129, 130, EPS_ACC32(d, 0), EPS_ACC32(d, 32), EPS_ACC32(d, 64),
              EPS_ACC32(d, 96));
  } else if constexpr (kCols == 224) {
    EPS_WGMMA(224, EPS_REGISTERS_112, 112, 113, 114, EPS_ACC32(d, 0), EPS_ACC32(d, 32), EPS_ACC32(d, 64),
              EPS_ACC16(d, 96));
  } else if constexpr (kCols == 192) {
    EPS_WGMMA(192, EPS_REGISTERS_96, 96, 97, 98, EPS_ACC32(d, 0), EPS_ACC32(d, 32), EPS_ACC32(d, 64));
  } else if constexpr (kCols == 160) {
    EPS_WGMMA(160, EPS_REGISTERS_80, 80, 81, 82, EPS_ACC32(d, 0), EPS_ACC32(d, 32), EPS_ACC16(d, 64));
  } else if constexpr (kCols == 128) {
    EPS_WGMMA(128, EPS_REGISTERS_64, 64, 65, 66, EPS_ACC32(d, 0), EPS_ACC32(d, 32));
  } else if constexpr (kCols == 96) {
    EPS_WGMMA(96, EPS_REGISTERS_48, 48, 49, 50, EPS_ACC32(d, 0), EPS_ACC16(d, 32));
  } else if constexpr (kCols == 64) {
    EPS_WGMMA(64, EPS_REGISTERS_32, 32, 33, 34, EPS_ACC32(d, 0));
  } else if constexpr (kCols == 32) {
    EPS_WGMMA(32, EPS_REGISTERS_16, 16, 17, 18, EPS_ACC16(d, 0));
  } else {
    static_assert(kCols == 0, "no instruction for this width is listed here");
  }
}

#undef EPS_WGMMA
#undef EPS_REGISTERS_128
#undef EPS_REGISTERS_112
#undef EPS_REGISTERS_96
#undef EPS_REGISTERS_80
#undef EPS_REGISTERS_64
#undef EPS_REGISTERS_48
#undef EPS_REGISTERS_32
#undef EPS_REGISTERS_16
#undef EPS_ACC32
#undef EPS_ACC16
#undef EPS_ACC4

}  // namespace eps::cuda
