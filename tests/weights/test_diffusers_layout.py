"""Our model is the official one under other names: diffusers is the oracle."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from ddpm_tutorial import DDPM, MLP, DDPMConfig, Schedule, UNet, UNetConfig, final, linear, sample, seeded_noise
from ddpm_tutorial.weights.diffusers_layout import diffusers_config, export, from_diffusers, schedule_of, to_diffusers, unet_config
from ddpm_tutorial.schedules import SCHEDULES, by_name

diffusers = pytest.importorskip("diffusers")

CONFIGS = {
    "digits": (UNetConfig(num_classes=10), 8),
    "three levels, attention at two": (UNetConfig(channels=3, base=32, mults=(1, 2, 2), attention=(1, 2), groups=16), 16),
    "no attention outside the middle": (UNetConfig(attention=(), blocks=1), 8),
    "narrow google/ddpm-cifar10-32": (UNetConfig(channels=3, base=32, mults=(1, 2, 2, 2), attention=(1,), groups=16), 32),
}

# google/ddpm-cifar10-32's config.json, without its version.
GOOGLE = {
    "_class_name": "UNet2DModel", "act_fn": "silu", "attention_head_dim": None, "block_out_channels": [128, 256, 256, 256], "center_input_sample": False,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"], "downsample_padding": 0, "flip_sin_to_cos": False,
    "freq_shift": 1, "in_channels": 3, "layers_per_block": 2, "mid_block_scale_factor": 1, "norm_eps": 1e-06, "norm_num_groups": 32, "out_channels": 3,
    "sample_size": 32, "time_embedding_type": "positional", "up_block_types": ["UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
}
NARROW = GOOGLE | {"block_out_channels": [32, 64, 64, 64], "norm_num_groups": 16}
OFFICIAL_PLAN = {"_class_name": "DDPMScheduler", "beta_end": 0.02, "beta_schedule": "linear", "beta_start": 0.0001, "clip_sample": True,
                 "num_train_timesteps": 1000, "trained_betas": None, "variance_type": "fixed_large"}
TINY = UNetConfig(channels=3, base=16, mults=(1, 2), blocks=1, attention=(1,), groups=4)


def randomised(net, weights=0.05):
    """Random weights everywhere, so that zero-initialised layers cannot hide a difference."""
    torch.manual_seed(0)
    with torch.no_grad():
        for p in net.parameters():
            p.normal_(0, weights if p.ndim > 1 else 0.5)
    return net.eval()


def same_output(ours, theirs, size, num_classes=None):
    """Largest difference for three images, relative to the largest output; our time t is their t - 1."""
    x, t = torch.randn(3, ours.config.channels, size, size, dtype=next(ours.parameters()).dtype), torch.tensor([1, 500, 1000])
    y = torch.tensor([0, 3, num_classes]) if num_classes else None
    with torch.no_grad():
        a, b = ours(x, t, y), theirs(x, t - 1, class_labels=y).sample
    assert b.std() > 1e-3                                               # they do say something
    return ((a - b).abs().max() / b.abs().max()).item()


def folder_of(path, net, plan=OFFICIAL_PLAN, weights=None, flat=False):
    """A model in diffusers' layout, as JSON and safetensors."""
    index = {"_class_name": "DDPMPipeline", "scheduler": ["diffusers", "DDPMScheduler"], "unet": ["diffusers", "UNet2DModel"]}
    for name, content in {"model_index.json": index, "unet/config.json": net, "scheduler/scheduler_config.json": plan}.items():
        place = path / (name.split("/")[-1] if flat else name)
        place.parent.mkdir(exist_ok=True)
        place.write_text(json.dumps(content))
    if weights is not None:
        save_file(weights, path / ("" if flat else "unet") / "diffusion_pytorch_model.safetensors")
    return path


# One network under two sets of names.

@pytest.mark.parametrize("name", CONFIGS)
def test_the_unet_is_diffusers_unet_under_other_names(name):
    """Same weights, same output to 1e-5 of its size, in float64 so that only the networks are compared.

    Our time t is their t-1: google/ddpm-cifar10-32 counts from 0.
    """
    config, size = CONFIGS[name]
    ours = randomised(UNet(config)).double()
    theirs = diffusers.UNet2DModel(**diffusers_config(config, size)).double().eval()
    theirs.load_state_dict(to_diffusers(ours.state_dict()))             # strict: every name, every shape
    assert same_output(ours, theirs, size, config.num_classes) < 1e-5


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_that_goes_there_comes_back(name):
    """unet_config ∘ diffusers_config is the identity, also by way of JSON and of what UNet2DModel makes of it."""
    config, size = CONFIGS[name]
    theirs = diffusers_config(replace(config, dropout=0.1), size)
    assert unet_config(theirs) == replace(config, dropout=0.1)
    assert unet_config(dict(diffusers.UNet2DModel(**theirs).config)) == replace(config, dropout=0.1)    # with all the defaults that they add
    assert unet_config(json.loads(json.dumps(theirs))) == replace(config, dropout=0.1)                  # JSON makes lists of tuples


