//! The supervision tree of a web instance behaves as its table says, with its real sockets.

mod common;

use supervision::Env;

fn env() -> Env {
    // Left to the end of the process: the instance of the suite outlives this function.
    let directory = tempfile::tempdir().expect("a directory").keep();
    web::env(common::config(Vec::new()), common::dependencies(&directory)).expect("a valid configuration")
}

supervision::conformance!(the_tree_behaves_as_its_table_says, web::TREE, env);
