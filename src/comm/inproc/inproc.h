// Ranks that are threads of one process: host memory, no copies but the receiver's.
#pragma once

#include <chrono>
#include <memory>
#include <vector>

#include "comm/communicator.h"
#include "epsmoe/stop.h"

namespace eps {

// One communicator per rank, joined to each other. A wait longer than `timeout` throws on the rank that waited; time in
// which the whole process did not run (Ctrl-Z, a suspended machine) does not count. Waits end with kInterrupted within
// 50 ms after `stop` asks for it.
std::vector<std::unique_ptr<Communicator>> make_inproc_communicators(int num_ranks, std::chrono::milliseconds timeout,
                                                                     StopToken stop = {});

}  // namespace eps
