"""Foreign tables as text cells: encodings, separators, row numbers, Excel, and what is refused."""

import datetime
import io
import re
import time
import zipfile

import pytest

from rlvo_lib.config import InputError
from rlvo_lib.intake import delimited, workbook
from rlvo_lib.intake.spreadsheet import read_sheet

WANTED = {"id", "edad", "sí"}


@pytest.fixture
def read(tmp_path):
    """A function that writes bytes (or text as UTF-8) to a file and reads it as a sheet."""

    def read(content, name="export.csv", **said):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_sheet(path, WANTED, **said)

    return read


@pytest.fixture
def book(tmp_path):
    """A function that writes rows as a workbook; sheets as a dict of rows."""

    def write(sheets, name="export.xlsx"):
        from openpyxl import Workbook

        made = Workbook()
        made.remove(made.active)
        for title, rows in (sheets if isinstance(sheets, dict) else {"Hoja1": sheets}).items():
            sheet = made.create_sheet(title)
            for row in rows:
                sheet.append(row)
        path = tmp_path / name
        made.save(path)
        return path

    return write


def rewrite(path, change):
    """Change the XML of the first sheet of a workbook."""
    with zipfile.ZipFile(path) as old:
        parts = {name: old.read(name) for name in old.namelist()}
    sheet = "xl/worksheets/sheet1.xml"
    parts[sheet] = change(parts[sheet].decode()).encode()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name, part in parts.items():
            new.writestr(name, part)


def cells(sheet):
    return sheet.cells.to_dict("list")


# --------------------------------------------------------------------------------- delimited text


@pytest.mark.parametrize(
    ("mark", "name"), [(";", "semicolon"), (",", "comma"), ("\t", "tab"), ("|", "pipe")]
)
def test_the_separator_is_the_one_that_makes_columns_appear(read, mark, name):
    sheet = read(f"id{mark}edad\n1{mark}70\n2{mark}80\n")
    assert cells(sheet) == {"id": ["1", "2"], "edad": ["70", "80"]}
    assert sheet.found == {"encoding": "utf-8", "separator": name}


def test_excels_first_line_names_the_separator_and_is_no_row(read):
    sheet = read("sep=;\r\nid;edad\r\n1;7,5\r\n")
    assert cells(sheet) == {"id": ["1"], "edad": ["7,5"]}
    assert list(sheet.cells.index) == [2]
    assert cells(read("sep=^\nid^edad\n1^70\n")) == {"id": ["1"], "edad": ["70"]}


def test_an_ambiguous_separator_stops_unless_the_map_says_it(read):
    text = "id,x;edad\n1,2;3\n"
    with pytest.raises(InputError, match="may be semicolon or comma; allowed: say which"):
        read(text)
    assert cells(read(text, separator=";")) == {"id,x": ["1,2"], "edad": ["3"]}
    with pytest.raises(InputError, match="separator ';;'; allowed: one character"):
        read(text, separator=";;")


def test_a_file_of_one_column_needs_no_separator(read):
    assert cells(read("id\n1\n2\n")) == {"id": ["1", "2"]}


def test_quoted_fields_hold_separators_and_line_breaks_and_rows_are_counted_as_excel_does(read):
    sheet = read('id;edad;nota\n1;70;"uno;\ndos"\n\n2;80;"dice ""no"""\n;;\n')
    assert cells(sheet)["nota"] == ["uno;\ndos", 'dice "no"']
    assert list(sheet.cells.index) == [2, 4]


def test_an_open_quotation_mark_is_refused(read):
    with pytest.raises(InputError, match="row 3: quotation marks do not match"):
        read('id;edad\n1;70\n2;"80\n3;90\n')


@pytest.mark.parametrize("row", ["2", "2;80;"])
def test_ragged_rows_are_named(read, row):
    fields = row.count(";") + 1
    with pytest.raises(InputError, match=rf"row 3: has {fields} fields; allowed: 2"):
        read(f"id;edad\n1;70\n{row}\n3;90\n")


