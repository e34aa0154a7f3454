// Grouped-query attention on the CPU has the same bits for every number of threads.
#include "ops/cpu/cpu_gqa.h"

#include <gtest/gtest.h>

#include <cmath>

#include "support/random_values.h"

namespace eps::ops {
namespace {

TEST(CpuGqa, BitsDoNotDependOnTheNumberOfThreads) {
  const CpuEngineChoice engine = choose_cpu_engine(DType::kF32);
  const VectorOps& vec = choose_vector_ops(engine.features);
  const GqaParams params{8, 2, 64, 0.125F};
  test::RandomValues random(1);
  constexpr int64_t kContext = 1300;  // three pieces, eleven blocks
  const Shape shape{kContext, params.kv_width()};
  const auto keys = random.normal(shape.numel());
  const auto values = random.normal(shape.numel());
  const std::vector<float> sinks(8, 0.5F);
  for (const DType cached : {DType::kF32, DType::kBF16}) {
    std::vector<bf16> narrow[2];
    for (const float v : keys) narrow[0].push_back(to_bf16(v));
    for (const float v : values) narrow[1].push_back(to_bf16(v));
    const bool is_f32 = cached == DType::kF32;
    const TensorView k(is_f32 ? static_cast<const void*>(keys.data()) : narrow[0].data(), cached, shape);
    const TensorView v(is_f32 ? static_cast<const void*>(values.data()) : narrow[1].data(), cached, shape);
    for (const int64_t count : {1, 5, 200}) {  // read from the cache, and in blocks
      const auto q = random.normal(count * params.q_width());
      const GqaSequence sequence{0, count, kContext, k, v};
      std::vector<float> want;
      for (const int threads : {1, 2, 3, 7}) {
        ThreadPool pool(threads);
        std::vector<float> out(q.size(), std::nanf(""));
        CpuGqa(vec, engine, pool).run(params, 700, sinks.data(), q.data(), {&sequence, 1}, out.data());
        if (want.empty()) want = out;
        EXPECT_EQ(out, want) << threads << " threads, " << count << " tokens";
        for (const float y : out) ASSERT_TRUE(std::isfinite(y));
      }
    }
  }
}

}  // namespace
}  // namespace eps::ops
