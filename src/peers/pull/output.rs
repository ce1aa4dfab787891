//! The file of lines and the file that counts them. The order of every write here is what makes `pull` lose nothing and
//! repeat nothing.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use super::PullError;

/// What the cursor file holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Place {
    /// How far was read; none before the first page.
    cursor: Option<String>,
    /// Bytes of the output that are counted; none for standard output.
    output: Option<u64>,
}

/// A page to be written.
pub(super) struct Written<'a> {
    pub(super) lines: &'a [u8],
    pub(super) cursor: &'a str,
}

/// Where lines go, and how far they have come.
pub(super) struct Output {
    cursor_file: PathBuf,
    target: Target,
    place: Place,
}

enum Target {
    /// Locked, so that two pulls never write into one file.
    File {
        file: Flock<File>,
        path: PathBuf,
    },
    Standard,
}

impl Output {
    /// Takes the work up where it was left: what the output holds beyond the count is a page cut short, and goes.
    pub(super) fn open(cursor_file: &Path, output: Option<&Path>) -> Result<Self, PullError> {
        let known = read_place(cursor_file)?;
        let Some(path) = output else {
            if known.as_ref().is_some_and(|place| place.output.is_some()) {
                return Err(mismatch(cursor_file, "counts the lines of a file, not of standard output"));
            }
            let place = known.unwrap_or_default();
            return Ok(Self { cursor_file: cursor_file.to_owned(), target: Target::Standard, place });
        };
        let mut file = open_locked(path)?;
        let length = file.metadata().map_err(fault("measure", path))?.len();
        let place = match known {
            Some(place) => place,
            None if length == 0 => Place { cursor: None, output: Some(0) },
            None => return Err(foreign(path, cursor_file)),
        };
        let Some(counted) = place.output else {
            return Err(mismatch(cursor_file, "was made for standard output, not for a file"));
        };
        if length < counted {
            return Err(shorter(path, length, cursor_file, counted));
        }
        if length > counted {
            file.set_len(counted).and_then(|()| file.sync_all()).map_err(fault("cut back", path))?;
        }
        file.seek(SeekFrom::Start(counted)).map_err(fault("seek in", path))?;
        let target = Target::File { file, path: path.to_owned() };
        let output = Self { cursor_file: cursor_file.to_owned(), target, place };
        // The output's own name must be on the disk, and its count, before the first line is.
        sync_directory(path)?;
        output.keep_place()?;
        Ok(output)
    }

    /// How far was read.
    pub(super) fn cursor(&self) -> Option<&str> {
        self.place.cursor.as_deref()
    }

    /// Lines first, on the disk; then their count and the cursor.
    pub(super) fn append(&mut self, written: Written<'_>) -> Result<(), PullError> {
        match &mut self.target {
            Target::Standard => {
                let mut out = io::stdout().lock();
                let done = out.write_all(written.lines).and_then(|()| out.flush());
                done.map_err(fault("write to", Path::new("standard output")))?;
            }
            Target::File { file, path } => {
                let done = file.write_all(written.lines).and_then(|()| file.sync_data());
                done.map_err(fault("write to", path))?;
                let counted = self.place.output.unwrap_or(0) + written.lines.len() as u64;
                self.place.output = Some(counted);
            }
        }
        self.place.cursor = Some(written.cursor.to_owned());
        self.keep_place()
    }

    fn keep_place(&self) -> Result<(), PullError> {
        let text = serde_json::to_vec(&self.place).map_err(io::Error::from);
        replace(&self.cursor_file, &text.map_err(fault("encode", &self.cursor_file))?)
    }
}

/// Whole or not at all: a draft, on the disk, takes the name.
pub(super) fn replace(path: &Path, content: &[u8]) -> Result<(), PullError> {
    let mut draft = path.to_owned().into_os_string();
    draft.push(".draft");
    let draft = PathBuf::from(draft);
    let write = || {
        let mut file = File::create(&draft)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&draft, path)
    };
    write().map_err(fault("write", path))?;
    sync_directory(path)
}

