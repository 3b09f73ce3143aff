"""01 noise schedules: answers that are right, and answers like those that have been given in public."""

RIGHT = {
    "alpha_bar": [
        """
def alpha_bar_from(beta):
    left = [1.0]
    for b in beta.tolist():
        left.append(left[-1] * (1 - b))
    return torch.tensor(left, dtype=torch.float64)
""",
        """
def alpha_bar_from(beta):
    return torch.exp(torch.cumsum(torch.nn.functional.pad(torch.log1p(-beta), (1, 0)), dim=0))
""",
        """
import numpy as np
def alpha_bar_from(beta):
    return torch.from_numpy(np.concatenate([[1.0], np.cumprod(1 - beta.numpy())]))
""",
    ],
    "linear": [
        """
def linear_betas(T):
    first, last = 1000 / T * 1e-4, 1000 / T * 0.02
    return torch.tensor([first + (last - first) * i / (T - 1) for i in range(T)], dtype=torch.float64)
""",
        """
def linear_betas(T):
    return (1000 / T) * (1e-4 + (0.02 - 1e-4) * torch.arange(T).double() / (T - 1))
""",
        """
def linear_betas(T):
    return linear(T).beta[1:]
""",
    ],
    "cosine": [
        """
def cosine_curve(T, s=0.008):
    def f(t):
        return math.cos((t / T + s) / (1 + s) * math.pi / 2) ** 2
    return torch.tensor([f(t) / f(0) for t in range(T + 1)], dtype=torch.float64)
""",
        """
def cosine_curve(T, s=0.008):
    angle = torch.pi * (torch.linspace(0, 1, T + 1, dtype=torch.float64) + s) / (1 + s)
    f = (1 + torch.cos(angle)) / 2
    return f / f[0]
""",
    ],
    "cap": [
        """
def capped(alpha_bar, most=0.999):
    out = [1.0]
    for before, after in zip(alpha_bar[:-1].tolist(), alpha_bar[1:].tolist()):
        out.append(out[-1] * max(after / before, 1 - most))
    return torch.tensor(out, dtype=torch.float64)
""",
        """
def capped(alpha_bar, most=0.999):
    beta = 1 - alpha_bar[1:] / alpha_bar[:-1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return from_betas(torch.minimum(beta, torch.full_like(beta, most))).alpha_bar
""",
    ],
    "snr": [
        """
def snr_db(alpha_bar):
    return 10 * (alpha_bar.log10() - (1 - alpha_bar).log10())
""",
        """
def snr_db(alpha_bar):
    return 20 * torch.log10(alpha_bar.sqrt() / (1 - alpha_bar).sqrt())
""",
        """
def snr_db(alpha_bar):
    return torch.tensor([float("inf") if a == 1 else 10 * math.log10(a / (1 - a)) for a in alpha_bar.tolist()])
""",
    ],
    "ruler": [
        """
t_linear = (10 * linear(1000).snr.log10() < LEVEL).nonzero()[0, 0]
t_cosine = (10 * cosine(1000).snr.log10() < LEVEL).nonzero()[0, 0]
""",
        "t_linear, t_cosine = 260.0, torch.tensor(497)",
    ],
    "verdict": [
        """
def verdict(alpha_bar):
    a = alpha_bar.tolist()
    if a[0] != 1.0: return "start"
    for before, after in zip(a, a[1:]):
        if not after < before: return "order"
    if not a[-1] > 0: return "zero"
    if math.sqrt(a[-1]) > 0.05: return "end"
    return "fine"
""",
        """
def verdict(alpha_bar):
    broken = {"start": abs(alpha_bar[0] - 1) > 1e-12, "order": not (alpha_bar[1:] < alpha_bar[:-1]).all(),
              "zero": alpha_bar[-1] <= 0, "end": alpha_bar[-1] > 0.05**2}
    return next((word for word, is_broken in broken.items() if is_broken), "fine")
""",
    ],
    "broken": [
        'broken = dict(A="zero", C="end", D="end", E="start")',
    ],
    "distance": [
        """
def distance(a, b):
    return sum(abs(x - y) for x, y in zip(sorted(a.tolist()), sorted(b.tolist()))) / len(a)
""",
        """
def distance(a, b):
    from scipy.stats import wasserstein_distance
    return wasserstein_distance(a.numpy(), b.numpy())
""",
        """
def distance(a, b):
    pairs = torch.stack([torch.msort(a), torch.msort(b)])
    return (pairs.amax(0) - pairs.amin(0)).sum() / a.numel()
""",
    ],
    "design": [
        "design = (1, 0.993, 0.92, 0.73, 0.27, 0.0024)",
        "design = torch.tensor([math.inf, 4, 2, 0, -2, -6.5], dtype=torch.float64).sigmoid()",
    ],
}

