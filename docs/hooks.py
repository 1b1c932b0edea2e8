"""MkDocs hook: tables and plots of results/ that pages link to are part of the site, though they stand beside docs/."""

import re
from pathlib import Path

from mkdocs.structure.files import File


def on_files(files, config):
    """Add the files of results/ to the site, but for records of runs."""
    root = Path(config["config_file_path"]).parent
    for file in sorted((root / "results").rglob("*")):
        if file.is_file() and (file.suffix != ".json" or file.parent.name == "results"):
            path = file.relative_to(root).as_posix()
            files.append(File(path, str(root), config["site_dir"], config["use_directory_urls"]))
    return files


def on_page_markdown(markdown, **_):
    """Let links out of docs/ lead to those files."""
    return re.sub(r"\]\(\.\./((?:\.\./)*results/)", r"](\1", markdown)
