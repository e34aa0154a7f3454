// Reads text input: files, pipes, devices and standard input, up to a maximum size.
#pragma once

#include <cstdint>
#include <string>

namespace eps::cli {

// Returns all bytes of a file, FIFO, device or socket; "-" and "/dev/stdin" mean standard input. If a FIFO has no
// writer yet, waits for one.
//
// Errors  kInput naming the path: missing, a folder, not readable, larger than `max_bytes` (no more than that is read);
//         kInterrupted: Ctrl-C while waiting for input
std::string read_text(const std::string& path, uint64_t max_bytes);

}  // namespace eps::cli
