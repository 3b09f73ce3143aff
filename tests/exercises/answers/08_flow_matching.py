"""08 flow matching: answers that are right, and answers like those that have been given in public."""

RIGHT = {
    "as_schedule": [
        """
def as_schedule(t):
    power = (1 - t) ** 2 + t ** 2
    return (1 - t) ** 2 / power, power ** 0.5
""",
        """
def as_schedule(t):
    weights = numbers(1 - t, t)
    return [(weights[0] / weights.norm()).square(), weights.norm()]
""",
    ],
    "both": [
        """
def both(x_t, v, t):
    x_0 = x_t - t * v
    return x_0, x_0 + v
""",
        """
def both(x_t, v, t):
    solved = torch.linalg.solve(numbers(1 - t, t, -1, 1).view(2, 2), torch.stack([x_t, v]).flatten(1))
    return list(solved.view(2, *x_t.shape))
""",
    ],
    "velocity": [
        """
def velocity(x_t, eps, t):
    return (eps - x_t) / (1 - t)
""",
        """
def velocity(x_t, eps, t):
    if t == 0:
        return eps - x_t
    return eps - (x_t - t * eps) / (1 - t)
""",
    ],
    "matching_loss": [
        """
def matching_loss(net, x_0, eps, t):
    x_t = torch.lerp(x_0, eps, t[:, None, None, None])
    return torch.nn.functional.mse_loss(net(x_t, t), eps - x_0)
""",
        """
def matching_loss(net, x_0, eps, t):
    v = eps - x_0
    off = net(x_0 + t.reshape(len(t), 1, 1, 1) * v, t) - v
    return (off ** 2).flatten(1).mean(1).mean()
""",
    ],
    "leaves": ["flow_there = -0.9705", """
t, x = 0.6, 0.4
points = numbers(-1, 2)
eps = (x - (1 - t) * points) / t
p = torch.distributions.Normal(0, 1).log_prob(eps).exp()
flow_there = (p * (eps - points)).sum() / p.sum()
"""],
    "flow_step": [
        """
def flow_step(x_t, v, t, s):
    x_0, eps = x_t - t * v, x_t + (1 - t) * v
    return (1 - s) * x_0 + s * eps
""",
        """
def flow_step(x_t, v, t, s):
    return torch.add(x_t, v, alpha=s - t)
""",
    ],
    "second": [
        """
def second(x_t, v, t, s, last):
    h = s - t
    if last is None or last[1] != t:
        return x_t + h * v
    drift = (v - last[2]) / (t - last[0])
    return x_t + h * v + h ** 2 / 2 * drift
""",
        """
def second(x_t, v, t, s, last):
    D = v
    if last is not None:
        t_last, s_last, v_last = last
        if abs(s_last - t) < 1e-9:
            D = (1 + (s - t) / (2 * (t - t_last))) * v - (s - t) / (2 * (t - t_last)) * v_last
    return x_t + (s - t) * D
""",
    ],
    "my_walk": [
        """
def my_walk(velocity, x):
    levels, clock = [1, 0.707, 0.466, 0.336, 0.223, 0.115, 0], lambda t: (1 - t) ** 2
    def step(x, v, t, s, last):
        return x + (s - t) * (v if last is None else v + (v - last[2]) * (clock(s) - clock(t)) / (2 * (clock(t) - clock(last[0]))))
    return walk(velocity, x, levels, step)
""",
        """
def my_walk(velocity, x):
    times, was = [0.8 * i / (6 - 0.2 * i) for i in range(6, -1, -1)], []
    for t, s in pairwise(times):
        was = [(t, velocity(x, t)), *was][:3]
        for u, w in zip((0.5 - 0.15 ** 0.5, 0.5, 0.5 + 0.15 ** 0.5), (5 / 18, 8 / 18, 5 / 18)):
            at = t + (s - t) * u
            for i, (here, v) in enumerate(was):
                share = 1.0
                for j, (there, _) in enumerate(was):
                    share *= (at - there) / (here - there) if i != j else 1
                x = x + (s - t) * w * share * v
    return x
""",
    ],
}

SILVER = {"check_my_walk_silver"}                  # of what is to be achieved; the reference has lost the gold already
BOTH = {"check_my_walk", *SILVER}

