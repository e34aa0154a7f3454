// What a rank's CUDA work shares: its stream, its memory, staging for what comes from the host.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "ops/cuda/cuda_check.h"
#include "tensor/memory.h"
#include "tensor/tensor.h"

namespace eps::cuda {

struct CloseStream {
  void operator()(cudaStream_t stream) const { cudaStreamDestroy(stream); }
};
using StreamPtr = std::unique_ptr<std::remove_pointer_t<cudaStream_t>, CloseStream>;
StreamPtr make_stream();

struct CloseEvent {
  void operator()(cudaEvent_t event) const { cudaEventDestroy(event); }
};
using EventPtr = std::unique_ptr<std::remove_pointer_t<cudaEvent_t>, CloseEvent>;
EventPtr make_event();

// Memory of the calling thread's device. Counts what comes and goes: whoever keeps addresses (a recorded graph) asks
// whether any moved. One object for the process, so that weights may outlive the op set that packed them.
class DeviceMemory final : public MemoryResource {
 public:
  static DeviceMemory& get();

  // Errors  kResource: no room on the device
  std::byte* allocate(size_t num_bytes) override;
  void deallocate(std::byte* p) noexcept override;
  bool on_host() const override { return false; }
  uint64_t num_changes() const { return num_changes_; }

 private:
  std::atomic<uint64_t> num_changes_{0};
};

// Page-locked host memory, which copies to and from the device overlap with everything else.
class PinnedMemory final : public MemoryResource {
 public:
  std::byte* allocate(size_t num_bytes) override;
  void deallocate(std::byte* p) noexcept override;
  bool on_host() const override { return true; }
};

// Copies host memory to the device through page-locked buffers used in turn, so that filling one overlaps with copying
// the other.
class Uploader {
 public:
  Uploader(PinnedMemory& pinned, cudaStream_t stream);

  // The source may be reused when the call returns; the copy takes effect in the stream's order.
  void upload(const void* from, size_t num_bytes, void* to);
  // As bf16: of f32, bf16 or f16 elements, rounded to nearest.
  void upload_as_bf16(const TensorView& from, nv_bf16* to);

 private:
  static constexpr size_t kPieceBytes = size_t{8} << 20;
  static constexpr size_t kNumPieces = 4;
  struct Piece {
    explicit Piece(PinnedMemory& pinned) : memory(pinned), copied(make_event()) {}
    Buffer memory;
    EventPtr copied;
  };
  // The next piece of staging memory, once its last copy is done.
  Piece& next();
  void send(Piece& piece, size_t num_bytes, void* to);

  cudaStream_t stream_;
  std::vector<Piece> pieces_;
  size_t turn_ = 0;
};

}  // namespace eps::cuda
