// The operations as loops over their definitions, in f64: the oracle of the reference op set. Where there are two ways
// to compute something, it is the one that the reference does not take (attention in latent space, for example).
#pragma once

#include <memory>

#include "ops/op_set.h"

namespace eps::ops {

std::unique_ptr<ops::OpSet> make_plain_ops();

}  // namespace eps::ops
