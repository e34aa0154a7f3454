// Reads texts that users name: files, pipes, devices and standard input, up to a size.
#pragma once

#include <cstdint>
#include <string>

namespace eps::cli {

// The bytes of a file, FIFO, device or socket until its end; "-" and "/dev/stdin" mean standard input. Waits for a FIFO
// that has no writer yet.
//
// Errors  kInput naming the path: missing, a folder, not readable, larger than `max_bytes` (of which no more is read);
//         kInterrupted: asked to stop while there was nothing to read
std::string read_text(const std::string& path, uint64_t max_bytes);

}  // namespace eps::cli
