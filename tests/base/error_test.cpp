#include "base/error.h"

#include <gtest/gtest.h>

#include <string>

#include "base/terminal_text.h"
#include "base/utf8.h"

namespace eps {
namespace {

TEST(Printable, EscapesCharactersThatMoveTheCursorOrHideText) {
  EXPECT_EQ(printable("a\x1b[31mb\x07\x7f"), "a\\x1b[31mb\\x07\\x7f");
  EXPECT_EQ(printable("a\r\n\tb"), "a\\x0d\\x0a\\x09b");
  EXPECT_EQ(printable("\u009b31m"), "\\u009b31m");                              // C1: what ESC [ is
  EXPECT_EQ(printable("\u202egpj\u2066x\u2069"), "\\u202egpj\\u2066x\\u2069");  // directions
  EXPECT_EQ(printable("a\u200bb\ufeffc\u2060"), "a\\u200bb\\ufeffc\\u2060");    // no width
  EXPECT_EQ(printable("a\u2028b\u2029"), "a\\u2028b\\u2029");                   // separators
  EXPECT_EQ(printable("\U000e0041"), "\\U000e0041");                            // a tag
  EXPECT_EQ(printable("\xff\xc3 \xed\xa0\x80"), "\\xff\\xc3 \\xed\\xa0\\x80");
  EXPECT_EQ(printable("plain, é 中文 × µ ± 🙂 العربية"),
            "plain, é 中文 × µ ± 🙂 العربية");
}

TEST(Printable, CutsCharactersNotBytes) {
  EXPECT_EQ(printable("ééé", 2), "éé…");
  EXPECT_EQ(printable("\x1b\x1b\x1b", 2), "\\x1b\\x1b…");
  EXPECT_EQ(printable("éé", 2), "éé");
}

TEST(Printable, LinesStayLines) {
  EXPECT_EQ(printable_lines("a\x1b\nb\r\n\u202e"), "a\\x1b\nb\\x0d\n\\u202e");
  EXPECT_EQ(printable_lines(std::string(1000, 'x')), std::string(1000, 'x'));
}

TEST(Printable, IsTheSameTwice) {
  const std::string once = printable("\x1b \u202e \xff \\ é", 100);
  EXPECT_EQ(printable(once, 100), once);
}

TEST(Fail, EscapesAllParts) {
  const std::string evil = "\x1b[2J\u009b\u202e\n";
  try {
    fail(ErrorKind::kInput, evil, {evil, evil, evil, evil});
  } catch (const Error& error) {
    const std::string_view what = error.what();
    for (size_t i = 0; i < what.size(); i += utf8_sequence_length(what, i)) {
      EXPECT_TRUE(is_plain_character(utf8_decode(what, i))) << what;
    }
  }
}

}  // namespace
}  // namespace eps
