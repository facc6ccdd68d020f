"""A hospital's table becomes a dataset: a messy European export cell by cell, and each conversion alone."""

import dataclasses
import datetime
import errno
import io
import json
import os
import pathlib
import re
import subprocess
import sys

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvo_lib import intake, storage, validation
from rlvo_lib.config import InputError, project_root
from rlvo_lib.dictionary import Dictionary
from rlvo_lib.intake import quantities
from rlvo_lib.intake.dates import find_order

# ----------------------------------------------------------------------------- the messy export

MAP = """
[file]
missing = { "-97" = ["no hecha"] }
ignore = ["Observaciones"]

[dataset]
name = "Unidad de ictus"

[columns]
participant_id = { from = "Nº estudio", prefix = "V" }
split = { from = "Grupo", values = { E = "train", P = "test" } }
cv_fold = "Pliegue"
admit_year = { from = "Fecha TC", take = "year" }
centre = { value = "HVH" }
age = { from = ["Nacimiento", "Fecha TC"], take = "years" }
sex = { from = "Sexo", values = { H = "1", M = "0" } }
hypertension = "HTA"
diabetes = "DM"
dyslipidemia = "Dislipemia"
smoking_current = { from = "Tabaco", yes = ["fumador"], no = ["no", "exfumador"] }
af_known = "FA"
prior_stroke_tia = "Ictus previo"
cad = "Cardiopatía"
antiplatelet = "Antiagregante"
anticoagulant = { from = "Anticoagulante", values = { no = "0", Sintrom = "1", ACOD = "2" } }
pre_mrs = "mRS previo"
nihss_adm = "NIHSS"
sbp_adm = "TAS"
glucose_adm = { from = "Glucemia", unit = "mmol/L" }
onset_type = { from = "Inicio", values = { presenciado = 0, despertar = 1, desconocido = 2 } }
lkw_to_ct_min = { from = ["Última vez bien", ["Fecha TC", "Hora TC"]], take = "minutes" }
transfer = "Traslado"
ivt_pre = "Fibrinólisis"
side = { from = "Lado", values = { izdo = "0", dcho = "1" } }
occl_site_cta = { from = "Oclusión", values = { "ACI-T" = "2" } }
core_ml = "Core (ml)"
scan_datetime = { from = ["Fecha TC", "Hora TC"] }
etici_final = "TICI final"
final_stenosis_pct = "Estenosis"
rescue_type = { from = "Rescate", values = { no = "0", "balón" = "1", stent = "2" } }
"""

HEADER = [
    "NHC",
    "Nombre",
    "Nº estudio",
    "Nacimiento",
    "Sexo",
    "Fecha TC",
    "Hora TC",
    "Última vez bien",
    "HTA",
    "DM",
    "Dislipemia",
    "Tabaco",
    "FA",
    "Ictus previo",
    "Cardiopatía",
    "Antiagregante",
    "Anticoagulante",
    "mRS previo",
    "NIHSS",
    "TAS",
    "Glucemia",
    "Inicio",
    "Traslado",
    "Fibrinólisis",
    "Lado",
    "Oclusión",
    "Core (ml)",
    "TICI final",
    "Estenosis",
    "Rescate",
    "Grupo",
    "Pliegue",
    "Observaciones",
]

REMARKS = {1: "habla con la hija", 5: 'dice "mejor"; tranquilo', 11: "lugar:\nbox 3"}
EXPORT = [
    [*line.split(";"), REMARKS.get(number, "")]
    for number, line in enumerate("""\
88120001;SANTOS RUIZ, María;0001;05/03/1950;M;06/03/2021;10:15;06/03/2021 08:00;sí;no;Sí;no;no;no;no;sí;no;0;17;145;6,2;presenciado;no;sí;izdo;M1;12,5;IIb;20;no;E;1
88120002;FERRER PI, Núria;0002;31/12/1944;m;31/12/2020;9:05;30/12/2020 23:05;SI;SÍ;no;exfumador;sí;no;no;no;Sintrom;1;21;160;7,05;despertar;sí;no;dcho;m1;no hecha;2a;30;no;E;1
88120003;GÓMEZ SÁEZ, José;0003;01/01/1960;H;15/01/2019;23:59;15/01/2019 23:00;no;no;desconocido;fumador;no;sí;no;no;no;0;8;132;10;presenciado;no;SÍ;izdo;ACI-T;0;3;0;no;E;1
88120004;LÓPEZ, Ana;0004;29/02/1940;M;28/02/2022;00:30;27/02/2022 21:30;sí;no;sí;no;sí;no;sí;no;ACOD;2;14;178;5,9;presenciado;no;no;dcho;M2;33,25;TICI 2c;10;no;E;2
88120005;ROCA, Pere;0005;17/07/1971;H;17/07/2018;12:00;17/07/2018 10:30;no;no;no;fumador;no;no;no;no;no;0;5;;6,0;presenciado;sí;sí;izdo;M1;1;2B-50;60;no;E;2
88120006;VIDAL, Joan;0006;02/11/1936;H;02/12/2023;18:45;02/12/2023 12:45;Sí;sí;sí;exfumador;no;sí;sí;sí;no;3;24;201;11,1;desconocido;sí;no;dcho;ACI-T;80,75;0;-98;no;E;2
88120007;MAS, Carme;0007;13/04/1949;M;13/04/2020;07:07;13/04/2020 06:00;sí;no;no;no;sí;no;no;no;no;0;12;150;7;presenciado;no;sí;izdo;M1;5,5;2B50;40;stent;E;3
88120008;SOLER, Marc;0008;24/08/1955;H;25/08/2021;16:20;25/08/2021 15:00;no consta;no;sí;fumador;no;no;no;sí;no;1;19;139;8,4;presenciado;no;sí;dcho;M1;20;2b67;25;no;E;3
88120009;PONS, Lluïsa;0009;19/09/1938;M;18/09/2019;11:11;18/09/2019 03:11;sí;sí;sí;no;sí;sí;no;no;Sintrom;2;22;170;9,9;despertar;sí;no;izdo;ACI-T;44,1;eTICI 3;0;balón;E;3
88120010;SERRA, Oriol;0010;30/06/1966;H;30/06/2022;20:00;30/06/2022 18:15;no;no;no;desconocido;no;no;no;no;no;0;7;128;5,5;presenciado;no;sí;dcho;M2;0,5;III;5;no;E;4
88120011;FONT, Rosa;0011;21/05/1943;M;20/05/2018;05:45;20/05/2018 04:00;SÍ;no;SÍ;no;no;no;sí;sí;no;1;16;155;6,85;presenciado;no;no;izdo;M1;9;I;90;no;E;4
88120012;RIERA, Pau;0012;14/02/1958;H;15/02/2023;13:13;15/02/2023 12:00;no;Unbekannt;no;fumador;no;no;no;no;no;0;11;143;7,2;presenciado;sí;sí;dcho;M1;15,5;mTICI 2b;15;no;E;4
88120013;CASALS, Mercè;0013;22/10/1947;M;23/10/2020;22:22;23/10/2020 20:00;sí;no;sí;no;sí;no;no;no;ACOD;0;18;162;6,6;presenciado;no;no;izdo;M1;27;2A;50;no;P;
88120014;TORRES, Iván;0014;25/12/1969;H;24/12/2019;14:40;24/12/2019 14:00;no;no;no;exfumador;no;no;no;no;no;0;6;131;5,8;presenciado;no;sí;dcho;M2;2,25;3;0;no;P;
88120015;BOSCH, Eva;0015;07/08/1952;M;16/08/2021;08:30;15/08/2021 22:30;sí;no;sí;no;no;sí;no;sí;no;2;20;149;8,05;despertar;sí;no;izdo;ACI-T;61,2;2c;10;no;P;
""".splitlines(), 1)
]  # fmt: skip

