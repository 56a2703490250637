-- As Rails' `change_column` copies a table into a temporary one and back (by knowledge of its SQLite adapter).
CREATE TABLE "posts" ("id" integer PRIMARY KEY AUTOINCREMENT NOT NULL, "title" varchar, "created_at" datetime(6) NOT NULL);
CREATE TABLE "comments" ("id" integer PRIMARY KEY AUTOINCREMENT NOT NULL, "post_id" integer NOT NULL, CONSTRAINT "fk_rails_2fd19c0db7" FOREIGN KEY ("post_id") REFERENCES "posts" ("id"));
CREATE INDEX "index_posts_on_title" ON "posts" ("title");
INSERT INTO "posts" ("title", "created_at") VALUES ('x', '2026-01-01'), ('y', '2026-01-02');
INSERT INTO "comments" ("post_id") VALUES (1), (2), (2);
-- migration
PRAGMA foreign_keys;
PRAGMA defer_foreign_keys;
PRAGMA defer_foreign_keys = ON;
PRAGMA foreign_keys = OFF;
begin transaction;
CREATE TEMPORARY TABLE "aposts" ("id" integer PRIMARY KEY AUTOINCREMENT NOT NULL, "title" varchar, "created_at" datetime(6) NOT NULL);
CREATE INDEX "tindex_aposts_on_title" ON "aposts" ("title");
INSERT INTO "aposts" ("id","title","created_at")
                     SELECT "id","title","created_at" FROM "posts";
DROP TABLE "posts";
CREATE TABLE "posts" ("id" integer PRIMARY KEY AUTOINCREMENT NOT NULL, "title" text NOT NULL, "created_at" datetime(6) NOT NULL);
CREATE INDEX "index_posts_on_title" ON "posts" ("title");
INSERT INTO "posts" ("id","title","created_at")
                     SELECT "id","title","created_at" FROM "aposts";
DROP TABLE "aposts";
commit transaction;
PRAGMA defer_foreign_keys = 0;
PRAGMA foreign_keys = 1;
