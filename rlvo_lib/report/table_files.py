"""Tables on disk: tidy CSV, and the same as an HTML page and in LaTeX, with a stamped caption.

HTML and LaTeX are made from the text of the CSV alone, so they can be checked against it. A table of more
than `LONGEST` rows is no reading matter: its page shows the first `FIRST` and leads to the CSV, and there is
no LaTeX.
"""

from __future__ import annotations

import html
import re
from functools import cache
from pathlib import Path

import pandas as pd

from rlvo_lib import storage
from rlvo_lib.config import InputError

SIMULATED = "SIMULATED DATA"
LONGEST, FIRST = 130, 20  # rows shown whole at most; of a longer table
SENTENCE = 45  # characters: a text longer than this needs room
UNBROKEN = 32  # letters of a cell that stays on one line
_NUMBER = re.compile(r"-?\d+(\.\d+)?(e[+-]?\d+)?")
_SHORT = re.compile(r"[-–\d.,;:±/%() \[\]]+")
_TEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"} | {
    c: f"\\{c}" for c in "&%$#_{}"
}


def stamp_text(data: str) -> str:
    """``"SIMULATED DATA"`` for simulated data, else nothing.

    >>> stamp_text("simulated"), stamp_text("real")
    ('SIMULATED DATA', '')
    """
    if data not in ("simulated", "real"):
        raise InputError(f"data is '{data}'; allowed: simulated, real")
    return SIMULATED if data == "simulated" else ""


def with_data(frame: pd.DataFrame, data: str) -> pd.DataFrame:
    """The table with its column ``data``; an `InputError` if the table says otherwise."""
    stamp_text(data)
    if "data" not in frame:
        return frame.assign(data=data)
    if set(frame["data"]) - {data}:
        raise InputError(
            f"table: column 'data' holds {sorted(set(frame['data']))}; this run's is '{data}'"
        )
    return frame


def save_table(run: str | Path, name: str, frame: pd.DataFrame, *, data: str, caption: str) -> Path:
    """Write ``tables/<name>.csv`` (tidy, with a column ``data``), ``.html`` and ``.tex``.

    A table of more than `LONGEST` rows has no ``.tex``, and its page shows its first rows alone.

    Parameters
    ----------
    data : ``"simulated"`` or ``"real"``.
    caption : what the table shows, in a sentence or two; the stamp is put before it.

    Returns
    -------
    Path of the CSV file.
    """
    if not re.fullmatch(r"[a-z0-9_]+", name):
        raise InputError(f"table name '{name}'; allowed: a-z, 0-9 and _")
    folder = Path(run) / "tables"
    path = folder / f"{name}.csv"
    storage.write_csv(path, with_data(frame, data))
    text = read_text_table(path)
    stamp = stamp_text(data)
    caption = f"{stamp}. {caption}" if stamp else caption
    storage.write_text(folder / f"{name}.html", render_html(text, caption, name=name, data=data))
    tex = folder / f"{name}.tex"
    if len(text) > LONGEST:
        tex.unlink(missing_ok=True)  # of an earlier run
    else:
        storage.write_text(tex, render_tex(text, caption, name=name))
    return path


def read_text_table(path: str | Path) -> pd.DataFrame:
    """A CSV file as the text it was written in; an empty cell is an empty string."""
    try:
        return pd.read_csv(path, dtype=str, keep_default_na=False)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a readable CSV table ({error})") from error


def cell(text: str) -> str:
    """A CSV cell as it is read by people: three decimals, a dash for nothing.

    >>> cell("0.123456"), cell("12"), cell("0.0000321"), cell(""), cell("0.70 ± 0.02")
    ('0.123', '12', '3.2e-05', '–', '0.70 ± 0.02')
    """
    if text == "":
        return "–"
    if not _NUMBER.fullmatch(text) or not re.search(r"[.e]", text):
        return text
    number = float(text)
    return f"{number:.2g}" if 0 < abs(number) < 5e-4 else f"{number:.3f}"


