#include "engine/factory.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "base/cpu_features.h"
#include "base/error.h"
#include "comm/emulated_link.h"
#include "comm/inproc/inproc.h"
#include "engine/cuda_loader.h"
#include "engine/gpu_choice.h"
#include "ops/cpu/cpu_ops.h"
#include "ops/cpu/onednn_baseline.h"
#include "ops/reference/reference_ops.h"

namespace eps::engine {
namespace {

std::optional<DType> parse_dtype(const std::string& dtype) {
  if (dtype == "auto") return std::nullopt;
  if (dtype == "f32" || dtype == "float32") return DType::kF32;
  if (dtype == "bf16" || dtype == "bfloat16") return DType::kBF16;
  fail(ErrorKind::kUsage, "dtype",
       {.what = "unknown compute dtype", .got = dtype, .wanted = "auto, f32 or bf16", .hint = ""});
}

void require_in_range(const char* field, int value, int most) {
  if (value >= 1 && value <= most) return;
  fail(ErrorKind::kUsage, field,
       {.what = "out of range", .got = std::to_string(value), .wanted = fmt::format("1 to {}", most), .hint = ""});
}

std::vector<std::unique_ptr<ops::OpSet>> make_cuda_op_sets(int num_ranks, const std::vector<int>& gpus) {
  const ops::GpuList available = cuda_gpus();
  std::vector<std::unique_ptr<ops::OpSet>> out;
  if (available.gpus.empty()) {
    out.push_back(make_cuda_op_set(0));  // throws an error that names what is missing
    return out;
  }
  for (const int gpu : choose_gpus(available, num_ranks, gpus)) out.push_back(make_cuda_op_set(gpu));
  return out;
}

class OneDnnGemm final : public ops::GemmBaseline {
 public:
  OneDnnGemm(const TensorView& weights, int num_threads) : product_(weights.dtype(), weights, num_threads) {}
  void run(int64_t m, const void* x, float* y) override { product_.run(m, x, y); }
  std::string implementation(int64_t m) override { return product_.implementation(m); }

 private:
  ops::OneDnnBaseline product_;
};

}  // namespace

RankThreadUse rank_thread_use(const std::string& emulate_link) {
  return emulate_link.empty() ? RankThreadUse::kShared : RankThreadUse::kSeparate;
}

std::vector<std::unique_ptr<ops::OpSet>> make_op_sets(const std::string& device, const std::string& dtype,
                                                      int num_ranks, int threads_per_rank, StopToken stop,
                                                      RankThreadUse thread_use, const std::vector<int>& gpus) {
  require_in_range("ep", num_ranks, kMaxRanks);
  require_in_range("threads", threads_per_rank, max_threads_per_rank());
  const std::optional<DType> wanted = parse_dtype(dtype);
  if (!gpus.empty() && device != "cuda") {
    fail(ErrorKind::kUsage, "gpus",
         {.what = fmt::format("selects GPUs, but the ranks run on {}", device),
          .got = fmt::format("{}", fmt::join(gpus, ",")),
          .wanted = "",
          .hint = "`device` cuda"});
  }
  std::vector<std::unique_ptr<ops::OpSet>> out;
  if (device == "cpu") {
    return ops::make_cpu_op_sets(ops::choose_cpu_engine(wanted), num_ranks, threads_per_rank,
                                 thread_use == RankThreadUse::kShared, stop);
  } else if (device == "reference") {
    if (wanted == DType::kBF16) {
      fail(ErrorKind::kUsage, "dtype",
           {.what = "the reference op set computes in f32", .got = dtype, .wanted = "f32", .hint = ""});
    }
    for (int r = 0; r < num_ranks; ++r) out.push_back(ops::make_reference_ops(stop));
  } else if (device == "cuda") {
    if (wanted == DType::kF32) {
      fail(ErrorKind::kUsage, "dtype",
           {.what = "the CUDA op set computes in bf16", .got = dtype, .wanted = "auto or bf16", .hint = ""});
    }
    return make_cuda_op_sets(num_ranks, gpus);
  } else {
    fail(ErrorKind::kUsage, "device",
         {.what = "unknown device", .got = device, .wanted = "cpu, cuda or reference", .hint = "`device` cpu"});
  }
  return out;
}

std::vector<std::unique_ptr<comm::Communicator>> make_communicators(int num_ranks, std::chrono::milliseconds timeout,
                                                                    const std::string& emulate_link, StopToken stop) {
  require_in_range("ep", num_ranks, kMaxRanks);
  auto comms = comm::make_inproc_communicators(num_ranks, timeout, stop);
  if (!emulate_link.empty()) {
    if (num_ranks == 1) {
      fail(ErrorKind::kUsage, "emulate_link",
           {.what = "a single rank has no link to emulate", .got = emulate_link, .wanted = "", .hint = "`ep` 2"});
    }
    const comm::LinkSpec link = comm::parse_link_spec(emulate_link);
    for (auto& comm : comms) comm = comm::make_emulated_link(std::move(comm), link, stop);
  }
  return comms;
}

int max_threads_per_rank() { return std::min(1024, 4 * std::max(1, cpu_features().usable_cores)); }

int default_threads_per_rank(int num_ranks) { return std::max(1, cpu_features().usable_cores / num_ranks); }

std::unique_ptr<ops::GemmBaseline> make_gemm_baseline(const TensorView& weights, int num_threads) {
  return std::make_unique<OneDnnGemm>(weights, num_threads);
}

std::unique_ptr<ops::AllToAllBaseline> make_all_to_all_baseline(int num_ranks, const std::vector<int>& gpus,
                                                                int64_t max_bytes, std::string& why_not) {
  return make_nccl_baseline(choose_gpus(cuda_gpus(), num_ranks, gpus), max_bytes, why_not);
}

ops::GpuList report_gpus() { return cuda_gpus(); }

std::vector<BackendReport> report_backends() {
  std::vector<BackendReport> out;
  const ops::CpuEngineChoice choice = ops::choose_cpu_engine(std::nullopt);
  out.push_back({"cpu", true, fmt::format("{} ({}): {}", to_string(choice.compute), choice.isa, choice.reason)});
  out.push_back({"reference", true, "f32, slow: the oracle for tests"});
  ops::CudaReport cuda = cuda_report();
  out.push_back({"cuda", cuda.available, std::move(cuda.detail)});
  return out;
}

}  // namespace eps::engine