def test_blank_cells_rows_and_columns_are_ignored(read):
    sheet = read("\n id ;\u00a0edad ;;\n\u00a01 ;\u202f70\u00a0;;\n;;;\n2; ;;\n;;;\n;;;\n")
    assert cells(sheet) == {"id": ["1", "2"], "edad": ["70", ""]}
    assert list(sheet.cells.index) == [3, 5]


def test_a_column_without_a_name_is_kept_only_if_it_holds_something(read):
    assert list(read("id;;edad;\n1;;70;\n").cells) == ["id", "edad"]
    assert list(read("id;;edad\n1;x;70\n").cells) == ["id", "(column 2, no name)", "edad"]


def test_a_doubled_header_is_named(read):
    with pytest.raises(InputError, match="header 'edad' stands in columns 2 and 3"):
        read("id;edad; edad\n1;70;71\n")


@pytest.mark.parametrize("row", ["88120001;RUIZ;70", "88120001^RUIZ", "RUIZ;RUIZ;05/03/1950"])
def test_a_patients_row_in_the_place_of_the_header_is_not_shown(read, book, row):
    for made in (read, lambda text: read_sheet(book([row.split(";")] * 2), WANTED)):
        with pytest.raises(InputError, match="seems to be none; allowed") as refused:
            made(f"{row}\n{row}\n")
        assert not re.search("RUIZ|88120001|1950", str(refused.value))


def test_headers_that_are_not_looked_for(read):
    with pytest.raises(InputError, match="reads 'nhc', 'age'; allowed: .*e.g. edad, id, sí"):
        read("nhc;age\n1;70\n")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b" \n\n", "the file is empty"),
        (b"\xef\xbb\xbf", "the file is empty"),
        (b"id;edad\n", "holds a header only"),
        (b"id;edad\n;\n", "holds a header only"),
        (b"id;edad\n1;\x0070\n", "line 2: holds NUL bytes"),
        (b"id;edad\n1;\x1b[31m\n", "line 2: holds the control character 0x1b"),
        (b"%PDF-1.7\n", "is a PDF"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\x00" * 600, r"an old Excel file \(.xls\).*save it"),
        (b"<html><table><tr><td>id</td></tr></table>", "is a web page or XML"),
        (b"\x1f\x8b\x08\x00", "is compressed"),
        (b"id;" * 400_000, "allowed: 1000000, so this is no table"),
        (b"id" + b";" * 20_000 + b"\n1\n", "has 20001 columns; allowed: 16384"),
        (b"PK\x03\x04 and no more", "a damaged or encrypted workbook"),
    ],
)  # fmt: skip
def test_what_is_no_table_is_refused(read, content, message):
    with pytest.raises(InputError, match=message):
        read(content)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    for path in (tmp_path, tmp_path / "absent.csv"):
        with pytest.raises(InputError, match="no such file"):
            read_sheet(path, WANTED)


def test_two_gigabytes_of_commas_are_refused_before_they_are_read(tmp_path):
    path = tmp_path / "big.csv"
    with open(path, "wb") as handle:
        handle.write(b"id,edad" + b"," * 1000)
        handle.seek(2_000_000_000)
        handle.write(b",")
    begun = time.monotonic()
    with pytest.raises(InputError, match="has 2000 MB; allowed: 200 MB"):
        read_sheet(path, WANTED)
    assert time.monotonic() - begun < 1


# -------------------------------------------------------------------------------------- encodings


@pytest.mark.parametrize(
    ("codec", "found"),
    [
        ("utf-8", "utf-8"),
        ("utf-8-sig", "utf-8 with a byte order mark"),
        ("utf-16", "utf-16 with a byte order mark"),
        ("utf-32", "utf-32"),
        ("latin-1", "windows-1252"),
        ("cp1252", "windows-1252"),
    ],
)
def test_encodings_are_recognised(read, codec, found):
    sheet = read("id\tsí\r\n1\tcaña\r\n".encode(codec))
    assert cells(sheet) == {"id": ["1"], "sí": ["caña"]}
    assert sheet.found["encoding"] == found


