//! What hangs on the wires of the invented hall: a Linky and a Modbus meter behind real pseudo-terminals, a water
//! meter that leaks, a CO2 probe that publishes over MQTT.

use std::{
    fs::{File, OpenOptions},
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use nix::fcntl::OFlag;
use rand::RngExt;
use rumqttc::{AsyncClient, MqttOptions, QoS};
use tokio::io::AsyncWriteExt;
use tokio_modbus::{
    prelude::{ExceptionCode, Request, Response, SlaveRequest},
    server::rtu,
};
use tokio_serial::{SerialPort, SerialStream};

use crate::port::gpio::Simulated;

/// A pseudo-terminal: the meter holds one end, the gateway opens the other by its path.
struct Line {
    meter: SerialStream,
    /// Kept open without a lock, so that the line does not hang up before the gateway opens it.
    _held: File,
    path: PathBuf,
}

fn line() -> std::io::Result<Line> {
    let (meter, near) = SerialStream::pair().map_err(std::io::Error::other)?;
    let path =
        near.name().map(PathBuf::from).ok_or_else(|| std::io::Error::other("a pseudo-terminal without a name"))?;
    let held = OpenOptions::new().read(true).write(true).custom_flags(OFlag::O_NOCTTY.bits()).open(&path)?;
    Ok(Line { meter, _held: held, path })
}

/// A Linky in standard mode: one frame about every second and a half.
pub(super) struct Linky {
    /// Where the gateway finds it.
    pub(super) path: PathBuf,
    line: Line,
}

impl Linky {
    pub(super) fn plug() -> std::io::Result<Self> {
        let line = line()?;
        Ok(Self { path: line.path.clone(), line })
    }

    /// Sends frames for ever, the index growing with the power drawn.
    pub(super) async fn speak(mut self) {
        let mut index_wh = 7_654_321.0;
        for tick in 0_u32.. {
            let power = hall_power(tick.saturating_mul(3) / 2);
            index_wh += power * 1.5 / 3600.0;
            // A line nobody reads fills up and refuses; the meter does not care.
            let _ = self.line.meter.write_all(&frame(index_wh as u64, power as u32)).await;
            tokio::time::sleep(Duration::from_millis(1_500)).await;
        }
    }
}

/// Convectors on a thermostat over a base load, in volt-amperes.
fn hall_power(second: u32) -> f64 {
    let heating = if second % 240 < 150 { 4_200.0 } else { 0.0 };
    let mut rng = rand::rng();
    380.0 + heating + rng.random_range(-25.0..25.0)
}

/// One standard-mode frame; source: Enedis-NOI-CPT_54E v3, §5.3 and §6.2.
fn frame(index_wh: u64, power_va: u32) -> Vec<u8> {
    let current = (power_va / 230).max(1);
    let index = format!("{index_wh:09}");
    let groups = [
        ("ADSC", "000000000000".to_owned()),
        ("VTIC", "02".to_owned()),
        ("NGTF", "      BASE      ".to_owned()),
        ("LTARF", "      BASE      ".to_owned()),
        ("EAST", index.clone()),
        ("EASF01", index.clone()),
        ("EASD01", index),
        ("IRMS1", format!("{current:03}")),
        ("URMS1", "231".to_owned()),
        ("PREF", "12".to_owned()),
        ("PCOUP", "12".to_owned()),
        ("SINSTS", format!("{power_va:05}")),
        ("STGE", "003A0001".to_owned()),
        ("RELAIS", "000".to_owned()),
        ("NTARF", "01".to_owned()),
    ];
    let mut bytes = vec![0x02];
    for (label, data) in groups {
        let body = format!("{label}\t{data}\t");
        let sum = body.bytes().fold(0_u32, |sum, byte| sum + u32::from(byte));
        bytes.push(b'\n');
        bytes.extend_from_slice(body.as_bytes());
        bytes.push((sum & 0x3f) as u8 + 0x20);
        bytes.push(b'\r');
    }
    bytes.push(0x03);
    bytes
}

/// An Eastron SDM120 behind the heat pump, unit 1.
pub(super) struct Submeter {
    /// Where the gateway finds it.
    pub(super) path: PathBuf,
    line: Line,
}

impl Submeter {
    pub(super) fn plug() -> std::io::Result<Self> {
        let line = line()?;
        Ok(Self { path: line.path.clone(), line })
    }

    /// Answers for ever.
    pub(super) async fn answer(self) {
        let Line { meter, _held, .. } = self.line;
        let _ = rtu::Server::new(meter).serve_forever(Registers { plugged: std::time::Instant::now() }).await;
    }
}

/// The input registers of the submeter, as they stand now; addresses from the Eastron manual.
struct Registers {
    plugged: std::time::Instant,
}

impl Registers {
    fn value(&self, address: u16) -> f32 {
        let seconds = self.plugged.elapsed().as_secs_f32();
        let power = 640.0 + 60.0 * (seconds / 40.0).sin();
        match address {
            0x0000 => 230.8,
            0x0006 => power / 230.8,
            0x000C | 0x0034 => power,
            0x0012 => power * 1.04,
            0x0018 => power * 0.2,
            0x001E => 0.96,
            0x0046 => 50.01,
            0x0048 | 0x0156 => 1_234.5 + seconds * 0.650 / 3_600.0,
            _ => 0.0,
        }
    }

    fn words(&self, first: u16, count: u16) -> Vec<u16> {
        let word = |address: u16| {
            let bits = self.value(address & !1).to_bits();
            if address.is_multiple_of(2) { (bits >> 16) as u16 } else { bits as u16 }
        };
        (0..count).map(|offset| word(first.wrapping_add(offset))).collect()
    }
}

impl tokio_modbus::server::Service for Registers {
    type Request = SlaveRequest<'static>;
    type Response = Option<Response>;
    type Exception = ExceptionCode;
    type Future = std::future::Ready<Result<Self::Response, Self::Exception>>;

    fn call(&self, asked: Self::Request) -> Self::Future {
        std::future::ready(match (asked.slave, asked.request) {
            (1, Request::ReadInputRegisters(first, count)) => {
                Ok(Some(Response::ReadInputRegisters(self.words(first, count))))
            }
            (1, _) => Err(ExceptionCode::IllegalFunction),
            // Another unit on the bus: silence.
            _ => Ok(None),
        })
    }
}

/// A tap nobody closed: one litre every six seconds, day and night.
pub(super) async fn leak(pins: Arc<Simulated>, pin: u8) {
    loop {
        for high in [false, true] {
            pins.drive(pin, high);
            tokio::time::sleep(Duration::from_secs(3)).await;
        }
    }
}

/// A CO2 probe and a thermometer as Zigbee2MQTT publishes them, with an account of its own.
pub(super) struct Co2Probe {
    password: String,
}

impl Co2Probe {
    pub(super) fn new() -> Self {
        let mut rng = rand::rng();
        let password = (0..24).map(|_| char::from(rng.random_range(b'a'..=b'z'))).collect();
        Self { password }
    }

    /// Made for this run only.
    pub(super) fn password(&self) -> &str {
        &self.password
    }

    /// Publishes for ever, people coming in and windows being opened.
    pub(super) async fn publish(self, broker: SocketAddr) {
        let mut options = MqttOptions::new("zigbee2mqtt", broker.ip().to_string(), broker.port());
        options.set_credentials("zigbee", self.password);
        let (client, mut events) = AsyncClient::new(options, 16);
        let sending = async {
            let mut ppm = 620.0_f64;
            let mut filling = true;
            loop {
                ppm += if filling { 14.0 } else { -35.0 };
                filling = if filling { ppm < 1_400.0 } else { ppm < 560.0 };
                let payload = format!(r#"{{"co2":{ppm:.0},"temperature":20.6,"humidity":46.2,"linkquality":120}}"#);
                let _ = client.publish("zigbee2mqtt/salle", QoS::AtLeastOnce, false, payload).await;
                // The caretaker's flat upstairs has a sensor of its own, on the same coordinator.
                let warmth = 19.4 + (ppm - 560.0) / 1_000.0;
                let payload = format!(r#"{{"temperature":{warmth:.1},"humidity":51.3,"linkquality":84}}"#);
                let _ = client.publish("zigbee2mqtt/logement", QoS::AtLeastOnce, false, payload).await;
                tokio::time::sleep(Duration::from_secs(5)).await;
            }
        };
        let listening = async {
            loop {
                if events.poll().await.is_err() {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        };
        tokio::join!(sending, listening);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_meter_s_frame_has_the_checksums_enedis_asks_for() {
        let bytes = frame(7_654_321, 4_580);
        assert_eq!((bytes.first(), bytes.last()), (Some(&0x02), Some(&0x03)));
        // source: Enedis-NOI-CPT_54E v3 §5.3.6, worked by hand for this group
        let group = b"\nSINSTS\t04580\tW\r";
        assert!(bytes.windows(group.len()).any(|w| w == group), "{}", String::from_utf8_lossy(&bytes));
    }
}