EXPECTED = """\
participant_id admit_year centre age sex hypertension diabetes dyslipidemia smoking_current af_known prior_stroke_tia cad antiplatelet anticoagulant pre_mrs nihss_adm sbp_adm glucose_adm onset_type lkw_to_ct_min transfer ivt_pre side occl_site_cta core_ml scan_datetime rescue_type etici_final final_stenosis_pct
sub-V0001 2021 HVH 71 0 1 0 1 0 0 0 0 1 0 0 17 145 112 0 135 0 1 0 3 12.5 2021-03-06~10:15 0 2b 20
sub-V0002 2020 HVH 76 0 1 1 0 0 1 0 0 0 1 1 21 160 127 1 600 1 0 1 3 -97 2020-12-31~09:05 0 2a 30
sub-V0003 2019 HVH 59 1 0 0 -99 1 0 1 0 0 0 0 8 132 180 0 59 0 1 0 2 0 2019-01-15~23:59 0 3 0
sub-V0004 2022 HVH 81 0 1 0 1 0 1 0 1 0 2 2 14 178 106 0 180 0 0 1 4 33.25 2022-02-28~00:30 0 2c 10
sub-V0005 2018 HVH 47 1 0 0 0 1 0 0 0 0 0 0 5 -99 108 0 90 1 1 0 3 1 2018-07-17~12:00 0 2b50 60
sub-V0006 2023 HVH 87 1 1 1 1 0 0 1 1 1 0 3 24 201 200 2 360 1 0 1 2 80.75 2023-12-02~18:45 0 0 -98
sub-V0007 2020 HVH 71 0 1 0 0 0 1 0 0 0 0 0 12 150 126 0 67 0 1 0 3 5.5 2020-04-13~07:07 2 2b50 40
sub-V0008 2021 HVH 66 1 -99 0 1 1 0 0 0 1 0 1 19 139 151 0 80 0 1 1 3 20 2021-08-25~16:20 0 2b67 25
sub-V0009 2019 HVH 80 0 1 1 1 0 1 1 0 0 1 2 22 170 178 1 480 1 0 0 2 44.1 2019-09-18~11:11 1 3 0
sub-V0010 2022 HVH 56 1 0 0 0 -99 0 0 0 0 0 0 7 128 99 0 105 0 1 1 4 0.5 2022-06-30~20:00 0 3 5
sub-V0011 2018 HVH 74 0 1 0 1 0 0 0 1 1 0 1 16 155 123 0 105 0 0 0 3 9 2018-05-20~05:45 0 1 90
sub-V0012 2023 HVH 65 1 0 -99 0 1 0 0 0 0 0 0 11 143 130 0 73 1 1 1 3 15.5 2023-02-15~13:13 0 2b 15
sub-V0013 2020 HVH 73 0 1 0 1 0 1 0 0 0 2 0 18 162 119 0 142 0 0 0 3 27 2020-10-23~22:22 0 2a 50
sub-V0014 2019 HVH 49 1 0 0 0 0 0 0 0 0 0 0 6 131 104 0 40 0 1 1 4 2.25 2019-12-24~14:40 0 3 0
sub-V0015 2021 HVH 69 0 1 0 1 0 0 1 0 1 0 2 20 149 145 1 600 1 0 0 2 61.2 2021-08-16~08:30 0 2c 10
""".replace(" ", "\t").replace("~", " ")


def expected_bytes(words):
    """What participants.tsv must hold: the table above, in the order of the dictionary."""
    table = pd.read_csv(io.StringIO(EXPECTED), sep="\t", dtype=str)
    order = [name for name in words.fields if name in table]
    assert len(order) == table.shape[1]
    return table[order].to_csv(sep="\t", index=False, lineterminator="\n").encode()


def as_bytes(rows, header=HEADER, codec="latin-1"):
    """Rows as hospitals export them: semicolons, Windows line ends."""
    buffer = io.StringIO()
    pd.DataFrame(rows, columns=header).to_csv(buffer, sep=";", index=False, lineterminator="\r\n")
    return buffer.getvalue().encode(codec)


def write_workbook(path, rows=EXPORT):
    """The same rows as a workbook, with numbers, dates and times as Excel holds them."""
    from openpyxl import Workbook

    book = Workbook()
    book.active.append(HEADER)
    for row in rows:
        book.active.append([_typed(name, text) for name, text in zip(HEADER, row, strict=True)])
        for name, form in (("Nº estudio", "0000"), ("Nacimiento", "dd/mm/yyyy")):
            cell = book.active.cell(book.active.max_row, HEADER.index(name) + 1)
            cell.number_format = form
    book.save(path)


def _typed(name, text):
    if name in ("Nacimiento", "Fecha TC"):
        return datetime.datetime.strptime(text, "%d/%m/%Y")
    if name == "Hora TC":
        return datetime.datetime.strptime(text, "%H:%M").time()
    if name == "Última vez bien":
        return datetime.datetime.strptime(text, "%d/%m/%Y %H:%M")
    if re.fullmatch(r"-?\d+(,\d+)?", text):
        return float(text.replace(",", "."))
    return text or None


@pytest.fixture
def load(tmp_path, study, words):
    """A function that imports a file (bytes, text or a path) by a map and returns the report.

    The dataset is written to ``tmp_path / "dataset"``.
    """

    def load(content, map_text=None, *, dictionary=words, **options):
        file = content
        if isinstance(content, bytes | str):
            file = tmp_path / "export.csv"
            file.write_bytes(content if isinstance(content, bytes) else content.encode())
        map_path = None
        if map_text is not None:
            map_path = tmp_path / "map.toml"
            map_path.write_text(map_text, encoding="utf-8")
        out = tmp_path / "dataset"
        return intake.import_table(file, out, study, dictionary, map_path=map_path, **options)

    return load


@pytest.fixture
def table(tmp_path):
    """A function that gives the imported table as text by participant."""
    return lambda: pd.read_csv(
        tmp_path / "dataset" / "participants.tsv", sep="\t", dtype=str, keep_default_na=False
    ).set_index("participant_id")


@pytest.fixture
def column(load, table):
    """A function that imports one column of values and gives what became of them, and the report."""

    def column(name, values, entry='"x"', told=""):
        rows = [[f"{number:02d}", value] for number, value in enumerate(values, 1)]
        text = as_bytes(rows, ["id", "x"], "utf-8")
        said = (
            f'[file]\nseparator = ";"\n{told}\n[columns]\nparticipant_id = "id"\n{name} = {entry}\n'
        )
        report = load(text, said, replace=True)
        return list(table()[name]), report[report["column"] == name].drop(columns="column")

    return column


@pytest.fixture
def refused(column):
    """A function that imports one column and gives the problems that stopped it."""

    def refused(name, values, entry='"x"', told=""):
        with pytest.raises(intake.UnmappedError) as stopped:
            column(name, values, entry, told)
        return stopped.value.problems

    return refused


def steps(report):
    """The conversions of a report as (conversion, from, to, n)."""
    return list(report[["conversion", "from", "to", "n"]].itertuples(index=False, name=None))


def test_a_messy_european_export_comes_out_right(load, tmp_path, study, words):
    report = load(as_bytes(EXPORT), MAP)
    root = tmp_path / "dataset"
    assert (root / "participants.tsv").read_bytes() == expected_bytes(words)
    split = pd.read_csv(root / "split.csv", dtype=str, keep_default_na=False)
    assert split["participant_id"].tolist() == [f"sub-V{n:04d}" for n in range(1, 16)]
    assert split["partition"].tolist() == ["train"] * 12 + ["test"] * 3
    assert split["fold"].tolist() == [*"111222333444", "", "", ""]
    assert json.loads((root / "dataset_description.json").read_text()) == {
        "Name": "Unidad de ictus", "BIDSVersion": "1.10.0", "simulated": False,
        "GeneratedBy": [{"Name": "rlvo import", "Version": "0.1.0"}],
    }  # fmt: skip
    faults = validation.validate(root, study, words)
    assert faults[faults["severity"] == "error"].empty
    assert (
        storage.read_csv(root / "derivatives/import/report.csv")["n"].tolist()
        == report["n"].tolist()
    )