def test_an_encoding_of_the_map_is_used_and_checked(read):
    sheet = read("id;edad\n1;caña\n".encode("cp850"), code="cp850")
    assert cells(sheet)["edad"] == ["caña"]
    with pytest.raises(InputError, match="encoding 'klingon' is not known; allowed: utf-8"):
        read("id;edad\n1;2\n", code="klingon")
    with pytest.raises(InputError, match="cannot be read as undefined"):
        read("id;edad\n1;2\n", code="undefined")
    with pytest.raises(InputError, match="line 2: byte 0xf1 is no letter in utf-8"):
        read("id;edad\n1;caña\n".encode("latin-1"), code="utf-8")
    with pytest.raises(InputError, match="line 2: byte 0x81 is no letter in windows-1252"):
        read(b"id;edad\n1;\x81\n")


def test_mixed_encodings_are_refused_with_a_line_of_each(read):
    mixed = "id;edad\n1;caña\n".encode() + "2;caña\n".encode("latin-1")
    with pytest.raises(InputError, match="line 2 is UTF-8, line 3 is not"):
        read(mixed)


def test_the_mark_is_no_part_of_the_text():
    assert delimited.decode("\ufeffid".encode(), "f")[0] == "id"


# ------------------------------------------------------------------------------------------ Excel


def test_typed_cells_are_written_plainly(book):
    from openpyxl import load_workbook

    path = book([
        ["id", "edad", "a", "b", "c", "d", "e"],
        [7, 70.0, 6.2, True, datetime.datetime(2021, 3, 5), datetime.datetime(2021, 3, 5, 9, 5),
         datetime.time(9, 5)],
        ["0008", "70,5", 0.7, False, datetime.datetime(2021, 3, 5), "text", None],
    ])  # fmt: skip
    made = load_workbook(path)
    sheet = made.active
    sheet["A2"].number_format = "0000"
    sheet["C3"].number_format = "0.0%"
    sheet["E2"].number_format = sheet["E3"].number_format = "dd/mm/yyyy"
    sheet["E3"].number_format = "d/m/yy h:mm"
    made.save(path)
    read = read_sheet(path, WANTED)
    assert read.cells.to_numpy().tolist() == [
        ["0007", "70", "6.2", "TRUE", "2021-03-05", "2021-03-05 09:05:00", "09:05:00"],
        ["0008", "70,5", "70%", "FALSE", "2021-03-05 00:00:00", "text", ""],
    ]
    assert read.typed.to_numpy().tolist() == [[True] * 7, [False, False] + [True] * 3 + [False] * 2]
    assert read.found == {"sheet": "Hoja1"}


def test_rows_of_a_workbook_are_numbered_as_excel_shows_them(book):
    path = book([[None], ["id", "edad", None], ["1", "70"], [None, " "], ["2", "80", None], [None]])
    sheet = read_sheet(path, WANTED)
    assert list(sheet.cells.index) == [3, 5]
    assert cells(sheet) == {"id": ["1", "2"], "edad": ["70", "80"]}


def test_hidden_rows_are_rows_and_merged_cells_below_the_header_are_no_blanks(book):
    from openpyxl import load_workbook

    rows = [
        ["id", "edad", "x", None],
        ["1", "70", "y", "w"],
        ["2", "80", None, None],
        ["3", None, None],
    ]
    path = book(rows)
    made = load_workbook(path)
    for cells_ in ("C1:D1", "C2:C3", "B4:C4"):
        made.active.merge_cells(cells_)
    made.active.row_dimensions[3].hidden = True
    made.save(path)
    assert cells(read_sheet(path, WANTED)) == {
        "id": ["1", "2", "3"],
        "edad": ["70", "80", workbook.MERGED],
        "x": ["y", workbook.MERGED, workbook.MERGED],
        "(column 4, no name)": ["w", "", ""],
    }


