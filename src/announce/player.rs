//! Where sound leaves: a sound card through `aplay`, or a WAV file that lasts as long as the sound would.
//!
//! A playing is a future; dropping it is silence at once. Relays are `keying.rs`.

use std::{
    ffi::OsString,
    io::{self, Seek, Write},
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, SystemTime},
};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::{io::AsyncWriteExt, process::Command, time::Instant};
use tracing::warn;

use super::{
    sound::{HEADER, RATE, Sound, header},
    voice::{complaint, find},
};

/// A card may be this late at the end of a sound: its own buffer, a slow start.
const GRACE: Duration = Duration::from_secs(5);
/// What the WAV folder may hold.
const FOLDER_LIMIT: u64 = 256 * 1024 * 1024;
/// Files of ours begin so; others are never touched.
const PREFIX: &str = "clocher_";
const PART: &str = "part";

/// Why a sound was not played to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlayError {
    /// No program that plays.
    #[error("{0} is not installed")]
    Missing(&'static str),
    /// It could not be started or waited for.
    #[error("run {program}")]
    Run {
        /// Which.
        program: &'static str,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The card is not there, is taken, or went away.
    #[error("aplay on {card} ended with {status}: {complaint}")]
    Ended {
        /// The card.
        card: String,
        /// Exit code or signal.
        status: String,
        /// The end of its standard error.
        complaint: String,
    },
    /// No real card is faster than the sound: what takes it in less time, like ALSA's `null`, plays it to nobody.
    #[error("aplay on {card} took {sound:?} of sound in {took:?}: nobody heard it")]
    TooFast {
        /// The card.
        card: String,
        /// How long the sound lasts.
        sound: Duration,
        /// How long it took.
        took: Duration,
    },
    /// The card takes no more sound.
    #[error("aplay on {card} has not finished {GRACE:?} after the sound's end")]
    Stuck {
        /// The card.
        card: String,
    },
    /// The folder or a file in it.
    #[error("write {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

/// Somewhere sound can leave.
pub(crate) trait Player: Send + Sync {
    /// Whether it could play now, as far as can be known without playing.
    fn ready(&self) -> Result<(), PlayError>;
    /// Plays to the end, unless dropped. `title` is made of letters that suit a file name.
    fn play<'a>(&'a self, sound: &'a Sound, title: &'a str) -> BoxFuture<'a, Result<(), PlayError>>;
}

/// A sound card, by its ALSA name.
#[derive(Debug)]
pub(crate) struct Aplay {
    card: String,
    search: OsString,
}

impl Aplay {
    /// `aplay` is looked for in the folders of `search`, as in `PATH`.
    pub(crate) fn new(card: impl Into<String>, search: OsString) -> Self {
        Self { card: card.into(), search }
    }

    fn program(&self) -> Result<PathBuf, PlayError> {
        find("aplay", &self.search).ok_or(PlayError::Missing("aplay"))
    }

    async fn play_on_card(&self, sound: &Sound) -> Result<(), PlayError> {
        let mut command = Command::new(self.program()?);
        // source: aplay(1)
        command.args(["-q", "-D", &self.card, "-t", "wav", "-"]);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        let played = tokio::time::timeout(sound.length() + GRACE, self.run(command, sound)).await;
        played.unwrap_or_else(|_| Err(PlayError::Stuck { card: self.card.clone() }))
    }

    async fn run(&self, mut command: Command, sound: &Sound) -> Result<(), PlayError> {
        let failed = |source| PlayError::Run { program: "aplay", source };
        let begun = Instant::now();
        let mut child = command.spawn().map_err(failed)?;
        let (stdin, stderr) = (child.stdin.take(), child.stderr.take());
        let feed = async {
            if let Some(mut stdin) = stdin {
                // One that goes away early says why when it ends.
                let _ = stdin.write_all(&sound.to_wav()).await;
            }
        };
        let ((), complaint) = tokio::join!(feed, complaint(stderr));
        let status = child.wait().await.map_err(failed)?;
        let (card, took) = (self.card.clone(), begun.elapsed());
        if !status.success() {
            return Err(PlayError::Ended { card, status: status.to_string(), complaint });
        }
        if took < sound.length().mul_f64(0.8) {
            return Err(PlayError::TooFast { card, sound: sound.length(), took });
        }
        Ok(())
    }
}

impl Player for Aplay {
    fn ready(&self) -> Result<(), PlayError> {
        self.program().map(drop)
    }

    fn play<'a>(&'a self, sound: &'a Sound, _title: &'a str) -> BoxFuture<'a, Result<(), PlayError>> {
        self.play_on_card(sound).boxed()
    }
}

