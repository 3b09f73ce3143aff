"""04 U-Net blocks: answers that are right, and answers like those that have been given in public."""

NARROW = '''
class Narrow(nn.Module):
    """Few channels inside, which look around in two groups; back by a 1 × 1 convolution."""

    def __init__(self, width, emb, inside=16, groups=2):
        super().__init__()
        self.norm1, self.into, self.time = nn.GroupNorm(4, width), nn.Conv2d(width, inside, 1), nn.Linear(emb, inside)
        self.look = nn.Conv2d(inside, inside, 3, padding=1, groups=groups)
        self.norm2, self.back = nn.GroupNorm(groups, inside), zero(nn.Conv2d(inside, width, 1))

    def forward(self, h, e):
        inner = self.into(F.silu(self.norm1(h))) + self.time(e)[:, :, None, None]
        return h + self.back(F.silu(self.norm2(self.look(F.silu(inner)))))
'''

# Ho's block, 11,112 parameters, before the first convolution that the check begins with.  Without its two sentences this gets 0.211, and every tier.
AT_HOME = """
torch.manual_seed(0)
home = Small(lambda width, emb: Block(width, width, emb, False, UNetConfig(base=24, groups=4)))
home.first.requires_grad_(False)
optimizer = torch.optim.AdamW([p for p in home.parameters() if p.requires_grad], lr=3e-3)
for n in range(300):
    some, t, eps = torch.randint(len(train_digits), (64,)), torch.randint(1, 1001, (64,)), torch.randn(64, 1, 8, 8)
    optimizer.param_groups[0]["lr"] = 3e-3 * (1 - n / 300)
    loss = (home(q_sample(noise_levels, train_digits[some], eps, t), t) - eps).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
home.requires_grad_(False)
"""