fn read_place(cursor_file: &Path) -> Result<Option<Place>, PullError> {
    let text = match fs::read(cursor_file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(fault("read", cursor_file)(error)),
    };
    let place = serde_json::from_slice(&text).map_err(|_| mismatch(cursor_file, "is not a cursor file of clocher"))?;
    Ok(Some(place))
}

fn open_locked(path: &Path) -> Result<Flock<File>, PullError> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
    let file = file.map_err(fault("open", path))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|_| mismatch(path, "is being written by another pull"))
}

fn sync_directory(of: &Path) -> Result<(), PullError> {
    let directory = of.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory).and_then(|file| file.sync_all()).map_err(fault("sync", directory))
}

fn fault<'a>(doing: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> PullError + 'a {
    move |source| PullError::File { doing, path: path.to_owned(), source }
}

fn mismatch(path: &Path, what: &str) -> PullError {
    PullError::Mismatch(format!("{} {what}", path.display()))
}

fn foreign(output: &Path, cursor_file: &Path) -> PullError {
    PullError::Mismatch(format!(
        "{} holds lines already but there is no {} to say how far they go: give the cursor file, or another output",
        output.display(),
        cursor_file.display()
    ))
}

fn shorter(output: &Path, length: u64, cursor_file: &Path, counted: u64) -> PullError {
    PullError::Mismatch(format!(
        "{} has {length} bytes but {} counts {counted}: lines are missing from it; remove both to pull again what is \
         still stored",
        output.display(),
        cursor_file.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Files {
        directory: tempfile::TempDir,
    }

    impl Files {
        fn new() -> Self {
            Self { directory: tempfile::tempdir().expect("a folder") }
        }
        fn output(&self) -> PathBuf {
            self.directory.path().join("lines.jsonl")
        }
        fn cursor(&self) -> PathBuf {
            self.directory.path().join("cursor.json")
        }
        fn open(&self) -> Result<Output, PullError> {
            Output::open(&self.cursor(), Some(&self.output()))
        }
    }

    #[test]
    fn a_page_written_but_not_counted_is_cut_back() {
        let files = Files::new();
        let mut output = files.open().expect("opened");
        output.append(Written { lines: b"one\n", cursor: "c1" }).expect("written");
        drop(output);
        let mut text = fs::read(files.output()).expect("read");
        text.extend_from_slice(b"two\nthr");
        fs::write(files.output(), text).expect("a page, and a power cut");
        let mut output = files.open().expect("opened");
        assert_eq!(output.cursor(), Some("c1"));
        output.append(Written { lines: b"two\n", cursor: "c2" }).expect("written");
        assert_eq!(fs::read(files.output()).expect("read"), b"one\ntwo\n");
    }

    #[test]
    fn the_first_page_too_is_cut_back_when_it_was_not_counted() {
        let files = Files::new();
        drop(files.open().expect("opened"));
        fs::write(files.output(), b"one\n").expect("a page, and a power cut");
        assert_eq!(files.open().expect("opened").cursor(), None);
        assert_eq!(fs::read(files.output()).expect("read"), b"");
    }

    #[test]
    fn files_that_do_not_belong_together_are_named_and_left_alone() {
        let files = Files::new();
        fs::write(files.output(), b"somebody's\n").expect("written");
        let told = files.open().err().expect("refused").to_string();
        assert!(told.contains("lines.jsonl") && told.contains("cursor.json"), "{told}");
        assert_eq!(fs::read(files.output()).expect("read"), b"somebody's\n");

        let files = Files::new();
        files.open().expect("opened").append(Written { lines: b"one\n", cursor: "c" }).expect("written");
        fs::write(files.output(), b"on").expect("cut");
        let told = files.open().err().expect("refused").to_string();
        assert!(told.contains("has 2 bytes but") && told.contains("counts 4"), "{told}");
        assert_eq!(fs::read(files.output()).expect("read"), b"on");

        fs::write(files.cursor(), b"{\"cur").expect("cut");
        assert!(files.open().err().expect("refused").to_string().contains("is not a cursor file"));
    }

    #[test]
    fn two_pulls_never_write_into_one_file() {
        let files = Files::new();
        let _first = files.open().expect("opened");
        assert!(files.open().err().expect("refused").to_string().contains("another pull"));
    }
}
