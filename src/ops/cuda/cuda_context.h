// Resources that all CUDA work of a rank shares: its stream, its memory, and staging memory for copies from the host.
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
// A stream whose kernels are scheduled first when an SM becomes free.
StreamPtr make_urgent_stream();

// Makes `stream` wait until the counter, in device memory, has reached `value` (modulo 2^32).
void wait_for_counter(cudaStream_t stream, const int32_t* counter, uint32_t value);

struct CloseEvent {
  void operator()(cudaEvent_t event) const { cudaEventDestroy(event); }
};
using EventPtr = std::unique_ptr<std::remove_pointer_t<cudaEvent_t>, CloseEvent>;
EventPtr make_event();  // without times
EventPtr make_timing_event();

// During its lifetime, the calling thread records a CUDA graph. Calls that wait for the device, copy to the host or
// allocate memory cannot be recorded and would break the replay, so they fail with an error that names the op
// (check_not_recording()).
//
// Threads  thread-local, because other ranks of the process may make such calls meanwhile
class RecordingScope {
 public:
  RecordingScope();
  ~RecordingScope();
  RecordingScope(const RecordingScope&) = delete;
  RecordingScope& operator=(const RecordingScope&) = delete;
};

// Errors  kInternal, naming `op`, while the calling thread records
void check_not_recording(std::string_view op);

// Memory of the GPU that is current on the calling thread. It counts allocations and deallocations, so that an owner of
// addresses (a recorded graph) can detect that some may have become invalid. There is one object per GPU, which exists
// as long as the process, so that weights may outlive the op set that packed them.
//
// Threads  any
class DeviceMemory final : public MemoryResource {
 public:
  static DeviceMemory& of(int device);
  explicit DeviceMemory(int device) : device_(device) {}

  // Errors  kResource: the device is out of memory; kInternal: a step is being recorded
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

// Copies host memory to the device through several page-locked buffers: one is filled while another is being copied.
class Uploader {
 public:
  Uploader(PinnedMemory& pinned, cudaStream_t stream);

  // The source may be reused when the call returns; the copy takes effect in the order of the stream.
  //
  // Errors  kInternal while a step is recorded, because the call may wait for earlier copies
  void upload(const void* from, size_t num_bytes, void* to);
  // The same for f32, bf16 or f16 elements, which are rounded to bf16.
  void upload_as_bf16(const TensorView& from, nv_bf16* to);

 private:
  static constexpr size_t kPieceBytes = size_t{8} << 20;
  static constexpr size_t kNumPieces = 4;
  struct Piece {
    explicit Piece(PinnedMemory& pinned) : memory(pinned), copied(make_event()) {}
    Buffer memory;
    EventPtr copied;
  };
  // Returns the next staging buffer after its previous copy has finished.
  Piece& next();
  void send(Piece& piece, size_t num_bytes, void* to);

  cudaStream_t stream_;
  std::vector<Piece> pieces_;
  size_t next_piece_ = 0;
};

// Device memory for a list that the host creates for the kernels of one op; the next op reuses the memory.
class DeviceList {
 public:
  DeviceList(MemoryResource& device, Uploader& uploader) : memory_(device), uploader_(uploader) {}

  // The result is valid until the next call. The new list is copied in stream order, after kernels that read the old
  // one.
  const std::byte* upload(std::span<const std::byte> list);

 private:
  Buffer memory_;
  Uploader& uploader_;
};

}  // namespace eps::cuda