def test_nothing_of_the_person_comes_through(load, tmp_path):
    load(as_bytes(EXPORT), MAP)
    written = [path.read_text() for path in (tmp_path / "dataset").rglob("*") if path.is_file()]
    assert len(written) == 5
    for row in EXPORT:
        for secret in (
            row[0],
            row[1].split(",")[0],
            row[1].split()[-1],
            row[3],
            *filter(None, row[32:]),
        ):
            assert not any(secret in text for text in written), secret
    report = (tmp_path / "dataset/derivatives/import/report.json").read_text()
    assert json.loads(report)["columns_not_used"] == ["NHC", "Nombre"]


def test_each_conversion_is_counted(load):
    report = load(as_bytes(EXPORT), MAP)
    of = {name: steps(part) for name, part in report.groupby("column")}
    assert of[""][:3] == [
        ("encoding", "", "windows-1252", 1),
        ("separator", "", "semicolon", 1),
        ("column ignored, as the map says", "", "", 1),
    ]
    assert ("decimal mark of text cells", "", ",", 1) in of[""]
    assert of["glucose_adm"] == [
        ("decimal comma", ",", ".", 13),
        ("unit", "mmol/L", "mg/dL", 15),
        ("rounded to a whole number", "", "", 15),
    ]
    assert of["age"] == [
        ("date order detected", "", "dmy", 1),
        ("date order detected", "", "dmy", 1),
        ("completed years between two dates", "", "", 15),
    ]
    assert ("yes or no in words", "sí", "1", 6) in of["hypertension"]
    assert ("yes or no in words", "SÍ", "1", 1) in of["hypertension"]
    assert ("word for unknown", "no consta", "-99", 1) in of["hypertension"]
    assert ("TICI spelling", "IIb", "2b", 1) in of["etici_final"]
    assert ("missing, word of the map", "no hecha", "-97", 1) in of["core_ml"]
    assert of["mrs_90d"] == [("column of the dictionary that the file lacks", "", "", 1)]
    single = ("sex", "hypertension", "sbp_adm", "etici_final", "rescue_type", "side")
    for name in single:  # one conversion a value: nothing is left out and nothing counted twice
        assert sum(n for *_, n in of[name]) == 15, name


def test_the_same_content_in_excel_gives_the_same_table(load, tmp_path, words):
    path = tmp_path / "export.xlsx"
    write_workbook(path)
    load(path, MAP)
    assert (tmp_path / "dataset" / "participants.tsv").read_bytes() == expected_bytes(words)
    assert (tmp_path / "dataset" / "split.csv").exists()


def test_what_was_imported_imports_to_the_same_bytes(load, tmp_path):
    load(as_bytes(EXPORT), MAP)
    first = (tmp_path / "dataset" / "participants.tsv").read_bytes()
    (tmp_path / "again.tsv").write_bytes(first)
    report = load(tmp_path / "again.tsv")
    assert (tmp_path / "dataset" / "participants.tsv").read_bytes() == first
    changed = report[(report["column"] != "") & (report["conversion"] != "unchanged")]
    assert set(changed["conversion"]) == {
        "column of the dictionary that the file lacks", "date order detected",
    }  # fmt: skip


# ------------------------------------------------------------------------------------------ REDCap


def _redcap(raw):
    return raw.reset_index().to_csv(index=False).encode()


def test_a_redcap_raw_export_comes_through(raw, load, table):
    raw.insert(0, "redcap_data_access_group", "vh")
    raw["id_complete"] = "2"
    report = load(_redcap(raw.drop(columns=["split", "cv_fold"], errors="ignore")))
    kept = [name for name in table() if name in raw]
    pd.testing.assert_frame_equal(table()[kept], raw[kept], check_dtype=False)
    unused = report[report["conversion"] == "column of the file that is not used"]["source"]
    assert list(unused) == ["redcap_data_access_group", "id_complete"]


def test_a_redcap_label_export_comes_through(raw, load, table, words):
    raw = raw.drop(columns=["split", "cv_fold"], errors="ignore")
    labels = raw.copy()
    for name in raw:
        if words[name].is_categorical:
            labels[name] = raw[name].map(words[name].choices)
    labels.loc["sub-00", "final_stenosis_pct"] = "not applicable"
    labels.loc["sub-01", "aspects"] = "not done"
    raw.loc["sub-01", "aspects"] = "-97"
    labels = labels.rename_axis(words["participant_id"].label)
    labels = labels.rename(columns={name: words[name].label for name in labels})
    load(_redcap(labels))
    pd.testing.assert_frame_equal(table()[list(raw)], raw, check_dtype=False)


@pytest.mark.parametrize("name", ["redcap_event_name", "redcap_repeat_instrument", "Event Name"])
def test_several_rows_a_patient_in_redcap_are_refused_with_advice(load, name):
    text = f"participant_id,{name},age\n1,baseline,70\n2,baseline,71\n1,day_90,70\n"
    with pytest.raises(
        InputError, match="rows 2 and 4: a REDCap export with several rows .* report"
    ):
        load(text)
    load(text.replace("1,day_90,70\n", ""))


# ----------------------------------------------------------------------------------------- numbers


@given(st.decimals(-10_000, 10_000, places=3, allow_nan=False), st.sampled_from(",."))
def test_a_number_reads_back_the_same_with_comma_or_point(number, mark):
    text = str(number).replace(".", mark)
    assert quantities.parse(text, mark) == number
    assert float(quantities.plain(quantities.parse(text, mark))) == float(number)


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=-1e9, max_value=1e9))
def test_a_plain_number_keeps_its_double(number):
    number = 0.0 if abs(number) < 1e-20 else number
    assert float(quantities.plain(quantities.parse(repr(number), "."))) == number


def test_decimal_commas_are_inferred_and_counted(column):
    values, report = column("core_ml", ["6,20", "7", ",5", "\u221298", "+8,5", "\u00a09,0 "])
    assert values == ["6.2", "7", "0.5", "-98", "8.5", "9"]
    assert ("decimal comma", ",", ".", 4) in steps(report)


def test_a_point_is_never_a_thousands_mark_by_itself(column, refused):
    assert column("core_ml", ["1.200", "7"])[0] == ["1.2", "7"]
    assert refused("core_ml", ["1.200", "6,5"], told='decimal = ","')["value"].tolist() == ["1.200"]
    told = 'decimal = ","\nthousands = "."'
    values, report = column("core_ml", ["1.200", "1.234,5", "12"], told=told)
    assert values == ["1200", "1234.5", "12"]
    assert ("thousands mark taken out", ".", "", 2) in steps(report)
    assert refused("core_ml", ["12.00"], told=told)["value"].tolist() == ["12.00"]
    assert column("core_ml", ["1\u202f200,5"], told='decimal = ","\nthousands = " "')[0] == [
        "1200.5"
    ]


def test_a_mark_of_thousands_is_never_also_the_decimal_mark(column, refused, load, table):
    assert refused("core_ml", ["1.5"], told='thousands = "."')["value"].tolist() == ["1.5"]
    assert column("core_ml", ["1.200", "1,5"], told='thousands = "."')[0] == ["1200", "1.5"]
    assert column("core_ml", ["1,200", "1.5"], told='thousands = ","')[0] == ["1200", "1.5"]
    own = '{ from = "x", thousands = "." }'
    assert refused("core_ml", ["1.5"], own, 'decimal = "."')["value"].tolist() == ["1.5"]
    assert column("core_ml", ["1.5"], '{ from = "x", decimal = "." }', 'thousands = "."')[0] == [
        "1.5"
    ]