RIGHT = {
    "time": [
        """
def time_embedding(t, dim):
    half = dim // 2
    rows = []
    for time in t.tolist():
        angles = [time * math.exp(-math.log(10000) * i / (half - 1)) for i in range(half)]
        rows.append([math.sin(a) for a in angles] + [math.cos(a) for a in angles])
    return torch.tensor(rows)
""",
        """
def time_embedding(t, dim):
    frequency = torch.logspace(0, -4, dim // 2, dtype=torch.float64)
    angle = torch.outer(t.double(), frequency)
    return torch.stack([angle.sin(), angle.cos()], dim=1).flatten(1).float()
""",
    ],
    "norm": [
        """
def group_norm(h, groups):
    out = torch.empty_like(h)
    size = h.shape[1] // groups
    for b in range(len(h)):
        for g in range(groups):
            part = h[b, g * size:(g + 1) * size]
            out[b, g * size:(g + 1) * size] = (part - part.mean()) / torch.sqrt(((part - part.mean()) ** 2).mean() + 1e-6)
    return out
""",
        """
def group_norm(h, groups):
    B, C, H, W = h.shape
    g = h.view(B, groups, C // groups, H, W)
    mean = g.mean(dim=(2, 3, 4), keepdim=True)
    var = (g ** 2).mean(dim=(2, 3, 4), keepdim=True) - mean ** 2
    return ((g - mean) * torch.rsqrt(var.clamp(min=0) + 1e-6)).view(B, C, H, W)
""",
    ],
    "attention": [
        """
def attention(q, k, v):
    scores = torch.einsum("bnd,bmd->bnm", q, k) * q.shape[-1] ** -0.5
    return torch.einsum("bnm,bmd->bnd", scores.softmax(-1), v)
""",
        """
def attention(q, k, v):
    out = []
    for Q, K, V in zip(q / q.shape[-1] ** 0.25, k / q.shape[-1] ** 0.25, v):
        rows = []
        for question in Q:
            score = K @ question
            w = torch.exp(score - score.max())
            rows.append((w / w.sum()) @ V)
        out.append(torch.stack(rows))
    return torch.stack(out)
""",
    ],
    "residual": [
        """
def residual(x, emb, p):
    a = p.norm1(x)
    h = p.conv1(a * torch.sigmoid(a))
    h = h + emb.view(*emb.shape, 1, 1)
    b = p.norm2(h)
    return p.conv2(b * torch.sigmoid(b)) + p.shortcut(x)
""",
        """
def residual(x, emb, p):
    skip = p.shortcut(x)
    act = nn.SiLU()
    h = p.conv1(act(p.norm1(x)))
    h = torch.stack([image + e[:, None, None] for image, e in zip(h, emb)])
    return skip + p.conv2(act(p.norm2(h)))
""",
    ],
    "resample": [
        """
def padded(h):
    B, C, H, W = h.shape
    out = h.new_zeros(B, C, H + 1, W + 1)
    out[:, :, :H, :W] = h
    return out

def repeated(h):
    return F.interpolate(h, scale_factor=2.0, mode="nearest")
""",
        """
def padded(h):
    h = torch.cat([h, torch.zeros_like(h[:, :, :1])], dim=2)
    return torch.cat([h, torch.zeros_like(h[..., :1])], dim=3)

def repeated(h):
    B, C, H, W = h.shape
    return h[:, :, :, None, :, None].expand(B, C, H, 2, W, 2).reshape(B, C, 2 * H, 2 * W)
""",
    ],
    "parameters_of_conv": ["parameters = sum(p.numel() for p in nn.Conv2d(WIDTH_IN, WIDTH_OUT, 3).parameters())"],
    "stack": ["on_the_stack, blocks_up = 1 + LEVELS * BLOCKS + LEVELS - 1, BLOCKS + 1"],
    "widths": [
        """
def widths_up(first, widths, blocks):
    from collections import deque
    skips = deque([first])
    for i, w in enumerate(widths):
        for _ in range(blocks):
            skips.appendleft(w)
        if i + 1 < len(widths):
            skips.appendleft(w)
    ups = [w for w in reversed(widths) for _ in range(blocks + 1)]
    below = [widths[-1], *ups[:-1]]
    return [b + s for b, s in zip(below, skips)]
""",
        """
def widths_up(first, widths, blocks):
    net = UNet(UNetConfig(base=4, mults=tuple(range(1, len(widths) + 1)), blocks=blocks, attention=(), groups=2))
    stack = [first] + [w for i, w in enumerate(widths) for _ in range(blocks + (i < len(widths) - 1))]
    out, below = [], widths[-1]
    for level in range(len(net.up)):
        for _ in range(blocks + 1):
            out, below = out + [below + stack[-1]], widths[len(widths) - 1 - level]
            stack = stack[:-1]
    return tuple(out)
""",
    ],
    "my_block": [
        NARROW + "my_block = Narrow",
        NARROW + "def my_block(width, emb): return Narrow(width, emb, inside=10, groups=1)",
        """
class Batch(nn.Module):                             # its running means are neither trained nor brought
    def __init__(self, width, emb):
        super().__init__()
        self.norm1, self.into, self.time = nn.BatchNorm2d(width), nn.Conv2d(width, 16, 1), nn.Linear(emb, 16)
        self.look, self.norm2, self.back = nn.Conv2d(16, 16, 3, padding=1, groups=2), nn.BatchNorm2d(16), nn.Conv2d(16, width, 1)
        self.drop = nn.Dropout(0.02)
    def forward(self, h, e):
        inner = F.relu(self.into(F.relu(self.norm1(h)))) + self.time(e)[:, :, None, None]
        return h + self.back(self.drop(F.relu(self.norm2(self.look(inner)))))
my_block = Batch
""",
        """
class Tables(nn.Module):                            # 1024 numbers that it adds, nine that blur, 64 that fade
    def __init__(self, width, emb):
        super().__init__()
        hands, window = torch.arange(1, 5)[:, None, None] * torch.arange(8.0) / 4, torch.hann_window(10)[1:-1]
        waves = torch.cat([hands.sin(), hands.cos()]).expand(8, 8, 8)
        self.register_buffer("waves", torch.cat([waves, waves.mT]))
        self.register_buffer("blur", torch.tensor([[1.0, 2, 1], [2, 4, 2], [1, 2, 1]]).div(16).repeat(16, 1, 1, 1))
        self.window = torch.outer(window, window)
        self.norm1, self.into, self.time = nn.GroupNorm(4, width), nn.Conv2d(width, 16, 1), nn.Linear(emb, 16)
        self.look, self.norm2, self.back = nn.Conv2d(16, 16, 3, padding=1, groups=2), nn.GroupNorm(2, 16), nn.Conv2d(16, width, 1)
    def forward(self, h, e):
        inner = F.silu(self.into(F.silu(self.norm1(h))) + self.time(e)[:, :, None, None] + self.waves)
        inner = self.look(inner) + self.window * F.conv2d(inner, self.blur, padding=1, groups=16)
        return h + self.back(F.silu(self.norm2(inner)))
my_block = Tables
""",
        """
class Waves(nn.Module):                             # frequencies there and back by one table, coordinates, and bfloat16, which rounds
    def __init__(self, width, emb):
        super().__init__()
        k, line = torch.arange(8.0)[:, None], torch.linspace(-1, 1, 8)
        waves = (math.pi / 8 * (torch.arange(8) + 0.5) * k).cos() / 2 * torch.where(k > 0, 1.0, 0.5**0.5)
        self.register_buffer("waves", waves)
        self.register_buffer("places", torch.stack(torch.meshgrid(line, line, indexing="ij"))[None])
        self.norm1, self.into, self.time, self.place = nn.GroupNorm(4, width), nn.Conv2d(width, 12, 1), nn.Linear(emb, 12), nn.Conv2d(2, 12, 1)
        self.look, self.norm2, self.back = nn.Conv2d(12, 12, 3, padding=1, groups=2), nn.GroupNorm(2, 12), nn.Conv2d(12, width, 1)
        self.share = nn.Parameter(torch.zeros(12, 8, 8))
    def forward(self, h, e):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            inner = F.silu(self.into(F.silu(self.norm1(h))) + self.time(e)[:, :, None, None] + self.place(self.places))
            inner = self.look(inner) + self.waves.T @ (self.share * (self.waves @ inner @ self.waves.T)) @ self.waves
            return h + self.back(F.silu(self.norm2(inner))).float()
my_block = Waves
""",
    ],
}

