"""05 training loss: answers that are right, and answers like those that have been given in public."""

RIGHT = {
    "times": [
        """
def times_from(u, T):
    return torch.floor(u * T).to(torch.int64) + 1
""",
        """
def times_from(u, T):
    return torch.tensor([min(int(v * T), T - 1) + 1 for v in u.tolist()])
""",
        """
def times_from(u, T):
    edges = torch.arange(1, T, dtype=u.dtype) / T
    return torch.bucketize(u, edges, right=True) + 1
""",
    ],
    "target": [
        """
def asked_for(x_0, eps, alpha_bar, predict):
    if predict == "eps":
        return eps
    if predict == "x0":
        return x_0
    return torch.stack([a ** 0.5 * e - (1 - a) ** 0.5 * x for x, e, a in zip(x_0, eps, alpha_bar)])
""",
        """
def asked_for(x_0, eps, alpha_bar, predict):
    signal, noise = alpha_bar[:, None, None, None] ** 0.5, (1 - alpha_bar)[:, None, None, None] ** 0.5
    weights = {"eps": (0, 1), "x0": (1, 0), "v": (-noise, signal)}[predict]
    return weights[0] * x_0 + weights[1] * eps
""",
    ],
    "loss": [
        """
def simple_loss(net, schedule, x_0, eps, t):
    predicted = net(q_sample(schedule, x_0, eps, t), t)
    return F.mse_loss(predicted, eps, reduction="none").mean(dim=tuple(range(1, x_0.ndim)))
""",
        """
def simple_loss(net, schedule, x_0, eps, t):
    error = net(q_sample(schedule, x_0, eps, t), t) - eps
    return torch.stack([(one ** 2).sum() / one.numel() for one in error])
""",
    ],
    "drop": [
        """
def dropped(y, u, p, null):
    return y.masked_fill(u < p, null)
""",
        """
def dropped(y, u, p, null):
    return torch.tensor([null if v < p else label for label, v in zip(y.tolist(), u.tolist())])
""",
        """
def dropped(y, u, p, null):
    new = y.clone()
    new[u < p] = null
    return new
""",
    ],
    "ema": [
        """
def average(mean, weight, n, decay):
    return torch.lerp(mean, weight, 1 - min(decay, (1 + n) / (10 + n)))
""",
        """
def average(mean, weight, n, decay):
    if (1 + n) / (10 + n) < decay:
        decay = (1 + n) / (10 + n)
    return mean + (1 - decay) * (weight - mean)
""",
    ],
    "floor": ["lowest = cosine(1000).alpha_bar[T_ASKED]", "lowest = 0.6475"],
    "first": ["first_eps, first_x0, first_v = 1.0, 1.0, 1.0"],
    "memory": ["forgotten = int(math.log(0.01) / math.log(DECAY)) + 1", "forgotten = 4603.0"],
    "recipe": [
        """
my_rate = lambda n: 5e-3 * (0.5 + 0.5 * math.cos(math.pi * n / 300))
my_decay = lambda n: 0.95 if n > 200 else (1 + n) / (10 + n)
""",
        """
def my_rate(n): return torch.tensor(1e-2 * min(1, (n + 1) / 30) * (1 - n / 300))
def my_decay(n): return 0.9 if n > 90 else 0.1
""",
    ],
}

