//! `ripvsd`: the ripvs daemon. Reads what it is told, checks it, and boots.

mod board;
mod boot;
mod clock;
mod config;
mod control;
mod journal;
mod logging;
mod sysctl;
mod worker;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let options = config::options::Options::parse();
    let path = options.check.as_deref().or(options.config.as_deref());
    let config = match config::load(path, &options) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("ripvsd: {error}");
            return ExitCode::from(2);
        }
    };
    if options.check.is_some() {
        print!("{}", config::explain(&config));
        return ExitCode::SUCCESS;
    }
    logging::start(config.log_level);
    end_with_any_thread();
    let source = control::reload::Source {
        path: options.config.clone(),
        config: config.clone(),
        started_with: config.clone(),
        options,
    };
    match boot::run(&config, source) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ripvsd: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A thread that fails ends the whole daemon: with a worker missing, the rest would go on and lose packets unnoticed, and
/// whoever supervises us would not know.
fn end_with_any_thread() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        report(info);
        std::process::abort();
    }));
}
