// Any bytes as JSON: either a clean error, or a value that survives being written and read again.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/error.h"
#include "io/generation_config.h"
#include "io/json.h"

namespace {

void expect_input_error(const eps::Error& error) {
  EPS_CHECK(error.kind() == eps::ErrorKind::kInput, "{}", error.what());
  EPS_CHECK(std::string_view(error.what()).find('\n') == std::string_view::npos);
}

// Every way to read a field, on whatever is there.
void read_fields(const eps::io::Json& json) {
  const eps::io::JsonObject object(json, "fuzz");
  for (const auto& item : json.items()) {
    const std::string key = item.key();
    const auto attempt = [&](const auto& read) {
      try {
        read();
      } catch (const eps::Error& error) {
        expect_input_error(error);
      }
    };
    attempt([&] { object.get<int>(key); });
    attempt([&] { object.get<int64_t>(key); });
    attempt([&] { object.get<float>(key); });
    attempt([&] { object.get<std::string>(key); });
    attempt([&] { object.get<std::vector<int64_t>>(key); });
    attempt([&] { EPS_CHECK_GE(object.positive_int(key), 1); });
    attempt([&] { eps::io::read_token_ids(object, key); });
    attempt([&] { read_fields(object.child(key).value()); });
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const eps::io::Json json = eps::io::parse_json(text, "fuzz");
    EPS_CHECK(eps::io::parse_json(json.dump(), "fuzz") == json);
    read_fields(json);
    eps::io::parse_generation_config(eps::io::JsonObject(json, "fuzz"));
  } catch (const eps::Error& error) {
    expect_input_error(error);
  }
  return 0;
}
