// Makes a fast transport behave like a slower link with a given bandwidth and latency.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "comm/communicator.h"
#include "epsmoe/stop.h"

namespace eps::comm {

struct LinkSpec {
  double bytes_per_second = 0;
  double latency_seconds = 0;
};

// Parses a bandwidth (B/s, kB/s, MB/s, GB/s; powers of ten), optionally followed by a comma and a latency (ns, us, ms,
// s), such as "1GB/s,20us".
// Errors  kUsage naming `field`
LinkSpec parse_link_spec(std::string_view text, const std::string& field = "emulate_link");

// Each rank has one full-duplex link that both channels share. It sends one message after another, and each message
// takes as long as the larger of the bytes sent and received. all_to_all returns when the link would have delivered the
// message. Waiting ranks sleep and so use no core, as with an offloaded transfer. A stop request ends the wait with
// kInterrupted. The control plane is not slowed down.
std::unique_ptr<Communicator> make_emulated_link(std::unique_ptr<Communicator> inner, const LinkSpec& spec,
                                                 StopToken stop = {});

}  // namespace eps::comm