@pytest.mark.parametrize("value", ["1e29", "1" * 17, "9" * 40])
def test_numbers_beyond_all_measure_stop(refused, value):
    entry = '{ from = "x", unit = "mmol/L" }'
    assert refused("glucose_adm", [value], entry)["value"].tolist() == [value]


def test_commas_that_may_be_thousands_stop(refused, column):
    problems = refused("core_ml", ["1,200", "2,345"])
    assert "may be read with a decimal comma or with a thousands comma" in problems["value"][0]
    assert column("core_ml", ["1,200", "0,345"])[0] == ["1.2", "0.345"]
    assert column("core_ml", ["1,200"], told='thousands = ","\ndecimal = "."')[0] == ["1200"]


def test_mixed_decimal_marks_stop_and_ask(load, refused, column):
    problems = refused("core_ml", ["6,5", "6.5"])
    assert "'6,5' in column 'x' has a comma and '6.5' in column 'x' a point" in problems["value"][0]
    assert refused("core_ml", ["6,5", "6.5"], told='decimal = ","')["value"].tolist() == ["6.5"]
    text = "participant_id;core_ml;tmax6_ml\n1;6,5;7.5\n"
    with pytest.raises(intake.UnmappedError, match="decimal = "):
        load(text)
    load(text, '[columns]\ncore_ml = { decimal = "," }')


@pytest.mark.parametrize(
    "value",
    ["<5", "12 mg/dL", "abc", "1,2,3", "6.5.1", "70%", "#N/A", "#DIV/0!", "1e99", "٣", "0x1F", "-"],
)
def test_what_is_no_number_stops_with_row_column_value_and_what_is_allowed(refused, value):
    problems = refused("core_ml", ["7", value], told='decimal = "."')
    assert problems[["row", "source", "column", "value"]].to_numpy().tolist() == [
        [3, "x", "core_ml", value]
    ]


def test_whole_numbers_percent_and_codes_of_missing(column, refused):
    assert column("nihss_adm", ["7.0", "8.00", "007", "-99.0"])[0] == [
        "7",
        "8",
        "7",
        "-99",
    ]
    values, report = column("final_stenosis_pct", ["70 %", "5%", "8"])
    assert values == ["70", "5", "8"]
    assert ("percent sign taken off", "%", "", 2) in steps(report)
    assert column("hir", ["40%"], '{ from = "x", unit = "%" }')[0] == ["0.4"]


def test_other_units_come_from_the_dictionary(column, load):
    entry = '{ from = "x", unit = "mmol/L" }'
    assert column("glucose_adm", ["6,2", "-99", ""], entry)[0] == ["112", "-99", "-99"]
    assert column("clot_length_mm", ["1,25"], '{ from = "x", unit = "cm" }')[0] == ["12.5"]
    assert column("glucose_adm", ["112"], '{ from = "x", unit = "mg/dL" }')[0] == ["112"]
    with pytest.raises(
        InputError, match=r"glucose_adm: unit 'g/L' is not known; allowed: mg/dL, mmol/L"
    ):
        column("glucose_adm", ["1,1"], '{ from = "x", unit = "g/L" }')


# ------------------------------------------------------------------------------------------- codes


@pytest.mark.parametrize(
    ("word", "code"),
    [(word, "1") for word in ("Yes", "sí", "SI", "ja", "Oui", "sim", "sì", "TRUE", "Verdadero", "wahr",
                              "vrai", "Cert", "1", "1.0", "1,0")]
    + [(word, "0") for word in ("no", "NEIN", "non", "não", "nao", "False", "falso", "FALSCH", "faux", "0")]
    + [(word, "-99") for word in ("unknown", "Desconocido", "desconegut", "unbekannt", "Inconnue",
                                  "desconhecido", "sconosciuto", "no consta", "n/a", "N/A", "", "-99",
                                  "\u221299", "not recorded")],
)  # fmt: skip
def test_yes_no_and_unknown_in_the_languages_of_europe(column, word, code):
    assert column("hypertension", [word])[0] == [code]


@pytest.mark.parametrize("word", ["x", "s", "NA", "nd", "quizás", "2", "+"])
def test_words_that_are_not_clear_stop_unless_the_map_says_them(refused, column, word):
    problems = refused("hypertension", [word, "no"])
    assert (
        problems["value"].tolist() == [word]
        and "`values` in the map" in problems["allowed"][0]
        or (word == "-97")
    )
    assert column("hypertension", [word, "no"], f'{{ from = "x", values = {{ "{word}" = 1 }} }}')[
        0
    ] == ["1", "0"]


def test_words_of_the_map_for_the_file_and_for_a_column(column, refused):
    told = 'yes = ["x"]\nno = ["-"]\nmissing = { "-99" = ["ND"], "-97" = ["NH"] }'
    values, report = column("hypertension", ["X", "-", "nd"], told=told)
    assert values == ["1", "0", "-99"]
    assert ("missing, word of the map", "nd", "-99", 1) in steps(report)
    own = '{ from = "x", yes = ["-"], missing = { "-99" = ["x"] } }'
    assert column("hypertension", ["X", "-", "nd"], own, told)[0] == ["-99", "1", "-99"]
    assert column("aspects", ["NH", "nd", "8"], told=told)[0] == ["-97", "-99", "8"]
    problems = refused("hypertension", ["NH"], told=told)
    assert "missing codes of this column: -99" in problems["allowed"][0]


def test_words_for_yes_of_the_file_are_for_yes_or_no_columns_only(column, refused):
    assert column("hypertension", ["x"], told='yes = ["x"]')[0] == ["1"]
    assert refused("sex", ["x"], told='yes = ["x"]')["value"].tolist() == ["x"]
    assert column("sex", ["x"], '{ from = "x", yes = ["x"] }')[0] == ["1"]


def test_a_field_without_a_code_for_not_recorded_gets_n_a(column):
    assert column("admit_year", ["", "unknown", "N/A", "2021"])[0] == ["n/a", "n/a", "n/a", "2021"]


def test_codes_and_labels_without_case_and_accents(column, refused):
    values, report = column("sex", ["Female", "MALE", "0", "1.0", "fémale"])
    assert values == ["0", "1", "0", "1", "0"]
    assert ("code or label", "Female", "0", 1) in steps(report)
    problems = refused("sex", ["H", "1", "H", "V"])
    assert problems["row"].tolist() == [2, 4, 5]
    assert "0 (female), 1 (male); missing: -99; or say what it means" in problems["allowed"][0]


def test_a_word_for_unknown_is_not_taken_where_unknown_is_a_choice(column, refused):
    assert column("onset_type", ["unknown", "-99", ""])[0] == ["2", "-99", "-99"]
    assert refused("onset_type", ["desconocido"])["value"].tolist() == ["desconocido"]
    own = '{ from = "x", missing = { "-99" = ["unknown"] } }'
    assert column("onset_type", ["unknown"], own)[0] == ["-99"]


def test_values_of_the_map_go_first_also_for_blanks(column):
    entry = '{ from = "x", values = { H = "1", "h" = "0", "" = "0", "1" = "0", "0" = "0" } }'
    assert column("sex", ["H", "h", "", "1", "0"], entry)[0] == ["1", "0", "0", "0", "0"]


def test_values_of_the_map_hold_for_numbers_that_another_program_gave_decimals(column, refused):
    swapped = '{ from = "x", values = { "0" = "1", "1" = "0" } }'
    assert column("sex", ["1", "1.0", "0,0", "0.00"], swapped)[0] == ["0", "0", "1", "1"]
    nines = '{ from = "x", missing = { "-99" = ["99", "-9"] } }'
    assert column("age", ["99", "99.0", "\u22129", "70"], nines)[0] == ["-99", "-99", "-99", "70"]
    assert refused("sex", ["1.000", "0"], swapped)["value"].tolist() == ["1.000"]


