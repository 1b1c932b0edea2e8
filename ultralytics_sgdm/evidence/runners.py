"""Where runs are done: in processes of this machine, or as tasks of a Ray cluster. Results are the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..errors import import_extra
from . import records
from .train import Task, run

ALONE = {"OMP_NUM_THREADS": "1"}  # runs side by side share no core


def collect(pending: Mapping[Future[dict[str, Any]], Task], out: Path) -> list[str]:
    """Write the record of each run that is done, with lines of progress; return the names of those that failed."""
    failed, left, start = [], dict(pending), time.monotonic()
    epochs = {task.name: (_count_epochs(task), task.recipe.get("epochs", 100)) for task in pending.values()}
    before = sum(done for done, _ in epochs.values())
    while left:
        finished = wait(left, 1, FIRST_COMPLETED).done  # a second at a time: Ctrl-C may reach another thread
        for task in left.values():
            done, most = epochs[task.name]
            if (now := _count_epochs(task)) > done:
                epochs[task.name] = now, most
                total = sum(done for done, _ in epochs.values())
                rest = sum(most for _, most in epochs.values()) - total
                minutes = (time.monotonic() - start) / 60 * rest / max(total - before, 1)
                left_over = f"{len(left)} of {len(pending)} runs left, about {minutes:.0f} min"
                print(f"{task.name}: epoch {now} of {most}; {left_over}", flush=True)
        for future in finished:
            name = left.pop(future).name
            try:
                records.write(future.result(), out / f"{name}.json")
                print(f"{name}: done", flush=True)
            except Exception as e:  # whatever a training raises
                print(f"{name}: failed: {str(e).rstrip().rpartition(chr(10))[2]}", flush=True)
                failed.append(name)
    return failed


def _count_epochs(task: Task) -> int:
    """Return the epochs that a run has in its folder, if that is on this machine."""
    file = Path(task.folder, "results.csv")
    return max(file.read_text().count("\n") - 1, 0) if file.exists() else 0


def run_in_processes(tasks: Sequence[Task], out: Path, jobs: int, command: str) -> list[str]:
    """Do runs in processes of their own, `jobs` at a time, and write their records; return the names of what failed."""
    reader, writer = os.pipe()  # a run ends when this process has closed it, or has been killed

    def run_one(task: Task) -> dict[str, Any]:
        argv = [sys.executable, "-m", __name__, json.dumps(asdict(task)), command]
        environment, log = {**os.environ, **ALONE}, Path(f"{task.folder}.log")
        print(f"{task.name}: started, see {log}", flush=True)
        with log.open("ab") as f:  # in a session of its own: Ctrl-C ends this process
            done = subprocess.run(argv, stdin=reader, stdout=f, stderr=f, env=environment, start_new_session=True)
        if done.returncode:
            raise RuntimeError(log.read_text(errors="replace"))
        return records.read(Path(task.folder, "record.json"))

    pool = ThreadPoolExecutor(max(jobs, 1))
    try:
        return collect({pool.submit(run_one, task): task for task in tasks}, out)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)  # else the next run starts as this one ends
        os.close(writer)
        pool.shutdown()
        os.close(reader)


def run_over_ray(tasks: Sequence[Task], out: Path, address: str, command: str) -> list[str]:
    """Do runs in a Ray cluster, one per GPU or CPU, and write their records; return the names of what failed.

    A run whose process or node dies is done again, up to three times, from its last epoch if its folder is shared.
    """
    ray = import_extra("ray", "ray")
    with records.wrap_errors(f"ray={address}"):
        ray.init(address, include_dashboard=False, log_to_driver=False)
    on_gpu = ray.cluster_resources().get("GPU", 0) > 0 and any(task.recipe.get("device") != "cpu" for task in tasks)
    options = {"num_cpus": 1, "num_gpus": int(on_gpu), "max_calls": 1, "max_retries": 3}  # a process per run
    folder = Path.cwd()

    def run_in_folder(task: Task) -> dict[str, Any]:
        os.chdir(folder)
        return run(task, command)

    remote = ray.remote(**options, runtime_env={"env_vars": ALONE})(run_in_folder)
    try:
        return collect({remote.remote(task).future(): task for task in tasks}, out)
    finally:
        ray.shutdown()


def main(task: str, command: str) -> None:
    """Do one run in this process and write its record to its folder; end with whoever holds standard input open."""

    def watch() -> None:
        os.read(0, 1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    given = Task(**json.loads(task))
    records.write(run(given, command), Path(given.folder, "record.json"))


if __name__ == "__main__":
    main(*sys.argv[1:])
