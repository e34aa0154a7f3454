#include "model/weight_source.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <set>

namespace eps {
namespace {

class CheckpointSource final : public WeightSource {
 public:
  explicit CheckpointSource(const Checkpoint& checkpoint) : checkpoint_(checkpoint) {}
  bool has(const std::string& name) const override { return checkpoint_.has(name); }
  TensorView get(const std::string& name, const Shape& shape) override {
    used_.insert(name);
    return checkpoint_.tensor(name, shape);
  }
  std::vector<std::string> unused() const override {
    std::vector<std::string> out;
    for (std::string& name : checkpoint_.names()) {
      if (!used_.contains(name)) out.push_back(std::move(name));
    }
    return out;
  }
  void release(const std::string& name) override { checkpoint_.release(name); }
  uint64_t total_bytes() const override { return checkpoint_.total_bytes(); }

 private:
  const Checkpoint& checkpoint_;
  std::set<std::string> used_;
};

// splitmix64: a different, repeatable stream for every name.
class Stream {
 public:
  explicit Stream(const std::string& name) {
    for (const char c : name) state_ = (state_ ^ static_cast<unsigned char>(c)) * 0x100000001b3ULL;
  }
  uint64_t next() {
    uint64_t z = (state_ += 0x9e3779b97f4a7c15ULL);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
  }

 private:
  uint64_t state_ = 0xcbf29ce484222325ULL;
};

// Sums of four random bytes, each sum's weight by its value: bell-shaped, and eight bytes of a draw make two weights.
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
  // The two weights of one draw.
  std::array<bf16, 2> pair(uint64_t bits) const {
    constexpr uint64_t kEvenBytes = 0x00ff00ff00ff00ffULL;
    const uint64_t twos = (bits & kEvenBytes) + ((bits >> 8) & kEvenBytes);  // four sums of two, 16 bits each
    const uint64_t fours = twos + (twos >> 16);                              // sums of four in bits 0..15 and 32..47
    return {values_[fours & 0xffff], values_[(fours >> 32) & 0xffff]};
  }

 private:
  std::array<bf16, 4 * 255 + 1> values_;
};

class DummySource final : public WeightSource {
 public:
  bool has(const std::string&) const override { return true; }

  TensorView get(const std::string& name, const Shape& shape) override {
    Buffer& buffer = buffers_[name];
    const MutableTensorView view = buffer.view(DType::kBF16, shape);
    bf16* out = view.as<bf16>();
    const int64_t count = shape.numel();
    if (shape.rank() == 1) {  // a norm
      std::fill_n(out, count, to_bf16(1.0F));
      return view;
    }
    Stream stream(name);
    for (int64_t i = 0; i < count; i += 2) {
      const auto pair = bell_.pair(stream.next());
      out[i] = pair[0];
      if (i + 1 < count) out[i + 1] = pair[1];
    }
    return view;
  }

  void release(const std::string& name) override { buffers_.erase(name); }
  std::vector<std::string> unused() const override { return {}; }
  uint64_t total_bytes() const override { return 0; }

 private:
  BellTable bell_;
  std::map<std::string, Buffer> buffers_;
};

}  // namespace

std::unique_ptr<WeightSource> make_checkpoint_source(const Checkpoint& checkpoint) {
  return std::make_unique<CheckpointSource>(checkpoint);
}

std::unique_ptr<WeightSource> make_dummy_source() { return std::make_unique<DummySource>(); }

}  // namespace eps
