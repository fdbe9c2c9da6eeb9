//! Splits a command line into options and arguments as popt 1.19 does, which ipvsadm uses: options bundle (`-Ln`), a
//! value may follow at once (`-srr`), after an equals sign (`-s=rr`, `--weight=5`) or as the next argument, long options
//! are not abbreviated, and a value may be missing only where the option says so and something that begins with a dash
//! follows. It knows neither what options mean nor which exist: [`crate::options`] does.

/// Whether an option takes a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// No value.
    Nothing,
    /// A value.
    Value,
    /// A value, unless the next argument begins with a dash or there is none.
    Maybe,
}

/// An option that there is.
#[derive(Clone, Copy, Debug)]
pub struct Spec<T> {
    /// Its name after two dashes.
    pub long: &'static str,
    /// Its letter after one dash.
    pub short: Option<u8>,
    /// Whether it takes a value.
    pub takes: Takes,
    /// What the caller knows it by.
    pub flag: T,
}

/// An option that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found<T> {
    /// What the caller knows it by.
    pub flag: T,
    /// Its value.
    pub value: Option<String>,
    /// The argument last read, by which messages name the option.
    pub argument: String,
}

/// What is wrong with a command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// There is no such option.
    Unknown,
    /// The option needs a value, and none is left.
    NoValue,
    /// The option takes no value, and has one.
    UnwantedValue,
}

impl Fault {
    /// The words of poptStrerror.
    pub fn text(self) -> &'static str {
        match self {
            Fault::Unknown => "unknown option",
            Fault::NoValue => "missing argument",
            Fault::UnwantedValue => "option does not take an argument",
        }
    }
}

/// A command line, split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split<T> {
    /// The options, in order, as far as they are right.
    pub found: Vec<Found<T>>,
    /// What is wrong with the one after them, and the argument last read.
    pub fault: Option<(Fault, String)>,
    /// What is no option, in order.
    pub rest: Vec<String>,
}

/// Splits `args`, which are without the program's name.
pub fn split<T: Copy>(specs: &[Spec<T>], args: &[String]) -> Split<T> {
    let mut split = Split {
        found: Vec::new(),
        fault: None,
        rest: Vec::new(),
    };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        if arg == "--" {
            split.rest.extend(args.by_ref().cloned());
        } else if arg == "-" || !arg.starts_with('-') {
            split.rest.push(arg.clone());
        } else if let Err((fault, argument)) = options_of(specs, arg, &mut args, &mut split.found) {
            split.fault = Some((fault, argument.to_owned()));
            break;
        }
    }
    split
}

/// Adds the options in `arg`, which begins with a dash; their values may be taken from `args`. An error names the
/// argument last read.
fn options_of<'a, T: Copy>(
    specs: &[Spec<T>],
    arg: &'a str,
    args: &mut std::slice::Iter<'a, String>,
    found: &mut Vec<Found<T>>,
) -> Result<(), (Fault, &'a str)> {
    if let Some(name) = arg.strip_prefix("--") {
        let (name, value) = match name.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (name, None),
        };
        let spec = specs.iter().find(|spec| spec.long == name);
        let spec = spec.ok_or((Fault::Unknown, arg))?;
        if spec.takes == Takes::Nothing && value.is_some() {
            return Err((Fault::UnwantedValue, arg));
        }
        return take(spec, value, arg, args, found);
    }
    let mut letters = &arg.as_bytes()[1..];
    while let Some((letter, rest)) = letters.split_first() {
        let spec = specs.iter().find(|spec| spec.short == Some(*letter));
        let spec = spec.ok_or((Fault::Unknown, arg))?;
        if spec.takes == Takes::Nothing {
            if rest.first() == Some(&b'=') {
                return Err((Fault::UnwantedValue, arg));
            }
            take(spec, None, arg, args, found)?;
            letters = rest;
            continue;
        }
        // All letters so far were ASCII, so the rest is a string of its own.
        let value = &arg[arg.len() - rest.len()..];
        let value = (!value.is_empty()).then(|| value.strip_prefix('=').unwrap_or(value));
        return take(spec, value, arg, args, found);
    }
    Ok(())
}

