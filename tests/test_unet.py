"""Ho's U-Net, part by part against formulas written by hand.  [1] DDPM arXiv:2006.11239 appendix B, [2] Attention arXiv:1706.03762."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ddpm_tutorial import MLP, UNet, UNetConfig, cosine, denoiser, loss, timestep_embedding
from ddpm_tutorial.unet import Attention, Block, Downsample, Upsample

SMALL = UNetConfig(channels=2, base=8, mults=(1, 2), blocks=1, attention=(1,), num_classes=3, groups=4)


def perturbed(module, seed=0):
    """The module with small random numbers added to every parameter: no layer is zero any more."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            p += 0.1 * torch.randn(p.shape, generator=generator)
    return module.eval()


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


BOTH = pytest.mark.parametrize("make, x", [(lambda: UNet(SMALL), randn(4, 2, 4, 4)), (lambda: MLP(2, width=8, layers=2, num_classes=3), randn(4, 2))],
                               ids=["UNet", "MLP"])


def test_the_papers_network_has_the_papers_number_of_parameters():
    """[1] appendix B: 35.7 million for CIFAR-10; to the last one, as in the official checkpoint."""
    with torch.device("meta"):
        assert sum(p.numel() for p in UNet(UNetConfig.cifar10()).parameters()) == 35_746_307


@pytest.mark.parametrize("config, size", [
    (UNetConfig(), (8, 8)), (SMALL, (4, 6)), (UNetConfig(channels=3, base=8, mults=(1,), blocks=1, attention=(0,), groups=2), (5, 7)),
    (UNetConfig(base=8, mults=(1, 2, 2, 3), blocks=2, attention=(0, 2), groups=4), (16, 8)),
])
def test_the_answer_is_shaped_like_the_question(config, size):
    """net(x_t, t) → like x_t, at any size that the levels can halve."""
    x = randn(2, config.channels, *size)
    assert perturbed(UNet(config))(x, torch.tensor([1, 1000])).shape == x.shape


