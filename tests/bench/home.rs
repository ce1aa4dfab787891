//! The whole gateway at home: how soon it is there after a power cut, and what it takes of memory while devices publish,
//! a central server pulls and somebody looks at the panel.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use http_body_util::BodyExt;
use rumqttc::{AsyncClient, MqttOptions, QoS};
use serde_json::{Map, Value};

use crate::{
    Ask,
    gateway::{self, Memory, Running},
    load::{DEVICES, Load, VALUES},
    store,
    table::{Runs, Table},
    web::Client,
};

/// Rounds of ten seconds are published this much faster.
const FASTER: u64 = 60;
const ROUND: Duration = Duration::from_millis(10_000 / FASTER);
/// How often memory is looked at.
const LOOK: Duration = Duration::from_millis(500);
const MAYOR: &str = "Jeanne Vidal";
const MAYORS_PASSWORD: &str = "le marché du jeudi";

/// From the start of the process until every door is open, with the large store, after a kill under load.
pub(crate) async fn open_after_kill(ask: &Ask, table: &mut Table) -> anyhow::Result<()> {
    let place = store::filled(ask).await?;
    gateway::configure(&place)?;
    let mut runs = Runs::default();
    for _ in 0..ask.runs {
        let running = Running::start(&ask.clocher, &place)?;
        publish_rounds(&running, 12).await?;
        running.kill()?;
        let running = Running::start(&ask.clocher, &place)?;
        runs.push(running.ready_after.as_secs_f64() * 1e3);
        running.kill()?;
    }
    let what = format!("from exec to every door open, {} days stored, after a kill under load", ask.days);
    table.line(&what, runs.told("ms"), String::new(), String::new(), "≤ 1 s");
    Ok(())
}

