//! Devices that share a bus and answer in turn, through tokio-modbus. One that is dead or talks nonsense costs its
//! own timeout, never another's turn.

use std::{
    fmt::Write as _,
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    time::{Instant, sleep_until, timeout, timeout_at},
};
use tokio_modbus::{
    Error as ModbusError, ExceptionCode, Request as ModbusRequest, Response as ModbusResponse, Slave,
    client::{Client as _, rtu},
};

use super::{
    super::{Poller, Request, Said, Table, modbus::frame::meaning},
    ear::Ear,
};
use crate::reading::{Commit, Intake};

/// After an answer that is late or not ours the line is read empty until it is quiet for so long.
const QUIET: Duration = Duration::from_millis(100);
/// A line that never is quiet is not waited for any longer.
const LONGEST_DRAIN: Duration = Duration::from_millis(500);
/// Rounds without an answer after which a device is asked less often.
const MISSES: u32 = 3;
/// How often a device is asked that has not answered for some rounds, at most.
const SELDOM: Duration = Duration::from_secs(30);
/// Bytes kept to be shown when they were no answer.
const SHOWN: usize = 24;

/// A bus and its devices.
pub(super) struct Bus {
    gap: Duration,
    intake: Intake,
    devices: Vec<BusDevice>,
}

struct BusDevice {
    ear: Arc<Ear>,
    unit: u8,
    every: Duration,
    timeout: Duration,
    poller: Box<dyn Poller>,
    due: Instant,
    misses: u32,
}

/// What came back for one request.
#[derive(Debug)]
enum Answer {
    Registers(Vec<u16>),
    Exception(u8),
    /// Something, but not the answer.
    Garbled(String),
    Nothing,
}

impl Bus {
    /// A bus of `speed` bits per second.
    pub(super) fn new(speed: u32, intake: Intake) -> Self {
        Self { gap: gap(speed), intake, devices: Vec::new() }
    }

    pub(super) fn add(&mut self, ear: Arc<Ear>, unit: u8, every: Duration, timeout: Duration, poller: Box<dyn Poller>) {
        self.devices.push(BusDevice { ear, unit, every, timeout, poller, due: Instant::now(), misses: 0 });
    }

    #[cfg(test)]
    pub(super) fn ear(&self, place: usize) -> &Arc<Ear> {
        &self.devices[place].ear
    }

    /// Asks device after device until the line is gone.
    pub(super) async fn poll<T>(&mut self, line: T) -> io::Result<()>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let line = Tapped::new(line);
        loop {
            let Some(device) = self.devices.iter_mut().min_by_key(|device| device.due) else { return Ok(()) };
            // A line that is lost while nobody is asked is noticed now, not at the next round.
            drain_until(&line, device.due).await?;
            let said = device.round(&line, self.gap).await?;
            let readings = device.ear.hear(said);
            if !readings.is_empty() {
                self.intake.give(readings, Commit::Grouped).await;
            }
        }
    }
}

impl BusDevice {
    /// One round of requests; and when the next is due.
    async fn round<T>(&mut self, line: &Tapped<T>, gap: Duration) -> io::Result<Vec<Said>>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let begun = Instant::now();
        let mut said = Vec::new();
        let answered = self.ask_all(line, gap, &mut said).await?;
        self.misses = if answered { 0 } else { self.misses.saturating_add(1) };
        let pause = if self.misses >= MISSES { self.every.max(SELDOM) } else { self.every };
        self.due = (begun + pause).max(Instant::now());
        Ok(said)
    }

    /// True when the device gave any answer of its own.
    async fn ask_all<T>(&mut self, line: &Tapped<T>, gap: Duration, said: &mut Vec<Said>) -> io::Result<bool>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut answered = false;
        let mut second_chance = self.misses == 0;
        let mut waiting: Vec<Request> = self.poller.requests().iter().rev().copied().collect();
        while let Some(request) = waiting.pop() {
            drain_until(line, Instant::now() + gap).await?;
            match ask(line, self.unit, request, self.timeout).await? {
                Answer::Registers(registers) => {
                    answered = true;
                    self.poller.answer(request, &registers, said);
                    continue;
                }
                Answer::Exception(code) => {
                    answered = true;
                    let cut = matches!(code, 0x02 | 0x03) && self.poller.refused(request);
                    if !cut {
                        said.push(Said::Unreadable(refusal(self.unit, request, code)));
                        self.poller.unavailable(request, said);
                    }
                    continue;
                }
                Answer::Garbled(text) => said.push(Said::Unreadable(format!("unit {}: {text}", self.unit))),
                Answer::Nothing => {}
            }
            drain_until_quiet(line).await?;
            if !std::mem::take(&mut second_chance) {
                break;
            }
            waiting.push(request);
        }
        Ok(answered)
    }
}

fn refusal(unit: u8, request: Request, code: u8) -> String {
    let Request { table, address, count } = request;
    format!(
        "unit {unit} answered exception {code:02x}, {}, to {count} {table:?} registers from {address}",
        meaning(code)
    )
}

