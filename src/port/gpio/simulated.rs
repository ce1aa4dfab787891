//! Pins without hardware, for the demo, the tests and a desk: inputs are driven by hand, outputs are recorded.
//!
//! With a control file (a FIFO), a shell drives them: `echo "17 pulse 5" > control`.

use std::{
    collections::{BTreeMap, VecDeque},
    fs::File,
    io::{self, Write},
    os::unix::fs::{FileTypeExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use nix::{errno::Errno, sys::stat::Mode, unistd::mkfifo};
use tokio::{
    io::AsyncReadExt,
    net::unix::pipe,
    runtime::Handle,
    sync::{broadcast, mpsc},
    task::AbortHandle,
    time::{Instant, sleep},
};
use tracing::warn;

use super::{DEPTH, Edge, OutputPin, PinError, Pins, Pull, on_header, refused};

/// Changes of outputs that are remembered.
const REMEMBERED: usize = 10_000;
/// A longer line is no order of ours.
const LINE: usize = 64;
/// Pulses one order may ask for.
const PULSES: u32 = 1_000;
/// How long a simulated reed stays closed, and open, in a train of pulses: longer than any debounce.
const REED: Duration = Duration::from_millis(60);
/// The record of outputs starts anew beyond this.
const RECORD_BYTES: u64 = 4 << 20;

/// An output has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// Milliseconds since the pins were opened; never steps. Follows tokio's clock, so a paused one too.
    pub at_ms: u64,
    /// BCM number.
    pub pin: u8,
    /// High or low.
    pub high: bool,
}

/// Pins that exist in memory. Cheap to clone: every clone is the same set of pins.
#[derive(Debug, Clone)]
pub struct Simulated(Arc<Bench>);

#[derive(Debug)]
struct Bench {
    opened: Instant,
    state: Mutex<State>,
    changes: broadcast::Sender<Change>,
    control: Option<Control>,
}

#[derive(Debug)]
struct Control {
    path: PathBuf,
    reader: Mutex<Option<AbortHandle>>,
}

#[derive(Debug, Default)]
struct State {
    lines: BTreeMap<u8, Wire>,
    changes: VecDeque<Change>,
    record: Option<(File, u64)>,
}

#[derive(Debug, Default)]
struct Wire {
    driven: Option<bool>,
    role: Role,
}

#[derive(Debug, Default)]
enum Role {
    #[default]
    Free,
    Input {
        pull: Pull,
        tell: mpsc::Sender<Edge>,
    },
    Output {
        high: bool,
    },
    /// An output that was dropped: still at its released level, free to be taken.
    Left {
        high: bool,
    },
}

impl Wire {
    fn level(&self) -> bool {
        match &self.role {
            Role::Output { high } | Role::Left { high } => *high,
            Role::Input { pull, .. } => self.driven.unwrap_or(*pull == Pull::Up),
            Role::Free => self.driven.unwrap_or(false),
        }
    }

    fn is_taken(&self) -> bool {
        match &self.role {
            Role::Free | Role::Left { .. } => false,
            Role::Input { tell, .. } => !tell.is_closed(),
            Role::Output { .. } => true,
        }
    }
}

impl Default for Simulated {
    fn default() -> Self {
        Self::new()
    }
}

impl Simulated {
    /// Pins driven only from this program.
    pub fn new() -> Self {
        Self(Arc::new(Bench::new(State::default(), None)))
    }

    /// Pins that a shell may drive too: `path` becomes a FIFO (0600) that takes lines such as `17 1`, `17 0`,
    /// `17 pulse 5`, `17 release`; each change of an output is appended to `<path>.outputs` as `<ms> <pin> <0|1>`.
    /// Within a tokio runtime. The FIFO goes with the last clone.
    ///
    /// # Errors
    /// When the FIFO or the record cannot be created, or `path` is something else already.
    pub fn with_control(path: &Path) -> Result<Self, PinError> {
        let trouble = |cause: io::Error| PinError::NoGpio(format!("simulated through {}: {cause}", path.display()));
        let runtime = Handle::try_current().map_err(|cause| trouble(io::Error::other(cause)))?;
        let orders = make_fifo(path).and_then(|()| open_fifo(path)).map_err(trouble)?;
        let record = open_record(path).map_err(trouble)?;
        let control = Control { path: path.to_owned(), reader: Mutex::default() };
        let state = State { record: Some(record), ..State::default() };
        let pins = Self(Arc::new(Bench::new(state, Some(control))));
        let reader = runtime.spawn(obey(Arc::downgrade(&pins.0), orders)).abort_handle();
        if let Some(control) = &pins.0.control {
            *control.reader.lock().unwrap_or_else(PoisonError::into_inner) = Some(reader);
        }
        Ok(pins)
    }

    /// Drives an input, as a contact or a voltage would. A level it already has is no edge.
    pub fn drive(&self, pin: u8, high: bool) {
        self.0.drive(pin, Some(high));
    }

    /// Lets go of an input: its pull decides.
    pub fn release(&self, pin: u8) {
        self.0.drive(pin, None);
    }

    /// The level of a pin, as a voltmeter would show it.
    pub fn level(&self, pin: u8) -> bool {
        self.0.lock().lines.get(&pin).is_some_and(Wire::level)
    }

    /// What the outputs did so far, oldest first; the taking of an output is its first change.
    pub fn changes(&self) -> Vec<Change> {
        self.0.lock().changes.iter().copied().collect()
    }

    /// What the outputs do from now on.
    pub fn follow(&self) -> broadcast::Receiver<Change> {
        self.0.changes.subscribe()
    }
}

impl Pins for Simulated {
    fn input(&self, pin: u8, pull: Pull, _debounce: Duration) -> Result<mpsc::Receiver<Edge>, PinError> {
        // Nothing bounces here: debouncing is the hardware backends' affair.
        on_header(pin)?;
        let (tell, edges) = mpsc::channel(DEPTH);
        let mut state = self.0.lock();
        let line = state.lines.entry(pin).or_default();
        if line.is_taken() {
            return Err(refused(pin, "take it as input", "it is in use"));
        }
        line.role = Role::Input { pull, tell: tell.clone() };
        let _ = tell.try_send(Edge { high: line.level() });
        Ok(edges)
    }

    fn output(&self, pin: u8, released: bool) -> Result<Box<dyn OutputPin>, PinError> {
        on_header(pin)?;
        let mut state = self.0.lock();
        let line = state.lines.entry(pin).or_default();
        if line.is_taken() {
            return Err(refused(pin, "take it as output", "it is in use"));
        }
        line.role = Role::Output { high: released };
        self.0.note(&mut state, pin, released);
        drop(state);
        Ok(Box::new(Output { bench: Arc::clone(&self.0), pin, released }))
    }
}

struct Output {
    bench: Arc<Bench>,
    pin: u8,
    released: bool,
}

impl OutputPin for Output {
    fn set(&mut self, high: bool) -> Result<(), PinError> {
        self.bench.set(self.pin, high);
        Ok(())
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        self.bench.set(self.pin, self.released);
        let wire = Wire { driven: None, role: Role::Left { high: self.released } };
        self.bench.lock().lines.insert(self.pin, wire);
    }
}

impl Bench {
    fn new(state: State, control: Option<Control>) -> Self {
        Self { opened: Instant::now(), state: Mutex::new(state), changes: broadcast::Sender::new(DEPTH), control }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn drive(&self, pin: u8, driven: Option<bool>) {
        if on_header(pin).is_err() {
            return;
        }
        let mut state = self.lock();
        let line = state.lines.entry(pin).or_default();
        let before = line.level();
        line.driven = driven;
        let high = line.level();
        if let (Role::Input { tell, .. }, true) = (&line.role, high != before) {
            let _ = tell.try_send(Edge { high });
        }
    }

    fn set(&self, pin: u8, high: bool) {
        let mut state = self.lock();
        let line = state.lines.entry(pin).or_default();
        if line.level() != high {
            line.role = Role::Output { high };
            self.note(&mut state, pin, high);
        }
    }

    fn note(&self, state: &mut State, pin: u8, high: bool) {
        let at_ms = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        let change = Change { at_ms, pin, high };
        if state.changes.len() >= REMEMBERED {
            state.changes.pop_front();
        }
        state.changes.push_back(change);
        let _ = self.changes.send(change);
        if let Some((file, written)) = &mut state.record
            && let Err(cause) = append(file, written, change)
        {
            warn!(%cause, "Record of outputs not written");
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let Some(control) = &self.control else { return };
        if let Some(reader) = control.reader.lock().unwrap_or_else(PoisonError::into_inner).take() {
            reader.abort();
        }
        let _ = std::fs::remove_file(&control.path);
    }
}

fn append(file: &mut File, written: &mut u64, change: Change) -> io::Result<()> {
    if *written > RECORD_BYTES {
        file.set_len(0)?;
        *written = 0;
    }
    let line = format!("{} {} {}\n", change.at_ms, change.pin, u8::from(change.high));
    *written += line.len() as u64;
    file.write_all(line.as_bytes())
}

fn make_fifo(path: &Path) -> io::Result<()> {
    match mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR) {
        Ok(()) => Ok(()),
        // Left over from a run that was killed.
        Err(Errno::EEXIST) if std::fs::symlink_metadata(path)?.file_type().is_fifo() => {
            std::fs::remove_file(path)?;
            mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR).map_err(io::Error::from)
        }
        Err(Errno::EEXIST) => Err(io::Error::other("there is something else of that name")),
        Err(cause) => Err(cause.into()),
    }
}

/// Opened for both, so that it has no end when the last shell lets go of it.
fn open_fifo(path: &Path) -> io::Result<pipe::Receiver> {
    pipe::OpenOptions::new().read_write(true).open_receiver(path)
}

fn open_record(control: &Path) -> io::Result<(File, u64)> {
    let mut name = control.as_os_str().to_owned();
    name.push(".outputs");
    let file = File::options().append(true).create(true).mode(0o600).open(name)?;
    let written = file.metadata()?.len();
    Ok((file, written))
}

/// What a line of the control file asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Drive(u8, bool),
    Release(u8),
    Pulse(u8, u32),
}

