//! Opening a store whose card may be full, read-only, failing, hanging or not there: the gateway starts with what can be
//! had in good time, and a thread goes on trying until the card can be used.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::DirBuilderExt,
    path::Path,
    sync::mpsc,
    time::Duration,
};

use tracing::{error, info, warn};

use super::{
    Buffer, OpenFault, Opened, Settings,
    open::{Joints, Manner},
    writer::RETRY,
};
use crate::supervisor::chain;

/// A card that has not opened after this is gone on without; the largest store takes a second.
const PATIENCE: Duration = Duration::from_secs(15);
/// So many tries of a card that can be written and yet does not open, before what does not read is given up.
const RESOLUTE: u32 = 20;

impl Buffer {
    /// Opens the store on the card or, when it cannot be used, what stands in for it: the card read only, or memory. Then
    /// the store moves to the card by itself as soon as that is possible.
    pub fn begin(settings: &Settings) -> Opened {
        let joints = Joints::default();
        let (give, take) = mpsc::sync_channel(1);
        let opener = Opener { settings: settings.clone(), joints: joints.clone() };
        let spawned = std::thread::Builder::new().name("store-open".to_owned()).spawn(move || opener.run(&give));
        let why = match spawned.map(|_| take.recv_timeout(PATIENCE)) {
            Ok(Ok(First::Opened(opened))) => return *opened,
            Ok(Ok(First::Memory(why))) => why,
            Ok(Err(_)) => "the card does not answer".to_owned(),
            Err(error) => {
                error!(%error, "Opener of the store not started");
                error.to_string()
            }
        };
        warn!(why, "The store cannot be opened for now; readings are held in memory");
        Self::unopened(settings, Joints { why, ..joints })
    }
}

/// What a gateway starts with.
enum First {
    Opened(Box<Opened>),
    Memory(String),
}

struct Opener {
    settings: Settings,
    joints: Joints,
}

impl Opener {
    fn run(self, first: &mpsc::SyncSender<First>) {
        let mut told = false;
        let mut tries = 0;
        while !self.joints.ring.is_ending() {
            let fault = match self.open(tries) {
                Ok(opened) if told => return self.joints.ring.arrive(Box::new(opened)),
                Ok(opened) => {
                    // Too late to begin with: it comes as one that could be opened at last.
                    if let Err(mpsc::SendError(First::Opened(opened))) = first.send(First::Opened(Box::new(opened))) {
                        self.joints.ring.arrive(opened);
                    }
                    return;
                }
                Err(fault) => chain(&fault),
            };
            if !told {
                told = true;
                let _ = first.send(self.without_writing(fault));
            } else if tries == 1 {
                info!(fault, "The store does not open yet; tried again every {RETRY:?}");
            }
            tries += u32::from(takes_writes(&self.settings.directory).is_ok());
            std::thread::sleep(RETRY);
        }
    }

    fn open(&self, tries: u32) -> Result<Opened, OpenFault> {
        let directory = &self.settings.directory;
        let refused = |source| OpenFault::Directory { directory: directory.clone(), source };
        // Opening repairs: a card that takes nothing is not touched.
        takes_writes(directory).map_err(refused)?;
        let manner = if tries < RESOLUTE { Manner::Careful } else { Manner::Resolute };
        Buffer::open_as(&self.settings, manner, self.joints.clone())
    }

    /// What the card holds, if it can be read; memory otherwise.
    fn without_writing(&self, why: String) -> First {
        let opened =
            Buffer::open_as(&self.settings, Manner::Reading, Joints { why: why.clone(), ..self.joints.clone() });
        match opened {
            Ok(opened) => First::Opened(Box::new(opened)),
            Err(fault) => {
                info!(why = chain(&fault), "The card cannot be read either");
                First::Memory(why)
            }
        }
    }
}

/// Whether the folder takes a file now, on the card.
fn takes_writes(directory: &Path) -> io::Result<()> {
    // A directory that is there already keeps the mode its owner gave it.
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let path = directory.join("probe");
    let mut file = fs::File::create(&path)?;
    let tried = file.write_all(&[0; 4096]).and_then(|()| file.sync_all());
    let removed = fs::remove_file(&path);
    tried.and(removed)
}
