"""Runs the numbered notebooks: with papermill into a run folder, or in place to refresh them.

A notebook's ``parameters`` cell is its only way in; a name that it does not have is refused before
anything runs. What a notebook did is kept by the stages it calls, so a run that was interrupted
continues where it stopped.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rlvo_lib import storage
from rlvo_lib.config import InputError, Settings, project_root

NAMES = (
    "01_cohort", "02_preprocessing", "03_unimodal_baselines", "04_multimodal_training",
    "05_explainability", "06_results",
)  # fmt: skip
#: Committed, stored and compared as they are, and no part of a run: they show no dataset.
APPENDICES = ("appendix_embedded_cohort",)

ALONE, EXPLAINS = "03_unimodal_baselines", "05_explainability"


class NotebookError(RuntimeError):
    """A notebook stopped for a reason that is not the user's input."""


def source(name: str) -> Path:
    """The committed notebook of that name."""
    path = project_root() / "notebooks" / f"{name}.ipynb"
    if not path.is_file():
        raise InputError(f"notebook {path} does not exist; run from a checkout of the project")
    return path


def run_all(settings: Settings, parameters: dict[str, Any]) -> list[Path]:
    """Run the six notebooks in order into ``notebooks/`` of the run folder, showing progress.

    ``parameters`` are those of the notebooks' ``parameters`` cell.

    Raises
    ------
    InputError
        For an unknown parameter, or a fault of the input that a notebook names.
    NotebookError
        If a notebook fails otherwise; it is kept as ``<name>.failed.ipynb``.
    """
    for name in NAMES:
        check_parameters(source(name), parameters)
    _check_dataset(settings)
    clear(settings.out)
    done = []
    with _quiet_kernels():
        for number, name in enumerate(NAMES, start=1):
            begun, title = time.monotonic(), f"[{number}/{len(NAMES)}] {name}"
            if name == EXPLAINS and not _networks(settings):
                print(f"{title}: left out, no network is to be run", file=sys.stderr)
                continue
            if name == ALONE and not _single_sources(settings):
                print(f"{title}: left out, no arm of one source is to be run", file=sys.stderr)
                continue
            with _followed(title):
                done.append(run_one(name, settings.out / "notebooks", parameters))
            print(f"{title}: done in {time.monotonic() - begun:.0f} s", file=sys.stderr)
    return done


def _check_dataset(settings: Settings) -> None:
    """Raise before anything of an earlier run is cleared, if this dataset may not take its place."""
    from rlvo_lib import analysis, cohort

    if settings.data is None:
        cohort.refuse_embedded_over(settings.out)
    else:
        analysis.open_analysis(settings)


def _single_sources(settings: Settings) -> bool:
    """Whether any arm that was asked for has images or the table alone."""
    from rlvo_lib.experiment import single_source

    arms = settings.study.arms
    asked = [arms[part] for name in settings.arms or arms for part in (name, *arms[name].of)]
    return any(a.group != "multimodal" and single_source(a) for a in asked)


def _networks(settings: Settings) -> bool:
    """Whether any arm that was asked for is a network with predictors, which can be explained."""
    arms = settings.study.arms
    asked = [arms[part] for name in settings.arms or arms for part in (name, *arms[name].of)]
    return any(arm.kind in ("cnn", "mlp") and arm.predictors for arm in asked)


def clear(run: Path) -> None:
    """Remove what an earlier run left in a run folder (not the split): no stale figure survives.

    Everything expensive lies in the cache and is found again. A folder that no run has written a
    notebook into is left as it is: it may be something else of the user's.
    """
    if not ((run / "split.csv").exists() and (run / "notebooks" / f"{NAMES[0]}.ipynb").exists()):
        return
    for name in ("tables", "figures", "notebooks", "attributions", "checklists"):
        shutil.rmtree(run / name, ignore_errors=True)
    for name in (
        "run.json",
        "pages.json",
        "index.html",
        "claims.csv",
        "claims.html",
        "wrong_predictions.html",
        "predictions.csv",
        "thresholds.csv",
    ):
        (run / name).unlink(missing_ok=True)


