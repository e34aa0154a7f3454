// Rotation, the latent cache, and attention over it.
#include <algorithm>
#include <cmath>

#include "ops/cases/op_cases.h"
#include "support/attention_oracle.h"
#include "support/host_views.h"
#include "support/tolerance.h"

namespace eps::ops {

using namespace test;  // values, tensors and tolerances
namespace {

// cos and sin of positions as models have them.
struct RopeTable {
  int rope_dim;
  int64_t positions;
  std::vector<float> cos, sin;

  RopeTable(int dim, int64_t count) : rope_dim(dim), positions(count) {
    for (int64_t p = 0; p < count; ++p) {
      for (int i = 0; i < dim / 2; ++i) {
        const double angle = static_cast<double>(p) * std::pow(10000.0, -2.0 * i / dim);
        cos.push_back(static_cast<float>(std::cos(angle)));
        sin.push_back(static_cast<float>(std::sin(angle)));
      }
    }
  }
  Shape shape() const { return {positions, rope_dim / 2}; }
  ops::RopeView on_host() const { return {rope_dim, host(cos, shape()), host(sin, shape())}; }
};

// |a·c| + |b·s| of a rotation is at most |a| + |b|: two products, one sum, in f32.
// `partner`: the element that is rotated together with element i.
double rotation_tolerance(float exact, const std::vector<float>& before, size_t i, size_t partner, DType stored) {
  const double magnitude = std::abs(static_cast<double>(before[i])) + std::abs(before[partner]);
  return stored_tolerance(exact, 2, magnitude, stored);
}

// Of element i of a rotated part that begins at `first`.
size_t adjacent_partner(size_t i, size_t first) { return (i - first) % 2 == 0 ? i + 1 : i - 1; }
size_t partner_in_half(size_t i, size_t first, int rope_dim) {
  const auto half = static_cast<size_t>(rope_dim / 2);
  return i - first < half ? i + half : i - half;
}

struct HeadDims {
  int num_heads, head_dim, rope_dim;
  ops::RopeLayout layout = {};
};

void check_rope(OpCaseRun& run, const HeadDims& d, int64_t rows) {
  const RopeTable table(d.rope_dim, 1100);
  const DType act = run.activation();
  const auto cos = run.on_ops(DType::kF32, table.shape(), table.cos);
  const auto sin = run.on_ops(DType::kF32, table.shape(), table.sin);
  const int64_t width = int64_t{d.num_heads} * d.head_dim;
  std::vector<int32_t> positions(static_cast<size_t>(rows));
  for (int32_t& p : positions) p = static_cast<int32_t>(run.random().draw(0, 1099));
  if (rows > 1) positions[0] = 1099;
  const auto before = run.random().normal(rows * width, 1.0, act);
  auto want = before;
  const auto x = run.on_ops(act, {rows, width}, before);
  run.ops().begin_step({positions, positions, {}});
  run.oracle().begin_step({positions, positions, {}});
  ops::RopeView on_host = table.on_host();
  on_host.layout = d.layout;
  run.ops().rope(x.view(), d.head_dim, {d.rope_dim, cos.view(), sin.view(), d.layout});
  run.oracle().rope(host(want, {rows, width}), d.head_dim, on_host);
  const auto allowed = [&](size_t i) {
    const bool last = d.layout.place == ops::RopePlace::kLast;
    const size_t head_begin = i - i % static_cast<size_t>(d.head_dim);
    const size_t first = head_begin + static_cast<size_t>(last ? d.head_dim - d.rope_dim : 0);
    if (i < first || i >= first + static_cast<size_t>(d.rope_dim)) return 0.0;
    const bool halves = d.layout.pairs == ops::RopePairs::kHalves;
    const size_t partner = halves ? partner_in_half(i, first, d.rope_dim) : adjacent_partner(i, first);
    return rotation_tolerance(want[i], before, i, partner, act);
  };
  run.expect_close(x.values(), want, allowed, "rotated");
}

Operation rope_with(const std::string& name, const std::vector<HeadDims>& dims) {
  Operation out{name, {}};
  for (const HeadDims& d : dims) {
    for (const int64_t rows : {0, 1, 3, 33, 300}) {
      out.cases.push_back(
          {fmt::format("{} rows, {} heads of {}, {} rotated", rows, d.num_heads, d.head_dim, d.rope_dim),
           CaseSize{rows, 0}, [d, rows](OpCaseRun& run) { check_rope(run, d, rows); }});
    }
  }
  return out;
}

Operation rope() {
  return rope_with("rope", {HeadDims{16, 192, 64}, HeadDims{8, 48, 16}, HeadDims{3, 24, 8}, HeadDims{1, 576, 64},
                            HeadDims{2, 12, 6}, HeadDims{5, 2, 2}, HeadDims{3, 21, 10}});
}

Operation rope_layouts() {
  std::vector<HeadDims> dims;
  for (const ops::RopePairs pairs : {ops::RopePairs::kAdjacent, ops::RopePairs::kHalves}) {
    for (const ops::RopePlace place : {ops::RopePlace::kLast, ops::RopePlace::kFirst}) {
      for (const HeadDims& d : {HeadDims{4, 128, 128}, HeadDims{3, 32, 16}, HeadDims{2, 21, 10}, HeadDims{5, 2, 2}}) {
        dims.push_back({d.num_heads, d.head_dim, d.rope_dim, {pairs, place}});
      }
    }
  }
  Operation out = rope_with("rope_layouts", dims);
  return out;
}

// New tokens of one sequence, and its cache.
struct Part {
  int64_t count, context, capacity;
};

void check_store_latents(OpCaseRun& run, int lora, int rope, const std::vector<Part>& parts, int layer) {
  constexpr int64_t kLayers = 3;
  const DType act = run.activation();
  const ops::MlaParams p{1, 8, rope, 8, lora, 1.0F};
  const RopeTable table(rope, 400);
  const auto cos = run.on_ops(DType::kF32, table.shape(), table.cos);
  const auto sin = run.on_ops(DType::kF32, table.shape(), table.sin);
  const auto norm = run.random().normal(lora);
  const auto norm_of_ops = run.on_ops(DType::kF32, {lora}, norm);
  std::vector<std::vector<float>> want;
  std::vector<DeviceTensor> caches;
  std::vector<ops::StepSequence> step;
  std::vector<ops::StepSequence> oracle_step;
  std::vector<int32_t> positions;
  want.reserve(2 * parts.size());  // pointers into it are kept
  for (const Part& part : parts) {
    for (const int width : {lora, rope}) {
      want.push_back(run.random().normal(kLayers * part.capacity * width, 1.0, act));
      caches.push_back(run.on_ops(act, {kLayers * part.capacity, width}, want.back()));
    }
    const auto begin = std::ssize(positions);
    step.push_back({begin, part.count, part.context, part.capacity, caches[caches.size() - 2].view().data(),
                    caches.back().view().data()});
    oracle_step.push_back(
        {begin, part.count, part.context, part.capacity, want[want.size() - 2].data(), want.back().data()});
    for (int64_t i = part.context - part.count; i < part.context; ++i) positions.push_back(static_cast<int32_t>(i));
  }
  const Shape shape{std::ssize(positions), lora + rope};
  const auto before = run.random().normal(shape.numel(), 2.0, act);
  auto kv = before;
  const auto kv_of_ops = run.on_ops(act, shape, before);
  run.ops().begin_step({positions, positions, step});
  run.oracle().begin_step({positions, positions, oracle_step});
  run.ops().store_latents(p, kv_of_ops.view(), norm_of_ops.view(), 1e-6F, {rope, cos.view(), sin.view()}, layer);
  run.oracle().store_latents(p, host(kv, shape), host(norm, {lora}), 1e-6F, table.on_host(), layer);
  kv_of_ops.bytes();  // its guards
  for (size_t s = 0; s < parts.size(); ++s) {
    const Part& part = parts[s];
    const auto first = layer * part.capacity + part.context - part.count;
    const auto is_new = [&](size_t place) {
      const auto at = static_cast<int64_t>(place);
      return at >= first && at < first + part.count;
    };
    const auto latent_allowed = [&](size_t i) {
      if (!is_new(i / static_cast<size_t>(lora))) return 0.0;
      const double exact = want[2 * s][i];
      return stored_tolerance(exact, lora, std::abs(exact), act, 6 * 0x1p-24);  // as rms_norm
    };
    const auto key_allowed = [&](size_t i) {
      const size_t place = i / static_cast<size_t>(rope);
      if (!is_new(place)) return 0.0;
      const auto row = static_cast<size_t>(oracle_step[s].q_begin + static_cast<int64_t>(place) - first);
      const size_t key = row * static_cast<size_t>(lora + rope) + static_cast<size_t>(lora);
      const size_t at = key + i % static_cast<size_t>(rope);
      return rotation_tolerance(want[2 * s + 1][i], before, at, adjacent_partner(at, key), act);
    };
    run.expect_close(caches[2 * s].values(), want[2 * s], latent_allowed, fmt::format("latents of sequence {}", s));
    run.expect_close(caches[2 * s + 1].values(), want[2 * s + 1], key_allowed, fmt::format("keys of sequence {}", s));
  }
}

Operation store_latents() {
  Operation out{"store_latents", {}};
  // A whole prompt, a chunk at the end of a full cache, one token, nothing.
  const std::pair<const char*, std::vector<Part>> steps[] = {
      {"the first token", {{1, 1, 1}}},
      {"four sequences", {{7, 7, 20}, {33, 300, 300}, {0, 5, 9}, {1, 18, 30}}},
      {"a chunk of 300", {{300, 390, 400}}}};
  for (const auto& [lora, rope] : std::vector<std::pair<int, int>>{{512, 64}, {96, 16}, {16, 8}, {4, 8}, {33, 6}}) {
    for (const auto& [name, parts] : steps) {
      for (const int layer : {0, 2}) {
        const auto body = [lora, rope, parts, layer](OpCaseRun& run) {
          check_store_latents(run, lora, rope, parts, layer);
        };
        out.cases.push_back({fmt::format("{} + {}, {}, layer {}", lora, rope, name, layer), kSmallCase, body});
      }
    }
  }
  return out;
}

using CountAndContext = std::vector<std::pair<int64_t, int64_t>>;

void check_attention(OpCaseRun& run, const ops::MlaParams& params, const CountAndContext& count_and_context) {
  constexpr int kLayer = 1;
  constexpr int64_t kLayers = 3;
  const DType act = run.activation();
  const auto in = random_attention(run.random(), params, count_and_context, act);
  const ops::MlaParams& p = in.params;
  const TensorView kv_b = host(in.kv_b, {int64_t{p.num_heads} * (p.nope_dim + p.v_dim), p.kv_lora_rank});
  const auto weight = run.ops().pack_mla(kv_b, p);
  const int64_t tokens = in.num_tokens();
  const auto q = run.on_ops(act, {tokens, int64_t{p.num_heads} * p.q_dim()}, in.q);
  const auto got = run.poisoned(act, {tokens, int64_t{p.num_heads} * p.v_dim});
  // Caches with room to spare, and NaN in every place that must not be read.
  std::vector<DeviceTensor> caches;
  std::vector<ops::StepSequence> step;
  int64_t begin = 0;
  for (const auto& s : in.sequences) {
    const int64_t capacity = s.context + 13;
    for (const auto& [values, width] : {std::pair(&s.latent, p.kv_lora_rank), std::pair(&s.k_pe, p.rope_dim)}) {
      std::vector<float> all(static_cast<size_t>(kLayers * capacity * width), std::nanf(""));
      std::copy(values->begin(), values->end(), all.begin() + kLayer * capacity * width);
      caches.push_back(run.on_ops(act, {kLayers * capacity, width}, all));
    }
    step.push_back(
        {begin, s.q_count, s.context, capacity, caches[caches.size() - 2].view().data(), caches.back().view().data()});
    begin += s.q_count;
  }
  const std::vector<int32_t> ids(static_cast<size_t>(tokens), 0);
  run.ops().begin_step({ids, ids, step});
  run.ops().mla_attention(p, *weight, q.view(), kLayer, got.view());
  const auto want = attend(in, run.make_oracle());
  const auto allowed = attention_tolerance(in, want, run.compute(), act, run.random(), run.make_oracle());
  run.expect_close(
      got.values(), want, [&](size_t i) { return allowed[i]; }, "attention");
  // The same once more: no state is left behind, and the same sum in the same order.
  const auto again = run.poisoned(act, {tokens, int64_t{p.num_heads} * p.v_dim});
  run.ops().mla_attention(p, *weight, q.view(), kLayer, again.view());
  run.expect_equal(again.values(), got.values(), "attention, again");
}

OpCase attention_case(const std::string& name, const ops::MlaParams& p, const CountAndContext& sequences) {
  int64_t longest = 0;
  int64_t work = 0;
  for (const auto& [count, context] : sequences) {
    longest = std::max(longest, context);
    work += p.num_heads * context * (int64_t{p.nope_dim + p.v_dim} * p.kv_lora_rank + count * (p.q_dim() + p.v_dim));
  }
  return {name, CaseSize{longest, work}, [p, sequences](OpCaseRun& run) { check_attention(run, p, sequences); }};
}

Operation mla_attention() {
  Operation out{"mla_attention", {}};
  const std::pair<const char*, CountAndContext> steps[] = {
      {"the first token", {{1, 1}}},
      {"decode", {{1, 1}, {1, 40}, {1, 70}, {1, 300}, {1, 1000}}},
      {"decode of 33", CountAndContext(33, {1, 65})},
      {"a token after 31, 32 and 33", {{1, 32}, {1, 33}, {1, 34}}},
      {"prompts of 31, 32 and 33", {{31, 31}, {32, 32}, {33, 33}}},
      {"1 to 9 new tokens", {{1, 40}, {2, 70}, {3, 300}, {4, 40}, {5, 70}, {6, 6}, {7, 300}, {8, 70}, {9, 40}}},
      {"whole", {{40, 40}, {70, 70}, {1, 1}}},
      {"whole, and a longer one", {{40, 40}, {1, 1}, {300, 300}}},
      {"chunks", {{17, 70}, {0, 9}, {1, 40}, {33, 65}}},
      {"chunks of longer ones", {{40, 1000}, {0, 70}, {129, 300}, {1, 300}, {0, 1}}},
      {"nothing new at all", {{0, 5}, {0, 1}}}};
  // kv_lora_rank decides which way is cheaper, with keys and values expanded or with queries in latent space: both are
  // taken. The one with 4 heads of 96 + 32 is large enough for tensor cores, but not what the tuned kernel is for.
  const std::pair<const char*, ops::MlaParams> dims[] = {{"V2-Lite", {16, 128, 64, 128, 512, 0.0F}},
                                                         {"demo", {8, 32, 16, 32, 96, 0.0F}},
                                                         {"one head", {1, 16, 8, 12, 16, 0.0F}},
                                                         {"lora 4", {3, 16, 8, 12, 4, 0.0F}},
                                                         {"lora 16", {3, 16, 8, 12, 16, 0.0F}},
                                                         {"lora 33", {3, 16, 8, 12, 33, 0.0F}},
                                                         {"lora 96", {3, 16, 8, 12, 96, 0.0F}},
                                                         {"nothing a multiple of 16", {5, 24, 10, 7, 40, 0.0F}},
                                                         {"4 heads of 96 + 32", {4, 96, 32, 64, 256, 0.0F}}};
  for (const auto& [model, params] : dims) {
    for (const auto& [step, sequences] : steps) {
      out.cases.push_back(attention_case(fmt::format("{}: {}", model, step), params, sequences));
    }
  }
  const ops::MlaParams v2_lite = dims[0].second;
  out.cases.push_back(attention_case("V2-Lite: a prompt of 1000", v2_lite, {{1000, 1000}}));
  ops::MlaParams two_heads = v2_lite;  // so that the oracle takes less time
  two_heads.num_heads = 2;
  out.cases.push_back(attention_case("V2-Lite: decode over 4500", two_heads, {{1, 4500}, {3, 4500}}));
  out.cases.push_back(attention_case("V2-Lite: a short continuation of 4500", two_heads, {{20, 4500}}));
  out.cases.push_back(attention_case("V2-Lite: a chunk after 4460", two_heads, {{40, 4500}}));
  return out;
}

}  // namespace

std::vector<Operation> attention_operations() { return {rope(), rope_layouts(), store_latents(), mla_attention()}; }

}  // namespace eps::ops
