"""A network that left PyTorch gives the same answers, and nobody who asks it has to know."""

import shutil
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

import ddpm_tutorial.__main__ as cli
from ddpm_tutorial import DDPM, Schedule, classifier_free, clipped, ddpm_step, dpm_solver_2m, final, sample, seeded_noise
from ddpm_tutorial.weights.onnx import export_onnx, onnx_denoiser
from tiny import MODEL, UNET, UNLABELLED

pytest.importorskip("onnxscript", reason="onnxscript is not installed: python -m pip install onnx onnxscript onnxruntime")
pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed: python -m pip install onnx onnxscript onnxruntime")


def learnt(config, schedule=None):
    """A network that is new answers 0, whatever it is asked; this one has something to say."""
    model, generator = DDPM(config, schedule=schedule).eval(), torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1, generator=generator)
    return model


@pytest.fixture(scope="module")
def model():
    return learnt(replace(MODEL, unet=replace(UNET, attention=(1,)), classes=("cats", "dogs")))


@pytest.fixture(scope="module")
def file(model, tmp_path_factory):
    return export_onnx(model, tmp_path_factory.mktemp("onnx") / "model.onnx")


@pytest.mark.parametrize("B", [1, 2, 5])
def test_it_answers_as_the_network_does_for_any_batch(B, model, file):
    """One image, as many as were shown to the exporter, more; with labels and without; at one time and at one for each."""
    x, y = torch.randn(B, *model.shape, generator=torch.Generator().manual_seed(B)), torch.arange(B) % 2
    for labels in (y, None):
        for t in (7, torch.arange(B) + 1):
            answer = onnx_denoiser(file, labels)(x, t)
            assert answer.dtype == torch.float32 and answer.abs().max() > 0.01
            torch.testing.assert_close(answer, model.denoiser(labels, clip=False)(x, t), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("step", [lambda: ddpm_step, dpm_solver_2m], ids=["DDPM", "second order"])
def test_guidance_and_samplers_take_it_without_knowing(step, model, file):
    """The same images at the end of a guided, clipped walk."""
    y = torch.tensor([0, 1, 1])
    eps = onnx_denoiser(file, y)
    guided = clipped(classifier_free(eps, onnx_denoiser(file), 2.0), eps.schedule)
    noise = [seeded_noise(0, range(3), model.shape) for _ in range(2)]
    ours, theirs = (final(sample(f, eps.schedule, z(16), step(), steps=8, noise=z)) for f, z in zip((guided, model.denoiser(y, 2.0)), noise))
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


def test_a_model_without_labels_and_with_a_schedule_of_its_own(tmp_path):
    """All that its answers mean is in the file."""
    model = learnt(UNLABELLED, Schedule(torch.linspace(1, 0.001, 9, dtype=torch.float64)))
    eps, x = onnx_denoiser(export_onnx(model, tmp_path / "m.onnx")), torch.randn(2, *model.shape)
    assert torch.equal(eps.schedule.alpha_bar, model.schedule.alpha_bar)
    torch.testing.assert_close(eps(x, 8), model.denoiser(clip=False)(x, 8), rtol=2e-5, atol=2e-5)


def test_the_command_writes_it_and_never_over_another(model, file, tmp_path, capsys):
    """And the path is what it prints."""
    weights, another = model.save(tmp_path / "model.safetensors"), shutil.copy(file, tmp_path / "m.onnx")
    cli.main(["export", str(weights), "--onnx", str(tmp_path / "m")])
    assert capsys.readouterr().out.strip() == str(tmp_path / "m-2.onnx") and onnx_denoiser(tmp_path / "m-2.onnx")
    assert another.read_bytes() == file.read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"model.safetensors", "m.onnx", "m-2.onnx"}


def test_what_is_no_such_file_is_a_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*x\.onnx; .*export"):
        onnx_denoiser(tmp_path / "x.onnx")
    (tmp_path / "x.onnx").write_bytes(b"404: not found")
    with pytest.raises(ValueError, match=r"x\.onnx is no whole ONNX file of ddpm_tutorial"):
        onnx_denoiser(tmp_path / "x.onnx")


def test_without_onnx_runtime_it_says_what_to_install(model, file, tmp_path, monkeypatch):
    for name in ("onnxruntime", "onnxscript"):
        monkeypatch.setitem(sys.modules, name, None)
    for call in (lambda: onnx_denoiser(file), lambda: export_onnx(model, tmp_path / "m.onnx")):
        with pytest.raises(ImportError, match="is not installed: python -m pip install onnx onnxscript onnxruntime"):
            call()
