"""03 closed form and posterior: answers that are right, and answers like those that have been given in public."""

from levels import told

RIGHT = {
    "one_step": [
        """
def one_step(x, beta, z):
    return (1 - beta) ** 0.5 * x + beta ** 0.5 * z
""",
        """
def one_step(x, beta, z):
    out = torch.empty_like(x)
    for i, (a, b) in enumerate(zip(x.flatten().tolist(), z.flatten().tolist())):
        out.view(-1)[i] = math.sqrt(1 - beta) * a + math.sqrt(beta) * b
    return out
""",
    ],
    "noisy": [
        """
def noisy(x_0, eps, alpha_bar):
    return torch.stack([a ** 0.5 * x + (1 - a) ** 0.5 * e for x, e, a in zip(x_0, eps, alpha_bar.tolist())])
""",
        """
def noisy(x_0, eps, alpha_bar):
    return torch.einsum("b,bchw->bchw", alpha_bar.sqrt(), x_0) + torch.einsum("b,bchw->bchw", (1 - alpha_bar).sqrt(), eps)
""",
        """
def noisy(x_0, eps, alpha_bar):
    a = alpha_bar[:, None, None, None].expand_as(x_0)
    return torch.sqrt(a) * x_0 + torch.sqrt(1 - a) * eps
""",
    ],
    "x0_from": [
        """
def x0_from(x_t, eps, alpha_bar):
    return x_t / alpha_bar ** 0.5 - (1 / alpha_bar - 1) ** 0.5 * eps
""",
        """
def x0_from(x_t, eps, alpha_bar):
    a = torch.tensor(alpha_bar, dtype=torch.float64)
    return torch.sub(x_t, eps, alpha=float((1 - a).sqrt())).div(a.sqrt())
""",
    ],
    "eps_from_v": [
        """
def eps_from_v(x_t, v, alpha_bar):
    x_0 = alpha_bar ** 0.5 * x_t - (1 - alpha_bar) ** 0.5 * v
    return (x_t - alpha_bar ** 0.5 * x_0) / (1 - alpha_bar) ** 0.5
""",
        """
def eps_from_v(x_t, v, alpha_bar):
    angle = math.acos(alpha_bar ** 0.5)
    return math.sin(angle) * x_t + math.cos(angle) * v
""",
    ],
    "jump": [
        "weight = (linear(1000).alpha_bar[T_ASKED] / linear(1000).alpha_bar[S_ASKED]).sqrt()",
        "weight = 0.3872",
        """
T = 1000                                                        # the letters of the notebooks: T and S are the student's to take
S, schedule = 250, linear(T)
weight = float((schedule.alpha_bar[500] / schedule.alpha_bar[S]).sqrt())
""",
    ],
    "posterior_on": [
        """
def posterior_on(grid, x_t, x_0, a_s, a_t):
    alpha = a_t / a_s
    log = -(x_t - alpha ** 0.5 * grid) ** 2 / (2 * (1 - alpha)) - (grid - a_s ** 0.5 * x_0) ** 2 / (2 * (1 - a_s))
    p = torch.exp(log - log.max())
    return p / torch.trapezoid(p, grid)
""",
        """
def posterior_on(grid, x_t, x_0, a_s, a_t):
    def bell(x, mean, var):
        return math.exp(-(x - mean) ** 2 / (2 * var)) / math.sqrt(2 * math.pi * var)
    alpha = a_t / a_s
    p = [bell(x_t, math.sqrt(alpha) * x, 1 - alpha) * bell(x, math.sqrt(a_s) * x_0, 1 - a_s) for x in grid.tolist()]
    area = sum(p) * (grid[1] - grid[0]).item()
    return torch.tensor([v / area for v in p], dtype=torch.float64)
""",
    ],
    "posterior": [
        """
def posterior(x_t, x_0, a_s, a_t):
    beta = 1 - a_t / a_s
    c_0 = a_s ** 0.5 * beta / (1 - a_t)
    c_t = (a_t / a_s) ** 0.5 * (1 - a_s) / (1 - a_t)
    return c_0 * x_0 + c_t * x_t, torch.tensor(beta * (1 - a_s) / (1 - a_t))
""",
        """
def posterior(x_t, x_0, a_s, a_t):
    if a_s == 1:
        return x_0, 0.0
    alpha = a_t / a_s
    precision = alpha / (1 - alpha) + 1 / (1 - a_s)
    return [(alpha ** 0.5 / (1 - alpha) * x_t + a_s ** 0.5 / (1 - a_s) * x_0) / precision, 1 / precision]
""",
    ],
    "unsure": ["beta_tilde = 0.43905", """
a_s, a_t = linear(1000).alpha_bar[S_ASKED].item(), linear(1000).alpha_bar[T_ASKED].item()
beta_tilde = (1 - a_s) / (1 - a_t) * (1 - a_t / a_s)
"""],
    "perfect_guess": [
        """
def perfect_guess(x_t, points, alpha_bar):
    log = -((x_t[:, None] - alpha_bar ** 0.5 * points[None]) ** 2).sum(-1) / (2 * (1 - alpha_bar))
    w = torch.exp(log - log.max(dim=1, keepdim=True).values)
    return (w / w.sum(1, keepdim=True)) @ points
""",
        """
def perfect_guess(x_t, points, alpha_bar):
    rows = []
    for x in x_t:
        log = torch.stack([-(x - math.sqrt(alpha_bar) * p).square().sum() / (2 * (1 - alpha_bar)) for p in points])
        w = (log - torch.logsumexp(log, 0)).exp()
        rows.append(sum(weight * p for weight, p in zip(w, points)))
    return torch.stack(rows)
""",
    ],
    "weights": [
        """
def weights_from(u_s, u_t):
    a_s, a_t = (torch.sigmoid(torch.tensor(u, dtype=torch.float64)).item() for u in (u_s, u_t))
    n_s, n_t = (torch.sigmoid(torch.tensor(-u, dtype=torch.float64)).item() for u in (u_s, u_t))
    return [a_s**0.5 * (1 - a_t / a_s) / n_t, (a_t / a_s) ** 0.5 * n_s / n_t, n_s / n_t * (1 - a_t / a_s)]
""",
        """
def weights_from(u_s, u_t):
    left = math.exp(u_t - u_s)                                          # SNR_t over SNR_s
    a_s, a_t = 1 / (1 + math.exp(-u_s)), 1 / (1 + math.exp(-u_t))
    return math.sqrt(a_s) * (1 - left), left * math.sqrt(a_s / a_t), (1 - left) / (1 + math.exp(u_s))
""",
    ],
}

