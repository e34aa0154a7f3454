#include "report/timeline_svg.h"

#include <gtest/gtest.h>

#include <fstream>
#include <set>
#include <vector>

#include "plan/candidate_list.h"
#include "report/sample_plans.h"
#include "report/svg.h"

namespace eps::report {
namespace {

// The first fault of `xml`, or an empty text: tags must be closed in order, attributes quoted and unique, and & may
// only occur in the five entities and in &#39;.
std::string xml_fault(std::string_view xml) {
  std::vector<std::string> open;
  bool has_root = false;
  for (size_t i = 0; i < xml.size();) {
    if (xml[i] == '&') {
      const size_t end = xml.find(';', i);
      const std::string_view entity = xml.substr(i, end - i);
      if (entity != "&amp" && entity != "&lt" && entity != "&gt" && entity != "&quot" && entity != "&#39") {
        return "entity " + std::string(entity.substr(0, 10));
      }
      i = end + 1;
    } else if (xml[i] != '<') {
      if (xml[i] == '>') return "bare >";
      if (static_cast<unsigned char>(xml[i]) < 0x20 && xml[i] != '\n' && xml[i] != '\t') return "control character";
      ++i;
    } else if (xml.substr(i, 2) == "<?") {
      if (i != 0) return "late declaration";
      i = xml.find("?>") + 2;
    } else if (xml.substr(i, 2) == "</") {
      const size_t end = xml.find('>', i);
      if (open.empty() || xml.substr(i + 2, end - i - 2) != open.back()) return "closes the wrong tag";
      open.pop_back();
      i = end + 1;
    } else {
      size_t at = i + 1;
      while (std::isalnum(static_cast<unsigned char>(xml[at])) != 0) ++at;
      const std::string name(xml.substr(i + 1, at - i - 1));
      if (open.empty() && has_root) return "second root";
      has_root = true;
      std::set<std::string, std::less<>> attributes;
      while (xml[at] == ' ') {
        const size_t equals = xml.find("=\"", at);
        if (!attributes.emplace(xml.substr(at + 1, equals - at - 1)).second) return "attribute twice in " + name;
        const size_t end = xml.find('"', equals + 2);
        if (xml.substr(equals, end - equals).find('<') != std::string_view::npos) return "< in an attribute";
        at = end + 1;
      }
      const bool closed = xml[at] == '/';
      if (xml[closed ? at + 1 : at] != '>') return "unfinished tag " + name;
      if (!closed) open.push_back(name);
      i = at + (closed ? 2 : 1);
    }
  }
  return open.empty() ? "" : "open: " + open.back();
}

TEST(XmlFault, FindsFaults) {
  EXPECT_EQ(xml_fault("<?xml?><a b=\"1\"><c/>x &amp; y</a>"), "");
  for (const char* bad : {"<a>", "<a></b>", "<a>&</a>", "<a>&x;</a>", "<a b=\"1\" b=\"2\"/>", "<a/><b/>", "<a>></a>"}) {
    EXPECT_NE(xml_fault(bad), "") << bad;
  }
}

TEST(TimelineSvg, IsWellFormedForEveryPlan) {
  std::mt19937 rng(4);
  EXPECT_EQ(xml_fault(timeline_svg(sample_plan(), "a")), "");
  EXPECT_EQ(xml_fault(timeline_svg(plan::Plan{}, "")), "");
  for (int trial = 0; trial < 200; ++trial) EXPECT_EQ(xml_fault(timeline_svg(random_plan(rng), "m")), "");
}

TEST(TimelineSvg, ShowsEveryStageOpAndCandidate) {
  const std::string svg = timeline_svg(sample_plan(), "deepseek-v2, ep 2");
  for (const std::string text :
       {">deepseek-v2, ep 2<", ">compute<", ">dispatch<", ">combine<", ">stage 0<", ">1<", ">2<", ">gate_up 0<",
        ">dispatch 2<", ">finish<", ">eps, 3 stages, dp+ep<", ">serial, dp+ep<", ">microbatch, dp+ep<", ">bound<",
        "N = 3", "<title>combine 1: 60.00 µs to 68.00 µs (8.00 µs)</title>"}) {
    EXPECT_NE(svg.find(text), std::string::npos) << text;
  }
  // A stage has the same hue in all lanes; two stages never.
  EXPECT_NE(svg.find("fill=\"#0072b2\"><title>dispatch 0"), std::string::npos);
  EXPECT_NE(svg.find("fill=\"#0072b2\"><title>gate_up 0"), std::string::npos);
  EXPECT_NE(svg.find("fill=\"#e69f00\"><title>combine 1"), std::string::npos);
}

TEST(TimelineSvg, EscapesNames) {
  const std::string svg = timeline_svg(sample_plan(), "<script> & \"quotes\" \x01");
  EXPECT_EQ(svg.find("<script"), std::string::npos);
  EXPECT_NE(svg.find("&lt;script&gt; &amp; &quot;quotes&quot; \uFFFD"), std::string::npos);
  EXPECT_EQ(xml_fault(svg), "");
}

TEST(Svg, TextIsCutAtCharacters) {
  EXPECT_EQ(cut_to_width("short", 12, 500), "short");
  const std::string cut = cut_to_width("µµµµµµµµµµµµµµµµ", 12, 60);
  EXPECT_TRUE(cut.ends_with("µ…")) << cut;
  EXPECT_LE(text_width(cut, 12), 66);
  EXPECT_EQ(text_color_on({255, 255, 255}), (Color{17, 24, 39}));
  EXPECT_EQ(text_color_on({0, 0, 80}), (Color{255, 255, 255}));
}

TEST(CandidateList, BestVariantOfEachKindTheChosenFirst) {
  const auto best = plan::best_variants(sample_plan().candidates);
  ASSERT_EQ(best.size(), 4U);
  EXPECT_EQ(plan::short_name(best[0]), "eps, 3 stages");
  EXPECT_EQ(best[0].verdict, plan::Verdict::kChosen);
  EXPECT_EQ(plan::short_name(best[1]), "eps, 2 stages");
  EXPECT_EQ(plan::short_name(best[2]), "serial");
  EXPECT_EQ(plan::short_name(best[3]), "microbatch");  // cannot run: last
  const auto few = plan::notable_candidates(sample_plan().candidates, 3);
  ASSERT_EQ(few.size(), 3U);  // no second eps, but every policy
  EXPECT_EQ(plan::short_name(few[1]), "serial");
  EXPECT_EQ(plan::notable_candidates(sample_plan().candidates, 9), best);
  EXPECT_EQ(plan::sorted_candidates(sample_plan().candidates).size(), 5U);
  EXPECT_EQ(plan::wire_text({DType::kF8E4M3, DType::kBF16}), "fp8/bf16");
}

TEST(Svg, TextIsValidXmlWhateverTheNames) {
  EXPECT_EQ(escape_xml("a<b>&\"'"), "a&lt;b&gt;&amp;&quot;&#39;");
  EXPECT_EQ(escape_xml("\x1b[31m\u009b\u202e\r"), "\ufffd[31m\ufffd\ufffd\ufffd");
  EXPECT_EQ(escape_xml("\xff\xed\xa0\x80\xef\xbf\xbe\xef\xbf\xbf"), "\ufffd\ufffd\ufffd\ufffd\ufffd\ufffd");
  EXPECT_EQ(escape_xml("é 中\n\t🙂"), "é 中\n\t🙂");
}

}  // namespace
}  // namespace eps::report
