#include "engine/cuda_loader.h"

#include <dlfcn.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <vector>

#include "base/error.h"

namespace eps::engine {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> candidate_paths() {
  if (const char* named = std::getenv(kCudaModuleVariable); named != nullptr && *named != '\0') return {named};
  std::vector<std::string> out;
  std::error_code error;
  const fs::path program = fs::read_symlink("/proc/self/exe", error);
  if (!error) {
    out.push_back(program.parent_path() / ops::kCudaModuleFile);
    out.push_back(program.parent_path().parent_path() / "lib" / "epsmoe" / ops::kCudaModuleFile);
  }
  return out;
}

// The opened library, or the reason why there is none.
struct Opened {
  const ops::CudaModule* module = nullptr;
  std::string why_not;
  bool is_broken = false;  // the library exists, but cannot be loaded
};

Opened open_library() {
  Opened out;
  out.why_not = "this build has no CUDA backend";
  for (const std::string& path : candidate_paths()) {
    std::error_code error;
    if (!fs::exists(path, error)) continue;
    void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) {
      out.why_not = fmt::format("the CUDA backend cannot be loaded ({})", dlerror());
      out.is_broken = true;
      continue;
    }
    using Entry = const ops::CudaModule* (*)();
    const auto entry = reinterpret_cast<Entry>(dlsym(library, ops::kCudaModuleSymbol));
    if (entry == nullptr || std::strcmp(entry()->build, ops::kCudaModuleBuild) != 0) {
      out.why_not = fmt::format("{} belongs to another build of epsmoe", path);
      dlclose(library);
      continue;
    }
    out.module = entry();  // the library is never closed, because all op sets execute its code
    return out;
  }
  if (const char* named = std::getenv(kCudaModuleVariable); named != nullptr && *named != '\0') {
    std::error_code error;
    if (!fs::exists(named, error))
      out.why_not = fmt::format("${} does not name an existing file ({})", kCudaModuleVariable, named);
  }
  return out;
}

const Opened& opened() {
  static const Opened library = open_library();
  return library;
}

}  // namespace

std::unique_ptr<ops::OpSet> make_cuda_op_set(int device) {
  if (opened().module == nullptr) {
    fail(opened().is_broken ? ErrorKind::kResource : ErrorKind::kUsage, "device",
         {.what = opened().why_not, .got = "cuda", .wanted = "cpu or reference", .hint = "`device` cpu"});
  }
  return opened().module->make_ops(device);
}

std::unique_ptr<ops::AllToAllBaseline> make_nccl_baseline(const std::vector<int>& gpus, int64_t max_bytes,
                                                          std::string& why_not) {
  if (opened().module == nullptr) {
    why_not = opened().why_not;
    return nullptr;
  }
  return opened().module->make_nccl(gpus, max_bytes, why_not);
}

ops::GpuList cuda_gpus() {
  if (opened().module == nullptr) return {};
  return opened().module->list_gpus();
}

ops::CudaReport cuda_report() {
  if (opened().module == nullptr) return {false, opened().why_not};
  return opened().module->report();
}

}  // namespace eps::engine