SILVER = {"check_weights_silver"}                # of what is to be achieved; the reference has lost the gold already
BOTH = {"check_weights", *SILVER}

WRONG = [
    # Step 1.
    ("nothing is shrunk", "one_step", """
def one_step(x, beta, z):
    return x + math.sqrt(beta) * z
""", {"check_one_step"}, "the image is not shrunk"),
    ("β for its root", "one_step", """
def one_step(x, beta, z):
    return math.sqrt(1 - beta) * x + beta * z
""", {"check_one_step"}, "its standard deviation is √β"),                                       # acids-ircam's naive forward process
    ("1-β for its root", "one_step", """
def one_step(x, beta, z):
    return (1 - beta) * x + math.sqrt(beta) * z
""", {"check_one_step"}, "you multiply x by 1-β"),
    ("the roots exchanged", "one_step", """
def one_step(x, beta, z):
    return math.sqrt(beta) * x + math.sqrt(1 - beta) * z
""", {"check_one_step"}, "the two roots are exchanged"),

    # Step 2.
    ("lined up with the width", "noisy", """
def noisy(x_0, eps, alpha_bar):
    return alpha_bar.sqrt() * x_0 + (1 - alpha_bar).sqrt() * eps
""", {"check_noisy"}, "lined up with the width"),
    ("no roots", "noisy", """
def noisy(x_0, eps, alpha_bar):
    a = alpha_bar.view(-1, 1, 1, 1)
    return a * x_0 + (1 - a) * eps
""", {"check_noisy"}, "you multiply x_0 by ᾱ"),
    ("the root of ᾱ only", "noisy", """
def noisy(x_0, eps, alpha_bar):
    a = alpha_bar.view(-1, 1, 1, 1)
    return a.sqrt() * x_0 + (1 - a) * eps
""", {"check_noisy"}, "you multiply ε by 1-ᾱ"),
    ("1-√ᾱ for √(1-ᾱ)", "noisy", """
def noisy(x_0, eps, alpha_bar):
    a = alpha_bar.view(-1, 1, 1, 1).sqrt()
    return a * x_0 + (1 - a) * eps
""", {"check_noisy"}, "is not 1-√ᾱ"),
    ("one time for the whole batch", "noisy", """
def noisy(x_0, eps, alpha_bar):
    return alpha_bar[0].sqrt() * x_0 + (1 - alpha_bar[0]).sqrt() * eps
""", {"check_noisy"}, "the weights must be"),
    ("only images as large as the example", "noisy", """
def noisy(x_0, eps, alpha_bar):
    a = alpha_bar.view(2, 1, 1, 1)
    return a.sqrt() * x_0 + (1 - a).sqrt() * eps
""", {"check_noisy"}, None),

    # Step 3.
    ("the noise taken away whole", "x0_from", """
def x0_from(x_t, eps, alpha_bar):
    return (x_t - eps) / math.sqrt(alpha_bar)
""", {"check_x0_from"}, "the noise is taken away whole"),
    ("the noise added", "x0_from", """
def x0_from(x_t, eps, alpha_bar):
    return (x_t + math.sqrt(1 - alpha_bar) * eps) / math.sqrt(alpha_bar)
""", {"check_x0_from"}, "you *added* the noise"),
    ("still shrunk", "x0_from", """
def x0_from(x_t, eps, alpha_bar):
    return x_t - math.sqrt(1 - alpha_bar) * eps
""", {"check_x0_from"}, "the image is still shrunk"),
    ("x_0 divided by ᾱ", "x0_from", """
def x0_from(x_t, eps, alpha_bar):
    return (x_t - math.sqrt(1 - alpha_bar) * eps) / alpha_bar
""", {"check_x0_from"}, "you divided by ᾱ"),
    ("only x_t divided", "x0_from", """
def x0_from(x_t, eps, alpha_bar):
    return x_t / math.sqrt(alpha_bar) - math.sqrt(1 - alpha_bar) * eps
""", {"check_x0_from"}, "and not the noise"),
    ("clamped, which nobody asked for", "x0_from", """
def x0_from(x_t, eps, alpha_bar):
    return ((x_t - math.sqrt(1 - alpha_bar) * eps) / math.sqrt(alpha_bar)).clamp(-2, 2)
""", {"check_x0_from"}, None),

    # Step 4.
    ("x_0 for ε", "eps_from_v", """
def eps_from_v(x_t, v, alpha_bar):
    return math.sqrt(alpha_bar) * x_t - math.sqrt(1 - alpha_bar) * v
""", {"check_eps_from_v"}, "that is x_0"),
    ("the weights exchanged", "eps_from_v", """
def eps_from_v(x_t, v, alpha_bar):
    return math.sqrt(alpha_bar) * x_t + math.sqrt(1 - alpha_bar) * v
""", {"check_eps_from_v"}, "the weights are exchanged"),
    ("a sign", "eps_from_v", """
def eps_from_v(x_t, v, alpha_bar):
    return math.sqrt(alpha_bar) * v - math.sqrt(1 - alpha_bar) * x_t
""", {"check_eps_from_v"}, "a sign is wrong"),
    ("divided by ᾱ", "eps_from_v", """
def eps_from_v(x_t, v, alpha_bar):
    x_0 = math.sqrt(alpha_bar) * x_t - math.sqrt(1 - alpha_bar) * v
    return (v + math.sqrt(1 - alpha_bar) * x_0) / alpha_bar
""", {"check_eps_from_v"}, "divide by √ᾱ, not by ᾱ"),

    # Step 5.
    ("α for its root", "jump", "weight = 0.150", {"check_jump"}, "that is α"),
    ("from the data", "jump", "weight = 0.280", {"check_jump"}, "the weight of x_0"),
    ("upside down", "jump", "weight = 2.582", {"check_jump"}, "upside down"),
    ("the noise's", "jump", "weight = 0.922", {"check_jump"}, "the fresh noise"),

    # Step 6.
    ("x_t is not used", "posterior_on", """
def posterior_on(grid, x_t, x_0, a_s, a_t):
    p = torch.distributions.Normal(math.sqrt(a_s) * x_0, math.sqrt(1 - a_s)).log_prob(grid).exp()
    return p / (p.sum() * (grid[1] - grid[0]))
""", {"check_posterior_on"}, "where is x_t in it"),
    ("not normalised", "posterior_on", """
def posterior_on(grid, x_t, x_0, a_s, a_t):
    alpha, Normal = a_t / a_s, torch.distributions.Normal
    there = Normal(math.sqrt(alpha) * grid, math.sqrt(1 - alpha)).log_prob(torch.tensor(x_t, dtype=grid.dtype))
    return (there + Normal(math.sqrt(a_s) * x_0, math.sqrt(1 - a_s)).log_prob(grid)).exp()
""", {"check_posterior_on"}, "the area under your density"),
    ("the sum is 1, not the area", "posterior_on", """
def posterior_on(grid, x_t, x_0, a_s, a_t):
    alpha, Normal = a_t / a_s, torch.distributions.Normal
    there = Normal(math.sqrt(alpha) * grid, math.sqrt(1 - alpha)).log_prob(torch.tensor(x_t, dtype=grid.dtype))
    return torch.softmax(there + Normal(math.sqrt(a_s) * x_0, math.sqrt(1 - a_s)).log_prob(grid), 0)
""", {"check_posterior_on"}, "the area under your density"),
    ("the step does not shrink", "posterior_on", """
def posterior_on(grid, x_t, x_0, a_s, a_t):
    log = -(x_t - grid) ** 2 / (2 * (1 - a_t / a_s)) - (grid - a_s ** 0.5 * x_0) ** 2 / (2 * (1 - a_s))
    p = log.exp()
    return p / (p.sum() * (grid[1] - grid[0]))
""", {"check_posterior_on"}, "the step shrinks"),
    ("x_0 has not shrunk", "posterior_on", """
def posterior_on(grid, x_t, x_0, a_s, a_t):
    alpha = a_t / a_s
    log = -(x_t - alpha ** 0.5 * grid) ** 2 / (2 * (1 - alpha)) - (grid - x_0) ** 2 / (2 * (1 - a_s))
    p = log.exp()
    return p / (p.sum() * (grid[1] - grid[0]))
""", {"check_posterior_on"}, "the second bell stands around"),
    ("variances for standard deviations", "posterior_on", """
def posterior_on(grid, x_t, x_0, a_s, a_t):
    alpha, Normal = a_t / a_s, torch.distributions.Normal
    there = Normal(math.sqrt(alpha) * grid, 1 - alpha).log_prob(torch.tensor(x_t))
    p = (there + Normal(math.sqrt(a_s) * x_0, 1 - a_s).log_prob(grid)).exp()
    return p / (p.sum() * (grid[1] - grid[0]))
""", {"check_posterior_on"}, "you gave Normal the variances"),
    ("x_0 is not used", "posterior_on", """
def posterior_on(grid, x_t, x_0, a_s, a_t):
    alpha = a_t / a_s
    p = torch.distributions.Normal(math.sqrt(alpha) * grid, math.sqrt(1 - alpha)).log_prob(torch.tensor(x_t)).exp()
    return p / (p.sum() * (grid[1] - grid[0]))
""", {"check_posterior_on"}, "that is the first factor alone"),
    ("the spacing of the example", "posterior_on", """
def posterior_on(grid, x_t, x_0, a_s, a_t):
    alpha = a_t / a_s
    log = -(x_t - alpha ** 0.5 * grid) ** 2 / (2 * (1 - alpha)) - (grid - a_s ** 0.5 * x_0) ** 2 / (2 * (1 - a_s))
    p = log.exp()
    return p / (p.sum() * 0.005)
""", {"check_posterior_on"}, None),

    # Step 7.
    ("the weights of x_0 and x_t exchanged", "posterior", """
def posterior(x_t, x_0, a_s, a_t):
    alpha = a_t / a_s
    return (a_s ** 0.5 * (1 - alpha) * x_t + alpha ** 0.5 * (1 - a_s) * x_0) / (1 - a_t), (1 - a_s) / (1 - a_t) * (1 - alpha)
""", {"check_posterior"}, "the two weights are exchanged"),
    ("√ᾱ_t for √ᾱ_s", "posterior", """
def posterior(x_t, x_0, a_s, a_t):
    alpha = a_t / a_s
    return (a_t ** 0.5 * (1 - alpha) * x_0 + alpha ** 0.5 * (1 - a_s) * x_t) / (1 - a_t), (1 - a_s) / (1 - a_t) * (1 - alpha)
""", {"check_posterior"}, "√ᾱ_t in place of √ᾱ_s"),                                             # lucidrains #18: the table of ᾱ_{t-1} shifted
    ("the variance is β", "posterior", """
def posterior(x_t, x_0, a_s, a_t):
    alpha = a_t / a_s
    return (a_s ** 0.5 * (1 - alpha) * x_0 + alpha ** 0.5 * (1 - a_s) * x_t) / (1 - a_t), 1 - alpha
""", {"check_posterior"}, "that is β, what the step added"),
    ("no denominator", "posterior", """
def posterior(x_t, x_0, a_s, a_t):
    alpha = a_t / a_s
    return (a_s ** 0.5 * (1 - alpha) * x_0 + alpha ** 0.5 * (1 - a_s) * x_t) / (1 - a_t), (1 - a_s) * (1 - alpha)
""", {"check_posterior"}, "is not yet β̃"),                                                     # varun-ml/diffusion-models-tutorial PR #1
    ("the standard deviation", "posterior", """
def posterior(x_t, x_0, a_s, a_t):
    alpha = a_t / a_s
    return (a_s ** 0.5 * (1 - alpha) * x_0 + alpha ** 0.5 * (1 - a_s) * x_t) / (1 - a_t), ((1 - a_s) / (1 - a_t) * (1 - alpha)) ** 0.5
""", {"check_posterior"}, "that is the standard deviation"),
    ("the last step has noise", "posterior", """
def posterior(x_t, x_0, a_s, a_t):
    alpha = a_t / a_s
    var = (1 - a_s) / (1 - a_t) * (1 - alpha)
    return (a_s ** 0.5 * (1 - alpha) * x_0 + alpha ** 0.5 * (1 - a_s) * x_t) / (1 - a_t), max(var, 1e-20)
""", {"check_posterior"}, "nothing is left to guess"),                                          # the clamp at 1e-20 of several samplers

    # Step 8.
    ("β for β̃", "unsure", "beta_tilde = 0.850", {"check_unsure"}, "that is β, the noise"),
    ("the root", "unsure", "beta_tilde = 0.663", {"check_unsure"}, "that is the standard deviation"),
    ("of a single step", "unsure", "beta_tilde = linear(1000).beta[T_ASKED]", {"check_unsure"}, "of the single step"),
    ("the fraction upside down", "unsure", """
a_s, a_t = linear(1000).alpha_bar[S_ASKED].item(), linear(1000).alpha_bar[T_ASKED].item()
beta_tilde = (1 - a_t) / (1 - a_s) * (1 - a_t / a_s)
""", {"check_unsure"}, "upside down"),

    # Step 9.
    ("the nearest point", "perfect_guess", """
def perfect_guess(x_t, points, alpha_bar):
    return points[torch.cdist(x_t, math.sqrt(alpha_bar) * points).argmin(1)]
""", {"check_perfect_guess"}, "the nearest point is not the mean"),
    ("the mean of all", "perfect_guess", """
def perfect_guess(x_t, points, alpha_bar):
    return points.mean(0).expand_as(x_t)
""", {"check_perfect_guess"}, "ignores x_t"),
    ("points of full size", "perfect_guess", """
def perfect_guess(x_t, points, alpha_bar):
    return torch.softmax(-torch.cdist(x_t, points).square() / (2 * (1 - alpha_bar)), dim=1) @ points
""", {"check_perfect_guess"}, "the points have been shrunk"),
    ("the standard deviation for the variance", "perfect_guess", """
def perfect_guess(x_t, points, alpha_bar):
    return torch.softmax(-torch.cdist(x_t, math.sqrt(alpha_bar) * points).square() / (2 * math.sqrt(1 - alpha_bar)), dim=1) @ points
""", {"check_perfect_guess"}, "not by twice the standard deviation"),
    ("no 2", "perfect_guess", """
def perfect_guess(x_t, points, alpha_bar):
    return torch.softmax(-torch.cdist(x_t, math.sqrt(alpha_bar) * points).square() / (1 - alpha_bar), dim=1) @ points
""", {"check_perfect_guess"}, "the 2 in 2(1-ᾱ) is missing"),
    ("the shrunk points averaged", "perfect_guess", """
def perfect_guess(x_t, points, alpha_bar):
    points = math.sqrt(alpha_bar) * points
    return torch.softmax(-torch.cdist(x_t, points).square() / (2 * (1 - alpha_bar)), dim=1) @ points
""", {"check_perfect_guess"}, "you averaged the shrunk points"),
    ("the sign", "perfect_guess", """
def perfect_guess(x_t, points, alpha_bar):
    return torch.softmax(torch.cdist(x_t, math.sqrt(alpha_bar) * points).square() / (2 * (1 - alpha_bar)), dim=1) @ points
""", {"check_perfect_guess"}, "there is a minus in the exponent"),
    ("without softmax", "perfect_guess", """
def perfect_guess(x_t, points, alpha_bar):
    w = torch.exp(-torch.cdist(x_t, math.sqrt(alpha_bar) * points).square() / (2 * (1 - alpha_bar)))
    return w @ points / w.sum(1, keepdim=True)
""", {"check_perfect_guess"}, "all weights were 0"),
    ("the distance, not its square", "perfect_guess", """
def perfect_guess(x_t, points, alpha_bar):
    return torch.softmax(-torch.cdist(x_t, math.sqrt(alpha_bar) * points) / (2 * (1 - alpha_bar)), dim=1) @ points
""", {"check_perfect_guess"}, "for the points ±1"),

    # Step 10.
    ("word for word", "weights", "weights_from = fragile", SILVER, "a number near 1 taken from 1"),
    ("the inverse of the SNR", "weights", "def weights_from(u_s, u_t): return fragile(-u_s, -u_t)", BOTH, "is ᾱ what you think it is"),
    ("decibels", "weights", "def weights_from(u_s, u_t): return fragile(u_s * math.log(10) / 10, u_t * math.log(10) / 10)", BOTH, "is ᾱ what you think it is"),
    ("s and t exchanged", "weights", "def weights_from(u_s, u_t): return fragile(u_t, u_s)", BOTH, "is ᾱ what you think it is"),
    ("two numbers", "weights", "def weights_from(u_s, u_t): return fragile(u_s, u_t)[:2]", BOTH, "three numbers"),
    ("clamped", "weights", """
def weights_from(u_s, u_t):
    return fragile(min(max(u_s, -6.0), 6.0), min(max(u_t, -6.0), 6.0))
""", BOTH, "your largest relative error"),
]


