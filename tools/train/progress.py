"""A progress bar of one line."""

import sys
import time


class Progress:
    """One line on standard error: rewritten on a terminal, else printed every 30 s."""

    def __init__(self, quiet: bool):
        self.quiet, self.terminal, self.last = quiet, sys.stderr.isatty(), 0.0

    def show(self, text: str, end: bool = False) -> None:
        now = time.monotonic()
        if self.quiet or (not end and now - self.last < (0.2 if self.terminal else 30)):
            return
        self.last = now
        print(f"\r\x1b[K{text}" if self.terminal else text, file=sys.stderr, end="\n" if end or not self.terminal else "", flush=True)

    def over(self, items, label: str):
        total, begun = len(items), time.monotonic()
        for i, item in enumerate(items):
            yield item
            left = (time.monotonic() - begun) / (i + 1) * (total - i - 1)
            self.show(f"{label} {bar((i + 1) / total)} {i + 1}/{total}, {clock(left)} left", i + 1 == total)


def bar(done: float, width: int = 24) -> str:
    return "[" + "#" * int(done * width) + "-" * (width - int(done * width)) + "]"


def clock(seconds: float) -> str:
    s = int(seconds)
    return f"{s // 3600}:{s // 60 % 60:02}:{s % 60:02}" if s >= 3600 else f"{s // 60}:{s % 60:02}"
