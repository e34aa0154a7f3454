#include "ops/cuda/few_token_exchange.h"

#include <algorithm>
#include <cstring>
#include <new>

#include "base/error.h"
#include "ops/cuda/kernels/exchange/combine_rows.h"

namespace eps::cuda {
namespace {

// Rooms are cleared, because an inbox is read before every part of it has been written: the experts of tokens that a
// rank does not have are not used, but numbers of tokens are.
template <typename T>
T* cleared_room(Buffer& buffer, int64_t count) {
  const size_t bytes = static_cast<size_t>(count) * sizeof(T);
  buffer.reserve(bytes);
  EPS_CUDA(cudaMemset(buffer.data(), 0, bytes));
  return reinterpret_cast<T*>(buffer.data());
}

}  // namespace

FewTokenExchange::FewTokenExchange(comm::Communicator& comm, MemoryResource& device)
    : comm_(comm),
      host_memory_(pinned_),
      words_(device),
      num_tokens_(device),
      idx_(device),
      weight_(device),
      x_(device),
      sums_(device) {
  host_memory_.reserve(sizeof(HostWords));
  new (host_memory_.data()) HostWords;
  words_.reserve(sizeof(FlagWords));
  flags_.own = reinterpret_cast<FlagWords*>(words_.data());
  flags_.num_ranks = comm.size();
  flags_.rank = comm.rank();
  // Pinned memory has the same address on the host and on every device.
  flags_.failure = reinterpret_cast<uint32_t*>(&host().failure);
  flags_.is_aborted = reinterpret_cast<const uint32_t*>(&host().watch.is_aborted);
  comm.watch_aborts(&host().watch);
}

FewTokenExchange::~FewTokenExchange() { comm_.watch_aborts(nullptr); }

void FewTokenExchange::allocate(int top_k, int64_t width) {
  const auto tokens = int64_t{comm_.size()} * most_tokens();
  own_.num_tokens = cleared_room<int32_t>(num_tokens_, comm_.size());
  own_.idx = cleared_room<int32_t>(idx_, tokens * top_k);
  own_.weight = cleared_room<float>(weight_, tokens * top_k);
  own_.x = cleared_room<nv_bf16>(x_, tokens * width);
  own_.sums = cleared_room<nv_bf16>(sums_, tokens * width);
  load_few_token_kernels();
  load_flag_sum_kernels();
  top_k_ = top_k;
  width_ = width;
}

void FewTokenExchange::exchange_addresses() {
  Published mine{flags_.own, own_, 0};
  EPS_CUDA(cudaGetDevice(&mine.device));
  std::vector<int> devices;
  inboxes_.clear();
  for (const std::vector<std::byte>& bytes : comm_.all_gather(std::as_bytes(std::span(&mine, 1)))) {
    Published other;
    EPS_CHECK_EQ(bytes.size(), sizeof(other));
    std::memcpy(&other, bytes.data(), sizeof(other));
    flags_.of[devices.size()] = other.words;
    inboxes_.push_back(other.inbox);
    devices.push_back(other.device);
  }
  std::ranges::sort(devices);
  is_usable_ = devices.size() > 1 && std::ranges::adjacent_find(devices) == devices.end();
}

void FewTokenExchange::set_up(int top_k, int64_t width) {
  // All ranks find the same: an abort is counted on all of them.
  const uint32_t aborts = host().watch.num_aborts.load();
  const bool is_same = top_k == top_k_ && width == width_;
  if (is_set_up_ && is_same && aborts == seen_aborts_) return;
  is_set_up_ = false;
  if (!is_same) allocate(top_k, width);
  // After an abort, ranks may have counted different numbers of layers. No rank waits now, and none stores a flag
  // before all have been here.
  EPS_CUDA(cudaMemset(words_.data(), 0, sizeof(FlagWords)));
  EPS_CUDA(cudaDeviceSynchronize());
  host().failure.store(0);
  exchange_addresses();
  seen_aborts_ = aborts;
  is_set_up_ = true;
}

void FewTokenExchange::check() const {
  const uint32_t code = host().failure.load();
  if (code == 0) return;
  // Ranks have recovered from an abort since: the failure was reported, and set_up() will reset the flags.
  if (host().watch.is_aborted.load() == 0 && host().watch.num_aborts.load() != seen_aborts_) return;
  const std::string where = fmt::format("rank {}", comm_.rank());
  if (code == FlagFailure::kAborted) {
    throw Error(ErrorKind::kAborted, where, "its GPU stopped waiting, because another rank failed");
  }
  throw Error(ErrorKind::kTimeout, where,
              fmt::format("its GPU waited {} s for the {} of rank {}", kFlagTimeoutNs / 1'000'000'000,
                          FlagFailure::flag(code) == RankFlag::kTokens ? "tokens" : "sums", FlagFailure::rank(code)));
}

}  // namespace eps::cuda
