// A decorator that makes a fast transport behave like a slower link: it paces bytes to a bandwidth and adds a latency.
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

// Each rank has one link that carries its traffic of both channels, one message after the other, the larger of what it
// sends and receives counting (full duplex). all_to_all returns when the link would have delivered. Waiting sleeps, so
// it costs no core: what an offloaded transfer does. A request to stop ends it with kInterrupted. The control plane is
// not paced.
std::unique_ptr<Communicator> make_emulated_link(std::unique_ptr<Communicator> inner, const LinkSpec& spec,
                                                 StopToken stop = {});

}  // namespace eps
