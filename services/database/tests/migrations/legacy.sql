-- A rename that leaves what others say of the table as it is: the order that SQLite's documentation warns of, made to work.
CREATE TABLE x (id INTEGER PRIMARY KEY, v TEXT);
CREATE TABLE y (id INTEGER PRIMARY KEY, x_id INTEGER REFERENCES x ON DELETE CASCADE);
INSERT INTO x VALUES (1, 'a'), (2, 'b');
INSERT INTO y VALUES (1, 1), (2, 2);
-- migration
PRAGMA foreign_keys=OFF;
PRAGMA legacy_alter_table=ON;
BEGIN;
ALTER TABLE x RENAME TO x_old;
CREATE TABLE x (id INTEGER PRIMARY KEY, v TEXT NOT NULL, more);
INSERT INTO x (id, v) SELECT id, v FROM x_old;
DROP TABLE x_old;
COMMIT;
PRAGMA legacy_alter_table=OFF;
PRAGMA foreign_keys=ON;
