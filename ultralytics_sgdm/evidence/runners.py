"""Where runs are done: in processes of this machine, or as tasks of a Ray cluster. Results are the same."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from ultralytics.nn import tasks as yolo_tasks

from ..configs import ConfigError
from ..errors import import_extra as extra
from . import records
from .training import Task, run

ALONE = {"OMP_NUM_THREADS": "1"}  # runs side by side share no core


def log_of(task: Task) -> Path:
    """Return the file of what a run prints."""
    return Path(f"{task.folder}.log")


def _failure(log: Path) -> str:
    """Say why a run failed, in the last line of what it printed, and where the rest is."""
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return f"failed, see {log}" + (f": {lines[-1].strip()[:200]}" if lines else "")


def run_in_processes(tasks: Sequence[tuple[Task, Path]], jobs: int, command: str) -> list[str]:
    """Do runs in processes of their own, `jobs` at a time, and keep their records; return the names of what failed."""

    def one(task: Task, file: Path) -> str | None:
        log = log_of(task)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as f:
            argv = [sys.executable, "-m", __name__, task.to_json(), str(file), command, str(os.getpid())]
            child = subprocess.Popen(argv, stdout=f, stderr=f, env={**os.environ, **ALONE})
            children.append(child)
            status = child.wait()
        print(f"{task.name}: {'done' if status == 0 else _failure(log)}", flush=True)
        return None if status == 0 else task.name

    children: list[subprocess.Popen[bytes]] = []
    with ThreadPoolExecutor(jobs) as pool:
        try:
            return [name for name in pool.map(lambda t: one(*t), tasks) if name]
        except BaseException:  # such as an interrupt of this process alone: what waits is left out, what runs ends
            for child in children:
                child.terminate()
            raise


def run_over_ray(tasks: Sequence[tuple[Task, Path]], address: str, command: str) -> list[str]:
    """Do runs in a Ray cluster, one per GPU or CPU, and keep their records; return the names of what failed.

    Every node needs the same environment, and data and weights under the same paths; model YAMLs travel. A run whose
    process or node dies is taken up again, up to three times.

    Args:
        tasks: The runs, and the file of each record.
        address: Cluster, as `ray.init` takes it; "auto" for that of the environment, "local" to start one here.
        command: The command line that asked for them.
    """
    ray = extra("ray", "ray")
    try:
        ray.init(address, include_dashboard=False, log_to_driver=False)
    except ConnectionError as e:
        raise ConfigError(f"ray={address}: {e}") from e
    on_gpu = ray.cluster_resources().get("GPU", 0) > 0 and any(t.recipe.get("device") != "cpu" for t, _ in tasks)
    print(f"Ray: {len(tasks)} runs, one per {'GPU' if on_gpu else 'CPU'}", flush=True)
    remote = ray.remote(
        num_cpus=1,
        num_gpus=int(on_gpu),
        max_calls=1,  # a process per run, as without Ray
        max_retries=3,  # of those whose process dies; errors of Python are final
        runtime_env={"env_vars": ALONE},
    )(run_on_node)
    specs = {model: yolo_tasks.yaml_model_load(model) for model in {task.model for task, _ in tasks}}
    failed = []
    try:
        pending = {remote.remote(task, specs[task.model], Path.cwd(), command): (task, file) for task, file in tasks}
        while pending:
            (reference,), _ = ray.wait(list(pending))
            task, file = pending.pop(reference)
            try:
                records.keep(ray.get(reference), file)
                print(f"{task.name}: done", flush=True)
            except ray.exceptions.RayError as e:
                log = log_of(task)
                log.parent.mkdir(parents=True, exist_ok=True)
                with log.open("a") as f:
                    f.write(f"{e}\n")
                print(f"{task.name}: {_failure(log)}", flush=True)
                failed.append(task.name)
    finally:
        ray.shutdown()
    return failed


def run_on_node(task: Task, spec: dict[str, Any], cwd: Path, command: str) -> dict[str, Any]:
    """Do a run in a worker process of Ray, with the model of `spec` and relative paths as in `cwd`."""
    folder = Path(task.folder)
    folder.mkdir(parents=True, exist_ok=True)
    with log_of(task).open("ab") as f:
        for stream in (1, 2):
            os.dup2(f.fileno(), stream)
    cwd.mkdir(parents=True, exist_ok=True)
    os.chdir(cwd)
    file = folder.with_name(f"{folder.name}-model") / Path(spec["yaml_file"]).name
    file.parent.mkdir(exist_ok=True)
    file.write_text(yaml.safe_dump(spec, sort_keys=False))
    return {**run(replace(task, model=str(file)), command), "model": task.model}


def check_ray(address: str, recipes: Sequence[dict[str, Any]]) -> None:
    """Raise ConfigError unless runs of these recipes can go to a cluster."""
    if address not in ("auto", "local"):
        host, _, port = address.removeprefix("ray://").rpartition(":")
        try:
            socket.create_connection((host, int(port)), timeout=5).close()  # Ray itself would try for minutes
        except (OSError, ValueError) as e:
            raise ConfigError(f"ray={address}: {e}; say host:port of a cluster, auto or local") from e
    if any(recipe.get("device", "cpu") != "cpu" for recipe in recipes):
        raise ConfigError("with ray= each run has the GPU that Ray gives it: leave device= out, or say device=cpu")
    extra("ray", "ray")


def _end_with(parent: int) -> None:
    """End this process soon after its parent has ended, however that was ended."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def main(task: str, file: str, command: str, parent: str) -> None:
    """Do one run in this process and keep its record."""
    import json

    _end_with(int(parent))
    try:
        records.keep(run(Task(**json.loads(task)), command), Path(file))
    except ConfigError as e:
        sys.exit(f"error: {e}")


if __name__ == "__main__":
    main(*sys.argv[1:])
