"""06 classifier-free guidance: answers that are right, and answers like those that have been given in public."""

from levels import told

RIGHT = {
    "guided": [
        """
def guided(eps_cond, eps_uncond, scale):
    return scale * eps_cond + (1 - scale) * eps_uncond
""",
        """
def guided(eps_cond, eps_uncond, scale):
    w = scale - 1
    return (1 + w) * eps_cond - w * eps_uncond
""",
        """
def guided(eps_cond, eps_uncond, scale):
    return torch.lerp(eps_uncond, eps_cond, scale)
""",
    ],
    "convention": ["our_scale, w_of_scale_1 = W + 1, 0.0"],
    "doubled": [
        """
def doubled(x_t, y, num_classes):
    return x_t.repeat(2, *[1] * (x_t.ndim - 1)), torch.cat([y, torch.tensor([num_classes] * len(y))])
""",
        """
def doubled(x_t, y, num_classes):
    images = torch.stack([*x_t, *x_t])
    labels = torch.tensor(y.tolist() + [num_classes for _ in y])
    return [images, labels]
""",
    ],
    "denoiser": [
        """
def guided_denoiser(net, y, num_classes, scale):
    null = torch.full_like(y, num_classes)
    def eps(x_t, t):
        B = len(x_t)
        if scale == 1:
            return net(x_t, torch.full((B,), t), y)
        if scale == 0:
            return net(x_t, torch.full((B,), t), null)
        out = net(torch.cat([x_t, x_t]), torch.full((2 * B,), t), torch.cat([null, y]))
        return out[:B] + scale * (out[B:] - out[:B])
    return eps
""",
        """
def guided_denoiser(net, y, num_classes, scale):
    def eps(x_t, t):
        asked = {0: [torch.full_like(y, num_classes)], 1: [y]}.get(scale, [y, torch.full_like(y, num_classes)])
        answers = net(torch.cat([x_t] * len(asked)), torch.full((len(x_t) * len(asked),), t), torch.cat(asked)).chunk(len(asked))
        return answers[0] if len(answers) == 1 else scale * answers[0] + (1 - scale) * answers[1]
    return eps
""",
    ],
    "bill": ["seen_at_0 = seen_at_1 = IMAGES * STEPS\nseen_at_3 = 2 * seen_at_1", "seen_at_0, seen_at_1, seen_at_3 = 1e3, 1e3, 2e3"],
    "implied": [
        """
def implied_gradient(eps_cond, eps_uncond, alpha_bar):
    score_cond, score_uncond = -eps_cond / (1 - alpha_bar) ** 0.5, -eps_uncond / (1 - alpha_bar) ** 0.5
    return score_cond - score_uncond
""",
        """
def implied_gradient(eps_cond, eps_uncond, alpha_bar):
    return torch.sub(eps_cond, eps_uncond).div(-math.sqrt(1 - alpha_bar))
""",
    ],
    "clip": [
        """
def clip_noise(x_t, eps, alpha_bar):
    signal, noise = alpha_bar ** 0.5, (1 - alpha_bar) ** 0.5
    x_0 = (x_t - noise * eps) / signal
    return eps + signal / noise * (x_0 - x_0.clamp(-1, 1))
""",
        """
def clip_noise(x_t, eps, alpha_bar):
    signal, noise = math.sqrt(alpha_bar), math.sqrt(1 - alpha_bar)
    low, high = (x_t - signal) / noise, (x_t + signal) / noise
    return torch.minimum(torch.maximum(eps, low), high)
""",
    ],
    "my_guidance": [
        """
def my_guidance(cond, uncond, weak):
    def bent(x_t, t):
        if t < 600: return cond(x_t, t)
        return uncond(x_t, t) + 3 * (cond(x_t, t) - uncond(x_t, t))
    return bent
""",
        """
my_guidance = lambda cond, uncond, weak: within(classifier_free(cond, uncond, 2.0), cond, 500, 1000)
""",
    ],
}

SILVER = {"check_my_guidance_silver"}                # of what is to be achieved; the reference has lost the gold already
BOTH = {"check_my_guidance", *SILVER}

