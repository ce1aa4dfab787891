//! `clocher demo`: an invented commune around a real gateway. Everything between the wires and the central server is
//! the product itself; only what hangs on the wires, and the 4G link, is played here.

mod central;
mod link;
mod wires;

use std::{
    fs::Permissions,
    io::Write,
    net::{SocketAddr, TcpListener},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use clap::Args;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    app::{self, Instead},
    config::Source,
    port::gpio::Simulated,
    signals::Signals,
    tls::Authority,
};

/// How the demonstration is run; every option has a sensible default.
#[derive(Debug, Args)]
pub struct Demo {
    /// Port of the panel on this machine.
    #[arg(long, default_value_t = 8443)]
    port: u16,
    /// Where to keep its readings, sounds and certificates; a temporary place, removed at the end, by default.
    #[arg(long, value_name = "DIRECTORY")]
    directory: Option<PathBuf>,
    /// How long the 4G link holds, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 180, value_parser = clap::value_parser!(u64).range(5..=86_400))]
    link_up: u64,
    /// How long it drops, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(5..=86_400))]
    link_down: u64,
}

/// Why the demonstration could not be shown.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// A file, a port or a pseudo-terminal.
    #[error("{0}")]
    Machine(String, #[source] std::io::Error),
    /// The demonstration's own configuration is wrong: a fault of ours.
    #[error("the demonstration's configuration has faults: {0}")]
    Configuration(String),
    /// The gateway did not start.
    #[error("start the gateway")]
    App(#[from] app::AppError),
    /// The certificates of the invented territory.
    #[error("make the certificates of the demonstration")]
    Certificates(#[from] crate::tls::TlsError),
}

fn machine(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> DemoError {
    let doing = doing.into();
    move |source| DemoError::Machine(doing, source)
}

/// The pins of the invented hall, by BCM number; `config/demo.toml` names the same.
const WATER_PIN: u8 = 17;

/// Shows the demonstration until Ctrl-C.
///
/// # Errors
/// When this machine refuses a port, a pseudo-terminal or a file, or the gateway does not start.
pub async fn run(demo: Demo) -> Result<(), DemoError> {
    let signals = Signals::listen().map_err(machine("listen to signals"))?;
    let place = Place::make(demo.directory.as_deref())?;
    let stop = CancellationToken::new();
    let pulling = CancellationToken::new();
    let played = TaskTracker::new();
    let pins = Arc::new(Simulated::new());
    let linky = wires::Linky::plug().map_err(machine("open a pseudo-terminal for the electricity meter"))?;
    let submeter = wires::Submeter::plug().map_err(machine("open a pseudo-terminal for the Modbus meter"))?;
    let probe = wires::Co2Probe::new();
    let authority = Authority::new("Territoire de démonstration")?;
    write_certificates(&authority, place.path())?;

    let text = filled_in(&demo, place.path(), &linky.path, &submeter.path, &probe)?;
    let source = Source::new("config/demo.toml", text);
    let settings = app::read_settings(&source);
    if let Some(fault) = source.faults().first() {
        return Err(DemoError::Configuration(format!("line {}: {}", source.line_of(fault), fault.message)));
    }
    let link = Arc::new(link::Link::new());
    let instead = Instead { pins: Some(pins.clone()), demonstration: Some(link.clone()), ..Instead::default() };
    let gateway = app::start(settings, &[], instead)?;
    link.watch(Arc::clone(&gateway.archive), gateway.clock.clone());

    played.spawn(stop.clone().run_until_cancelled_owned(linky.speak()));
    played.spawn(stop.clone().run_until_cancelled_owned(submeter.answer()));
    played.spawn(stop.clone().run_until_cancelled_owned(wires::leak(pins, WATER_PIN)));
    if let Some(broker) = gateway.broker {
        played.spawn(stop.clone().run_until_cancelled_owned(probe.publish(broker)));
    }
    if let Some(peers) = gateway.peers {
        let door = link.serve(peers, &played, &stop).await.map_err(machine("open the invented 4G link"))?;
        played.spawn(
            stop.clone().run_until_cancelled_owned(Arc::clone(&link).drop_now_and_then(demo.link_up, demo.link_down)),
        );
        played.spawn(central::pull(door, place.path().to_owned(), pulling.clone()));
    }

    greet(&gateway, place.path(), &demo);
    let passing = place.passing();
    signals.told_to_stop(move || passing.iter().for_each(|place| remove_at_once(place))).await;
    println_quietly("\nOn range la salle…");
    // The central server leaves first, so that it does not take the stop for a fault of the link.
    pulling.cancel();
    let stubborn = gateway.stop().await;
    stop.cancel();
    played.close();
    let _ = tokio::time::timeout(Duration::from_secs(2), played.wait()).await;
    for unit in stubborn {
        println_quietly(&format!("{unit} ne s'est pas arrêté à temps"));
    }
    Ok(())
}

/// A directory for the time of the demonstration, or one the person named.
enum Place {
    Temporary(tempfile::TempDir),
    Named(PathBuf),
}

impl Place {
    fn make(named: Option<&Path>) -> Result<Self, DemoError> {
        match named {
            None => tempfile::Builder::new()
                .prefix("clocher-demo-")
                .permissions(Permissions::from_mode(0o700))
                .tempdir()
                .map(Self::Temporary)
                .map_err(machine("make a temporary directory")),
            Some(path) => {
                std::fs::create_dir_all(path).map_err(machine(format!("make {}", path.display())))?;
                Ok(Self::Named(path.to_owned()))
            }
        }
    }

    /// What must not outlive the demonstration.
    fn passing(&self) -> Option<PathBuf> {
        match self {
            Self::Temporary(place) => Some(place.path().to_owned()),
            Self::Named(_) => None,
        }
    }

    fn path(&self) -> &Path {
        match self {
            Self::Temporary(place) => place.path(),
            Self::Named(path) => path,
        }
    }
}

/// Removes a place in which others may still be writing: a file made meanwhile asks for another turn.
fn remove_at_once(place: &Path) {
    for _ in 0..20 {
        match std::fs::remove_dir_all(place) {
            Err(wrong) if wrong.kind() == std::io::ErrorKind::DirectoryNotEmpty => {}
            _ => return,
        }
    }
}

fn write_certificates(authority: &Authority, place: &Path) -> Result<(), DemoError> {
    let file = place.join("authority.pem");
    std::fs::write(&file, authority.certificate()).map_err(machine(format!("write {}", file.display())))?;
    authority.issue_client(link::CENTRAL)?.write(place, "central")?;
    authority.issue_server(&["127.0.0.1".to_owned(), "localhost".to_owned()])?.write(place, "gateway")?;
    Ok(())
}

/// `config/demo.toml` with the ports, paths and password of this run.
fn filled_in(
    demo: &Demo,
    place: &Path,
    tic: &Path,
    modbus: &Path,
    probe: &wires::Co2Probe,
) -> Result<String, DemoError> {
    let panel = free_port(demo.port).map_err(machine("find a free port for the panel"))?;
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    Ok(include_str!("../../config/demo.toml")
        .replace("@PLACE@", &place.display().to_string())
        .replace("@PANEL@", &panel.to_string())
        .replace("@ANY@", &any.to_string())
        .replace("@TIC@", &tic.display().to_string())
        .replace("@MODBUS@", &modbus.display().to_string())
        .replace("@PASSWORD@", probe.password()))
}

/// The port asked for, or any other when it is taken.
fn free_port(wanted: u16) -> std::io::Result<SocketAddr> {
    let at = |port| TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], port)));
    at(wanted).or_else(|_| at(0))?.local_addr()
}

fn println_quietly(text: &str) {
    // A reader that leaves early (`| head`) ends no demonstration.
    let _ = writeln!(std::io::stdout(), "{text}");
}

fn greet(gateway: &app::Gateway, place: &Path, demo: &Demo) {
    let panel =
        gateway.panel.map_or_else(|| "(le panneau n'a pas pu s'ouvrir)".to_owned(), |at| format!("https://{at}/"));
    let code = gateway.claim_code().unwrap_or_else(|| "(déjà pris)".to_owned());
    println_quietly(&format!(
        "Clocher, démonstration : la salle des fêtes de Montclar-sur-Lauquet (commune inventée)\n\
         \n\
         Panneau          {panel}\n\
         Code d'accueil   {code}\n\
         \n\
         Le navigateur avertira que le certificat est inconnu : c'est celui de la boîte elle-même.\n\
         Empreinte SHA-256 {}\n\
         \n\
         La liaison 4G tient {} s puis tombe {} s ; la page « Démonstration » montre ce que deviennent les relevés.\n\
         Fichiers          {}\n\
         Ctrl-C pour arrêter.",
        gateway.fingerprint(),
        demo.link_up,
        demo.link_down,
        place.display(),
    ));
}
