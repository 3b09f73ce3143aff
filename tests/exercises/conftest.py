"""At the end of a run, the grader's own report: the answers it was tried on, and the points they got."""

from collections import defaultdict

HEAD = ("exercise", "points", "right answers with all of them", "wrong answers that lost exactly theirs", "points lost, fewest … most")


def pytest_terminal_summary(terminalreporter):
    tried = defaultdict(list)
    for outcome in ("passed", "failed"):
        for report in terminalreporter.stats.get(outcome, []):
            for key, value in getattr(report, "user_properties", []):
                if key == "answer" and report.when == "call":
                    name, points, right, lost = value
                    tried[name, points].append((right, lost, outcome == "passed"))
    if tried:
        terminalreporter.section("answers that the grader was tried on")
        terminalreporter.write_line("| " + " | ".join(HEAD) + " |\n|---|--:|--:|--:|--:|")
        for (name, points), answers in sorted(tried.items()):
            good = [fine for right, _, fine in answers if right]
            bad = [(lost, fine) for right, lost, fine in answers if not right]
            span = f"{min(lost for lost, _ in bad)} … {max(lost for lost, _ in bad)}" if bad else "–"
            terminalreporter.write_line(f"| {name} | {points} | {sum(good)} of {len(good)} | {sum(fine for _, fine in bad)} of {len(bad)} | {span} |")
        terminalreporter.write_line("One by one, with what the student reads:  python tests/exercises/runner.py NAME")