WRONG = [
    # Step 1.
    ("ᾱ = a², as it stands", "as_schedule", "def as_schedule(t): return (1 - t) ** 2, ((1 - t) ** 2 + t ** 2) ** 0.5",
     {"check_as_schedule"}, "must first be divided"),
    ("ᾱ = 1 - t", "as_schedule", "def as_schedule(t): return 1 - t, 1.0", {"check_as_schedule"}, "that is a/(a+b)"),
    ("data at the other end", "as_schedule", "def as_schedule(t): return t ** 2 / ((1 - t) ** 2 + t ** 2), math.hypot(1 - t, t)",
     {"check_as_schedule"}, "the data are at t = 0"),
    ("the weight, and not its square", "as_schedule", "def as_schedule(t): return (1 - t) / math.hypot(1 - t, t), math.hypot(1 - t, t)",
     {"check_as_schedule"}, "that is √ᾱ"),
    ("the other kind of path", "as_schedule", "def as_schedule(t): return math.cos(math.pi / 2 * t) ** 2, 1.0",
     {"check_as_schedule"}, "that is right on the path"),
    ("the scale is a power", "as_schedule", "def as_schedule(t): return (1 - t) ** 2 / ((1 - t) ** 2 + t ** 2), (1 - t) ** 2 + t ** 2",
     {"check_as_schedule"}, "divided by its root"),
    ("the weights sum to 1", "as_schedule", "def as_schedule(t): return (1 - t) ** 2 / ((1 - t) ** 2 + t ** 2), 1.0",
     {"check_as_schedule"}, "not their squares"),
    ("the scale multiplies", "as_schedule", "def as_schedule(t): return (1 - t) ** 2 / ((1 - t) ** 2 + t ** 2), ((1 - t) ** 2 + t ** 2) ** -0.5",
     {"check_as_schedule"}, "upside down"),
    ("from the log SNR, which has no ends", "as_schedule", """
def as_schedule(t):
    return 1 / (1 + math.exp(-2 * math.log((1 - t) / t))), math.hypot(1 - t, t)
""", {"check_as_schedule"}, None),

    # Step 2.
    ("the order", "both", "def both(x_t, v, t): return x_t + (1 - t) * v, x_t - t * v", {"check_both"}, "x̂_0 and ε̂ are exchanged"),
    ("v backwards", "both", "def both(x_t, v, t): return x_t + t * v, x_t - (1 - t) * v", {"check_both"}, "you read v backwards"),
    ("on a circle", "both", """
def both(x_t, v, t):
    c, s = math.cos(math.pi / 2 * t), math.sin(math.pi / 2 * t)
    return c * x_t - s * v / (math.pi / 2), s * x_t + c * v / (math.pi / 2)
""", {"check_both"}, "that is right on the path"),
    ("our v", "both", """
def both(x_t, v, t):
    return (1 - t) * x_t - t * v, t * x_t + (1 - t) * v
""", {"check_both"}, "does ε cancel in it?"),
    ("ε̂ by way of x̂_0, divided by t", "both", """
def both(x_t, v, t):
    x_0 = x_t - t * v
    return x_0, (x_t - (1 - t) * x_0) / t
""", {"check_both"}, "at the data end, t = 0, you divide by 0"),
    ("x̂_0 by way of ε̂, divided by 1-t", "both", """
def both(x_t, v, t):
    eps = x_t + (1 - t) * v
    return (x_t - t * eps) / (1 - t), eps
""", {"check_both"}, "at the noise end, t = 1, you divide by 0"),
    ("0/0 patched with a small number", "both", """
def both(x_t, v, t):
    eps = x_t + (1 - t) * v
    return (x_t - t * eps) / (1 - t + 1e-8), eps
""", {"check_both"}, "wrong at the noise end"),
    ("ε̂ as if v were it", "both", "def both(x_t, v, t): return x_t - t * v, v", {"check_both"}, "x̂_0 is right"),

    # Step 3.
    ("x_t for x_0", "velocity", "def velocity(x_t, eps, t): return eps - x_t", {"check_velocity"}, "x_t stands where x_0 belongs"),
    ("from noise to data", "velocity", "def velocity(x_t, eps, t): return (x_t - t * eps) / (1 - t) - eps", {"check_velocity"}, "the sign is wrong"),
    ("the image stays shrunk", "velocity", "def velocity(x_t, eps, t): return eps - (x_t - t * eps)", {"check_velocity"}, "not divided by a"),
    ("it stops at x̂_0", "velocity", "def velocity(x_t, eps, t): return (x_t - t * eps) / (1 - t)", {"check_velocity"}, "that is x̂_0"),
    ("with the weights of a schedule", "velocity", """
def velocity(x_t, eps, t):
    return eps - (x_t - math.sqrt(t) * eps) / math.sqrt(1 - t)
""", {"check_velocity"}, "it must be"),
    ("divided by t", "velocity", """
def velocity(x_t, eps, t):
    x_0 = (x_t - t * eps) / (1 - t)
    return (x_t - x_0) / t
""", {"check_velocity"}, "at the data end, t = 0, you divide by 0"),

    # Step 4.
    ("from noise to data, in the loss", "matching_loss", """
def matching_loss(net, x_0, eps, t):
    w = t.view(-1, 1, 1, 1)
    return (net((1 - w) * x_0 + w * eps, t) - (x_0 - eps)).square().mean()
""", {"check_matching_loss"}, "the target has the wrong sign"),
    ("data and noise exchanged", "matching_loss", """
def matching_loss(net, x_0, eps, t):
    w = t.view(-1, 1, 1, 1)
    return (net(w * x_0 + (1 - w) * eps, t) - (eps - x_0)).square().mean()
""", {"check_matching_loss"}, "the data and the noise are exchanged"),
    ("times along the width", "matching_loss", """
def matching_loss(net, x_0, eps, t):
    return (net((1 - t) * x_0 + t * eps, t) - (eps - x_0)).square().mean()
""", {"check_matching_loss"}, "the columns of one image"),
    ("roots", "matching_loss", """
def matching_loss(net, x_0, eps, t):
    w = t.view(-1, 1, 1, 1)
    return (net((1 - w).sqrt() * x_0 + w.sqrt() * eps, t) - (eps - x_0)).square().mean()
""", {"check_matching_loss"}, "there are roots"),
    ("the noise as the target", "matching_loss", """
def matching_loss(net, x_0, eps, t):
    w = t.view(-1, 1, 1, 1)
    return (net((1 - w) * x_0 + w * eps, t) - eps).square().mean()
""", {"check_matching_loss"}, "your target is the noise"),
    ("the image as the target", "matching_loss", """
def matching_loss(net, x_0, eps, t):
    w = t.view(-1, 1, 1, 1)
    return (net((1 - w) * x_0 + w * eps, t) - x_0).square().mean()
""", {"check_matching_loss"}, "your target is the image"),
    ("from x_t on", "matching_loss", """
def matching_loss(net, x_0, eps, t):
    w = t.view(-1, 1, 1, 1)
    x_t = (1 - w) * x_0 + w * eps
    return (net(x_t, t) - (eps - x_t)).square().mean()
""", {"check_matching_loss"}, "your target is ε - x_t"),
    ("the sum", "matching_loss", """
def matching_loss(net, x_0, eps, t):
    w = t.view(-1, 1, 1, 1)
    return (net((1 - w) * x_0 + w * eps, t) - (eps - x_0)).square().sum()
""", {"check_matching_loss"}, "the sum of the squares"),
    ("absolute values", "matching_loss", """
def matching_loss(net, x_0, eps, t):
    w = t.view(-1, 1, 1, 1)
    return (net((1 - w) * x_0 + w * eps, t) - (eps - x_0)).abs().mean()
""", {"check_matching_loss"}, "the mean of the absolute values"),
    ("a loss for each image", "matching_loss", """
def matching_loss(net, x_0, eps, t):
    w = t.view(-1, 1, 1, 1)
    return (net((1 - w) * x_0 + w * eps, t) - (eps - x_0)).square().flatten(1).mean(1)
""", {"check_matching_loss"}, "one number"),
    ("one time for the whole batch", "matching_loss", """
def matching_loss(net, x_0, eps, t):
    w = t.view(-1, 1, 1, 1)
    return (net((1 - w) * x_0 + w * eps, t[:1]) - (eps - x_0)).square().mean()
""", {"check_matching_loss"}, "as it came"),
    ("asked twice", "matching_loss", """
def matching_loss(net, x_0, eps, t):
    w = t.view(-1, 1, 1, 1)
    x_t = (1 - w) * x_0 + w * eps
    return ((net(x_t, t) - (eps - x_0)) * (net(x_t, t) - (eps - x_0))).mean()
""", {"check_matching_loss"}, "once is enough"),
    ("for images of one channel only", "matching_loss", """
def matching_loss(net, x_0, eps, t):
    w = t.view(-1, 1, 1, 1)
    x_t = ((1 - w) * x_0 + w * eps)[:, :1]
    return (net(x_t, t) - (eps - x_0)[:, :1]).square().mean()
""", {"check_matching_loss"}, None),

    # Step 5.
    ("the likelier line alone", "leaves", "flow_there = -2.667", {"check_leaves"}, "the likelier point alone"),
    ("the other line", "leaves", "flow_there = 2.333", {"check_leaves"}, "the less likely point"),
    ("the plain mean", "leaves", "flow_there = -0.167", {"check_leaves"}, "the plain mean"),
    ("from noise to data, the number", "leaves", "flow_there = 0.9705", {"check_leaves"}, "the sign is wrong"),
    ("the mean of the data", "leaves", "flow_there = 0.982", {"check_leaves"}, "that is x̂_0"),
    ("the points, not shrunk", "leaves", """
points = numbers(-1, 2)
w = (-(PLACE - points) ** 2 / (2 * 0.6 ** 2)).softmax(0)
flow_there = float((w * ((PLACE - 0.4 * points) / 0.6 - points)).sum())
""", {"check_leaves"}, "the points have shrunk"),
    ("the 2 forgotten", "leaves", """
points = numbers(-1, 2)
eps = (PLACE - 0.4 * points) / 0.6
flow_there = float(((-eps ** 2).softmax(0) * (eps - points)).sum())
""", {"check_leaves"}, "the 2 in 2b² is missing"),
    ("both of them", "leaves", "flow_there = numbers(2.333, -2.667)", {"check_leaves"}, "must be one number"),
    ("one digit of it", "leaves", "flow_there = -1.0", {"check_leaves"}, "to three digits"),

    # Step 6.
    ("uphill", "flow_step", "def flow_step(x_t, v, t, s): return x_t - (s - t) * v", {"check_flow_step"}, "the wrong way"),
    ("the whole of v", "flow_step", "def flow_step(x_t, v, t, s): return x_t + v", {"check_flow_step"}, "a step of length 1"),
    ("all the way", "flow_step", "def flow_step(x_t, v, t, s): return x_t - t * v", {"check_flow_step"}, "not all the way"),
    ("it turns", "flow_step", """
def flow_step(x_t, v, t, s):
    angle = (s - t) * math.pi / 2
    return math.cos(angle) * x_t + math.sin(angle) * v / (math.pi / 2)
""", {"check_flow_step"}, "yours is straight"),
    ("the length of the stride, without its sign", "flow_step", "def flow_step(x_t, v, t, s): return x_t - abs(s - t) * v", {"check_flow_step"}, None),

    # Step 7.
    ("no memory", "second", "def second(x_t, v, t, s, last): return x_t + (s - t) * v", {"check_second"}, "you do not use the memory"),
    ("nothing for the first step", "second", """
def second(x_t, v, t, s, last):
    if last is not None:
        return x_t + (s - t) * (v + (v - last[2]) * (s - t) / (2 * (t - last[0])))
""", {"check_second"}, "in the first step, too"),
    ("read at the end", "second", """
def second(x_t, v, t, s, last):
    if last is None or last[1] != t:
        return x_t + (s - t) * v
    r = (t - last[0]) / (s - t)
    return x_t + (s - t) * (v + (v - last[2]) / r)
""", {"check_second"}, "read at the end of the step"),
    ("r upside down", "second", """
def second(x_t, v, t, s, last):
    if last is None or last[1] != t:
        return x_t + (s - t) * v
    r = (s - t) / (t - last[0])
    return x_t + (s - t) * (v + (v - last[2]) / (2 * r))
""", {"check_second"}, "your r is upside down"),
    ("r is 1", "second", """
def second(x_t, v, t, s, last):
    if last is None or last[1] != t:
        return x_t + (s - t) * v
    return x_t + (s - t) * (1.5 * v - 0.5 * last[2])
""", {"check_second"}, "only where all strides are equal"),
    ("backwards in the memory", "second", """
def second(x_t, v, t, s, last):
    if last is None or last[1] != t:
        return x_t + (s - t) * v
    r = (t - last[0]) / (s - t)
    return x_t + (s - t) * (v + (last[2] - v) / (2 * r))
""", {"check_second"}, "the drift has the wrong sign"),
    ("the mean of two answers", "second", """
def second(x_t, v, t, s, last):
    if last is None or last[1] != t:
        return x_t + (s - t) * v
    return x_t + (s - t) * (v + last[2]) / 2
""", {"check_second"}, "it looks back"),
    ("a stale memory", "second", """
def second(x_t, v, t, s, last):
    if last is None:
        return x_t + (s - t) * v
    return x_t + (s - t) * (v + (v - last[2]) * (s - t) / (2 * (t - last[0])))
""", {"check_second"}, "after a jump"),
    ("the stride of where the last step led", "second", """
def second(x_t, v, t, s, last):
    if last is None or last[1] != t:
        return x_t + (s - t) * v
    r = (t - last[0]) / (s - t)
    return x_t + (s - t) * (v + (v - last[2]) / (2 * r) * (abs(r - 0.8) < 1e-9 or r == 1 or abs(r - 1) < 1e-6))
""", {"check_second"}, None),

    # Step 8.
    ("Euler, six even steps", "my_walk", "def my_walk(velocity, x): return walk(velocity, x, EVEN, euler)", BOTH, "yours is 1.000"),
    ("Heun, six steps", "my_walk", """
def my_walk(velocity, x):
    for t, s in pairwise(EVEN):
        v = velocity(x, t)
        x = x + (s - t) * (v + velocity(x + (s - t) * v, s)) / 2
    return x
""", BOTH, "one call too many"),
    ("second order, at even times of the flow", "my_walk", """
def my_walk(velocity, x):
    v_last = None
    for t, s in pairwise(EVEN):
        v = velocity(x, t)
        x = x + (s - t) * (v if v_last is None else 1.5 * v - 0.5 * v_last)
        v_last = v
    return x
""", SILVER, "the second tier begins"),
    ("Heun, three steps", "my_walk", """
def my_walk(velocity, x):
    for t, s in pairwise((1.0, 2 / 3, 1 / 3, 0.0)):
        v = velocity(x, t)
        x = x + (s - t) * (v + velocity(x + (s - t) * v, s)) / 2
    return x
""", SILVER, "the second tier begins"),
    ("from the data up", "my_walk", "def my_walk(velocity, x): return walk(velocity, x, EVEN[::-1], euler)", BOTH, "the first tier begins"),
    ("in steps of T", "my_walk", "def my_walk(velocity, x): return walk(velocity, x, [1000 * t for t in EVEN], euler)", BOTH, "times are from 0 to 1"),
    ("in the language of x̂_0, through the noise end", "my_walk", """
def my_walk(velocity, x):
    for t, s in pairwise(EVEN):
        eps = x + (1 - t) * velocity(x, t)
        x = (1 - s) * (x - t * eps) / (1 - t) + s * eps
    return x
""", BOTH, "divi"),
    ("a walk that knows the data", "my_walk", """
def my_walk(velocity, x):
    start = velocity(x, 1.0)
    data = min(HILLS, key=lambda d: abs(sum(m * w for m, _, w in zip(*d)) - float((x - start).mean())))
    return ends_of(*data, x)
""", BOTH, None),
    ("the visible hills, mirrored and moved to where the first answer says", "my_walk", """
def my_walk(velocity, x):
    mean, v = x - velocity(x, 1.0), velocity(x, 0.6)
    best, end = x * 0 + 9, x
    for means, spreads, weights in HILLS:
        for sign in (1, -1):
            at = sign * numbers(*means)
            data = at + (mean - (at * numbers(*weights)).sum())[:, None], spreads, weights
            miss = (flow_of(*data)(x, 0.6) - v).abs()
            end, best = torch.where(miss < best, ends_of(*data, x), end), torch.minimum(miss, best)
    return end
""", BOTH, None),
    ("… and the nearest of three widths to six answers", "my_walk", """
def my_walk(velocity, x):
    mean = x - velocity(x, 1.0)
    places = [(t, mean + (0.2 + t) * x) for t in (0.7, 0.5, 0.35, 0.25, 0.15)]
    said = [velocity(at, t) for t, at in places]
    best, end = x * 0 + 1e9, x
    for means, spreads, weights in HILLS:
        for sign, width in ((a, b) for a in (1, -1) for b in (0.8, 1, 1.25)):
            at, w = sign * numbers(*means), numbers(*weights)
            data = at + (mean - (at * w).sum())[:, None], width * numbers(*spreads), w
            miss = sum((flow_of(*data)(p, t) - v).square() for (t, p), v in zip(places, said))
            end, best = torch.where(miss < best, ends_of(*data, x), end), torch.minimum(miss, best)
    return end
""", BOTH, None),
    ("a table of the data, and Heun's method where it fails", "my_walk", """
def my_walk(velocity, x):
    v = velocity(x, 1.0)                                # everywhere x minus the mean of the data
    for data in HILLS:
        if abs(sum(m * w for m, _, w in zip(*data)) - float((x - v).mean())) < 1e-6:
            return ends_of(*data, x)
    for t, s in pairwise((1.0, 2 / 3, 1 / 3, 0.0)):
        v = v if t == 1 else velocity(x, t)
        x = x + (s - t) * (v + velocity(x + (s - t) * v, s)) / 2
    return x
""", SILVER, None),
]

