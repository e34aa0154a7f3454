#include "model/weight_source.h"

#include <functional>

namespace eps {
namespace {

class CheckpointSource final : public WeightSource {
 public:
  explicit CheckpointSource(const Checkpoint& checkpoint) : checkpoint_(checkpoint) {}
  bool has(const std::string& name) const override { return checkpoint_.has(name); }
  TensorView get(const std::string& name, const Shape& shape) override { return checkpoint_.tensor(name, shape); }
  void release(const std::string& name) override { checkpoint_.release(name); }
  uint64_t total_bytes() const override { return checkpoint_.total_bytes(); }

 private:
  const Checkpoint& checkpoint_;
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

class DummySource final : public WeightSource {
 public:
  bool has(const std::string&) const override { return true; }

  TensorView get(const std::string& name, const Shape& shape) override {
    Buffer& buffer = buffers_[name];
    const MutableTensorView view = buffer.view(DType::kBF16, shape);
    bf16* out = view.as<bf16>();
    Stream stream(name);
    const bool is_norm = shape.rank() == 1;
    for (int64_t i = 0; i < shape.numel(); ++i) {
      if (is_norm) {
        out[i] = to_bf16(1.0F);
        continue;
      }
      // The sum of four uniforms on 16 bits each: bell-shaped, from one draw. Variance of one is 1/12.
      uint64_t bits = stream.next();
      float sum = -2.0F;
      for (int part = 0; part < 4; ++part, bits >>= 16) sum += static_cast<float>(bits & 0xffff) / 65536.0F;
      constexpr float kDeviation = 0.02F / 0.57735F;
      out[i] = to_bf16(sum * kDeviation);
    }
    return view;
  }

  void release(const std::string& name) override { buffers_.erase(name); }
  uint64_t total_bytes() const override { return 0; }

 private:
  std::map<std::string, Buffer> buffers_;
};

}  // namespace

std::unique_ptr<WeightSource> make_checkpoint_source(const Checkpoint& checkpoint) {
  return std::make_unique<CheckpointSource>(checkpoint);
}

std::unique_ptr<WeightSource> make_dummy_source() { return std::make_unique<DummySource>(); }

}  // namespace eps
