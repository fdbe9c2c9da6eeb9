//! The ripvs command line: the options of ipvsadm, and subcommands of our own. Called as `ipvsadm-save` or
//! `ipvsadm-restore`, or the same with an r before it, it does what those scripts do.
//!
//! A command line is split ([`popt`]) and read ([`meaning`]) before anything is asked of the server ([`app`]).

mod address;
mod app;
mod cnum;
mod conns;
mod json;
mod list;
mod meaning;
mod names;
mod net;
mod options;
mod popt;
mod restore;
mod save;
mod sched_flags;
mod sort;
mod strerror;
mod usage;

use std::env;
use std::io::{self, BufWriter};
use std::path::Path;
use std::process::ExitCode;

use app::{App, Exit};

fn main() -> ExitCode {
    let mut args = env::args_os().map(|arg| arg.to_string_lossy().into_owned());
    let program = args.next().unwrap_or_default();
    let program = match Path::new(&program).file_name() {
        Some(name) => name.to_string_lossy().into_owned(),
        None => env!("CARGO_PKG_NAME").to_owned(),
    };
    let args: Vec<String> = args.collect();
    let names = names::System::default();
    let mut stdout = BufWriter::new(io::stdout().lock());
    let mut app = App {
        program,
        names: &names,
        stdin: &mut io::stdin().lock(),
        stdout: &mut stdout,
        stderr: &mut io::stderr().lock(),
        socket: None,
        client: None,
    };
    let status = status_of(&mut app, &args);
    ExitCode::from(status)
}

/// Runs the program and gives its exit status. What is to be said of an error is said.
fn status_of(app: &mut App<'_>, args: &[String]) -> u8 {
    let result = dispatch(app, args);
    // Standard output goes out before what is wrong is told, so that they come in order.
    let flushed = app.stdout.flush().map_err(Exit::from);
    match result.and_then(|status| flushed.map(|()| status)) {
        Ok(status) => status,
        Err(Exit::Unread) => 0,
        Err(Exit::Failed(status, message)) => {
            // With standard error gone as well there is nobody left to tell.
            let _ = app.stderr.write_all(message.as_bytes());
            status
        }
    }
}

/// Finds out what the command line is for: the program's name, a subcommand, or the options of ipvsadm.
fn dispatch(app: &mut App<'_>, args: &[String]) -> Result<u8, Exit> {
    let name = app.program.strip_prefix('r').unwrap_or(&app.program);
    match name {
        "ipvsadm-save" => return save_script(app, args),
        "ipvsadm-restore" => return restore_script(app),
        _ => {}
    }
    let mut rest = args;
    let mut json = false;
    while let Some((first, others)) = rest.split_first() {
        if first == "--json" {
            json = true;
            rest = others;
        } else if let Some(path) = first.strip_prefix("--socket=") {
            app.socket = Some(path.into());
            rest = others;
        } else if let ("--socket", Some((path, others))) = (first.as_str(), others.split_first()) {
            app.socket = Some(path.into());
            rest = others;
        } else {
            break;
        }
    }
    let json_option = json.then(|| "--json".to_owned());
    match rest.split_first() {
        None => {
            // Without a command all is listed.
            let list = std::iter::once("--list".to_owned()).chain(json_option);
            app.ipvsadm(&list.collect::<Vec<_>>())
        }
        Some((first, _)) if net::is_subcommand(first) => {
            let line = rest.iter().cloned().chain(json_option);
            net::run(app, &line.collect::<Vec<_>>())
        }
        Some((first, others)) if json => {
            let line = [first.clone(), "--json".to_owned()].into_iter();
            app.ipvsadm(&line.chain(others.iter().cloned()).collect::<Vec<_>>())
        }
        Some(_) => app.ipvsadm(rest),
    }
}

/// What the script ipvsadm-save does.
fn save_script(app: &mut App<'_>, args: &[String]) -> Result<u8, Exit> {
    let mut line = vec!["-S".to_owned()];
    for arg in args.iter().filter(|arg| arg.starts_with('-')) {
        if arg != "-n" {
            let help = format!(
                "{}: Script to save the IPVS table to stdout.\n   \
                 With the -n option, prints out the table in numeric format.\n",
                app.program
            );
            return Err(Exit::Failed(1, help));
        }
        line.truncate(1);
        line.push("-n".to_owned());
    }
    app.ipvsadm(&line)
}

/// What the script ipvsadm-restore does: what is restored takes the place of all there was.
fn restore_script(app: &mut App<'_>) -> Result<u8, Exit> {
    let mut text = Vec::new();
    app.stdin.read_to_end(&mut text)?;
    let lines = text.split_inclusive(|byte| *byte == b'\n');
    let kept: Vec<&[u8]> = lines.filter(|line| !line.starts_with(b"#")).collect();
    let kept = kept.concat();
    app.ipvsadm(&["-C".to_owned()])?;
    let mut app = App {
        program: app.program.clone(),
        names: app.names,
        stdin: &mut kept.as_slice(),
        stdout: app.stdout,
        stderr: app.stderr,
        socket: app.socket.clone(),
        client: app.client.take(),
    };
    app.ipvsadm(&["-R".to_owned()])
}