def test_a_word_for_missing_in_the_whole_file_is_no_value_of_a_column(column, refused):
    told = 'missing = { "-99" = ["9", "999"] }'
    for name in ("occl_site_cta", "nihss_adm"):
        problems = refused(name, ["9", "3", "999"], told=told)
        assert problems["value"].tolist() == ["9"]
        assert "say at this column what it means" in problems["allowed"][0]
        own = '{ from = "x", missing = { "-99" = ["9"] } }'
        assert column(name, ["9.0", "3", "999"], own, told)[0] == ["-99", "3", "-99"]
        own = '{ from = "x", values = { "9" = 9 } }'
        assert column(name, ["9", "3"], own, told)[0] == ["9", "3"]
    assert column("hypertension", ["9", "1"], told=told)[0] == ["-99", "1"]


def test_codes_with_another_meaning_have_to_be_named_all(refused, column):
    entry = '{ from = "x", values = { "1" = "0", "2" = "1" } }'
    problems = refused("sex", ["1", "2", "0", "male", ""], entry)
    assert problems["value"].tolist() == ["0", "male"]
    assert "it gives codes of the dictionary another meaning" in problems["allowed"][0]
    assert column("sex", ["1", "2", "", "-99"], entry)[0] == ["0", "1", "-99", "-99"]


@pytest.mark.parametrize("place", ["file", "column"])
def test_yes_and_no_of_the_map_go_before_the_codes(column, refused, place):
    words = 'yes = ["2"], no = ["1"]'
    entry, told = f'{{ from = "x", {words} }}', ""
    if place == "file":
        entry, told = '"x"', words.replace(", no", "\nno")
    assert column("hypertension", ["1", "2", "2.0"], entry, told)[0] == ["0", "1", "1"]
    assert refused("hypertension", ["0", "sí"], entry, told)["value"].tolist() == ["0", "sí"]


def test_a_word_that_would_stand_for_two_codes_stands_for_none(refused, column):
    entry = '{ from = "x", values = { "SÍ" = "1", "sí" = "0" } }'
    assert column("sex", ["SÍ", "sí"], entry)[0] == ["1", "0"]
    assert refused("sex", ["Si"], entry)["value"].tolist() == ["Si"]


def test_what_a_value_becomes_is_what_the_column_holds(column, refused):
    for name, code in (("age", "old"), ("scan_datetime", "01/02/2021"), ("hir", "high")):
        with pytest.raises(InputError, match=f"'x' becomes '{code}'; allowed"):
            column(name, ["x"], f'{{ from = "x", values = {{ x = "{code}" }} }}')
    assert column("age", ["x"], '{ from = "x", values = { x = 90 } }')[0] == ["90"]
    assert column("centre", ["x"], '{ from = "x", values = { x = "=1+1" } }')[0] == ["'=1+1"]
    assert refused("rlvo", ["x"], '{ from = "x", values = { x = 7 } }')["value"].tolist() == ["x"]


def test_the_report_does_not_name_whom_a_code_stands_for(column):
    entry = '{ from = "x", values = { "Dr. García" = "A" } }'
    values, report = column("operator", ["Dr. García", "dr. garcia", "B"], entry)
    assert values == ["A", "A", "B"]
    assert steps(report) == [("value of the map", "", "", 2), ("unchanged", "", "", 1)]


def test_a_reason_in_words_is_read_where_unknown_is_a_choice(column):
    assert column("onset_type", ["not recorded", "unknown"])[0] == ["-99", "2"]


@pytest.mark.parametrize(
    ("text", "code"),
    [("2b", "2b"), ("IIb", "2b"), ("2B50", "2b50"), ("2b-50", "2b50"), ("TICI IIb", "2b"),
     ("mTICI 2b", "2b"), ("eTICI 2c", "2c"), ("III", "3"), ("3", "3"), ("3.0", "3"), ("2B 67", "2b67"),
     ("IIA", "2a"), ("tici0", "0"), ("I", "1"), ("2b (67)", "2b67"), ("TICI grade 2a", "2a")],
)  # fmt: skip
def test_tici_grades(column, text, code):
    assert column("etici_final", [text])[0] == [code]


@pytest.mark.parametrize("text", ["2", "II", "2d", "IV", "2b-3", "TICI", "4", "2b/2c"])
def test_what_is_no_tici_grade_stops(refused, text):
    assert refused("etici_final", [text])["value"].tolist() == [text]


def test_the_outcome_that_redcap_calculates_is_a_yes_or_no(column, refused):
    assert column("rlvo", ["sí", "0", "1.0", "unknown"])[0] == ["1", "0", "1", "-99"]
    assert refused("rlvo", ["2"])["value"].tolist() == ["2"]


# ------------------------------------------------------------------------------------------- dates


@pytest.mark.parametrize(
    ("values", "order", "result"),
    [
        (["31/01/2021", "1/2/2021 9:05"], "dmy", ["2021-01-31", "2021-02-01 09:05"]),
        (["01/31/2021", "02/01/2021 09:05:30"], "mdy", ["2021-01-31", "2021-02-01 09:05:30"]),
        (["2021.01.31", "2021.2.1T09:05"], "ymd", ["2021-01-31", "2021-02-01 09:05"]),
        (["31-01-2021 00:00", "05-05-2021"], "dmy", ["2021-01-31 00:00", "2021-05-05"]),
        (["05/05/2021", "unknown", ""], "dmy", ["2021-05-05", "-99", "-99"]),
    ],
)
def test_the_order_of_dates_is_inferred_where_one_fits(column, values, order, result):
    got, report = column("scan_datetime", values)
    assert got == result
    assert ("date order detected", "", order, 1) in steps(report)


def test_an_ambiguous_order_stops_with_both_readings(refused, column):
    problems = refused("scan_datetime", ["03/04/2021", "01/01/2021"])
    assert problems["value"][0] == "'03/04/2021' is 3 April 2021 as dmy and 4 March 2021 as mdy"
    assert 'date_order = "dmy"' in problems["allowed"][0]
    assert column("scan_datetime", ["03/04/2021"], told='date_order = "mdy"')[0] == ["2021-03-04"]
    entry = '{ from = "x", date_order = "dmy" }'
    assert column("scan_datetime", ["03/04/2021"], entry, 'date_order = "mdy"')[0] == ["2021-04-03"]


def test_mixed_orders_stop_with_an_example_of_each(refused):
    problems = refused("scan_datetime", ["23/04/2021", "04/24/2021", "2021-04-25"])
    assert problems["value"].tolist() == [
        "dates in different orders: '23/04/2021' is dmy, '04/24/2021' is mdy, '2021-04-25' is ymd"
    ]


@given(
    st.lists(st.dates(datetime.date(1900, 1, 1), datetime.date(2100, 1, 1)), min_size=1, max_size=5)
)
def test_an_order_that_is_found_is_never_wrong(dates):
    for order, form in (("dmy", "%d/%m/%Y"), ("mdy", "%m/%d/%Y"), ("ymd", "%Y-%m-%d")):
        found, problem = find_order([f"{date:{form}}" for date in dates])
        same = all(date.day == date.month for date in dates)
        assert found in ((order, "dmy") if same else (order, "")), problem


@pytest.mark.parametrize(
    "value",
    ["31/02/2021", "01/02/21", "20210102", "yesterday", "01/02/2021 25:00", "01/02/2021 3:04 PM", "1/2-2021",
     "2021-01-02T10:00Z", "00/01/2021", "01/01/0021"],
)  # fmt: skip
def test_what_is_no_date_stops(refused, value):
    problems = refused("scan_datetime", ["31/01/2021", value])
    assert problems[["row", "value"]].to_numpy().tolist() == [[3, value]]
    two_digits = "two do not say the century" in problems["allowed"][0]
    assert two_digits == (value == "01/02/21")


def test_the_number_of_a_day_in_excel_is_no_date_and_is_explained(refused):
    for value in ("43891", "43891.5"):
        assert "Excel's number of a day" in refused("scan_datetime", [value])["allowed"][0]


