"""benchmarks/gpu.sh, tried where there is no GPU: all is small, and no line of it fails for a slip on the day on which there is one."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ddpm_tutorial import data

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.setenv("TINY", "1")
    spec = importlib.util.spec_from_file_location("gpu", BENCHMARKS / "gpu.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("part, said", [
    ("machine", "best precision"), ("mnist", "left out: no folder"), ("digits", r"digits: 3 steps of 4 .* images/s, agreement 0\.\d"),
    ("cifar", r"(?s)GFLOP forward an image.*float32 \|.*bfloat16 \|.*channels_last \|")])
def test_each_part_says_what_it_found(part, said, gpu, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gpu.py", part])
    gpu.main()
    assert re.search(said, capsys.readouterr().out)


def test_mnist_is_trained_where_it_is_at_hand(gpu, monkeypatch, capsys):
    """Random images of its size stand for it."""
    images = torch.randint(256, (20, 1, 28, 28), dtype=torch.uint8)
    monkeypatch.setattr(gpu.data, "load", lambda name, folder: data.Dataset(images, torch.arange(20) % 10, tuple("0123456789")))
    monkeypatch.setattr(sys, "argv", ["gpu.py", "mnist", "--data-dir", "somewhere"])
    gpu.main()
    assert "mnist: 2 steps of 4" in capsys.readouterr().out


@pytest.mark.skipif(not shutil.which("bash") or not shutil.which("timeout"), reason="the script is for a Linux machine with a GPU")
@pytest.mark.parametrize("fails", ["", "gpu.py cifar"])
def test_the_script_does_all_parts_and_says_which_failed(fails, tmp_path):
    """With a program in Python's place that writes down what it was asked to do."""
    stub = tmp_path / "python"
    stub.write_text(f'#!/bin/sh\necho "$@" >> "{tmp_path}/asked"\ncase "$*" in *"{fails or "nothing"}"*) exit 3;; esac\n')
    stub.chmod(0o755)
    done = subprocess.run(["bash", BENCHMARKS / "gpu.sh", "a folder"], env=os.environ | {"PYTHON": str(stub)}, capture_output=True, text=True, timeout=600)
    asked = (tmp_path / "asked").read_text().splitlines()
    parts = [re.search(r"gpu\.py \w+|-k (not)?", line)[0].strip() for line in asked]
    assert parts == ["gpu.py machine", "-k not", "-k", "gpu.py mnist", "gpu.py cifar", "gpu.py digits"]
    assert asked[3].endswith("mnist --data-dir a folder")
    assert (done.returncode, "FAILED with status 3" in done.stdout, "all parts done" in done.stdout) == ((1, True, False) if fails else (0, False, True))
    assert sum(map(int, re.findall(r'^part "[^"]*" (\d+)', (BENCHMARKS / "gpu.sh").read_text(), re.MULTILINE))) <= 480, "eight minutes in all"
