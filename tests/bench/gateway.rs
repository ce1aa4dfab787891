//! The real binary as a process, on a configuration with the fifty points of the load; and what it takes of the machine.

use std::{
    fmt::Write as _,
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use clocher::tls::{self, Authority, Identity};

use crate::{
    load::{DEVICES, VALUES},
    web::Client,
};

/// Longest a gateway takes to be ready.
const PATIENCE: Duration = Duration::from_secs(60);
/// The MQTT account of the invented sensors, and of whoever listens to everything.
pub(crate) const ACCOUNT: &str = "sensor";
pub(crate) const PASSWORD: &str = "a long enough secret";

/// A gateway at work.
pub(crate) struct Running {
    child: Child,
    pub(crate) panel: SocketAddr,
    pub(crate) peers: SocketAddr,
    pub(crate) broker: SocketAddr,
    /// From the start of the process to a panel that answers.
    pub(crate) ready_after: Duration,
    place: PathBuf,
}

/// Writes certificates and a configuration whose store is `place/store`.
pub(crate) fn configure(place: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(place)?;
    let authority = Authority::new("Bench")?;
    fs::write(place.join("authority.pem"), authority.certificate())?;
    authority.issue_client("central")?.write(place, "central")?;
    authority.issue_server(&["127.0.0.1".to_owned(), "localhost".to_owned()])?.write(place, "gateway")?;
    let at = place.display();
    let mut text = format!(
        "[commune]\nname = \"Montclar\"\n[store]\ndirectory = \"{at}/store\"\nsize_limit = \"8 GB\"\n\
         [clock]\ntrust = \"always\"\n[gpio]\nbackend = \"simulated\"\n[panel]\nlisten = \"127.0.0.1:0\"\n\
         host_names = [\"localhost\"]\n\
         [peers]\nlisten = \"127.0.0.1:0\"\ncertificate = \"{at}/gateway.pem\"\nkey = \"{at}/gateway.key\"\n\
         authority = \"{at}/authority.pem\"\n[[peers.peer]]\nname = \"central\"\nsharing = [\"public\", \"internal\"]\n\
         [broker]\nlisten = \"127.0.0.1:0\"\nmax_rate = 1000000\n\
         [[broker.account]]\nname = \"{ACCOUNT}\"\npassword = \"{PASSWORD}\"\n\
         publish = [\"sensors/#\", \"bench/#\"]\nsubscribe = [\"clocher/#\", \"bench/#\"]\n\
         [announce]\noutput = \"wav\"\nwav_directory = \"{at}/sounds\"\namplifier_pin = 18\n\
         [[announce.zone]]\nname = \"bourg\"\nlabel = \"Le bourg\"\npin = 23\n"
    );
    for device in 0..DEVICES {
        write!(
            text,
            "[[device]]\nname = \"hall-{device}\"\nlabel = \"Salle {device}\"\ndriver = \"mqtt\"\n\
             topic = \"sensors/{device}\"\nsharing = \"public\"\n"
        )?;
        for value in VALUES {
            let (unit, kind) = match value {
                "temperature" => ("Cel", "gauge"),
                "power" => ("W", "gauge"),
                "index" => ("kW.h", "counter"),
                "voltage" => ("V", "gauge"),
                _ => ("1", "state"),
            };
            write!(
                text,
                "[[device.point]]\nname = \"{value}\"\nlabel = \"{value} {device}\"\npointer = \"/{value}\"\n\
                 unit = \"{unit}\"\nkind = \"{kind}\"\ndecimals = 3\ninterval = \"10 s\"\n"
            )?;
        }
    }
    fs::write(place.join("gateway.toml"), text)?;
    Ok(())
}

impl Running {
    /// Starts the gateway configured in `place` and waits until every door is open.
    pub(crate) fn start(clocher: &Path, place: &Path) -> anyhow::Result<Self> {
        let began = Instant::now();
        let mut child = Command::new(clocher)
            .arg("run")
            .arg("--config")
            .arg(place.join("gateway.toml"))
            .env("CLOCHER_LOG", "info")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {}", clocher.display()))?;
        let (told, lines) = mpsc::channel();
        let stderr = child.stderr.take().context("its standard error")?;
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                // Heard to the end, so that the gateway never waits for a reader.
                let _ = told.send((began.elapsed(), line));
            }
        });
        let mut running = Self {
            child,
            panel: SocketAddr::from(([127, 0, 0, 1], 0)),
            peers: SocketAddr::from(([127, 0, 0, 1], 0)),
            broker: SocketAddr::from(([127, 0, 0, 1], 0)),
            ready_after: Duration::ZERO,
            place: place.to_owned(),
        };
        let mut heard = Vec::new();
        while [running.panel, running.peers, running.broker].iter().any(|door| door.port() == 0) {
            let Ok((after, line)) = lines.recv_timeout(PATIENCE) else {
                bail!("the gateway did not open its doors:\n{}", heard.join("\n"))
            };
            for (text, door) in [
                ("Panel ready", &mut running.panel),
                ("Peers may pull", &mut running.peers),
                ("Broker ready", &mut running.broker),
            ] {
                if line.contains(text) {
                    *door = address(&line).with_context(|| format!("an address in {line:?}"))?;
                    running.ready_after = after;
                }
            }
            heard.push(line);
        }
        Ok(running)
    }

    /// What the process takes of memory.
    pub(crate) fn memory(&self) -> anyhow::Result<Memory> {
        memory_of(self.child.id())
    }

    /// Seconds of processor it has used so far.
    pub(crate) fn processor(&self) -> anyhow::Result<f64> {
        processor_of(self.child.id())
    }

    /// A client with the central server's certificate.
    pub(crate) async fn central(&self) -> anyhow::Result<Client> {
        let identity = Identity::load(&self.place.join("central.pem"), &self.place.join("central.key"))?;
        let tls = tls::client(Some(&identity), &self.place.join("authority.pem"))?;
        Client::connect(self.peers, tls).await
    }

    /// A browser.
    pub(crate) async fn browser(&self) -> anyhow::Result<Client> {
        Client::connect(self.panel, tls::client(None, &self.place.join("store/own.pem"))?).await
    }

    /// The code that claims the box.
    pub(crate) fn claim_code(&self) -> anyhow::Result<String> {
        let file = self.place.join("store/claim-code");
        let began = Instant::now();
        while !file.exists() && began.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(fs::read_to_string(file)?.trim().to_owned())
    }

    /// As a power cut would.
    pub(crate) fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn address(line: &str) -> Option<SocketAddr> {
    line.split("address=").nth(1)?.split_whitespace().next()?.parse().ok()
}

/// Bytes of memory of a process.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Memory {
    /// Resident, all included.
    pub(crate) resident: f64,
    /// Of these, what no file backs: heap, stacks.
    pub(crate) own: f64,
    /// The most that was ever resident, between two looks too.
    pub(crate) highest: f64,
}

pub(crate) fn memory_of(process: u32) -> anyhow::Result<Memory> {
    let text = fs::read_to_string(format!("/proc/{process}/smaps_rollup"))?;
    let field = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse::<f64>().ok().map(|kilobytes| kilobytes * 1024.0)
    };
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let highest = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let highest = highest.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok()).context("VmHWM")?;
    Ok(Memory {
        resident: field("Rss:").context("Rss")?,
        own: field("Anonymous:").context("Anonymous")?,
        highest: highest * 1024.0,
    })
}

/// Seconds of processor of a process, in user and system.
pub(crate) fn processor_of(process: u32) -> anyhow::Result<f64> {
    let text = fs::read_to_string(format!("/proc/{process}/stat"))?;
    let (_, fields) = text.rsplit_once(')').context("a process' name")?;
    // source: proc(5), fields 14 and 15; the name is field 2.
    let ticks = fields.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>();
    Ok(ticks / 100.0)
}