/// Adds the option `spec`, found in `arg`, with its value: the one at hand or, where there is none, the next argument.
fn take<'a, T: Copy>(
    spec: &Spec<T>,
    value: Option<&str>,
    arg: &'a str,
    args: &mut std::slice::Iter<'a, String>,
    found: &mut Vec<Found<T>>,
) -> Result<(), (Fault, &'a str)> {
    let mut last = arg;
    let value = match (spec.takes, value) {
        (Takes::Nothing, _) => None,
        (_, Some(value)) => Some(value.to_owned()),
        (Takes::Maybe, None)
            if args
                .as_slice()
                .first()
                .is_none_or(|next| next.starts_with('-')) =>
        {
            None
        }
        (_, None) => {
            last = args.next().ok_or((Fault::NoValue, arg))?;
            Some(last.to_owned())
        }
    };
    found.push(Found {
        flag: spec.flag,
        value,
        argument: last.to_owned(),
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SPECS: &[Spec<char>] = &[
        spec("list", b'L', Takes::Nothing),
        spec("numeric", b'n', Takes::Nothing),
        spec("scheduler", b's', Takes::Value),
        spec("persistent", b'p', Takes::Maybe),
    ];

    const fn spec(long: &'static str, short: u8, takes: Takes) -> Spec<char> {
        Spec {
            long,
            short: Some(short),
            takes,
            flag: short as char,
        }
    }

    fn run(line: &str) -> Split<char> {
        let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        split(SPECS, &args)
    }

    fn options(line: &str) -> Vec<(char, Option<String>)> {
        let split = run(line);
        assert_eq!(split.fault, None, "{line}");
        let pair = |found: Found<char>| (found.flag, found.value);
        split.found.into_iter().map(pair).collect()
    }

    #[test]
    fn letters_bundle_and_take_values_in_every_way() {
        for line in [
            "-Lnsrr",
            "-Lns=rr",
            "-Lns rr",
            "-L -n --scheduler rr",
            "-Ln --scheduler=rr",
        ] {
            let value = |text: &str| Some(text.to_owned());
            let expected = [('L', None), ('n', None), ('s', value("rr"))];
            assert_eq!(options(line), expected, "{line}");
        }
    }

    #[test]
    fn a_value_may_begin_with_a_dash_or_be_empty() {
        assert_eq!(options("-s -L"), [('s', Some("-L".into()))]);
        assert_eq!(options("-s="), [('s', Some(String::new()))]);
        assert_eq!(options("--scheduler="), [('s', Some(String::new()))]);
        assert_eq!(options("-s=="), [('s', Some("=".into()))]);
    }

    #[test]
    fn an_optional_value_is_not_one_that_begins_with_a_dash() {
        assert_eq!(options("-p -n"), [('p', None), ('n', None)]);
        assert_eq!(options("-p"), [('p', None)]);
        assert_eq!(options("-p 60"), [('p', Some("60".into()))]);
        assert_eq!(options("-p-60"), [('p', Some("-60".into()))]);
    }

    #[test]
    fn faults_name_the_argument() {
        let rows = [
            ("-L --foo", Fault::Unknown, "--foo"),
            ("-L --nu", Fault::Unknown, "--nu"),
            ("-Lx", Fault::Unknown, "-Lx"),
            ("-s", Fault::NoValue, "-s"),
            ("-Lns", Fault::NoValue, "-Lns"),
            ("--numeric=1", Fault::UnwantedValue, "--numeric=1"),
            ("-Ln=", Fault::UnwantedValue, "-Ln="),
            ("-p -5", Fault::Unknown, "-5"),
        ];
        for (line, fault, argument) in rows {
            assert_eq!(
                run(line).fault,
                Some((fault, argument.to_owned())),
                "{line}"
            );
        }
    }

    #[test]
    fn what_is_no_option_is_left_over() {
        assert_eq!(run("foo -L - bar").rest, ["foo", "-", "bar"]);
        let split = run("-L -- -n --foo");
        assert_eq!(split.rest, ["-n", "--foo"]);
        assert_eq!(split.found.len(), 1);
    }

    proptest! {
        #[test]
        fn any_command_line_is_split(args in proptest::collection::vec("[-=Lnspé0 ]{0,6}|.{0,5}", 0..6)) {
            let split = split(SPECS, &args);
            prop_assert!(split.rest.len() <= args.len());
        }
    }
}
