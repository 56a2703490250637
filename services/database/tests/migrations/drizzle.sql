-- drizzle-kit 0.31, `generate`. It turns foreign keys on again before it rebuilds the second table: SQLite then empties the
-- column that referenced it, and so do we.
CREATE TABLE `users` (
	`id` integer PRIMARY KEY AUTOINCREMENT NOT NULL,
	`name` text,
	`age` integer
);
CREATE TABLE `posts` (
	`id` integer PRIMARY KEY NOT NULL,
	`author` integer NOT NULL,
	`title` text,
	FOREIGN KEY (`author`) REFERENCES `users`(`id`) ON UPDATE no action ON DELETE cascade
);
CREATE UNIQUE INDEX `title_ix` ON `posts` (`title`);
INSERT INTO `users` (`name`, `age`) VALUES ('a', 1), ('b', 2);
INSERT INTO `posts` (`author`, `title`) VALUES (1, 'x'), (2, 'y');
-- migration
PRAGMA foreign_keys=OFF;
CREATE TABLE `__new_posts` (
	`id` integer PRIMARY KEY NOT NULL,
	`author` integer,
	`title` text NOT NULL,
	FOREIGN KEY (`author`) REFERENCES `users`(`id`) ON UPDATE no action ON DELETE set null
);
INSERT INTO `__new_posts`("id", "author", "title") SELECT "id", "author", "title" FROM `posts`;
DROP TABLE `posts`;
ALTER TABLE `__new_posts` RENAME TO `posts`;
PRAGMA foreign_keys=ON;
CREATE UNIQUE INDEX `title_ix` ON `posts` (`title`);
CREATE TABLE `__new_users` (
	`id` integer PRIMARY KEY AUTOINCREMENT NOT NULL,
	`name` text DEFAULT 'nobody' NOT NULL
);
INSERT INTO `__new_users`("id", "name") SELECT "id", "name" FROM `users`;
DROP TABLE `users`;
ALTER TABLE `__new_users` RENAME TO `users`;
