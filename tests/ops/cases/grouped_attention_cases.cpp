// The key-value cache of grouped-query attention, and attention over it.
#include <algorithm>
#include <cmath>
#include <limits>

#include "ops/cases/op_cases.h"
#include "support/host_views.h"
#include "support/tolerance.h"

namespace eps::ops {
namespace {

constexpr int64_t kLayers = 3;
constexpr int kLayer = 1;

// New tokens of one sequence, and its context with them.
struct Part {
  int64_t count, context;
};

struct Inputs {
  ops::GqaParams params;
  int64_t window = 0;
  std::vector<float> sinks;  // [num_heads]; empty: none
  std::vector<Part> parts;
  std::vector<float> q;                          // [T, num_heads * head_dim]
  std::vector<std::vector<float>> keys, values;  // of each part [context, num_kv_heads * head_dim]

  int64_t num_tokens() const {
    int64_t total = 0;
    for (const Part& part : parts) total += part.count;
    return total;
  }
};

// Scores of deviation 1 and values of deviation 1, so that no few positions decide and none is lost.
Inputs random_inputs(OpCaseRun& run, const ops::GqaParams& params, int64_t window, bool with_sinks,
                     const std::vector<Part>& parts) {
  Inputs out;
  out.params = params;
  out.params.softmax_scale = static_cast<float>(1.0 / std::sqrt(params.head_dim));
  out.window = window;
  if (with_sinks) out.sinks = run.random().normal(params.num_heads, 2.0);
  out.parts = parts;
  for (const Part& part : parts) {
    out.keys.push_back(run.random().normal(part.context * params.kv_width(), 1.0, run.ops().cache_dtype()));
    out.values.push_back(run.random().normal(part.context * params.kv_width(), 1.0, run.ops().cache_dtype()));
  }
  out.q = run.random().normal(out.num_tokens() * params.q_width(), 1.0, run.activation());
  return out;
}

// By the oracle, whose caches are f32.
std::vector<float> attend(OpCaseRun& run, const Inputs& in) {
  const Shape shape{in.num_tokens(), in.params.q_width()};
  std::vector<float> out(static_cast<size_t>(shape.numel()));
  std::vector<ops::StepSequence> step;
  int64_t begin = 0;
  for (size_t s = 0; s < in.parts.size(); ++s) {
    ops::StepSequence sequence{begin, in.parts[s].count, in.parts[s].context, in.parts[s].context};
    sequence.keys = const_cast<float*>(in.keys[s].data());  // read only
    sequence.values = const_cast<float*>(in.values[s].data());
    step.push_back(sequence);
    begin += in.parts[s].count;
  }
  run.oracle().begin_step({{}, {}, step});
  const TensorView sinks = in.sinks.empty() ? TensorView() : test::host(in.sinks, {in.params.num_heads});
  run.oracle().gqa_attention(in.params, in.window, sinks, test::host(in.q, shape), 0, test::host(out, shape));
  return out;
}

// As for latent attention (support/attention_oracle.h): how far noise of the roundings on the way, in every input,
// moves the oracle. The root mean square of a head's output tells, and the bound is eight of it.
std::vector<double> attention_tolerance(OpCaseRun& run, const Inputs& in, const std::vector<float>& exact) {
  double u = test::unit_roundoff(run.compute());
  if (run.compute() == DType::kF32) {
    int64_t longest = in.params.head_dim;
    for (const Part& part : in.parts) longest = std::max(longest, part.context);
    u *= std::sqrt(static_cast<double>(longest));
  }
  Inputs noisy = in;
  const auto disturb = [&run, u](std::vector<float>& values) {
    for (float& v : values) {
      const double noise = static_cast<double>(run.random().bits() >> 11) * 0x1p-52 - 1.0;  // uniform in [-1, 1)
      v = static_cast<float>(v * (1.0 + u * noise));
    }
  };
  disturb(noisy.q);
  disturb(noisy.sinks);
  for (auto& values : noisy.keys) disturb(values);
  for (auto& values : noisy.values) disturb(values);
  const auto moved = attend(run, noisy);
  const auto dim = static_cast<size_t>(in.params.head_dim);
  const auto row = static_cast<size_t>(in.params.q_width());
  const auto mean_square = [&](size_t begin, size_t count) {
    double sum = 0;
    for (size_t i = begin; i < begin + count; ++i) sum += std::pow(static_cast<double>(moved[i]) - exact[i], 2);
    return sum / static_cast<double>(count);
  };
  std::vector<double> out;
  for (size_t head = 0; head < exact.size(); head += dim) {
    const double error = 8.0 * std::sqrt(std::max(mean_square(head, dim), mean_square(head / row * row, row)));
    for (size_t i = head; i < head + dim; ++i) {
      out.push_back(error + (std::abs(exact[i]) + error) * test::unit_roundoff(run.activation()) + 1e-30);
    }
  }
  return out;
}

void check_attention(OpCaseRun& run, const Inputs& in) {
  const ops::GqaParams& p = in.params;
  const Shape shape{in.num_tokens(), p.q_width()};
  const auto q = run.on_ops(run.activation(), shape, in.q);
  const auto sinks = run.on_ops(DType::kF32, {std::ssize(in.sinks)}, in.sinks);
  const auto got = run.poisoned(run.activation(), shape);
  // Caches with room to spare, and NaN in every place that must not be read: other layers, and positions to come.
  const DType cached = run.ops().cache_dtype();
  std::vector<test::DeviceTensor> caches;
  std::vector<ops::StepSequence> step;
  int64_t begin = 0;
  for (size_t s = 0; s < in.parts.size(); ++s) {
    const Part& part = in.parts[s];
    const int64_t capacity = part.context + 13;
    for (const auto* values : {&in.keys[s], &in.values[s]}) {
      std::vector<float> all(static_cast<size_t>(kLayers * capacity * p.kv_width()), std::nanf(""));
      std::copy(values->begin(), values->end(), all.begin() + kLayer * capacity * p.kv_width());
      caches.push_back(run.on_ops(cached, {kLayers * capacity, p.kv_width()}, all));
    }
    ops::StepSequence sequence{begin, part.count, part.context, capacity};
    sequence.keys = caches[caches.size() - 2].view().data();
    sequence.values = caches.back().view().data();
    step.push_back(sequence);
    begin += part.count;
  }
  const std::vector<int32_t> ids(static_cast<size_t>(in.num_tokens()), 0);
  run.ops().begin_step({ids, ids, step});
  const TensorView sinks_view = in.sinks.empty() ? TensorView() : TensorView(sinks.view());
  run.ops().gqa_attention(p, in.window, sinks_view, q.view(), kLayer, got.view());
  const auto want = attend(run, in);
  const auto allowed = attention_tolerance(run, in, want);
  run.expect_close(
      got.values(), want, [&](size_t i) { return allowed[i]; }, "attention");
  // The same once more: no state is left behind, and the same sum in the same order.
  const auto again = run.poisoned(run.activation(), shape);
  run.ops().gqa_attention(p, in.window, sinks_view, q.view(), kLayer, again.view());
  run.expect_equal(again.values(), got.values(), "attention, again");
  if (run.accuracy().invariant_rows < std::numeric_limits<int64_t>::max()) return;
  // Alone, each sequence has the bits that it has beside the others.
  for (const ops::StepSequence& s : step) {
    if (s.q_count == 0) continue;
    ops::StepSequence alone = s;
    alone.q_begin = 0;
    const std::vector<int32_t> its_ids(static_cast<size_t>(s.q_count), 0);
    run.ops().begin_step({its_ids, its_ids, {&alone, 1}});
    const auto out = run.poisoned(run.activation(), {s.q_count, p.q_width()});
    run.ops().gqa_attention(p, in.window, sinks_view, q.view().rows(s.q_begin, s.q_begin + s.q_count), kLayer,
                            out.view());
    const auto together = got.values();
    const auto first = together.begin() + s.q_begin * p.q_width();
    run.expect_equal(out.values(), {first, first + s.q_count * p.q_width()}, "a sequence alone");
  }
}

Operation gqa_attention() {
  Operation out{"gqa_attention", {}};
  const std::pair<const char*, std::vector<Part>> steps[] = {
      {"the first token", {{1, 1}}},
      {"decode", {{1, 1}, {1, 40}, {1, 70}, {1, 300}, {1, 1100}}},
      {"decode of 33", std::vector<Part>(33, {1, 65})},
      {"a token after 127, 128 and 129", {{1, 128}, {1, 129}, {1, 130}}},
      {"a token after 511, 512 and 513", {{1, 512}, {1, 513}, {1, 514}}},
      {"1 to 9 new tokens", {{1, 40}, {2, 70}, {3, 300}, {4, 40}, {5, 70}, {6, 6}, {7, 300}, {8, 70}, {9, 40}}},
      {"prompts of 31 to 33 and 127 to 129", {{31, 31}, {32, 32}, {33, 33}, {127, 127}, {128, 128}, {129, 129}}},
      {"chunks", {{17, 70}, {0, 9}, {1, 40}, {33, 165}, {129, 300}}},
      {"nothing new at all", {{0, 5}, {0, 1}}}};
  const std::pair<const char*, ops::GqaParams> dims[] = {{"4 heads of 16 on 2", {4, 2, 16, 0.0F}},
                                                         {"8 heads of 64 on 1", {8, 1, 64, 0.0F}},
                                                         {"3 heads of 24 on 3", {3, 3, 24, 0.0F}},
                                                         {"6 heads of 7 on 2", {6, 2, 7, 0.0F}},
                                                         {"32 heads of 128 on 4", {32, 4, 128, 0.0F}}};
  const auto add = [&out](const std::string& name, const ops::GqaParams& p, int64_t window, bool sinks,
                          const std::vector<Part>& parts) {
    int64_t longest = 0;
    int64_t work = 0;
    for (const Part& part : parts) {
      longest = std::max(longest, part.context);
      work += 2 * part.count * part.context * p.q_width();
    }
    out.cases.push_back({name, CaseSize{longest, work}, [p, window, sinks, parts](OpCaseRun& run) {
                           check_attention(run, random_inputs(run, p, window, sinks, parts));
                         }});
  };
  for (const auto& [model, params] : dims) {
    for (const auto& [step, parts] : steps) add(fmt::format("{}: {}", model, step), params, 0, false, parts);
  }
  // Windows of one position, within a block, of a block, longer than one, longer than some contexts.
  for (const int64_t window : {1, 5, 128, 200, 600}) {
    for (const auto& [step, parts] : steps) {
      add(fmt::format("window of {}: {}", window, step), dims[0].second, window, window == 5, parts);
    }
  }
  for (const auto& [step, parts] : steps) add(fmt::format("sinks: {}", step), dims[1].second, 0, true, parts);
  return out;
}

void check_store_keys(OpCaseRun& run, const ops::GqaParams& p, const std::vector<Part>& parts, int layer) {
  const DType act = run.activation();
  const DType cached = run.ops().cache_dtype();
  int64_t tokens = 0;
  for (const Part& part : parts) tokens += part.count;
  const Shape shape{tokens, p.kv_width()};
  const std::vector<float> rows[] = {run.random().normal(shape.numel(), 1.0, act),
                                     run.random().normal(shape.numel(), 1.0, act)};
  const auto k = run.on_ops(act, shape, rows[0]);
  const auto v = run.on_ops(act, shape, rows[1]);
  std::vector<test::DeviceTensor> caches;
  std::vector<std::vector<float>> want;
  std::vector<ops::StepSequence> step;
  int64_t begin = 0;
  for (const Part& part : parts) {
    const int64_t capacity = part.context + 3;
    for (const auto& from : rows) {
      want.push_back(run.random().normal(kLayers * capacity * p.kv_width(), 1.0, cached));
      caches.push_back(run.on_ops(cached, {kLayers * capacity, p.kv_width()}, want.back()));
      const auto first = from.begin() + begin * p.kv_width();
      std::copy_n(first, part.count * p.kv_width(),
                  want.back().begin() + (layer * capacity + part.context - part.count) * p.kv_width());
    }
    ops::StepSequence sequence{begin, part.count, part.context, capacity};
    sequence.keys = caches[caches.size() - 2].view().data();
    sequence.values = caches.back().view().data();
    step.push_back(sequence);
    begin += part.count;
  }
  const std::vector<int32_t> ids(static_cast<size_t>(tokens), 0);
  run.ops().begin_step({ids, ids, step});
  run.ops().store_keys(p, k.view(), v.view(), layer);
  for (size_t i = 0; i < caches.size(); ++i) {
    // Rounded to the cache's dtype, as a tensor of the oracle's side is.
    const test::DeviceTensor rounded(run.oracle(), cached, {std::ssize(want[i])}, want[i]);
    run.expect_equal(caches[i].values(), rounded.values(), fmt::format("cache {}", i));
  }
}

Operation store_keys() {
  Operation out{"store_keys", {}};
  const std::vector<Part> steps[] = {{{1, 1}}, {{7, 7}, {33, 300}, {0, 5}, {1, 18}}, {{300, 390}}};
  for (const ops::GqaParams& p : {ops::GqaParams{4, 2, 16, 1.0F}, ops::GqaParams{3, 3, 7, 1.0F}}) {
    for (const auto& parts : steps) {
      for (const int layer : {0, 2}) {
        out.cases.push_back(
            {fmt::format("{} of {}, {} sequences, layer {}", p.num_kv_heads, p.head_dim, parts.size(), layer),
             kSmallCase, [p, parts, layer](OpCaseRun& run) { check_store_keys(run, p, parts, layer); }});
      }
    }
  }
  return out;
}

}  // namespace

std::vector<Operation> grouped_attention_operations() { return {store_keys(), gqa_attention()}; }

}  // namespace eps::ops
