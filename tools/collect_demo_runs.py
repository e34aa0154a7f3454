#!/usr/bin/env python3
"""Chooses the best of several runs of train_demo_model.py and makes a model folder of it.

    collect_demo_runs.py --out MODEL --tokenizer models/austen-moe RUN...

MODEL receives the checkpoint of the run with the lowest held-out perplexity, the tokenizer's files and
training_log.json with the curves of all runs, the chosen one last. Runs that did not finish are named and left out.
Needs no packages.
"""

import argparse
import json
import pathlib
import shutil

COLUMNS = ["step", "training loss (noisy input, dropout)", "held-out loss (averaged weights)"]
SETTINGS = ("family", "seed", "dropout", "weight_decay", "token_noise", "learning_rate")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


def read_finished(folders):
    runs = {}
    for folder in folders:
        path = folder / "log.json"
        log = json.loads(path.read_text()) if path.exists() else {}
        if "perplexity" in log:
            runs[folder] = log
        else:
            print(f"collect_demo_runs: {folder} did not finish; left out")
    if not runs:
        raise SystemExit("collect_demo_runs: no run finished")
    return runs


def rounded(values):
    return [value if value is None or isinstance(value, int) else round(value, 4) for value in values]


def entry(name, log):
    rows = ([row["step"], row["train"], row["heldout"]] for row in log["curve"])
    settings = {key: log["settings"][key] for key in SETTINGS}
    if log["num_teachers"]:
        settings["teacher_weight"] = log["settings"]["teacher_weight"]
    return {"name": name, "settings": settings, "seconds": log["curve"][-1]["seconds"],
            "perplexity": round(log["perplexity"], 4), "curve": [rounded(row) for row in rows]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--tokenizer", type=pathlib.Path, required=True,
                        help="folder with " + ", ".join(TOKENIZER_FILES))
    parser.add_argument("runs", type=pathlib.Path, nargs="+")
    arguments = parser.parse_args()
    runs = read_finished(arguments.runs)
    chosen = min(runs, key=lambda folder: runs[folder]["perplexity"])
    arguments.out.mkdir(parents=True, exist_ok=True)
    for path in chosen.iterdir():
        if path.suffix in (".json", ".safetensors") and path.name != "log.json":
            shutil.copyfile(path, arguments.out / path.name)
    for name in TOKENIZER_FILES:
        shutil.copyfile(arguments.tokenizer / name, arguments.out / name)
    ordered = sorted(runs, key=lambda folder: -runs[folder]["perplexity"])
    log = {"columns": COLUMNS, "device": runs[chosen]["device"],
           "runs": [entry("model" if folder == chosen else folder.name, runs[folder]) for folder in ordered]}
    text = json.dumps(log, indent=1)
    (arguments.out / "training_log.json").write_text(text.replace(",\n     ", ", ").replace("[\n     ", "[")
                                                     .replace("\n    ]", "]") + "\n")
    best = runs[chosen]
    print(f"chose {chosen.name} of {len(runs)}: held-out perplexity {best['perplexity']:.4f} after "
          f"{best['curve'][-1]['step']} steps")


if __name__ == "__main__":
    main()