def check_parameters(path: Path, parameters: dict[str, Any]) -> None:
    """Raise an `InputError` if the notebook lacks one of the parameters."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    cell = [c for c in notebook["cells"] if "parameters" in c["metadata"].get("tags", [])]
    known = [
        line.split("=")[0].strip()
        for line in "".join(cell[0]["source"]).splitlines()
        if "=" in line
    ]
    for name in parameters:
        if name not in known:
            raise InputError(
                f"notebook {path.name} has no parameter '{name}'; allowed: {', '.join(known)}"
            )


def run_one(name: str, folder: Path, parameters: dict[str, Any]) -> Path:
    """Run one notebook with papermill; it appears in ``folder`` only once it has succeeded."""
    import papermill
    from papermill.exceptions import PapermillExecutionError

    final, failed = folder / f"{name}.ipynb", folder / f"{name}.failed.ipynb"
    failed.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        running = Path(scratch) / f"{name}.ipynb"
        try:
            papermill.execute_notebook(
                str(source(name)), str(running), parameters=parameters, kernel_name="python3",
                progress_bar=False, cwd=str(project_root()), log_output=False,
            )  # fmt: skip
        except PapermillExecutionError as error:
            if error.ename == "InputError":
                raise InputError(error.evalue) from None
            storage.write_text(failed, running.read_text(encoding="utf-8"))
            raise NotebookError(
                f"notebook {name}, cell {error.exec_count}: {error.ename}: {error.evalue} "
                f"(see {failed})"
            ) from error
        write(running, final)
    return final


def write(executed: Path, final: Path) -> None:
    """Keep an executed notebook without its times, paths and error stream: same run, same bytes."""
    import nbformat

    notebook = nbformat.read(executed, as_version=4)
    notebook.metadata.pop("papermill", None)
    notebook.metadata["kernelspec"] = {
        "display_name": "Python 3", "language": "python", "name": "python3"
    }  # fmt: skip
    notebook.metadata["language_info"] = {"name": "python"}
    for number, cell in enumerate(notebook.cells):
        tags = cell.metadata.get("tags", [])
        if "injected-parameters" in tags:
            cell["id"] = "injected-parameters"  # papermill's is random
        cell["id"] = cell.get("id") or f"cell-{number}"
        cell.metadata = {"tags": tags} if tags else {}
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
    storage.write_text(final, nbformat.writes(notebook) + "\n")


def refresh(path: Path) -> None:
    """Run a notebook in place with its own parameters and keep its outputs."""
    import nbformat
    from nbconvert.preprocessors import ExecutePreprocessor

    notebook = nbformat.read(path, as_version=4)
    runner = ExecutePreprocessor(timeout=None, kernel_name="python3")
    runner.preprocess(notebook, {"metadata": {"path": str(path.parent)}})
    with tempfile.TemporaryDirectory() as scratch:
        executed = Path(scratch) / path.name
        nbformat.write(notebook, executed)
        write(executed, path)


# ------------------------------------------------------------------------------------- progress


@contextmanager
def _quiet_kernels() -> Iterator[None]:
    """Kernels started inside do not warn that they speak over a local port."""
    with tempfile.TemporaryDirectory() as folder:
        profile = Path(folder) / "profile_default"
        profile.mkdir()
        (profile / "ipython_kernel_config.py").write_text("c.IPKernelApp.log_level = 40\n")
        with _environment("IPYTHONDIR", folder):
            yield


@contextmanager
def _followed(title: str) -> Iterator[None]:
    """Show on the error stream what the stages report while the block runs."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "progress.jsonl"
        path.touch()
        stop = threading.Event()
        follower = threading.Thread(target=_follow, args=(path, title, stop), daemon=True)
        follower.start()
        try:
            with _environment("RLVO_PROGRESS", str(path)):
                yield
        finally:
            stop.set()
            follower.join()


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    """An environment variable that is set inside the block, and as it was after it."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(name)
        else:
            os.environ[name] = before


def _follow(path: Path, title: str, stop: threading.Event) -> None:
    """Print the latest step: each second over itself on a terminal, every ten seconds elsewhere."""
    terminal = sys.stderr.isatty()
    print(f"{title} ...", file=sys.stderr)
    shown_at, shown_label, position, step = 0.0, "", 0, None
    while True:
        last_look = stop.wait(1.0)
        with open(path, encoding="utf-8") as handle:
            handle.seek(position)
            lines = handle.read()
        whole = lines.rfind("\n") + 1
        position += len(lines[:whole].encode())
        if whole:
            step = json.loads(lines[:whole].splitlines()[-1])
        due = time.monotonic() - shown_at >= 10 or (step and step["label"] != shown_label)
        if step and (terminal or due):
            text = f"{title}: {describe(step)}"
            print(f"\r\033[K{text}" if terminal else text, end="" if terminal else "\n",
                  file=sys.stderr, flush=True)  # fmt: skip
            shown_at, shown_label = time.monotonic(), step["label"]
            step = step if terminal else None
        if last_look:
            if terminal:
                print("\r\033[K", end="", file=sys.stderr)
            return


def describe(step: dict[str, Any]) -> str:
    """One step of the progress file in words.

    >>> describe({"label": "training", "done": 3, "total": 44, "left_s": 130.0, "detail": "cta, fold 2"})
    'training 3 of 44 (cta, fold 2), about 2 min left'
    """
    words = f"{step['label']} {step['done']}" + (f" of {step['total']}" if step["total"] else "")
    if step["detail"]:
        words += f" ({step['detail']})"
    if step["left_s"] is not None:
        left = step["left_s"]
        words += f", about {left / 60:.0f} min left" if left >= 90 else f", about {left:.0f} s left"
    return words


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        print(f"refreshing {argument}", file=sys.stderr)
        refresh(Path(argument))
