// Properties are those of utf8proc, with corrections for the characters that were added in Unicode 15 and 16.
#include "io/tokenizer/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <iterator>
#include <span>
#include <vector>

#include "base/error.h"
#include "base/utf8.h"

namespace eps::io::tok {
namespace {

struct CodeRange {
  char32_t first;
  char32_t last;
};

bool contains(std::span<const CodeRange> ranges, char32_t c) {
  const auto it = std::ranges::upper_bound(ranges, c, {}, &CodeRange::first);
  return it != ranges.begin() && c <= std::prev(it)->last;
}

// For each general category, one member with three bytes in UTF-8 and one with four. They have been in Unicode long
// enough that all versions of the libraries include them.
struct StandIn {
  utf8proc_category_t category;
  char32_t three_bytes;
  char32_t four_bytes;
};
constexpr StandIn kLu{UTF8PROC_CATEGORY_LU, 0xa640, 0x10400};
constexpr StandIn kLl{UTF8PROC_CATEGORY_LL, 0xa641, 0x10428};
constexpr StandIn kLm{UTF8PROC_CATEGORY_LM, 0xa717, 0x16b40};
constexpr StandIn kLo{UTF8PROC_CATEGORY_LO, 0xa000, 0x12000};
constexpr StandIn kHan{UTF8PROC_CATEGORY_LO, 0x4e00, 0x20000};
constexpr StandIn kMn{UTF8PROC_CATEGORY_MN, 0x20d0, 0x101fd};
constexpr StandIn kMc{UTF8PROC_CATEGORY_MC, 0x0903, 0x11000};
constexpr StandIn kNd{UTF8PROC_CATEGORY_ND, 0x0966, 0x104a0};
constexpr StandIn kNo{UTF8PROC_CATEGORY_NO, 0x2460, 0x10107};
constexpr StandIn kPd{UTF8PROC_CATEGORY_PD, 0x2010, 0x10ead};
constexpr StandIn kPo{UTF8PROC_CATEGORY_PO, 0x2016, 0x10100};
constexpr StandIn kSm{UTF8PROC_CATEGORY_SM, 0x2200, 0x1d6c1};
constexpr StandIn kSo{UTF8PROC_CATEGORY_SO, 0x2300, 0x1d000};
constexpr StandIn kCf{UTF8PROC_CATEGORY_CF, 0x200b, 0xe0001};

// Characters assigned by Unicode 15.0, 15.1 and 16.0.
struct RecentRange {
  char32_t first;
  char32_t last;
  const StandIn& like;
};
constexpr RecentRange kRecent[] = {
    {0x897, 0x897, kMn},      {0xcf3, 0xcf3, kMc},      {0xece, 0xece, kMn},     {0x1b4e, 0x1b4f, kPo},
    {0x1b7f, 0x1b7f, kPo},    {0x1c89, 0x1c89, kLu},    {0x1c8a, 0x1c8a, kLl},   {0x2427, 0x2429, kSo},
    {0x2ffc, 0x2fff, kSo},    {0x31e4, 0x31e5, kSo},    {0x31ef, 0x31ef, kSo},   {0xa7cb, 0xa7cc, kLu},
    {0xa7cd, 0xa7cd, kLl},    {0xa7da, 0xa7da, kLu},    {0xa7db, 0xa7db, kLl},   {0xa7dc, 0xa7dc, kLu},
    {0x105c0, 0x105f3, kLo},  {0x10d40, 0x10d49, kNd},  {0x10d4a, 0x10d4d, kLo}, {0x10d4e, 0x10d4e, kLm},
    {0x10d4f, 0x10d4f, kLo},  {0x10d50, 0x10d65, kLu},  {0x10d69, 0x10d6d, kMn}, {0x10d6e, 0x10d6e, kPd},
    {0x10d6f, 0x10d6f, kLm},  {0x10d70, 0x10d85, kLl},  {0x10d8e, 0x10d8f, kSm}, {0x10ec2, 0x10ec4, kLo},
    {0x10efc, 0x10eff, kMn},  {0x1123f, 0x11240, kLo},  {0x11241, 0x11241, kMn}, {0x11380, 0x11389, kLo},
    {0x1138b, 0x1138b, kLo},  {0x1138e, 0x1138e, kLo},  {0x11390, 0x113b5, kLo}, {0x113b7, 0x113b7, kLo},
    {0x113b8, 0x113ba, kMc},  {0x113bb, 0x113c0, kMn},  {0x113c2, 0x113c2, kMc}, {0x113c5, 0x113c5, kMc},
    {0x113c7, 0x113ca, kMc},  {0x113cc, 0x113cd, kMc},  {0x113ce, 0x113ce, kMn}, {0x113cf, 0x113cf, kMc},
    {0x113d0, 0x113d0, kMn},  {0x113d1, 0x113d1, kLo},  {0x113d2, 0x113d2, kMn}, {0x113d3, 0x113d3, kLo},
    {0x113d4, 0x113d5, kPo},  {0x113d7, 0x113d8, kPo},  {0x113e1, 0x113e2, kMn}, {0x116d0, 0x116e3, kNd},
    {0x11b00, 0x11b09, kPo},  {0x11bc0, 0x11be0, kLo},  {0x11be1, 0x11be1, kPo}, {0x11bf0, 0x11bf9, kNd},
    {0x11f00, 0x11f01, kMn},  {0x11f02, 0x11f02, kLo},  {0x11f03, 0x11f03, kMc}, {0x11f04, 0x11f10, kLo},
    {0x11f12, 0x11f33, kLo},  {0x11f34, 0x11f35, kMc},  {0x11f36, 0x11f3a, kMn}, {0x11f3e, 0x11f3f, kMc},
    {0x11f40, 0x11f40, kMn},  {0x11f41, 0x11f41, kMc},  {0x11f42, 0x11f42, kMn}, {0x11f43, 0x11f4f, kPo},
    {0x11f50, 0x11f59, kNd},  {0x11f5a, 0x11f5a, kMn},  {0x1342f, 0x1342f, kLo}, {0x13439, 0x1343f, kCf},
    {0x13440, 0x13440, kMn},  {0x13441, 0x13446, kLo},  {0x13447, 0x13455, kMn}, {0x13460, 0x143fa, kLo},
    {0x16100, 0x1611d, kLo},  {0x1611e, 0x16129, kMn},  {0x1612a, 0x1612c, kMc}, {0x1612d, 0x1612f, kMn},
    {0x16130, 0x16139, kNd},  {0x16d40, 0x16d42, kLm},  {0x16d43, 0x16d6a, kLo}, {0x16d6b, 0x16d6c, kLm},
    {0x16d6d, 0x16d6f, kPo},  {0x16d70, 0x16d79, kNd},  {0x18cff, 0x18cff, kLo}, {0x1b132, 0x1b132, kLo},
    {0x1b155, 0x1b155, kLo},  {0x1cc00, 0x1ccef, kSo},  {0x1ccf0, 0x1ccf9, kNd}, {0x1cd00, 0x1ceb3, kSo},
    {0x1d2c0, 0x1d2d3, kNo},  {0x1df25, 0x1df2a, kLl},  {0x1e030, 0x1e06d, kLm}, {0x1e08f, 0x1e08f, kMn},
    {0x1e4d0, 0x1e4ea, kLo},  {0x1e4eb, 0x1e4eb, kLm},  {0x1e4ec, 0x1e4ef, kMn}, {0x1e4f0, 0x1e4f9, kNd},
    {0x1e5d0, 0x1e5ed, kLo},  {0x1e5ee, 0x1e5ef, kMn},  {0x1e5f0, 0x1e5f0, kLo}, {0x1e5f1, 0x1e5fa, kNd},
    {0x1e5ff, 0x1e5ff, kPo},  {0x1f6dc, 0x1f6dc, kSo},  {0x1f774, 0x1f776, kSo}, {0x1f77b, 0x1f77f, kSo},
    {0x1f7d9, 0x1f7d9, kSo},  {0x1f8b2, 0x1f8bb, kSo},  {0x1f8c0, 0x1f8c1, kSo}, {0x1fa75, 0x1fa77, kSo},
    {0x1fa87, 0x1fa89, kSo},  {0x1fa8f, 0x1fa8f, kSo},  {0x1faad, 0x1faaf, kSo}, {0x1fabb, 0x1fabf, kSo},
    {0x1fac6, 0x1fac6, kSo},  {0x1face, 0x1facf, kSo},  {0x1fada, 0x1fadc, kSo}, {0x1fadf, 0x1fadf, kSo},
    {0x1fae8, 0x1fae9, kSo},  {0x1faf7, 0x1faf8, kSo},  {0x1fbcb, 0x1fbef, kSo}, {0x2b739, 0x2b739, kHan},
    {0x2ebf0, 0x2ee5d, kHan}, {0x31350, 0x323af, kHan},
};

const RecentRange* find_recent(char32_t c) {
  // Shortcut: the large blocks of common text contain no such characters.
  if (c < 0x897 || (c >= 0x3200 && c < 0xa7cb) || (c >= 0xac00 && c < 0x105c0)) return nullptr;
  const auto it = std::ranges::upper_bound(kRecent, c, {}, &RecentRange::first);
  return it != std::begin(kRecent) && c <= std::prev(it)->last ? &*std::prev(it) : nullptr;
}

utf8proc_category_t category(char32_t c) {
  if (const RecentRange* recent = find_recent(c)) return recent->like.category;
  return utf8proc_category(static_cast<utf8proc_int32_t>(c));
}

// Numbers of Unicode 17, which the standard library used by the reference's Digits pre-tokenizer already includes.
constexpr CodeRange kNumbersOfUnicode17[] = {{0x11de0, 0x11de9}, {0x16ff4, 0x16ff6}};

// The reference's Punctuation pre-tokenizer uses the categories of Unicode 8. These characters were assigned or became
// punctuation later; U+166D and U+111C9 are no longer punctuation.
constexpr CodeRange kPunctuationSinceUnicode8[] = {
    {0x61d, 0x61d},     {0x9fd, 0x9fd},     {0xa76, 0xa76},     {0xc77, 0xc77},     {0xc84, 0xc84},
    {0x1b4e, 0x1b4f},   {0x1b7d, 0x1b7f},   {0x2e43, 0x2e4f},   {0x2e52, 0x2e5d},   {0x10d6e, 0x10d6e},
    {0x10ead, 0x10ead}, {0x10f55, 0x10f59}, {0x10f86, 0x10f89}, {0x113d4, 0x113d5}, {0x113d7, 0x113d8},
    {0x1144b, 0x1144f}, {0x1145a, 0x1145b}, {0x1145d, 0x1145d}, {0x11660, 0x1166c}, {0x116b9, 0x116b9},
    {0x1183b, 0x1183b}, {0x11944, 0x11946}, {0x119e2, 0x119e2}, {0x11a3f, 0x11a46}, {0x11a9a, 0x11a9c},
    {0x11a9e, 0x11aa2}, {0x11b00, 0x11b09}, {0x11be1, 0x11be1}, {0x11c41, 0x11c45}, {0x11c70, 0x11c71},
    {0x11ef7, 0x11ef8}, {0x11f43, 0x11f4f}, {0x11fff, 0x11fff}, {0x12ff1, 0x12ff2}, {0x16d6d, 0x16d6f},
    {0x16e97, 0x16e9a}, {0x16fe2, 0x16fe2}, {0x1e5ff, 0x1e5ff}, {0x1e95e, 0x1e95f},
};

// Circled and squared Latin letters: symbols by category, but Alphabetic; and the two join controls.
constexpr CodeRange kWordBesidesCategories[] = {
    {0x200c, 0x200d}, {0x24b6, 0x24e9}, {0x1f130, 0x1f149}, {0x1f150, 0x1f169}, {0x1f170, 0x1f189}};

// In these ranges, the lower-case letters are at a fixed distance from the upper-case ones.
struct CaseRange {
  char32_t first;
  char32_t last;
  char32_t lower_first;
};
constexpr CaseRange kRecentCase[] = {{0x1c89, 0x1c89, 0x1c8a},   {0xa7cb, 0xa7cb, 0x264},  {0xa7cc, 0xa7cc, 0xa7cd},
                                     {0xa7ce, 0xa7ce, 0xa7cf},   {0xa7d2, 0xa7d2, 0xa7d3}, {0xa7d4, 0xa7d4, 0xa7d5},
                                     {0xa7da, 0xa7da, 0xa7db},   {0xa7dc, 0xa7dc, 0x19b},  {0x10d50, 0x10d65, 0x10d70},
                                     {0x16ea0, 0x16eb8, 0x16ebb}};

// Characters that the reference library does not decompose, because its tables are older.
constexpr CodeRange kNotDecomposed[] = {{0x32ff, 0x32ff},   {0xa7f2, 0xa7f4},   {0xab69, 0xab69},   {0x10781, 0x107ba},
                                        {0x11938, 0x11938}, {0x1e030, 0x1e06d}, {0x1f16c, 0x1f16c}, {0x1fbf0, 0x1fbf9}};

void append_decomposed(std::vector<utf8proc_int32_t>& out, char32_t c, utf8proc_option_t options) {
  const auto code = static_cast<utf8proc_int32_t>(c);
  if (contains(kNotDecomposed, c)) {
    out.push_back(code);
    return;
  }
  std::array<utf8proc_int32_t, 32> parts;  // the longest decomposition, of U+FDFA, has 18 characters
  int boundary = UTF8PROC_BOUNDCLASS_START;
  const auto count =
      utf8proc_decompose_char(code, parts.data(), static_cast<utf8proc_ssize_t>(parts.size()), options, &boundary);
  EPS_CHECK(count >= 1 && count <= static_cast<utf8proc_ssize_t>(parts.size()));
  out.insert(out.end(), parts.begin(), parts.begin() + count);
}

// Sorts every run of combining marks into canonical order. utf8proc would swap neighbours, which takes quadratic time
// for a long run.
void order_marks(std::vector<utf8proc_int32_t>& codes) {
  const auto mark_class = [](utf8proc_int32_t code) { return utf8proc_get_property(code)->combining_class; };
  for (auto it = codes.begin(); it != codes.end();) {
    if (mark_class(*it) == 0) {
      ++it;
      continue;
    }
    const auto end = std::find_if(it, codes.end(), [&](utf8proc_int32_t code) { return mark_class(code) == 0; });
    std::ranges::stable_sort(it, end, {}, mark_class);
    it = end;
  }
}

}  // namespace

bool is_whitespace(char32_t c) {
  return (c >= 0x9 && c <= 0xd) || c == ' ' || c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) ||
         c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

bool is_numeric(char32_t c) {
  if (c < 0x80) return c >= '0' && c <= '9';
  const utf8proc_category_t kind = category(c);
  return kind == UTF8PROC_CATEGORY_ND || kind == UTF8PROC_CATEGORY_NL || kind == UTF8PROC_CATEGORY_NO ||
         contains(kNumbersOfUnicode17, c);
}

bool is_punctuation(char32_t c) {
  if (c < 0x80) return c > ' ' && c < 0x7f && !(c >= '0' && c <= '9') && !((c | 0x20) >= 'a' && (c | 0x20) <= 'z');
  if (c == 0x166d || c == 0x111c9) return true;
  const utf8proc_category_t kind = category(c);
  return kind >= UTF8PROC_CATEGORY_PC && kind <= UTF8PROC_CATEGORY_PO && !contains(kPunctuationSinceUnicode8, c);
}

bool is_word(char32_t c) {
  if (c < 0x80) return c == '_' || (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z');
  const utf8proc_category_t kind = category(c);
  return (kind >= UTF8PROC_CATEGORY_LU && kind <= UTF8PROC_CATEGORY_NL) || kind == UTF8PROC_CATEGORY_PC ||
         contains(kWordBesidesCategories, c);
}

void append_lowercase(std::string& out, char32_t c) {
  if (c == 0x130) {  // the only letter whose lower case has two characters
    utf8_append(out, U'i');
    utf8_append(out, 0x307);
    return;
  }
  for (const CaseRange& range : kRecentCase) {
    if (c >= range.first && c <= range.last) return utf8_append(out, range.lower_first + (c - range.first));
  }
  utf8_append(out, static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))));
}