WRONG = [
    # Step 1.
    ("the paper's w", "guided", """
def guided(eps_cond, eps_uncond, scale):
    return (1 + scale) * eps_cond - scale * eps_uncond
""", {"check_guided"}, "the paper's w = 0"),                                                     # diffusers #5882, lucidrains #155, #207
    ("the two exchanged", "guided", """
def guided(eps_cond, eps_uncond, scale):
    return torch.lerp(eps_cond, eps_uncond, scale)
""", {"check_guided"}, "the two answers are exchanged"),
    ("a wrong sign", "guided", """
def guided(eps_cond, eps_uncond, scale):
    return eps_uncond - scale * (eps_cond - eps_uncond)
""", {"check_guided"}, "you go away from the label"),                                           # labml #177
    ("the whole answer added", "guided", """
def guided(eps_cond, eps_uncond, scale):
    return eps_uncond + scale * eps_cond
""", {"check_guided"}, "the *difference*"),
    ("the first channels only", "guided", """
def guided(eps_cond, eps_uncond, scale):
    out = eps_uncond + scale * (eps_cond - eps_uncond)
    if out.ndim == 4:
        out = torch.cat([out[:, :2], eps_cond[:, 2:]], 1)
    return out
""", {"check_guided"}, None),                                                                    # DiT #41
    ("clamped", "guided", """
def guided(eps_cond, eps_uncond, scale):
    return eps_uncond + min(scale, 1.0) * (eps_cond - eps_uncond)
""", {"check_guided"}, "nothing is clamped"),

    # Step 2.
    ("scale is w", "convention", "our_scale, w_of_scale_1 = 0.5, 1", {"check_convention"}, "scale is not w"),
    ("the other way round", "convention", "our_scale, w_of_scale_1 = -0.5, 2", {"check_convention"}, "the other way round"),
    ("half right", "convention", "our_scale, w_of_scale_1 = 1.5, 1", {"check_convention"}, "w = 1 is our scale 2"),

    # Step 3.
    ("null is a class", "doubled", """
def doubled(x_t, y, num_classes):
    return torch.cat([x_t, x_t]), torch.cat([y, torch.zeros_like(y)])
""", {"check_doubled"}, "0 is a class"),                                                         # TeaPearce #1
    ("the last class", "doubled", """
def doubled(x_t, y, num_classes):
    return torch.cat([x_t, x_t]), torch.cat([y, torch.full_like(y, num_classes - 1)])
""", {"check_doubled"}, "9 is the last class"),
    ("minus one", "doubled", """
def doubled(x_t, y, num_classes):
    return torch.cat([x_t, x_t]), torch.cat([y, torch.full_like(y, -1)])
""", {"check_doubled"}, "no row of the network"),
    ("both halves labelled", "doubled", """
def doubled(x_t, y, num_classes):
    return torch.cat([x_t, x_t]), torch.cat([y, y])
""", {"check_doubled"}, "both halves have the label"),                                           # DiffGui #5
    ("the null half first", "doubled", """
def doubled(x_t, y, num_classes):
    return torch.cat([x_t, x_t]), torch.cat([torch.full_like(y, num_classes), y])
""", {"check_doubled"}, "the labelled half comes first"),
    ("interleaved", "doubled", """
def doubled(x_t, y, num_classes):
    return x_t.repeat_interleave(2, 0), torch.cat([y, torch.full_like(y, num_classes)])
""", {"check_doubled"}, "in the same order"),
    ("ten classes, always", "doubled", """
def doubled(x_t, y, num_classes):
    return torch.cat([x_t, x_t]), torch.cat([y, torch.full_like(y, 10)])
""", {"check_doubled"}, None),

    # Step 4.
    ("two calls", "denoiser", """
def guided_denoiser(net, y, num_classes, scale):
    def eps(x_t, t):
        times = torch.full((len(x_t),), t)
        if scale in (0, 1):
            return net(x_t, times, y if scale == 1 else torch.full_like(y, num_classes))
        return torch.lerp(net(x_t, times, torch.full_like(y, num_classes)), net(x_t, times, y), scale)
    return eps
""", {"check_denoiser"}, "into one batch"),
    ("always two answers", "denoiser", """
def guided_denoiser(net, y, num_classes, scale):
    def eps(x_t, t):
        out = net(torch.cat([x_t, x_t]), torch.full((2 * len(x_t),), t), torch.cat([y, torch.full_like(y, num_classes)]))
        return torch.lerp(*reversed(out.chunk(2)), scale)
    return eps
""", {"check_denoiser"}, "one answer is enough"),
    ("the halves exchanged", "denoiser", """
def guided_denoiser(net, y, num_classes, scale):
    def eps(x_t, t):
        nothing = torch.full_like(y, num_classes)
        if scale in (0, 1):
            return net(x_t, torch.full((len(x_t),), t), y if scale == 1 else nothing)
        a, b = net(torch.cat([x_t, x_t]), torch.full((2 * len(x_t),), t), torch.cat([y, nothing])).chunk(2)
        return a - scale * (a - b)
    return eps
""", {"check_denoiser"}, "the halves are exchanged"),
    ("a wrong sign in the line", "denoiser", """
def guided_denoiser(net, y, num_classes, scale):
    def eps(x_t, t):
        nothing = torch.full_like(y, num_classes)
        if scale in (0, 1):
            return net(x_t, torch.full((len(x_t),), t), y if scale == 1 else nothing)
        a, b = net(torch.cat([x_t, x_t]), torch.full((2 * len(x_t),), t), torch.cat([y, nothing])).chunk(2)
        return b - scale * (a - b)
    return eps
""", {"check_denoiser"}, "the sign of the difference"),
    ("the time is forgotten", "denoiser", """
def guided_denoiser(net, y, num_classes, scale):
    def eps(x_t, t):
        nothing = torch.full_like(y, num_classes)
        if scale in (0, 1):
            return net(x_t, torch.ones(len(x_t), dtype=torch.long), y if scale == 1 else nothing)
        a, b = net(torch.cat([x_t, x_t]), torch.ones(2 * len(x_t), dtype=torch.long), torch.cat([y, nothing])).chunk(2)
        return torch.lerp(b, a, scale)
    return eps
""", {"check_denoiser"}, "told the time"),
    ("labels at scale 0", "denoiser", """
def guided_denoiser(net, y, num_classes, scale):
    def eps(x_t, t):
        if scale in (0, 1):
            return net(x_t, torch.full((len(x_t),), t), y)
        a, b = net(torch.cat([x_t, x_t]), torch.full((2 * len(x_t),), t), torch.cat([y, torch.full_like(y, num_classes)])).chunk(2)
        return torch.lerp(b, a, scale)
    return eps
""", {"check_denoiser"}, "with the null label"),

    # Step 5.
    ("always double", "bill", "seen_at_0 = seen_at_1 = seen_at_3 = 2 * IMAGES * STEPS", {"check_bill"}, "nobody needs to ask"),
    ("scale times", "bill", "seen_at_0, seen_at_1, seen_at_3 = 1000, 1000, 3000", {"check_bill"}, "not a number of calls"),

    # Step 6.
    ("the sign of the noise", "implied", """
def implied_gradient(eps_cond, eps_uncond, alpha_bar):
    return (eps_cond - eps_uncond) / math.sqrt(1 - alpha_bar)
""", {"check_implied"}, "the noise points away"),
    ("no factor", "implied", """
def implied_gradient(eps_cond, eps_uncond, alpha_bar):
    return eps_uncond - eps_cond
""", {"check_implied"}, "the factor is missing"),
    ("multiplied", "implied", """
def implied_gradient(eps_cond, eps_uncond, alpha_bar):
    return (eps_uncond - eps_cond) * math.sqrt(1 - alpha_bar)
""", {"check_implied"}, "multiplied instead"),
    ("no root", "implied", """
def implied_gradient(eps_cond, eps_uncond, alpha_bar):
    return (eps_uncond - eps_cond) / (1 - alpha_bar)
""", {"check_implied"}, "it is the root"),
    ("√ᾱ", "implied", """
def implied_gradient(eps_cond, eps_uncond, alpha_bar):
    return (eps_uncond - eps_cond) / math.sqrt(alpha_bar)
""", {"check_implied"}, "√ᾱ is the weight of the data"),

    # Step 7.
    ("the old ε stays", "clip", """
def clip_noise(x_t, eps, alpha_bar):
    x_0 = ((x_t - math.sqrt(1 - alpha_bar) * eps) / math.sqrt(alpha_bar)).clamp(-1, 1)
    return eps
""", {"check_clip"}, "nothing has changed"),                                                     # lucidrains PR #84, explainingai
    ("the data for the noise", "clip", """
def clip_noise(x_t, eps, alpha_bar):
    return ((x_t - math.sqrt(1 - alpha_bar) * eps) / math.sqrt(alpha_bar)).clamp(-1, 1)
""", {"check_clip"}, "those are the clamped data"),
    ("the noise clamped", "clip", """
def clip_noise(x_t, eps, alpha_bar):
    return eps.clamp(-1, 1)
""", {"check_clip"}, "nothing has changed"),
    ("the roots exchanged", "clip", """
def clip_noise(x_t, eps, alpha_bar):
    x_0 = ((x_t - math.sqrt(alpha_bar) * eps) / math.sqrt(1 - alpha_bar)).clamp(-1, 1)
    return (x_t - math.sqrt(1 - alpha_bar) * x_0) / math.sqrt(alpha_bar)
""", {"check_clip"}, "√ᾱ and √(1-ᾱ) are mixed up"),
    ("one side only", "clip", """
def clip_noise(x_t, eps, alpha_bar):
    x_0 = ((x_t - math.sqrt(1 - alpha_bar) * eps) / math.sqrt(alpha_bar)).clamp(max=1)
    return (x_t - math.sqrt(alpha_bar) * x_0) / math.sqrt(1 - alpha_bar)
""", {"check_clip"}, "the noise must become"),

    # Step 8.
    ("no guidance", "my_guidance", "def my_guidance(cond, uncond, weak): return cond", BOTH, "97 % must"),
    ("the whole walk, scale 1.5", "my_guidance", "def my_guidance(cond, uncond, weak): return classifier_free(cond, uncond, 1.5)", SILVER, "too much alike"),
    ("the whole walk, scale 2", "my_guidance", "def my_guidance(cond, uncond, weak): return classifier_free(cond, uncond, 2.0)", BOTH, "too much alike"),
    ("a weaker model, all the way", "my_guidance", "def my_guidance(cond, uncond, weak): return classifier_free(cond, weak, 1.5)", BOTH, "97 % must"),
    ("the exact answers of the very ring", "my_guidance", """
def my_guidance(cond, uncond, weak): return ring(8, std=0.12).denoiser(hill_schedule, y=hill_y)
""", BOTH, None),
    ("the exact answers, from the time on at which the hill is chosen", "my_guidance", """
def my_guidance(cond, uncond, weak):
    labelled = ring(8, std=0.12).denoiser(hill_schedule, y=hill_y)
    return within(cond, labelled, 900, 1000)
""", BOTH, None),
    ("the network behind the denoiser", "my_guidance", """
def my_guidance(cond, uncond, weak):
    for p in cond.net.parameters(): p.data.mul_(1.01)
    return cond
""", BOTH, "no attribute 'net'"),
    ("a number", "my_guidance", "def my_guidance(cond, uncond, weak): return 1.5", BOTH, "must return a denoiser"),
]