/// A folder of WAV files, one per playing, where there is no card.
#[derive(Debug)]
pub(crate) struct WavFile {
    folder: PathBuf,
}

impl WavFile {
    /// What an earlier run did not finish is removed.
    pub(crate) fn new(folder: impl Into<PathBuf>) -> Self {
        let player = Self { folder: folder.into() };
        for (path, ..) in player.ours() {
            if path.extension().is_some_and(|extension| extension == PART) {
                remove(&path);
            }
        }
        player
    }

    async fn play_into_file(&self, sound: &Sound, title: &str) -> Result<(), PlayError> {
        self.ready()?;
        self.make_room(sound.bytes() as u64);
        let mut file = Playing::begin(self.free_name(title), sound).await?;
        tokio::time::sleep(sound.length()).await;
        file.end(sound.samples().len())
    }

    /// `clocher_<title>.wav`, or with a number when there is one already.
    fn free_name(&self, title: &str) -> PathBuf {
        let plain: String =
            title.chars().map(|c| if c.is_ascii_alphanumeric() || "+-_".contains(c) { c } else { '-' }).collect();
        let short = plain.get(..plain.len().min(150)).unwrap_or_default();
        let first = self.folder.join(format!("{PREFIX}{short}.wav"));
        let numbered = (2..).map(|n: u32| self.folder.join(format!("{PREFIX}{short}_{n}.wav")));
        std::iter::once(first).chain(numbered.take(1_000)).find(|path| !path.exists()).unwrap_or_default()
    }

    /// Files of ours: path, age, size.
    fn ours(&self) -> Vec<(PathBuf, SystemTime, u64)> {
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        entries
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX))
            .filter_map(|entry| {
                let file = entry.metadata().ok().filter(std::fs::Metadata::is_file)?;
                Some((entry.path(), file.modified().unwrap_or(SystemTime::UNIX_EPOCH), file.len()))
            })
            .collect()
    }

    fn make_room(&self, bytes: u64) {
        let mut files = self.ours();
        files.sort_by_key(|(_, age, _)| *age);
        let mut held: u64 = files.iter().map(|(.., size)| size).sum();
        for (path, _, size) in files {
            if held + bytes <= FOLDER_LIMIT {
                break;
            }
            remove(&path);
            held -= size;
        }
    }
}

impl Player for WavFile {
    fn ready(&self) -> Result<(), PlayError> {
        std::fs::create_dir_all(&self.folder).map_err(|source| PlayError::File { path: self.folder.clone(), source })
    }

    fn play<'a>(&'a self, sound: &'a Sound, title: &'a str) -> BoxFuture<'a, Result<(), PlayError>> {
        self.play_into_file(sound, title).boxed()
    }
}

fn remove(path: &Path) {
    if let Err(error) = std::fs::remove_file(path) {
        warn!(file = %path.display(), %error, "Sound file stays");
    }
}

/// A file that is being "heard": under its name only once it is whole, or cut where the listener was cut off.
struct Playing {
    name: PathBuf,
    part: PathBuf,
    /// Once the whole file is written.
    started: Option<Instant>,
    ended: bool,
}

