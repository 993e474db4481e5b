"""JSON lines of several rounds on stdin; prints the median of each shape and peer, and its ratio to Fathom's."""

import json
import statistics
import sys

found: dict = {}
for line in sys.stdin:
    if line.startswith("{"):
        row = json.loads(line)
        for kind in ("ms", "cpu_ms"):
            found.setdefault(row["shape"], {}).setdefault(row["peer"], {}).setdefault(kind, []).append(row[kind])

print(f"{'shape':28} {'peer':14} {'ms':>10} {'CPU ms':>10}   slower than Fathom by (time, CPU time)")
for shape, peers in found.items():
    medians = {peer: {kind: statistics.median(v) for kind, v in kinds.items()} for peer, kinds in peers.items()}
    ours = medians.get("fathom")
    for peer, m in sorted(medians.items(), key=lambda item: (item[0] != "fathom", item[0])):
        ratio = ""
        if ours and peer != "fathom":
            ratio = f"{m['ms'] / ours['ms']:6.2f} ×  {m['cpu_ms'] / max(ours['cpu_ms'], 1e-9):6.2f} ×"
        print(f"{shape:28} {peer:14} {m['ms']:10.2f} {m['cpu_ms']:10.1f}   {ratio}")