def test_of_a_formula_the_stored_result_is_read(book):
    path = book([["id", "edad"], [1, "=35*2"], [2, "=A1"], [3, '=IF(1,"","x")'], [4, "=1/0"]])

    def store(xml):
        for cell, kind, value in (
            ("B2", "", "70"),
            ("B4", ' t="str"', ""),
            ("B5", ' t="e"', "#DIV/0!"),
        ):
            xml = re.sub(rf'<c r="{cell}"[^>]*>(<f>.*?</f>)<v ?(/>|></v>)',
                         rf'<c r="{cell}"{kind}>\1<v>{value}</v>', xml)  # fmt: skip
        return xml

    rewrite(path, store)
    assert cells(read_sheet(path, WANTED))["edad"] == ["70", workbook.NO_RESULT, "", "#DIV/0!"]


def test_several_sheets_need_a_name(book):
    path = book({"Datos": [["id", "edad"], ["1", "70"]], "Leyenda": [["x"]], "Vacía": []})
    with pytest.raises(InputError, match="several sheets; allowed: .*: Datos, Leyenda$"):
        read_sheet(path, WANTED)
    assert cells(read_sheet(path, WANTED, sheet="Datos")) == {"id": ["1"], "edad": ["70"]}
    with pytest.raises(
        InputError, match="sheet 'Nada' is not in it; allowed: Datos, Leyenda, Vacía"
    ):
        read_sheet(path, WANTED, sheet="Nada")
    one = book({"Datos": [["id", "edad"], ["1", "70"]], "Vacía": []})
    assert read_sheet(one, WANTED).found == {"sheet": "Datos"}


def test_an_empty_workbook_and_other_archives_are_refused(book, tmp_path):
    with pytest.raises(InputError, match="the workbook is empty"):
        read_sheet(book([]), WANTED)
    with pytest.raises(InputError, match="holds a header only"):
        read_sheet(book([["id", "edad"]]), WANTED)
    with zipfile.ZipFile(tmp_path / "a.xlsx", "w") as archive:
        archive.writestr("mimetype", "application/vnd.oasis.opendocument.spreadsheet")
    with pytest.raises(InputError, match="an archive, not an Excel workbook"):
        read_sheet(tmp_path / "a.xlsx", WANTED)


def test_a_damaged_workbook_is_refused_in_one_line(book):
    path = book([["id", "edad"], ["1", "70"]])
    rewrite(path, lambda xml: xml[: len(xml) // 2])
    with pytest.raises(InputError, match="damaged or not in Excel's usual format"):
        read_sheet(path, WANTED)


def test_the_message_on_a_damaged_workbook_shows_no_cell(book):
    path = book([["id", "edad", "nombre"], ["1", "70", 5]])
    rewrite(path, lambda xml: xml.replace("<v>5</v>", "<v>RUIZ</v>"))
    with pytest.raises(InputError, match="damaged or not in Excel's usual format") as refused:
        read_sheet(path, WANTED)
    assert "RUIZ" not in str(refused.value) and "\n" not in str(refused.value)


def test_a_zip_bomb_is_refused_by_what_it_unpacks_to(book, tmp_path):
    path = book([["id", "edad"], ["1", "70"]])
    buffer = io.BytesIO(path.read_bytes())
    with (
        zipfile.ZipFile(buffer, "a", zipfile.ZIP_DEFLATED) as archive,
        archive.open("xl/media/bomb", "w", force_zip64=True) as part,
    ):
        for _ in range(51):
            part.write(bytes(10_000_000))
    bomb = tmp_path / "bomb.xlsx"
    bomb.write_bytes(buffer.getvalue())
    assert bomb.stat().st_size < 1_000_000
    with pytest.raises(InputError, match="unpacks to 510 MB; allowed: 500 MB"):
        read_sheet(bomb, WANTED)