WRONG = [
    # Step 1.
    ("0 … T-1", "times", """
def times_from(u, T):
    return (u * T).long()
""", {"check_times"}, "t = 0 is the data"),
    ("never T", "times", """
def times_from(u, T):
    return 1 + (u * (T - 1)).long()
""", {"check_times"}, "T itself is never drawn"),                                               # huggingface unit2/02: randint(0, 999)
    ("rounded", "times", """
def times_from(u, T):
    return 1 + (u * T).round().long()
""", {"check_times"}, "round is not fair"),
    ("rounded, and kept in range", "times", """
def times_from(u, T):
    return (u * T).round().long().clamp(1, T)
""", {"check_times"}, "round is not fair"),
    ("one too far", "times", """
def times_from(u, T):
    return 1 + (u * (T + 1)).long()
""", {"check_times"}, "beyond T"),
    ("rounded between 1 and T", "times", """
def times_from(u, T):
    return (1 + u * (T - 1)).round().long()
""", {"check_times"}, "round is not fair"),
    ("one time for the batch", "times", """
def times_from(u, T):
    return 1 + (u[0] * T).long()
""", {"check_times"}, "one time for each image"),
    ("32 bits", "times", """
def times_from(u, T):
    return (u * T).int() + 1
""", {"check_times"}, "whole numbers, int64"),
    ("a fraction", "times", """
def times_from(u, T):
    return 1 + torch.floor(u * T)
""", {"check_times"}, "whole numbers"),

    # Step 2.
    ("x_t for v", "target", """
def asked_for(x_0, eps, alpha_bar, predict):
    a = alpha_bar.view(-1, 1, 1, 1)
    return {"eps": eps, "x0": x_0, "v": a.sqrt() * x_0 + (1 - a).sqrt() * eps}[predict]
""", {"check_target"}, "that is x_t"),
    ("plus for minus", "target", """
def asked_for(x_0, eps, alpha_bar, predict):
    a = alpha_bar.view(-1, 1, 1, 1)
    return {"eps": eps, "x0": x_0, "v": a.sqrt() * eps + (1 - a).sqrt() * x_0}[predict]
""", {"check_target"}, "the sign of x_0"),
    ("lined up with the width", "target", """
def asked_for(x_0, eps, alpha_bar, predict):
    return {"eps": eps, "x0": x_0, "v": alpha_bar.sqrt() * eps - (1 - alpha_bar).sqrt() * x_0}[predict]
""", {"check_target"}, "lined up with the width"),
    ("another name, and no answer", "target", """
def asked_for(x_0, eps, alpha_bar, predict):
    a = alpha_bar.view(-1, 1, 1, 1)
    if predict == "eps":
        return eps
    if predict == "x_0":
        return x_0
    if predict == "v":
        return a.sqrt() * eps - (1 - a).sqrt() * x_0
""", {"check_target"}, "spelt otherwise"),
    ("the weights exchanged", "target", """
def asked_for(x_0, eps, alpha_bar, predict):
    a = alpha_bar.view(-1, 1, 1, 1)
    return {"eps": eps, "x0": x_0, "v": (1 - a).sqrt() * eps - a.sqrt() * x_0}[predict]
""", {"check_target"}, "in v the noise has the weight"),

    # Step 3.
    ("one number for the batch", "loss", """
def simple_loss(net, schedule, x_0, eps, t):
    return F.mse_loss(net(q_sample(schedule, x_0, eps, t), t), eps)
""", {"check_loss"}, "one number per image"),
    ("the network sees the clean image", "loss", """
def simple_loss(net, schedule, x_0, eps, t):
    return (eps - net(x_0, t)).square().flatten(1).mean(1)
""", {"check_loss"}, "shown the clean image"),
    ("other noise in x_t than in the target", "loss", """
def simple_loss(net, schedule, x_0, eps, t):
    x_t = q_sample(schedule, x_0, eps[[1, 2, 0]], t)
    return (eps - net(x_t, t)).square().flatten(1).mean(1)
""", {"check_loss"}, "not shown x_t"),                                                          # lucidrains, immiscible
    ("the sum over the pixels", "loss", """
def simple_loss(net, schedule, x_0, eps, t):
    return (eps - net(q_sample(schedule, x_0, eps, t), t)).square().flatten(1).sum(1)
""", {"check_loss"}, "that is the sum"),
    ("not squared", "loss", """
def simple_loss(net, schedule, x_0, eps, t):
    return (eps - net(q_sample(schedule, x_0, eps, t), t)).abs().flatten(1).mean(1)
""", {"check_loss"}, "absolute error"),
    ("the data for the noise", "loss", """
def simple_loss(net, schedule, x_0, eps, t):
    return (x_0 - net(q_sample(schedule, x_0, eps, t), t)).square().flatten(1).mean(1)
""", {"check_loss"}, "and not the data"),
    ("the noisy image for the noise", "loss", """
def simple_loss(net, schedule, x_0, eps, t):
    x_t = q_sample(schedule, x_0, eps, t)
    return (x_t - net(x_t, t)).square().flatten(1).mean(1)
""", {"check_loss"}, "not the noisy image"),
    ("images only", "loss", """
def simple_loss(net, schedule, x_0, eps, t):
    return (eps - net(q_sample(schedule, x_0, eps, t), t)).square().mean(dim=(1, 2, 3))
""", {"check_loss"}, None),

    # Step 4.
    ("the whole batch or none", "drop", """
def dropped(y, u, p, null):
    return torch.full_like(y, null) if u[0] < p else y
""", {"check_drop"}, "each image decides"),                                                      # dome272: np.random.random() < 0.1, once per batch
    ("the others", "drop", """
def dropped(y, u, p, null):
    return torch.where(u < p, y, null)
""", {"check_drop"}, "you dropped the others"),
    ("null is a digit", "drop", """
def dropped(y, u, p, null):
    return y * (u >= p)
""", {"check_drop"}, "0 is a digit"),                                                            # TeaPearce #1
    ("in place", "drop", """
def dropped(y, u, p, null):
    y[u < p] = null
    return y
""", {"check_drop"}, "you changed y itself"),
    ("a tenth, whatever p is", "drop", """
def dropped(y, u, p, null):
    return torch.where(u < 0.1, null, y)
""", {"check_drop"}, None),

    # Step 5.
    ("the shares exchanged", "ema", """
def average(mean, weight, n, decay):
    d = min(decay, (1 + n) / (10 + n))
    return (1 - d) * mean + d * weight
""", {"check_ema"}, "the shares are exchanged"),
    ("no warm-up", "ema", """
def average(mean, weight, n, decay):
    return decay * mean + (1 - decay) * weight
""", {"check_ema"}, "the warm-up is missing"),                                                   # improved-diffusion #59, diffae #16
    ("max for min", "ema", """
def average(mean, weight, n, decay):
    d = max(decay, (1 + n) / (10 + n))
    return d * mean + (1 - d) * weight
""", {"check_ema"}, "the warm-up is missing"),
    ("no limit", "ema", """
def average(mean, weight, n, decay):
    d = (1 + n) / (10 + n)
    return d * mean + (1 - d) * weight
""", {"check_ema"}, "must not exceed"),
    ("the average in place", "ema", """
def average(mean, weight, n, decay):
    d = min(decay, (1 + n) / (10 + n))
    return mean.mul_(d).add_((1 - d) * weight)
""", {"check_ema"}, "return a new one"),
    ("counted from 1", "ema", """
def average(mean, weight, n, decay):
    d = min(decay, (2 + n) / (11 + n))
    return d * mean + (1 - d) * weight
""", {"check_ema"}, "half and half"),

    # Steps 6 to 8.
    ("zero", "floor", "lowest = 0", {"check_floor"}, "0 would mean"),
    ("what can be predicted", "floor", "lowest = 0.352", {"check_floor"}, "*can* be predicted"),
    ("its root", "floor", "lowest = 0.805", {"check_floor"}, "a mean square"),
    ("without the part of x_0", "floor", "lowest = 0.419", {"check_floor"}, "that is ᾱ²"),
    ("the other schedule", "floor", "lowest = linear(1000).alpha_bar[T_ASKED]", {"check_floor"}, "of the linear schedule"),
    ("what the network answers", "first", "first_eps, first_x0, first_v = 0, 0, 0", {"check_first"}, "0 is what the network answers"),
    ("v cancels", "first", "first_eps, first_x0, first_v = 1, 1, 0", {"check_first"}, "do not cancel"),
    ("v is a sum", "first", "first_eps, first_x0, first_v = 1, 1, 2", {"check_first"}, "squares sum to 1"),
    ("1/(1-d)", "memory", "forgotten = 1000", {"check_memory"}, "37 %"),
    ("the half-life", "memory", "forgotten = 693", {"check_memory"}, "the half-life"),
    ("a fraction of a step", "memory", "forgotten = 4602.86", {"check_memory"}, "steps are whole numbers"),
    ("the last one above", "memory", "forgotten = math.floor(math.log(0.01) / math.log(DECAY))", {"check_memory"}, "after 4602 steps the share is still"),
    ("not the first", "memory", "forgotten = 4604", {"check_memory"}, "already after 4603 steps"),
    ("a sign", "memory", "forgotten = -4603", {"check_memory"}, "both logarithms are negative"),

    # Step 9.
    ("a small rate and a long memory", "recipe", """
def my_rate(n): return 5e-4
def my_decay(n): return min(0.999, (1 + n) / (10 + n))
""", {"check_recipe", "check_recipe_silver"}, "the first tier begins"),
    ("a short memory", "recipe", """
def my_rate(n): return 2e-3
def my_decay(n): return min(0.9, (1 + n) / (10 + n))
""", {"check_recipe_silver"}, "the second tier begins"),
    ("a rate below nothing", "recipe", """
def my_rate(n): return 1e-2 * (1 - n / 200)
def my_decay(n): return 0.9
""", {"check_recipe", "check_recipe_silver"}, "from 0 to 1"),
]

