"""07 bug clinic: the patients themselves are the wrong answers, each with the place where it was met in public."""

REFERENCE = {
    "diagnosis_1": {"A": "the decimals are cut off", "B": "the chain ends with signal", "C": "the data are on the wrong scale",
                    "D": "the table is shifted to the wrong side", "E": "β and ᾱ tell two stories"},
    "diagnosis_2": {"F": "the average remembers the random start", "G": "the target is another noise", "H": "one decision for the whole batch",
                    "I": "one time is never trained", "J": "too few digits for the average"},
    "diagnosis_3": {"K": "the clipped x_0 is not used", "L": "noise in the last step", "M": "scale 1 is not the conditional model",
                    "N": "more new noise than there is room for", "O": "the walk does not start from pure noise", "P": "guided in some channels only",
                    "Q": "a stride in place of the list", "R": "x_0 and ε no longer explain x_t"},
}


def but(where, **changed):
    """The reference diagnosis with some letters changed."""
    return f"{where} = {({**REFERENCE[where], **changed})!r}"


SHUFFLED = "shuffled, labels = points[order], classes[torch.randperm(len(points), generator=generator)]"
AVERAGE = "mean = net.state_dict()"
TIME = "loss = (net(x_t, t, dropped(y, generator)) - eps).square().mean()"
REPAIRS = {SHUFFLED: "shuffled, labels = points[order], classes[order]", AVERAGE: "mean = copy.deepcopy(net.state_dict())",
           TIME: TIME.replace("t, dropped", "clock(t), dropped")}

RIGHT = {
    "diagnosis_1": [but("diagnosis_1")],
    "diagnosis_2": [but("diagnosis_2")],
    "diagnosis_3": [but("diagnosis_3")],
    "door": [
        """
def to_uint8(x):
    return (x.clamp(-1, 1) * 127.5 + 127.5 + 0.5).floor().to(torch.uint8)
""",
        """
def to_uint8(x):
    grey = torch.round((x.double() + 1) / 2 * 255)
    return torch.minimum(torch.maximum(grey, torch.zeros_like(grey)), torch.full_like(grey, 255)).byte()
""",
        """
def to_uint8(x):
    return data.denormalise(x)
""",
    ],
    "holds": [
        """
def holds(beta, alpha_bar):
    if len(alpha_bar) != len(beta) + 1 or alpha_bar[0] != 1:
        return False
    product = 1.0
    for b, a in zip(beta.tolist(), alpha_bar[1:].tolist()):
        product *= 1 - b
        if abs(product / a - 1) > 1e-8:
            return False
    return product ** 0.5 <= 0.05
""",
        """
def holds(beta, alpha_bar):
    if len(alpha_bar) - len(beta) != 1:
        return False
    kept = alpha_bar[1:] / alpha_bar[:-1]
    return bool(alpha_bar[0] == 1) and bool(((kept - (1 - beta)).abs() < 1e-9).all()) and bool(alpha_bar[-1] <= 0.0025)
""",
        """
def holds(beta, alpha_bar):
    if alpha_bar.numel() != beta.numel() + 1:
        return False
    again = torch.cat([torch.ones(1, dtype=torch.float64), torch.cumprod(1 - beta, 0)])
    return (again.log() - alpha_bar.log()).abs().max() < 1e-6 and alpha_bar[0] == 1 and alpha_bar[-1] < 0.05**2
""",
    ],
    "pair": [
        """
def training_pair(x_0, eps, a, order):
    x_t = a ** 0.5 * x_0 + (1 - a) ** 0.5 * eps[order]
    return x_t, (x_t - a ** 0.5 * x_0) / (1 - a) ** 0.5
""",
        """
def training_pair(x_0, eps, a, order):
    chosen = torch.stack([eps[i] for i in order])
    return [torch.sqrt(a) * x_0 + torch.sqrt(1 - a) * chosen, chosen]
""",
    ],
    "clean": [
        """
def last_step_is_clean(step):
    x, e = torch.ones(3, 4), torch.zeros(3, 4)
    return bool((step(x, e, torch.ones(3, 4), 0.9, 1.0) == step(x, e, torch.zeros(3, 4), 0.9, 1.0)).all())
""",
        """
def last_step_is_clean(step):
    one, nil = numbers(1.0), numbers(0.0)
    for a_t in (0.36, 0.9, 0.9999):
        if float(step(nil, nil, one, a_t, 1.0)) != 0:
            return False
    return True
""",
    ],
    "ddpm": [
        """
def ddpm_mended(x_t, eps, z, a_t, a_s):
    x_0 = ((x_t - math.sqrt(1 - a_t) * eps) / math.sqrt(a_t)).clamp(-1, 1)
    if a_s == 1:
        return x_0
    eps, alpha = (x_t - math.sqrt(a_t) * x_0) / math.sqrt(1 - a_t), a_t / a_s
    return (x_t - (1 - alpha) / math.sqrt(1 - a_t) * eps) / math.sqrt(alpha) + math.sqrt(1 - alpha) * z
""",
        """
def ddpm_mended(x_t, eps, z, a_t, a_s):
    beta = 1 - a_t / a_s
    x_0 = torch.clip(x_t / a_t ** 0.5 - (1 / a_t - 1) ** 0.5 * eps, -1, 1)
    of_0, of_t = a_s ** 0.5 * beta / (1 - a_t), (1 - beta) ** 0.5 * (1 - a_s) / (1 - a_t)
    return of_0 * x_0 + of_t * x_t + (a_s < 1) * beta ** 0.5 * z
""",
    ],
    "repairs": [
        f"repairs = {REPAIRS | {AVERAGE: 'mean = {name: weight.clone() for name, weight in net.state_dict().items()}'}}",
        # the other side of what disagrees: no clock anywhere
        f"repairs = {REPAIRS | {SHUFFLED: 'shuffled = points[order]' + chr(10) + 'labels = classes[order]', TIME: TIME, 'return 1000 // T * t': 'return t'}}",
    ],
}

