"""Where runs are done: in processes of this machine, or as tasks of a Ray cluster. Results are the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..errors import ConfigError, import_extra, pluralize
from . import records
from .train import Task, run

ALONE = {"OMP_NUM_THREADS": "1"}  # runs side by side share no core
PAUSE = 10  # seconds from one line of progress to the next, at least


def count_epochs(task: Task) -> int:
    """Return the number of epochs that a run has behind it, which Ultralytics writes to results.csv."""
    file = Path(task.folder, "results.csv")
    return len(file.read_text().splitlines()) - 1 if file.exists() else 0


def describe_progress(tasks: Sequence[Task], running: Sequence[Task], trained: int, seconds: float) -> str:
    """Return a line: which runs are in progress, at which epoch, and the time left at the pace of `trained` epochs."""
    planned = {task.name: int(task.recipe.get("epochs") or 100) for task in tasks}
    numbers = {task.name: i for i, task in enumerate(tasks, 1)}
    shown = "; ".join(
        f"run {numbers[t.name]} of {len(tasks)}: {t.name}, epoch {count_epochs(t)}/{planned[t.name]}" for t in running
    )
    missing = sum(planned.values()) - sum(map(count_epochs, tasks))
    return shown + (f", about {missing * seconds / trained / 60:.0f} min left" if trained else "")


def run_in_processes(tasks: Sequence[tuple[Task, Path]], jobs: int, command: str) -> list[str]:
    """Do runs in processes of their own, `jobs` at a time, and write their records; return the names of what failed."""
    waiting, every, failed = list(tasks), [task for task, _ in tasks], []
    running: dict[subprocess.Popen[bytes], Task] = {}
    before = shown = sum(map(count_epochs, every))
    start = printed = time.monotonic()
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                task, file = waiting.pop(0)
                argv = [sys.executable, "-m", __name__, json.dumps(asdict(task)), str(file), command, str(os.getpid())]
                with Path(f"{task.folder}.log").open("ab") as log:  # in a session of its own: Ctrl-C ends this process
                    env = {**os.environ, **ALONE}
                    child = subprocess.Popen(argv, stdout=log, stderr=log, env=env, start_new_session=True)
                running[child] = task
            time.sleep(0.2)
            for child in [child for child in running if child.poll() is not None]:
                task, result = running.pop(child), "done"
                if child.returncode:
                    failed.append(task.name)
                    last = Path(f"{task.folder}.log").read_text(errors="replace").rstrip().rpartition("\n")[2]
                    result = f"failed, see {task.folder}.log: {last[:200]}"
                print(f"{task.name}: {result}", flush=True)
            now, done = time.monotonic(), sum(map(count_epochs, every))
            if running and done != shown and now - printed > PAUSE:
                print(describe_progress(every, list(running.values()), done - before, now - start), flush=True)
                shown, printed = done, now
    finally:
        for child in running:
            child.terminate()
            child.wait()
    return failed


def run_over_ray(tasks: Sequence[tuple[Task, Path]], address: str, command: str) -> list[str]:
    """Do runs in a Ray cluster, one per GPU or CPU, and write their records; return the names of what failed.

    A run whose process or node dies is done again, up to three times, from its last epoch if its folder is shared.
    """
    ray = import_extra("ray", "ray")
    with records.wrap_errors(f"ray={address}"):
        ray.init(address, include_dashboard=False, log_to_driver=False)
    on_gpu = ray.cluster_resources().get("GPU", 0) > 0 and any(t.recipe.get("device") != "cpu" for t, _ in tasks)
    options = {"num_cpus": 1, "num_gpus": int(on_gpu), "max_calls": 1, "max_retries": 3}  # a process per run
    folder, failed = Path.cwd(), []

    def run_in_folder(task: Task) -> dict[str, Any]:
        os.chdir(folder)
        return run(task, command)

    remote = ray.remote(**options, runtime_env={"env_vars": ALONE})(run_in_folder)
    pending = {remote.remote(task): (task, file) for task, file in tasks}
    try:
        while pending:
            (reference,), _ = ray.wait(list(pending))
            task, file = pending.pop(reference)
            try:
                records.write(ray.get(reference), file)
                print(f"{task.name}: done, {pluralize(len(pending), 'run')} left", flush=True)
            except ray.exceptions.RayError as e:
                print(f"{task.name}: failed: {str(e).strip().splitlines()[-1]}", flush=True)
                failed.append(task.name)
    finally:
        ray.shutdown()
    return failed


def main(task: str, file: str, command: str, parent: str) -> None:
    """Do one run in this process and write its record; end soon after the parent has ended, however that was."""

    def watch() -> None:
        while os.getppid() == int(parent):
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    try:
        records.write(run(Task(**json.loads(task)), command), Path(file))
    except ConfigError as e:
        sys.exit(f"error: {e}")


if __name__ == "__main__":
    main(*sys.argv[1:])
