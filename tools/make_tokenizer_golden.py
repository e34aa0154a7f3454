#!/usr/bin/env python3
"""Makes the test data of the tokenizer, with the Hugging Face tokenizers library as the reference.

  make_tokenizer_golden.py                  strings, synthetic tokenizers and their golden files
  make_tokenizer_golden.py --demo FILE      golden file of one more tokenizer.json, named "demo"
  make_tokenizer_golden.py --third-party DIR   golden files of what fetch_tokenizers.sh put into DIR

All of it goes into tests/data/tokenizer/ (or --out). A golden file has one line for each line of strings.jsonl:
the number of ids, a hash of the ids without and with special tokens, a hash of the text they decode to with special
tokens kept and skipped. Needs: pip install tokenizers.
"""
import argparse
import copy
import json
import pathlib
import random
import struct

import tokenizers
from tokenizers import Tokenizer

from convert_tokenizer import byte_alphabet, cased_words_pattern, kimi_pattern, words_pattern
from tokenizer_golden_strings import make_strings

OUT = pathlib.Path(__file__).resolve().parent.parent / "tests" / "data" / "tokenizer"

CL100K, QWEN, O200K = words_pattern("{1,3}"), words_pattern(""), cased_words_pattern()
# As tiktoken writes cl100k today. Oniguruma reads {1,3}+ as a repetition, not as a possessive interval.
POSSESSIVE = (r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$"
              r"|\s*[\r\n]|\s+(?!\S)|\s")
DEEPSEEK = ("[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
            "| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+")

