// Tokens that benchmarks feed to models. Which experts they go to depends on them: the same seed gives the same tokens.
#pragma once

#include <cstdint>
#include <vector>

namespace eps {

// Source  Knuth's linear congruential generator (MMIX), whose high bits are the good ones. Results under bench/results
//         name seeds of it.
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

}  // namespace eps
