//! `standfast`: the whole stack, one tier of it, or a command for a running one. The one crate that knows every tier.
//!
//! Read in this order: `cli` (what can be typed), `node` (how a process becomes a node of the stack), `settings`
//! (the composed configuration), `client` (the commands that talk to a running stack).

mod chain;
mod cli;
mod client;
mod data_dir;
mod failure;
mod memory;
mod node;
mod notify;
mod out;
mod process;
mod settings;
mod signals;
mod usage;

use clap::{CommandFactory, Parser};

use crate::cli::{Cli, Command};
use crate::failure::{Failure, Outcome};
use crate::settings::Source;

fn main() -> std::process::ExitCode {
    if let Some(code) = jobs::helper::asked(std::env::args_os().skip(1)) {
        return code;
    }
    memory::fix_thresholds();
    process::hide_secrets();
    let parsed = Cli::try_parse().map_err(|error| usage::wrong(&error));
    if let Ok(Cli { command: Command::Up(_) | Command::Run(_) }) = &parsed
        && let Some(code) = process::become_init()
    {
        return code;
    }
    match parsed.and_then(|cli| run(cli.command)) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(failure) => {
            out::complain(&failure.text);
            std::process::ExitCode::from(failure.code as u8)
        }
    }
}

fn run(command: Command) -> Outcome {
    match command {
        Command::Up(up) => node::up(&up),
        Command::Run(run) => node::run(&run),
        Command::Tree(tree) => client::run(client::tree::run(tree)),
        Command::Jobs { command } => client::run(client::jobs::run(command)),
        Command::Fault { command } => client::run(client::fault::run(command)),
        Command::Db { command } => client::run(client::db::run(command)),
        Command::Purge(purge) => client::run(client::purge::run(purge)),
        Command::Ready { url } => client::run(client::ready::run(&url)),
        Command::CheckConfig { file, print } => check_config(file.as_deref(), print),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "standfast", &mut script);
            out::write(&String::from_utf8_lossy(&script));
            Ok(())
        }
    }
}

fn check_config(file: Option<&std::path::Path>, print: bool) -> Outcome {
    let settings = Source::new(file).load()?;
    if let Some((last, others)) = settings.look().split_last() {
        others.iter().for_each(|trouble| out::complain(trouble));
        return Err(Failure::config(last));
    }
    if print {
        out::write(&settings.to_toml());
    } else {
        let name = file.map_or("the environment".into(), |file| file.display().to_string());
        out::line(format!("{name} is fine"));
    }
    Ok(())
}
