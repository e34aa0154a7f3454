#include "model/weight_source.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <mutex>
#include <utility>

#include "base/cpu_features.h"
#include "base/random.h"
#include "base/thread_pool.h"

namespace eps::model {
namespace {

// Keeps released memory for the next weight of a similar size: allocating new pages takes the kernel about as long as
// filling them takes this program.
class SpareBuffers {
 public:
  Buffer take(size_t num_bytes) {
    const auto found = std::ranges::find_if(buffers_, [num_bytes](const Buffer& buffer) {
      return buffer.capacity() >= num_bytes && buffer.capacity() / 2 <= num_bytes;
    });
    if (found == buffers_.end()) return Buffer(num_bytes);
    Buffer out = std::move(*found);
    buffers_.erase(found);
    num_bytes_ -= out.capacity();
    return out;
  }
  void give(Buffer buffer) {
    if (num_bytes_ + buffer.capacity() > kMostBytes) return;
    num_bytes_ += buffer.capacity();
    buffers_.push_back(std::move(buffer));
  }

 private:
  // Room for the matrices of one expert (DeepSeek-V2: 2 x 15.7 MB).
  static constexpr size_t kMostBytes = size_t{32} << 20;
  std::vector<Buffer> buffers_;
  size_t num_bytes_ = 0;
};

// Keeps the bytes of each weight, by name, until the weight is released.
class BufferedSource : public WeightSource {
 public:
  void release(const std::string& name) override {
    const std::lock_guard lock(mutex_);
    const auto found = buffers_.find(name);
    if (found == buffers_.end()) return;
    spares_.give(std::move(found->second));
    buffers_.erase(found);
  }

  void end_loading() override {
    const std::lock_guard lock(mutex_);
    spares_ = {};
  }

 protected:
  std::mutex mutex_;  // guards the following members; weights are read or filled without holding it
  std::map<std::string, Buffer> buffers_;
  SpareBuffers spares_;
};

class CheckpointSource final : public BufferedSource {
 public:
  CheckpointSource(const io::Checkpoint& checkpoint, StoredNames names)
      : checkpoint_(checkpoint), names_(std::move(names)) {}

  bool has(const std::string& name) const override { return checkpoint_.has(names_.stored(name)); }

  TensorView get(const std::string& name, const Shape& shape) override {
    const std::string stored = names_.stored(name);
    const io::TensorType type = checkpoint_.type(stored, shape);
    const io::TensorInfo& info = checkpoint_.info(stored);
    Buffer buffer;
    {
      const std::lock_guard lock(mutex_);
      if (const auto found = buffers_.find(name); found != buffers_.end()) return found->second.view(type.dtype, shape);
      buffer = spares_.take(std::max<size_t>(1, info.num_bytes()));
    }
    // Read without the lock, so that several threads can read at the same time.
    checkpoint_.file(stored).read_bytes(info, 0, {buffer.data(), info.num_bytes()});
    const std::lock_guard lock(mutex_);
    return buffers_.try_emplace(name, std::move(buffer)).first->second.view(type.dtype, shape);
  }

 private:
  const io::Checkpoint& checkpoint_;
  StoredNames names_;
};

// A reproducible stream of random numbers for each name.
SplitMix64 stream_of(const std::string& name) {
  uint64_t seed = 0xcbf29ce484222325ULL;  // FNV
  for (const char c : name) seed = (seed ^ static_cast<unsigned char>(c)) * 0x100000001b3ULL;
  return SplitMix64(seed);
}

// Maps the sum of four random bytes to a weight. Such sums are approximately normal, and one 64-bit random number
// yields two of them.
class BellTable {
 public:
  BellTable() {
    constexpr double kDeviation = 0.02;
    constexpr double kByteVariance = (256.0 * 256.0 - 1.0) / 12.0;
    const double scale = kDeviation / std::sqrt(4 * kByteVariance);
    for (size_t sum = 0; sum < values_.size(); ++sum) {
      values_[sum] = to_bf16(static_cast<float>((static_cast<double>(sum) - 4 * 127.5) * scale));
    }
  }
  // The two weights that one random number yields.
  std::array<bf16, 2> pair(uint64_t bits) const {
    constexpr uint64_t kEvenBytes = 0x00ff00ff00ff00ffULL;
    const uint64_t twos = (bits & kEvenBytes) + ((bits >> 8) & kEvenBytes);  // four sums of two, 16 bits each
    const uint64_t fours = twos + (twos >> 16);                              // sums of four in bits 0..15 and 32..47
    return {values_[fours & 0xffff], values_[(fours >> 32) & 0xffff]};
  }

 private:
  std::array<bf16, 4 * 255 + 1> values_;
};

class DummySource final : public BufferedSource {
 public:
  DummySource(int num_threads, StopToken stop) : pool_(num_threads, stop) {}

  bool has(const std::string&) const override { return true; }

  TensorView get(const std::string& name, const Shape& shape) override {
    const int64_t count = shape.numel();
    MutableTensorView view;
    {
      const std::lock_guard lock(mutex_);
      Buffer& buffer = buffers_[name];
      if (buffer.capacity() == 0) buffer = spares_.take(std::max<size_t>(1, static_cast<size_t>(count) * sizeof(bf16)));
      view = buffer.view(DType::kBF16, shape);
    }
    bf16* out = view.as<bf16>();
    if (shape.rank() == 1) {  // a norm
      std::fill_n(out, count, to_bf16(1.0F));
      return view;
    }
    const SplitMix64 stream = stream_of(name);
    pool_.parallel_for((count + kBlock - 1) / kBlock, [&](int64_t block) {
      const int64_t begin = block * kBlock;
      fill(stream.after(static_cast<uint64_t>(begin / 2)), out + begin, std::min(kBlock, count - begin));
    });
    return view;
  }

 private:
  // Values that a thread fills at a time: about 100 µs of work, compared to which waking a thread takes little time.
  static constexpr int64_t kBlock = 1 << 16;

  void fill(SplitMix64 stream, bf16* out, int64_t count) const {
    for (int64_t i = 0; i + 1 < count; i += 2) {
      const auto pair = bell_.pair(stream.bits());
      out[i] = pair[0];
      out[i + 1] = pair[1];
    }
    if (count % 2 == 1) out[count - 1] = bell_.pair(stream.bits())[0];
  }

  BellTable bell_;
  ThreadPool pool_;
};

// More threads would fill weights faster than they can be packed.
constexpr int kMostThreads = 16;

}  // namespace

std::unique_ptr<WeightSource> make_checkpoint_source(const io::Checkpoint& checkpoint, StoredNames names) {
  return std::make_unique<CheckpointSource>(checkpoint, std::move(names));
}

std::unique_ptr<WeightSource> make_dummy_source(int num_threads, StopToken stop) {
  return std::make_unique<DummySource>(
      num_threads > 0 ? num_threads : std::min(cpu_features().usable_cores, kMostThreads), stop);
}

}  // namespace eps::model