SEEDED = {
    "target": """
def asked_for(x_0, eps, alpha_bar, predict):
    a = {"power": alpha_bar, "signal": alpha_bar**2, "noise": 1 - alpha_bar**2}[LEVEL].view(-1, 1, 1, 1)
    return {"eps": eps, "x0": x_0, "v": a.sqrt() * eps - (1 - a).sqrt() * x_0}[predict]
""",
    "loss": """
def simple_loss(net, schedule, x_0, eps, t):
    a = schedule.alpha_bar[t].view(-1, *[1] * (x_0.ndim - 1))
    wanted = {"eps": eps, "x0": x_0, "v": a.sqrt() * eps - (1 - a).sqrt() * x_0}[PREDICT]
    return (wanted - net(q_sample(schedule, x_0, eps, t), t)).square().flatten(1).mean(1)
""",
    "ema": """
def average(mean, weight, n, decay):
    d = min(decay, (1 + n) / (WARM + n))
    return d * mean + (1 - d) * weight
""",
    "floor": "lowest = float(cosine(1000).alpha_bar[T_ASKED])",
    "memory": "forgotten = math.ceil(math.log(0.01) / math.log(DECAY))",
}

BEST = {"recipe": """
def my_rate(n): return 2e-2 * min(1, (n + 1) / 30) * (1 + math.cos(math.pi * n / 300)) / 2
def my_decay(n): return min(0.97, (1 + n) / (10 + n))
"""}
