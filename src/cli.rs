//! What can be typed: each command reads its arguments, calls the library and turns the end into an exit code.

#![allow(clippy::print_stdout, reason = "a command's answer goes to standard output")]

use std::{
    io::{IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use annotate_snippets::Renderer;
use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use tracing::warn;
use tracing_subscriber::EnvFilter;

use crate::{
    app,
    config::{Both, Language, Source, text, words},
    demo,
    drivers::{self, Driver, Said},
    machine::{Kernel, ended::Ended},
    peers::{self, Format, pull},
    provision,
    reading::Point,
    signals,
};

/// A configuration with faults; `EX_USAGE` of BSD's sysexits.h.
const FAULTY: u8 = 64;
/// After an outage so long, how things are now is asked for before what was.
const STALE_AFTER: Duration = Duration::from_secs(60);
/// How long the card may take to keep how the gateway ended.
const LAST_WORD: Duration = Duration::from_secs(5);
/// A file that cannot be read; `EX_NOINPUT`.
const NO_INPUT: u8 = 66;

/// The gateway of a village hall: reads its sensors, keeps every reading while the link is down, speaks through the
/// loudspeakers.
#[derive(Debug, Parser)]
#[command(name = "clocher", version, arg_required_else_help = true)]
struct Line {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the gateway until it is told to stop.
    Run {
        /// The gateway's file.
        #[arg(long, value_name = "FILE", default_value = "/etc/clocher/gateway.toml")]
        config: PathBuf,
    },
    /// Tells every fault of a configuration, with line and caret; exit code 64 when there is one.
    Check(Check),
    /// On the box, at each start: from `clocher.toml` on the card to what the gateway runs and the network.
    Provision(provision::Places),
    /// On the box, once the gateway has started: RESULTAT.txt on the card, in French.
    Report(provision::report::Report),
    /// Opens every relay of a configuration and ends: for systemd, when the gateway has ended however it did.
    Release {
        /// The gateway's file.
        #[arg(long, value_name = "FILE", default_value = "/etc/clocher/gateway.toml")]
        config: PathBuf,
        /// Keeps what systemd tells of the end ($SERVICE_RESULT, $EXIT_CODE, $EXIT_STATUS) for the next start to show.
        #[arg(long)]
        ended: bool,
    },
    /// Shows the whole gateway at work in an invented commune: no hardware, no configuration, no network.
    Demo(demo::Demo),
    /// Lists the drivers, or every option of one.
    Drivers {
        /// A driver's name.
        name: Option<String>,
    },
    /// Decodes a capture to readings on the terminal.
    Replay(Replay),
    /// Pulls readings from a gateway, as a central server does.
    Pull(Pull),
    /// Prints the pull API as an OpenAPI document.
    Openapi,
}

#[derive(Debug, Args)]
struct Check {
    /// The file: a gateway's, or `clocher.toml` of a card.
    #[arg(value_name = "FILE", default_value = "/etc/clocher/gateway.toml")]
    file: PathBuf,
    /// The same, for those who write it so.
    #[arg(long, value_name = "FILE", conflicts_with = "file")]
    config: Option<PathBuf>,
    /// `fr` or `en`; the environment's without it.
    #[arg(long, value_name = "LANGUAGE", value_parser = language)]
    language: Option<Language>,
}

fn language(tag: &str) -> Result<Language, String> {
    Language::from_tag(tag).ok_or_else(|| "fr or en".to_owned())
}

#[derive(Debug, Args)]
struct Replay {
    /// The driver: `clocher drivers` lists them.
    driver: String,
    /// The capture: raw bytes for tic, requests and answers in hexadecimal for modbus, `topic payload` lines for mqtt,
    /// `milliseconds level` lines for pulse and contact.
    capture: PathBuf,
    /// An option of the driver as in the configuration: `-o mode="historic"`.
    #[arg(short, long = "option", value_name = "KEY=VALUE")]
    options: Vec<String>,
    /// A file with the options, or with a whole `[[device]]` block.
    #[arg(long, value_name = "FILE")]
    device: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Pull {
    /// The gateway: `https://gateway.example:8444`.
    url: String,
    /// This server's certificate, PEM.
    #[arg(long, value_name = "FILE")]
    certificate: PathBuf,
    /// Its key, PEM.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Who signs gateways: certificates, PEM.
    #[arg(long, visible_alias = "ca", value_name = "FILE")]
    authority: PathBuf,
    /// Where to remember how far was pulled.
    #[arg(long, value_name = "FILE")]
    cursor: PathBuf,
    /// JSON lines go to this file, or to standard output.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Goes on waiting for new readings instead of ending once all are pulled.
    #[arg(long)]
    follow: bool,
    /// One point a line, delta-coded, instead of one reading a line.
    #[arg(long)]
    columns: bool,
    /// At the start and after an outage, writes the newest reading of each point to this file before the backlog.
    #[arg(long, value_name = "FILE")]
    newest_first: Option<PathBuf>,
    /// Readings a page.
    #[arg(long, default_value_t = 5_000)]
    limit: usize,
    /// With --follow: how long the gateway holds a request open for news, 60 at most. With 0 it is asked again when it
    /// says so.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(0..=60))]
    wait: u64,
    /// Silence of the gateway after which the link is given up and tried anew.
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    silence: Duration,
    /// Longest pause between two tries.
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = seconds)]
    longest_pause: Duration,
}

/// From a tenth of a second to an hour.
fn seconds(text: &str) -> Result<Duration, String> {
    let duration = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let bounds = Duration::from_millis(100)..=Duration::from_secs(3_600);
    duration.filter(|duration| bounds.contains(duration)).ok_or_else(|| "seconds from 0.1 to 3600".to_owned())
}

/// The whole program: reads the arguments, does it, gives the exit code.
pub fn main() -> ExitCode {
    let line = Line::parse();
    let outcome = match line.command {
        Command::Run { config } => run(&config),
        Command::Check(asked) => check(&asked),
        Command::Provision(places) => prepare(&places),
        Command::Report(report) => tell(&report),
        Command::Release { config, ended } => Ok(release(&config, ended)),
        Command::Demo(demo) => show(demo),
        Command::Drivers { name } => list(name.as_deref()),
        Command::Replay(replay) => play(&replay),
        Command::Pull(pull) => fetch(pull),
        Command::Openapi => {
            // A reader that leaves early (`| head`) is not a fault.
            let _ = write!(std::io::stdout(), "{}", peers::OPENAPI);
            Ok(ExitCode::SUCCESS)
        }
    };
    outcome.unwrap_or_else(|wrong| {
        eprintln!("clocher: {wrong:#}");
        ExitCode::FAILURE
    })
}

fn log(default: &str) {
    let wanted = std::env::var("CLOCHER_LOG").unwrap_or_else(|_| default.to_owned());
    // The router speaks at length of every link.
    let filter = EnvFilter::try_new(format!("rumqttd=warn,{wanted}")).unwrap_or_else(|_| EnvFilter::new(default));
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_target(false).with_writer(std::io::stderr);
    // Journald dates the lines itself.
    let _ = match std::env::var_os("JOURNAL_STREAM") {
        Some(_) => subscriber.without_time().with_ansi(false).try_init(),
        None => subscriber.with_ansi(std::io::stderr().is_terminal()).try_init(),
    };
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().context("start the runtime")
}

fn run(config: &Path) -> anyhow::Result<ExitCode> {
    log("info");
    let source = app::read_source(config);
    show_faults(&source, Language::English);
    let runtime = runtime()?;
    let stubborn = runtime.block_on(app::run(&source))?;
    // A thread that hangs on the card is not waited for.
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(if stubborn.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Relays first. A card that hangs holds up the word about the end only so long.
fn release(config: &Path, ended: bool) -> ExitCode {
    log("info");
    let settings = app::read_settings(&app::read_source(config));
    let released = app::release(&settings);
    let end = if ended { Ended::told(&Kernel::default(), |name| std::env::var(name).ok()) } else { None };
    if let Some(end) = end {
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || tell.send(end.leave(&settings.store.directory)));
        match told.recv_timeout(LAST_WORD) {
            Ok(Ok(())) => {}
            Ok(Err(wrong)) => warn!(%wrong, "How the gateway ended was not kept"),
            Err(_) => warn!("How the gateway ended was not kept: the card does not answer"),
        }
    }
    if released.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn check(asked: &Check) -> anyhow::Result<ExitCode> {
    let config = asked.config.as_ref().unwrap_or(&asked.file);
    let language = asked.language.unwrap_or_else(|| Language::of_environment(|name| std::env::var(name).ok()));
    let text = match text::read(config) {
        Ok(text) => text,
        Err(wrong) => {
            eprintln!("clocher: {}: {}", config.display(), wrong.to(language));
            return Ok(ExitCode::from(NO_INPUT));
        }
    };
    let source = Source::new(config.display().to_string(), text);
    let settings = app::read_settings(&source);
    source.tell_missing();
    if show_faults(&source, language) > 0 {
        return Ok(ExitCode::from(FAULTY));
    }
    let points: usize = settings.devices.iter().map(|device| device.points.len()).sum();
    let devices = settings.devices.len();
    let (file, commune) = (config.display(), &settings.commune.name);
    let sound = words!(
        "{file}: sound. {commune}, {devices} devices, {points} points.",
        "{file} : en ordre. {commune}, appareils : {devices}, points : {points}."
    );
    let _ = writeln!(std::io::stdout(), "{}", sound.to(language));
    Ok(ExitCode::SUCCESS)
}

/// Never stops the start of the box: what could not be done is told, and the rest goes on.
fn prepare(places: &provision::Places) -> anyhow::Result<ExitCode> {
    for wrong in provision::run(places) {
        eprintln!("clocher provision: {wrong}");
    }
    Ok(ExitCode::SUCCESS)
}

/// Nor does this.
fn tell(report: &provision::report::Report) -> anyhow::Result<ExitCode> {
    if let Err(wrong) = provision::report::run(report) {
        eprintln!("clocher report: {wrong}");
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints every fault and their number to standard error; gives the number.
fn show_faults(source: &Source, language: Language) -> usize {
    let renderer = if std::io::stderr().is_terminal() { Renderer::styled() } else { Renderer::plain() };
    let faults = source.faults();
    for fault in &faults {
        eprintln!("{}\n", source.render(fault, &renderer, language));
    }
    match faults.len() {
        0 => {}
        1 => eprintln!("1 {} {}", Both("fault in", "erreur dans").to(language), source.name),
        many => eprintln!("{many} {} {}", Both("faults in", "erreurs dans").to(language), source.name),
    }
    faults.len()
}

fn show(demo: demo::Demo) -> anyhow::Result<ExitCode> {
    log("warn");
    runtime()?.block_on(demo::run(demo))?;
    Ok(ExitCode::SUCCESS)
}

fn list(name: Option<&str>) -> anyhow::Result<ExitCode> {
    let text = match name {
        None => drivers::list(),
        Some(name) => drivers::describe(find(name)?),
    };
    // A reader that leaves early (`| head`) is not a fault.
    let _ = writeln!(std::io::stdout(), "{}", text.trim_end());
    Ok(ExitCode::SUCCESS)
}

fn find(name: &str) -> anyhow::Result<&'static Driver> {
    let names = || drivers::DRIVERS.iter().map(|driver| driver.name).collect::<Vec<_>>().join(", ");
    drivers::find(name).with_context(|| format!("{name:?} is not a driver; there are {}", names()))
}

fn play(replay: &Replay) -> anyhow::Result<ExitCode> {
    let driver = find(&replay.driver)?;
    let file = replay.capture.display();
    let capture = std::fs::read(&replay.capture).with_context(|| format!("read {file}"))?;
    let replayed = drivers::replay(driver, &options(replay)?, &capture).with_context(|| format!("{file}"))?;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for said in &replayed.said {
        // A reader that leaves early (`| head`) is not a fault.
        if writeln!(out, "{}", told(said, &replayed.points)).is_err() {
            break;
        }
    }
    Ok(if replayed.said.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The lines of a `[[device]]` block, from a file and from the command line, which goes first.
fn options(replay: &Replay) -> anyhow::Result<String> {
    let file = match &replay.device {
        Some(file) => std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?,
        None => String::new(),
    };
    let typed = replay.options.iter().map(|option| quoted(option)).collect::<Vec<_>>().join("\n");
    Ok(format!("{typed}\n{}", file.replace("[[device]]", "").replace("[[device.", "[[")))
}

/// A shell eats quotes: `mode=historic` is taken as `mode="historic"`.
fn quoted(option: &str) -> String {
    let Some((key, value)) = option.split_once('=') else { return option.to_owned() };
    if toml::de::DeValue::parse(value.trim()).is_ok() {
        return option.to_owned();
    }
    format!("{key}={}", toml::Value::String(value.trim().to_owned()))
}

fn told(said: &Said, points: &[Point]) -> String {
    match said {
        Said::Unreadable(what) => format!("unreadable  {what}"),
        Said::Value { point, value, quality } => {
            let unit = points.iter().find(|known| known.id == *point).map_or("", |known| &known.unit);
            let value = value.map_or_else(|| "no value".to_owned(), |value| format!("{value} {unit}"));
            let why = quality.why().map_or_else(String::new, |why| format!(" ({why:?})"));
            format!("{point}  {}  {}{why}", value.trim_end(), quality.word())
        }
    }
}

fn patience(silence: Duration, longest: Duration) -> pull::Patience {
    let usual = pull::Patience::default();
    pull::Patience { first: usual.first.min(longest), longest, silence, ..usual }
}

fn fetch(pull: Pull) -> anyhow::Result<ExitCode> {
    log("warn");
    let options = pull::PullOptions {
        url: pull.url,
        certificate: pull.certificate,
        key: pull.key,
        authority: pull.authority,
        cursor_file: pull.cursor,
        output: pull.output,
        format: if pull.columns { Format::Columns } else { Format::Rows },
        newest_first: pull.newest_first.map(|file| pull::NewestFirst { file, after: STALE_AFTER }),
        once: !pull.follow,
        wait: Duration::from_secs(pull.wait),
        limit: pull.limit,
        progress: std::io::stderr().is_terminal(),
        patience: patience(pull.silence, pull.longest_pause),
    };
    let summary = runtime()?.block_on(async {
        let stop = signals::token().context("listen to signals")?;
        pull::run(options, stop).await.map_err(anyhow::Error::from)
    })?;
    eprintln!("{summary}");
    Ok(ExitCode::SUCCESS)
}
