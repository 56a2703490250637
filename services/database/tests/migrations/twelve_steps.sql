-- The procedure of SQLite's own documentation (lang_altertable.html, section 7), with an index, a trigger and a view.
CREATE TABLE x (id INTEGER PRIMARY KEY, v TEXT);
CREATE TABLE y (id INTEGER PRIMARY KEY, x_id INTEGER REFERENCES x ON DELETE CASCADE);
CREATE TABLE log (what);
CREATE INDEX x_by_v ON x (v);
CREATE TRIGGER x_gone AFTER DELETE ON x BEGIN INSERT INTO log VALUES (old.v); END;
CREATE VIEW xs AS SELECT id, v FROM x;
INSERT INTO x VALUES (1, 'a'), (2, 'b');
INSERT INTO y VALUES (1, 1), (2, 2);
-- migration
PRAGMA foreign_keys=OFF;
BEGIN TRANSACTION;
SELECT type, sql FROM sqlite_schema WHERE tbl_name='x';
CREATE TABLE new_x (id INTEGER PRIMARY KEY, v TEXT NOT NULL CHECK (length(v) < 9), more);
INSERT INTO new_x (id, v) SELECT id, v FROM x;
DROP VIEW xs;
DROP TABLE x;
ALTER TABLE new_x RENAME TO x;
CREATE INDEX x_by_v ON x (v);
CREATE TRIGGER x_gone AFTER DELETE ON x BEGIN INSERT INTO log VALUES (old.v); END;
CREATE VIEW xs AS SELECT id, v, more FROM x;
PRAGMA foreign_key_check;
COMMIT;
PRAGMA foreign_keys=ON;
