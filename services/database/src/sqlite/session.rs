//! What a connection of one's own would remember from one statement of a request to the next.

use std::cell::Cell;

use changeset::Memory;
use rusqlite::Connection;
use rusqlite::config::DbConfig;

/// See the module. Kept between the transactions of a request, also if they run in several groups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Session {
    /// `last_insert_rowid()` and its like.
    pub memory: Memory,
    /// What PRAGMAs of the request have set.
    pub settings: Settings,
}

/// What a request may set for itself beyond one transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `PRAGMA foreign_keys`
    pub foreign_keys: bool,
    /// `PRAGMA legacy_alter_table`
    pub legacy_alter_table: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { foreign_keys: true, legacy_alter_table: false }
    }
}

/// What a connection is set to now.
#[derive(Default)]
pub struct Current(Cell<Option<Settings>>);

impl Current {
    /// As it was set last; the defaults if it never was.
    pub fn get(&self) -> Settings {
        self.0.get().unwrap_or_default()
    }

    /// Nothing is known of the connection any more: the next [`Current::set`] sets everything.
    pub fn forget(&self) {
        self.0.set(None);
    }

    /// Sets the connection, if it is not so already: each change compiles all its statements again.
    ///
    /// SQLite refuses the PRAGMA in a transaction because violations of keys are counted while they are on. Whoever calls
    /// this in one gets those of before and after: COMMIT is refused if one of them remains.
    ///
    /// # Errors
    /// SQLite's own.
    pub fn set(&self, conn: &Connection, to: Settings) -> rusqlite::Result<()> {
        if self.0.get() == Some(to) {
            return Ok(());
        }
        self.forget();
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, to.foreign_keys)?;
        conn.set_db_config(DbConfig::SQLITE_DBCONFIG_LEGACY_ALTER_TABLE, to.legacy_alter_table)?;
        self.0.set(Some(to));
        Ok(())
    }
}