def test_an_untrained_network_says_that_there_is_no_noise():
    """The last convolution starts at zero, so ε_θ = 0 and the first loss is E‖ε‖²/dim = 1: the smoke test of every training script."""
    net, schedule = UNet(SMALL), cosine(1000)
    x_0, eps, t = randn(512, 2, 8, 8).tanh(), randn(512, 2, 8, 8, seed=1), torch.randint(1, 1001, (512,), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        assert (net(x_0, t) == 0).all()
        assert loss(net, schedule, x_0, eps, t).mean().item() == pytest.approx(1, abs=0.02)


@BOTH
def test_every_parameter_gets_a_gradient(make, x):
    """Once the zero-initialised layers are perturbed, nothing is disconnected; every label has its row, and so has the null label."""
    net = perturbed(make())
    net(x, torch.tensor([1, 5, 50, 500]), torch.tensor([0, 1, 2, 3])).square().sum().backward()
    for name, p in net.named_parameters():
        assert p.grad is not None and p.grad.abs().max() > 0, f"{name} gets no gradient"
    assert net.label.weight.shape[0] == 3 + 1 and (net.label.weight.grad.abs().amax(1) > 0).all()


@pytest.mark.parametrize("dim", [4, 32, 128])
def test_the_time_embedding_is_sines_then_cosines(dim):
    """[2] section 3.5 as in [1]: sin(t·f_i), cos(t·f_i), f_i = 10000^(-i/(half-1)), from one turn per 2π down to 1/10000 of it."""
    t, half = [0, 1, 7, 250, 999], dim // 2
    by_hand = [[math.sin(u * 10_000 ** (-i / (half - 1))) for i in range(half)] + [math.cos(u * 10_000 ** (-i / (half - 1))) for i in range(half)] for u in t]
    np.testing.assert_allclose(timestep_embedding(torch.tensor(t), dim), by_hand, atol=2e-4)
    assert timestep_embedding(torch.tensor([0]), dim).tolist() == [[0.0] * half + [1.0] * half]


@BOTH
def test_the_network_counts_from_0(make, x):
    """Our t = 1 is Ho's and diffusers' 0, so that official weights fit: what enters the time MLP is the embedding of t - 1."""
    net, seen = make(), []
    net.time.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    net(x[:3], torch.tensor([1, 2, 1000]))
    torch.testing.assert_close(seen[0], timestep_embedding(torch.tensor([0, 1, 999]), 8))


@BOTH
def test_the_answer_depends_on_the_time_and_on_the_label(make, x):
    """One network for all t ([1] section 3.2) and all classes; DALLE2 #235: a mask that was computed and never used."""
    net, t, y = perturbed(make()), torch.full((4,), 10), torch.tensor([0, 1, 2, 3])
    same = x[:1].expand_as(x)
    with torch.no_grad():
        by_label, by_time = net(same, t, y), net(same, torch.tensor([1, 2, 500, 1000]), y[:1].expand(4))
    for answers in (by_label, by_time):
        for i in range(4):
            for j in range(i):
                assert not torch.allclose(answers[i], answers[j], atol=1e-4)


@BOTH
def test_no_label_is_the_null_label(make, x):
    """y = None means index num_classes for every image, never class 0 (TeaPearce #1: the null label was a real class)."""
    net, t = perturbed(make()), torch.tensor([3, 4, 5, 1])
    assert torch.equal(net(x, t), net(x, t, torch.full((4,), 3)))
    assert not torch.allclose(net(x, t), net(x, t, torch.zeros(4, dtype=torch.int64)), atol=1e-4)


def test_an_image_does_not_see_the_others_of_its_batch():
    """No batch statistics anywhere: image i is the same alone (to rounding)."""
    net, x, t, y = perturbed(UNet(SMALL)), randn(5, 2, 4, 4), torch.tensor([1, 20, 300, 1000, 5]), torch.tensor([0, 1, 2, 3, 0])
    with torch.no_grad():
        whole = net(x, t, y)
        for i in range(5):
            torch.testing.assert_close(whole[i:i + 1], net(x[i:i + 1], t[i:i + 1], y[i:i + 1]), atol=1e-5, rtol=1e-5)


def test_dropout_is_off_while_sampling_and_on_while_training():
    """ethos-ares #20: results were published with dropout live; a denoiser answers the same twice, the training network does not."""
    net = perturbed(UNet(UNetConfig(channels=2, base=8, mults=(1,), blocks=1, attention=(), dropout=0.5, groups=4))).train()
    x, t = randn(2, 2, 4, 4), torch.tensor([3, 4])
    eps = denoiser(net, cosine(10))
    assert torch.equal(eps(x, t), eps(x, t)) and net.training
    assert not torch.equal(net(x, t), net(x, t))


def test_attention_is_softmax_q_k_over_root_d_times_v():
    """[2] eq. 1 with one loop per image, and the input added: softmax(QKᵀ/√d) V."""
    layer, x = perturbed(Attention(8, groups=4)), randn(2, 8, 3, 2)
    normed = F.group_norm(x, 4, layer.norm.weight, layer.norm.bias, eps=1e-6)
    for i in range(2):
        positions = normed[i].reshape(8, 6).T                   # (H·W, C)
        q, k, v = (positions @ w.T + b for w, b in zip(layer.qkv.weight.split(8), layer.qkv.bias.split(8)))
        scores = q @ k.T / math.sqrt(8)
        weights = scores.exp() / scores.exp().sum(1, keepdim=True)
        out = (weights @ v) @ layer.out.weight.T + layer.out.bias
        torch.testing.assert_close(layer(x)[i], x[i] + out.T.reshape(8, 3, 2), atol=1e-5, rtol=1e-5)


def test_attention_knows_no_order():
    """Shuffling the positions shuffles the answer: a wrong reshape (C and H·W mixed up) would not."""
    layer, x, order = perturbed(Attention(8, groups=4)), randn(2, 8, 3, 4), torch.randperm(12, generator=torch.Generator().manual_seed(0))

    def shuffle(image):
        return image.flatten(2)[:, :, order].view_as(image)

    torch.testing.assert_close(layer(shuffle(x)), shuffle(layer(x)), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("attention", [False, True])
def test_a_new_block_is_the_identity_where_the_widths_agree(attention):
    """The last layer of each branch starts at zero, so a deep new network is a shallow one."""
    block, x = Block(8, 8, 16, attention, SMALL), randn(2, 8, 4, 4)
    assert torch.equal(block(x, randn(2, 16, seed=1)), x)
    wider = Block(8, 12, 16, attention, SMALL)
    assert torch.equal(wider(x, randn(2, 16, seed=1)), wider.shortcut(x))


def test_a_block_is_the_papers_residual_block():
    """[1] appendix B, written out: norm, SiLU, conv, + time, norm, SiLU, conv, + the input."""
    block, x, emb = perturbed(Block(8, 12, 16, False, SMALL)), randn(2, 8, 4, 4), randn(2, 16, seed=1)
    h = F.conv2d(F.silu(F.group_norm(x, 4, block.norm1.weight, block.norm1.bias, 1e-6)), block.conv1.weight, block.conv1.bias, padding=1)
    h = h + (emb @ block.emb.weight.T + block.emb.bias).reshape(2, 12, 1, 1)
    h = F.conv2d(F.silu(F.group_norm(h, 4, block.norm2.weight, block.norm2.bias, 1e-6)), block.conv2.weight, block.conv2.bias, padding=1)
    torch.testing.assert_close(block(x, emb), h + F.conv2d(x, block.shortcut.weight, block.shortcut.bias), atol=1e-5, rtol=1e-5)


def test_downsampling_is_padded_on_the_right_and_below():
    """Ho's TensorFlow convolution pads only there: output (i, j) sees the pixels from (2i, 2j) on, and zeros beyond the edge."""
    layer, x = perturbed(Downsample(3)), randn(1, 3, 4, 6)
    out = layer(x)
    assert out.shape == (1, 3, 2, 3)
    padded = torch.zeros(3, 5, 7)
    padded[:, :4, :6] = x[0]
    for i in range(2):
        for j in range(3):
            by_hand = torch.einsum("ochw,chw->o", layer.conv.weight, padded[:, 2 * i:2 * i + 3, 2 * j:2 * j + 3]) + layer.conv.bias
            torch.testing.assert_close(out[0, :, i, j], by_hand, atol=1e-5, rtol=1e-5)


def test_upsampling_repeats_pixels_before_it_smooths():
    """Nearest neighbour: every pixel becomes a block of 2×2, then a 3×3 convolution."""
    layer, x = perturbed(Upsample(3)), randn(1, 3, 2, 3)
    repeated = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    torch.testing.assert_close(layer(x), F.conv2d(repeated, layer.conv.weight, layer.conv.bias, padding=1), atol=1e-5, rtol=1e-5)


def test_a_flat_image_gives_finite_numbers():
    """A GroupNorm over an image without variance divides by √ε, not by 0 (huggingface/blog PR #1526)."""
    assert perturbed(UNet(SMALL))(torch.zeros(2, 2, 4, 4), torch.tensor([1, 2])).isfinite().all()
