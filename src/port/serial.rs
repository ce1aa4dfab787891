//! Serial lines: raw, exclusive, chosen by `/dev/serial/by-id`, reopened after an unplug.

//!
//! A line that is not there is nothing unusual: [`keep_open`] waits for it and says so on the board.

use std::{
    fmt,
    future::{Future, pending},
    io,
    path::{Path, PathBuf},
    pin::pin,
    str::FromStr,
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt},
    time::{Instant, sleep},
};
use tokio_serial::{DataBits, ErrorKind, FlowControl, Parity, SerialStream, StopBits};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::condition::{Board, Code};

/// First and longest wait before a line is tried again.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A line opened for so long is there again; one that hangs up at once is not.
const SETTLED: Duration = Duration::from_millis(200);
/// Where udev names USB adapters by their maker and serial number.
const BY_ID: &str = "/dev/serial/by-id";
/// More adapters than any box has; the list is for a person to read.
const NAMED_AT_MOST: usize = 16;

/// Bits of a character on the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Framing {
    /// 7 data bits, even parity, 1 stop bit: TIC.
    SevenE1,
    /// 8 data bits, no parity, 1 stop bit.
    EightN1,
    /// 8 data bits, even parity, 1 stop bit.
    EightE1,
    /// 8 data bits, odd parity, 1 stop bit.
    EightO1,
    /// 8 data bits, no parity, 2 stop bits.
    EightN2,
}

impl Framing {
    /// Every framing with the name it has in the configuration.
    pub const ALL: [(&str, Self); 5] = [
        ("7E1", Self::SevenE1),
        ("8N1", Self::EightN1),
        ("8E1", Self::EightE1),
        ("8O1", Self::EightO1),
        ("8N2", Self::EightN2),
    ];
}

impl Framing {
    fn bits(self) -> (DataBits, Parity, StopBits) {
        match self {
            Self::SevenE1 => (DataBits::Seven, Parity::Even, StopBits::One),
            Self::EightN1 => (DataBits::Eight, Parity::None, StopBits::One),
            Self::EightE1 => (DataBits::Eight, Parity::Even, StopBits::One),
            Self::EightO1 => (DataBits::Eight, Parity::Odd, StopBits::One),
            Self::EightN2 => (DataBits::Eight, Parity::None, StopBits::Two),
        }
    }

    /// Whether its characters carry a parity bit.
    pub fn has_parity(self) -> bool {
        self.bits().1 != Parity::None
    }
}

impl FromStr for Framing {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|(name, _)| *name == text).map(|(_, framing)| framing);
        found.ok_or_else(|| format!("{text:?} is not a framing: 7E1, 8N1, 8E1, 8O1 or 8N2"))
    }
}

impl fmt::Display for Framing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::ALL.into_iter().find(|(_, framing)| framing == self).map_or("", |(name, _)| name);
        f.write_str(name)
    }
}

/// A line and how it is spoken on. Devices that name the same path share it, and must agree.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Line {
    /// `/dev/serial/by-id/…`
    pub path: PathBuf,
    /// Bits per second.
    pub speed: u32,
    /// Bits of a character.
    pub framing: Framing,
}

/// A line that cannot be spoken on.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// The Pi's mini-UART sends and expects no parity bit, whatever it is asked; the kernel does not say so.
    #[error(
        "{path} is the Raspberry Pi's mini-UART, which has no parity bit, and {framing} needs one: connect the line to \
         /dev/ttyAMA0 (dtoverlay=disable-bt), to a USB adapter, or set framing = \"8N1\"",
        path = path.display()
    )]
    NoParity {
        /// As the operator wrote it.
        path: PathBuf,
        /// What was asked.
        framing: Framing,
    },
    /// It is not there, held by another program, or not a serial line.
    #[error("open {}", path.display())]
    Open {
        /// As the operator wrote it.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: tokio_serial::Error,
    },
}

/// Opens a line: raw (every byte passes unchanged), exclusive (a second opening is refused), without flow control.
///
/// # Errors
/// When it is not there, held by another, not a serial line, or has no parity bit and is asked for one.
pub fn open(line: &Line) -> Result<SerialStream, PortError> {
    if line.framing.has_parity() && is_mini_uart(&line.path, Path::new("/sys")) {
        return Err(PortError::NoParity { path: line.path.clone(), framing: line.framing });
    }
    let (data, parity, stop) = line.framing.bits();
    let builder = tokio_serial::new(line.path.to_string_lossy(), line.speed)
        .data_bits(data)
        .parity(parity)
        .stop_bits(stop)
        .flow_control(FlowControl::None)
        .exclusive(true);
    SerialStream::open(&builder).map_err(|source| PortError::Open { path: line.path.clone(), source })
}

/// Whether a path leads to a BCM2835 auxiliary UART. Only the device tree's own word counts, so that a PC's
/// `/dev/ttyS0` is left alone. Newer kernels put one or two devices between the tty and the UART.
fn is_mini_uart(path: &Path, sysfs: &Path) -> bool {
    const COMPATIBLE: &str = "brcm,bcm2835-aux-uart";
    let Ok(real) = path.canonicalize() else { return false };
    let Some(name) = real.file_name() else { return false };
    let Ok(device) = sysfs.join("class/tty").join(name).join("device").canonicalize() else { return false };
    let says_so = |folder: &Path| {
        std::fs::read(folder.join("of_node/compatible"))
            .is_ok_and(|names| names.split(|byte| *byte == 0).any(|name| name == COMPATIBLE.as_bytes()))
    };
    device.ancestors().take(4).any(says_so)
}

