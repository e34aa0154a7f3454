// Fits the profile of the paper's machine to its tables 5 and 6, and to nothing else. Deterministic: a pattern search
// without random numbers. Writes the profile, and prints what was fitted and what is left.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <fstream>

#include "base/error.h"
#include "calibration.h"
#include "report/profile_store.h"

namespace {

using namespace eps;         // NOLINT(google-build-using-namespace): a program of its own
using namespace eps::paper;  // NOLINT(google-build-using-namespace)

struct Fit {
  std::vector<Parameter> parameters;
  std::vector<FittedCell> cells;
  double loss = 0;
};

std::vector<double> values_of(const std::vector<Parameter>& parameters) {
  std::vector<double> out;
  for (const Parameter& p : parameters) out.push_back(p.value);
  return out;
}

// Steps by a factor in each number in turn; a number whose steps help takes larger ones, others smaller ones.
Fit fit(const plan::HardwareProfile& base, const Reading& reading, Weighing weighing, int sweeps) {
  Fit out{parameters(), {}, 0};
  const FitCells cells(reading);
  const auto predict = [&] { return cells.predict(make_profile(base, values_of(out.parameters))); };
  out.loss = loss_of(predict(), weighing);
  std::vector<double> step(out.parameters.size(), 0.5);
  for (int sweep = 0; sweep < sweeps; ++sweep) {
    for (size_t i = 0; i < step.size(); ++i) {
      Parameter& p = out.parameters[i];
      const double before = p.value;
      bool better = false;
      for (const double direction : {step[i], -step[i]}) {
        p.value = std::clamp(before * std::exp(direction), p.least, p.most);
        if (p.value == before) continue;
        const double now = loss_of(predict(), weighing);
        if (!(now < out.loss)) continue;
        out.loss = now;
        better = true;
        step[i] = direction * 1.5;  // and in the same direction first
        break;
      }
      if (better) continue;
      p.value = before;
      step[i] *= 0.5;
      if (std::abs(step[i]) < 1e-3) step[i] = 0.05;  // what other numbers did may have opened a way
    }
  }
  // As many digits as the paper's, so that the file does not depend on a compiler's last bits.
  for (Parameter& p : out.parameters) p.value = std::stod(fmt::format("{:.4g}", p.value));
  out.cells = predict();
  return out;
}

struct Residuals {
  int cells = 0;
  double rms = 0;  // %
  double worst = 0;
};

Residuals residuals_of(const std::vector<FittedCell>& cells, int table, bool ratios) {
  Residuals out;
  double sum = 0;
  for (const FittedCell& cell : cells) {
    if (cell.table != table || !cell.counts) continue;
    const double error = ratios ? ratio_error(cells, cell) : time_error(cell);
    sum += error * error;
    out.worst = std::max(out.worst, std::abs(error));
    ++out.cells;
  }
  out.rms = 100 * std::sqrt(sum / out.cells);
  out.worst *= 100;
  return out;
}

void print_residuals(const Fit& fit) {
  for (const int table : {5, 6}) {
    for (const bool ratios : {false, true}) {
      const Residuals r = residuals_of(fit.cells, table, ratios);
      fmt::print("  table {} {}: {} cells, rms {:.1f} %, worst {:.1f} %\n", table, ratios ? "ratios" : "times", r.cells,
                 r.rms, r.worst);
    }
  }
}

void print_numbers(const Fit& fit) {
  for (const Parameter& p : fit.parameters) {
    const bool at_edge = p.value <= p.least * 1.001 || p.value >= p.most * 0.999;
    fmt::print("  {:52} {:9.4g}{}\n", p.name, p.value, at_edge ? "  (the edge of what it may be)" : "");
  }
}

void print_cells(const Fit& fit) {
  for (const FittedCell& cell : fit.cells) {
    const std::string at = cell.table == 5 ? fmt::format("ID {:2} n={:5}", cell.row, cell.inner) : "";
    fmt::print("  table {} {:13} m={:4} {} SMs: {:6.3f} ms, ours {:6.3f} ({:+.1f} %){}\n", cell.table, at, cell.m,
               cell.gemm_sms, cell.paper_ms, cell.ours_ms, 100 * (cell.ours_ms / cell.paper_ms - 1),
               cell.counts ? "" : ", an outlier that is not fitted");
  }
}

void compare_readings(const plan::HardwareProfile& base, Weighing weighing, int sweeps) {
  for (const Reading::M m : {Reading::M::kTokensPerRank, Reading::M::kRowsPerExpert, Reading::M::kTokens}) {
    for (const int top_k : {2, 4, 6, 8}) {
      for (const bool once : {true, false}) {
        const Reading reading{m, top_k, once};
        const Fit fitted = fit(base, reading, weighing, sweeps);
        fmt::print("{}: loss {:.5f}, links {:.0f} GB/s\n", to_string(reading), fitted.loss,
                   fitted.parameters.front().value);
        std::fflush(stdout);
      }
    }
  }
}

int run(int argc, char** argv) {
  std::string out;
  int sweeps = 200;
  bool readings = false;
  bool ratios = false;
  Reading reading;
  bool copies = false;
  CLI::App app{"Fit the profile of the paper's machine to its tables 5 and 6"};
  app.add_option("-o,--out", out, "Write the profile to this file")->type_name("FILE");
  app.add_option("--sweeps", sweeps, "Rounds through all numbers")->check(CLI::Range(1, 100000))->capture_default_str();
  app.add_flag("--readings", readings, "Instead compare what m and top-k may mean");
  app.add_flag("--ratios", ratios, "Weigh ratios within a column instead of times");
  app.add_option("--top-k", reading.top_k, "Experts a token in tables 5 to 7")
      ->check(CLI::Range(1, 16))
      ->capture_default_str();
  app.add_flag("--copies", copies, "In those a token travels once an expert instead of once a GPU");
  CLI11_PARSE(app, argc, argv);
  reading.once_per_rank = !copies;
  const plan::HardwareProfile base = report::bundled_profile("h800");
  const Weighing weighing = ratios ? Weighing::kRatios : Weighing::kTimes;
  if (readings) {
    compare_readings(base, weighing, sweeps);
    return 0;
  }
  const Fit fitted = fit(base, reading, weighing, sweeps);
  fmt::print("{}\nloss {:.6f}, {} numbers\n", to_string(reading), fitted.loss, fitted.parameters.size());
  print_numbers(fitted);
  print_residuals(fitted);
  print_cells(fitted);
  if (out.empty()) return 0;
  std::ofstream file(out);
  if (!(file << report::to_json(make_profile(base, values_of(fitted.parameters))))) {
    fail(ErrorKind::kInput, out, {.what = "cannot be written", .got = "", .wanted = "", .hint = ""});
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& error) {
    fmt::print(stderr, "error: {}\n", error.what());
    return 1;
  }
}
