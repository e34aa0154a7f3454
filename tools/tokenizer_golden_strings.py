"""The strings that tokenizers are compared on: many scripts, normalization forms, whitespace, code, look-alikes."""
import unicodedata

SCRIPTS = {
    "latin": [
        "The quick brown fox jumps over the lazy dog.", "It's we're they'll I'd can't you've I'm SHE'S 'Tis",
        "naïve café über Straße façade résumé Ångström İstanbul ıssız ﬁnal ﬂow ﬃ ſhort'ſ", "Zażółć gęślą jaźń",
        "Việt Nam, tiếng Việt: ệ ữ ẵ", "Þórður Æsir œuvre ĸ Ŋ", "don’t “quote” ‘it’ — dash… ok",
    ],
    "cyrillic": [
        "Съешь же ещё этих мягких французских булок, да выпей чаю.", "Київ, їжак, ґанок", "Ѣ Ѳ Ѵ Ԁ ӓ й й",
    ],
    "greek": [
        "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία", "ΣΊΣΥΦΟΣ σίσυφος ᾳ ᾷ ῼ ΐ", "άέήίόύώ ἄνθρωπος",
    ],
    "arabic": [
        "مرحبا بالعالم، كيف حالك؟", "الْحَمْدُ لِلَّهِ رَبِّ الْعَالَمِينَ", "١٢٣٤٥ ۱۲۳ ﷺ ﷽ لا",
    ],
    "hebrew": [
        "שלום עולם", "בְּרֵאשִׁית בָּרָא אֱלֹהִים", "ש״ס ג׳",
    ],
    "indic": [
        "नमस्ते दुनिया क्षत्रिय १२३", "বাংলা ভাষা", "தமிழ் மொழி", "తెలుగు", "ಕನ್ನಡ", "മലയാളം", "ਪੰਜਾਬੀ", "සිංහල",
    ],
    "southeast": [
        "สวัสดีชาวโลก ภาษาไทย ๑๒๓", "ພາສາລາວ", "မြန်မာဘာသာ", "ភាសាខ្មែរ", "བོད་སྐད་",
    ],
    "cjk": [
        "你好，世界！今天天气很好。", "日本語のテキスト、カタカナ、ひらがな。", "漢字仮名交じり文ﾊﾝｶｸ１２３ＡＢＣ", "《三体》：刘慈欣", "㍿㌖㊙ ㈱ ㋿", "𠀀𠮷𪚥 豈更車",
        "一二三四五六七八九十百千万",
    ],
    "hangul": [
        "안녕하세요 세계", unicodedata.normalize("NFD", "한글 자모 분해 각값"), "각 한 ㄱㄴㄷ ᅟᅠ", "가각힣",
    ],
    "other": [
        "Հայերեն լեզու", "ქართული ენა ᲐᲑᲒ", "አማርኛ", "ᏣᎳᎩ ꭰꭱ", "ᚠᚢᚦ", "ⴰⵎⴰⵣⵉⵖ", "ᠮᠣᠩᠭᠣᠯ᠎ᠠ", "ߒߞߏ", "𐌰𐌱𐌲 𐐀𐐨 𞤀𞤢",
        "𓀀𓂀 𒀀𒁀",
    ],
    "recent": [
        "\U00031350\U00031351 𞀰𞀱 \U0001e4d0\U0001e4f0", "\U00010d40\U00010d50\U00010d70 \u1c89\u1c8a \ua7cb\ua7da",
        "\U00016100\U00016130 \U00011bc0 \U0001fae8\U0001fadf", "\U0002ebf0\U0001d2c0\U0001d2d3",
    ],
    "emoji": [
        "👨‍👩‍👧‍👦 👩🏽‍💻 🏳️‍🌈 🇩🇪🇯🇵", "☺️ ❤️ ✨ 1️⃣ #️⃣", "😀😃😄😁😆😅😂🤣", "👍🏿👍🏻 🫠 🧑‍🚀", "🏴󠁧󠁢󠁥󠁮󠁧󠁿",
    ],
    "marks": [
        "e\u0301 e\u0300\u0323 a\u0323\u0307 q\u0307\u0323 q\u0323\u0307",
        "Z\u0351\u036b\u0343\u036a\u0302a\u0316lgo", "\u0301start o\u0338",
        "क\u093c \u0958 \u212b \u2126 \u1e9b\u0323", "\u0344\u0345\u0f77\u0fb2\u0f71\u0f80",
        "\u05e9\u05bc\u05c1 \ufb2c", "ά ά ᾴ",
    ],
    "numbers": [
        "0 1 12 123 1234 12345 1234567890", "3.14159 1,000,000 -42 +7 1e-9 0xDEADBEEF 0b1010",
        "½ ¼ ² ³ ¹ Ⅷ ⅷ ① ㊿ ⒈", "٣٫١٤ १२३४ ๑๒๓ １２３", "2024-02-29T23:59:59Z 192.168.0.1 ::1",
        "$1,234.56 €99 £5 ¥1000 ₹10 50%",
    ],
    "code": [
        "int main(int argc, char** argv) {\n  return argc > 1 ? 0 : 1;\n}\n",
        "def f(x):\n\tif x:\n\t\treturn x**2  # ok\n", "for (let i=0;i<10;++i){console.log(`v=${i}`);}",
        "SELECT * FROM t WHERE a='b' AND c<>\"d\";", "<div class=\"a b\">&amp;&nbsp;</div><!-- x -->",
        "#include <vector>\n#define X(a) ((a)<<1|0x7f)",
        "snake_case camelCase PascalCase kebab-case SCREAMING_CASE __dunder__", "a&&b||!c ^~d %= e->f::g<h>>i",
        "\\d+\\s*[^a-z]{2,3}(?=x)\\n", "$\\frac{a}{b}$ \\begin{x}",
        "https://example.org/a/b?c=d&e=%20#f user@host.tld",
    ],
    "whitespace": [
        "", " ", "  ", "   ", "    x", "x    ", "a  b   c    d", "\t", "\t\t\ta", "a\tb \tc\t d", "\n", "\n\n\n",
        "a\nb\n\nc\n", "\r\n", "a\r\nb\r\n\r\nc", "a\rb", " \n ", "\n \n", " \t\n\r\n x \n", "\u00a0x\u00a0y",
        "a\u2003b\u2009c\u200ad", "\u3000全\u3000角", "a\u2028b\u2029c\u0085d",
        "a\u200bb\u200cc\u200dd\ufeffe\u2060f", "\u180ea\u1680b", "\u000ba\u000cb", "x" + " " * 64 + "y",
        " " * 130, "\n" * 40 + "end", "\t" * 33 + ".", "word \n", "word\n ", "  word  \n\n  next",
    ],
    "controls": [
        "\x00", "a\x00b", "\x01\x02\x1f\x7f", "\x1b[31mred\x1b[0m", "a\x08b\x07", "\u202eabc\u202c \u200e\u200f",
        "\ufffd \ufffe \uffff", "\U0010ffff \ue000 \U000f0000", "\ufdd0", "\u0600\u06dd\u070f",
        "\xad soft\xadhyphen",
    ],
    "lookalikes": [
        "<|endoftext|>", "<|end|>", "<|end|", "<|end|><|end|>", " <|begin|> x <|end|> ", "<s>", "</s>",
        "<s>hi</s>", "<unk>", "a<unk>b", "<0x41>", "<0x0A><0xE4>", "▁", "▁▁a▁b", "▁<s>", "a ▁ b",
        "<|im_start|>user\nhi<|im_end|>\n", "<tool_call>{}</tool_call>", "<|im_start|>", "x<tool_call>",
        "[INST] x [/INST]", "<｜User｜>hi<｜Assistant｜>", "<｜begin▁of▁sentence｜>", "<think>\n\n</think>", "solo",
        " solo ", "solos", "a solo,b", "_solo", "Ġthe Ċ", "âĢĻ", "##ing", "@@", "</w>", "<d", "<d>", "<d><d>",
        "<d><d><d>", "<<d>>", "a <a> b", "a   <a>   b", "x<b>   y", "  <c>  ", "<a><b><c>", "<b> <a>",
        "<b>  <c>  <a>", "word", "words", "a word b", "word word", "sword word.", "wörd word-word",
        "é e\u0301 E\u0301 É", "NORM norm Norm x x  X X", "a    b", "x  x", "<A> <D>", "\u00e9word",
    ],
}