fn order(line: &str) -> Option<Order> {
    let mut words = line.split_ascii_whitespace();
    let pin = words.next()?.parse().ok().filter(|pin| on_header(*pin).is_ok())?;
    let order = match words.next()? {
        "1" => Order::Drive(pin, true),
        "0" => Order::Drive(pin, false),
        "release" => Order::Release(pin),
        "pulse" => Order::Pulse(pin, words.next().unwrap_or("1").parse().ok().filter(|n| *n <= PULSES)?),
        _ => return None,
    };
    words.next().is_none().then_some(order)
}

/// Reads orders for as long as the pins exist.
async fn obey(bench: Weak<Bench>, mut orders: pipe::Receiver) {
    let mut pending = Vec::new();
    let mut chunk = [0; 256];
    loop {
        let count = match orders.read(&mut chunk).await {
            Ok(count) => count,
            Err(cause) => return warn!(%cause, "Control of simulated pins lost"),
        };
        for byte in chunk.iter().take(count) {
            if *byte != b'\n' {
                // One byte more than a line may have shows that it is too long.
                if pending.len() <= LINE {
                    pending.push(*byte);
                }
                continue;
            }
            let line = String::from_utf8_lossy(&pending).into_owned();
            match order(&line).filter(|_| pending.len() <= LINE) {
                Some(order) => carry_out(&bench, order).await,
                None if line.trim().is_empty() => {}
                None => warn!(line, "Not an order to simulated pins: `17 1`, `17 0`, `17 pulse 5`, `17 release`"),
            }
            pending.clear();
        }
    }
}