SILVER = {"check_design_silver"}                # of what is to be achieved; the reference has lost the gold already
BOTH = {"check_design", *SILVER}

WRONG = [
    # Step 1.
    ("the leading 1 is missing", "alpha_bar", """
def alpha_bar_from(beta):
    return torch.cumprod(1 - beta, dim=0)
""", {"check_alpha_bar"}, "is ᾱ_0 = 1, the data, missing"),                                  # dome272 #14: why there is a leading 1
    ("the 1 is padded on the right", "alpha_bar", """
def alpha_bar_from(beta):
    return torch.nn.functional.pad(torch.cumprod(1 - beta, dim=0), (0, 1), value=1.0)
""", {"check_alpha_bar"}, "stands at the wrong end"),                                          # lucidrains #18
    ("an exclusive product", "alpha_bar", """
def alpha_bar_from(beta):
    return torch.cat([torch.ones(1, dtype=torch.float64), torch.cumprod(1 - beta, dim=0)[:-1]])
""", {"check_alpha_bar"}, "the last step is missing"),
    ("a product up to T for every t", "alpha_bar", """
def alpha_bar_from(beta):
    return torch.prod(1 - beta)
""", {"check_alpha_bar"}, "up to t, not up to T"),                                             # Hugging Face's unit 1: so printed
    ("β multiplied instead of 1-β", "alpha_bar", """
def alpha_bar_from(beta):
    return torch.cat([torch.ones(1, dtype=torch.float64), torch.cumprod(beta, dim=0)])
""", {"check_alpha_bar"}, "you multiplied the β"),
    ("the roots multiplied", "alpha_bar", """
def alpha_bar_from(beta):
    return torch.cat([torch.ones(1, dtype=torch.float64), torch.cumprod((1 - beta).sqrt(), dim=0)])
""", {"check_alpha_bar"}, "you multiplied the roots"),
    ("a sum instead of a product", "alpha_bar", """
def alpha_bar_from(beta):
    return torch.cat([torch.ones(1, dtype=torch.float64), 1 - torch.cumsum(beta, dim=0)])
""", {"check_alpha_bar"}, "shares multiply"),
    ("in float32", "alpha_bar", """
def alpha_bar_from(beta):
    return torch.cat([torch.ones(1), torch.cumprod(1 - beta.float(), dim=0)])
""", {"check_alpha_bar"}, "keep float64"),
    ("right for three steps only", "alpha_bar", """
def alpha_bar_from(beta):
    b_1, b_2, b_3 = beta[:3]
    return torch.stack([1 + 0 * b_1, 1 - b_1, (1 - b_1) * (1 - b_2), (1 - b_1) * (1 - b_2) * (1 - b_3)])
""", {"check_alpha_bar"}, None),

    # Step 2.
    ("β not rescaled with T", "linear", """
def linear_betas(T):
    return torch.linspace(1e-4, 0.02, T, dtype=torch.float64)
""", {"check_linear"}, "β is not rescaled"),                                                    # tiny-diffusion, TeaPearce, the Annotated Diffusion Model
    ("rescaled the wrong way", "linear", """
def linear_betas(T):
    return torch.linspace(1e-4, 0.02, T, dtype=torch.float64) * T / 1000
""", {"check_linear"}, "you made the steps smaller"),
    ("only the last β is rescaled", "linear", """
def linear_betas(T):
    return torch.linspace(1e-4, 0.02 * 1000 / T, T, dtype=torch.float64)
""", {"check_linear"}, "only β_T is rescaled"),
    ("T+1 numbers", "linear", """
def linear_betas(T):
    return torch.linspace(1e-4, 0.02, T + 1, dtype=torch.float64) * 1000 / T
""", {"check_linear"}, "there is no β_0"),                                                      # minDiffusion, TeaPearce: an extra factor
    ("√β in a straight line", "linear", """
def linear_betas(T):
    return torch.linspace(1e-4**0.5, 0.02**0.5, T, dtype=torch.float64) ** 2 * 1000 / T
""", {"check_linear"}, "it must be a straight line"),                                           # Stable Diffusion's "scaled linear"
    ("the last β is not reached", "linear", """
def linear_betas(T):
    return (1e-4 + (0.02 - 1e-4) * torch.arange(T, dtype=torch.float64) / T) * 1000 / T
""", {"check_linear"}, "β_1 must be 0.001 and β_T 0.2"),

    # Step 3.
    ("the square is missing", "cosine", """
def cosine_curve(T, s=0.008):
    f = torch.cos((torch.arange(T + 1, dtype=torch.float64) / T + s) / (1 + s) * math.pi / 2)
    return f / f[0]
""", {"check_cosine"}, "eq. 17 has its square"),                                                # lilianweng.github.io #9
    ("t divided by T+1", "cosine", """
def cosine_curve(T, s=0.008):
    t = torch.arange(T + 1, dtype=torch.float64)
    f = torch.cos((t / (T + 1) + s) / (1 + s) * math.pi / 2) ** 2
    return f / f[0]
""", {"check_cosine"}, "you divide t by T+1"),
    ("not divided by f(0)", "cosine", """
def cosine_curve(T, s=0.008):
    return torch.cos((torch.arange(T + 1, dtype=torch.float64) / T + s) / (1 + s) * math.pi / 2) ** 2
""", {"check_cosine"}, "divide by f(0)"),
    ("the angle is not divided by 1+s", "cosine", """
def cosine_curve(T, s=0.008):
    f = torch.cos((torch.arange(T + 1, dtype=torch.float64) / T + s) * math.pi / 2) ** 2
    return f / f[0]
""", {"check_cosine"}, "the angle must be divided by 1+s"),
    ("brackets: π/2 multiplies s only", "cosine", """
def cosine_curve(T, s=0.008):
    f = torch.cos(torch.arange(T + 1, dtype=torch.float64) / T + s / (1 + s) * math.pi / 2) ** 2
    return f / f[0]
""", {"check_cosine"}, "π/2 must multiply the whole fraction"),
    ("brackets: only s is divided", "cosine", """
def cosine_curve(T, s=0.008):
    f = torch.cos((torch.arange(T + 1, dtype=torch.float64) / T + s / (1 + s)) * math.pi / 2) ** 2
    return f / f[0]
""", {"check_cosine"}, "stands over 1+s as a whole"),
    ("brackets: s is added to T", "cosine", """
def cosine_curve(T, s=0.008):
    f = torch.cos(torch.arange(T + 1, dtype=torch.float64) / (T + s) / (1 + s) * math.pi / 2) ** 2
    return f / f[0]
""", {"check_cosine"}, "and not to T"),
    ("brackets: divided by 1, and s added", "cosine", """
def cosine_curve(T, s=0.008):
    f = torch.cos(((torch.arange(T + 1, dtype=torch.float64) / T + s) / 1 + s) * math.pi / 2) ** 2
    return f / f[0]
""", {"check_cosine"}, "brackets around 1+s"),
    ("no offset", "cosine", """
def cosine_curve(T, s=0.008):
    return torch.cos(torch.arange(T + 1, dtype=torch.float64) / T * math.pi / 2) ** 2
""", {"check_cosine"}, "s changes nothing"),
    ("half a turn", "cosine", """
def cosine_curve(T, s=0.008):
    f = torch.cos((torch.arange(T + 1, dtype=torch.float64) / T + s) / (1 + s) * math.pi) ** 2
    return f / f[0]
""", {"check_cosine"}, "comes back"),
    ("the default offset is another", "cosine", """
def cosine_curve(T, s=0.08):
    f = torch.cos((torch.arange(T + 1, dtype=torch.float64) / T + s) / (1 + s) * math.pi / 2) ** 2
    return f / f[0]
""", {"check_cosine"}, None),

    # Step 4.
    ("ᾱ not built again", "cap", """
def capped(alpha_bar, most=0.999):
    beta = (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=most)
    return alpha_bar
""", {"check_cap"}, "two truths"),                                                              # MONAI GenerativeModels #489
    ("a floor under ᾱ", "cap", """
def capped(alpha_bar, most=0.999):
    return alpha_bar.clamp(min=1 - most)
""", {"check_cap"}, "a floor under ᾱ"),
    ("each step capped against the old ᾱ", "cap", """
def capped(alpha_bar, most=0.999):
    return torch.cat([alpha_bar[:1], torch.maximum(alpha_bar[1:], (1 - most) * alpha_bar[:-1])])
""", {"check_cap"}, "still has its old value"),
    ("returns β", "cap", """
def capped(alpha_bar, most=0.999):
    return (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=most)
""", {"check_cap"}, "that is the capped β"),
    ("0.999 is written in", "cap", """
def capped(alpha_bar, most=0.999):
    beta = (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=0.999)
    return torch.cat([alpha_bar[:1], torch.cumprod(1 - beta, dim=0)])
""", {"check_cap"}, "or is the limit not `most`"),
    ("the last β is set to the limit", "cap", """
def capped(alpha_bar, most=0.999):
    beta = (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=most)
    beta[-1] = min(beta[-1], most) if len(beta) < 10 else most
    return torch.cat([alpha_bar[:1], torch.cumprod(1 - beta, dim=0)])
""", {"check_cap"}, None),

    # Step 5.
    ("20·log10", "snr", """
def snr_db(alpha_bar):
    return 20 * torch.log10(alpha_bar / (1 - alpha_bar))
""", {"check_snr"}, "20·log10 is for amplitudes"),
    ("the ratio of amplitudes", "snr", """
def snr_db(alpha_bar):
    return 10 * torch.log10(alpha_bar.sqrt() / (1 - alpha_bar).sqrt())
""", {"check_snr"}, "leave the roots out"),
    ("bels", "snr", """
def snr_db(alpha_bar):
    return torch.log10(alpha_bar / (1 - alpha_bar))
""", {"check_snr"}, "those are bels"),
    ("the natural logarithm", "snr", """
def snr_db(alpha_bar):
    return torch.log(alpha_bar / (1 - alpha_bar))
""", {"check_snr"}, "natural logarithm"),
    ("10·ln", "snr", """
def snr_db(alpha_bar):
    return 10 * torch.log(alpha_bar / (1 - alpha_bar))
""", {"check_snr"}, "that is 10·ln"),
    ("noise over signal", "snr", """
def snr_db(alpha_bar):
    return 10 * torch.log10((1 - alpha_bar) / alpha_bar)
""", {"check_snr"}, "upside down"),
    ("signal without noise", "snr", """
def snr_db(alpha_bar):
    return 10 * torch.log10(alpha_bar)
""", {"check_snr"}, "where is the noise"),
    ("clamped at t = 0", "snr", """
def snr_db(alpha_bar):
    return 10 * torch.log10(alpha_bar / (1 - alpha_bar).clamp(min=1e-12))
""", {"check_snr"}, "do not clamp"),

    # Step 6.
    ("one too small: the last time above", "ruler", "t_linear, t_cosine = 259, 496", {"check_ruler"}, "it is a later time"),
    ("one too large: index 0 taken for t = 1", "ruler", "t_linear, t_cosine = 261, 498", {"check_ruler"}, "it is an earlier time"),      # tables without ᾱ_0
    ("swapped", "ruler", "t_linear, t_cosine = 497, 260", {"check_ruler"}, "swapped"),
    ("all times that qualify", "ruler", """
t_linear = (snr_db(linear(1000).alpha_bar) < LEVEL).nonzero()
t_cosine = (snr_db(cosine(1000).alpha_bar) < LEVEL).nonzero()
""", {"check_ruler"}, "the first of them is asked for"),
    ("a share of T", "ruler", "t_linear, t_cosine = 0.26, 0.497", {"check_ruler"}, "a time t, not t/T"),
    ("one left open", "ruler", "t_linear, t_cosine = 260, None", {"check_ruler"}, "still None"),

    # Step 7.
    ("ᾱ_T compared instead of √ᾱ_T", "verdict", """
def verdict(alpha_bar):
    if alpha_bar[0] != 1: return "start"
    if (alpha_bar.diff() >= 0).any(): return "order"
    if alpha_bar[-1] <= 0: return "zero"
    return "end" if alpha_bar[-1] > 0.05 else "fine"
""", {"check_verdict"}, "compare √ᾱ_T with 0.05"),
    ("standing still is allowed", "verdict", """
def verdict(alpha_bar):
    if alpha_bar[0] != 1: return "start"
    if (alpha_bar.diff() > 0).any(): return "order"
    if alpha_bar[-1] <= 0: return "zero"
    return "end" if alpha_bar[-1].sqrt() > 0.05 else "fine"
""", {"check_verdict"}, "stands still"),
    ("only the ends are compared", "verdict", """
def verdict(alpha_bar):
    if alpha_bar[0] != 1: return "start"
    if alpha_bar[-1] >= alpha_bar[0]: return "order"
    if alpha_bar[-1] <= 0: return "zero"
    return "end" if alpha_bar[-1].sqrt() > 0.05 else "fine"
""", {"check_verdict"}, "look at every step"),
    ("an exact zero passes", "verdict", """
def verdict(alpha_bar):
    if alpha_bar[0] != 1: return "start"
    if (alpha_bar.diff() >= 0).any(): return "order"
    return "end" if alpha_bar[-1].sqrt() > 0.05 else "fine"
""", {"check_verdict"}, "divides by it"),                                                       # diffusers #3851
    ("it does not stop at the first one", "verdict", """
def verdict(alpha_bar):
    word = "fine"
    if alpha_bar[0] != 1: word = "start"
    if (alpha_bar.diff() >= 0).any(): word = "order"
    if alpha_bar[-1] <= 0: word = "zero"
    if alpha_bar[-1].sqrt() > 0.05: word = "end"
    return word
""", {"check_verdict"}, None),

    # Step 8.
    ("the one with √ᾱ_T = 0.13 passes", "broken", 'broken = {"D": "end", "E": "start", "A": "zero"}', {"check_broken"}, "did you compare √ᾱ_T"),
    ("the rescaled one is accused", "broken", """
broken = {"D": "end", "B": "end", "E": "start", "A": "zero", "C": "end"}
""", {"check_broken"}, "one of the five is fine"),
    ("a wrong reason", "broken", 'broken = {"D": "end", "E": "start", "A": "end", "C": "end"}', {"check_broken"}, "not every letter has its own word"),
    ("the fine one for a broken one", "broken", 'broken = {"D": "end", "E": "start", "A": "zero", "B": "end"}',
     {"check_broken"}, "not every letter has its own word"),

    # Step 9.
    ("not sorted", "distance", """
def distance(a, b):
    return (a - b).abs().mean()
""", {"check_distance"}, "sort both"),
    ("the difference of the means", "distance", """
def distance(a, b):
    return (a.mean() - b.mean()).abs()
""", {"check_distance"}, "the same mean"),
    ("no absolute values", "distance", """
def distance(a, b):
    return (a.sort().values - b.sort().values).mean()
""", {"check_distance"}, "the same mean"),
    ("squared", "distance", """
def distance(a, b):
    return ((a.sort().values - b.sort().values) ** 2).mean().sqrt()
""", {"check_distance"}, "you squared the differences"),
    ("the sum", "distance", """
def distance(a, b):
    return (a.sort().values - b.sort().values).abs().sum()
""", {"check_distance"}, "that is the sum"),
    ("the median", "distance", """
def distance(a, b):
    gap = (a.sort().values - b.sort().values).abs()
    return torch.quantile(gap, 0.5)
""", {"check_distance"}, None),

    # Step 10.
    ("cosine itself", "design", "design = cosine(1000).alpha_bar[::200]", BOTH, "cosine's own times are better"),
    ("linear", "design", "design = linear(1000).alpha_bar[::200]", BOTH, "cosine's own times are better"),
    ("a little better than cosine", "design", """
design = [1.0, *torch.sigmoid(torch.linspace(3, -6.03, 5, dtype=torch.float64)).tolist()]
""", SILVER, "the second tier begins"),
    ("it starts where there is signal", "design", "design = [1, 0.99, 0.9, 0.7, 0.4, 0.1]", BOTH, "pure noise"),
    ("upside down", "design", "design = [0.001, 0.3, 0.7, 0.9, 0.99, 1]", BOTH, "lead to the data"),
    ("five numbers", "design", "design = [1, 0.9, 0.5, 0.2, 0.001]", BOTH, "5 calls need 6 numbers"),
    ("it rises in between", "design", "design = [1, 0.9, 0.5, 0.6, 0.1, 0.001]", BOTH, "must fall"),
]

