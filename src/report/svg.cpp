#include "report/svg.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>

#include "base/utf8.h"

namespace eps::report {
namespace {

// Bytes of the UTF-8 character that begins at text[i].
size_t char_bytes(std::string_view text, size_t i) {
  size_t n = 1;
  while (i + n < text.size() && (static_cast<unsigned char>(text[i + n]) & 0xC0U) == 0x80U) ++n;
  return n;
}

double em_of(char c) {
  if (std::string_view("iljtfr.,:;|!' ()[]").find(c) != std::string_view::npos) return 0.34;
  if (std::string_view("mwMW%@").find(c) != std::string_view::npos) return 0.92;
  return 0.62;
}

double linear(uint8_t channel) {
  const double v = channel / 255.0;
  return v <= 0.04045 ? v / 12.92 : std::pow((v + 0.055) / 1.055, 2.4);
}

}  // namespace

Color mix(Color color, Color other, double share) {
  const auto channel = [share](uint8_t a, uint8_t b) {
    return static_cast<uint8_t>(std::lround(a + (b - a) * std::clamp(share, 0.0, 1.0)));
  };
  return {channel(color.r, other.r), channel(color.g, other.g), channel(color.b, other.b)};
}

Color text_color_on(Color background) {
  const double luminance =
      0.2126 * linear(background.r) + 0.7152 * linear(background.g) + 0.0722 * linear(background.b);
  // Contrast with white, (1 + .05) / (L + .05), against that with black, (L + .05) / .05, as WCAG defines it.
  return luminance > 0.179 ? Color{17, 24, 39} : Color{255, 255, 255};
}

std::string to_string(Color color) { return fmt::format("#{:02x}{:02x}{:02x}", color.r, color.g, color.b); }

std::string escape_xml(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size();) {
    const size_t length = utf8_sequence_length(text, i);
    const char32_t c = length == 0 ? U'\uFFFD' : utf8_decode(text, i);
    i += length == 0 ? 1 : length;
    switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '"': out += "&quot;"; break;
      case '\'': out += "&#39;"; break;
      // XML does not allow most control characters, even escaped, nor U+FFFE and U+FFFF, nor bytes that are not UTF-8.
      default: utf8_append(out, c == '\t' || c == '\n' || is_plain_character(c) ? c : U'\uFFFD');
    }
  }
  return out;
}

double text_width(std::string_view text, double size) {
  double em = 0;
  for (size_t i = 0; i < text.size(); i += char_bytes(text, i)) em += em_of(text[i]);
  return em * size;
}

std::string cut_to_width(std::string_view text, double size, double width) {
  if (text_width(text, size) <= width) return std::string(text);
  double em = 0.9;  // the ellipsis
  size_t end = 0;
  while (end < text.size() && (em += em_of(text[end])) * size <= width) end += char_bytes(text, end);
  return std::string(text.substr(0, end)) + "…";
}

void SvgWriter::box(const Box& box, double radius, Color fill, std::string_view tooltip) {
  fmt::format_to(std::back_inserter(body_),
                 R"(<rect x="{:.2f}" y="{:.2f}" width="{:.2f}" height="{:.2f}" rx="{:.2f}" fill="{}")", box.x, box.y,
                 box.width, box.height, std::min(radius, box.width / 2), to_string(fill));
  body_ += tooltip.empty() ? "/>\n" : fmt::format("><title>{}</title></rect>\n", escape_xml(tooltip));
}

void SvgWriter::line(double x1, double y1, double x2, double y2, Color color, double width, bool dashed) {
  fmt::format_to(std::back_inserter(body_),
                 R"(<line x1="{:.2f}" y1="{:.2f}" x2="{:.2f}" y2="{:.2f}" stroke="{}" stroke-width="{:g}"{}/>)", x1, y1,
                 x2, y2, to_string(color), width, dashed ? R"( stroke-dasharray="4 3")" : "");
  body_ += "\n";
}

void SvgWriter::text(double x, double y, std::string_view text, const TextStyle& style) {
  constexpr std::string_view kAnchors[] = {"start", "middle", "end"};
  fmt::format_to(std::back_inserter(body_), R"(<text x="{:.2f}" y="{:.2f}" font-size="{:g}" fill="{}"{}{}>{}</text>)",
                 x, y, style.size, to_string(style.color),
                 style.anchor == Anchor::kStart
                     ? ""
                     : fmt::format(R"( text-anchor="{}")", kAnchors[static_cast<size_t>(style.anchor)]),
                 style.bold ? R"( font-weight="600")" : "", escape_xml(text));
  body_ += "\n";
}

std::string SvgWriter::finish(double width, double height, std::string_view title, Color background,
                              Color border) const {
  return fmt::format(
      "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0:g} {1:g}\" width=\"{0:g}\" height=\"{1:g}\" "
      "font-family=\"system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif\">\n"
      "<title>{2}</title>\n"
      "<rect x=\"0.5\" y=\"0.5\" width=\"{3:g}\" height=\"{4:g}\" rx=\"10\" fill=\"{5}\" stroke=\"{6}\"/>\n{7}</svg>\n",
      width, height, escape_xml(title), width - 1, height - 1, to_string(background), to_string(border), body_);
}

}  // namespace eps::report