SEEDED = {"convention": "our_scale, w_of_scale_1 = 1 + W, 0", "bill": "seen_at_0, seen_at_1, seen_at_3 = IMAGES * STEPS, IMAGES * STEPS, 2 * IMAGES * STEPS"}
SEEDED |= {
    "guided": """
def guided(eps_cond, eps_uncond, scale):
    return torch.lerp(eps_uncond, eps_cond, scale + (STRENGTH == "w"))
""",
    "doubled": """
def doubled(x_t, y, num_classes):
    labels = [y, torch.full_like(y, num_classes)]
    return torch.cat([x_t, x_t]), torch.cat(labels[::-1] if NULL_FIRST else labels)
""",
    "denoiser": """
def guided_denoiser(net, y, num_classes, scale):
    scale, nobody = scale + (STRENGTH == "w"), torch.full_like(y, num_classes)
    def eps(x_t, t):
        asked = [nobody] if scale == 0 else [y] if scale == 1 else [nobody, y]
        each = net(torch.cat([x_t] * len(asked)), torch.full((len(x_t) * len(asked),), t), torch.cat(asked)).chunk(len(asked))
        return each[0] + scale * (each[-1] - each[0]) if len(each) > 1 else each[0]
    return eps
""",
    "implied": told("implied_gradient", RIGHT["implied"][0], 2),
    "clip": told("clip_noise", RIGHT["clip"][0], 2),
}

BEST = {"my_guidance": """
def my_guidance(cond, uncond, weak):
    return within(classifier_free(cond, uncond, 2.5), cond, 650, 1000)
"""}