/// Asks for registers once. An error is the line's; what the device does wrong is in the answer.
async fn ask<T>(line: &Tapped<T>, unit: u8, request: Request, wait: Duration) -> io::Result<Answer>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    line.listen_anew();
    let mut context = rtu::attach_slave(line.clone(), Slave(unit));
    let Request { table, address, count } = request;
    // Through `call`: the readers by name hold an answer of another length for a bug and panic in debug builds.
    let call = context.call(match table {
        Table::Holding => ModbusRequest::ReadHoldingRegisters(address, count),
        Table::Input => ModbusRequest::ReadInputRegisters(address, count),
    });
    match timeout(wait, call).await {
        Err(_) => Ok(line.heard().map_or(Answer::Nothing, |heard| Answer::Garbled(format!("no answer in {heard}")))),
        Ok(Ok(answer)) => Ok(of_right_length(answer, count)),
        Ok(Err(ModbusError::Protocol(wrong))) => Ok(Answer::Garbled(wrong.to_string())),
        Ok(Err(ModbusError::Transport(wrong))) if wrong.kind() == io::ErrorKind::InvalidData => {
            Ok(Answer::Garbled(wrong.to_string()))
        }
        Ok(Err(ModbusError::Transport(lost))) => Err(lost),
    }
}

fn of_right_length(answer: Result<ModbusResponse, ExceptionCode>, count: u16) -> Answer {
    match answer {
        Err(exception) => Answer::Exception(exception.into()),
        Ok(ModbusResponse::ReadHoldingRegisters(words) | ModbusResponse::ReadInputRegisters(words)) => {
            if words.len() == usize::from(count) {
                return Answer::Registers(words);
            }
            Answer::Garbled(format!("{} registers where {count} were asked", words.len()))
        }
        Ok(_) => Answer::Garbled("an answer to another function".to_owned()),
    }
}

/// Silence between frames: 3.5 characters of 11 bits at least (Modbus over Serial Line V1.02, §2.5.1.1), and some more
/// for adapters that turn round slowly.
fn gap(speed: u32) -> Duration {
    let silence_ms = 38_500 / u64::from(speed.max(1)) + 5;
    Duration::from_millis(silence_ms.clamp(10, 40))
}

/// Reads and forgets until `due`.
async fn drain_until<T: AsyncRead + AsyncWrite + Unpin>(line: &Tapped<T>, due: Instant) -> io::Result<()> {
    let mut line = line.clone();
    let mut bytes = [0; 256];
    while Instant::now() < due {
        match timeout_at(due, line.read(&mut bytes)).await {
            Err(_) => break,
            Ok(Ok(0)) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(Ok(_)) => {}
            Ok(Err(lost)) => return Err(lost),
        }
    }
    sleep_until(due).await;
    Ok(())
}

/// Reads and forgets until nothing comes for a while.
async fn drain_until_quiet<T: AsyncRead + AsyncWrite + Unpin>(line: &Tapped<T>) -> io::Result<()> {
    let mut line = line.clone();
    let mut bytes = [0; 256];
    let deadline = Instant::now() + LONGEST_DRAIN;
    while Instant::now() < deadline {
        match timeout(QUIET, line.read(&mut bytes)).await {
            Err(_) => return Ok(()),
            Ok(Ok(0)) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(Ok(_)) => {}
            Ok(Err(lost)) => return Err(lost),
        }
    }
    Ok(())
}

/// The line, lent to one client context after another; and what was heard on it since the last request.
struct Tapped<T>(Arc<Mutex<Tap<T>>>);

struct Tap<T> {
    line: T,
    /// An answer has begun. Zeros before it are what a bus picks up as it turns round; no device has address 0.
    begun: bool,
    heard: Vec<u8>,
    count: usize,
}

impl<T> Clone for Tapped<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Tapped<T> {
    fn new(line: T) -> Self {
        Self(Arc::new(Mutex::new(Tap { line, begun: true, heard: Vec::new(), count: 0 })))
    }

    fn lock(&self) -> MutexGuard<'_, Tap<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn listen_anew(&self) {
        let mut tap = self.lock();
        tap.begun = false;
        tap.heard.clear();
        tap.count = 0;
    }

    /// What was heard since the last request, in words; `None` when nothing was.
    fn heard(&self) -> Option<String> {
        let tap = self.lock();
        let mut text = format!("{} bytes:", tap.count);
        for byte in &tap.heard {
            let _ = write!(text, " {byte:02x}");
        }
        (tap.count > 0).then_some(text)
    }
}

impl<T> Tap<T> {
    /// What of the bytes belongs to an answer.
    fn take<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let start = if self.begun { Some(0) } else { bytes.iter().position(|byte| *byte != 0) };
        let bytes = start.and_then(|start| bytes.get(start..)).unwrap_or_default();
        self.begun |= !bytes.is_empty();
        let room = SHOWN.saturating_sub(self.heard.len());
        self.heard.extend(bytes.iter().take(room));
        self.count += bytes.len();
        bytes
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Tapped<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut tap = self.lock();
        loop {
            let mut bytes = [0; 256];
            let room = buf.remaining().min(bytes.len());
            let mut read = ReadBuf::new(bytes.get_mut(..room).unwrap_or_default());
            ready!(Pin::new(&mut tap.line).poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            let taken = tap.take(read.filled());
            if !taken.is_empty() {
                buf.put_slice(taken);
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Tapped<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.lock().line).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.lock().line).poll_flush(cx)
    }

    /// The line outlives the context it is lent to.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}
