#include "ops/cuda/nccl_baseline.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>
#include <set>

#include "base/error.h"
#include "ops/cuda/cuda_context.h"

namespace eps::cuda {
namespace {

// The part of NCCL's interface that is used here (nccl.h, stable since NCCL 2.7).
using Comm = void*;
constexpr int kSuccess = 0;
constexpr int kUint8 = 1;
struct Nccl {
  int (*get_version)(int*);
  const char* (*get_error_string)(int);
  int (*comm_init_all)(Comm*, int, const int*);
  int (*comm_destroy)(Comm);
  int (*group_start)();
  int (*group_end)();
  int (*send)(const void*, size_t, int, int, Comm, cudaStream_t);
  int (*recv)(void*, size_t, int, int, Comm, cudaStream_t);
};

template <typename Function>
bool find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  return function != nullptr;
}

// The opened library; null with the reason if there is none. It is never closed.
const Nccl* open_nccl(std::string& why_not) {
  // NVLink multicast is an optional path of NCCL, and not all hosts that offer it can be relied on.
  setenv("NCCL_NVLS_ENABLE", "0", 0);
  void* library = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    why_not = "libnccl.so.2 is not found";
    return nullptr;
  }
  static Nccl nccl;
  const bool complete =
      find(library, "ncclGetVersion", nccl.get_version) && find(library, "ncclGetErrorString", nccl.get_error_string) &&
      find(library, "ncclCommInitAll", nccl.comm_init_all) && find(library, "ncclCommDestroy", nccl.comm_destroy) &&
      find(library, "ncclGroupStart", nccl.group_start) && find(library, "ncclGroupEnd", nccl.group_end) &&
      find(library, "ncclSend", nccl.send) && find(library, "ncclRecv", nccl.recv);
  if (complete) return &nccl;
  why_not = "libnccl.so.2 is older than 2.7";
  return nullptr;
}

class NcclBaseline final : public ops::AllToAllBaseline {
 public:
  NcclBaseline(const Nccl& nccl, const std::vector<int>& gpus, int64_t max_bytes)
      : nccl_(nccl), max_bytes_(max_bytes), ranks_(gpus.size()), comms_(gpus.size()) {
    const size_t memory = static_cast<size_t>(max_bytes) * gpus.size();
    for (size_t r = 0; r < gpus.size(); ++r) {
      Rank& rank = ranks_[r];
      rank.gpu = gpus[r];
      EPS_CUDA(cudaSetDevice(rank.gpu));
      rank.stream = make_stream();
      rank.begin = make_timing_event();
      rank.end = make_timing_event();
      EPS_CUDA(cudaMalloc(&rank.send, memory));
      EPS_CUDA(cudaMalloc(&rank.recv, memory));
      EPS_CUDA(cudaMemset(rank.send, 0, memory));
    }
    check(nccl_.comm_init_all(comms_.data(), static_cast<int>(gpus.size()), gpus.data()), "ncclCommInitAll");
  }
  ~NcclBaseline() override {
    for (const Comm comm : comms_) {
      if (comm != nullptr) nccl_.comm_destroy(comm);
    }
    for (Rank& rank : ranks_) {
      cudaSetDevice(rank.gpu);
      cudaFree(rank.send);
      cudaFree(rank.recv);
    }
  }
  NcclBaseline(const NcclBaseline&) = delete;
  NcclBaseline& operator=(const NcclBaseline&) = delete;

  std::string implementation() const override {
    int version = 0;
    nccl_.get_version(&version);
    return fmt::format("NCCL {}.{}.{}", version / 10000, version / 100 % 100, version % 100);
  }

  double time_us(int64_t bytes) override {
    EPS_CHECK_LE(bytes, max_bytes_);
    for (Rank& rank : ranks_) {
      EPS_CUDA(cudaSetDevice(rank.gpu));
      EPS_CUDA(cudaStreamSynchronize(rank.stream.get()));
    }
    // Events and messages of all GPUs are issued before any of them can be waited for.
    for (Rank& rank : ranks_) {
      EPS_CUDA(cudaSetDevice(rank.gpu));
      EPS_CUDA(cudaEventRecord(rank.begin.get(), rank.stream.get()));
    }
    check(nccl_.group_start(), "ncclGroupStart");
    for (size_t r = 0; r < ranks_.size(); ++r) {
      for (size_t other = 0; other < ranks_.size(); ++other) {
        if (other == r) continue;
        const auto count = static_cast<size_t>(bytes);
        const int peer = static_cast<int>(other);
        const auto at = [&](void* memory) {
          return static_cast<uint8_t*>(memory) + other * static_cast<size_t>(max_bytes_);
        };
        check(nccl_.send(at(ranks_[r].send), count, kUint8, peer, comms_[r], ranks_[r].stream.get()), "ncclSend");
        check(nccl_.recv(at(ranks_[r].recv), count, kUint8, peer, comms_[r], ranks_[r].stream.get()), "ncclRecv");
      }
    }
    check(nccl_.group_end(), "ncclGroupEnd");
    double longest = 0;
    for (Rank& rank : ranks_) {
      EPS_CUDA(cudaSetDevice(rank.gpu));
      EPS_CUDA(cudaEventRecord(rank.end.get(), rank.stream.get()));
    }
    for (Rank& rank : ranks_) {
      float ms = 0;
      EPS_CUDA(cudaEventSynchronize(rank.end.get()));
      EPS_CUDA(cudaEventElapsedTime(&ms, rank.begin.get(), rank.end.get()));
      longest = std::max(longest, static_cast<double>(ms) * 1e3);
    }
    return longest;
  }

 private:
  struct Rank {
    int gpu = 0;
    StreamPtr stream;
    EventPtr begin, end;
    void* send = nullptr;
    void* recv = nullptr;
  };

  void check(int result, const char* call) const {
    if (result == kSuccess) return;
    raise_library_error("NCCL", nccl_.get_error_string(result), {call, __FILE__, __LINE__});
  }

  const Nccl& nccl_;
  int64_t max_bytes_;
  std::vector<Rank> ranks_;
  std::vector<Comm> comms_;
};

}  // namespace

std::unique_ptr<ops::AllToAllBaseline> make_nccl_baseline(const std::vector<int>& gpus, int64_t max_bytes,
                                                          std::string& why_not) {
  if (std::set<int>(gpus.begin(), gpus.end()).size() != gpus.size()) {
    why_not = "NCCL needs a GPU for each rank";
    return nullptr;
  }
  const Nccl* nccl = open_nccl(why_not);
  if (nccl == nullptr) return nullptr;
  return std::make_unique<NcclBaseline>(*nccl, gpus, max_bytes);
}

}  // namespace eps::cuda
