// One MoE layer as tables 5 to 7 time it, in our planner's terms.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "plan/planner.h"

namespace eps::paper {

// What the paper leaves undefined about these tables, and how we read it.
struct Reading {
  enum class M : uint8_t {
    kTokensPerRank,  // m tokens on every GPU
    kTokens,         // m tokens over all GPUs
    kRowsPerExpert,  // every expert gets m rows
  };
  M m = M::kTokensPerRank;
  int top_k = 6;
  // A token that several experts of one GPU want travels there: once (the paper's volume formulae), or once an expert.
  bool once_per_rank = true;
};
std::string to_string(const Reading& reading);

struct LayerSizes {
  int num_ranks = 4;
  int experts_per_rank = 20;  // PN = 20 is one expert a stage
  int64_t hidden = 5120;
  int64_t inner = 1536;
};

// Every expert equally popular; weights 8-bit, activations bf16.
plan::MoeProblem layer_problem(const Reading& reading, const LayerSizes& sizes, int64_t m, bool fp8_wire);

// Turns a problem in which a token visits a GPU once into one where it does for each of its experts there. Partial sums
// still return once: combine follows the token.
void send_once_an_expert(plan::MoeProblem& problem);

// How a row of the tables runs a layer. One stage: one op after the other.
struct LayerSetting {
  int num_stages = 1;
  std::optional<moe::GemmKind> kernel = {};
  int gemm_sms = 132;
};

// Limits under which the planner does as the paper's scheduler: no trick that is ours alone.
plan::PlanLimits paper_limits(const LayerSetting& setting);
plan::PipelineOption paper_pipeline(int num_stages);
// The end of the last op on the last rank, and what the planner thought of.
double layer_us(const plan::HardwareProfile& profile, const plan::MoeProblem& problem, const LayerSetting& setting);

}  // namespace eps::paper
