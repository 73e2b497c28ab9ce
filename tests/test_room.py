"""Out of memory: the error says which batch fits, "auto" takes it, as if it had been asked for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import selftaught as st
from selftaught import cli
from selftaught.errors import OutOfMemory, is_out_of_memory
from selftaught.methods.simclr import SimCLR
from selftaught.train.fabric import make_fabric
from selftaught.train.loop import Settings, fit
from selftaught.types import Batch, Clock, Encoders, Outputs
from tests.small import Pictures, build
from tests.test_bad_input import SMALL, write_pictures

HUNGRY = """
import torch
from selftaught.methods.simclr import SimCLR


class Hungry(SimCLR):
    def forward(self, encoders, batch, clock):
        if len(batch) > {most}:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return super().forward(encoders, batch, clock)
"""


class Hungry(SimCLR):
    """Takes at most ``most`` samples."""

    most = 5

    def forward(self, encoders: Encoders, batch: Batch, clock: Clock) -> Outputs:
        if len(batch) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return super().forward(encoders, batch, clock)


@pytest.mark.parametrize(("most", "fits"), [(5, 4), (8, 8), (2, 2), (1, 0)])
def test_the_error_says_what_fits(most, fits):
    method = Hungry()
    method.most = most
    fabric = make_fabric("cpu", devices=1, precision="32-true")
    with pytest.raises(OutOfMemory, match="A step of 16 samples takes more memory than there is") as refused:
        fit(build(method), Pictures(16), Settings(16, steps=3), fabric=fabric)
    assert refused.value.fits == fits
    if fits:
        assert f"{fits} fit: --batch-size {fits}, or --accumulate {16 // fits} to keep" in refused.value.hint
        assert "--batch-size auto takes what fits" in refused.value.hint
    else:
        assert "half the --batch-size" in refused.value.hint


def test_other_errors_are_not_taken_for_it():
    assert not is_out_of_memory(RuntimeError("shape mismatch")) and not is_out_of_memory(OSError("out of memory"))
    assert is_out_of_memory(MemoryError()) and is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert is_out_of_memory(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried …"))


def test_auto_takes_what_fits_and_an_asked_size_is_refused(tmp_path, capsys):
    pictures = write_pictures(tmp_path / "pictures", 80)
    (tmp_path / "hungry.py").write_text(HUNGRY.format(most=12))
    words = ["pretrain", str(pictures), "--method", f"{tmp_path / 'hungry.py'}:Hungry", *SMALL[:-1], "--steps", "3"]
    assert cli.main([*words, "--out", str(tmp_path / "auto")]) == 0
    said = capsys.readouterr().out
    assert "A step of 16 samples takes more memory than there is. 8 fit: starting over with these." in said
    run = st.Run(tmp_path / "auto")
    assert run.config["derived"]["batch_size"] == 8 and "more does not fit" in run.config["reasons"]["batch_size"]
    assert cli.main([*words, "--out", str(tmp_path / "asked"), "--batch-size", "8"]) == 0
    one, other = (load_file(tmp_path / name / "encoder" / "model.safetensors") for name in ("auto", "asked"))
    assert all((one[name] == other[name]).all() for name in one), "the very run that asks for it"
    capsys.readouterr()
    assert cli.main([*words, "--out", str(tmp_path / "large"), "--batch-size", "32"]) == 1
    said = capsys.readouterr().err
    assert "A step of 32 samples takes more memory than there is. 8 fit: --batch-size 8, or --accumulate 4" in said
    assert cli.main([*words, "--out", str(tmp_path / "parts"), "--batch-size", "32", "--accumulate", "4"]) == 0


LIMITED = """
import os, resource, sys
import torch
from selftaught import cli
from selftaught.commands import preparation, training
used = int(open("/proc/self/statm").read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
resource.setrlimit(resource.RLIMIT_AS, (used + 1_000_000_000, resource.RLIM_INFINITY))
torch.backends.mkldnn.enabled = False  # oneDNN does not look whether it got the memory that it asked for
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit on memory is Linux's")
def test_a_machine_without_enough_memory(tmp_path):
    """A real one: the process may take 1 GB more than after its imports."""
    x = np.random.default_rng(0).integers(0, 256, (1200, 64, 64, 3), dtype=np.uint8)
    np.save(tmp_path / "x.npy", x)
    words = ["pretrain", str(tmp_path / "x.npy"), "--out", str(tmp_path / "run"), "--encoder", "small", "--steps", "1"]
    words += ["--encoder.width", "16", "--workers", "0", "--quiet", "--precision", "fp32", "--batch-size", "1024"]
    surroundings = {"PATH": "", "SELFTAUGHT_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    root = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, *words], capture_output=True, text=True, cwd=root, env=surroundings
    )
    assert done.returncode == 1, done.stderr[-2000:]
    assert "A step of 1,024 samples takes more memory than there is." in done.stderr
    assert " fit: --batch-size " in done.stderr and "Traceback" not in done.stderr