async fn carry_out(bench: &Weak<Bench>, order: Order) {
    let drive = |pin, level| {
        if let Some(bench) = bench.upgrade() {
            bench.drive(pin, level);
        }
    };
    match order {
        Order::Drive(pin, high) => drive(pin, Some(high)),
        Order::Release(pin) => drive(pin, None),
        Order::Pulse(pin, count) => {
            // A reed pulls against the level the pin rests at.
            let resting = || bench.upgrade().is_some_and(|b| b.lock().lines.get(&pin).is_some_and(Wire::level));
            for _ in 0..count {
                let rest = resting();
                drive(pin, Some(!rest));
                sleep(REED).await;
                drive(pin, Some(rest));
                sleep(REED).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_BOUNCE: Duration = Duration::from_millis(50);

    fn heard(edges: &mut mpsc::Receiver<Edge>) -> Vec<bool> {
        std::iter::from_fn(|| edges.try_recv().ok()).map(|edge| edge.high).collect()
    }

    #[test]
    fn an_input_nobody_drives_reads_as_its_pull() {
        let pins = Simulated::new();
        let mut up = pins.input(17, Pull::Up, NO_BOUNCE).expect("an input");
        let mut down = pins.input(18, Pull::Down, NO_BOUNCE).expect("an input");
        assert_eq!((heard(&mut up), heard(&mut down)), (vec![true], vec![false]));
        pins.drive(17, false);
        pins.drive(17, false);
        pins.release(17);
        assert_eq!(heard(&mut up), [false, true], "an edge each, none for a level it had");
        assert!(pins.level(17));
    }

    #[test]
    fn a_level_driven_before_the_input_is_watched_is_told_first() {
        let pins = Simulated::new();
        pins.drive(4, false);
        assert_eq!(heard(&mut pins.input(4, Pull::Up, NO_BOUNCE).expect("an input")), [false]);
    }

    #[test]
    fn a_pin_is_taken_once_and_free_again_when_let_go() {
        let pins = Simulated::new();
        let first = pins.input(17, Pull::Up, NO_BOUNCE).expect("an input");
        assert!(pins.input(17, Pull::Up, NO_BOUNCE).is_err());
        assert!(pins.output(17, false).is_err());
        drop(first);
        let output = pins.output(17, false).expect("free again");
        assert!(pins.input(17, Pull::Up, NO_BOUNCE).is_err());
        drop(output);
        assert!(pins.input(17, Pull::Up, NO_BOUNCE).is_ok());
        assert!(pins.input(28, Pull::Up, NO_BOUNCE).is_err(), "not on the header");
    }

    #[tokio::test(start_paused = true)]
    async fn outputs_start_released_end_released_and_their_order_is_recorded_with_the_time() {
        let pins = Simulated::new();
        let mut follow = pins.follow();
        let mut zone = pins.output(5, true).expect("a relay that is off when high");
        let mut amplifier = pins.output(6, false).expect("an output");
        zone.set(false).expect("driven");
        sleep(Duration::from_millis(300)).await;
        amplifier.set(true).expect("driven");
        amplifier.set(true).expect("no change");
        drop(amplifier);
        sleep(Duration::from_millis(200)).await;
        drop(zone);
        let told: Vec<_> = pins.changes().iter().map(|c| (c.at_ms, c.pin, c.high)).collect();
        let expected = [(0, 5, true), (0, 6, false), (0, 5, false), (300, 6, true), (300, 6, false), (500, 5, true)];
        assert_eq!(told, expected);
        assert_eq!(follow.try_recv().map(|c| c.pin), Ok(5));
        assert!(pins.level(5) && !pins.level(6));
    }

    #[test]
    fn orders_are_read_or_refused() {
        assert_eq!(order("17 1"), Some(Order::Drive(17, true)));
        assert_eq!(order(" 17  0 "), Some(Order::Drive(17, false)));
        assert_eq!(order("4 pulse 5"), Some(Order::Pulse(4, 5)));
        assert_eq!(order("4 pulse"), Some(Order::Pulse(4, 1)));
        assert_eq!(order("4 release"), Some(Order::Release(4)));
        for bad in ["", "17", "99 1", "17 2", "17 1 1", "x 1", "17 pulse 1001", "17 pulse -1"] {
            assert_eq!(order(bad), None, "{bad:?}");
        }
    }
}
