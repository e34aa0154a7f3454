// Communication between ranks that are threads of one process. Messages are copied once, by the receiver.
#pragma once

#include <chrono>
#include <memory>
#include <vector>

#include "comm/communicator.h"
#include "epsmoe/stop.h"

namespace eps::comm {

// Creates one connected communicator per rank. A wait longer than `timeout` throws on the waiting rank, where time in
// which the whole process did not run (Ctrl-Z, a suspended machine) does not count. Waits end with kInterrupted within
// 50 ms of a request by `stop`.
std::vector<std::unique_ptr<Communicator>> make_inproc_communicators(int num_ranks, std::chrono::milliseconds timeout,
                                                                     StopToken stop = {});

}  // namespace eps::comm
