#include "cli/first_use.h"

#include <fmt/format.h>

#include "base/error.h"
#include "cli/command.h"
#include "cli/console.h"
#include "cli/progress.h"
#include "engine/factory.h"
#include "engine/model_folder.h"
#include "engine/profile_choice.h"
#include "measure/machine_profile.h"

namespace eps::cli {

bool measure_on_first_use(const EngineOptions& options) {
  if (!options.profile.empty() || options.device != "cpu") return false;
  const engine::ModelFolder folder = engine::open_model_folder(options.model, options.dummy_weights);
  if (folder.spec.first_moe_layer() < 0) return false;
  const int threads = options.threads > 0 ? options.threads : engine::default_threads_per_rank(options.ep);
  const auto ops = engine::make_op_sets(options.device, options.dtype, 1, threads);
  const DType weights = ops.front()->weight_dtype(engine::stored_dtype(folder));
  const engine::ChosenProfile chosen =
      engine::choose_profile({.op_set = ops.front()->description(),
                              .threads = threads,
                              .num_ranks = options.ep,
                              .weight_dtype = weights,
                              .shape = arch::moe_shape(folder.spec, weights, ops.front()->compute_dtype())});
  const std::string dir = engine::user_profile_dir();
  if (chosen.fits() || !engine::can_write_into(dir)) return false;
  print_error("measuring this machine for the first time, a few seconds (--no-tune skips this)\n");
  Progress progress("measuring", "steps");
  const measure::MachineProfile machine = measure::measure_machine(
      {.device = options.device,
       .dtype = options.dtype,
       .num_ranks = options.ep,
       .threads = threads,
       .models = {measure::tune_model(folder.spec, options.model)},
       .shapes = {},
       .weight_dtypes = {weights},
       .quick = true,
       .memory_gb = machine_memory_gb()},
      [&progress](int64_t done, int64_t total) {
        progress.update(static_cast<uint64_t>(done), static_cast<uint64_t>(total));
      },
      [] { return !interrupted(); });
  try {
    measure::keep_profile(machine, dir);
  } catch (const Error& e) {
    // A full disk must not prevent text generation.
    print_error("the profile could not be stored: {}\n", printable(e.what(), 400));
    return false;
  }
  return true;
}

}  // namespace eps::cli
