// Writes SVG: shapes, text and colours, as far as pictures of plans need them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace eps::report {

struct Color {
  uint8_t r = 0;
  uint8_t g = 0;
  uint8_t b = 0;
  bool operator==(const Color&) const = default;
};

// Mixes two colours: share 0 gives `color`, share 1 gives `other`.
Color mix(Color color, Color other, double share);
// Black or white, whichever has more contrast on `background`.
Color text_color_on(Color background);
std::string to_string(Color color);  // "#0072b2"

// Escapes text for use between tags and in attributes. Characters that XML forbids become U+FFFD.
std::string escape_xml(std::string_view text);

// Estimated width of `text` in a sans-serif font of `size` pixels, a little generous because the viewer chooses the
// font.
double text_width(std::string_view text, double size);
// `text`, shortened with an ellipsis if it does not fit.
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
  // A rounded rectangle; viewers show `tooltip` under the pointer.
  void box(const Box& box, double radius, Color fill, std::string_view tooltip = {});
  void line(double x1, double y1, double x2, double y2, Color color, double width = 1, bool dashed = false);
  // y is the baseline.
  void text(double x, double y, std::string_view text, const TextStyle& style);

  // The whole document, on a card of its own background, so that it reads on light and dark pages alike.
  std::string finish(double width, double height, std::string_view title, Color background, Color border) const;

 private:
  std::string body_;
};

}  // namespace eps::report