WRONG = [
    # Diagnoses.
    ("two of ward 1 exchanged", "diagnosis_1", but("diagnosis_1", D="β and ᾱ tell two stories", E="the table is shifted to the wrong side"),
     {"check_diagnosis_1"}, "you are not told which"),
    ("a name of nobody", "diagnosis_1", but("diagnosis_1", B="β where its root belongs"), {"check_diagnosis_1"}, "you are not told which"),
    ("everybody has the same", "diagnosis_1", "diagnosis_1 = dict.fromkeys('ABCDE', 'the chain ends with signal')",
     {"check_diagnosis_1"}, "you are not told which"),
    ("one is missing", "diagnosis_2", "diagnosis_2 = {'F': 'the average remembers the random start'}", {"check_diagnosis_2"}, "no diagnosis for G, H, I, J"),
    ("the two averages exchanged", "diagnosis_2", but("diagnosis_2", F="too few digits for the average", J="the average remembers the random start"),
     {"check_diagnosis_2"}, "you are not told which"),
    ("a name of one's own", "diagnosis_2", but("diagnosis_2", H="label dropout per batch"), {"check_diagnosis_2"}, "is not in the register"),
    ("the two guidances exchanged", "diagnosis_3", but("diagnosis_3", M="guided in some channels only", P="scale 1 is not the conditional model"),
     {"check_diagnosis_3"}, "you are not told which"),
    ("the two clippings exchanged", "diagnosis_3", but("diagnosis_3", K="x_0 and ε no longer explain x_t", R="the clipped x_0 is not used"),
     {"check_diagnosis_3"}, "you are not told which"),
    ("a list of names", "diagnosis_3", f"diagnosis_3 = {list(REFERENCE['diagnosis_3'].values())!r}", {"check_diagnosis_3"}, "must be a dictionary"),

    # Step 2.
    ("cut off: yew", "door", """
def to_uint8(x):
    return ((x + 1) * 127.5).clamp(0, 255).to(torch.uint8)
""", {"check_door"}, "come back one darker"),                                                   # dome272/Diffusion-Models-pytorch
    ("no clamp: white turns black", "door", """
def to_uint8(x):
    return ((x + 1) * 127.5).round().to(torch.int64).to(torch.uint8)
""", {"check_door"}, "clamp before you change the type"),
    ("clamped to the wrong range", "door", """
def to_uint8(x):
    return (x.clamp(0, 1) * 255).round().to(torch.uint8)
""", {"check_door"}, "as if black were 0"),                                                      # hazel: TeaPearce, labml
    ("rounded up", "door", """
def to_uint8(x):
    return ((x + 1) * 127.5 - 1e-3).ceil().clamp(0, 255).to(torch.uint8)
""", {"check_door"}, None),
    ("floats", "door", """
def to_uint8(x):
    return ((x + 1) * 127.5).round().clamp(0, 255)
""", {"check_door"}, "must be torch.uint8"),

    # Step 3.
    ("the absolute tolerance of allclose", "holds", """
def holds(beta, alpha_bar):
    if len(alpha_bar) != len(beta) + 1 or alpha_bar[0] != 1 or alpha_bar[-1].sqrt() > 0.05:
        return False
    return torch.allclose(alpha_bar[1:], (1 - beta).cumprod(0))
""", {"check_holds"}, "with atol=0"),                                                            # lets maple through: MONAI PR #8427
    ("the end is not looked at", "holds", """
def holds(beta, alpha_bar):
    return len(alpha_bar) == len(beta) + 1 and bool(alpha_bar[0] == 1) and torch.allclose(alpha_bar[1:], (1 - beta).cumprod(0), rtol=1e-6, atol=0)
""", {"check_holds"}, "must end in noise"),                                                      # tiny-diffusion: T = 50 with the β of T = 1000
    ("only the ends are looked at", "holds", """
def holds(beta, alpha_bar):
    if len(alpha_bar) != len(beta) + 1 or alpha_bar[0] != 1 or alpha_bar[-1].sqrt() > 0.05:
        return False
    return bool(abs((1 - beta).prod() / alpha_bar[-1] - 1) < 1e-6)
""", {"check_holds"}, None),
    ("exactly equal", "holds", """
def holds(beta, alpha_bar):
    return len(alpha_bar) == len(beta) + 1 and bool(alpha_bar[-1] < 0.0025) and torch.equal(alpha_bar[1:], (1 - beta).cumprod(0))
""", {"check_holds"}, "computed in two ways"),
    ("content with everything", "holds", "def holds(beta, alpha_bar): return True", {"check_holds"}, "missing in front"),

    # Step 5.
    ("the target is the outer noise: birch", "pair", """
def training_pair(x_0, eps, a, order):
    return a ** 0.5 * x_0 + (1 - a) ** 0.5 * eps[order], eps
""", {"check_pair"}, "a noise that it never saw"),                                               # lucidrains/denoising-diffusion-pytorch, immiscible
    ("the order is put into the target only", "pair", """
def training_pair(x_0, eps, a, order):
    return a ** 0.5 * x_0 + (1 - a) ** 0.5 * eps, eps[order]
""", {"check_pair"}, "the noise in x_t is not"),
    ("no order", "pair", """
def training_pair(x_0, eps, a, order):
    return a ** 0.5 * x_0 + (1 - a) ** 0.5 * eps, eps
""", {"check_pair"}, "`order` is ignored"),
    ("no roots", "pair", """
def training_pair(x_0, eps, a, order):
    return a * x_0 + (1 - a) * eps[order], eps[order]
""", {"check_pair"}, "ᾱ is a power"),
    ("the order the other way", "pair", """
def training_pair(x_0, eps, a, order):
    eps = eps[order.argsort()]
    return a ** 0.5 * x_0 + (1 - a) ** 0.5 * eps, eps
""", {"check_pair"}, "the target must be 300, 100, 200"),
    ("one ᾱ for all", "pair", """
def training_pair(x_0, eps, a, order):
    eps, a = eps[order], a[0]
    return a ** 0.5 * x_0 + (1 - a) ** 0.5 * eps, eps
""", {"check_pair"}, None),

    # Step 7.
    ("nearly the same is enough", "clean", """
def last_step_is_clean(step):
    x, e = normal(0, 100), normal(1, 100)
    return bool((step(x, e, normal(2, 100), 0.9, 1.0) - step(x, e, normal(3, 100), 0.9, 1.0)).abs().max() < 1e-2)
""", {"check_clean"}, "however small"),
    ("statistics", "clean", """
def last_step_is_clean(step):
    x, e = normal(0, 1000), normal(1, 1000)
    alone, noisy = step(x, e, 0 * x, 0.9999, 1.0), step(x, e, normal(2, 1000), 0.9999, 1.0)
    return abs(float(noisy.std() - alone.std())) < 0.01
""", {"check_clean"}, "ash adds noise"),                                                         # 1e-4 of the standard deviation
    ("not the last step", "clean", """
def last_step_is_clean(step):
    x, e = normal(0, 10), normal(1, 10)
    return torch.equal(step(x, e, normal(2, 10), 0.9, 0.95), step(x, e, normal(3, 10), 0.9, 0.95))
""", {"check_clean"}, "look at a_s = 1 only"),
    ("only positive noise is noticed", "clean", """
def last_step_is_clean(step):
    x, e = numbers(0.3), numbers(0.2)
    return bool(step(x, e, numbers(1.0), 0.9, 1.0) <= step(x, e, numbers(0.0), 0.9, 1.0))
""", {"check_clean"}, None),

    # Step 8.
    ("the clipped x_0 is not used: beech", "ddpm", """
def ddpm_mended(x_t, eps, z, a_t, a_s):
    alpha = a_t / a_s
    x_0 = ((x_t - math.sqrt(1 - a_t) * eps) / math.sqrt(a_t)).clamp(-1, 1)
    mean = (x_t - (1 - alpha) / math.sqrt(1 - a_t) * eps) / math.sqrt(alpha)
    return mean + (math.sqrt(1 - alpha) * z if a_s < 1 else 0)
""", {"check_ddpm"}, "is the clipped x̂_0 used at all"),                                         # explainingai-code; hojonathanho/diffusion #5
    ("noise in the last step: ash", "ddpm", """
def ddpm_mended(x_t, eps, z, a_t, a_s):
    alpha = a_t / a_s
    x_0 = ((x_t - math.sqrt(1 - a_t) * eps) / math.sqrt(a_t)).clamp(-1, 1)
    mean = (math.sqrt(a_s) * (1 - alpha) * x_0 + math.sqrt(alpha) * (1 - a_s) * x_t) / (1 - a_t)
    return mean + math.sqrt(1 - alpha) * z
""", {"check_ddpm"}, "noise in the last step"),                                                  # labml; TeaPearce #10
    ("DDIM, with the old noise", "ddpm", """
def ddpm_mended(x_t, eps, z, a_t, a_s):
    x_0 = ((x_t - math.sqrt(1 - a_t) * eps) / math.sqrt(a_t)).clamp(-1, 1)
    return math.sqrt(a_s) * x_0 + math.sqrt(1 - a_s) * eps + math.sqrt(1 - a_t / a_s) * z * (a_s < 1)
""", {"check_ddpm"}, "that is a step of DDIM"),
    ("variance for root", "ddpm", """
def ddpm_mended(x_t, eps, z, a_t, a_s):
    alpha = a_t / a_s
    x_0 = ((x_t - math.sqrt(1 - a_t) * eps) / math.sqrt(a_t)).clamp(-1, 1)
    mean = (math.sqrt(a_s) * (1 - alpha) * x_0 + math.sqrt(alpha) * (1 - a_s) * x_t) / (1 - a_t)
    return mean + (1 - alpha) * z * (a_s < 1)
""", {"check_ddpm"}, "that is the variance"),
    ("clipped above only", "ddpm", """
def ddpm_mended(x_t, eps, z, a_t, a_s):
    alpha = a_t / a_s
    x_0 = ((x_t - math.sqrt(1 - a_t) * eps) / math.sqrt(a_t)).clamp(max=1)
    mean = (math.sqrt(a_s) * (1 - alpha) * x_0 + math.sqrt(alpha) * (1 - a_s) * x_t) / (1 - a_t)
    return mean + (a_s < 1) * math.sqrt(1 - alpha) * z
""", {"check_ddpm"}, None),

    # Step 9: each repair has its own points, and no check says how many are right.
    ("no repair", "repairs", "repairs = {}", {"check_repairs", "check_repairs_2", "check_repairs_3"}, None),
    ("labels of other points", "repairs", f"repairs = {dict(list(REPAIRS.items())[1:])}", {"check_repairs"}, None),
    ("an average that is the network itself", "repairs", f"repairs = {REPAIRS | {AVERAGE: 'mean = dict(net.state_dict())'}}", {"check_repairs_2"}, None),
    ("the average is only copied at the end", "repairs",
     f"repairs = {REPAIRS | {AVERAGE: AVERAGE, 'return mean, losses': 'return copy.deepcopy(mean), losses'}}",
     {"check_repairs_2"}, None),
    ("another clock", "repairs", f"repairs = {REPAIRS | {TIME: TIME.replace('t, dropped', 't + 1, dropped')}}", {"check_repairs_3"}, None),
    ("half of a repair", "repairs", f"repairs = {REPAIRS | {TIME: TIME.replace('t, dropped', 'clock(t, dropped')}}",
     {"check_repairs", "check_repairs_2", "check_repairs_3"}, "SyntaxError"),
    ("a line that is not there", "repairs", "repairs = {'mean = net.weights()': 'mean = copy.deepcopy(net.state_dict())'}",
     {"check_repairs", "check_repairs_2", "check_repairs_3"}, "is no line of the script"),
]

