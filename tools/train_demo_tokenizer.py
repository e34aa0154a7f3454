#!/usr/bin/env python3
"""Trains the demo model's tokenizer: byte-level BPE on the training part of the novels.

    train_demo_tokenizer.py --text DIR [--out models/austen-moe]     (DIR as austen_text.py writes it)
"""

import argparse
import json
import pathlib

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from austen_text import BLOCK_BREAK

VOCAB_SIZE = 4096
END_OF_TEXT = "<|endoftext|>"
# As GPT-2 splits (clitics; words, numbers and punctuation with one leading space; white space), but line breaks stay
# together, so that the end of a paragraph is one token.
SPLIT = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\n+|\s+(?!\S)|\s+"


def train(text):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(SPLIT), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(text.split(BLOCK_BREAK), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{END_OF_TEXT} $A",
        pair=f"{END_OF_TEXT} $A {END_OF_TEXT} $B:1",
        special_tokens=[(END_OF_TEXT, tokenizer.token_to_id(END_OF_TEXT))],
    )
    return tokenizer


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=pathlib.Path, required=True)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("models/austen-moe"))
    arguments = parser.parse_args()
    tokenizer = train((arguments.text / "train.txt").read_text(encoding="utf-8"))
    arguments.out.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(arguments.out / "tokenizer.json"))
    settings = {
        "add_bos_token": True,
        "add_eos_token": False,
        "added_tokens_decoder": {
            "0": {"content": END_OF_TEXT, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False,
                  "special": True},
        },
        "bos_token": END_OF_TEXT,
        "clean_up_tokenization_spaces": False,
        "eos_token": END_OF_TEXT,
        "model_max_length": 1024,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    (arguments.out / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    heldout = (arguments.text / "heldout.txt").read_text(encoding="utf-8")
    (arguments.out / "heldout.txt").write_text(heldout, encoding="utf-8")
    ids = tokenizer.encode(heldout, add_special_tokens=False).ids
    if tokenizer.decode(ids) != heldout:
        raise SystemExit("train_demo_tokenizer: the held-out text does not survive encode and decode")
    print(f"{tokenizer.get_vocab_size()} entries; held-out text: {len(heldout.encode())} bytes, {len(ids)} tokens")


if __name__ == "__main__":
    main()