PIECES = [
    "the", " of", "and ", "Ing", "tion", "\n", "  ", "\t", "é", "e\u0301", "я", "λ", "中", "の", "한", "ก", "ש", "ع",
    "क", "्", "👍", "🏽", "\u200d", "7", "42", "'s", "'LL", "'ſ", ".", ",", "—", "\"", "(", "_", "-", "/", "<s>",
    "<|end|>", "▁", "\u00a0", "\u3000", "\x00", "A", "ZZ", "²", "Ⅳ", "©", "$", "\r\n", "ß", "İ", "ﬁ", "Ω",
    "\u0301", "\u0323", "word", "solo", "<a>", "<d>", "é", " ",
]


def make_strings(rng):
    strings = []
    for texts in SCRIPTS.values():
        strings += texts
    base = [text for text in strings if text]
    # Forms of the same text, and texts side by side.
    for text in base[:60]:
        for form in ("NFD", "NFKC"):
            other = unicodedata.normalize(form, text)
            if other != text:
                strings.append(other)
    for text in base[:40:3]:
        strings += [text.upper(), " " + text, text + "\n", text.replace(" ", "  ")]
    for _ in range(80):
        strings.append(rng.choice(base) + rng.choice(["", " ", "\n", "  "]) + rng.choice(base))
    for _ in range(180):
        strings.append("".join(rng.choice(PIECES) for _ in range(rng.randint(1, 24))))
    # Characters from all over, assigned or not.
    for _ in range(40):
        length = rng.randint(1, 16)
        codes = [rng.choice([rng.randrange(0x20, 0x250), rng.randrange(0x250, 0xd800), rng.randrange(0xe000, 0x10000),
                             rng.randrange(0x10000, 0x20000), rng.randrange(0x20000, 0x110000)]) for _ in range(length)]
        strings.append("".join(map(chr, codes)))
    # Very long words, and runs.
    strings += ["a" * 500, "ab" * 400,
                "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft" * 3,
                "".join(rng.choice("abcdefgh") for _ in range(900)), "中文" * 150, "9" * 200, "=" * 120, "-" * 81 + "\n",
                "🙂" * 60, "e" + "\u0301" * 40, "का" * 80, "한국어" * 60, "<s>" * 30, "a " * 150, "\r\n" * 30]
    unique = list(dict.fromkeys(strings))
    return [text for text in unique if not any(0xd800 <= ord(c) < 0xe000 for c in text)]
