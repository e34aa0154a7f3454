#!/usr/bin/env python3
"""Jane Austen's six novels as clean UTF-8 text, read out of the Debian package r-cran-janeaustenr.

    austen_text.py --out DIR [--package DIR|FILE.deb]

DIR receives train.txt (blocks that are contiguous in a novel, parted by a form feed) and heldout.txt.
Without --package the package is fetched with `apt-get download` and unpacked with `dpkg -x`.
"""

import argparse
import pathlib
import re
import struct
import subprocess
import tempfile
import zlib

NOVELS = ("Emma", "Mansfield Park", "Northanger Abbey", "Persuasion", "Pride and Prejudice", "Sense and Sensibility")
PACKAGE = "r-cran-janeaustenr"
BLOCK_BREAK = "\f"  # between blocks of train.txt: the text on the two sides is not contiguous

# One chapter in 26, counted over all novels, is held out: ten or so, about 4 % of the text, from every novel.
HOLD_EVERY = 26
HOLD_FIRST = 13

STRSXP = 16
HEADING = re.compile(r"^(chapter|volume) [ivxlc0-9]+\.?$", re.IGNORECASE)
CHAPTER = re.compile(r"^chapter ", re.IGNORECASE)


def find_database(package):
    """Path of Rdata.rdb below an unpacked package, a .deb file, or (None) the archive Debian serves."""
    if package is not None and package.is_dir():
        found = sorted(package.rglob("janeaustenr/data/Rdata.rdb")) or sorted(package.rglob("Rdata.rdb"))
        if not found:
            raise SystemExit(f"austen_text: no Rdata.rdb below {package}; want an unpacked {PACKAGE}")
        return found[0].read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        if package is None:
            subprocess.run(["apt-get", "-qq", "download", PACKAGE], cwd=folder, check=True)
            package = next(pathlib.Path(folder).glob("*.deb"))
        subprocess.run(["dpkg", "-x", str(package.resolve()), folder + "/unpacked"], check=True)
        return find_database(pathlib.Path(folder, "unpacked"))


def database_records(data):
    """The records of an R lazy-load database: big-endian length of the plain bytes, then a zlib stream."""
    position = 0
    while position < len(data):
        (plain_length,) = struct.unpack_from(">I", data, position)
        stream = zlib.decompressobj()
        plain = stream.decompress(data[position + 4:])
        if len(plain) != plain_length:
            raise SystemExit(f"austen_text: record at byte {position}: got {len(plain)} bytes, wanted {plain_length}")
        yield plain
        position = len(data) - len(stream.unused_data)


def character_vector(record):
    """The strings of a serialised character vector (XDR format, version 3, which names its encoding)."""
    if record[:2] != b"X\n":
        raise SystemExit("austen_text: not an XDR serialisation")
    (version,) = struct.unpack_from(">I", record, 2)
    position = 14  # "X\n", then format version, version of the writer, oldest reader
    if version == 3:
        (length,) = struct.unpack_from(">I", record, position)
        position += 4 + length
    flags, count = struct.unpack_from(">II", record, position)
    if flags & 0xFF != STRSXP:
        raise SystemExit(f"austen_text: got R type {flags & 0xFF}, wanted a character vector ({STRSXP})")
    position += 8
    strings = []
    for _ in range(count):
        _, length = struct.unpack_from(">Ii", record, position)  # flags of the CHARSXP, bytes (-1 is NA)
        position += 8
        strings.append(record[position:position + max(length, 0)].decode("utf-8"))
        position += max(length, 0)
    return strings


def clean(text):
    text = re.sub(r"\s*-{2,}\s*", "\u2014", text)  # the novels write an em dash as two or more hyphens
    text = text.replace("_", "")  # emphasis marks of the plain-text edition
    return re.sub(r"[ \t]+", " ", text).strip()


def paragraphs(lines):
    """Unwraps the 70-column lines. Indented lines (verse, signatures) keep their line breaks."""
    groups, group = [], []
    for line in lines + [""]:
        if line.strip():
            group.append(line)
        elif group:
            groups.append(group)
            group = []
    for group in groups:
        first = group[0].strip()
        if first.startswith("[End volume") or first.startswith("[At this point") or first.startswith("*Vide"):
            continue  # the editors' words, not the novel's
        text = ""
        for line in group:
            indented = line.startswith("   ")
            text += ("\n" if indented else " ") + line
        text = "\n".join(clean(part) for part in text.strip().split("\n"))
        if text.strip("* "):
            yield text


def chapters(lines):
    """Splits a novel at its chapter headings. A volume's heading goes with the chapter after it; so does the title."""
    parts, current, has_chapter = [], [], False
    for paragraph in paragraphs(lines):
        if HEADING.match(paragraph) and has_chapter:
            parts.append(current)
            current, has_chapter = [], False
        current.append(paragraph)
        has_chapter = has_chapter or bool(CHAPTER.match(paragraph))
    return parts + [current]


def is_editorial_tail(paragraph):
    return paragraph.startswith("A NOTE ON THE TEXT")


def split_novels(novels):
    """(blocks for training, blocks held out): each block is contiguous text with blank lines between paragraphs."""
    train, heldout, index = [], [], 0
    for lines in novels:
        block = []
        for chapter in chapters(lines):
            for position, paragraph in enumerate(chapter):
                if is_editorial_tail(paragraph):
                    chapter = chapter[:position]
                    break
            if index % HOLD_EVERY == HOLD_FIRST:
                heldout.append("\n\n".join(chapter))
                train.append("\n\n".join(block))
                block = []
            else:
                block += chapter
            index += 1
        train.append("\n\n".join(block))
    return [block for block in train if block], heldout


def load(package=None):
    novels = [character_vector(record) for record in database_records(find_database(package))]
    if len(novels) != len(NOVELS):
        raise SystemExit(f"austen_text: got {len(novels)} novels, wanted {len(NOVELS)}")
    return split_novels(novels)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--package", type=pathlib.Path, help=f"{PACKAGE}: unpacked folder or .deb file")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    arguments = parser.parse_args()
    train, heldout = load(arguments.package)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "train.txt").write_text(BLOCK_BREAK.join(train), encoding="utf-8")
    (arguments.out / "heldout.txt").write_text("\n\n".join(heldout) + "\n", encoding="utf-8")
    print(f"train {sum(map(len, train))} characters in {len(train)} blocks, held out {sum(map(len, heldout))} "
          f"characters in {len(heldout)} chapters")


if __name__ == "__main__":
    main()