impl Playing {
    async fn begin(name: PathBuf, sound: &Sound) -> Result<Self, PlayError> {
        let part = name.with_extension(PART);
        let mut file = Self { name, part, started: None, ended: false };
        let written = tokio::fs::write(&file.part, sound.to_wav()).await;
        written.map_err(|source| PlayError::File { path: file.part.clone(), source })?;
        file.started = Some(Instant::now());
        Ok(file)
    }

    fn end(&mut self, samples: usize) -> Result<(), PlayError> {
        self.ended = true;
        let ended = if samples == 0 { std::fs::remove_file(&self.part) } else { self.shorten_and_name(samples) };
        ended.map_err(|source| PlayError::File { path: self.name.clone(), source })
    }

    fn shorten_and_name(&self, samples: usize) -> io::Result<()> {
        let mut file = std::fs::OpenOptions::new().write(true).open(&self.part)?;
        let whole = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX).saturating_sub(HEADER) / 2;
        let heard = samples.min(whole);
        file.set_len((HEADER + 2 * heard) as u64)?;
        file.seek(io::SeekFrom::Start(0))?;
        file.write_all(&header(heard))?;
        file.sync_all()?;
        std::fs::rename(&self.part, &self.name)
    }
}

impl Drop for Playing {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let heard = self.started.map_or(0.0, |started| started.elapsed().as_secs_f64());
        if let Err(error) = self.end((heard * f64::from(RATE)) as usize) {
            warn!(%error, "Sound file was not cut where the sound was");
        }
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::{super::voice::install, *};

    fn second() -> Sound {
        Sound::of((0..RATE).map(|n| (n % 1_000) as i16).collect())
    }

