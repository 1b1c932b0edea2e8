"""What was read of the source, kept beside an unfinished set: a killed conversion goes on where it stopped."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any

import cv2
import PIL
import ultralytics

from .. import __version__
from ..configs import ConfigError

MARK = '["ultralytics_sgdm", '  # begins a journal


class Journal:
    """Remembers what functions returned for files, for as long as the files stay as they are.

    A line is a call, the state of its file and the result as JSON; the first line says which libraries read.

    Args:
        file: The journal; what an earlier process wrote there is known, except a line that it did not finish.

    Raises:
        ConfigError: If there is another file of that name.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._known: dict[str, tuple[str, str]] = {}
        self._lock = Lock()
        readers = [__version__, ultralytics.__version__, PIL.__version__, cv2.__version__]
        head = json.dumps(["ultralytics_sgdm", *readers]) + "\n"
        if file.is_file():
            with file.open(encoding="utf-8", errors="replace") as lines:
                first = next(lines, "")
                if not first.startswith(MARK[: len(first)]):
                    raise ConfigError(f"{file} is not ours and would be overwritten; choose another folder")
                if first == head:
                    for line in lines:
                        call, _, rest = line.partition("\t")
                        state, _, result = rest.partition("\t")
                        if result.endswith("\n"):
                            self._known[call] = state, result
        begun = bool(self._known)
        self._lines = file.open("a" if begun else "w", buffering=1, encoding="utf-8")
        self._lines.write("\n" if begun else head)

    def __call__(self, read: Callable[..., Any], file: Path, *arguments: Any) -> Any:
        """Return `read(file, *arguments)`, or what it returned when `file` was as it is; errors are not remembered.

        Args:
            read: A function whose result is made of JSON's types; a tuple of them may come back as a list.
            file: The file that it reads, by a path that tells it from others.
            arguments: What it takes besides.
        """
        try:
            status = file.stat()
        except OSError:
            return read(file, *arguments)  # which says what is wrong
        call = repr((read.__name__, str(file), *arguments))
        state = f"{status.st_mtime_ns} {status.st_size} {status.st_ino}"
        known_state, known = self._known.get(call, ("", ""))
        if known_state == state:
            try:
                return json.loads(known)
            except ValueError:
                pass  # a disk that lost its power
        result = read(file, *arguments)
        line = f"{call}\t{state}\t{json.dumps(result)}\n"
        with self._lock:
            self._lines.write(line)
        return result

    def close(self, finished: bool) -> None:
        """End it; a finished one is removed."""
        self._lines.close()
        if finished:
            self.file.unlink()
