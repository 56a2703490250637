-- Alembic 1.20, `batch_alter_table` of both tables, and two nested transactions of SQLAlchemy.
CREATE TABLE author (id INTEGER NOT NULL, name VARCHAR(20), old INTEGER, PRIMARY KEY (id));
CREATE TABLE book (id INTEGER NOT NULL, author_id INTEGER NOT NULL, title TEXT, PRIMARY KEY (id), CONSTRAINT fk FOREIGN KEY(author_id) REFERENCES author (id) ON DELETE CASCADE);
CREATE INDEX ix_book_title ON book (title);
INSERT INTO author VALUES (1,'a',1),(2,'b',2);
INSERT INTO book VALUES (1,1,'x'),(2,2,'y');
-- migration
PRAGMA foreign_keys=OFF;
PRAGMA main.table_xinfo("author");
SELECT sql FROM  (SELECT * FROM sqlite_master UNION ALL   SELECT * FROM sqlite_temp_master) WHERE name = 'author' AND type in ('table', 'view');
PRAGMA temp.foreign_key_list("author");
PRAGMA temp.index_list("author");
CREATE TABLE _alembic_tmp_author (
	id INTEGER NOT NULL, 
	name VARCHAR(40) NOT NULL, 
	PRIMARY KEY (id)
);
BEGIN;
INSERT INTO _alembic_tmp_author (id, name) SELECT author.id, author.name 
FROM author;
DROP TABLE author;
ALTER TABLE _alembic_tmp_author RENAME TO author;
CREATE TABLE _alembic_tmp_book (
	id INTEGER NOT NULL, 
	author_id INTEGER NOT NULL, 
	title TEXT, 
	pages INTEGER DEFAULT '0', 
	PRIMARY KEY (id), 
	CONSTRAINT fk FOREIGN KEY(author_id) REFERENCES author (id) ON DELETE CASCADE
);
INSERT INTO _alembic_tmp_book (id, author_id, title) SELECT book.id, book.author_id, book.title 
FROM book;
DROP TABLE book;
ALTER TABLE _alembic_tmp_book RENAME TO book;
CREATE INDEX ix_book_title ON book (title);
SAVEPOINT sa_savepoint_1;
INSERT INTO author(name) VALUES('z');
RELEASE SAVEPOINT sa_savepoint_1;
SAVEPOINT sa_savepoint_2;
INSERT INTO author(name) VALUES('q');
ROLLBACK TO SAVEPOINT sa_savepoint_2;
COMMIT;
