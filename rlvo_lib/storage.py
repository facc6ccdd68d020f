"""Where finished work is kept: atomic writes, content keys and locks.

A file written here is either whole or absent. A key is made from the content of what went in
(files, settings, source code), so that a changed input is never silently reused.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import math
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlvo_lib.config import InputError

if TYPE_CHECKING:
    import filelock
    import numpy as np
    import pandas as pd


#: Libraries whose version may change a number.
LIBRARIES = (
    "numpy", "scipy", "pandas", "scikit-learn", "scikit-image", "nibabel", "torch", "monai", "shap",
)  # fmt: skip

#: What a spreadsheet runs: text that begins so (the wide forms count too, OWASP "CSV injection") ...
_FORMULA = re.compile(r"\s*[=+\-@＝＋－＠]|[\t\r\n]")
#: ... and is not a signed number, or an interval of numbers.
_FIGURE = re.compile(r" *[+-][\d.][\d .,:;%±()\[\]–−-]*([eE][+-]?\d+)? *")


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; it takes the name ``path`` only if the block succeeds.

    Raises
    ------
    InputError
        If the disk is full or the folder cannot be written; nothing is left behind.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(
            dir=path.parent, prefix=f".{path.name.split('.')[0]}-", suffix="".join(path.suffixes)
        )
        os.close(descriptor)
    except OSError as error:
        raise _cannot_write(path, error) from error
    temporary = Path(name)
    try:
        yield temporary
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def _cannot_write(path: Path, error: OSError) -> InputError:
    """An `InputError` that says in words why a file cannot be written."""
    reasons = {
        errno.ENOSPC: "the disk is full; free some space and run again",
        errno.EDQUOT: "your disk quota is used up; free some space and run again",
        errno.EROFS: "the disk is read-only",
        errno.EACCES: "no permission to write there",
        errno.EEXIST: "a file is in the way of a folder",
        errno.ENOTDIR: "a file is in the way of a folder",
        errno.EISDIR: "a folder of that name is there",
    }
    return InputError(f"cannot write {path}: {reasons.get(error.errno, error.strerror or error)}")


def write_array(path: str | Path, array: np.ndarray) -> None:
    """Write an array as ``.npy``, atomically."""
    import numpy as np

    buffer = io.BytesIO()
    np.save(buffer, array)
    with atomic(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` as UTF-8 with Unix line ends, atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: str | Path, content: Any) -> None:
    """Write ``content`` as indented JSON in the order given, atomically; NaN becomes null."""
    text = json.dumps(_plain(content), indent=2, ensure_ascii=False, default=str, allow_nan=False)
    write_text(path, text + "\n")


def _plain(content: Any) -> Any:
    """Lists and dictionaries with null in the place of numbers that JSON does not have."""
    if isinstance(content, dict):
        return {name: _plain(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [_plain(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def read_json(path: str | Path) -> Any:
    """Read a JSON file."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def is_formula(text: str) -> bool:
    """Whether a spreadsheet may run a cell of this text as a formula.

    >>> [is_formula(text) for text in ('=HYPERLINK("x")', "@SUM(A1)", "-0.5", "-3 [-5, 2]", "M1")]
    [True, True, False, False, False]
    """
    return bool(_FORMULA.match(text)) and not _FIGURE.fullmatch(text)


def write_csv(path: str | Path, frame: pd.DataFrame) -> None:
    """Write a tidy table without its index, atomically; floats read back to the same double.

    Text that a spreadsheet would run gets an apostrophe before it (`is_formula`), in cells and column
    names. What is read back and written again is the same.
    """
    with atomic(path) as temporary:
        _harmless(frame).to_csv(temporary, index=False, lineterminator="\n", encoding="utf-8")


def csv_text(frame: pd.DataFrame) -> str:
    """What `write_csv` writes, as text."""
    return _harmless(frame).to_csv(index=False, lineterminator="\n")


def _harmless(frame: pd.DataFrame) -> pd.DataFrame:
    """The table with every cell and column name of text as it may be written."""
    import pandas as pd
    from pandas.api.types import is_bool_dtype, is_datetime64_any_dtype, is_numeric_dtype

    written = frame.copy(deep=False)
    written.columns = [_harmless_cell(name) for name in frame.columns]
    for position, dtype in enumerate(frame.dtypes):
        if is_numeric_dtype(dtype) or is_bool_dtype(dtype) or is_datetime64_any_dtype(dtype):
            continue
        cells = [_harmless_cell(cell) for cell in frame.iloc[:, position]]
        written.isetitem(position, pd.Series(cells, index=frame.index, dtype=object))
    return written


def _harmless_cell(cell: Any) -> Any:
    if not isinstance(cell, str):
        return cell
    # a lone carriage return is written unquoted, and what follows it would read as a row of its own
    cell = cell.replace("\r\n", "\n").replace("\r", "\n")
    return f"'{cell}" if is_formula(cell) else cell


def read_csv(path: str | Path, **options: Any) -> pd.DataFrame:
    """Read a table written by `write_csv`; identifiers stay text, floats are read exactly.

    Raises
    ------
    InputError
        If the file is missing or is not a table.
    """
    import pandas as pd

    path = Path(path)
    try:
        types = {"participant_id": str} | options.pop("dtype", {})
        return pd.read_csv(path, dtype=types, **options)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError, OSError) as error:
        raise InputError(f"{path}: not a readable CSV table ({error})") from error


def digest(path: str | Path) -> str:
    """SHA-256 of a file's content, as hexadecimal text."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def key(*parts: Any) -> str:
    """Sixteen hexadecimal characters that change when any part changes.

    >>> key("a", 1) == key("a", 1), key("a", 1) == key("a", 2)
    (True, False)
    """
    text = json.dumps(parts, sort_keys=True, default=str, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def code_key(*modules: str) -> str:
    """Key of modules of this package, by name (``"preprocess"``, ``"simulate"``), and of libraries.

    Source text and the versions of the numerical libraries count: work made by older code is never
    taken for work of the present code.
    """
    from importlib.metadata import version

    root = Path(__file__).parent
    sources = {}
    for module in modules:
        path = root / module
        files = sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]
        sources[module] = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    return key(sources, {name: version(name) for name in LIBRARIES})


def lock(path: str | Path) -> filelock.BaseFileLock:
    """A lock between processes, held as a context manager; the second process waits for the first."""
    import filelock

    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        open(f"{path}.lock", "a").close()  # where this fails, waiting for the lock would never end
    except OSError as error:
        raise _cannot_write(path, error) from error
    return filelock.FileLock(f"{path}.lock")