def test_the_way_back_restores_every_weight():
    """from_diffusers ∘ to_diffusers is the identity, also under the names that old checkpoints use."""
    net = randomised(UNet(UNetConfig(num_classes=10)))
    theirs = to_diffusers(net.state_dict())
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    aged = {}
    for name, value in theirs.items():
        for new_name, old_name in old.items():
            name = name.replace(f".{new_name}.", f".{old_name}.")
        aged[name] = value
    for layout in (theirs, aged):
        back = from_diffusers(layout)
        assert back.keys() == net.state_dict().keys()
        assert all(torch.equal(back[k], v) for k, v in net.state_dict().items())


def test_the_cifar10_network_has_the_papers_size():
    """DDPM appendix B: 35.7 M parameters; google/ddpm-cifar10-32 has 35,746,307."""
    with torch.device("meta"):
        net = UNet(UNetConfig.cifar10())
        theirs = diffusers.UNet2DModel(**{k: v for k, v in GOOGLE.items() if k[0] != "_"})
    assert sum(p.numel() for p in net.parameters()) == 35_746_307 == sum(p.numel() for p in theirs.parameters())
    assert unet_config(GOOGLE) == replace(UNetConfig.cifar10(), dropout=0.0)
    assert {k: tuple(v.shape) for k, v in to_diffusers(net.state_dict()).items()} == {k: tuple(v.shape) for k, v in theirs.state_dict().items()}


# Theirs, opened by us.

@pytest.mark.parametrize("flat", [False, True], ids=["a folder for each part", "all in one folder"])
@pytest.mark.parametrize("labels", [None, 10])
def test_their_folder_loads_and_gives_their_output(tmp_path, labels, flat):
    """A UNet2DModel that diffusers wrote, with google/ddpm-cifar10-32's arguments (narrower), in float32: 1e-5 of the output.

    With labels it has one row more than classes, and the last is the null label, which is also what y = None means.
    """
    arguments = {k: v for k, v in NARROW.items() if k[0] != "_"} | {"num_class_embeds": labels and labels + 1}
    theirs = randomised(diffusers.UNet2DModel(**arguments))
    theirs.save_pretrained(tmp_path / "theirs")
    net = json.loads((tmp_path / "theirs/config.json").read_text())
    model = DDPM.load(folder_of(tmp_path, net, weights=load_file(tmp_path / "theirs/diffusion_pytorch_model.safetensors"), flat=flat))
    assert same_output(model.net, theirs, 32, labels) < 1e-5
    assert (model.config.num_classes, model.config.schedule, model.config.predict, model.config.clip) == (labels, "linear", "eps", True)
    assert torch.equal(model.schedule.alpha_bar, linear(1000).alpha_bar) and not model.training
    if labels:
        x, t = torch.randn(1, 3, 32, 32), torch.tensor([7])
        assert torch.equal(model.net(x, t), model.net(x, t, torch.tensor([labels])))