/// Reads some bytes. A line that was hung up gives no bytes for ever: that is told as an error.
///
/// # Errors
/// When the line is gone.
pub async fn read_some(line: &mut (impl AsyncRead + Unpin), buffer: &mut [u8]) -> io::Result<usize> {
    match line.read(buffer).await? {
        0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the line was hung up")),
        count => Ok(count),
    }
}

/// Keeps a line open and `body` at work on it until `stop` fires: a line that goes, or is not there yet, is a
/// [`Code::PortUnplugged`] on the board, closed once it is open and `body` stays on it.
///
/// # Errors
/// Only what no waiting can mend: a parity bit asked of a UART that has none.
pub async fn keep_open<B, F>(line: &Line, board: &Board, stop: &CancellationToken, mut body: B) -> Result<(), PortError>
where
    B: FnMut(SerialStream) -> F,
    F: Future<Output = Result<(), io::Error>>,
{
    let subject = line.path.display().to_string();
    let mut pause = FIRST_PAUSE;
    while !stop.is_cancelled() {
        let tried = Instant::now();
        let gone = match open(line) {
            Ok(stream) => match attend(body(stream), board, &subject, stop).await {
                Some(gone) => gone,
                None => break,
            },
            Err(PortError::Open { source, .. }) => why_not_open(&source),
            Err(cause @ PortError::NoParity { .. }) => {
                board.raise(Code::PortUnplugged, &subject, cause.to_string());
                return Err(cause);
            }
        };
        board.raise(Code::PortUnplugged, &subject, gone);
        if tried.elapsed() > LONGEST_PAUSE {
            pause = FIRST_PAUSE;
        }
        if stop.run_until_cancelled(sleep(pause)).await.is_none() {
            break;
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    Ok(())
}

/// Runs the body; why it ended, or `None` when it was asked to stop.
async fn attend(
    body: impl Future<Output = io::Result<()>>,
    board: &Board,
    subject: &str,
    stop: &CancellationToken,
) -> Option<String> {
    let mut body = pin!(body);
    let settle = async {
        sleep(SETTLED).await;
        info!(port = subject, "Port open");
        board.close(Code::PortUnplugged, subject);
        pending::<()>().await;
    };
    tokio::select! {
        biased;
        () = stop.cancelled() => None,
        end = &mut body => Some(match end {
            Ok(()) => format!("it was hung up; {}", present_in(Path::new(BY_ID))),
            Err(cause) => format!("it was lost ({cause}); {}", present_in(Path::new(BY_ID))),
        }),
        () = settle => None,
    }
}

fn why_not_open(cause: &tokio_serial::Error) -> String {
    match cause.kind {
        ErrorKind::Io(io::ErrorKind::NotFound) => format!("it is not there; {}", present_in(Path::new(BY_ID))),
        ErrorKind::Io(io::ErrorKind::PermissionDenied) => {
            "this user may not open it: it must belong to the group dialout".to_owned()
        }
        ErrorKind::NoDevice => "another program holds it".to_owned(),
        _ => format!("it does not open as a serial line ({})", cause.description),
    }
}

/// The adapters there are, to help the person who must name the right one.
fn present_in(folder: &Path) -> String {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<_> =
        entries.take(NAMED_AT_MOST).map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    if names.is_empty() {
        return format!("nothing is in {}", folder.display());
    }
    format!("in {} there is {}", folder.display(), names.join(", "))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn framings_are_read_by_the_name_they_are_shown_with() {
        for (name, framing) in Framing::ALL {
            assert_eq!(name.parse(), Ok(framing));
            assert_eq!(framing.to_string(), name);
            assert_eq!(framing.has_parity(), !name.contains('N'));
        }
        assert!("9N1".parse::<Framing>().is_err());
    }

    #[test]
    fn the_pi_s_mini_uart_is_known_by_its_device_tree_and_a_pc_s_port_is_left_alone() {
        let root = tempfile::tempdir().expect("a folder");
        let dev = root.path().join("ttyS0");
        std::fs::write(&dev, "").expect("a node");
        let alias = root.path().join("serial0");
        symlink(&dev, &alias).expect("an alias");
        let sysfs = root.path().join("sys");
        let uart = sysfs.join("devices/3f215040.serial");
        let class = sysfs.join("class/tty/ttyS0");
        std::fs::create_dir_all(uart.join("port0/of_node")).expect("a device");
        std::fs::create_dir_all(&class).expect("a class");
        symlink(uart.join("port0"), class.join("device")).expect("a link");

        assert!(!is_mini_uart(&alias, &sysfs), "nothing says so yet");
        std::fs::create_dir_all(uart.join("of_node")).expect("a node");
        std::fs::write(uart.join("of_node/compatible"), "arm,pl011\0arm,primecell\0").expect("written");
        assert!(!is_mini_uart(&alias, &sysfs), "a PL011 has parity");
        std::fs::write(uart.join("of_node/compatible"), "brcm,bcm2835-aux-uart\0").expect("written");
        assert!(is_mini_uart(&alias, &sysfs));
    }

    #[test]
    fn a_missing_parity_bit_is_told_with_the_two_ways_out() {
        let text = PortError::NoParity { path: "/dev/ttyS0".into(), framing: Framing::SevenE1 }.to_string();
        assert!(text.contains("/dev/ttyAMA0") && text.contains("8N1") && text.contains("7E1"), "{text}");
    }

    #[test]
    fn the_adapters_that_are_there_are_named() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(present_in(folder.path()).starts_with("nothing is in "));
        std::fs::write(folder.path().join("usb-FTDI_FT232R_A1"), "").expect("written");
        std::fs::write(folder.path().join("usb-CH340_0"), "").expect("written");
        assert!(present_in(folder.path()).ends_with("there is usb-CH340_0, usb-FTDI_FT232R_A1"));
    }
}
