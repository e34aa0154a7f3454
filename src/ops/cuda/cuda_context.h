// What all CUDA work of a rank shares: its stream, its memory, and staging memory for copies from the host.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
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

// While one exists, the calling thread records a CUDA graph: calls that wait for the device, copy to the host or
// allocate are not part of the recording and would break its replay. They fail instead, naming the op
// (check_not_recording()).
//
// Threads  per thread, because other ranks of the process go on with such calls while this one records
class RecordingScope {
 public:
  RecordingScope();
  ~RecordingScope();
  RecordingScope(const RecordingScope&) = delete;
  RecordingScope& operator=(const RecordingScope&) = delete;
};

// Errors  kInternal, naming `op`, while the calling thread records
void check_not_recording(std::string_view op);

// Memory of one GPU, whichever is current on the calling thread. Counts allocations and deallocations, so that the
// owner of addresses (a recorded graph) can tell whether any changed. One object for each GPU, which lives as long as
// the process, so that weights may outlive the op set that packed them.
//
// Threads  any
class DeviceMemory final : public MemoryResource {
 public:
  static DeviceMemory& of(int device);
  explicit DeviceMemory(int device) : device_(device) {}

  // Errors  kResource: the device has no room; kInternal: while a step is recorded
  std::byte* allocate(size_t num_bytes) override;
  void deallocate(std::byte* p) noexcept override;
  bool on_host() const override { return false; }
  uint64_t num_changes() const { return num_changes_; }

 private:
  int device_;
  std::atomic<uint64_t> num_changes_{0};
};

// Page-locked host memory, so that copies to and from the device overlap with other work.
class PinnedMemory final : public MemoryResource {
 public:
  std::byte* allocate(size_t num_bytes) override;
  void deallocate(std::byte* p) noexcept override;
  bool on_host() const override { return true; }
};

// Copies host memory to the device through several page-locked buffers, so that filling one overlaps with copying
// another.
class Uploader {
 public:
  Uploader(PinnedMemory& pinned, cudaStream_t stream);

  // The source may be reused when the call returns; the copy takes effect in the order of the stream.
  //
  // Errors  kInternal: while a step is recorded, because it may wait for earlier copies
  void upload(const void* from, size_t num_bytes, void* to);
  // The same for f32, bf16 or f16 elements, rounded to the nearest bf16.
  void upload_as_bf16(const TensorView& from, nv_bf16* to);

 private:
  static constexpr size_t kPieceBytes = size_t{8} << 20;
  static constexpr size_t kNumPieces = 4;
  struct Piece {
    explicit Piece(PinnedMemory& pinned) : memory(pinned), copied(make_event()) {}
    Buffer memory;
    EventPtr copied;
  };
  // The next piece of staging memory, after its last copy has finished.
  Piece& next();
  void send(Piece& piece, size_t num_bytes, void* to);

  cudaStream_t stream_;
  std::vector<Piece> pieces_;
  size_t next_piece_ = 0;
};

// A list that the host makes for the kernels of one op, in device memory that is reused by the next.
class DeviceList {
 public:
  DeviceList(MemoryResource& device, Uploader& uploader) : memory_(device), uploader_(uploader) {}

  // Valid until the next call; kernels enqueued before it have read the old list when the new one is copied.
  const std::byte* upload(std::span<const std::byte> list);

 private:
  Buffer memory_;
  Uploader& uploader_;
};

}  // namespace eps::cuda
