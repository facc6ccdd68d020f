"""The order in which modules may import each other, and that importing does nothing heavy."""

import ast
import subprocess
import sys

from rlvo_lib.config import project_root

#: Each module or package imports only those above it.
ORDER = [
    "config", "storage", "progress", "workers", "dictionary", "metrics", "twins", "exclusions", "dataset", "cohort",
    "images", "validation", "intake", "dicom", "adapters", "head", "registration", "vessels", "perfusion", "preprocess",
    "simulate", "analysis", "tabular", "baselines", "encoders",
    "fusion", "augmentation", "training", "concepts", "experiment", "nested", "explain", "figures", "results", "ablation", "report",
    "verify", "external", "casebook", "notebooks", "cli",
]  # fmt: skip


def _noun(path):
    return path.relative_to(project_root() / "rlvo_lib").parts[0].removesuffix(".py")


def _imported(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("rlvo_lib"):
            rest = node.module.split(".")[1:]
            yield from [rest[0]] if rest else [alias.name for alias in node.names]
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("rlvo_lib."):
                    yield alias.name.split(".")[1]


def test_modules_import_only_those_above_them():
    files = sorted((project_root() / "rlvo_lib").rglob("*.py"))
    nouns = {_noun(path) for path in files} - {"__init__"}
    assert nouns == set(ORDER), "a module is missing from ORDER, or ORDER names one that is gone"
    for path in files:
        own = _noun(path)
        if own == "__init__":
            continue
        for name in _imported(path):
            if name != "__version__":
                assert ORDER.index(name) <= ORDER.index(own), f"{path.name} imports {name}"


def test_the_command_starts_without_heavy_imports():
    code = "import sys, rlvo_lib.cli; print(*[m for m in sys.modules])"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    heavy = {"torch", "monai", "shap", "pandas", "numpy", "matplotlib", "sklearn", "nibabel"}
    assert not heavy & set(loaded.stdout.split())


def test_results_and_verification_need_no_torch():
    code = "import sys, rlvo_lib.verify, rlvo_lib.results; print('torch' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"


def test_no_long_modules_and_no_drawers():
    for path in sorted((project_root() / "rlvo_lib").rglob("*.py")):
        assert path.stem not in ("utils", "helpers", "common", "misc")
        lines = path.read_text(encoding="utf-8").count("\n")
        assert lines <= 450, f"{path.name} has {lines} lines: it has outgrown its noun"
