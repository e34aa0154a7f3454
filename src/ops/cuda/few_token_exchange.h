// The memory by which the GPUs of several ranks exchange few tokens without their hosts (kernels/exchange/few_tokens.h,
// rank_flags.h): one rank's inbox and flags, and the addresses of all others'.
//
// Kernels wait for other ranks here, so there are rules (ADR 0020). Addresses stay the same from one set-up to the
// next, because recorded steps of other ranks contain them. Each rank has a GPU of its own: a kernel that waits could
// keep the one that it waits for from starting. While a kernel may wait for a rank whose host has not issued its part,
// no memory is allocated or freed, because that may wait for the kernel.
#pragma once

#include "comm/communicator.h"
#include "ops/cuda/cuda_context.h"
#include "ops/cuda/kernels/exchange/few_tokens.h"

namespace eps::cuda {

class FewTokenExchange {
 public:
  FewTokenExchange(comm::Communicator& comm, MemoryResource& device);
  ~FewTokenExchange();
  FewTokenExchange(const FewTokenExchange&) = delete;
  FewTokenExchange& operator=(const FewTokenExchange&) = delete;

  // Allocates the memory for rows of such sizes and exchanges addresses, or resets the flags after an abort. Usually
  // there is nothing to do. All ranks call it with the same arguments, when nothing that they have issued is running.
  void set_up(int top_k, int64_t width);
  // Whether set_up() found that every rank has a GPU of its own.
  bool is_usable() const { return is_usable_; }

  // The largest number of tokens of a rank.
  int most_tokens() const { return kMostFewTokens / comm_.size(); }
  // Of this rank and all others. `num_experts`: of the layer, over all ranks
  FewTokenSizes sizes(int num_experts) const { return {most_tokens(), top_k_, static_cast<int>(width_), num_experts}; }
  const RankFlags& flags() const { return flags_; }
  const Inbox& inbox() const { return inboxes_[static_cast<size_t>(comm_.rank())]; }
  const Inbox& inbox(int rank) const { return inboxes_[static_cast<size_t>(rank)]; }

  // Errors  kTimeout, naming the rank that this GPU gave up waiting for; kAborted if it did so because of an abort
  void check() const;

 private:
  // What the kernels of this rank read and write in the host's memory.
  struct HostWords {
    comm::AbortWatch watch;
    std::atomic<uint32_t> failure{0};
  };
  // What a rank publishes to the others, as bytes of Communicator::all_gather.
  struct Published {
    FlagWords* words;
    Inbox inbox;
    int device;
  };
  HostWords& host() const { return *reinterpret_cast<HostWords*>(host_memory_.data()); }
  void allocate(int top_k, int64_t width);
  void exchange_addresses();

  comm::Communicator& comm_;
  PinnedMemory pinned_;
  Buffer host_memory_;  // HostWords
  Buffer words_;        // FlagWords
  Buffer num_tokens_, idx_, weight_, x_, sums_;
  Inbox own_;
  std::vector<Inbox> inboxes_;
  RankFlags flags_;
  int top_k_ = 0;
  int64_t width_ = 0;
  uint32_t seen_aborts_ = 0;
  bool is_set_up_ = false;
  bool is_usable_ = false;
};

}  // namespace eps::cuda