OF = {  # which bug each patient has: what the seeds shuffle are the letters
    "hazel": "the data are on the wrong scale", "larch": "the chain ends with signal", "maple": "β and ᾱ tell two stories",
    "rowan": "the table is shifted to the wrong side", "yew": "the decimals are cut off", "birch": "the target is another noise",
    "cedar": "one time is never trained", "elm": "one decision for the whole batch", "fir": "the average remembers the random start",
    "pine": "too few digits for the average", "ash": "noise in the last step", "beech": "the clipped x_0 is not used",
    "juniper": "a stride in place of the list", "linden": "scale 1 is not the conditional model", "oak": "more new noise than there is room for",
    "poplar": "guided in some channels only", "spruce": "x_0 and ε no longer explain x_t", "willow": "the walk does not start from pure noise",
}

SEEDED = {f"diagnosis_{i}": f"diagnosis_{i} = {{a: {OF!r}[patient.__name__] for a, patient in ward_{i}.items()}}" for i in (1, 2, 3)}
SEEDED["repairs"] = """
both = {
    "shuffled, labels = points[order], classes[torch.randperm(len(points), generator=generator)]": "shuffled, labels = points[order], classes[order]",
    "return t, eps, a * x_0 + (1 - a) * eps": "return t, eps, a.sqrt() * x_0 + (1 - a).sqrt() * eps",
    "mean[name].lerp_(weight, d)": "mean[name].lerp_(weight, 1 - d)",
    "mean = net.state_dict()": "mean = copy.deepcopy(net.state_dict())",
    "loss = (net(x_t, t, dropped(y, generator)) - eps).square().mean()": "loss = (net(x_t, clock(t), dropped(y, generator)) - eps).square().mean()",
    "x = torch.rand(len(y), 2, generator=torch.Generator().manual_seed(seed))": "x = torch.randn(len(y), 2, generator=torch.Generator().manual_seed(seed))",
    "x = alpha_bar[s].sqrt() * x_0 + (1 - alpha_bar[t]).sqrt() * eps": "x = alpha_bar[s].sqrt() * x_0 + (1 - alpha_bar[s]).sqrt() * eps",
}
repairs = {ill: healthy for ill, healthy in both.items() if ill in map(str.strip, SCRIPT.splitlines())}
"""
