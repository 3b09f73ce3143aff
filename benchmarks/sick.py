"""Sick and healthy runs: the figures and numbers of docs/troubleshooting.md, from scratch, on the digits that come with scikit-learn.

    python benchmarks/sick.py            about five minutes on two CPU cores; writes docs/sick/*.png and docs/sick/measured.csv
    python benchmarks/sick.py grey       one symptom only, and no measured.csv

One small network is trained as it should be, and then again with one bug at a time.  Each bug is one line, marked with  # BUG.
"""

import copy
import csv
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch.optim.swa_utils import AveragedModel

from ddpm_tutorial import DDPM, data, drop_labels, final, linear, loss, plots, q_sample, sample, seeded_noise, target, timesteps
from ddpm_tutorial.evaluation import load_classifier, metrics
from ddpm_tutorial.training.recipes import RECIPES
from ddpm_tutorial.weights import PRETRAINED

HERE = Path(__file__).parents[1] / "docs" / "sick"
CONFIG, HOW = RECIPES["digits"]
STEPS, BATCH, T, NULL = 200, 64, 1000, 10
digits, held_out = data.load("digits"), data.load("digits", "test")
x_train, x_test = data.normalise(digits.images), data.normalise(held_out.images)
judge, _ = load_classifier(PRETRAINED["digits"].with_name("digits-classifier.safetensors"))
TEN = torch.arange(10)
rows = []                                                       # of measured.csv: symptom, cause, measurement, healthy, sick


# Training, with one bug at a time.

def train(bug="", x=x_train, y=digits.y, predict="v", steps=STEPS, keep=()):
    """→ the model with averaged weights, the losses, and what else was kept on the way."""
    began = time.process_time()
    torch.manual_seed(0)
    model = DDPM(replace(CONFIG, predict=predict))
    net, lr, cut = model.net, HOW.lr, 1.0
    if bug == "learning rate":
        lr, cut = 100 * lr, float("inf")                        # BUG: a hundred times too large, and nothing is cut
    trained = copy.deepcopy(net) if bug == "another network" else net                           # BUG: the optimizer holds a copy's weights
    optimizer = torch.optim.AdamW(trained.parameters(), lr=lr, betas=HOW.betas)
    ema = AveragedModel(net, multi_avg_fn=average(lambda n: min(HOW.ema, n / (n + 9))))
    cold = AveragedModel(net, multi_avg_fn=average(lambda n: 0.999))                            # BUG: a long memory from the first step on
    cold.n_averaged += 1                                        # the start counts as the first
    losses, norms, kept = [], [], {}
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1, (step + 1) / 50)
        pick = torch.randint(len(x), (BATCH,))
        x_0, label, t = x[pick], y[pick], torch.randint(1, T + 1, (BATCH,))
        eps = torch.randn_like(x_0)
        gone = torch.rand(BATCH) < 0.1
        if bug == "one coin":
            gone = (torch.rand(1) < 0.1).expand(BATCH)          # BUG: one coin for the whole batch
        if bug == "never dropped":
            gone = torch.zeros(BATCH, dtype=torch.bool)         # BUG: ∅ is never seen
        label = drop_labels(label, gone, NULL)
        if bug == "0 / 0":
            t = torch.randint(0, T + 1, (BATCH,))               # BUG: t = 0 is among them, and the loss divides by 1 - ᾱ_t
        if bug == "two noises":                                 # BUG: the target is made of another draw than the picture
            wanted = target(model.schedule, x_0, torch.randn_like(x_0), t, predict)
            value = (net(q_sample(model.schedule, x_0, eps, t), t, label) - wanted).square().mean()
        elif bug == "0 / 0":
            x_t, weight = q_sample(model.schedule, x_0, eps, t), model.schedule.noise(t, x_0)
            off = x_0 - (model.schedule.signal(t, x_t) * x_t - weight * net(x_t, t.clamp(min=1), label))        # of x̂_0, from v
            value = (off / weight).square().mean()
        else:
            value = loss(net, model.schedule, x_0, eps, t, label, predict).mean()
        optimizer.zero_grad()
        net.zero_grad()
        value.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(net.parameters(), cut)))
        optimizer.step()
        ema.update_parameters(net)
        cold.update_parameters(net)
        losses.append(value.item())
        if losses[-1] != losses[-1]:
            break                                               # NaN: nothing will come of it
        if step + 1 in keep:
            kept[step + 1] = DDPM(model.config, copy.deepcopy(ema.module)).eval()
    say(f"trained: {bug or 'healthy'}, loss {losses[0]:.3g} … {losses[-1]:.3g}, {time.process_time() - began:.0f} s of CPU time")
    return DDPM(model.config, ema.module).eval(), losses, {"norms": norms, "raw": model.eval(), "cold": DDPM(model.config, cold.module).eval(), **kept}


