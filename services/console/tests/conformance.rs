//! The console's tree behaves as its table says, with its real sockets.

mod common;

use common::Node;
use console::Config;
use supervision::Env;

async fn env() -> Env {
    // Left to the end of the process: the console of the suite outlives this function.
    let (directory, bus) = common::embedded();
    let node = Box::leak(Box::new(Node::start("n", &bus).await));
    std::mem::forget(directory);
    let listen = ([127, 0, 0, 1], 0).into();
    common::console_env(Config { listen, workers: 2, ..Config::default() }, node)
}

supervision::conformance!(the_console_restarts_as_its_table_says, console::TREE, async env);