SEEDED = {
    "jump": "weight = math.sqrt(linear(1000).alpha_bar[T_ASKED] / linear(1000).alpha_bar[S_ASKED])",
    "unsure": """
a_s, a_t = linear(1000).alpha_bar[[S_ASKED, T_ASKED]].tolist()
beta_tilde = (1 - a_s) / (1 - a_t) * (1 - a_t / a_s)
""",
    "weights": """
def weights_from(u_s, u_t):
    def share(level): return 1 / (1 + math.exp(-level))
    l_s, l_t = u_s / FACTOR, u_t / FACTOR
    beta = 1 - share(l_t) / share(l_s)
    return math.sqrt(share(l_s)) * beta / share(-l_t), math.sqrt(share(l_t) / share(l_s)) * share(-l_s) / share(-l_t), share(-l_s) / share(-l_t) * beta
""",
}
SEEDED |= {
    "noisy": told("noisy", RIGHT["noisy"][0], 2),
    "x0_from": told("x0_from", RIGHT["x0_from"][0], 2),
    "eps_from_v": told("eps_from_v", RIGHT["eps_from_v"][0], 2),
    "posterior_on": told("posterior_on", RIGHT["posterior_on"][0], 3, 4),
    "posterior": told("posterior", RIGHT["posterior"][0], 2, 3),
    "perfect_guess": told("perfect_guess", RIGHT["perfect_guess"][0], 2),
}

BEST = {"weights": """
def weights_from(u_s, u_t):
    def share(level): return 1 / (1 + math.exp(-level))
    l_s, l_t = u_s / FACTOR, u_t / FACTOR
    taken, kept = -math.expm1(l_t - l_s), math.exp(l_t - l_s)
    return math.sqrt(share(l_s)) * taken, kept * math.sqrt(share(l_s) / share(l_t)), share(-l_s) * taken
"""}