def average(decay):
    @torch.no_grad()
    def update(averaged, current, n):
        d = decay(int(n))
        for a, p in zip(averaged, current):
            a.lerp_(p, 1 - d)
    return update


# Measuring: the page shows these lines.

def ask(denoiser, schedule, t=500):
    """Mean squared error of the very denoiser that the sampler asks, in ε, at time t, on digits it has not seen."""
    eps = torch.randn(x_test.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return (denoiser(q_sample(schedule, x_test, eps, t), t) - eps).square().mean().item()


def edges(x):
    """Mean squared difference of neighbouring pixels."""
    return (x[..., 1:] - x[..., :-1]).square().mean().item()


def draw(model, y=TEN, scale=1.0, steps=20, **options):
    return model.sample(len(y), y, "ddim", steps, scale=scale, **options)


def note(symptom, cause, measurement, healthy, sick, form="{:.2f}"):
    rows.append((symptom, cause, measurement, form.format(healthy), form.format(sick)))
    say("   ", *rows[-1])


def say(*words):
    print(*words, flush=True)


def save(figure, name):
    figure.savefig(HERE / f"{name}.png", dpi=100, bbox_inches="tight")


def strips(name, kinds):
    save(plots.grid(torch.cat([x[:10].clamp(-1, 1) for x in kinds.values()]), columns=10, rows=list(kinds), size=0.62), name)


# The symptoms.

def flat(healthy_losses, healthy):
    _, two, _ = train("two noises", steps=100)
    _, frozen, _ = train("another network", steps=100)
    _, wild, more = train("learning rate", steps=100)
    _, divided, _ = train("0 / 0", steps=100)
    figure, ((axis,),) = plots.axes(width=8, height=3.6)
    lines = {"healthy": healthy_losses[:100], "two noises": two, "optimizer of another network": frozen, "learning rate × 100, nothing cut": wild}
    for (label, values), colour, style in zip(lines.items(), (0, 1, 2, 3), plots.STYLES):
        axis.plot(range(1, len(values) + 1), values, color=plots.COLOURS[colour], linestyle=style, linewidth=1.8, label=label)
    axis.set(xlabel="training step", ylabel="mean squared error of v (log scale)", yscale="log", title="the first hundred steps", yticks=(0.3, 0.5, 1, 2, 5))
    axis.set_yticklabels([f"{y:g}" for y in (0.3, 0.5, 1, 2, 5)])
    axis.tick_params(axis="y", which="minor", length=0, labelleft=False)
    axis.legend(fontsize=10)
    save(figure, "loss")
    late = slice(70, 100)
    note("flat", "two noises", "mean loss of steps 71 to 100", mean(healthy_losses[late]), mean(two[late]))
    note("flat", "the optimizer holds other weights", "mean loss of steps 71 to 100", mean(healthy_losses[late]), mean(frozen[late]))
    note("flat", "learning rate too large", "largest gradient norm", max(healthy["norms"][:100]), max(more["norms"][:100]), "{:.3g}")
    note("flat", "learning rate too large", "mean loss of steps 71 to 100", mean(healthy_losses[late]), mean(wild[late]))
    note("NaN", "division by 0 at t = 0", "first step whose loss is NaN (0: none)", 0, len(divided) if divided[-1] != divided[-1] else 0, "{:.0f}")


def noise(model, kept):
    free, x_T = model.denoiser(TEN), seeded_noise(0, TEN.tolist(), model.shape)(T)
    others = {"index for time": lambda x, t: free(x, max(t // 20, 1)),                          # BUG: the place in the list of 50 stops
              "v read as ε": DDPM(replace(model.config, predict="eps"), model.net).denoiser(TEN)}
    kinds = {"healthy": draw(model, steps=50)}
    for name, denoise in others.items():
        kinds[name] = final(sample(denoise, model.schedule, x_T, steps=50))
    kinds["stops at t = 200"] = final(sample(free, model.schedule, x_T, times=[t for t in timesteps(T, 50) if t >= 200]))       # BUG
    kinds["cold average"] = draw(kept["cold"], steps=50)
    strips("noise", kinds)
    none = model.denoiser(torch.full((len(x_test),), NULL), clip=False)
    right = ask(none, model.schedule)
    as_eps = DDPM(replace(model.config, predict="eps"), model.net).denoiser(torch.full((len(x_test),), NULL), clip=False)
    cold = kept["cold"].denoiser(torch.full((len(x_test),), NULL), clip=False)
    note("noise", "told another time", "error in ε at t = 500", right, ask(lambda x, t: none(x, max(t // 20, 1)), model.schedule))
    note("noise", "another prediction", "error in ε at t = 500", right, ask(as_eps, model.schedule))
    note("noise", "an average that remembers the start", "error in ε at t = 500", right, ask(cold, model.schedule))
    note("noise", "the walk does not arrive", "last time of the walk", 0, 200, "{:.0f}")


def grey(model):
    half, *_ = train("0 to 1", x=(x_train + 1) / 2)                                             # BUG: images in [0, 1]
    other = DDPM(model.config, model.net, linear(T)).eval()                                     # BUG: not the schedule that it was trained with
    strips("grey", {"real digits": x_test[metrics.per_class(held_out.y, 1)], "healthy": draw(model), "taught 0 … 1": draw(half),
                    "linear for cosine": draw(other)})
    note("grey", "another schedule", "largest difference of ᾱ", 0, (other.schedule.alpha_bar - model.schedule.alpha_bar).abs().max())
    right, y = draw(model, TEN.repeat(10)).mean(), TEN.repeat(10)
    words = f"mean of the samples (of real digits {x_test.mean():.2f})"
    note("grey", "another schedule", words, right, draw(other, y).mean())
    note("grey", "images in [0, 1]", "smallest value of a batch", x_train.min(), ((x_train + 1) / 2).min(), "{:.0f}")
    note("grey", "images in [0, 1]", words, right, draw(half, y).mean())


def saturated(model):
    eps_net, *_ = train("ε", predict="eps")
    raw, *_ = train("0 to 255", x=digits.images.float())                                        # BUG: images as they are in the file
    y, kinds = TEN.repeat(10), {"healthy": draw(model)}
    y_model, none = model.denoiser(y, clip=False), model.denoiser(torch.full_like(y, NULL), clip=False)
    x_T = seeded_noise(0, range(100), model.shape)(T)
    wild = final(sample(lambda x, t: none(x, t) + 12 * (y_model(x, t) - none(x, t)), model.schedule, x_T, steps=20))            # BUG: not clipped after guiding
    unclipped = final(sample(eps_net.denoiser(y, clip=False), model.schedule, x_T, steps=20))   # BUG: ε, cosine, and no clamp
    kinds |= {"scale 12, no clamp": wild, "ε, no clamp": unclipped, "ε, clamped": draw(eps_net), "taught 0 … 255": draw(raw, clip=False)}
    strips("saturated", kinds)
    size = final(model.trajectory(100, y, "ddim", 20, clip=False)).abs().max()
    note("saturated", "guidance without a clamp", "largest |x_0| before the last clamp", size, wild.abs().max(), "{:.3g}")
    note("saturated", "ε, cosine and no clamp", "largest |x_0| before the last clamp", size, unclipped.abs().max(), "{:.3g}")
    note("saturated", "images in 0 … 255", "largest value of a batch", x_train.max(), digits.images.max(), "{:.0f}")


def alike(model):
    few = metrics.per_class(digits.y, 2)
    crammed, *_ = train("twenty digits", x=x_train[few], y=digits.y[few])                       # BUG: twenty images to learn from
    y = TEN.repeat(20)
    one = seeded_noise(0, [0], model.shape)(T).expand(200, *model.shape)                        # BUG: the seed is set anew for each image
    same = final(sample(model.denoiser(y), model.schedule, one, steps=20)).clamp(-1, 1)
    many, by_heart, strong = draw(model, y), draw(crammed, y), draw(model, y, scale=8)
    threes = y == 3
    strips("alike", {"real": x_test[held_out.y == 3][:10], "healthy": many[threes], "one seed for all": same[threes], "scale 8": strong[threes],
                     "by heart": by_heart[threes]})
    varied = partial(metrics.variety, y=y, real=x_test, y_real=held_out.y)
    note("alike", "one seed for all", "variety", varied(many), varied(same))
    note("alike", "guidance too strong", "variety", varied(many), varied(strong))
    note("alike", "learnt by heart", "variety", varied(many), varied(by_heart))
    near = partial(metrics.memorisation, test=x_test)
    note("alike", "learnt by heart", "memorisation", near(many, x_train), near(by_heart, x_train[few]))


def smooth(model, kept):
    y = TEN.repeat(20)
    made = {f"{n} call{'s' * (n > 1)}": draw(model, y, steps=n) for n in (1, 2, 5)}
    early = draw(kept[50], y)
    many = draw(model, y)
    strips("smooth", {"real": x_test[metrics.per_class(held_out.y, 1)], "healthy, 20 calls": many, **made, "50 training steps": early})
    real = edges(x_test)
    note("smooth", "one call", "edges, over those of real digits", edges(many) / real, edges(made["1 call"]) / real)
    note("smooth", "two calls", "edges, over those of real digits", edges(many) / real, edges(made["2 calls"]) / real)
    note("smooth", "trained too briefly", "edges, over those of real digits", edges(many) / real, edges(early) / real)


def labels(model):
    models = {"a coin each": model, "one coin a batch": train("one coin")[0], "never dropped": train("never dropped")[0]}
    kinds, y = {}, TEN.repeat(20)
    for name, one in models.items():
        for scale in (0.0, 1.0, 3.0):
            kinds[f"{name}: {scale:g}"] = x = draw(one, y, scale=scale)
            right, varied = metrics.accuracy(judge, x, y), metrics.variety(x, y, x_test, held_out.y)
            rows.append(("labels", name, f"scale {scale:g}: agreement and variety", f"{right:.0%}", f"{varied:.2f}"))
            say("   ", *rows[-1])
    strips("labels", kinds)


def mean(values):
    return sum(values) / len(values)


def main(names):
    HERE.mkdir(exist_ok=True)
    model, losses, kept = train(keep=(50,))
    symptoms = {"flat": partial(flat, losses, kept), "noise": partial(noise, model, kept), "grey": partial(grey, model), "saturated": partial(saturated, model),
                "alike": partial(alike, model), "smooth": partial(smooth, model, kept), "labels": partial(labels, model)}
    for name in names or symptoms:
        symptoms[name]()
    if not names:
        with (HERE / "measured.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows([("symptom", "cause", "measurement", "healthy", "sick"), *rows])


if __name__ == "__main__":
    main(sys.argv[1:])