def test_a_pipeline_that_diffusers_saved_loads(tmp_path):
    """DDPMPipeline.save_pretrained, with all that today's diffusers writes into its files; v-prediction, cosine, no clipping."""
    net = diffusers.UNet2DModel(**diffusers_config(TINY, 8))
    plan = diffusers.DDPMScheduler(num_train_timesteps=50, beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction", clip_sample=False)
    diffusers.DDPMPipeline(net, plan).save_pretrained(tmp_path / "theirs")
    model = DDPM.load(tmp_path / "theirs")
    assert (model.config.schedule, model.config.timesteps, model.config.predict, model.config.clip) == ("cosine", 50, "v", False)
    assert same_output(model.net, net.eval(), 8) < 1e-5


def test_the_unets_folder_alone_loads_as_the_papers_model(tmp_path):
    """No scheduler says how it was trained: DDPM section 4 it is, linear, T = 1000, ε, clipped."""
    diffusers.UNet2DModel(**diffusers_config(TINY, 8)).save_pretrained(tmp_path / "unet only")
    assert DDPM.load(tmp_path / "unet only").config == DDPMConfig(image_size=8, channels=3, timesteps=1000, schedule="linear", predict="eps", unet=TINY)


PLANS = {
    "linear": ("linear", linear(1000)), "squaredcos_cap_v2": ("cosine", by_name("cosine", 1000)), "scaled_linear": ("quadratic", by_name("quadratic", 1000)),
}


@pytest.mark.parametrize("name", PLANS)
def test_their_names_of_schedules_are_read(name):
    """The defaults of DDPMScheduler are the paper's β, whatever their curve; the table is the one that the scheduler itself builds."""
    ours = schedule_of({"beta_schedule": name})
    torch.testing.assert_close(ours.alpha_bar, PLANS[name][1].alpha_bar, rtol=1e-12, atol=0)
    theirs = diffusers.DDPMScheduler(beta_schedule=name, num_train_timesteps=250, beta_start=4e-4, beta_end=0.08)
    torch.testing.assert_close(schedule_of(dict(theirs.config)).alpha_bar[1:].float(), theirs.alphas_cumprod, rtol=0, atol=1e-6)


def test_a_schedule_without_a_name_is_kept_as_it_is(tmp_path):
    """Other β than the paper's are a custom schedule, and survive our own save and load."""
    weights = to_diffusers(randomised(UNet(TINY)).state_dict())
    plan = OFFICIAL_PLAN | {"num_train_timesteps": 3, "trained_betas": [0.1, 0.5, 0.999]}
    model = DDPM.load(folder_of(tmp_path, diffusers_config(TINY, 8), plan, {k: v.contiguous() for k, v in weights.items()}))
    assert model.config.schedule == "custom" and model.schedule.beta.tolist() == pytest.approx([0, 0.1, 0.5, 0.999])
    again = DDPM.load(model.save(tmp_path / "model.safetensors"))
    assert again.config == model.config and torch.equal(again.schedule.alpha_bar, model.schedule.alpha_bar)


# Ours, opened by them.

def their_images(folder, monkeypatch, noise, n, steps):
    """The images of a DDPMPipeline, (n, C, H, W) in [-1, 1], with our noise in the place of its own."""
    for module in ("pipelines.ddpm.pipeline_ddpm", "schedulers.scheduling_ddpm"):
        monkeypatch.setattr(f"diffusers.{module}.randn_tensor", lambda *args, **kwargs: noise(0))
    pipeline = diffusers.DDPMPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    images = pipeline(batch_size=n, num_inference_steps=steps, output_type="np").images
    return torch.from_numpy(images).permute(0, 3, 1, 2) * 2 - 1


@pytest.mark.parametrize("predict", ["eps", "x0", "v"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_a_pipeline_from_our_export_draws_our_images(tmp_path, monkeypatch, name, predict):
    """From equal noise, pixel by pixel: our β, prediction and clipping, all 20 steps of DDPM and every fourth."""
    model = DDPM(DDPMConfig(image_size=8, channels=3, timesteps=20, schedule=name, predict=predict, unet=TINY))
    randomised(model.net)
    export(model, tmp_path / "ours")
    for steps in (20, 5):
        images = model.sample(2, sampler="ddpm", seed=3, steps=steps)
        assert 0.2 < images.std() and (images.abs() < 1).float().mean() > 0.1           # pictures of something
        theirs = their_images(tmp_path / "ours", monkeypatch, seeded_noise(3, range(2), model.shape), 2, steps)
        torch.testing.assert_close(images, theirs, rtol=0, atol=1e-3)


def test_without_clipping_they_are_the_same_too(tmp_path, monkeypatch):
    """clip goes into their clip_sample; what a network says of x_0 is then taken as it is."""
    model = DDPM(DDPMConfig(image_size=8, channels=3, timesteps=20, predict="x0", clip=False, unet=TINY))
    randomised(model.net, weights=0.15)
    theirs = their_images(export(model, tmp_path / "ours"), monkeypatch, seeded_noise(3, range(2), model.shape), 2, 20)
    images = model.sample(2, sampler="ddpm", seed=3)
    torch.testing.assert_close(images, theirs, rtol=0, atol=1e-3)
    assert (images - model.sample(2, sampler="ddpm", seed=3, clip=True)).abs().max() > 0.01


def test_the_full_cifar10_network_goes_both_ways(tmp_path, monkeypatch):
    """35,746,307 random weights from diffusers into our UNet, 1e-5 in float32; and from our export into their pipeline: two steps, the same image."""
    theirs = diffusers.UNet2DModel(**{k: v for k, v in GOOGLE.items() if k[0] != "_"}).eval()
    theirs.save_pretrained(tmp_path / "theirs")
    (tmp_path / "theirs/scheduler_config.json").write_text(json.dumps(OFFICIAL_PLAN))
    model = DDPM.load(tmp_path / "theirs")
    assert sum(p.numel() for p in model.net.parameters()) == 35_746_307
    assert same_output(model.net, theirs, 32) < 1e-5
    image = model.sample(1, sampler="ddpm", seed=0, steps=2)
    again = their_images(export(model, tmp_path / "ours"), monkeypatch, seeded_noise(0, range(1), model.shape), 1, 2)
    torch.testing.assert_close(image, again, rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", [*SCHEDULES, "custom"])
def test_what_we_export_we_load(tmp_path, name):
    """The same config, the same ᾱ to 1e-12 of it, every weight, and so the same images; with labels, and a schedule of one's own."""
    schedule = Schedule(torch.tensor([1, 0.9, 0.3, 0.001], dtype=torch.float64)) if name == "custom" else None
    config = DDPMConfig(image_size=8, channels=3, timesteps=30, predict="v", num_classes=3, unet=replace(TINY, num_classes=3))
    model = DDPM(config if schedule else replace(config, schedule=name), None, schedule)
    randomised(model.net)
    again = DDPM.load(export(model, tmp_path / "ours"))
    assert again.config == model.config
    torch.testing.assert_close(again.schedule.alpha_bar, model.schedule.alpha_bar, rtol=1e-12, atol=0)
    assert all(torch.equal(a, b) for a, b in zip(again.net.state_dict().values(), model.net.state_dict().values(), strict=True))
    torch.testing.assert_close(again.sample(2, y=1, scale=2.0), model.sample(2, y=1, scale=2.0), rtol=0, atol=1e-5)


def test_ddim_and_guidance_work_on_a_loaded_model(tmp_path):
    """It is a DDPM like any other: a walk of one's own along it, with a denoiser of one's own making."""
    model = DDPM(DDPMConfig(image_size=8, channels=3, timesteps=20, unet=TINY))
    again = DDPM.load(export(model, tmp_path / "ours"))
    x = seeded_noise(0, range(2), again.shape)(20)
    torch.testing.assert_close(final(sample(again.denoiser(), again.schedule, x, steps=5)).clamp(-1, 1), again.sample(2, sampler="ddim", steps=5))


# What cannot be.

OTHER_NETS = {
    "attention heads": ({"attention_head_dim": 8}, "attention_head_dim is 8 .* None"),
    "unknown blocks": ({"down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D", "DownBlock2D"]}, "down_block_types .*CrossAttnDownBlock2D"),
    "another way up than down": ({"up_block_types": ["UpBlock2D"] * 4}, "up_block_types .*AttnUpBlock2D"),
    "a learned variance": ({"out_channels": 6}, "out_channels is 6 .* 3.*predicts its variance"),
    "widths that are no multiples": ({"block_out_channels": [32, 48, 64, 64]}, r"block_out_channels is \(32, 48, 64, 64\)"),
    "symmetric padding": ({"downsample_padding": 1}, "downsample_padding is 1 .* 0"),
    "cosines before sines": ({"flip_sin_to_cos": True, "freq_shift": 0}, "freq_shift is 0 .* 1|flip_sin_to_cos is True"),
    "times as Fourier features": ({"time_embedding_type": "fourier"}, "time_embedding_type is 'fourier'"),
    "another activation": ({"act_fn": "mish"}, "act_fn is 'mish' .*'silu'"),
    "scale and shift": ({"resnet_time_scale_shift": "scale_shift"}, "resnet_time_scale_shift is 'scale_shift'"),
    "no middle attention": ({"add_attention": False}, "add_attention is False"),
    "one channel a group": ({"norm_num_groups": 32}, "groups is 32.*not see the time"),
    "labels, and no row for the null label": ({"num_class_embeds": 1}, "num_classes.*0"),
    "no image size": ({"sample_size": None}, "sample_size is None; .*one number"),
    "an oblong image": ({"sample_size": [32, 64]}, r"sample_size is \[32, 64\].*square"),
    "another class": ({"_class_name": "UNet2DConditionModel"}, "UNet2DConditionModel.*UNet2DModel"),
}
OTHER_PLANS = {
    "their sigmoid": ({"beta_schedule": "sigmoid"}, "beta_schedule is 'sigmoid'.*scaled_linear.*trained_betas"),
    "zero terminal SNR": ({"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr.*ᾱ_T = 0"),
    "a learned variance": ({"variance_type": "learned_range"}, "variance_type is 'learned_range'.*small or large"),
    "another prediction": ({"prediction_type": "flow"}, "prediction_type is 'flow'.*epsilon, sample, v_prediction"),
    "thresholding": ({"thresholding": True}, r"thresholding.*\[-1, 1\]"),
    "other bounds": ({"clip_sample_range": 2.0}, r"clip_sample_range.*\[-1, 1\]"),
    "another family": ({"_class_name": "ScoreSdeVeScheduler"}, "ScoreSdeVeScheduler.*DDPMScheduler or DDIMScheduler"),
    "betas beyond 1": ({"trained_betas": [0.5, 1.5]}, "beta.*between 0 and 1"),
}


@pytest.mark.parametrize("change, words", OTHER_NETS.values(), ids=OTHER_NETS)
def test_another_network_is_refused_with_the_reason(tmp_path, change, words):
    """Which argument, what it is and what it would have to be, before any weight is read: half-fitting weights would draw noise."""
    with pytest.raises(ValueError, match=f"(?is){tmp_path.name}.*{words}"):
        DDPM.load(folder_of(tmp_path, NARROW | change))


@pytest.mark.parametrize("change, words", OTHER_PLANS.values(), ids=OTHER_PLANS)
def test_another_scheduler_is_refused_with_the_reason(tmp_path, change, words):
    """A model sampled along another ᾱ than it was trained on draws something, and nobody would know why it is bad."""
    with pytest.raises(ValueError, match=f"(?is){tmp_path.name}.*{words}"):
        DDPM.load(folder_of(tmp_path, NARROW, OFFICIAL_PLAN | change))


def test_a_config_that_says_nothing_is_read_by_their_defaults():
    """Not by ours: UNet2DModel() itself has heads of 8, another padding and another embedding."""
    with pytest.raises(ValueError, match=r"(?s)attention_head_dim is 8.*norm_eps is 1e-05.*downsample_padding is 1.*flip_sin_to_cos is True.*freq_shift is 0"):
        unet_config({})
    assert unet_config(dict(diffusers.UNet2DModel(**diffusers_config(TINY, 8)).config) | {"attention_head_dim": 32}) == TINY   # one head of all 32 channels


def test_a_pickle_is_never_opened(tmp_path):
    """Weights as .bin only: named, with the way to convert them."""
    folder_of(tmp_path, NARROW)
    (tmp_path / "unet/diffusion_pytorch_model.bin").write_bytes(b"\x80\x04\x95")
    with pytest.raises(FileNotFoundError, match=r"(?s)diffusion_pytorch_model\.safetensors.*\.bin is a pickle, which is never opened.*save_pretrained"):
        DDPM.load(tmp_path)


def test_missing_and_damaged_files_are_named(tmp_path):
    """A folder without a config, such as a run's; without weights; with weights cut short; with half of them; with a broken config; of a larger pipeline."""
    with pytest.raises(FileNotFoundError, match=r"(?s)unet/config\.json.*model\.safetensors"):
        DDPM.load(tmp_path)
    folder_of(tmp_path, NARROW)
    with pytest.raises(FileNotFoundError, match=r"there is no file .*unet.diffusion_pytorch_model\.safetensors$"):
        DDPM.load(tmp_path)
    path = tmp_path / "unet/diffusion_pytorch_model.safetensors"
    path.write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{}")
    with pytest.raises(ValueError, match=r"diffusion_pytorch_model\.safetensors.*cut short"):
        DDPM.load(tmp_path)
    save_file({"conv_in.weight": torch.zeros(32, 3, 3, 3)}, path)
    with pytest.raises(ValueError, match=r"(?s)do not fit"):
        DDPM.load(tmp_path)
    save_file({"mid_block.attentions.0.to_q.weight": torch.zeros(64, 64)}, path)
    with pytest.raises(ValueError, match=r"to_q\.weight.*no mid_block\.attentions\.0\.to_k\.weight.*to_v"):
        DDPM.load(tmp_path)
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "LDMPipeline", "unet": [], "scheduler": [], "vqvae": []}))
    with pytest.raises(ValueError, match=r"a pipeline with vqvae"):
        DDPM.load(tmp_path)
    (tmp_path / "unet/config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json is no JSON"):
        DDPM.load(tmp_path)


def test_only_a_unet_has_a_place_in_their_layout(tmp_path):
    """A network of one's own cannot be exported, and nothing is written."""
    with pytest.raises(ValueError, match=r"MLP.*UNet only"):
        export(DDPM(DDPMConfig(), MLP()), tmp_path / "ours")
    assert not (tmp_path / "ours").exists()
