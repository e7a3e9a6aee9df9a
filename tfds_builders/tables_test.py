"""Tables as editors and spreadsheets save them."""

import codecs

import pytest

from tfds_builders import DatasetError, tables

COLUMNS = ("path", "person", "camera", "split")
HEADER = "path,person,camera,split"
ROWS = [("a/1.jpg", "anna", "1", "train"), ("b/2.jpg", "\u5f20", "2", "query")]


def text(separator=",", end="\n", rows=ROWS, header=HEADER):
    return end.join([header.replace(",", separator), *(separator.join(row) for row in rows), ""])


def read(tmp_path, content, required=("path", "person")):
    table = tmp_path / "labels.csv"
    table.write_bytes(content if isinstance(content, bytes) else content.encode())
    found = tables.read(table, dict.fromkeys(required, ""), COLUMNS)
    return [(row.number, *(row.cells.get(column) for column in COLUMNS)) for row in found]


@pytest.mark.parametrize(
    "content",
    [
        text(),
        text(end="\r\n"),
        text(end="\r"),
        text(separator=";"),
        text(separator="\t", end="\r\n"),
        text().rstrip("\n"),
        codecs.BOM_UTF8 + text().encode(),
        codecs.BOM_UTF8 + text(separator=";", end="\r\n").encode(),
        codecs.BOM_UTF16_LE + text().encode("utf-16-le"),
        codecs.BOM_UTF16_BE + text(separator="\t").encode("utf-16-be"),
        codecs.BOM_UTF32_LE + text().encode("utf-32-le"),
        text(header=" Path , PERSON,Camera,split "),
        text(rows=[tuple(f"  {cell}\t" for cell in row) for row in ROWS]),
        text(rows=[tuple(f' "{cell}"' for cell in row) for row in ROWS]),
        text(separator=";", rows=[(*row, "", "") for row in ROWS]),
        text(separator=";", header='"path","person","camera","split"'),
        text(
            separator="\t",
            rows=[[f'"{cell}"' for cell in row] for row in ROWS],
            header='"path","person","camera","split"',
        ),
        text(header=HEADER + ",remark", rows=[(*row, '"a, b; c"') for row in ROWS]),
    ],
)
def test_every_way_to_save_a_table_gives_the_same_rows(tmp_path, content):
    assert read(tmp_path, content) == [(2, *ROWS[0]), (3, *ROWS[1])]


def test_blank_rows_count_and_quotes_hold_separators_and_line_breaks(tmp_path):
    content = '\n\npath,person\n"a,b.jpg","two\nlines"\n\n , \n,,\n"say ""hi"".jpg",2\n'
    assert read(tmp_path, content) == [(4, "a,b.jpg", "two\nlines", None, None), (8, 'say "hi".jpg', "2", None, None)]


def test_the_separator_is_that_of_the_first_row_whatever_the_others_hold(tmp_path):
    assert read(tmp_path, "path;person\na,b,c.jpg;1,5\n") == [(2, "a,b,c.jpg", "1,5", None, None)]
    assert read(tmp_path, "path\na;b.jpg\n", ("path",)) == [(2, "a;b.jpg", None, None, None)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "",
            "labels.csv has no column path and no column person: its first row must be path,person and perhaps camera,",
        ),
        ("file,person\n", "has no column path: "),
        ("path,person\n", "has no rows"),
        ("path,person,Person\na,1,2\n", "names the column person twice"),
        ("path,person,camera\na.jpg\n\nb.jpg,1,2\n", r"row 2 has 1 cell, and the first row 3: give it a cell for each"),
        (
            "path,person\na,b.jpg,1\nc,d.jpg,2\n",
            r"row 2 has 3 cells, and the first row 2: .*separator ',' \(1 more rows",
        ),
        (
            text(rows=[("a.jpg", "stra\u00dfe", "1", "")]).encode("latin-1"),
            r"is no UTF-8 text \(row 2\): save it as UTF-8",
        ),
        (text().encode("utf-16-le"), "characters of value 0: save it as UTF-8|is no UTF-8 text"),
        ("path,person\na\0.jpg,1\n", "holds characters of value 0"),
        ('path,person\na.jpg,"1\nb.jpg,2\n', "cannot be read after row 1: unexpected end of data"),
        ("path,person\n" + "a" * 200_000 + ",1\n", "cannot be read after row 1: field larger than"),
    ],
)
def test_a_table_that_cannot_be_understood_is_refused_in_one_sentence(tmp_path, content, message):
    with pytest.raises(DatasetError, match=message) as error:
        read(tmp_path, content)
    assert "\n" not in str(error.value)


def test_a_table_that_is_not_there_or_no_file_is_refused(tmp_path):
    with pytest.raises(DatasetError, match=r"none\.csv cannot be read: No such file"):
        tables.read(tmp_path / "none.csv", {"path": ""}, COLUMNS)
    with pytest.raises(DatasetError, match="is no file"):
        tables.read(tmp_path, {"path": ""}, COLUMNS)
