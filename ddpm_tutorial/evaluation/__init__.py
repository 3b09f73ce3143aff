"""The scales: how good are samples, and how sure are we?

Read `metrics.py` first: each number by itself, with its equation.  `judging.py` puts them side by side, for samples and for real images, which
is the only way to read them; `report.py` does it for a trained model and draws the pictures.
"""

from .judging import Judge, floors, judge, load_classifier, measure, measure_by, panel, save_classifier, sha256, table, torch_fidelity_fid

__all__ = ["Judge", "floors", "judge", "load_classifier", "measure", "measure_by", "panel", "save_classifier", "sha256", "table", "torch_fidelity_fid"]