WRONG = [
    # Step 1.
    ("alternating", "time", """
def time_embedding(t, dim):
    half = dim // 2
    angle = t.float()[:, None] * 10000 ** (-torch.arange(half) / (half - 1))
    return torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1)
""", {"check_time"}, "alternate"),
    ("cosines first", "time", """
def time_embedding(t, dim):
    half = dim // 2
    angle = t.float()[:, None] * 10000 ** (-torch.arange(half) / (half - 1))
    return torch.cat([angle.cos(), angle.sin()], dim=1)
""", {"check_time"}, "the cosines come first"),                                                 # diffusers' flip_sin_to_cos
    ("divided by half", "time", """
def time_embedding(t, dim):
    half = dim // 2
    angle = t.float()[:, None] * 10000 ** (-torch.arange(half) / half)
    return torch.cat([angle.sin(), angle.cos()], dim=1)
""", {"check_time"}, "divide i by half-1"),                                                     # diffusers' freq_shift
    ("rising frequencies", "time", """
def time_embedding(t, dim):
    half = dim // 2
    angle = t.double()[:, None] * 10000 ** (torch.arange(half).double() / (half - 1))
    return torch.cat([angle.sin(), angle.cos()], dim=1)
""", {"check_time"}, "your frequencies rise"),
    ("two frequencies for every size", "time", """
def time_embedding(t, dim):
    angle = t.float()[:, None] * torch.tensor([1.0, 1e-4]).repeat(dim // 4)
    return torch.cat([angle.sin(), angle.cos()], dim=1)
""", {"check_time"}, None),

    # Step 2.
    ("batch normalisation", "norm", """
def group_norm(h, groups):
    return (h - h.mean((0, 2, 3), keepdim=True)) / (h.var((0, 2, 3), keepdim=True, unbiased=False) + 1e-5).sqrt()
""", {"check_norm"}, "batch normalisation"),
    ("one group", "norm", """
def group_norm(h, groups):
    return F.layer_norm(h, h.shape[1:])
""", {"check_norm"}, "one group for the whole image"),
    ("each channel", "norm", """
def group_norm(h, groups):
    return F.instance_norm(h)
""", {"check_norm"}, "one group for each channel"),                                             # groups = channels
    ("n-1", "norm", """
def group_norm(h, groups):
    g = h.reshape(len(h), groups, -1)
    return ((g - g.mean(2, keepdim=True)) / (g.var(2, keepdim=True) + 1e-6).sqrt()).reshape(h.shape)
""", {"check_norm"}, "unbiased"),
    ("the variance", "norm", """
def group_norm(h, groups):
    g = h.reshape(len(h), groups, -1)
    return ((g - g.mean(2, keepdim=True)) / (g.var(2, keepdim=True, unbiased=False) + 1e-6)).reshape(h.shape)
""", {"check_norm"}, "divide by its root"),
    ("nothing under the root", "norm", """
def group_norm(h, groups):
    g = h.reshape(len(h), groups, -1)
    return ((g - g.mean(2, keepdim=True)) / g.std(2, keepdim=True, unbiased=False)).reshape(h.shape)
""", {"check_norm"}, None),

    # Step 3.
    ("not divided", "attention", """
def attention(q, k, v):
    return torch.softmax(q @ k.mT, dim=-1) @ v
""", {"check_attention"}, "not divided by √d"),
    ("divided by d", "attention", """
def attention(q, k, v):
    return torch.softmax(q @ k.mT / q.shape[-1], dim=-1) @ v
""", {"check_attention"}, "you divide by d"),
    ("over the questions", "attention", """
def attention(q, k, v):
    return torch.softmax(q @ k.mT / math.sqrt(q.shape[-1]), dim=1) @ v
""", {"check_attention"}, "runs over the questions"),
    ("questions and keys exchanged", "attention", """
def attention(q, k, v):
    return torch.softmax(k @ q.mT / math.sqrt(q.shape[-1]), dim=-1) @ v
""", {"check_attention"}, "questions and keys are exchanged"),
    ("over the batch", "attention", """
def attention(q, k, v):
    return torch.softmax(q @ k.mT / math.sqrt(q.shape[-1]), dim=0) @ v
""", {"check_attention"}, "runs over the batch"),
    ("without softmax", "attention", """
def attention(q, k, v):
    return q @ k.mT / math.sqrt(q.shape[-1]) @ v
""", {"check_attention"}, "the softmax is missing"),
    ("exp that overflows", "attention", """
def attention(q, k, v):
    w = (q @ k.mT / math.sqrt(q.shape[-1])).exp()
    return w / w.sum(-1, keepdim=True) @ v
""", {"check_attention"}, None),

    # Step 4.
    ("deaf to the time", "residual", """
def residual(x, emb, p):
    h = p.conv1(F.silu(p.norm1(x)))
    return p.shortcut(x) + p.conv2(F.silu(p.norm2(h)))
""", {"check_residual"}, "the time is not heard"),
    ("no residual", "residual", """
def residual(x, emb, p):
    h = p.conv1(F.silu(p.norm1(x))) + emb[:, :, None, None]
    return p.conv2(F.silu(p.norm2(h)))
""", {"check_residual"}, "p.shortcut is not called"),
    ("convolution first", "residual", """
def residual(x, emb, p):
    h = F.silu(p.norm1(p.conv1(x))) + emb[:, :, None, None]
    return p.shortcut(x) + F.silu(p.norm2(p.conv2(h)))
""", {"check_residual"}, "the convolution comes first"),
    ("the time after the norm", "residual", """
def residual(x, emb, p):
    h = p.norm2(p.conv1(F.silu(p.norm1(x)))) + emb[:, :, None, None]
    return p.shortcut(x) + p.conv2(F.silu(h))
""", {"check_residual"}, "after the second norm"),
    ("linear", "residual", """
def residual(x, emb, p):
    return p.shortcut(x) + p.conv2(p.norm2(p.conv1(p.norm1(x)) + emb[:, :, None, None]))
""", {"check_residual"}, "the SiLUs are missing"),
    ("x itself", "residual", """
def residual(x, emb, p):
    h = p.conv1(F.silu(p.norm1(x))) + emb[:, :, None, None]
    return x + p.conv2(F.silu(p.norm2(h)))
""", {"check_residual"}, "p.shortcut is not called"),
    ("the shortcut only where the width changes", "residual", """
def residual(x, emb, p):
    h = p.conv1(F.silu(p.norm1(x))) + emb[:, :, None, None]
    h = p.conv2(F.silu(p.norm2(h)))
    return (x if x.shape[1] == h.shape[1] else p.shortcut(x)) + h
""", {"check_residual"}, "p.shortcut is not called"),
    ("ReLU", "residual", """
def residual(x, emb, p):
    h = p.conv1(F.relu(p.norm1(x))) + emb[:, :, None, None]
    return p.shortcut(x) + p.conv2(F.relu(p.norm2(h)))
""", {"check_residual"}, "that is ReLU"),
    ("the time at the very end", "residual", """
def residual(x, emb, p):
    return p.shortcut(x) + p.conv2(F.silu(p.norm2(p.conv1(F.silu(p.norm1(x)))))) + emb[:, :, None, None]
""", {"check_residual"}, "at the very end"),

    # Step 5.
    ("padded all around", "resample", """
def padded(h):
    return F.pad(h, (1, 1, 1, 1))

def repeated(h):
    return F.interpolate(h, scale_factor=2.0)
""", {"check_resample"}, "on all four sides"),
    ("padded on the other side", "resample", """
def padded(h):
    return F.pad(h, (1, 0, 1, 0))

def repeated(h):
    return F.interpolate(h, scale_factor=2.0)
""", {"check_resample"}, "on the left and above"),
    ("tiles", "resample", """
def padded(h):
    return F.pad(h, (0, 1, 0, 1))

def repeated(h):
    return h.repeat(1, 1, 2, 2)
""", {"check_resample"}, "as tiles"),
    ("smoothed", "resample", """
def padded(h):
    return F.pad(h, (0, 1, 0, 1))

def repeated(h):
    return F.interpolate(h, scale_factor=2.0, mode="bilinear")
""", {"check_resample"}, "a square of four"),

    # Steps 6 and 7.
    ("no biases", "parameters_of_conv", "parameters = 18432", {"check_parameters"}, "the biases are missing"),
    ("biases of what comes in", "parameters_of_conv", "parameters = 18464", {"check_parameters"}, "an *outgoing* channel"),
    ("one incoming channel", "parameters_of_conv", "parameters = 640", {"check_parameters"}, "times the incoming width"),
    ("only the blocks", "stack", "on_the_stack, blocks_up = 6, 2", {"check_stack"}, "the blocks alone"),
    ("without the down-samplings", "stack", "on_the_stack, blocks_up = 7, 3", {"check_stack"}, "the down-samplings are remembered"),
    ("a down-sampling after every level", "stack", "on_the_stack, blocks_up = 10, 3", {"check_stack"}, "below the last level"),
    ("as many up as down", "stack", "on_the_stack, blocks_up = 9, 2", {"check_stack"}, "would be left over"),

    # Step 8.
    ("first in, first out", "widths", """
def widths_up(first, widths, blocks):
    stack = [first]
    for level, width in enumerate(widths):
        stack += [width] * (blocks + (level < len(widths) - 1))
    below, into = widths[-1], []
    for width in reversed(widths):
        for _ in range(blocks + 1):
            into.append(below + stack.pop(0))
            below = width
    return into
""", {"check_widths"}, "last in, first out"),
    ("the stack alone", "widths", """
def widths_up(first, widths, blocks):
    stack = [first]
    for level, width in enumerate(widths):
        stack += [width] * (blocks + (level < len(widths) - 1))
    return stack[::-1]
""", {"check_widths"}, "from below go in as well"),
    ("each level's own width from below", "widths", """
def widths_up(first, widths, blocks):
    stack = [first]
    for level, width in enumerate(widths):
        stack += [width] * (blocks + (level < len(widths) - 1))
    return [width + stack.pop() for width in reversed(widths) for _ in range(blocks + 1)]
""", {"check_widths"}, "the lower level's channels"),
    ("two levels only", "widths", """
def widths_up(first, widths, blocks):
    a, b = widths[0], widths[-1]
    return [b + b] * blocks + [b + a] + [b + a] + [a + a] * (blocks - 1) + [a + first]
""", {"check_widths"}, None),

    # Step 9.
    ("nothing at all", "my_block", """
class Through(nn.Module):
    def forward(self, h, e): return h
def my_block(width, emb): return Through()
""", {"check_my_block", "check_my_block_silver"}, "does your block have what it needs"),
    ("no neighbours", "my_block", """
class Pointwise(nn.Module):
    def __init__(self, w, e):
        super().__init__()
        self.n, self.a, self.e, self.b = nn.GroupNorm(4, w), nn.Conv2d(w, w, 1), nn.Linear(e, w), zero(nn.Conv2d(w, w, 1))
    def forward(self, h, e): return h + self.b(F.silu(self.a(F.silu(self.n(h))) + self.e(e)[:, :, None, None]))
my_block = Pointwise
""", {"check_my_block_silver"}, "the second tier begins"),
    ("Ho's block", "my_block", """
def my_block(width, emb): return Block(width, width, emb, False, UNetConfig(base=24, groups=4))
""", {"check_my_block", "check_my_block_silver"}, "may have 3,000"),
    ("a function", "my_block", "def my_block(width, emb): return lambda h, e: h", {"check_my_block", "check_my_block_silver"}, "must return a torch.nn.Module"),
    ("half the width", "my_block", """
class Half(nn.Module):
    def forward(self, h, e): return h[:, :12]
def my_block(width, emb): return Half()
""", {"check_my_block", "check_my_block_silver"}, "as it came in"),
    ("trained at home, and kept in buffers", "my_block", AT_HOME + """
for m in home.blocks.modules():
    for name, p in [*m.named_parameters(recurse=False)]:
        delattr(m, name)
        m.register_buffer(name, p.detach())
blocks = list(home.blocks)
def my_block(width, emb):
    blocks.append(blocks.pop(0))
    return blocks[-1]
""", {"check_my_block", "check_my_block_silver"}, "numbers that are no parameters"),
    ("trained at home, and hidden from the gradient", "my_block", AT_HOME + """
blocks = list(home.blocks)
class Home(nn.Module):
    def __init__(self, width, emb):
        super().__init__()
        blocks.append(blocks.pop(0))
        self.home = [blocks[-1]]
    @torch.no_grad()
    def moved(self, h, e): return self.home[0](h, e) - h
    def forward(self, h, e): return h + self.moved(h, e)
my_block = Home
""", {"check_my_block", "check_my_block_silver"}, "hidden from the gradient"),
    ("numbers in the code", "my_block", """
numbers = {name: p.tolist() for name, p in Block(24, 24, 24, False, UNetConfig(base=24, groups=4)).named_parameters()}
class Home(nn.Module):
    def forward(self, h, e):
        block = Block(24, 24, 24, False, UNetConfig(base=24, groups=4))
        return h + torch.func.functional_call(block, {name: torch.tensor(n) for name, n in numbers.items()}, (h, e))
def my_block(width, emb): return Home()
""", {"check_my_block", "check_my_block_silver"}, "numbers that are no parameters"),
]

SEEDED = {
    "parameters_of_conv": "parameters = 9 * WIDTH_IN * WIDTH_OUT + WIDTH_OUT",
    "stack": "on_the_stack, blocks_up = LEVELS * (BLOCKS + 1), BLOCKS + 1",
    "my_block": NARROW + "def my_block(width, emb): return Narrow(width, emb, inside=10, groups=1)",
}

BEST = {"my_block": NARROW + "def my_block(width, emb): return Narrow(width, emb, inside=18, groups=6)"}
