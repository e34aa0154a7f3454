#include "ops/cpu/packed_linear.h"

#include "base/error.h"
#include "ops/cpu/amx_gemm.h"
#include "ops/cpu/onednn_gemm.h"
#include "ops/cpu/panel_gemm.h"

namespace eps::ops {
namespace {

CpuEngineChoice choose_panels(const CpuFeatures& features, std::string why) {
  CpuEngineChoice choice;
  choice.features = features;
  choice.engine = CpuEngine::kPanel;
  choice.compute = DType::kF32;
  if (features.has_avx512_kernels() && panel_kernels_avx512() != nullptr) {
    choice.isa = "avx512";
  } else if (features.has_avx2_kernels() && panel_kernels_avx2() != nullptr) {
    choice.isa = "avx2";
  } else {
    choice.isa = "portable";
  }
  choice.reason = fmt::format("f32 on {}: {}", choice.isa, why);
  return choice;
}

CpuEngineChoice choose_amx(const CpuFeatures& features, std::string why) {
  CpuEngineChoice choice;
  choice.features = features;
  choice.engine = CpuEngine::kAmx;
  choice.compute = DType::kBF16;
  choice.isa = "amx_bf16";
  choice.reason = "bf16 in AMX tiles: " + std::move(why);
  return choice;
}

CpuEngineChoice choose_onednn(const CpuFeatures& features, std::string why) {
  CpuEngineChoice choice;
  choice.features = features;
  choice.engine = CpuEngine::kOneDnn;
  choice.compute = DType::kBF16;
  choice.isa = "avx512_bf16";
  choice.reason = "bf16 on avx512_bf16 through oneDNN: " + std::move(why);
  choice.onednn = make_onednn_context();
  return choice;
}

}  // namespace

CpuEngineChoice choose_cpu_engine(std::optional<DType> wanted_compute) {
  return choose_cpu_engine(wanted_compute, cpu_features());
}

CpuEngineChoice choose_cpu_engine(std::optional<DType> wanted_compute, const CpuFeatures& features) {
  const bool amx = features.has_amx_bf16() && has_amx_kernels();
  if (!wanted_compute) {
    if (amx) return choose_amx(features, "the CPU supports them");
    return choose_panels(features, features.avx512_bf16 ? "without AMX, f32 is as fast and more accurate"
                                                        : "the CPU has no bf16 instructions");
  }
  if (*wanted_compute == DType::kF32) return choose_panels(features, "as requested");
  if (*wanted_compute != DType::kBF16) {
    fail(ErrorKind::kUsage, "compute dtype",
         {"cannot compute in this dtype", std::string(to_string(*wanted_compute)), "f32 or bf16", ""});
  }
  if (amx) return choose_amx(features, "as requested");
  if (features.avx512_bf16 && features.has_avx512_kernels()) return choose_onednn(features, "as requested");
  fail(ErrorKind::kUsage, "compute dtype",
       {"this CPU has no bf16 instructions", fmt::format("{} ({})", features.brand, features.isa_list()),
        "amx_bf16 or avx512_bf16", "f32, which also reads bf16 weights"});
}

std::unique_ptr<PackedLinear> pack_linear(std::span<const TensorView> parts, const CpuEngineChoice& choice,
                                          ThreadPool* pool) {
  EPS_CHECK(!parts.empty(), "a linear layer needs at least one weight");
  for (const TensorView& part : parts) {
    EPS_CHECK_EQ(part.shape().rank(), 2);
    EPS_CHECK_EQ(part.dim(1), parts[0].dim(1));
    EPS_CHECK_GT(part.dim(0), 0);
    EPS_CHECK_GT(part.dim(1), 0);
    EPS_CHECK(part.dtype() == DType::kF32 || part.dtype() == DType::kBF16 || part.dtype() == DType::kF16,
              "weights are f32, bf16 or f16, not {}", to_string(part.dtype()));
  }
  if (choice.engine == CpuEngine::kPanel) return pack_panels(parts, panel_kernels(choice.isa), pool);
  if (choice.engine == CpuEngine::kAmx) return pack_amx(parts, pool);
  EPS_CHECK(choice.onednn != nullptr, "the choice has no oneDNN context; use choose_cpu_engine");
  return pack_onednn(parts, choice.onednn, pool);
}

}  // namespace eps::ops
