"""`python compare.py COMMITTED FRESH`: the largest difference of each file's tensors; fails beyond `--tolerance`.

A tensor's error is its largest difference relative to its largest magnitude. Integers and JSON must be equal.
"""

import argparse
import json
import sys
from math import isfinite
from pathlib import Path

from safetensors.torch import load_file


def tensor_error(committed, fresh) -> float:
    if committed.shape != fresh.shape or committed.dtype != fresh.dtype:
        return float("inf")
    if not committed.is_floating_point():
        return 0.0 if committed.equal(fresh) else float("inf")
    scale = float(committed.float().abs().max())
    error = float((committed.float() - fresh.float()).abs().max()) / (scale or 1.0)
    return error if isfinite(error) else float("inf")


def file_error(committed: Path, fresh: Path) -> tuple[float, str]:
    """The largest error and the tensor that has it."""
    if not fresh.exists():
        return float("inf"), "not written"
    if committed.suffix == ".json":
        same = json.loads(committed.read_text()) == json.loads(fresh.read_text())
        return (0.0, "") if same else (float("inf"), "")
    a, b = load_file(committed), load_file(fresh)
    if a.keys() != b.keys():
        return float("inf"), f"names differ: {sorted(a.keys() ^ b.keys())}"
    return max((tensor_error(a[name], b[name]), name) for name in a)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("committed", type=Path)
    parser.add_argument("fresh", type=Path)
    parser.add_argument("--tolerance", type=float, default=1e-5)
    arguments = parser.parse_args()
    files = lambda folder: {p.relative_to(folder) for p in folder.rglob("*") if p.suffix in (".safetensors", ".json")}
    failed = False
    for path in sorted(files(arguments.committed) | files(arguments.fresh)):
        if not (arguments.committed / path).exists():
            error, where = float("inf"), "not committed"
        else:
            error, where = file_error(arguments.committed / path, arguments.fresh / path)
        bad = error > arguments.tolerance
        failed |= bad
        print(f"{'FAIL' if bad else 'ok  '} {error:8.1e}  {path}  {where}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