std::string normalize_unicode(std::string_view text, UnicodeForm form) {
  if (std::ranges::all_of(text, [](char byte) { return static_cast<unsigned char>(byte) < 0x80; })) {
    return std::string(text);
  }
  const bool compatible = form == UnicodeForm::kNfkc || form == UnicodeForm::kNfkd;
  const bool compose = form == UnicodeForm::kNfc || form == UnicodeForm::kNfkc;
  const auto decompose =
      static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | (compatible ? UTF8PROC_COMPAT : 0));
  std::vector<utf8proc_int32_t> codes;
  codes.reserve(text.size());
  for (size_t i = 0; i < text.size(); i += utf8_sequence_length(text, i)) {
    append_decomposed(codes, utf8_decode(text, i), decompose);
  }
  order_marks(codes);
  auto length = static_cast<utf8proc_ssize_t>(codes.size());
  if (compose) {
    length = utf8proc_normalize_utf32(codes.data(), length,
                                      static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
    EPS_CHECK(length >= 0 && length <= static_cast<utf8proc_ssize_t>(codes.size()));
  }
  std::string out;
  out.reserve(text.size());
  for (utf8proc_ssize_t i = 0; i < length; ++i) utf8_append(out, static_cast<char32_t>(codes[static_cast<size_t>(i)]));
  return out;
}

char32_t regex_stand_in(char32_t c) {
  if (c == 0x180e) return 0x200b;  // PCRE2 treats the Mongolian vowel separator as space; Unicode has not since 6.3
  const RecentRange* recent = find_recent(c);
  if (recent == nullptr) return c;
  return c < 0x10000 ? recent->like.three_bytes : recent->like.four_bytes;
}

}  // namespace eps::io::tok
