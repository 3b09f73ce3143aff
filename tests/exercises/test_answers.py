"""The grader accepts every right answer and no wrong one.

answers/<name>.py holds, for one exercise:
  RIGHT   {answer cell: [code, …]}: right answers written differently; each must keep all points, two or more for every function.
  WRONG   [(what, answer cell, code, {check cells that it loses}, part of the sentence that the student reads, or None)]: each must lose exactly
          these; None means that only the hidden tests notice.
  SEEDED  {answer cell: code}: answers that depend on the class seed, computed for any seed.  With another seed the public solution loses these.
  BEST    {answer cell: code}: of what is to be achieved, the best that is known.  The reference reaches the middle tier, and not the highest, `check_…_gold`.
"""

import contextlib
import io
import warnings

import pytest
from runner import ANSWERS, NAMES, SOURCE, Cell, answers, blank, execute, exercise, last_is_statement, read

RIGHT = [(name, where, i) for name in NAMES for where, codes in answers(name)["RIGHT"].items() for i in range(len(codes))]
WRONG = [(name, i) for name in NAMES for i in range(len(answers(name)["WRONG"]))]
CLASSES = [(name, seed) for name in NAMES for seed in (1, 2)]
CLASSES += [("01_noise_schedules", 13), ("06_classifier_free_guidance", 6)]     # seeds at which a public answer was right, by chance


def test_every_exercise_has_its_catalogue():
    assert NAMES == sorted(path.name for path in SOURCE.glob("[0-9]*")) == sorted(path.stem for path in ANSWERS.glob("*.py"))


def is_gold(check: str) -> bool: return check.endswith("_gold")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_reference_gets_every_point_and_is_silent(name):
    names = {"__name__": "__main__"}
    for cell in read(name):                                     # pictures too, and once
        if cell.kind in ("text", "question"):
            continue
        with warnings.catch_warnings(record=True) as warned, contextlib.redirect_stderr(io.StringIO()) as stderr:
            warnings.resetwarnings()
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            error = execute(cell, names)
        assert error is None or (is_gold(cell.name) and isinstance(error, AssertionError)), f"{cell.name}: {error!r}"
        assert not warned and not stderr.getvalue(), f"{cell.name} writes to stderr, for which nbgrader takes the points: {[str(w.message) for w in warned]}"
        if cell.kind == "check":
            assert last_is_statement(cell.source) and last_is_statement(blank(cell)), f"{cell.name} ends in a value, which nbgrader reads as points"


@pytest.mark.parametrize("name", NAMES)
def test_the_blank_release_gets_nothing(name):
    names, kept = {"__name__": "__main__"}, []
    for cell in read(name):
        if cell.kind in ("code", "answer", "check"):
            source = blank(cell) if cell.kind == "answer" else cell.source
            if execute(Cell(cell.name, cell.kind, source, 0), names) is None and cell.kind == "check":
                kept.append(cell.name)
    assert kept == []


@pytest.mark.parametrize("name, where, i", RIGHT)
def test_a_right_answer_gets_every_point(name, where, i, record_property):
    lost, _ = exercise(name).grade({where: answers(name)["RIGHT"][where][i]})
    record_property("answer", (name, sum(exercise(name).points.values()), True, 0))     # for the table of conftest.py
    assert all(map(is_gold, lost))


@pytest.mark.parametrize("name, where", [(name, where) for name in NAMES for where in answers(name).get("BEST", {})])
def test_the_best_that_is_known_reaches_every_tier(name, where):
    assert [check for check in exercise(name).grade({where: answers(name)["BEST"][where]})[0] if check.startswith(f"check_{where}")] == []


@pytest.mark.parametrize("scale", [1.15, 1.2, 1.25])
def test_one_scale_for_the_whole_walk_is_no_gold(scale):
    """Of 06: what is asked for is agreement without its cost, and that takes guidance at some times and not at others."""
    answer = f"def my_guidance(cond, uncond, weak): return classifier_free(cond, uncond, {scale})"
    assert "check_my_guidance_gold" in exercise("06_classifier_free_guidance").grade({"my_guidance": answer})[0]