def _class(column: pd.Series) -> str:
    """The HTML class of a column: numbers to the right, short words and ``0.7 ± 0.1`` unbroken.

    A column of sentences is given room, so that its rows stay low.
    """
    if _is_number(column):
        return ' class="number"'
    longest = column.str.len().max()
    if longest > SENTENCE:
        return ' class="sentence"'
    short = longest <= UNBROKEN or all(_SHORT.fullmatch(text) for text in column if text)
    return ' class="short"' if short else ""


def _is_number(column: pd.Series) -> bool:
    filled = column[column != ""]
    return len(filled) > 0 and all(_NUMBER.fullmatch(text) for text in filled)


def html_table(text: pd.DataFrame, caption: str) -> str:
    """An HTML table of a CSV's text, everything escaped; the column ``data`` is left to the caption."""
    text = text.drop(columns="data", errors="ignore")
    classes = [_class(text[c]) for c in text]
    head = "".join(
        f"<th{k}>{html.escape(str(c)).replace('_', ' ')}</th>"
        for c, k in zip(text, classes, strict=True)
    )
    rows = [
        "<tr>"
        + "".join(f"<td{k}>{html.escape(cell(v))}</td>" for v, k in zip(row, classes, strict=True))
        + "</tr>"
        for row in text.itertuples(index=False, name=None)
    ]
    body = "\n".join(rows)
    return (
        f"<table>\n<caption>{html.escape(caption)}</caption>\n<thead><tr>{head}</tr></thead>\n"
        f"<tbody>\n{body}\n</tbody>\n</table>"
    )


def shown_rows(text: pd.DataFrame) -> pd.DataFrame:
    """The rows that a table's own page shows: all, or the first of a long table."""
    return text if len(text) <= LONGEST else text.head(FIRST)


def render_html(text: pd.DataFrame, caption: str, *, name: str, data: str) -> str:
    """A page with one table, stamped if the data are simulated."""
    heading = caption.split(". ")[1 if data == "simulated" and ". " in caption else 0]
    body = f'<div class="scroll">{html_table(shown_rows(text), caption)}</div>'
    if len(text) > LONGEST:
        body += (
            f'<p class="note">The first {FIRST} of {len(text)} rows; all: '
            f'<a href="{name}.csv">{name}.csv</a></p>'
        )
    return template("page.html").render(heading=heading, data=data, body=body)


def read_caption(path: str | Path) -> str:
    """The caption of a table written by `save_table`, from its ``.html`` file; empty if none."""
    path = Path(path)
    found = (
        re.search(r"<caption>(.*?)</caption>", path.read_text("utf-8"), re.S)
        if path.exists()
        else None
    )
    return html.unescape(found.group(1)) if found else ""


def render_tex(text: pd.DataFrame, caption: str, *, name: str) -> str:
    """The table as a LaTeX float (package booktabs), everything escaped."""
    text = text.drop(columns="data", errors="ignore")
    align = "".join("r" if _is_number(text[c]) else "l" for c in text)
    lines = [" & ".join(_tex(str(c).replace("_", " ")) for c in text) + r" \\", r"\midrule"]
    lines += [
        " & ".join(_tex(cell(v)) for v in row) + r" \\"
        for row in text.itertuples(index=False, name=None)
    ]
    body = "\n".join(lines)
    return (
        f"\\begin{{table}}\n\\caption{{{_tex(caption)}}}\n\\label{{tab:{name}}}\n"
        f"\\begin{{tabular}}{{{align}}}\n\\toprule\n{body}\n\\bottomrule\n\\end{{tabular}}\n\\end{{table}}\n"
    )


def _tex(text: str) -> str:
    return "".join(_TEX.get(character, character) for character in text)


@cache
def _environment():
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("rlvo_lib", "templates"), autoescape=True, undefined=StrictUndefined,
        keep_trailing_newline=True,
    )  # fmt: skip


def template(name: str):
    """A Jinja2 template of the package, with escaping on."""
    return _environment().get_template(name)
