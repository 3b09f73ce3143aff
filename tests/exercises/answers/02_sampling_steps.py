"""02 sampling steps: answers that are right, and answers like those that have been given in public."""

from levels import told

RIGHT = {
    "times": [
        """
def even_times(T, S):
    return torch.linspace(T, 0, S + 1, dtype=torch.float64).round().long().tolist()
""",
        """
def even_times(T, S):
    times, left = [T], T
    for steps in range(S, 0, -1):
        left -= -(-left // steps)
        times.append(left)
    return times
""",
        """
def even_times(T, S):
    return [T - i * T // S for i in range(S + 1)]
""",
    ],
    "stride": ["wrong_steps = 1000 % S_ODD", "wrong_steps = 10.0", """
times = torch.tensor(timesteps(1000, S_ODD))
wrong_steps = (times[:-1] - times[1:] != 1000 // S_ODD).sum()
"""],
    "ddim": [
        """
def ddim(x_t, eps, a_t, a_s):
    return (a_s / a_t) ** 0.5 * x_t + ((1 - a_s) ** 0.5 - (a_s * (1 - a_t) / a_t) ** 0.5) * eps
""",
        """
def ddim(x_t, eps, a_t, a_s):
    sigma_t, sigma_s = (1 / a_t - 1) ** 0.5, (1 / a_s - 1) ** 0.5
    return (x_t / a_t ** 0.5 + (sigma_s - sigma_t) * eps) * a_s ** 0.5
""",
    ],
    "ddim_eta": [
        """
def ddim_eta(x_t, eps, z, a_t, a_s, eta):
    fresh = eta ** 2 * (1 - a_t / a_s) / (1 - a_t)
    x_0 = (x_t - (1 - a_t) ** 0.5 * eps) / a_t ** 0.5
    return a_s ** 0.5 * x_0 + (1 - a_s) ** 0.5 * ((1 - fresh) ** 0.5 * eps + fresh ** 0.5 * z)
""",
        """
def ddim_eta(x_t, eps, z, a_t, a_s, eta):
    a_t, a_s = torch.tensor(a_t, dtype=torch.float64), torch.tensor(a_s, dtype=torch.float64)
    sigma = eta * ((1 - a_s) / (1 - a_t)).sqrt() * (1 - a_t / a_s).sqrt()
    x_0 = (x_t - (1 - a_t).sqrt() * eps) / a_t.sqrt()
    return a_s.sqrt() * x_0 + (1 - a_s - sigma ** 2).sqrt() * eps + sigma * z
""",
    ],
    "ddpm_large": [
        """
def ddpm_large(x_t, eps, z, a_t, a_s):
    alpha = a_t / a_s
    x_0 = (x_t - (1 - a_t) ** 0.5 * eps) / a_t ** 0.5
    mean = (a_s ** 0.5 * (1 - alpha) * x_0 + alpha ** 0.5 * (1 - a_s) * x_t) / (1 - a_t)
    return mean + (a_s < 1) * (1 - alpha) ** 0.5 * z
""",
        """
def ddpm_large(x_t, eps, z, a_t, a_s):
    beta = 1 - a_t / a_s
    sigma = 0.0 if a_s == 1 else math.sqrt(beta)
    return x_t / math.sqrt(1 - beta) - beta / math.sqrt((1 - beta) * (1 - a_t)) * eps + sigma * z
""",
    ],
    "walk": [
        """
def walk(denoiser, x, times, step):
    i = 0
    while i + 1 < len(times):
        eps = denoiser(x, times[i])
        x = step(x, eps, times[i], times[i + 1])
        i += 1
    return x
""",
        """
def walk(denoiser, x, times, step):
    if len(times) == 1:
        return x
    t, s = times[0], times[1]
    return walk(denoiser, step(x, denoiser(x, t), t, s), times[1:], step)
""",
    ],
    "shrinks": ["""
theta = cosine(1000).alpha_bar[timesteps(1000, S_FEW)].sqrt().acos()
std = (theta[:-1] - theta[1:]).cos().prod()
""", "std = 0.8562"],
    "best_walk": [
        """
my_times = (1000, 950, 850, 700, 510, 320, 160, 50, 0)
my_step = dpm_solver_2m
""",
        """
my_times = torch.tensor([1000, 950, 840, 680, 480, 300, 150, 50, 0])
def my_step():
    second = dpm_solver_2m()
    return lambda schedule, x_t, eps, t, s: second(schedule, x_t, eps, t, s)
""",
        """
my_times = [1000, 960, 860, 700, 500, 310, 160, 50, 0]
class Adams(torch.nn.Module):                   # the same step written out: a module, double precision, clipping; it writes into what it is given
    last = None
    def forward(self, schedule, x_t, eps, t, s):
        a_t, a_s = schedule.alpha_bar[[t, s]].tolist()
        x_0 = D = x_t.double().sub_((1 - a_t) ** 0.5 * eps).div_(a_t ** 0.5).clamp_(-1, 1)
        now = schedule.log_snr[t] / 2
        if self.last and s > 0:
            D = x_0 + (x_0 - self.last[1]) * (schedule.log_snr[s] / 2 - now) / (now - self.last[0]) / 2
        self.last = now, x_0
        return x_t.sub_(a_t ** 0.5 * D).mul_(((1 - a_s) / (1 - a_t)) ** 0.5).add_(a_s ** 0.5 * D)
my_step = Adams
""",
    ],
}

