"""Files: written whole or not at all, read whole or not at all."""

import json
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from tiny import MODEL, UNLABELLED, Line
from ddpm_tutorial import DDPM, DDPMConfig, UNet
from ddpm_tutorial.terminal import tidy
from ddpm_tutorial.weights import PRETRAINED, files


@pytest.fixture
def path(tmp_path):
    return files.write(tmp_path / "model.safetensors", {"net.w": torch.tensor([1.0, 2.0]), "net.n": torch.tensor(3)}, "weights", {"net": "Line"})


def test_what_is_written_is_read(path):
    """Every type of number, views, empty tensors and shared ones, which are stored once."""
    a = torch.arange(12.0).view(3, 4)
    tensors = {"a": a, "same": a, "row": a[1], "turned": a.T, "none": torch.zeros(0, 3), "half": a.half(), "brain": a.bfloat16(), "yes": a > 3,
               "n": torch.tensor(7)}
    found, header = files.read(files.write(path, tensors, "weights", {"what": "all"}), "weights")
    assert header == {"what": "all"} and found.keys() == tensors.keys()
    assert all(torch.equal(found[k], tensors[k]) and found[k].dtype == tensors[k].dtype for k in tensors)
    with safe_open(path, "pt") as file:
        assert set(file.keys()) == tensors.keys() - {"same"}


def test_every_flipped_bit_of_weights_is_noticed(path):
    """All of them: in a number, in a name, in the header, in its padding, in the checksum, in the name "sha256"."""
    whole = path.read_bytes()
    assert b"sha256" in whole
    for i in range(0, 8 * len(whole)):
        flipped = bytearray(whole)
        flipped[i // 8] ^= 1 << i % 8
        path.write_bytes(flipped)
        with pytest.raises(ValueError, match=r"model\.safetensors"):
            files.read(path, "weights")


def test_weights_of_version_0_1_still_load():
    """They have no checksum: what comes with the package is of that kind."""
    with safe_open(PRETRAINED["digits"], "pt") as file:
        assert "sha256" not in file.metadata()
    assert DDPM.load("digits").config.num_classes == 10


def test_weights_that_are_no_numbers_are_refused(path):
    """By name; and a network that was brought keeps its own."""
    net = Line()
    for values, words in (({"w": torch.tensor(torch.nan)}, "not finite: w"), ({"w": torch.tensor(2)}, "w is torch.int64"), ({}, "without w"),
                          ({"w": torch.zeros(3)}, r"w has shape \(3,\), not \(\)"), ({"w": torch.ones(()), "v": torch.ones(1)}, "v which it does not have")):
        given = {"calls": torch.tensor(5.0)} | values
        with pytest.raises(ValueError, match=words):
            files.load_weights(net, given, path)
    assert net.w == 1.0 and net.calls == 0.0


def test_settings_of_a_newer_version_are_named_with_the_file(path):
    """Instead of `__init__() got an unexpected keyword argument`."""
    with pytest.raises(ValueError, match=r"model\.safetensors has settings that this version does not know \(DDPMConfig: moon, sun\)"):
        files.configured(DDPMConfig, {"moon": 1, "sun": 2}, path)
    with pytest.raises(ValueError, match=r"model\.safetensors has settings that cannot be: .*moon"):
        files.configured(DDPMConfig, {"unet": {"moon": 1}}, path)
    with pytest.raises(ValueError, match=r"model\.safetensors has settings that cannot be: .*predict.*noise"):
        files.configured(DDPMConfig, {"predict": "noise"}, path)


def test_a_network_is_compared_with_its_file_before_it_is_built(path):
    """On the meta device: nothing is allocated, and nothing is drawn."""
    weights, before = UNet(MODEL.unet).state_dict(), torch.get_rng_state()
    files.check_unet(MODEL.unet, weights, path)
    assert torch.equal(before, torch.get_rng_state())
    with pytest.raises(ValueError, match=r"model\.safetensors do not fit this network: without .* and 5 more"):
        files.check_unet(MODEL.unet, dict(list(weights.items())[8:]), path)
    for absurd in ({"base": 2**40}, {"blocks": 10**9}):
        with pytest.raises(ValueError, match=r"model\.safetensors"):
            files.check_unet(replace(MODEL.unet, **absurd), weights, path)


# A kill.

WRITER = """
import sys, torch
from ddpm_tutorial.weights import files
for k in range(10**6):
    files.write(sys.argv[1], {"w": torch.full((1_000_000,), float(k))}, "weights", {"k": k})
    print(k, flush=True)
"""


def test_a_process_that_is_killed_while_it_writes_leaves_a_whole_file_and_no_litter_for_long(tmp_path):
    """One folder with a name of ours, which the next run clears away; safetensors' own temporary file is in it."""
    path = tmp_path / "model.safetensors"
    for after in (0.0, 0.002, 0.005):
        with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True) as process:
            process.stdout.readline()
            time.sleep(after)
            process.kill()
        tensors, header = files.read(path, "weights")
        assert (tensors["w"] == header["k"]).all()
        tidy(tmp_path)
        assert list(tmp_path.iterdir()) == [path]


def test_a_header_that_is_no_json_is_named(tmp_path):
    """A file that says it is ours, and is not."""
    for header in ("{", "[]", '"text"'):
        save_file({"w": torch.zeros(1)}, tmp_path / "x.safetensors", metadata={"ddpm_tutorial": "weights", "header": header})
        with pytest.raises(ValueError, match=r"x\.safetensors is damaged: its header"):
            files.read(tmp_path / "x.safetensors", "weights")


def test_a_model_with_shared_weights_can_be_saved(tmp_path):
    """Twice the same layer: stored once, and loaded into both places."""
    net = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4))
    net[1].weight = net[0].weight
    path = DDPM(UNLABELLED, net).save(tmp_path / "model.safetensors")
    with safe_open(path, "pt") as file:
        assert json.loads(file.metadata()["header"])["shared"] == {"net.1.weight": "net.0.weight"}
    again = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4))
    DDPM.load(path, net=again)
    assert torch.equal(again[0].weight, net[0].weight) and torch.equal(again[1].weight, net[0].weight)
