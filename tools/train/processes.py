"""The processes of one training."""

import ctypes
import fcntl
import math
import os
import shutil
import signal
import tempfile
import time
import warnings
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch.distributed as dist


class BusyError(Exception):
    """A folder that another training writes to."""


class Processes:
    """The processes of one training, which share the decoded frames and average their gradients (gloo). They are forked
    before anything starts a thread. The others end with the first: its end breaks the connection."""

    def __init__(self, count: int, output: Path):
        self.count, self.rank, self.children = count, 0, []
        self.lock = open(output / ".lock", "w")  # noqa: SIM115 held to the end
        for attempt in range(50):  # the processes of a killed training end within moments
            try:
                fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if attempt == 49:
                    raise BusyError(f"{output}: expected no other training to write there, found one") from None
                time.sleep(0.1)
        for stale in output.glob(".processes-*"):
            shutil.rmtree(stale)
        self.folder = tempfile.mkdtemp(prefix=".processes-", dir=output) if count > 1 else None
        # Only the allocator's thread of pyarrow is there yet, and the allocator is not used (see above).
        warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
        for rank in range(1, count):
            pid = os.fork()
            if not pid:
                self.rank, self.children = rank, []
                ctypes.CDLL(None).prctl(1, int(signal.SIGKILL))  # PR_SET_PDEATHSIG
                for number in (signal.SIGTERM, signal.SIGINT):
                    signal.signal(number, signal.SIG_IGN)
                break
            self.children.append(pid)
        if count > 1:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
            place, patience = f"file://{self.folder}/rendezvous", timedelta(days=7)  # the computer may be suspended
            dist.init_process_group("gloo", init_method=place, rank=self.rank, world_size=count, timeout=patience)

    def array(self, name: str, shape: tuple, dtype) -> np.ndarray:
        """An array that the first process fills and all read after `meet`."""
        if self.count == 1 or not math.prod(shape):
            return np.empty(shape, dtype)
        path = f"{self.folder}/{name}"
        if not self.rank:
            np.memmap(path, dtype, "w+", shape=shape)
        self.meet()
        mapped = np.memmap(path, dtype, "r" if self.rank else "r+", shape=shape)
        self.meet()
        if not self.rank:
            os.unlink(path)  # its blocks are freed with the last process, however that ends
        return mapped

    def meet(self) -> None:
        if self.count > 1:
            dist.barrier()

    def close(self, code: int) -> int:
        """Ends the other processes; 128 + a signal, and 0, they reach by themselves."""
        if self.count > 1:
            if self.rank:
                os._exit(code)
            for pid in self.children:
                if 0 < code < 128:
                    os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            shutil.rmtree(self.folder, ignore_errors=True)
        return code
