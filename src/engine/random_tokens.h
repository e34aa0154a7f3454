// Random input tokens for benchmarks. The routing depends on the tokens, so the same seed always gives the same ones.
#pragma once

#include <cstdint>
#include <vector>

namespace eps::engine {

// Source  Knuth's linear congruential generator (MMIX), of which the high bits are used because they are the better
// ones.
//         Must not change: results under bench/results refer to its seeds
class RandomTokens {
 public:
  RandomTokens(uint64_t seed, int64_t vocab_size) : state_(seed), vocab_size_(static_cast<uint64_t>(vocab_size)) {}

  int32_t next() {
    state_ = state_ * 6364136223846793005ULL + 1442695040888963407ULL;
    return static_cast<int32_t>((state_ >> 33) % vocab_size_);
  }
  std::vector<int32_t> next(int64_t count) {
    std::vector<int32_t> out(static_cast<size_t>(count));
    for (int32_t& id : out) id = next();
    return out;
  }

 private:
  uint64_t state_;
  uint64_t vocab_size_;
};

}  // namespace eps::engine
