import json

from rlvo_lib import progress


def test_items_pass_unchanged_and_nothing_is_printed_when_disabled(capsys, monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "1")
    assert list(progress.track(iter("abc"), total=3, label="letters")) == ["a", "b", "c"]
    assert capsys.readouterr().err == ""


def test_each_step_reaches_the_file_that_is_followed(tmp_path, monkeypatch):
    monkeypatch.setenv("RLVO_PROGRESS", str(tmp_path / "steps.jsonl"))
    list(progress.track("ab", label="letters", describe=str.upper))
    steps = [json.loads(line) for line in (tmp_path / "steps.jsonl").read_text().splitlines()]
    assert [(s["label"], s["done"], s["total"], s["detail"]) for s in steps] == [
        ("letters", 1, 2, "A"),
        ("letters", 2, 2, "B"),
    ]
    assert steps[-1]["left_s"] == 0


def test_an_error_in_the_block_is_not_counted_as_done(tmp_path, monkeypatch):
    monkeypatch.setenv("RLVO_PROGRESS", str(tmp_path / "steps.jsonl"))
    try:
        for _ in progress.track("ab", label="letters"):
            raise KeyError
    except KeyError:
        pass
    assert not (tmp_path / "steps.jsonl").exists()