def test_a_table_of_hills_fitted_to_six_answers_has_the_first_tier_at_most():
    """Of 08: the nearest of 54 sets of hills, of three widths and three weights each way.  In the hidden hills it is at the edge of the first tier, with luck
    within it; so it is no entry of the catalogue."""
    answer = """
def my_walk(velocity, x):
    mean = x - velocity(x, 1.0)
    places = [(t, mean + (0.2 + t) * x) for t in (0.7, 0.5, 0.35, 0.25, 0.15)]
    said = [velocity(at, t) for t, at in places]
    best, end = x * 0 + 1e9, x
    for means, spreads, weights in HILLS:
        for sign, width, more in ((a, b, c) for a in (1, -1) for b in (0.8, 1, 1.25) for c in (0.67, 1, 1.5)):
            at, w = sign * numbers(*means), numbers(*weights) * numbers(more, 1, 1)[:len(weights)]
            w = w / w.sum()
            data = at + (mean - (at * w).sum())[:, None], width * numbers(*spreads), w
            miss = sum((flow_of(*data)(p, t) - v).square() for (t, p), v in zip(places, said))
            end, best = torch.where(miss < best, ends_of(*data, x), end), torch.minimum(miss, best)
    return end
"""
    assert {"check_my_walk_silver", "check_my_walk_gold"} <= set(exercise("08_flow_matching").grade({"my_walk": answer})[0])


@pytest.mark.parametrize("name, i", WRONG, ids=[f"{name}-{answers(name)['WRONG'][i][0]}" for name, i in WRONG])
def test_a_wrong_answer_loses_its_points_and_no_others(name, i, record_property):
    _, where, code, lost, says = answers(name)["WRONG"][i]
    (failed, said), points = exercise(name).grade({where: code}), exercise(name).points
    failed, said = ({check: text for check, text in of.items() if check not in exercise(name).failed} for of in (failed, said))     # but for its gold
    record_property("answer", (name, sum(points.values()), False, sum(points[check] for check in failed)))
    assert set(failed) == set(lost)
    if says is None:
        assert said == {}, "the visible check notices this one: give the sentence it says"
    else:
        assert said and says in next(iter(said.values()))


@pytest.mark.parametrize("name", NAMES)
def test_the_catalogue_is_large_enough(name):
    book, cells = answers(name), read(name)
    assert len(book["WRONG"]) >= 6
    assert len({what for what, *_ in book["WRONG"]}) == len(book["WRONG"])
    for cell in cells:
        if cell.kind == "answer" and "def " in cell.source:
            assert len(book["RIGHT"].get(cell.name, [])) >= 2, f"two right answers for {cell.name}"
    noticed = set().union(*(lost for *_, lost, _ in book["WRONG"]), filter(is_gold, (c.name for c in cells)))
    assert noticed == {c.name for c in cells if c.kind == "check"}, "every check has a wrong answer that it notices"


@pytest.mark.parametrize("name, seed", CLASSES)
def test_another_class_gets_another_exercise(name, seed):
    theirs, book = exercise(name, seed), answers(name)
    assert len(theirs.failed) >= 2 and set(theirs.failed) <= set(theirs.points), "with another seed the public solution must lose two steps, and only checks"
    assert all(map(is_gold, theirs.grade(book["SEEDED"])[0]))
    assert all(map(is_gold, exercise(name).grade(book["SEEDED"])[0]))


def test_public_answers_pasted_into_another_class_keep_at_most_half_of_the_points():
    """The solutions are public, so a class seed must cost whoever pastes them at least half: it reaches functions, and not only numbers."""
    classes = [exercise(name, 1) for name in NAMES]
    kept = [sum(points for check, points in theirs.points.items() if check not in theirs.failed) for theirs in classes]
    assert sum(kept) <= sum(sum(theirs.points.values()) for theirs in classes) / 2, dict(zip(NAMES, kept))


def test_there_are_forty_wrong_answers():
    assert sum(len(answers(name)["WRONG"]) for name in NAMES) >= 40
