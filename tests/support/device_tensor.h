// Tensors in an op set's memory for tests: poisoned before they are written, with guards on both sides.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <span>
#include <vector>

#include "ops/op_set.h"
#include "tensor/widen.h"

namespace eps::test {

class DeviceTensor {
 public:
  // Every byte 0xff: NaN in f32, bf16 and f16, -1 in i32. Elements that are not written are noticed, and so are reads
  // past the end.
  DeviceTensor(const ops::OpSet& ops, DType dtype, const Shape& shape)
      : ops_(&ops), dtype_(dtype), shape_(shape), memory_(ops.memory()) {
    write(std::vector<std::byte>(size(), kPoison));
  }
  // `values`, rounded to `dtype` (f32, bf16, f16).
  DeviceTensor(const ops::OpSet& ops, DType dtype, const Shape& shape, std::span<const float> values)
      : ops_(&ops), dtype_(dtype), shape_(shape), memory_(ops.memory()) {
    EPS_CHECK_EQ(std::ssize(values), shape.numel());
    std::vector<std::byte> bytes(size());
    for (size_t i = 0; i < values.size(); ++i) {
      std::byte* to = bytes.data() + i * size_of(dtype);
      switch (dtype) {
        case DType::kBF16: put(to, to_bf16(values[i])); break;
        case DType::kF16: put(to, to_f16(values[i])); break;
        default: put(to, values[i]); break;
      }
    }
    write(bytes);
  }
  DeviceTensor(const ops::OpSet& ops, const Shape& shape, std::span<const int32_t> values)
      : ops_(&ops), dtype_(DType::kI32), shape_(shape), memory_(ops.memory()) {
    EPS_CHECK_EQ(std::ssize(values), shape.numel());
    std::vector<std::byte> bytes(size());
    if (!bytes.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
    write(bytes);
  }

  MutableTensorView view() const { return {memory_.data() + kGuardBytes, dtype_, shape_}; }
  std::byte* row(int64_t i) const {
    return memory_.data() + kGuardBytes + static_cast<size_t>(i * shape_[1]) * size_of(dtype_);
  }

  // What it holds now; waits for the device. A guard that was written to is a failure of the test.
  std::vector<std::byte> bytes() const {
    std::vector<std::byte> all(size() + 2 * kGuardBytes);
    ops_->download({memory_.data(), DType::kU8, {std::ssize(all)}}, all.data());
    const auto is_poison = [](std::byte b) { return b == kPoison; };
    EXPECT_TRUE(std::all_of(all.begin(), all.begin() + kGuardBytes, is_poison))
        << "bytes before the tensor overwritten";
    EXPECT_TRUE(std::all_of(all.end() - kGuardBytes, all.end(), is_poison)) << "bytes behind the tensor overwritten";
    return {all.begin() + kGuardBytes, all.end() - kGuardBytes};
  }
  std::vector<float> values() const {
    const std::vector<std::byte> from = bytes();
    std::vector<float> out(static_cast<size_t>(shape_.numel()));
    widen_to_f32({from.data(), dtype_, shape_}, out.data());
    return out;
  }
  std::vector<int32_t> ints() const {
    const std::vector<std::byte> from = bytes();
    std::vector<int32_t> out(from.size() / sizeof(int32_t));
    if (!out.empty()) std::memcpy(out.data(), from.data(), from.size());
    return out;
  }

 private:
  static constexpr int64_t kGuardBytes = 256;  // keeps the alignment that buffers have
  static constexpr std::byte kPoison{0xff};

  size_t size() const { return static_cast<size_t>(shape_.numel()) * size_of(dtype_); }
  template <typename T>
  static void put(std::byte* to, T value) {
    std::memcpy(to, &value, sizeof(value));
  }
  void write(const std::vector<std::byte>& bytes) {
    std::vector<std::byte> all(bytes.size() + 2 * kGuardBytes, kPoison);
    std::copy(bytes.begin(), bytes.end(), all.begin() + kGuardBytes);
    ops_->upload(all.data(), memory_.view(DType::kU8, {std::ssize(all)}));
  }

  const ops::OpSet* ops_;
  DType dtype_;
  Shape shape_;
  Buffer memory_;
};

}  // namespace eps::test