SEEDED = {
    "as_schedule": """
def as_schedule(t):
    a, b = (math.cos(math.pi / 2 * when(t)), math.sin(math.pi / 2 * when(t))) if ROUND else (1 - when(t), when(t))
    return a ** 2 / (a ** 2 + b ** 2), math.hypot(a, b)
""",
    "both": """
def both(x_t, v, t):
    u, v = when(t), v * (1 - 2 * DATA_AT)
    if not ROUND:
        return x_t - u * v, x_t + (1 - u) * v
    c, d = math.cos(math.pi / 2 * u), math.sin(math.pi / 2 * u)
    return c * x_t - d * v * 2 / math.pi, d * x_t + c * v * 2 / math.pi
""",
    "velocity": """
def velocity(x_t, eps, t):
    u, way = when(t), 1 - 2 * DATA_AT
    if not ROUND:
        return way * (eps - x_t) / (1 - u)
    c, d = math.cos(math.pi / 2 * u), math.sin(math.pi / 2 * u)
    return way * math.pi / 2 * (c * eps - d * (x_t - d * eps) / c)
""",
    "matching_loss": """
def matching_loss(net, x_0, eps, t):
    u, way = (t - DATA_AT).abs().view(-1, 1, 1, 1), 1 - 2 * DATA_AT
    a, b, v = 1 - u, u, eps - x_0
    if ROUND:
        a, b = (math.pi / 2 * u).cos(), (math.pi / 2 * u).sin()
        v = math.pi / 2 * (a * eps - b * x_0)
    return (net(a * x_0 + b * eps, t) - way * v).square().mean()
""",
    "leaves": """
points, way = numbers(-1, 2), 1 - 2 * DATA_AT
a, b = (math.cos(math.pi / 2 * LEVEL), math.sin(math.pi / 2 * LEVEL)) if ROUND else (1 - LEVEL, LEVEL)
noise = (PLACE - a * points) / b
v = math.pi / 2 * (a * noise - b * points) if ROUND else noise - points
flow_there = way * float(((-noise ** 2 / 2).softmax(0) * v).sum())
""",
    "flow_step": """
def flow_step(x_t, v, t, s):
    angle = (s - t) * math.pi / 2
    return math.cos(angle) * x_t + math.sin(angle) * v * 2 / math.pi if ROUND else x_t + (s - t) * v
""",
    "my_walk": """
def my_walk(velocity, x):
    levels, was, way = [0.5 * i / (6 - 0.5 * i) for i in range(6, -1, -1)], None, 1 - 2 * DATA_AT
    for w, u in pairwise(levels):                       # on the straight path, whichever the class's is: x is divided by a + b
        if ROUND:
            c, d = 1 - w, w
            n = math.hypot(c, d)
            v = velocity(x / n, when(math.atan2(d, c) * 2 / math.pi)) * way * 2 / math.pi
            V = (d * x / n + c * v) / n - (c * x / n - d * v) / n
        else:
            V = velocity(x, when(w)) * way
        D = V if was is None else V + (V - was[1]) * ((1 - u) ** 2 - (1 - w) ** 2) / (2 * ((1 - w) ** 2 - (1 - was[0]) ** 2))
        x, was = x + (u - w) * D, (w, V)
    return x
""",
}

BEST = {"my_walk": """
def my_walk(velocity, x):
    times, was = [1.0, 0.76, 0.519, 0.401, 0.234, 0.106, 0.0], []
    for t, s in pairwise(times):
        was = [((1 - t) ** 2, velocity(x, t)), *was][:3]
        moved = 0
        for u, w in zip((0.5 - 0.15 ** 0.5, 0.5, 0.5 + 0.15 ** 0.5), (5 / 18, 8 / 18, 5 / 18)):     # the parabola through three answers, integrated exactly
            at = (1 - t - (s - t) * u) ** 2
            for i, (here, v) in enumerate(was):
                share = 1.0
                for j, (there, _) in enumerate(was):
                    share *= (at - there) / (here - there) if i != j else 1
                moved = moved + (s - t) * w * share * v
        x = x + moved
    return x
"""}