def test_a_time_of_twelve_hours_is_asked_for_in_twenty_four(refused):
    for value in ("01/31/2021 3:04 PM", "31/01/2021 3:04 p. m.", "31/01/2021 11:04am"):
        allowed = refused("scan_datetime", [value])["allowed"]
        assert list(allowed) == ["a time of 24 hours, as in 14:30"]


def test_dates_that_excel_swapped_in_part_stop(load, tmp_path, table):
    from openpyxl import Workbook

    def book(day):
        made = Workbook()
        for row in (["participant_id", "scan_datetime"], [1, datetime.datetime(2021, 4, day)],
                    [2, "13/04/2021"]):  # fmt: skip
            made.active.append(row)
        made.active["B2"].number_format = "dd/mm/yyyy"
        made.save(tmp_path / "export.xlsx")
        return tmp_path / "export.xlsx"

    for said in ("", '[file]\ndate_order = "dmy"'):
        with pytest.raises(intake.UnmappedError, match="seems to have swapped days and months"):
            load(book(3), said)
    load(book(23))
    assert list(table()["scan_datetime"]) == ["2021-04-23", "2021-04-13"]


def test_date_and_time_in_two_columns(load, table):
    text = "participant_id;f;h\n1;31/01/2021;9:05\n2;31/01/2021;\n3;;\n4;30/01/2021 0:00;10:00:30\n"
    said = '[columns]\nscan_datetime = { from = ["f", "h"] }'
    load(text, said)
    assert list(table()["scan_datetime"]) == [
        "2021-01-31 09:05",
        "2021-01-31",
        "-99",
        "2021-01-30 10:00:30",
    ]
    with pytest.raises(intake.UnmappedError, match=r"row 6, column 'f \+ h' .*'\(no date\) 10:00'"):
        load(text + "5;;10:00\n", said, replace=True)


def test_what_is_taken_from_dates(load, table):
    text = "participant_id;a;b\n1;28/02/1950 10:00;27/02/2021 10:00:40\n2;;27/02/2021 10:00\n"
    load(text, '[columns]\nage = { from = ["a", "b"], take = "years" }\n'
               'admit_year = { from = "b", take = "year" }')  # fmt: skip
    assert table().loc["sub-1"].to_dict() == {"admit_year": "2021", "age": "70"}
    assert table().loc["sub-2"].to_dict() == {"admit_year": "2021", "age": "-99"}
    minutes = '[columns]\nlkw_to_ct_min = { from = ["a", "b"], take = "minutes" }'
    text = "participant_id;a;b\n1;31/01/2021 23:30;01/02/2021 00:45:40\n2;31/01/2021 10:00;31/01/2021 09:00\n"
    load(text, minutes, replace=True)
    assert list(table()["lkw_to_ct_min"]) == ["76", "-60"]
    with pytest.raises(intake.UnmappedError, match="allowed: a time of day in both columns"):
        load("participant_id;a;b\n1;31/01/2021;31/01/2021 10:00\n", minutes, replace=True)


# ------------------------------------------------------------------------------- identifiers, text


def _ids(values):
    return "participant_id,age\n" + "".join(f"{value},7{n}\n" for n, value in enumerate(values))


def test_identifiers_keep_zeros_and_get_their_prefix(load, table):
    report = load(_ids(["0012", "sub-0013", "A7"]))
    assert list(table().index) == ["sub-0012", "sub-0013", "sub-A7"]
    ids = report[report["column"] == "participant_id"]
    assert steps(ids) == [("put before the identifier", "", "sub-", 2), ("unchanged", "", "", 1)]
    said = '[columns]\nparticipant_id = { prefix = "VH", remove = ["-", " "] }'
    load(_ids(["00-12", "sub-13", "1 4"]), said, replace=True)
    assert list(table().index) == ["sub-VH0012", "sub-VH13", "sub-VH14"]


@pytest.mark.parametrize(
    "value", ["../../etc", "a/b", "a b", "ñ1", "1.0", "1_2", "", "sub-", "=1+1", "n/a"]
)
def test_identifiers_that_are_no_letters_and_digits_stop_with_their_row(load, value):
    with pytest.raises(intake.UnmappedError) as stopped:
        load(_ids(["01", value]))
    assert stopped.value.problems[["row", "value"]].to_numpy().tolist() == [[3, value]]
    assert "letters a-z and digits" in str(stopped.value)


def test_the_same_identifier_twice_stops_with_both_rows(load):
    with pytest.raises(intake.UnmappedError, match="rows 2, 4, .*'sub-01'.*stands in rows 2 and 4"):
        load(_ids(["01", "02", "sub-01"]))


@pytest.mark.parametrize(
    ("one", "other"), [("a7", "A7"), ("007", "7"), ("VH07", "vh7"), ("7", "sub-07")]
)
def test_identifiers_that_differ_only_by_case_or_zeros_stop_with_both_rows(load, one, other):
    with pytest.raises(intake.UnmappedError) as stopped:
        load(_ids([one, "10", other]))
    problems = stopped.value.problems
    assert problems["row"].tolist() == [2, 4]
    assert set(problems["allowed"]) == {
        "identifiers that differ in more than case and leading zeros; rows 2 and 4"
    }
    load(_ids(["10", "1", "100", "1a0", "a10"]))


@pytest.mark.parametrize("word", ["Total", "MEDIA", "Mittelwert", "Média", "sub-total"])
def test_a_row_of_totals_is_no_patient(load, word):
    with pytest.raises(intake.UnmappedError, match="row 4, .*: a patient; a row that sums up"):
        load(_ids(["1", "2", word]))


def test_an_identifier_that_excel_made_a_date_of_stops(load, tmp_path):
    from openpyxl import Workbook

    made = Workbook()
    for row in (
        ["participant_id", "age"],
        [datetime.datetime(2024, 5, 3), 70],
        [True, 71],
        [3, 72],
    ):
        made.active.append(row)
    made.active["A2"].number_format = "d-mmm"
    made.save(tmp_path / "export.xlsx")
    with pytest.raises(intake.UnmappedError) as stopped:
        load(tmp_path / "export.xlsx", '[columns]\nparticipant_id = { remove = "-" }')
    assert stopped.value.problems["row"].tolist() == [2, 3]


def test_formulas_in_text_are_made_harmless_and_counted(column):
    text = ['=HYPERLINK("http://x")', "+A1", "@SUM(1)", "-cmd", "-5", "a\nb\tc", "", 'say "x"']
    values, report = column("centre", text)
    assert values == [
        '\'=HYPERLINK("http://x")',
        "'+A1",
        "'@SUM(1)",
        "'-cmd",
        "-5",
        "a b c",
        "n/a",
        'say "x"',
    ]
    assert ("formula made harmless", "", "'", 4) in steps(report)
    assert column("centre", values)[0] == values


def test_failed_formulas_are_no_text(refused):
    assert refused("centre", ["#N/A", "VH", "#REF!"])["row"].tolist() == [2, 4]


def test_names_of_columns_are_made_harmless_in_the_report(load, tmp_path):
    load("participant_id,age,=1+1\n1,70,x\n")
    assert ",'=1+1," in (tmp_path / "dataset/derivatives/import/report.csv").read_text()


def test_constants_are_read_like_values(load, table):
    said = '[columns]\ncentre = { value = "HVH" }\nsex = { value = "male" }\nhir = { value = 0.5 }'
    load(_ids(["1", "2"]), said)
    assert table().iloc[1].to_dict() == {"centre": "HVH", "age": "71", "sex": "1", "hir": "0.5"}
    with pytest.raises(intake.UnmappedError, match=r"column '\(the map\)' \(sex\): 'tall'"):
        load(_ids(["1"]), '[columns]\nsex = { value = "tall" }', replace=True)


# ----------------------------------------------------------------------------------- all problems