MARK = "\u2581"
LLAMA_DECODER = {"type": "Sequence", "decoders": [
    {"type": "Replace", "pattern": {"String": MARK}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
    {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}


def fnv1a(data, state=0xcbf29ce484222325):
    for byte in data:
        state = ((state ^ byte) * 0x100000001b3) & 0xffffffffffffffff
    return state


def ids_hash(*lists):
    data = b"".join(struct.pack("<i", i) for ids in lists for i in [*ids, -1])
    return fnv1a(data)


def golden_lines(tokenizer, strings):
    for text in strings:
        plain = tokenizer.encode(text, add_special_tokens=False).ids
        special = tokenizer.encode(text, add_special_tokens=True).ids
        kept = tokenizer.decode(special, skip_special_tokens=False)
        skipped = tokenizer.decode(special, skip_special_tokens=True)
        text_hash = fnv1a(kept.encode() + b"\0" + skipped.encode())
        yield f"{len(plain)} {ids_hash(plain, special):016x} {text_hash:016x}"


def write_golden(name, tokenizer, strings, source):
    header = f"# {name}: {source}; tokenizers {tokenizers.__version__}"
    lines = [header, *golden_lines(tokenizer, strings)]
    (OUT / f"{name}.golden").write_text("\n".join(lines) + "\n", encoding="utf-8")


def train_merges(words, alphabet, count):
    """Merges learnt from words (lists of symbols), most frequent pair first, ties in order of text."""
    counts = {}
    for word in words:
        key = tuple(word)
        counts[key] = counts.get(key, 0) + 1
    merges = []
    for _ in range(count):
        pairs = {}
        for word, n in counts.items():
            for pair in zip(word, word[1:]):
                if all(all(c in alphabet for c in part) for part in pair):
                    pairs[pair] = pairs.get(pair, 0) + n
        if not pairs:
            break
        best = min(pairs, key=lambda p: (-pairs[p], p))
        merges.append(best)
        merged = {}
        for word, n in counts.items():
            out, i = [], 0
            while i < len(word):
                if i + 1 < len(word) and (word[i], word[i + 1]) == best:
                    out.append(word[i] + word[i + 1])
                    i += 2
                else:
                    out.append(word[i])
                    i += 1
            merged[tuple(out)] = merged.get(tuple(out), 0) + n
        counts = merged
    return merges


def vocabulary(first, merges):
    vocab = {}
    for token in first:
        vocab.setdefault(token, len(vocab))
    for left, right in merges:
        vocab.setdefault(left + right, len(vocab))
    return vocab


def byte_level_model(strings, **options):
    table = byte_alphabet()
    words = []
    for text in strings:
        for word in text.replace("\n", " \n").split(" "):
            words.append([table[b] for b in (" " + word)[:40].encode()])
    merges = train_merges(words, set(table.values()), 300)
    model = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
             "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
             "vocab": vocabulary([table[b] for b in range(256)], merges), "merges": [f"{a} {b}" for a, b in merges]}
    model.update(options)
    return model


def mark_model(strings, byte_fallback, **options):
    words = []
    for text in strings:
        for word in text.split():
            words.append(list((MARK + word)[:40]))
    letters = [MARK, *"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,;:!?'\"-_()",
               *"äöüéèñçß", *"абвгдежзиклмнопрстуфхцчшыэюя", *"αβγδεζηθ", "中", "文", "日", "本", "한"]
    merges = train_merges(words, set(letters), 300)
    first = ["<unk>", "<s>", "</s>"]
    if byte_fallback:
        first += [f"<0x{b:02X}>" for b in range(256)]
    model = {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
             "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": byte_fallback,
             "vocab": vocabulary([*first, *letters], merges), "merges": [f"{a} {b}" for a, b in merges]}
    model.update(options)
    return model


def added(model, *tokens):
    """Entries of added_tokens: (content, flags); ids as the vocabulary has them, else behind it."""
    next_id, entries = len(model["vocab"]), []
    for content, flags in tokens:
        entry = {"id": model["vocab"].get(content), "content": content, "single_word": False, "lstrip": False,
                 "rstrip": False, "normalized": False, "special": False}
        if entry["id"] is None:
            entry["id"] = next_id
            next_id += 1
        entry.update({flag: True for flag in flags.split()})
        entries.append(entry)
    return entries


def pairs(model):
    model = copy.deepcopy(model)
    model["merges"] = [merge.split(" ") for merge in model["merges"]]
    return model


def template(entries, before, after=()):
    ids = {entry["content"]: entry["id"] for entry in entries}
    special = [{"SpecialToken": {"id": t, "type_id": 0}} for t in before]
    single = [*special, {"Sequence": {"id": "A", "type_id": 0}},
              *[{"SpecialToken": {"id": t, "type_id": 0}} for t in after]]
    return {"type": "TemplateProcessing", "single": single,
            "pair": [*single, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {t: {"id": t, "ids": [ids[t]], "tokens": [t]} for t in [*before, *after]}}


def byte_level(**options):
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True, **options}


def split(pattern, behavior="Isolated", invert=False, kind="Regex"):
    return {"type": "Split", "pattern": {kind: pattern}, "behavior": behavior, "invert": invert}


def sequence(key, *parts):
    return {"type": "Sequence", key: list(parts)}


def normalizers(*parts):
    return sequence("normalizers", *parts)


def pre_tokenizers(*parts):
    return sequence("pretokenizers", *parts)


SPECIALS = [("<|begin|>", "special"), ("<|end|>", "special"), ("<|im_start|>", "special"), ("<tool_call>", "")]


def synthetic(strings):
    """Name -> tokenizer.json, together covering every option the program supports."""
    out = {}

    def put(name, model, entries=(), normalizer=None, pre_tokenizer=None, post_processor=None, decoder=None):
        out[name] = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": list(entries),
                     "normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "post_processor": post_processor,
                     "decoder": decoder, "model": model}

    level = byte_level_model(strings)
    entries = added(level, *SPECIALS)
    put("gpt2", level, added(level, ("<|end|>", "special")), None, byte_level(add_prefix_space=True),
        byte_level(trim_offsets=False), byte_level())
    put("llama3", pairs({**level, "ignore_merges": True}), entries, None,
        pre_tokenizers(split(CL100K), byte_level(use_regex=False)),
        sequence("processors", byte_level(), template(entries, ["<|begin|>"])), byte_level())
    put("qwen", level, entries, {"type": "NFC"}, pre_tokenizers(split(QWEN), byte_level(use_regex=False)),
        byte_level(), byte_level())
    put("deepseek", pairs(level), entries, normalizers(),
        pre_tokenizers(split(r"\p{N}{1,3}"), split("[一-龥\u3040-ゟ゠-ヿ]+"), split(DEEPSEEK),
                       byte_level(use_regex=False)),
        template(entries, ["<|begin|>"], ["<|end|>"]), byte_level())
    put("o200k", level, entries, None, pre_tokenizers(split(O200K, "Removed", True), byte_level(use_regex=False)), None,
        byte_level())
    put("gpt_oss", pairs({**level, "ignore_merges": True}), entries, None,
        pre_tokenizers(split(O200K), byte_level(use_regex=False)), byte_level(trim_offsets=False), byte_level())
    put("glm4", pairs(level), added(level, ("<|begin|>", "special"), ("<|end|>", "special"), ("<think>", ""),
                                    ("</think>", ""), ("<tool_call>", "")), None,
        pre_tokenizers(split(CL100K), byte_level(use_regex=False)),
        byte_level(add_prefix_space=True, trim_offsets=False), byte_level())
    put("possessive", level, entries, None, pre_tokenizers(split(POSSESSIVE), byte_level(use_regex=False)), None,
        byte_level())
    put("kimi", pairs({**level, "ignore_merges": True}), entries, None,
        pre_tokenizers(split(kimi_pattern()), byte_level(use_regex=False)), None, byte_level())
    put("starcoder", level, entries, None, pre_tokenizers({"type": "Digits", "individual_digits": True}, byte_level()),
        byte_level(add_prefix_space=True), byte_level())
    # GPT-NeoX's runs of spaces are added tokens that are matched after normalization.
    neox = added(level, ("|||IP_ADDRESS|||", "normalized"), ("<|end|>", "special"),
                 *((" " * width, "normalized") for width in range(24, 1, -1)), ("\t\t", "normalized"))
    put("olmoe", level, neox, {"type": "NFC"}, byte_level(), byte_level(), byte_level())
    put("dialect", level, entries, None,
        pre_tokenizers(split(r"\b[\w-]{2,}\b|\h{4}|[[:punct:]]+|^\s|.$"), split(r"[\d\s]+|\W", "Contiguous"),
                       byte_level(use_regex=False)), None, byte_level())
    flags = added(level, ("<a>", "lstrip"), ("<b>", "rstrip"), ("<c>", "lstrip rstrip special"),
                  ("word", "single_word"), ("<d", ""), ("<d>", ""), ("<d><d>", "special"), ("é", "normalized"),
                  ("NORM", "normalized special"), ("  ", ""), ("x x", "normalized lstrip"))
    put("added", level, flags, normalizers({"type": "NFC"}, {"type": "Lowercase"}), byte_level(), None, byte_level())

    fallback, plain = mark_model(strings, True), mark_model(strings, False)
    tokens = [("<unk>", "special"), ("<s>", "special"), ("</s>", "special"), ("<|im_start|>", "special"),
              ("<tool_call>", "normalized"), ("solo", "single_word")]
    marks, plain_marks = added(fallback, *tokens), added(plain, *tokens)
    legacy = normalizers({"type": "Prepend", "prepend": MARK},
                         {"type": "Replace", "pattern": {"String": " "}, "content": MARK})
    put("llama2", fallback, marks, legacy, None, template(marks, ["<s>"]), LLAMA_DECODER)
    # Phi's and Arctic's tokens beside a vocabulary of Llama's.
    phi = added(fallback, ("<unk>", "special"), ("<s>", "special"), ("</s>", "rstrip"),
                *((f"<|{name}|>", "special rstrip") for name in ("end", "user", "assistant")),
                ("<|begin|>", "special"), ("<|im_start|>", "special normalized"))
    put("phimoe", pairs(fallback), phi, legacy, None, template(phi, ["<s>"]), LLAMA_DECODER)
    for scheme in ("first", "always", "never"):
        first = scheme == "first"
        entries = marks if first else plain_marks
        put(f"metaspace_{scheme}", pairs(fallback) if first else plain, entries, None,
            {"type": "Metaspace", "replacement": MARK, "prepend_scheme": scheme, "split": not first},
            template(entries, ["<s>"], ["</s>"]),
            LLAMA_DECODER if first else
            {"type": "Metaspace", "replacement": MARK, "prepend_scheme": scheme, "split": True})
    put("metaspace_old", {**plain, "fuse_unk": False}, plain_marks, None,
        pre_tokenizers({"type": "Whitespace"}, {"type": "Metaspace", "replacement": MARK, "add_prefix_space": True,
                                                "str_rep": MARK}), None,
        {"type": "Metaspace", "replacement": MARK, "add_prefix_space": True})
    put("first_split", plain, plain_marks, normalizers({"type": "Strip", "strip_left": True, "strip_right": False},
                                                 {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "}),
        pre_tokenizers({"type": "Digits", "individual_digits": False},
                       {"type": "Metaspace", "replacement": MARK, "prepend_scheme": "first", "split": True}),
        None, None)
    put("lower", plain, plain_marks, normalizers({"type": "NFKC"}, {"type": "Lowercase"},
                                           {"type": "Strip", "strip_left": True, "strip_right": True}),
        pre_tokenizers({"type": "Whitespace"}, {"type": "Digits", "individual_digits": True}), None, None)
    put("nfd", {**fallback, "unk_token": None}, marks, {"type": "NFD"},
        pre_tokenizers({"type": "WhitespaceSplit"}, {"type": "Punctuation"}), None,
        sequence("decoders", {"type": "ByteFallback"}, {"type": "Fuse"},
                 {"type": "Replace", "pattern": {"Regex": "[aeiou]+"}, "content": "*"},
                 {"type": "Strip", "content": "*", "start": 1, "stop": 0}))
    put("nfkd", {**plain, "fuse_unk": False, "unk_token": "</s>"}, plain_marks, {"type": "NFKD"},
        pre_tokenizers(split(r"\d", "MergedWithPrevious"), split(" ", "MergedWithNext", False, "String"),
                       split("e", "Contiguous", True, "String"), split("a*", "Isolated"),
                       {"type": "Punctuation", "behavior": "Contiguous"}), None,
        sequence("decoders", {"type": "Strip", "content": "a", "start": 2, "stop": 0}))
    return out


def main():
    global OUT
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=pathlib.Path)
    parser.add_argument("--third-party", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path, default=OUT)
    args = parser.parse_args()
    OUT = args.out
    OUT.mkdir(parents=True, exist_ok=True)
    strings_file = OUT / "strings.jsonl"
    if args.demo or args.third_party:
        strings = [json.loads(line) for line in strings_file.read_text(encoding="utf-8").splitlines()]
    if args.demo:
        write_golden("demo", Tokenizer.from_file(str(args.demo)), strings, "the demo model's tokenizer.json")
    elif args.third_party:
        for path in sorted(args.third_party.glob("*/tokenizer.json")):
            source = (path.parent / "SOURCE").read_text(encoding="utf-8").strip()
            write_golden("third_party_" + path.parent.name, Tokenizer.from_file(str(path)), strings, source)
    else:
        strings = make_strings(random.Random(20240601))
        strings_file.write_text("".join(json.dumps(s) + "\n" for s in strings), encoding="utf-8")
        for name, content in synthetic(strings).items():
            path = OUT / f"{name}.json"
            text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
            path.write_text(text + "\n", encoding="utf-8")
            write_golden(name, Tokenizer.from_file(str(path)), strings, "synthetic, from make_tokenizer_golden.py")


if __name__ == "__main__":
    main()
