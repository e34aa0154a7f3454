// Choosing the profile for plans: where profiles are found, what must match, and the note if none matches.
#include "engine/profile_choice.h"

#include <gtest/gtest.h>

#include <fstream>

#include "base/error.h"
#include "engine/profile_cache.h"
#include "io/file.h"
#include "plan/builtin_profile.h"
#include "report/profile_store.h"
#include "support/profile_folders.h"

namespace eps::engine {
namespace {

const MachineSetup kSetup{"cpu f32 (avx9), 2 threads", "Test CPU", 1};

plan::HardwareProfile measured(const MachineSetup& setup, const std::string& name) {
  plan::HardwareProfile profile = plan::builtin_cpu_profile(2);
  profile.name = name;
  profile.device = describe_setup(setup);
  profile.origin = "measured";
  profile.ranks_per_node = setup.num_ranks;
  if (setup.num_ranks == 1) profile.links.clear();
  return profile;
}

ProfileQuery query_of(const MachineSetup& setup) {
  return {.op_set = setup.op_set, .threads = 2, .num_ranks = setup.num_ranks, .cpu = setup.cpu};
}

class ProfileChoice : public ::testing::Test {
 protected:
  void keep(const std::string& dir, const MachineSetup& setup, const std::string& name) {
    io::replace_file(dir + "/" + profile_file_stem(setup) + ".json", report::to_json(measured(setup, name)));
  }
  static ChosenProfile choose(const MachineSetup& setup) { return choose_profile(query_of(setup)); }