    fn files(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).expect("folder");
        let mut names: Vec<_> = entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    fn samples(path: &Path) -> Vec<i16> {
        hound::WavReader::open(path).expect("WAV").into_samples().map(|s| s.expect("sample")).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_sound_becomes_a_file_and_takes_as_long_as_it_would_on_a_card() {
        let folder = TempDir::new().expect("folder");
        let player = WavFile::new(folder.path().join("deep/er"));
        let begun = Instant::now();
        player.play(&second(), "17_bourg").await.expect("played");
        assert_eq!(begun.elapsed().as_millis(), 1_000);
        assert_eq!(files(&player.folder), ["clocher_17_bourg.wav"]);
        assert_eq!(samples(&player.folder.join("clocher_17_bourg.wav")), second().samples());
        player.play(&second(), "17_bourg").await.expect("played again");
        assert_eq!(files(&player.folder), ["clocher_17_bourg.wav", "clocher_17_bourg_2.wav"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_sound_cut_off_leaves_a_file_of_what_was_heard() {
        let folder = TempDir::new().expect("folder");
        let player = WavFile::new(folder.path());
        let cut = tokio::time::timeout(Duration::from_millis(250), player.play(&second(), "../a b")).await;
        assert!(cut.is_err());
        assert_eq!(files(folder.path()), ["clocher_---a-b.wav"]);
        let heard = samples(&folder.path().join("clocher_---a-b.wav"));
        assert_eq!(heard, second().samples()[..RATE as usize / 4]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_crash_left_unfinished_goes_and_what_is_not_ours_stays() {
        let folder = TempDir::new().expect("folder");
        for name in ["clocher_1.part", "other.part", "clocher_0.wav"] {
            std::fs::write(folder.path().join(name), "x").expect("file");
        }
        WavFile::new(folder.path());
        assert_eq!(files(folder.path()), ["clocher_0.wav", "other.part"]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_folder_is_bounded_by_removing_the_oldest_of_ours() {
        let folder = TempDir::new().expect("folder");
        let player = WavFile::new(folder.path());
        for (name, days) in [("clocher_old.wav", 3), ("clocher_new.wav", 1), ("photo.wav", 9)] {
            let file = std::fs::File::create(folder.path().join(name)).expect("file");
            file.set_len(FOLDER_LIMIT / 2).expect("sparse");
            file.set_modified(SystemTime::now() - Duration::from_secs(days * 86_400)).expect("age");
        }
        player.play(&second(), "now").await.expect("played");
        assert_eq!(files(folder.path()), ["clocher_new.wav", "clocher_now.wav", "photo.wav"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_folder_that_cannot_be_is_said() {
        let folder = TempDir::new().expect("folder");
        std::fs::write(folder.path().join("file"), "").expect("file");
        let error = WavFile::new(folder.path().join("file/in")).ready().expect_err("no folder");
        assert!(error.to_string().ends_with("file/in"), "{error}");
    }

    fn aplay(script: &str) -> (TempDir, Aplay) {
        let bin = TempDir::new().expect("bin");
        install(&bin.path().join("aplay"), script);
        let player = Aplay::new("default:CARD=Headphones", bin.path().as_os_str().to_owned());
        (bin, player)
    }

    #[tokio::test]
    async fn a_card_is_given_the_whole_wav_by_its_name() {
        let (bin, player) = aplay("echo \"$@\" > \"$0.args\"; /bin/cat > \"$0.wav\"; /bin/sleep 1");
        player.play(&second(), "").await.expect("played");
        let said = std::fs::read_to_string(bin.path().join("aplay.args")).expect("arguments");
        assert_eq!(said, "-q -D default:CARD=Headphones -t wav -\n");
        assert_eq!(samples(&bin.path().join("aplay.wav")), second().samples());
    }

    #[tokio::test]
    async fn a_card_that_is_not_there_says_why() {
        let (_bin, player) = aplay("echo 'audio open error:' >&2; echo 'No such file or directory' >&2; exit 1");
        let error = player.play(&second(), "").await.expect_err("no card");
        assert_eq!(
            error.to_string(),
            "aplay on default:CARD=Headphones ended with exit status: 1: audio open error: No such file or directory"
        );
    }

    #[tokio::test]
    async fn a_card_that_swallows_sound_faster_than_it_lasts_is_no_proof_that_it_was_heard() {
        let (_bin, player) = aplay("/bin/cat > /dev/null");
        let error = player.play(&second(), "").await.expect_err("too fast");
        assert!(matches!(error, PlayError::TooFast { .. }), "{error}");
    }

    #[tokio::test]
    async fn a_long_complaint_is_told_by_its_end() {
        let (_bin, player) =
            aplay("for n in 1 2 3 4 5 6 7 8 9; do printf '%0200d' $n >&2; done; echo ' audio open error' >&2; exit 1");
        let error = player.play(&second(), "").await.expect_err("no card").to_string();
        assert!(error.ends_with(" audio open error") && error.len() < 400, "{error}");
    }

    #[tokio::test]
    async fn a_sound_that_is_cut_off_kills_the_program_at_once() {
        let (bin, player) = aplay("echo $$ > \"$0.pid\"; exec /bin/sleep 600");
        let pid_file = bin.path().join("aplay.pid");
        let sound = second();
        let pid = {
            let playing = player.play(&sound, "");
            tokio::pin!(playing);
            loop {
                tokio::select! {
                    _ = &mut playing => panic!("it does not end by itself"),
                    () = tokio::time::sleep(Duration::from_millis(5)) => {}
                }
                let pid = std::fs::read_to_string(&pid_file).ok().and_then(|pid| pid.trim().parse::<u32>().ok());
                if let Some(pid) = pid {
                    break pid;
                }
            }
        };
        let state = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        while !(state().is_empty() || state().contains(") Z ")) {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_card_that_takes_no_more_sound_is_given_up() {
        let (_bin, player) = aplay("exec /bin/sleep 600");
        let begun = Instant::now();
        let error = player.play(&second(), "").await.expect_err("stuck");
        assert!(matches!(error, PlayError::Stuck { .. }), "{error}");
        assert_eq!(begun.elapsed(), Duration::from_secs(6));
    }

    #[test]
    fn a_machine_without_aplay_says_so() {
        let player = Aplay::new("default", "/nowhere".into());
        assert_eq!(player.ready().expect_err("missing").to_string(), "aplay is not installed");
    }
}
