-- Django 5.2, `migrate`: RemoveField and AlterField on a model that another one references.
CREATE TABLE "app_author" ("id" integer NOT NULL PRIMARY KEY AUTOINCREMENT, "name" varchar(20) NOT NULL, "old" integer NULL);
CREATE TABLE "app_book" ("id" integer NOT NULL PRIMARY KEY AUTOINCREMENT, "title" text NOT NULL UNIQUE, "author_id" bigint NOT NULL REFERENCES "app_author" ("id") DEFERRABLE INITIALLY DEFERRED);
CREATE INDEX "app_book_author_id_a5c1d6a1" ON "app_book" ("author_id");
CREATE TABLE "django_migrations" ("id" integer NOT NULL PRIMARY KEY AUTOINCREMENT, "app" varchar(255) NOT NULL, "name" varchar(255) NOT NULL);
INSERT INTO "app_author" ("name", "old") VALUES ('a', 1), ('b', NULL), ('gone', 3);
DELETE FROM "app_author" WHERE "name" = 'gone';
INSERT INTO "app_book" ("title", "author_id") VALUES ('x', 1), ('y', 2), ('z', 2);
-- migration
PRAGMA foreign_keys = OFF;
PRAGMA foreign_keys;
BEGIN;
ALTER TABLE "app_author" DROP COLUMN "old";
CREATE TABLE "new__app_author" ("id" integer NOT NULL PRIMARY KEY AUTOINCREMENT, "name" varchar(40) NOT NULL UNIQUE);
INSERT INTO "new__app_author" ("id", "name") SELECT "id", "name" FROM "app_author";
DROP TABLE "app_author";
ALTER TABLE "new__app_author" RENAME TO "app_author";
INSERT INTO "django_migrations" ("app", "name") VALUES ('app', '0002_remove_author_old_alter_author_name') RETURNING "django_migrations"."id";
PRAGMA foreign_key_check;
COMMIT;
PRAGMA foreign_keys = ON;