def test_all_problems_come_at_once_and_nothing_is_written(load, tmp_path):
    rows = [
        ["1", "setenta", "H", "03/04/2021"],
        ["1", "70", "X", "05/06/2021"],
        ["2", "7,5", "H", ""],
    ]
    text = as_bytes(rows, ["participant_id", "age", "sex", "scan_datetime"])
    with pytest.raises(intake.UnmappedError) as stopped:
        load(text)
    problems = stopped.value.problems
    assert problems["column"].tolist() == [
        "participant_id", "participant_id", "age", "sex", "sex", "sex", "scan_datetime",
    ]  # fmt: skip
    assert problems["row"].tolist() == [2, 3, 2, 2, 4, 3, pd.NA]
    message = str(stopped.value)
    assert "\n" not in message and "and 4 more: all are listed" in message
    records = json.loads(json.dumps(intake.problem_records(problems)))
    assert [record["row"] for record in records] == [2, 3, 2, 2, 4, 3, None]
    shown = intake.show_problems(problems)
    assert "rows 2, 4, column 'sex': 'H'; allowed: 0 (female), 1 (male)" in shown
    assert shown.endswith("5 different problems, 6 cells; nothing was written")
    assert not (tmp_path / "dataset").exists()


def test_a_long_list_of_rows_is_cut_on_the_screen_only(refused):
    problems = refused("sex", ["H"] * 25)
    assert len(problems) == 25
    assert "rows 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 15 more, column" in intake.show_problems(
        problems
    )


# ---------------------------------------------------------------------------------------- the map


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("[files]\n", "the map: key 'files' is not known; allowed: file, dataset, columns"),
        ("file = 1\n", "'file' is not a part"),
        ("[file]\nseperator = ';'\n", r"\[file\]: key 'seperator' is not known; allowed: separator"),
        ("[file]\ndecimal = ';'\n", "'decimal' is ';'; allowed: ',', '.'"),
        ("[file]\ndecimal = 5\n", "'decimal' is 5; allowed: text"),
        ("[file]\ndecimal = ','\nthousands = ','\n", "are both ','"),
        ("[file]\ndate_order = 'ydm'\n", "allowed: 'ymd', 'dmy', 'mdy'"),
        ("[file]\nyes = 1\n", "'yes' is 1; allowed"),
        ("[file]\nyes = ['x']\nno = ['X']\n", "'X' stands for two things"),
        ("[file]\nmissing = { '-1' = ['x'] }\n", "key '-1' is not known; allowed: -99, -98, -97"),
        ("[file]\nmissing = 'x'\n", "'missing' is 'x'"),
        ("[dataset]\nname = 1\n", "'name' is 1"),
        ("[columns]\nedad = 'age'\n", "edad: is not a column of the data dictionary"),
        ("[columns]\nnihss = 'a'\n", "perhaps 'nihss_adm', 'nihss_24h'"),
        ("[columns]\nage = 1\n", "age: is 1; allowed: a column's name"),
        ("[columns]\nage = { form = 'a' }\n", "key 'form' is not known; allowed: from, value"),
        ("[columns]\nage = { from = ['a', 'b'] }\n", "names two columns; allowed: one"),
        ("[columns]\nage = { from = [] }\n", "'from' is \\[\\]"),
        ("[columns]\nage = { from = 'a', take = 'years' }\n", "needs two dates"),
        ("[columns]\nage = { from = 'a', take = ['year'] }\n", "'take' is \\['year'\\]; allowed: text"),
        ("a = " + "[" * 5000, "not valid TOML: brackets within brackets"),
        ("[columns]\nage = { from = 'a', take = 'days' }\n", "take = \"days\"; allowed: year, minutes, years"),
        ("[columns]\nsex = { from = 'a', take = 'year' }\n", "'take' cannot be used here"),
        ("[columns]\nsex = { from = 'a', unit = 'm' }\n", "'unit' cannot be used here"),
        ("[columns]\nsex = { from = 'a', prefix = 'm' }\n", "'prefix' cannot .* at participant_id"),
        ("[columns]\nage = { from = 'a', yes = 'm' }\n", "'yes' cannot be used here"),
        ("[columns]\nage = { from = 'a', date_order = 'dmy' }\n", "'date_order' cannot be used here"),
        ("[columns]\nage = { from = 'a', value = '1' }\n", "'from' cannot .* beside 'value' nothing else"),
        ("[columns]\nparticipant_id = { value = '1' }\n", "'value' cannot be used here"),
        ("[columns]\nsex = { from = 'a', values = { H = '7' } }\n", "'H' becomes '7'; allowed: 0 .female."),
        ("[columns]\nsex = { from = 'a', values = 1 }\n", "'values' is 1"),
        ("[columns]\nsex = 'a'\nage = 'a'\n", "'a' is the source of 'sex' and 'age'"),
        ("[file]\nignore = ['a']\n[columns]\nsex = 'a'\n", "'a' is also under 'ignore'"),
        ("[columns]\nage = 'a'\nage = 'b'\n", "not valid TOML"),
        ("[columns]\nage = 'edda'\nsex = 'b'\n",
         r"column 'edda' \(for age\) is not in the file; perhaps 'edad'; column 'b' \(for sex\) is not in"),
    ],
)  # fmt: skip
def test_what_a_map_cannot_say(load, said, message):
    with pytest.raises(InputError, match=message):
        load("participant_id;edad\n1;70\n", said)


def test_a_map_that_cannot_be_read(tmp_path, words):
    with pytest.raises(InputError, match="does not exist"):
        intake.read_map(tmp_path / "absent.toml", words)
    (tmp_path / "map.toml").write_bytes("[columns]\nage = 'añ'".encode("latin-1"))
    with pytest.raises(InputError, match="is not in UTF-8"):
        intake.read_map(tmp_path / "map.toml", words)
    (tmp_path / "map.toml").write_bytes(b"\xef\xbb\xbf[columns]\nage = 'a'")
    assert intake.read_map(tmp_path / "map.toml", words).entries["age"].names == ["a"]


def test_a_source_may_serve_two_columns_if_the_map_says_how(load, table):
    said = """[columns]
    anticoagulant = { from = "aco", values = { no = 0, AVK = 1 } }
    af_known = { from = "aco", values = { no = 0, AVK = 1 } }"""
    load("participant_id;aco\n1;AVK\n", said)
    assert table().iloc[0].to_dict() == {"af_known": "1", "anticoagulant": "1"}


def test_a_column_of_the_map_goes_before_one_of_the_dictionarys_name(load, table):
    report = load("participant_id;age;edad\n1;70;71\n", '[columns]\nage = "edad"')
    assert list(table()["age"]) == ["71"]
    unused = report[report["conversion"] == "column of the file that is not used"]
    assert list(unused["source"]) == ["age"]


def test_a_file_in_which_nothing_identifies_patients(load):
    with pytest.raises(InputError, match="nothing says which column identifies a patient"):
        load("age,sex\n70,1\n")


# ------------------------------------------------------------------------------------- the dataset


def test_half_a_split_and_unknown_parts_stop(load):
    with pytest.raises(intake.UnmappedError, match="column 'split': the split is half there"):
        load("participant_id,split,age\n1,train,70\n")
    with pytest.raises(intake.UnmappedError) as stopped:
        load("participant_id,split,cv_fold\n1,train,-98\n2,test,3\n3,,1\n4,test,-98\n")
    problems = stopped.value.problems
    assert problems[["row", "column", "value"]].to_numpy().tolist() == [
        [4, "split", "n/a"], [2, "cv_fold", "-98"], [3, "cv_fold", "3"],
    ]  # fmt: skip


def test_scans_stay_and_another_table_is_replaced_only_on_request(load, tmp_path, table):
    scan = tmp_path / "dataset" / "sub-1" / "ct" / "sub-1_ncct.nii.gz"
    scan.parent.mkdir(parents=True)
    scan.write_bytes(b"scan")
    load(_ids(["1"]))
    load(_ids(["1"]))  # the same again is no change
    with pytest.raises(
        InputError, match="participants.tsv: is there already, .*allowed: --replace"
    ):
        load(_ids(["1", "2"]))
    assert len(table()) == 1
    load(_ids(["1", "2"]), replace=True)
    assert len(table()) == 2 and scan.read_bytes() == b"scan"


