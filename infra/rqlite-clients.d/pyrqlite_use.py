"""pyrqlite: the DB-API of Python over rqlite's HTTP API."""

import os

import pyrqlite.dbapi2 as dbapi2

port = int(os.environ["DATABASE_PORT"])
connection = dbapi2.connect(host="127.0.0.1", port=port)

with connection.cursor() as cursor:
    cursor.execute("CREATE TABLE pets (id integer not null primary key, name text, weight real, born timestamp, picture blob)")
    cursor.executemany("INSERT INTO pets(name) VALUES(?)", seq_of_parameters=(("a",), ("b'c",), ("d?e",)))
    assert cursor.rowcount == 3, cursor.rowcount
    cursor.execute("INSERT INTO pets(name, weight) VALUES(?, ?)", ("é:x", 1.5))
    assert cursor.lastrowid == 4, cursor.lastrowid

with connection.cursor() as cursor:
    cursor.execute("SELECT `id`, `name`, weight FROM `pets` WHERE `name`=?", ("a",))
    assert [column[0] for column in cursor.description] == ["id", "name", "weight"]
    assert tuple(cursor.fetchone()) == (1, "a", None)
    assert cursor.fetchone() is None
    cursor.execute("SELECT name FROM pets WHERE id > :least ORDER BY id", {"least": 1})
    assert [row["name"] for row in cursor.fetchall()] == ["b'c", "d?e", "é:x"]
    cursor.execute("UPDATE pets SET weight = 2 WHERE id IN (1, 2)")
    assert cursor.rowcount == 2
    cursor.execute("DELETE FROM pets WHERE id = 2")
    assert cursor.rowcount == 1

# Each write is seen by the next read, at each level that the client knows.
for consistency in (None, "none", "weak", "strong", "linearizable"):
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO pets(name) VALUES(?)", ("seen",), queue=True, wait=True)
        cursor.execute("SELECT count(*) FROM pets", consistency=consistency)
        assert cursor.fetchone()[0] >= 3

with connection.cursor() as cursor:
    try:
        cursor.execute("INSERT INTO pets(id) VALUES(1)")
        raise SystemExit("not refused")
    except dbapi2.Error as error:
        assert "UNIQUE constraint failed" in str(error), error
    cursor.execute("PRAGMA table_info(pets)")
    assert [row["name"] for row in cursor.fetchall()] == ["id", "name", "weight", "born", "picture"]
    cursor.execute("WITH n(i) AS (VALUES(1), (2)) SELECT i FROM n")
    assert [row[0] for row in cursor.fetchall()] == [1, 2]
    # A list of bytes or base64 in rqlite; here an object that cannot be mistaken for a text.
    cursor.execute("INSERT INTO pets(name, picture) VALUES(?, ?)", ("blob", b"\x00\xff"))
    cursor.execute("SELECT picture FROM pets WHERE name = 'blob'")
    assert cursor.fetchone()[0] == {"base64": "AP8="}

typed = dbapi2.connect(host="127.0.0.1", port=port, detect_types=dbapi2.PARSE_DECLTYPES)
with typed.cursor() as cursor:
    cursor.execute("SELECT id, weight, name FROM pets WHERE id = 1")
    assert tuple(cursor.fetchone()) == (1, 2.0, "a")
typed.close()
connection.ping()
connection.close()
