// An embedding program: opens the model folder of its first argument on two ranks and lets it write a few words.
#include <epsmoe/engine.h>
#include <epsmoe/error.h>
#include <epsmoe/version.h>

#include <cstdio>
#include <string_view>

// The header and the package speak of one version.
static_assert(std::string_view(EPSMOE_VERSION) == PACKAGE_VERSION);

int main(int argc, char** argv) {
  if (argc != 2) return 2;

  // Errors cross the library's border as what the public header says they are.
  try {
    eps::Engine::open({.model = "/nonexistent-model"});
    std::fputs("a missing model was opened\n", stderr);
    return 1;
  } catch (const eps::Error& error) {
    if (error.kind() != eps::ErrorKind::kInput && error.kind() != eps::ErrorKind::kUsage) {
      std::fprintf(stderr, "a missing model is an input or usage error, got: %s\n", error.what());
      return 1;
    }
  }

  try {
    const auto engine = eps::Engine::open({.model = argv[1], .ep = 2});
    const auto print = [](std::string_view text) {
      std::fwrite(text.data(), 1, text.size(), stdout);
      return true;
    };
    const eps::GenerateResult result =
        engine->generate({.prompt = "It was", .max_tokens = 8, .temperature = 0.0, .ignore_eos = true}, print);
    if (result.ids.size() == 8) return 0;
    std::fprintf(stderr, "wanted 8 tokens, got %zu\n", result.ids.size());
  } catch (const eps::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
  }
  return 1;
}
