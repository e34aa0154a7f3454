// Logits computed in bf16 against better ones, with tolerances that are argued.
#pragma once

#include <cstdio>
#include <string>
#include <vector>

#include "support/golden.h"
#include "support/gpu_test.h"
#include "support/tolerance.h"

namespace eps::test {

// How far bf16 may move logits, relative to the largest one.
//
// On their way through a layer numbers are rounded to bf16 some 24 times: norm, low-rank query and its norm, query,
// latent query, latent, key, probabilities, latent sum, values, projection; norm, gate and up, their product, down, the
// experts' sum; and the weights of nine products. A sum of many terms that are each off by a random u/sqrt(3) at most
// is itself off by as much relative to its own size, however long it is. So a layer is off by sqrt(24 / 3)·u of what it
// adds to the residual stream, and layers and the output matrix add up in squares. Errors and logits are about normally
// distributed, so the largest error of a position is that part of the largest logit, too.
inline double logit_tolerance(int64_t num_layers) {
  constexpr double kRoundings = 24;
  return std::sqrt(kRoundings * static_cast<double>(num_layers + 1) / 3) * unit_roundoff(DType::kBF16);
}

// Half of the positions must be within that, nine in ten within twice (some are hit harder), and the rest within
// kOtherExpert: where two experts score nearly the same for a token, rounding may choose the other one, which changes
// one of the terms of one block. A wrong mask, position, head, row or weight moves logits by as much as they are large.
// (With rounding at random, 12 times over, the golden models' worst position was off by 0.23.)
inline constexpr double kOtherExpert = 0.5;

// The largest error of each position, relative to the largest logit; ascending.
inline std::vector<double> row_errors(const std::vector<Logits>& got, const std::vector<Logits>& want) {
  std::vector<double> rows;
  double top = 0;
  for (size_t s = 0; s < want.size(); ++s) {
    for (size_t t = 0; t < want[s].size(); ++t) {
      EPS_CHECK_EQ(got[s][t].size(), want[s][t].size());
      double worst = 0;
      for (size_t v = 0; v < want[s][t].size(); ++v) {
        const double exact = want[s][t][v];
        const double error = std::abs(got[s][t][v] - exact);
        worst = std::max(worst, std::isfinite(error) ? error : 1e30);
        top = std::max(top, std::abs(exact));
      }
      rows.push_back(worst);
    }
  }
  for (double& row : rows) row /= top;
  std::sort(rows.begin(), rows.end());
  return rows;
}

// `computations`: how many in bf16 the two sides differ by; their errors add up in squares.
inline void expect_close_logits(const std::vector<Logits>& got, const std::vector<Logits>& want, int64_t num_layers,
                                const std::string& what, int computations = 1) {
  const auto rows = row_errors(got, want);
  const double half = rows[rows.size() / 2];
  const double most = rows[rows.size() * 9 / 10];
  const double allowed = logit_tolerance(num_layers) * std::sqrt(computations);
  std::printf("%-48s of %4zu positions half are off by %.4f (allowed %.4f), 9 in 10 by %.4f, all by %.4f\n",
              what.c_str(), rows.size(), half, allowed, most, rows.back());
  EXPECT_LE(half, allowed) << what;
  EXPECT_LE(most, 2 * allowed) << what;
  EXPECT_LE(rows.back(), kOtherExpert) << what;
}

}  // namespace eps::test
