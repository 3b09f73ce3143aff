"""This folder is an nbgrader course.  `release.py` and `grade.py` use these settings, and so does the `nbgrader` command when it is run in here."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from grader.notebook import Sandbox
from nbgrader.preprocessors import AssignLatePenalties, CheckCellMetadata, LimitOutput, SaveAutoGrades

c = get_config()  # noqa: F821

c.CourseDirectory.course_id = "ddpm_tutorial"
c.ClearSolutions.code_stub = {"python": "# YOUR CODE HERE\nraise NotImplementedError()"}
c.Autograde.autograde_preprocessors = [Sandbox, LimitOutput, SaveAutoGrades, AssignLatePenalties, CheckCellMetadata]        # no kernel: grader/sandbox.py
c.OverwriteCells.add_missing_cells = True                       # a check that was deleted comes back
