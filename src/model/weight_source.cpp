#include "model/weight_source.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <mutex>
#include <utility>

#include "base/cpu_features.h"
#include "base/error.h"
#include "base/random.h"
#include "base/thread_pool.h"
#include "model/unpack_weights.h"
#include "tensor/widen.h"

namespace eps::model {
namespace {

// Writes every `step`-th column of src [out.dim(1), columns], whose elements have `size` bytes, to a row of `out`.
void transpose(const std::byte* src, int64_t columns, int64_t step, size_t size, MutableTensorView out) {
  auto* to = static_cast<std::byte*>(out.data());
  for (int64_t r = 0; r < out.dim(0); ++r) {
    for (int64_t c = 0; c < out.dim(1); ++c, to += size) {
      std::memcpy(to, src + static_cast<size_t>(c * columns + r * step) * size, size);
    }
  }
}

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

// Keeps the bytes of each weight, by key, until the weight is released.
class BufferedSource : public WeightSource {
 public:
  void release(const arch::StoredTensor& weight) override {
    const std::lock_guard lock(mutex_);
    const auto found = buffers_.find(weight.key());
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
  CheckpointSource(const io::Checkpoint& checkpoint, StoredNames names, std::optional<arch::Fp8Blocks> fp8_blocks)
      : checkpoint_(checkpoint), names_(std::move(names)), fp8_blocks_(fp8_blocks) {}

  bool has(const arch::StoredTensor& weight) const override { return checkpoint_.has(names_.stored(weight.name)); }

  bool reads_slices(const arch::StoredTensor& weight) const override {
    const std::string stored = names_.stored(weight.name);
    // A missing tensor is reported by get().
    const bool is_plain = checkpoint_.has(stored) && !(fp8_blocks_ && io::is_e4m3(checkpoint_.info(stored)));
    return is_plain && !weight.transposed;
  }

  TensorView get(const arch::StoredTensor& weight, const Shape& shape) override {
    const std::string stored = names_.stored(weight.name);
    if (is_mxfp4(stored)) return get_mxfp4(stored, weight, shape);
    const Shape& whole = weight.is_whole() ? shape : weight.shape;
    const bool is_fp8 = fp8_blocks_ && io::is_e4m3(checkpoint_.info(stored));
    if (is_fp8) checkpoint_.require_shape(stored, whole);
    const DType dtype = is_fp8 ? DType::kBF16 : checkpoint_.type(stored, whole).dtype;
    return read_once(weight, dtype, shape, [&](MutableTensorView out) {
      if (is_fp8) {
        read_fp8(stored, weight, out);
      } else {
        read_part(stored, weight, out);
      }
    });
  }

 private:
  // Whether a tensor is stored in MXFP4; one of its two parts may be missing, which is then reported by its name.
  bool is_mxfp4(const std::string& stored) const {
    return !checkpoint_.has(stored) && (checkpoint_.has(stored + std::string(kMxfp4BlocksSuffix)) ||
                                        checkpoint_.has(stored + std::string(kMxfp4ScalesSuffix)));
  }

  // The weight, in a buffer that read(view) has filled.
  template <typename Read>
  TensorView read_once(const arch::StoredTensor& weight, DType dtype, const Shape& shape, const Read& read) {
    Buffer buffer;
    {
      const std::lock_guard lock(mutex_);
      if (const auto found = buffers_.find(weight.key()); found != buffers_.end()) {
        return found->second.view(dtype, shape);
      }
      buffer = spares_.take(std::max<size_t>(1, static_cast<size_t>(shape.numel()) * size_of(dtype)));
    }
    read(buffer.view(dtype, shape));  // without the lock, so that several threads can read at the same time
    const std::lock_guard lock(mutex_);
    return buffers_.try_emplace(weight.key(), std::move(buffer)).first->second.view(dtype, shape);
  }

  // Reads elements [first, first + count) of a tensor.
  void read_elements(const std::string& stored, int64_t first, int64_t count, size_t element_bytes, void* to) const {
    checkpoint_.file(stored).read_bytes(checkpoint_.info(stored), static_cast<uint64_t>(first) * element_bytes,
                                        {static_cast<std::byte*>(to), static_cast<size_t>(count) * element_bytes});
  }

  void read_part(const std::string& stored, const arch::StoredTensor& weight, MutableTensorView out) const {
    const size_t size = size_of(out.dtype());
    const int64_t width = out.shape().rank() == 1 ? 1 : out.dim(1);
    const int64_t stride = (weight.row_width > 0 ? weight.row_width : width) * weight.row_step;
    if (!weight.transposed && stride == width) {
      return read_elements(stored, weight.first, out.numel(), size, out.data());
    }
    if (!weight.transposed) return read_rows(stored, weight.first, stride, out);
    // Of a matrix [in, out * row_step], the weight is every row_step-th column.
    const int64_t columns = out.dim(0) * weight.row_step;
    const int64_t count = (out.dim(1) - 1) * columns + (out.dim(0) - 1) * weight.row_step + 1;
    Buffer raw(static_cast<size_t>(count) * size);
    read_elements(stored, weight.first, count, size, raw.data());
    transpose(raw.data(), columns, weight.row_step, size, out);
  }

  // Reads rows that are `stride` elements apart. What is between them is read as well if it is short: the system reads
  // whole pages and further ahead in any case, and a call for every row would take longer.
  void read_rows(const std::string& stored, int64_t first, int64_t stride, MutableTensorView out) const {
    constexpr int64_t kShortBytes = 1 << 16;
    constexpr int64_t kBytesAtOnce = 1 << 20;
    const auto size = static_cast<int64_t>(size_of(out.dtype()));
    const int64_t num_rows = out.dim(0);
    const int64_t width = out.numel() / std::max<int64_t>(1, num_rows);
    const bool is_short = (stride - width) * size <= kShortBytes;
    const int64_t rows_at_once = is_short ? std::max<int64_t>(1, kBytesAtOnce / (stride * size)) : 1;
    Buffer raw;
    for (int64_t row = 0; row < num_rows; row += rows_at_once) {
      const int64_t count = std::min(rows_at_once, num_rows - row);
      const int64_t span = (count - 1) * stride + width;
      raw.reserve(static_cast<size_t>(span * size));
      read_elements(stored, first + row * stride, span, static_cast<size_t>(size), raw.data());
      for (int64_t r = 0; r < count; ++r) {
        std::memcpy(static_cast<std::byte*>(out.data()) + (row + r) * width * size, raw.data() + r * stride * size,
                    static_cast<size_t>(width * size));
      }
    }
  }

  void read_fp8(const std::string& stored, const arch::StoredTensor& weight, MutableTensorView out) const {
    if (!weight.is_whole() || out.shape().rank() != 2) refuse_packed(stored, "a whole matrix in e4m3");
    Buffer raw(static_cast<size_t>(out.numel()));
    read_elements(stored, 0, out.numel(), 1, raw.data());
    const auto blocks = [](int64_t size, int64_t block) { return (size + block - 1) / block; };
    const Shape scale_shape{blocks(out.dim(0), fp8_blocks_->rows), blocks(out.dim(1), fp8_blocks_->columns)};
    const std::string scale_name = stored + std::string(kFp8ScaleSuffix);
    const io::TensorType scale_type = checkpoint_.type(scale_name, scale_shape);
    const io::OwnedTensor scales = checkpoint_.read(scale_name);
    if (scale_type.dtype != DType::kF32 && scale_type.dtype != DType::kBF16)
      refuse_packed(scale_name, "scales in f32 or bf16");
    std::vector<float> values(static_cast<size_t>(scale_shape.numel()));
    widen_to_f32(scales.view, values.data());
    unpack_fp8_blocks(reinterpret_cast<const uint8_t*>(raw.data()), values.data(), *fp8_blocks_, out);
  }

  // A matrix of a stack of all experts'. The place of the weight in an unpacked tensor [experts, in, out] says which.
  TensorView get_mxfp4(const std::string& stored, const arch::StoredTensor& weight, const Shape& shape) {
    const std::string blocks_name = stored + std::string(kMxfp4BlocksSuffix);
    const std::string scales_name = stored + std::string(kMxfp4ScalesSuffix);
    const int64_t k = shape[1];
    const int64_t rows = shape[0] * weight.row_step;
    if (k % kMxfp4Block != 0) refuse_packed(blocks_name, fmt::format("rows of a multiple of {} values", kMxfp4Block));
    const Shape scales_shape{weight.shape[0], rows, k / kMxfp4Block};
    const Shape blocks_shape{weight.shape[0], rows, k / kMxfp4Block, kMxfp4Block / 2};
    for (const auto& [name, want] : {std::pair(&blocks_name, &blocks_shape), std::pair(&scales_name, &scales_shape)}) {
      if (checkpoint_.type(*name, *want).dtype != DType::kU8) refuse_packed(*name, "bytes");
    }
    const int64_t expert = weight.first / (rows * k);
    const int64_t first_row = weight.first % (rows * k);
    return read_once(weight, DType::kBF16, shape, [&](MutableTensorView out) {
      Buffer blocks(static_cast<size_t>(rows * k / 2));
      Buffer scales(static_cast<size_t>(rows * k / kMxfp4Block));
      read_elements(blocks_name, expert * rows * k / 2, rows * k / 2, 1, blocks.data());
      read_elements(scales_name, expert * rows * k / kMxfp4Block, rows * k / kMxfp4Block, 1, scales.data());
      unpack_mxfp4(reinterpret_cast<const uint8_t*>(blocks.data()) + first_row * k / 2,
                   reinterpret_cast<const uint8_t*>(scales.data()) + first_row * k / kMxfp4Block, weight.row_step, out);
    });
  }

  [[noreturn]] void refuse_packed(const std::string& stored, const std::string& wanted) const {
    const io::TensorInfo& info = checkpoint_.info(stored);
    fail(ErrorKind::kInput, checkpoint_.file(stored).path(),
         {.what = fmt::format("tensor \"{}\" cannot be unpacked", printable(stored, 120)),
          .got = fmt::format("{} [{}]", io::dtype_label(info), fmt::join(info.dims, ", ")),
          .wanted = wanted,
          .hint = ""});
  }

  const io::Checkpoint& checkpoint_;
  StoredNames names_;
  std::optional<arch::Fp8Blocks> fp8_blocks_;
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

  bool has(const arch::StoredTensor&) const override { return true; }

  TensorView get(const arch::StoredTensor& weight, const Shape& shape) override {
    const std::string name = weight.key();
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

std::unique_ptr<WeightSource> make_checkpoint_source(const io::Checkpoint& checkpoint, StoredNames names,
                                                     std::optional<arch::Fp8Blocks> fp8_blocks) {
  return std::make_unique<CheckpointSource>(checkpoint, std::move(names), fp8_blocks);
}

std::unique_ptr<WeightSource> make_dummy_source(int num_threads, StopToken stop) {
  return std::make_unique<DummySource>(
      num_threads > 0 ? num_threads : std::min(cpu_features().usable_cores, kMostThreads), stop);
}

}  // namespace eps::model
