"""The page that `dvc plots` fills, with Vega inside: DVC's own fetches it from elsewhere."""

from pathlib import Path

import vl_convert

from meadow.errors import run
from meadow.pipeline import atomic
from meadow.storage import local_config

FILE = Path(".dvc/plots.html")  # never in Git: 0.9 MB that vl-convert-python brings along
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
{refresh_tag}
<title>Plots of DVC</title>
<style>body { font: 1rem/1.5 system-ui, sans-serif; margin: 1.5rem; }</style>
<script>SCRIPT</script>
</head>
<body>
<main>
<h1>Plots of DVC</h1>
{plot_divs}
</main>
</body>
</html>
"""


def write() -> None:
    """Write the page, and name it in .dvc/config.local."""
    script = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    with atomic.whole(FILE) as part:
        part.write_text(PAGE.replace("SCRIPT", script), "utf-8")
    local_config.configure("plots", html_template=FILE.name)


if __name__ == "__main__":
    run(write)
