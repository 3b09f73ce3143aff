"""This folder is an nbgrader course.  `release.py` and `grade.py` use these settings, and so does the `nbgrader` command when it is run in here."""

c = get_config()  # noqa: F821

c.CourseDirectory.course_id = "ddpm_tutorial"
c.ClearSolutions.code_stub = {"python": "# YOUR CODE HERE\nraise NotImplementedError()"}
c.Execute.timeout = 60                                          # seconds a cell; the slowest one needs a few
c.Execute.iopub_timeout = 30                                    # seconds to stop after that: on a busy machine nbclient's 4 are too few
c.Execute.startup_timeout = 180
c.Execute.extra_arguments = ["--IPKernelApp.log_level=ERROR"]   # not a warning for every kernel
c.OverwriteCells.add_missing_cells = True                       # a check that was deleted comes back
c.IgnorePattern.enabled = True                                  # nbgrader takes all points for any text on stderr; a warning, a progress bar …
c.IgnorePattern.pattern = "."                                   # … is no mistake
