#include "ops/cuda/cuda_context.h"

#include <cuda.h>
#include <cudaTypedefs.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <mutex>
#include <string>

#include "base/error.h"
#include "tensor/widen.h"

namespace eps::cuda {
namespace {

thread_local bool is_recording =
    false;  // NOLINT(cppcoreguidelines-avoid-non-const-global-variables): see RecordingScope

// Checks the result of an allocation of `num_bytes`.
void check_allocated(cudaError_t error, bool on_host, size_t num_bytes, const CallSite& site) {
  if (error == cudaErrorMemoryAllocation)
    raise_out_of_memory(on_host ? "page-locked host memory" : "GPU memory", on_host, num_bytes);
  check(error, site);
}

// During its lifetime, a GPU is the calling thread's current one.
class CurrentDevice {
 public:
  explicit CurrentDevice(int device) {
    if (cudaGetDevice(&before_) != cudaSuccess || before_ == device) return;
    has_changed_ = cudaSetDevice(device) == cudaSuccess;
  }
  ~CurrentDevice() {
    if (has_changed_) cudaSetDevice(before_);
  }
  CurrentDevice(const CurrentDevice&) = delete;
  CurrentDevice& operator=(const CurrentDevice&) = delete;

 private:
  int before_ = 0;
  bool has_changed_ = false;
};

}  // namespace

RecordingScope::RecordingScope() { is_recording = true; }
RecordingScope::~RecordingScope() { is_recording = false; }

void check_not_recording(std::string_view op) {
  if (!is_recording) return;
  fail(ErrorKind::kInternal, std::string(op),
       {.what = "it waits for the device or allocates, which a recorded step (OpSet::run_step) must not do",
        .got = "a call while a CUDA graph is recorded",
        .wanted = "",
        .hint = "calling it before or after run_step"});
}

StreamPtr make_stream() {
  cudaStream_t stream = nullptr;
  EPS_CUDA(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  return StreamPtr(stream);
}

StreamPtr make_urgent_stream() {
  int least = 0;
  int greatest = 0;
  EPS_CUDA(cudaDeviceGetStreamPriorityRange(&least, &greatest));
  cudaStream_t stream = nullptr;
  EPS_CUDA(cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, greatest));
  return StreamPtr(stream);
}

void wait_for_counter(cudaStream_t stream, const int32_t* counter, uint32_t value) {
  static const auto wait = [] {
    void* function = nullptr;
    cudaDriverEntryPointQueryResult found{};
    EPS_CUDA(cudaGetDriverEntryPointByVersion("cuStreamWaitValue32", &function, 12000, cudaEnableDefault, &found));
    if (found != cudaDriverEntryPointSuccess) {
      raise_library_error("the NVIDIA driver", "it has no such function: it is older than CUDA 12.0",
                          {"cuStreamWaitValue32", __FILE__, __LINE__});
    }
    return reinterpret_cast<PFN_cuStreamWaitValue32_v11070>(function);
  }();
  const CUresult result = wait(stream, reinterpret_cast<CUdeviceptr>(counter), value, CU_STREAM_WAIT_VALUE_GEQ);
  if (result != CUDA_SUCCESS) {
    const std::string why = "CUresult " + std::to_string(static_cast<int>(result));
    raise_library_error("the NVIDIA driver", why.c_str(), {"cuStreamWaitValue32", __FILE__, __LINE__});
  }
}

EventPtr make_event() {
  cudaEvent_t event = nullptr;
  EPS_CUDA(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  return EventPtr(event);
}

EventPtr make_timing_event() {
  cudaEvent_t event = nullptr;
  EPS_CUDA(cudaEventCreate(&event));
  return EventPtr(event);
}

DeviceMemory& DeviceMemory::of(int device) {
  static std::mutex mutex;
  static std::map<int, std::unique_ptr<DeviceMemory>> devices;
  const std::lock_guard lock(mutex);
  std::unique_ptr<DeviceMemory>& memory = devices[device];
  if (memory == nullptr) memory = std::make_unique<DeviceMemory>(device);
  return *memory;
}

std::byte* DeviceMemory::allocate(size_t num_bytes) {
  void* p = nullptr;
  check_not_recording("DeviceMemory::allocate");
  const CurrentDevice current(device_);
  check_allocated(cudaMalloc(&p, num_bytes), false, num_bytes, {"cudaMalloc", __FILE__, __LINE__});
  ++num_changes_;
  return static_cast<std::byte*>(p);
}

void DeviceMemory::deallocate(std::byte* p) noexcept {
  const CurrentDevice current(device_);
  cudaFree(p);  // waits for the work that may still use it
  ++num_changes_;
}

std::byte* PinnedMemory::allocate(size_t num_bytes) {
  void* p = nullptr;
  check_not_recording("PinnedMemory::allocate");
  check_allocated(cudaMallocHost(&p, num_bytes), true, num_bytes, {"cudaMallocHost", __FILE__, __LINE__});
  return static_cast<std::byte*>(p);
}

void PinnedMemory::deallocate(std::byte* p) noexcept { cudaFreeHost(p); }

Uploader::Uploader(PinnedMemory& pinned, cudaStream_t stream) : stream_(stream) {
  for (size_t i = 0; i < kNumPieces; ++i) pieces_.emplace_back(pinned);
}

Uploader::Piece& Uploader::next() {
  check_not_recording("Uploader::upload");
  Piece& piece = pieces_[next_piece_];
  next_piece_ = (next_piece_ + 1) % pieces_.size();
  EPS_CUDA(cudaEventSynchronize(piece.copied.get()));
  return piece;
}

void Uploader::send(Piece& piece, size_t num_bytes, void* to) {
  EPS_CUDA(cudaMemcpyAsync(to, piece.memory.data(), num_bytes, cudaMemcpyHostToDevice, stream_));
  EPS_CUDA(cudaEventRecord(piece.copied.get(), stream_));
}

void Uploader::upload(const void* from, size_t num_bytes, void* to) {
  for (size_t begin = 0; begin < num_bytes; begin += kPieceBytes) {
    const size_t count = std::min(kPieceBytes, num_bytes - begin);
    Piece& piece = next();
    piece.memory.reserve(count);
    std::memcpy(piece.memory.data(), static_cast<const std::byte*>(from) + begin, count);
    send(piece, count, static_cast<std::byte*>(to) + begin);
  }
}

void Uploader::upload_as_bf16(const TensorView& from, nv_bf16* to) {
  if (from.dtype() == DType::kBF16) return upload(from.data(), from.num_bytes(), to);
  constexpr int64_t kElements = int64_t{1} << 20;
  std::vector<float> widened;
  const int64_t total = from.numel();
  for (int64_t begin = 0; begin < total; begin += kElements) {
    const int64_t count = std::min(kElements, total - begin);
    const auto* source =
        static_cast<const std::byte*>(from.data()) + static_cast<size_t>(begin) * size_of(from.dtype());
    widened.resize(static_cast<size_t>(count));
    widen_to_f32({source, from.dtype(), {count}}, widened.data());
    Piece& piece = next();
    auto* rounded = piece.memory.view(DType::kBF16, {count}).as<bf16>();
    std::transform(widened.begin(), widened.end(), rounded, [](float v) { return to_bf16(v); });
    send(piece, static_cast<size_t>(count) * sizeof(bf16), to + begin);
  }
}

const std::byte* DeviceList::upload(std::span<const std::byte> list) {
  memory_.reserve(std::max<size_t>(1, list.size()));
  uploader_.upload(list.data(), list.size(), memory_.data());
  return memory_.data();
}

}  // namespace eps::cuda
