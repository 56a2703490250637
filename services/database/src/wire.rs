//! The HTTP bodies of [`messages::sql`], read straight into what SQLite binds and written straight from what it returns.
//!
//! The same JSON as the types in `messages`, without a tree of `serde_json::Value` between: parsing is on the way of
//! every write.

mod answer;
mod request;

pub use answer::{Outcome, Rows, Shape, write_results};
pub use request::{Named, Param, Statement};