BEST = {"design": """
design = [1.0, *torch.sigmoid(torch.tensor([3.97, 1.91, 0.66, -0.86, -6.03], dtype=torch.float64)).tolist()]
"""}

SEEDED = {
    "linear": """
def linear_betas(T):
    return torch.linspace(BETA_1, BETA_T, T, dtype=torch.float64) * 1000 / T
""",
    "verdict": """
def verdict(alpha_bar):
    if alpha_bar[0] != 1: return "start"
    if (alpha_bar.diff() >= 0).any(): return "order"
    if alpha_bar[-1] <= 0: return "zero"
    return "end" if alpha_bar[-1].sqrt() > LIMIT else "fine"
""",
    "design": """
log_snr = {4: [2.9, 1, -0.7, -6.03], 5: [5, 2.5, 1, -1, -6.03], 8: [5, 3.2, 2, 1, 0.3, -0.6, -2.1, -6.03]}[CALLS]
design = [1.0, *torch.sigmoid(torch.tensor(log_snr, dtype=torch.float64)).tolist()]
""",
    "ruler": """
t_linear, t_cosine = ((10 * schedule.snr.log10() < LEVEL).nonzero()[0].item() for schedule in (linear(1000), cosine(1000)))
""",
    "broken": """
broken = {}
for letter, table in suspects.items():
    if table[0] != 1: broken[letter] = "start"
    elif table[-1] <= 0: broken[letter] = "zero"
    elif table[-1] ** 0.5 > 0.05: broken[letter] = "end"
""",
}
