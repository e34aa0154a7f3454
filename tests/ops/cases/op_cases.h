// One table of cases for every op set: each operation of OpSet over shapes that hit the edges, against an oracle.
//
// A test program makes its op set and runs the table on it, one test for each operation:
//   tests/ops/reference_ops_test.cpp   the reference, against loops over the definitions
//   tests/ops/cpu_ops_test.cpp         the CPU's, at every instruction set level that the machine has
//   tests/ops/cuda/cuda_ops_test.cpp   the CUDA op set, where there is a GPU
// Outputs are poisoned before a call, so that what is not written shows, and have guards on both sides, which are
// checked after it (support/device_tensor.h).
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "ops/op_set.h"
#include "support/device_tensor.h"
#include "support/random_values.h"
#include "support/result_check.h"

namespace eps::ops {

// How an op set computes, as far as tolerances need to know and its dtypes do not say.
struct OpAccuracy {
  // A row of a product has the bits that it has alone in products of up to so many rows.
  int64_t invariant_rows = std::numeric_limits<int64_t>::max();
  // exp(x) is off by a few ulp and by so many times |x| of them.
  double exp_slope = 0;
  // Weights of sampled tokens are multiples of a step in f32, instead of f64 (support/sampling_oracle.h).
  bool samples_in_steps = false;
};
// CUDA: products of up to 8 rows stream the weights and keep the order of sums. exp(x) by hardware is off by
// 2 + 1.16·|x| ulp (the CUDA programming guide), and an ulp is up to two units of roundoff.
inline OpAccuracy gpu_accuracy() { return {8, 4.0, true}; }

// How long a case takes.
struct CaseSize {
  int64_t rows = 0;  // or tokens or positions; cases of more than 70 are too slow under a sanitizer
  int64_t work = 0;  // the oracle's multiplications, of which it does about a thousand million a second
};
inline constexpr CaseSize kSmallCase{};
inline constexpr CaseSize kLargeCase{1'000'000, 1'000'000'000};

struct OpSetUnderTest {
  ops::OpSet* ops = nullptr;
  std::function<std::unique_ptr<ops::OpSet>()> make_oracle;  // computes in f32 on the host
  OpAccuracy accuracy = {};
  // Larger cases are left out. They have the sizes of models, for which only devices have kernels of their own.
  int64_t most_work = 12'000'000;
};

// What a case works with.
class OpCaseRun : public test::ResultCheck {
 public:
  explicit OpCaseRun(const OpSetUnderTest& under_test)
      : under_test_(under_test), oracle_(under_test.make_oracle()), random_(0) {}

  // Each case has random numbers of its own, so that it does not depend on the cases before it.
  void seed(uint64_t seed) { random_ = test::RandomValues(seed); }

  ops::OpSet& ops() const { return *under_test_.ops; }
  ops::OpSet& oracle() const { return *oracle_; }
  const std::function<std::unique_ptr<ops::OpSet>()>& make_oracle() const { return under_test_.make_oracle; }
  const OpAccuracy& accuracy() const { return under_test_.accuracy; }
  test::RandomValues& random() { return random_; }

  DType activation() const { return ops().activation_dtype(); }
  DType compute() const { return ops().compute_dtype(); }
  // f32 and, if it is another one, the activation dtype.
  std::vector<DType> float_dtypes() const {
    if (activation() == DType::kF32) return {DType::kF32};
    return {DType::kF32, activation()};
  }

  test::DeviceTensor poisoned(DType dtype, const Shape& shape) const { return {ops(), dtype, shape}; }
  test::DeviceTensor on_ops(DType dtype, const Shape& shape, std::span<const float> values) const {
    return {ops(), dtype, shape, values};
  }

 private:
  const OpSetUnderTest& under_test_;
  std::unique_ptr<ops::OpSet> oracle_;
  test::RandomValues random_;
};

struct OpCase {
  std::string name;  // "[300, 33]"
  CaseSize size;
  std::function<void(OpCaseRun&)> run;
};

// The cases of one operation.
struct Operation {
  std::string name;  // a name that GoogleTest takes: "rms_norm"
  std::vector<OpCase> cases;
};
inline std::ostream& operator<<(std::ostream& out, const Operation& operation) { return out << operation.name; }

// Of every part of the interface; the order is that of op_set.h.
const std::vector<Operation>& all_operations();

// Runs all cases of `operation` that are not larger than wanted; with EPSMOE_TEST_BRIEF=1 only those of few rows.
void run_operation(const Operation& operation, const OpSetUnderTest& under_test);

// The parts of the table.
std::vector<Operation> memory_operations();
std::vector<Operation> row_operations();
std::vector<Operation> linear_operations();
std::vector<Operation> sampling_operations();
std::vector<Operation> attention_operations();
std::vector<Operation> grouped_attention_operations();
std::vector<Operation> gate_operations();

}  // namespace eps::ops
