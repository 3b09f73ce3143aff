"""Sphinx's settings; build.py puts the pages together."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

project = html_title = "Denoising diffusion, a tutorial"
extensions = ["myst_nb", "mathematics"]
exclude_patterns = ["book/lab/index.html"]
suppress_warnings = ["myst.header"]                             # an exercise begins its steps with smaller headings than its title

html_theme = "furo"
html_math_renderer = "mathml"
html_static_path = ["static"]
html_css_files = ["mathematics.css", "book.css"]
html_copy_source = html_show_sourcelink = html_show_sphinx = html_show_copyright = False
html_domain_indices = html_use_index = False
html_theme_options = {
    "light_css_variables": {"font-stack--monospace": "'SFMono-Regular', Menlo, Consolas, 'DejaVu Sans Mono', 'Liberation Mono', monospace",
                            "color-brand-primary": "#00507d", "color-brand-content": "#0067a0", "color-brand-visited": "#0067a0"},
    "dark_css_variables": {"color-brand-primary": "#8fd0f5", "color-brand-content": "#8fd0f5", "color-brand-visited": "#8fd0f5"},
}
pygments_style, pygments_dark_style = "tango", "github-dark"

nb_execution_mode = "off"                                       # the committed outputs, and nothing else
nb_merge_streams = True
nb_render_image_options = {"alt": "The figure that the cell above draws; the text around it says what is to be seen"}
myst_enable_extensions = ["amsmath", "attrs_inline", "colon_fence", "dollarmath"]
myst_dmath_double_inline = True                                 # $$ … $$ within a paragraph is a displayed formula
myst_disable_syntax = ["myst_line_comment", "myst_block_break"]  # a line that begins with "% of …" is text
myst_heading_anchors = 4
myst_update_mathjax = False