  test::ProfileFolders folders_;
};

TEST_F(ProfileChoice, TheNamedFolderThenTheUsersThenTheBuiltInModel) {
  const ChosenProfile rough = choose(kSetup);
  EXPECT_EQ(rough.profile.name, "builtin-cpu");
  EXPECT_EQ(rough.source, "built in");
  EXPECT_EQ(rough.note, "there is no profile for cpu f32 (avx9), 2 threads with bf16 weights");

  keep(user_profile_dir(), kSetup, "users");
  EXPECT_EQ(choose(kSetup).profile.name, "users");
  EXPECT_TRUE(choose(kSetup).fits()) << choose(kSetup).note;
  EXPECT_TRUE(choose(kSetup).source.starts_with(folders_.cache())) << choose(kSetup).source;

  keep(folders_.named(), kSetup, "named");
  EXPECT_EQ(choose(kSetup).profile.name, "users") << "the variable is not set";
  setenv(kProfileDirVariable, folders_.named().c_str(), 1);
  EXPECT_EQ(choose(kSetup).profile.name, "named");
}

TEST_F(ProfileChoice, AProfileOfAnotherSetupIsUsedOnlyWithoutABetterOne) {
  MachineSetup other_cpu = kSetup;
  other_cpu.cpu = "Other CPU";
  keep(user_profile_dir(), other_cpu, "other");
  EXPECT_EQ(choose(kSetup).profile.name, "other");
  EXPECT_NE(choose(kSetup).note.find("this is Test CPU"), std::string::npos) << choose(kSetup).note;

  MachineSetup two_ranks = kSetup;
  two_ranks.num_ranks = 2;
  keep(user_profile_dir(), two_ranks, "two");
  EXPECT_EQ(choose(kSetup).profile.name, "two") << "the CPU has more weight than the number of ranks";
  EXPECT_NE(choose(kSetup).note.find("measured with 2 ranks at once, not 1"), std::string::npos) << choose(kSetup).note;
  EXPECT_TRUE(choose(two_ranks).fits());

  keep(user_profile_dir(), kSetup, "one");
  EXPECT_EQ(choose(kSetup).profile.name, "one");
  EXPECT_EQ(choose(two_ranks).profile.name, "two") << "one rank has no links";

  MachineSetup other_threads = kSetup;
  other_threads.op_set = "cpu f32 (avx9), 4 threads";
  EXPECT_EQ(choose(other_threads).profile.name, "builtin-cpu") << "rates depend on the number of threads";
}

TEST_F(ProfileChoice, SizesFarFromTheMeasuredOnesDoNotFit) {
  plan::HardwareProfile profile = measured(kSetup, "small");
  for (plan::GemmProfile& gemm : profile.gemms) {
    const plan::Curve curve = gemm.shapes[0].us_of_rows;
    gemm.shapes = {{128, 256, curve}, {256, 64, curve}};
  }
  io::replace_file(user_profile_dir() + "/small.json", report::to_json(profile));
  ProfileQuery query = query_of(kSetup);
  EXPECT_TRUE(choose_profile(query).fits()) << "any sizes";
  query.shape = plan::MoeShape{.hidden = 256, .inner = 128, .shared_inner = 0, .top_k = 2};
  EXPECT_TRUE(choose_profile(query).fits()) << choose_profile(query).note;
  query.shape = plan::MoeShape{.hidden = 2048, .inner = 1408, .shared_inner = 0, .top_k = 2};
  EXPECT_EQ(choose_profile(query).note, "profile small was not measured at this model's sizes");
  query.shape = plan::MoeShape{.hidden = 256, .inner = 128, .shared_inner = 4096, .top_k = 2};
  EXPECT_FALSE(choose_profile(query).fits()) << "the shared experts' sizes count, too";
}

TEST_F(ProfileChoice, InvalidFilesAreSkippedAndNamed) {
  io::replace_file(user_profile_dir() + "/broken.json", "{");
  EXPECT_NE(choose(kSetup).note.find("broken.json"), std::string::npos) << choose(kSetup).note;
  keep(user_profile_dir(), kSetup, "whole");
  EXPECT_EQ(choose(kSetup).profile.name, "whole");
  EXPECT_TRUE(choose(kSetup).fits());
}

TEST_F(ProfileChoice, ARequestedProfileIsUsedWithANoteOnMismatches) {
  ProfileQuery query = query_of(kSetup);
  query.requested = "cpu";
  EXPECT_EQ(choose_profile(query).profile.name, "cpu");
  EXPECT_NE(choose_profile(query).note.find("this is cpu f32 (avx9)"), std::string::npos);
}

TEST_F(ProfileChoice, WithoutAHomeThereIsNoUsersFolder) {
  for (const char* cache : {"", "relative/path"}) {
    setenv("XDG_CACHE_HOME", cache, 1);
    const char* old = getenv("HOME");
    const std::string home = old == nullptr ? "" : old;
    setenv("HOME", "/home/user", 1);
    EXPECT_EQ(user_profile_dir(), "/home/user/.cache/epsmoe/profiles") << cache;
    unsetenv("HOME");
    EXPECT_EQ(user_profile_dir(), "") << cache;
    EXPECT_FALSE(can_write_into(user_profile_dir()));
    EXPECT_EQ(choose(kSetup).profile.name, "builtin-cpu");
    if (!home.empty()) setenv("HOME", home.c_str(), 1);
  }
}

TEST(ProfileFiles, NamesDifferBySetupAndAreValidOnAnyFileSystem) {
  EXPECT_EQ(profile_file_stem({"cpu f32 (avx2), 1 thread", "AMD EPYC 7B13", 2}),
            "cpu-f32-avx2-1-thread-amd-epyc-7b13-2-ranks-at-once");
  const std::string longest = profile_file_stem({"cpu f32", std::string(1000, 'x') + "/../", 16});
  EXPECT_LE(longest.size(), 150U);
  EXPECT_TRUE(longest.ends_with("16-ranks-at-once")) << longest;
  EXPECT_EQ(longest.find('/'), std::string::npos);
}

TEST(ProfileFiles, AReplacedFileIsCompleteAndAnErrorNamesIt) {
  const test::ProfileFolders folders;
  const std::string path = folders.path("a/b/c.json");
  io::replace_file(path, "one");
  io::replace_file(path, "two");
  std::ifstream file(path);
  std::string text;
  std::getline(file, text);
  EXPECT_EQ(text, "two");
  EXPECT_EQ(list_profile_files(folders.path("a/b")), std::vector<std::string>{path}) << "no temporary file is left";
  try {
    io::replace_file(path + "/below-a-file.json", "three");
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kResource);
    EXPECT_NE(std::string(e.what()).find("below-a-file.json"), std::string::npos) << e.what();
  }
}

}  // namespace
}  // namespace eps::engine
