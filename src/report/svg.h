// Writing SVG: shapes, text and colours. Enough for the pictures of a plan, no more.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace eps {

struct Color {
  uint8_t r = 0;
  uint8_t g = 0;
  uint8_t b = 0;
  bool operator==(const Color&) const = default;
};

// `share` of `other` in it: 0 is `color`, 1 is `other`.
Color mix(Color color, Color other, double share);
// Black or white, whichever reads better on `background`.
Color text_color_on(Color background);
std::string to_string(Color color);  // "#0072b2"

// Text safe between tags and in attributes. Characters that XML forbids become U+FFFD.
std::string escape_xml(std::string_view text);

// Width of `text` in a sans-serif font of `size` pixels, a little generous. The font is the viewer's, so a guess.
double text_width(std::string_view text, double size);
// `text`, or as much of it as fits with an ellipsis.
std::string cut_to_width(std::string_view text, double size, double width);

struct Box {
  double x = 0;
  double y = 0;
  double width = 0;
  double height = 0;
};

enum class Anchor : uint8_t { kStart, kMiddle, kEnd };

struct TextStyle {
  double size = 12;
  Color color = {};
  Anchor anchor = Anchor::kStart;
  bool bold = false;
};

class SvgWriter {
 public:
  // Rounded rectangle; `tooltip` shows where a viewer has pointers.
  void box(const Box& box, double radius, Color fill, std::string_view tooltip = {});
  void line(double x1, double y1, double x2, double y2, Color color, double width = 1, bool dashed = false);
  // y is the baseline.
  void text(double x, double y, std::string_view text, const TextStyle& style);

  // The whole document, on a card of its own background, so that it reads on light and dark pages alike.
  std::string finish(double width, double height, std::string_view title, Color background, Color border) const;

 private:
  std::string body_;
};

}  // namespace eps