def test_a_split_that_was_there_stays_and_is_told(load, tmp_path):
    load("participant_id,split,cv_fold\n1,train,1\n2,test,-98\n")
    split = (tmp_path / "dataset" / "split.csv").read_bytes()
    report = load(_ids(["1", "2"]), replace=True)
    assert "split.csv was there and stays, since the file brings no split" in set(
        report["conversion"]
    )
    assert (tmp_path / "dataset" / "split.csv").read_bytes() == split


def test_a_file_is_not_written_over_by_its_own_import(load, tmp_path):
    source = tmp_path / "dataset" / "participants.tsv"
    source.parent.mkdir()
    source.write_text("participant_id\tage\n1\t70\n")
    with pytest.raises(InputError, match="would be written over by its own import"):
        load(source, replace=True)
    assert source.read_text() == "participant_id\tage\n1\t70\n"


@pytest.mark.parametrize("failing", range(5))
@pytest.mark.parametrize("fault", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt()])
def test_an_import_that_is_cut_short_leaves_the_folder_as_it_was(
    load, tmp_path, monkeypatch, failing, fault
):
    text = "participant_id,split,cv_fold\n1,train,1\n2,test,-98\n"
    load(text)
    root = tmp_path / "dataset"
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    assert len(before) == 5
    write, done = pathlib.Path.write_text, []

    def cut_short(path, content, **options):
        done.append(path)
        write(path, content[: len(content) // 2], **options)
        if len(done) > failing:
            raise fault
        return write(path, content, **options)

    source = tmp_path / "more.csv"
    source.write_text(text + "3,train,2\n")
    monkeypatch.setattr(pathlib.Path, "write_text", cut_short)
    with pytest.raises((InputError, KeyboardInterrupt)):
        load(source, replace=True)
    assert len(done) == failing + 1
    monkeypatch.undo()
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before


def test_what_a_description_said_stays(load, tmp_path):
    path = tmp_path / "dataset" / "dataset_description.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"Name": "Mine", "simulated": False, "License": "none"}))
    load(_ids(["1"]))
    description = json.loads(path.read_text())
    assert (description["Name"], description["License"]) == ("Mine", "none")
    path.write_text("{")
    with pytest.raises(InputError, match="not valid JSON"):
        load(_ids(["1"]))


def test_a_simulated_dataset_is_refused(load, tmp_path):
    root = tmp_path / "dataset"
    (root / "derivatives" / "truth").mkdir(parents=True)
    with pytest.raises(InputError, match="holds a simulated dataset"):
        load(_ids(["1"]))
    (root / "derivatives" / "truth").rmdir()
    storage.write_json(root / "dataset_description.json", {"Name": "x", "simulated": True})
    with pytest.raises(InputError, match="holds a simulated dataset"):
        load(_ids(["1"]), replace=True)
    assert not (root / "participants.tsv").exists()


def test_a_file_in_the_place_of_the_folder(load, tmp_path):
    (tmp_path / "dataset").write_text("")
    with pytest.raises(InputError, match="is a file; allowed: a folder"):
        load(_ids(["1"]))


def test_another_study_with_its_own_dictionary(load, table, words):
    small = Dictionary({
        "participant_id": words["participant_id"],
        "weight": dataclasses.replace(
            words["core_ml"], name="weight", label="Weight", unit="kg", other_units={"lb": 0.45359237}
        ),
    })  # fmt: skip
    load("participant_id;Gewicht\n1;150,5\n", '[columns]\nweight = { from = "Gewicht", unit = "lb" }',
         dictionary=small)  # fmt: skip
    assert float(table()["weight"].iloc[0]) == pytest.approx(150.5 * 0.45359237)


def test_one_patient_and_columns_without_a_value(load, table):
    load("participant_id;age;sex;scan_datetime;core_ml;centre;admit_year\n1;;;;;;\n")
    assert table().loc["sub-1"].to_dict() == {
        "admit_year": "n/a", "centre": "n/a", "age": "-99", "sex": "-99", "scan_datetime": "-99",
        "core_ml": "-99",
    }  # fmt: skip


# ------------------------------------------------------------------------------------- the command


def _rlvo(*arguments, encoding="utf-8"):
    code = "from rlvo_lib.cli import main; main()"
    ran = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True,
        encoding=encoding, env={**os.environ, "PYTHONIOENCODING": encoding},
    )  # fmt: skip
    return ran.returncode, ran.stdout, ran.stderr


def test_the_command_imports_reports_and_validates(tmp_path):
    file, said, out = tmp_path / "export.csv", tmp_path / "map.toml", tmp_path / "ds"
    file.write_bytes(as_bytes(EXPORT))
    said.write_text(MAP, encoding="utf-8")
    status, shown, _ = _rlvo(
        "import", file, "--map", said, "--out", out, "--json", tmp_path / "f.json"
    )
    assert status == 0, shown
    assert "glucose_adm (from Glucemia): unit 'mmol/L' → 'mg/dL', 15" in shown
    assert "column of the file that is not used: NHC, Nombre" in shown
    assert "0 errors" in shown
    assert all(
        fault["severity"] == "warning" for fault in json.loads((tmp_path / "f.json").read_text())
    )


def test_a_screen_that_lacks_letters_is_no_crash(tmp_path):
    file = tmp_path / "export.csv"
    file.write_text("participant_id;age;centre\n1;70;Łódź\n", encoding="utf-8")
    status, shown, error = _rlvo("import", file, "--out", tmp_path / "ds", encoding="cp1252")
    assert "separator '' ? 'semicolon'" in shown and "Traceback" not in error
    assert status == 1  # required columns are not there


def test_the_command_tells_faults_and_what_could_not_be_read_apart(tmp_path):
    file, out = tmp_path / "export.csv", tmp_path / "ds"
    file.write_text(_ids(["1", "2"]).replace("70", "200"))
    status, shown, _ = _rlvo("import", file, "--out", out)
    assert status == 1 and "200" in shown and (out / "participants.tsv").exists()
    file.write_text(_ids(["1", "2"]).replace("70", "old").replace("71", "young"))
    bad = tmp_path / "bad"
    status, shown, error = _rlvo("import", file, "--out", bad, "--json", tmp_path / "p.json")
    assert status == 2 and error.count("\n") == 1 and error.startswith("rlvo: ")
    assert "row 2, column 'age': 'old'; allowed: a number" in shown and "'young'" in shown
    assert [problem["row"] for problem in json.loads((tmp_path / "p.json").read_text())] == [2, 3]
    assert not bad.exists()


# ------------------------------------------------------------------------------------- the page


def test_the_map_of_the_page_runs(load, table):
    page = (project_root() / "docs" / "import.md").read_text(encoding="utf-8")
    said, export = (re.search(rf"```{kind}\n(.*?)```", page, re.S)[1] for kind in ("toml", "csv"))
    load(export.encode("latin-1"), said)
    shown = re.search(r"```tsv\n(.*?)```", page, re.S)[1]
    expected = pd.read_csv(io.StringIO(shown), sep=r"\s{2,}", dtype=str, engine="python")
    assert set(expected) == {*table(), "participant_id"}
    pd.testing.assert_frame_equal(
        table().reset_index()[list(expected)], expected, check_dtype=False
    )


def test_the_page_names_every_key_of_the_map():
    from rlvo_lib.intake import mapping

    page = (project_root() / "docs" / "import.md").read_text(encoding="utf-8")
    for key in {*mapping.FILE_KEYS, *mapping.COLUMN_KEYS, *mapping.DATASET_KEYS, *mapping.TAKES}:
        assert f"`{key}`" in page, key