SILVER = {"check_best_walk_silver"}                # of what is to be achieved; the reference has lost the gold already
BOTH = {"check_best_walk", *SILVER}

WRONG = [
    # Step 1.
    ("from T-1", "times", """
def even_times(T, S):
    return [T - 1] + [i * T // S for i in range(S - 1, -1, -1)]
""", {"check_times"}, "begins at T-1"),                                                         # dome272: reversed(range(1, T))
    ("leading, which never begins at T", "times", """
def even_times(T, S):
    return [i * (T // S) + 1 for i in range(S - 1, -1, -1)] + [0]
""", {"check_times"}, "'leading'"),                                                              # diffusers #2585, #5921, #10003
    ("it stops before the data", "times", """
def even_times(T, S):
    return [1 + i * (T - 1) // S for i in range(S, -1, -1)]
""", {"check_times"}, "the last step leads to the data"),
    ("upwards", "times", """
def even_times(T, S):
    return [i * T // S for i in range(S + 1)]
""", {"check_times"}, "a walk goes down"),
    ("one time short", "times", """
def even_times(T, S):
    return torch.linspace(T, 0, S).round().long().tolist()
""", {"check_times"}, "4 steps need 5 times"),
    ("a stride, and the rest in the last step", "times", """
def even_times(T, S):
    return [T - i * (T // S) for i in range(S)] + [0]
""", {"check_times"}, "as even as whole numbers"),
    ("not rounded", "times", """
def even_times(T, S):
    return [i * T / S for i in range(S, -1, -1)]
""", {"check_times"}, "whole numbers only"),
    ("right for S = 4 only", "times", """
def even_times(T, S):
    return [round(T * i / 4) for i in range(4, -1, -1)]
""", {"check_times"}, None),

    # Step 2.
    ("none", "stride", "wrong_steps = 0", {"check_stride"}, "not all gaps"),
    ("those that agree", "stride", "wrong_steps = 20", {"check_stride"}, "agree: count the others"),
    ("the list of them", "stride", "wrong_steps = [t for t, s in pairwise(timesteps(1000, S_ODD)) if s != t - 1000 // S_ODD]",
     {"check_stride"}, "give how many there are"),
    ("along the stride's own times", "stride", "wrong_steps = sum(t not in timesteps(1000, S_ODD) for t in range(1000, 0, -(1000 // S_ODD)))",
     {"check_stride"}, "the gaps of the list are of two kinds"),
    ("one too many", "stride", "wrong_steps = 11", {"check_stride"}, "the gaps of the list are of two kinds"),

    # Step 3.
    ("it stops at x̂_0", "ddim", """
def ddim(x_t, eps, a_t, a_s):
    return (x_t - math.sqrt(1 - a_t) * eps) / math.sqrt(a_t)
""", {"check_ddim"}, "that is x̂_0"),
    ("the noise of time t", "ddim", """
def ddim(x_t, eps, a_t, a_s):
    x_0 = (x_t - math.sqrt(1 - a_t) * eps) / math.sqrt(a_t)
    return math.sqrt(a_s) * x_0 + math.sqrt(1 - a_t) * eps
""", {"check_ddim"}, "as much noise as x_t had"),
    ("x̂_0 of full size", "ddim", """
def ddim(x_t, eps, a_t, a_s):
    x_0 = (x_t - math.sqrt(1 - a_t) * eps) / math.sqrt(a_t)
    return x_0 + math.sqrt(1 - a_s) * eps
""", {"check_ddim"}, "times √ᾱ_s"),
    ("the direction is forgotten", "ddim", """
def ddim(x_t, eps, a_t, a_s):
    return math.sqrt(a_s) * (x_t - math.sqrt(1 - a_t) * eps) / math.sqrt(a_t)
""", {"check_ddim"}, "the noise is not put back"),                                              # jsboige/CoursIA PR #16158: η = 0 lost its ε term
    ("no roots", "ddim", """
def ddim(x_t, eps, a_t, a_s):
    return a_s * (x_t - (1 - a_t) * eps) / a_t + (1 - a_s) * eps
""", {"check_ddim"}, "the roots are missing"),
    ("a forgotten return", "ddim", """
def ddim(x_t, eps, a_t, a_s):
    x_0 = (x_t - math.sqrt(1 - a_t) * eps) / math.sqrt(a_t)
    x_s = math.sqrt(a_s) * x_0 + math.sqrt(1 - a_s) * eps
""", {"check_ddim"}, "is a `return` missing"),

    # Step 4.
    ("the old noise stays beside the new", "ddim_eta", """
def ddim_eta(x_t, eps, z, a_t, a_s, eta):
    x_0 = (x_t - math.sqrt(1 - a_t) * eps) / math.sqrt(a_t)
    sigma = eta * math.sqrt((1 - a_s) / (1 - a_t) * (1 - a_t / a_s))
    return math.sqrt(a_s) * x_0 + math.sqrt(1 - a_s) * eps + sigma * z
""", {"check_ddim_eta"}, "keeps its full weight"),                                              # the usual slip
    ("σ² = η²(1-ᾱ_t)", "ddim_eta", """
def ddim_eta(x_t, eps, z, a_t, a_s, eta):
    x_0 = (x_t - math.sqrt(1 - a_t) * eps) / math.sqrt(a_t)
    sigma2 = eta ** 2 * (1 - a_t)
    return math.sqrt(a_s) * x_0 + math.sqrt(1 - a_s - sigma2) * eps + math.sqrt(sigma2) * z
""", {"check_ddim_eta"}, "has been in a course"),                                               # jsboige/CoursIA PR #16158
    ("σ² for σ", "ddim_eta", """
def ddim_eta(x_t, eps, z, a_t, a_s, eta):
    x_0 = (x_t - math.sqrt(1 - a_t) * eps) / math.sqrt(a_t)
    sigma2 = eta ** 2 * (1 - a_s) / (1 - a_t) * (1 - a_t / a_s)
    return math.sqrt(a_s) * x_0 + math.sqrt(1 - a_s - sigma2) * eps + sigma2 * z
""", {"check_ddim_eta"}, "you multiply z by σ²"),
    ("σ = η·β̃", "ddim_eta", """
def ddim_eta(x_t, eps, z, a_t, a_s, eta):
    x_0 = (x_t - math.sqrt(1 - a_t) * eps) / math.sqrt(a_t)
    sigma = eta * (1 - a_s) / (1 - a_t) * (1 - a_t / a_s)
    return math.sqrt(a_s) * x_0 + math.sqrt(1 - a_s - sigma**2) * eps + sigma * z
""", {"check_ddim_eta"}, "β̃ is a variance"),
    ("η for η²", "ddim_eta", """
def ddim_eta(x_t, eps, z, a_t, a_s, eta):
    x_0 = (x_t - math.sqrt(1 - a_t) * eps) / math.sqrt(a_t)
    sigma2 = eta * (1 - a_s) / (1 - a_t) * (1 - a_t / a_s)
    return math.sqrt(a_s) * x_0 + math.sqrt(1 - a_s - sigma2) * eps + math.sqrt(sigma2) * z
""", {"check_ddim_eta"}, "η² multiplies σ²"),
    ("β for β̃", "ddim_eta", """
def ddim_eta(x_t, eps, z, a_t, a_s, eta):
    x_0 = (x_t - math.sqrt(1 - a_t) * eps) / math.sqrt(a_t)
    sigma2 = eta ** 2 * (1 - a_t / a_s)
    return math.sqrt(a_s) * x_0 + math.sqrt(1 - a_s - sigma2) * eps + math.sqrt(sigma2) * z
""", {"check_ddim_eta"}, "and not β"),
    ("σ under the root", "ddim_eta", """
def ddim_eta(x_t, eps, z, a_t, a_s, eta):
    x_0 = (x_t - math.sqrt(1 - a_t) * eps) / math.sqrt(a_t)
    sigma = eta * math.sqrt((1 - a_s) / (1 - a_t) * (1 - a_t / a_s))
    return math.sqrt(a_s) * x_0 + math.sqrt(1 - a_s - sigma) * eps + sigma * z
""", {"check_ddim_eta"}, "you subtract σ: it is σ²"),
    ("σ subtracted outside the root", "ddim_eta", """
def ddim_eta(x_t, eps, z, a_t, a_s, eta):
    x_0 = (x_t - math.sqrt(1 - a_t) * eps) / math.sqrt(a_t)
    sigma = eta * math.sqrt((1 - a_s) / (1 - a_t) * (1 - a_t / a_s))
    return math.sqrt(a_s) * x_0 + (math.sqrt(1 - a_s) - sigma) * eps + sigma * z
""", {"check_ddim_eta"}, "is not √(1-ᾱ_s) - σ"),
    ("a complex root", "ddim_eta", """
def ddim_eta(x_t, eps, z, a_t, a_s, eta):
    x_0 = (x_t - (1 - a_t) ** 0.5 * eps) / a_t ** 0.5
    sigma2 = eta ** 2 * (1 - a_s) / (1 - a_t) * (1 - a_t / a_s)
    return a_s ** 0.5 * x_0 + (a_t - a_s - sigma2) ** 0.5 * eps + sigma2 ** 0.5 * z
""", {"check_ddim_eta"}, "the root of a negative number"),

    # Step 5.
    ("noise in the last step", "ddpm_large", """
def ddpm_large(x_t, eps, z, a_t, a_s):
    alpha = a_t / a_s
    return (x_t - (1 - alpha) / math.sqrt(1 - a_t) * eps) / math.sqrt(alpha) + math.sqrt(1 - alpha) * z
""", {"check_ddpm_large"}, "noise in the last step"),                                           # labml's p_sample
    ("all of the noise", "ddpm_large", """
def ddpm_large(x_t, eps, z, a_t, a_s):
    alpha = a_t / a_s
    mean = (x_t - math.sqrt(1 - a_t) * eps) / math.sqrt(alpha)
    return mean if a_s == 1 else mean + math.sqrt(1 - alpha) * z
""", {"check_ddpm_large"}, "one step's share"),
    ("β for its root", "ddpm_large", """
def ddpm_large(x_t, eps, z, a_t, a_s):
    alpha = a_t / a_s
    mean = (x_t - (1 - alpha) / math.sqrt(1 - a_t) * eps) / math.sqrt(alpha)
    return mean if a_s == 1 else mean + (1 - alpha) * z
""", {"check_ddpm_large"}, "the weight is its root"),
    ("the small variance", "ddpm_large", """
def ddpm_large(x_t, eps, z, a_t, a_s):
    alpha = a_t / a_s
    mean = (x_t - (1 - alpha) / math.sqrt(1 - a_t) * eps) / math.sqrt(alpha)
    return mean + math.sqrt((1 - a_s) / (1 - a_t) * (1 - alpha)) * z
""", {"check_ddpm_large"}, "here it must be β"),
    ("ᾱ_t for α", "ddpm_large", """
def ddpm_large(x_t, eps, z, a_t, a_s):
    mean = (x_t - (1 - a_t) / math.sqrt(1 - a_t) * eps) / math.sqrt(a_t)
    return mean if a_s == 1 else mean + math.sqrt(1 - a_t) * z
""", {"check_ddpm_large"}, "all of the noise up to t"),
    ("not divided by √α", "ddpm_large", """
def ddpm_large(x_t, eps, z, a_t, a_s):
    alpha = a_t / a_s
    mean = x_t - (1 - alpha) / math.sqrt(1 - a_t) * eps
    return mean if a_s == 1 else mean + math.sqrt(1 - alpha) * z
""", {"check_ddpm_large"}, "divided by √α"),

    # Step 6.
    ("asked where the step leads", "walk", """
def walk(denoiser, x, times, step):
    for t, s in zip(times, times[1:]):
        x = step(x, denoiser(x, s), t, s)
    return x
""", {"check_walk"}, "you ask the denoiser at s"),
    ("asked at 0, too", "walk", """
def walk(denoiser, x, times, step):
    for i, t in enumerate(times):
        eps = denoiser(x, t)
        if i + 1 < len(times):
            x = step(x, eps, t, times[i + 1])
    return x
""", {"check_walk"}, "at t = 0"),
    ("s = t-1", "walk", """
def walk(denoiser, x, times, step):
    for t in times[:-1]:
        x = step(x, denoiser(x, t), t, t - 1)
    return x
""", {"check_walk"}, "s is not t-1"),
    ("always from the start", "walk", """
def walk(denoiser, x, times, step):
    for t, s in zip(times, times[1:]):
        y = step(x, denoiser(x, t), t, s)
    return y
""", {"check_walk"}, "from where the one before ended"),
    ("a list of all states", "walk", """
def walk(denoiser, x, times, step):
    states = [x]
    for t, s in zip(times, times[1:]):
        states.append(step(states[-1], denoiser(states[-1], t), t, s))
    return states
""", {"check_walk"}, "it must return x_0"),

    # Step 7.
    ("the variance", "shrinks", "std = 0.733", {"check_shrinks"}, "that is the variance"),
    ("two digits", "shrinks", "std = 0.86", {"check_shrinks"}, "to three digits"),
    ("perfect", "shrinks", "std = 1.0", {"check_shrinks"}, "below 1"),
    ("the linear schedule", "shrinks", """
std = final(sample(lambda x, t: (1 - linear(1000).alpha_bar[t]).sqrt() * x, linear(1000), torch.ones(1, 1, dtype=torch.float64), steps=S_FEW)).item()
""", {"check_shrinks"}, "the linear schedule"),

    # Step 8.
    ("DDIM at even times", "best_walk", "my_times = timesteps(1000, 8)\ndef my_step(): return ddim_step", BOTH, "yours is 1.000"),
    ("even in log SNR", "best_walk", "my_times = timesteps_in_log_snr(cosine(1000), 8)\nmy_step = dpm_solver_2m", SILVER, "the second tier begins"),
    ("DDIM, even in log SNR", "best_walk", "my_times = timesteps_in_log_snr(cosine(1000), 8)\ndef my_step(): return ddim_step", BOTH, "the first tier begins"),
    ("second order, at even times", "best_walk", "my_times = timesteps(1000, 8)\nmy_step = dpm_solver_2m", SILVER, "the second tier begins"),
    ("too many calls", "best_walk", "my_times = timesteps(1000, 20)\nmy_step = dpm_solver_2m", BOTH, "8 calls need 9 times"),
    ("it does not begin in noise", "best_walk", "my_times = [900, 800, 700, 600, 500, 400, 300, 100, 0]\nmy_step = dpm_solver_2m",
     BOTH, "must fall from 1000 to 0"),
    ("shares of T", "best_walk", "my_times = [1, 0.9, 0.8, 0.6, 0.5, 0.4, 0.3, 0.1, 0]\nmy_step = dpm_solver_2m", BOTH, "whole numbers"),
    ("it keeps x_s to itself", "best_walk", "my_times = timesteps(1000, 8)\ndef my_step(): return lambda *given: None", BOTH, "is a `return` missing"),
    ("it asks the network itself, sixty times", "best_walk", """
my_times = timesteps(1000, CALLS)
def my_step():
    known, ends = DDPM.load("digits").denoiser((torch.arange(24) + 5) % 10), []
    def step(schedule, x_t, eps, t, s):
        if t == 1000: ends.append(final(sample(known, schedule, x_t, dpm_solver_2m(), steps=60)))
        return ends[0]
    return step
""", BOTH, "the first tier begins"),
    ("the same, with the noise by heart", "best_walk", """
my_times = timesteps(1000, CALLS)
def my_step():
    _, noise, ends = start(5)
    def step(schedule, x_t, eps, t, s):
        if t == 1000: ends[:] = in_order(ends, noise.flatten(1)[0].argsort()[x_t.flatten(1)[0].argsort().argsort()])
        return ends
    return step
""", BOTH, None),                                                                               # it finds out the order
    ("it spoils DDIM's schedule", "best_walk", """
my_times = timesteps(1000, CALLS)
def my_step():
    def step(schedule, x_t, eps, t, s):
        x_s = ddim_step(schedule, x_t, eps, t, s)
        if s == 0: schedule.alpha_bar[1:] = 0.5
        return x_s
    return step
""", BOTH, "yours is 1.000"),
]


SEEDED = {
    "stride": "wrong_steps = 1000 % S_ODD",
    "shrinks": """
theta = cosine(1000).alpha_bar[timesteps(1000, S_FEW)].sqrt().acos()
std = float((theta[:-1] - theta[1:]).cos().prod())
""",
    "best_walk": """
shape, my_step = [1000, 970, 880, 700, 460, 230, 110, 30, 0], dpm_solver_2m
at = [8 * i / CALLS for i in range(CALLS)]
my_times = [round(shape[int(u)] + (u - int(u)) * (shape[int(u) + 1] - shape[int(u)])) for u in at] + [0]
""",
}
SEEDED |= {
    "ddim": told("ddim", RIGHT["ddim"][0], 2, 3),
    "ddim_eta": told("ddim_eta", RIGHT["ddim_eta"][0], 3, 4),
    "ddpm_large": told("ddpm_large", RIGHT["ddpm_large"][0], 3, 4),
}

BEST = {"best_walk": """
my_times = [1000, 970, 880, 700, 460, 230, 110, 30, 0]
my_step = dpm_solver_2m
"""}
