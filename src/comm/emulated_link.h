// A decorator that makes a fast transport behave like a slower link with a given bandwidth and latency.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "comm/communicator.h"
#include "epsmoe/stop.h"

namespace eps {

struct LinkSpec {
  double bytes_per_second = 0;
  double latency_seconds = 0;
};

// "1GB/s,20us": a bandwidth (B/s, kB/s, MB/s, GB/s; powers of ten) and, after a comma, a latency (ns, us, ms, s).
// Errors  kUsage naming `field`
LinkSpec parse_link_spec(std::string_view text, const std::string& field = "emulate_link");

// Each rank has one full-duplex link for both channels. It carries one message after the other, each taking as long as
// the larger of the bytes sent and received. all_to_all returns when the link would have delivered the message. Waiting
// ranks sleep, so they use no core, as with an offloaded transfer. A stop request ends the wait with kInterrupted. The
// control plane is not slowed down.
std::unique_ptr<Communicator> make_emulated_link(std::unique_ptr<Communicator> inner, const LinkSpec& spec,
                                                 StopToken stop = {});

}  // namespace eps