/// Some rounds over MQTT at QoS 1, as fast as they are acknowledged.
async fn publish_rounds(running: &Running, rounds: usize) -> anyhow::Result<()> {
    let sensors = Sensors::connect(running);
    let mut load = Load::new(1)?;
    for _ in 0..rounds {
        sensors.publish(&mut load).await?;
    }
    let until = Instant::now() + Duration::from_secs(30);
    while sensors.acknowledged() < (rounds * DEVICES) as u64 && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// Ten devices behind one MQTT client.
struct Sensors {
    client: AsyncClient,
    acknowledged: Arc<AtomicU64>,
}

impl Sensors {
    fn connect(running: &Running) -> Self {
        let mut options = MqttOptions::new("sensors", running.broker.ip().to_string(), running.broker.port());
        options.set_credentials(gateway::ACCOUNT, gateway::PASSWORD).set_inflight(50);
        let (client, mut events) = AsyncClient::new(options, 50);
        let acknowledged = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&acknowledged);
        tokio::spawn(async move {
            while let Ok(event) = events.poll().await {
                if let rumqttc::Event::Incoming(rumqttc::Incoming::PubAck(_)) = event {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Self { client, acknowledged }
    }

    fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    async fn publish(&self, load: &mut Load) -> anyhow::Result<()> {
        for (device, readings) in load.batch(1).chunks(VALUES.len()).enumerate() {
            let fields = VALUES.iter().zip(readings).map(|(name, reading)| ((*name).to_owned(), reading.value.into()));
            let payload = Value::Object(fields.collect::<Map<_, _>>()).to_string();
            self.client.publish(format!("sensors/{device}"), QoS::AtLeastOnce, false, payload).await?;
        }
        Ok(())
    }
}

pub(crate) async fn measure(ask: &Ask, table: &mut Table) -> anyhow::Result<()> {
    let place = ask.scratch.join("home");
    if place.exists() {
        fs::remove_dir_all(&place)?;
    }
    gateway::configure(&place)?;
    let running = Running::start(&ask.clocher, &place)?;
    let idle = running.memory()?;
    let mut browser = running.browser().await?;
    let cookie = claim(&running, &mut browser).await?;
    let watching = tokio::spawn(watch_the_panel(running.browser().await?, cookie.clone()));
    let mut central = running.central().await?;
    let pulling = tokio::spawn(async move { follow(&mut central).await });

    let sensors = Sensors::connect(&running);
    let mut load = Load::new(1)?;
    let (mut looks, mut pages) = (Vec::new(), 0u64);
    let (mut next_round, mut next_look) = (tokio::time::interval(ROUND), tokio::time::interval(LOOK));
    let processor = running.processor()?;
    let (began, lasts) = (Instant::now(), Duration::from_secs(60 * ask.minutes));
    while began.elapsed() < lasts {
        tokio::select! {
            _ = next_round.tick() => sensors.publish(&mut load).await?,
            _ = next_look.tick() => {
                looks.push(running.memory()?);
                pages += 1;
                // Somebody turns a page now and then: home, and a point's month.
                if pages % 10 == 0 {
                    let path = if pages % 20 == 0 { "/" } else { "/points/hall-4/power?span=month" };
                    let page = browser.get(path, &[("cookie", &cookie), ("accept-encoding", "gzip")]).await?;
                    ensure!(page.status.is_success(), "{path}: {}", page.status);
                }
            }
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    let share = (running.processor()? - processor) / seconds;
    ensure!(!watching.is_finished() && !pulling.is_finished(), "the panel or the pull has ended");
    watching.abort();
    pulling.abort();
    let taken = sensors.acknowledged() * VALUES.len() as u64;
    tell(table, ask.minutes, idle, &looks, taken, share);
    running.kill()
}

fn tell(table: &mut Table, minutes: u64, idle: Memory, looks: &[Memory], taken: u64, share: f64) {
    let mib = |bytes: f64| format!("{:.1}", bytes / f64::from(1 << 20));
    let resident = looks.iter().map(|look| look.resident).collect::<Runs>();
    let tenth = looks.len() / 10;
    let median = |looks: &[Memory]| looks.iter().map(|look| look.resident).collect::<Runs>().median();
    let (early, late) = (median(&looks[tenth..2 * tenth]), median(&looks[looks.len() - tenth..]));
    let own = looks.iter().map(|look| look.own).collect::<Runs>().median();
    let what = format!(
        "resident memory, 50 points, panel open, {minutes} min at {FASTER} times the pace ({taken} readings taken)"
    );
    let highest = looks.last().map_or(f64::NAN, |look| look.highest);
    let ours = format!(
        "{} MiB (median; {} at the start, {} at most), of which {} heap and stacks; {} for an instant, at a password",
        mib(resident.median()),
        mib(idle.resident),
        mib(resident.at(1.0)),
        mib(own),
        mib(highest)
    );
    table.line(&what, ours, String::new(), String::new(), "≤ 25 MiB");
    let grown = format!("{} MiB in the second tenth of the time, {} in the last", mib(early), mib(late));
    table.line("growth meanwhile", grown, String::new(), String::new(), "none");
    let share = format!("{:.1} % of a core", share * 100.0);
    table.line("processor meanwhile", share, String::new(), String::new(), "");
}

/// Claims the box as its mayor; gives the session's cookie.
pub(crate) async fn claim(running: &Running, browser: &mut Client) -> anyhow::Result<String> {
    let page = browser.get("/claim", &[]).await?;
    let cookie = cookie_of(&page.headers).context("a cookie of the first visit")?;
    let text = String::from_utf8_lossy(&page.body).into_owned();
    let token = text.split("name=\"token\" value=\"").nth(1).and_then(|rest| rest.split('"').next());
    let fields = [
        ("token", token.context("a token in the form")?),
        ("code", &running.claim_code()?),
        ("name", MAYOR),
        ("password", MAYORS_PASSWORD),
        ("again", MAYORS_PASSWORD),
    ];
    let form = fields.map(|(name, value)| format!("{name}={}", encoded(value))).join("&");
    let origin = "https://localhost";
    let headers = [("cookie", cookie.as_str()), ("origin", origin), ("sec-fetch-site", "same-origin")];
    let answer = browser.post("/claim", &headers, form).await?;
    ensure!(answer.status.is_redirection(), "claimed: {} {:?}", answer.status, answer.body);
    cookie_of(&answer.headers).context("a cookie of the session")
}

fn cookie_of(headers: &hyper::HeaderMap) -> Option<String> {
    let cookie = headers.get("set-cookie")?.to_str().ok()?;
    cookie.split(';').next().map(str::to_owned)
}

fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| if byte.is_ascii_alphanumeric() { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// A page that stays open: its stream of live values, opened again when it ends, as browsers do.
async fn watch_the_panel(mut browser: Client, cookie: String) -> anyhow::Result<()> {
    loop {
        let mut stream = browser.ask("/live", &[("cookie", &cookie)], None).await?.into_body();
        while let Some(frame) = stream.frame().await {
            frame?;
        }
    }
}

/// A central server that takes what comes as it comes.
async fn follow(central: &mut Client) -> anyhow::Result<()> {
    let mut path = "/v1/observations?format=columns&wait=10".to_owned();
    loop {
        let answer = central.get(&path, &[]).await?;
        let last = answer.body.trim_ascii_end().rsplit(|byte| *byte == b'\n').next().context("a last line")?;
        let last: Value = serde_json::from_slice(last)?;
        let cursor = last["next"].as_str().context("a cursor")?;
        path = format!("/v1/observations?format=columns&wait=10&after={cursor}");
    }
}
