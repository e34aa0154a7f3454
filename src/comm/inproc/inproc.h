// Ranks that are threads of one process: host memory, no copies but the receiver's.
#pragma once

#include <chrono>
#include <memory>
#include <vector>

#include "comm/communicator.h"

namespace eps {

// One communicator per rank, joined to each other. A wait longer than `timeout` throws on the rank that waited.
std::vector<std::unique_ptr<Communicator>> make_inproc_communicators(int num_ranks, std::chrono::milliseconds timeout);

}  // namespace eps
