//! Text to speech by a program of the machine: Piper, pico2wave, espeak-ng, or the operator's own.
//!
//! A program is run without a shell, in a private folder, with limits of time and size, and dies with whoever waits
//! for it. Its licence stays outside this binary. What it writes is judged by `sound.rs`.

use std::{
    ffi::{OsStr, OsString},
    fs::{DirBuilder, File},
    io,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::{io::AsyncReadExt, process::Command};
use tracing::warn;

use super::words::spoken;
use crate::{config::announce::VoiceChoice, supervisor::chain};

/// A slow voice on a slow Pi takes about the time it speaks, and 1 000 characters are read in 80 s.
const TIME_LIMIT: Duration = Duration::from_secs(150);
/// Four minutes of stereo at 22 050 samples a second.
const SIZE_LIMIT: u64 = 24 * 1024 * 1024;
/// How often the growing file is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// Of what a program complains, so much is told.
const COMPLAINT: usize = 300;

/// Why a text was not spoken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VoiceError {
    /// None of those allowed is installed.
    #[error("no program that can speak is installed: {0}")]
    Missing(String),
    /// The private folder or its files.
    #[error("prepare {}", path.display())]
    Files {
        /// Which.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// It could not be started or waited for.
    #[error("run {program}")]
    Run {
        /// Which.
        program: String,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// It ended badly.
    #[error("{program} ended with {status}: {complaint}")]
    Ended {
        /// Which.
        program: String,
        /// Exit code or signal.
        status: String,
        /// The end of its standard error.
        complaint: String,
    },
    /// It ended well and wrote no file.
    #[error("{program} wrote no sound: {complaint}")]
    Nothing {
        /// Which.
        program: String,
        /// The end of its standard error.
        complaint: String,
    },
    /// It took too long.
    #[error("{0} has not finished within {TIME_LIMIT:?}")]
    Slow(String),
    /// It wrote too much.
    #[error("{0} wrote more than {SIZE_LIMIT} bytes")]
    TooMuch(String),
}

/// Who can turn a text into a WAV file.
pub(crate) trait Speaker: Send + Sync {
    /// Whether one is there; otherwise what was looked for.
    fn ready(&self) -> Result<(), VoiceError>;
    /// The text read aloud: the bytes of a WAV file.
    fn speak<'a>(&'a self, text: &'a str) -> BoxFuture<'a, Result<Vec<u8>, VoiceError>>;
}

/// A program that speaks, and how it is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Program {
    /// source: piper's `--help`; the text on standard input, one line, works with the C++ and the Python program.
    Piper { model: PathBuf },
    /// source: pico2wave(1); it takes the text as an argument only.
    Pico,
    /// source: espeak-ng(1).
    Espeak,
    /// The operator's.
    Command(Vec<String>),
}

impl Program {
    fn name(&self) -> &str {
        match self {
            Self::Piper { .. } => "piper",
            Self::Pico => "pico2wave",
            Self::Espeak => "espeak-ng",
            Self::Command(words) => words.first().map_or("", String::as_str),
        }
    }

    fn arguments(&self, text: &str, text_file: &Path, wav: &Path) -> Vec<OsString> {
        let words = |list: &[&OsStr]| list.iter().map(|word| (*word).to_owned()).collect();
        let word = OsStr::new;
        match self {
            Self::Piper { model } => {
                words(&[word("--model"), model.as_os_str(), word("--output_file"), wav.as_os_str()])
            }
            // `--`: a text that begins with a dash is no option.
            Self::Pico => words(&[word("-l"), word("fr-FR"), word("-w"), wav.as_os_str(), word("--"), word(text)]),
            Self::Espeak => words(&[
                word("-v"),
                word("fr"),
                word("-b"),
                word("1"),
                word("-f"),
                text_file.as_os_str(),
                word("-w"),
                wav.as_os_str(),
            ]),
            Self::Command(own) => own.iter().skip(1).map(|arg| filled(arg, text_file, wav)).collect(),
        }
    }
}

/// `{text_file}` and `{wav}` replaced.
fn filled(argument: &str, text_file: &Path, wav: &Path) -> OsString {
    argument.replace("{text_file}", &text_file.to_string_lossy()).replace("{wav}", &wav.to_string_lossy()).into()
}

/// The programs of this machine that may speak.
#[derive(Debug)]
pub(crate) struct Programs {
    allowed: Vec<Program>,
    search: OsString,
    work: PathBuf,
}

impl Programs {
    /// Those `choice` allows, looked for in the folders of `search` (as in `PATH`); work files go beneath `work`.
    pub(crate) fn new(choice: &VoiceChoice, model: Option<&Path>, search: OsString, work: PathBuf) -> Self {
        let piper = model.map(|model| Program::Piper { model: model.to_owned() });
        let allowed = match choice {
            VoiceChoice::Auto => piper.into_iter().chain([Program::Pico, Program::Espeak]).collect(),
            VoiceChoice::Piper => piper.into_iter().collect(),
            VoiceChoice::Pico => vec![Program::Pico],
            VoiceChoice::Espeak => vec![Program::Espeak],
            VoiceChoice::Command(words) => vec![Program::Command(words.clone())],
        };
        Self { allowed, search, work }
    }

    /// Looked for each time: one installed today speaks today.
    fn installed(&self) -> impl Iterator<Item = (&Program, PathBuf)> {
        self.allowed.iter().filter_map(|program| Some((program, find(program.name(), &self.search)?)))
    }

    fn missing(&self) -> VoiceError {
        VoiceError::Missing(self.allowed.iter().map(Program::name).collect::<Vec<_>>().join(", "))
    }

    async fn first_that_speaks(&self, text: &str) -> Result<Vec<u8>, VoiceError> {
        let text = spoken(text);
        let mut last = None;
        for (program, path) in self.installed() {
            match self.speak_with(program, &path, &text).await {
                Ok(wav) => return Ok(wav),
                Err(error) => {
                    warn!(program = program.name(), why = chain(&error), "Voice fell");
                    last = Some(error);
                }
            }
        }
        Err(last.unwrap_or_else(|| self.missing()))
    }

    async fn speak_with(&self, program: &Program, path: &Path, text: &str) -> Result<Vec<u8>, VoiceError> {
        let folder = Folder::new(&self.work)?;
        let (text_file, wav) = (folder.0.join("text"), folder.0.join("voice.wav"));
        let files = |source| VoiceError::Files { path: text_file.clone(), source };
        std::fs::write(&text_file, format!("{text}\n")).map_err(files)?;
        let input = File::open(&text_file).map_err(files)?;
        let mut command = Command::new(path);
        command.args(program.arguments(text, &text_file, &wav)).current_dir(&folder.0);
        command.stdin(input).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        let complaint = tokio::select! {
            ended = run(program.name(), command) => ended?,
            error = overrun(program.name(), &wav) => return Err(error),
        };
        let name = || program.name().to_owned();
        let Ok(file) = std::fs::metadata(&wav) else {
            return Err(VoiceError::Nothing { program: name(), complaint });
        };
        if file.len() > SIZE_LIMIT {
            return Err(VoiceError::TooMuch(name()));
        }
        tokio::fs::read(&wav).await.map_err(|source| VoiceError::Files { path: wav.clone(), source })
    }
}

impl Speaker for Programs {
    fn ready(&self) -> Result<(), VoiceError> {
        let found = self.installed().next().is_some();
        found.then_some(()).ok_or_else(|| self.missing())
    }

    fn speak<'a>(&'a self, text: &'a str) -> BoxFuture<'a, Result<Vec<u8>, VoiceError>> {
        self.first_that_speaks(text).boxed()
    }
}

/// Runs it to its end; what it complained about although it ended well.
async fn run(name: &str, mut command: Command) -> Result<String, VoiceError> {
    let failed = |source| VoiceError::Run { program: name.to_owned(), source };
    let mut child = command.spawn().map_err(failed)?;
    let complaint = complaint(child.stderr.take()).await;
    let status = child.wait().await.map_err(failed)?;
    if status.success() {
        return Ok(complaint);
    }
    Err(VoiceError::Ended { program: name.to_owned(), status: status.to_string(), complaint })
}

/// The end of what a program writes to its standard error, where most say what matters; read until it is closed, so
/// that a chatty program never waits for us.
pub(super) async fn complaint(stderr: Option<impl tokio::io::AsyncRead + Unpin>) -> String {
    let Some(mut stderr) = stderr else { return String::new() };
    let (mut kept, mut chunk) = (Vec::new(), [0; 1_024]);
    while let Ok(count @ 1..) = stderr.read(&mut chunk).await {
        kept.extend_from_slice(chunk.get(..count).unwrap_or_default());
        kept.drain(..kept.len().saturating_sub(COMPLAINT));
    }
    String::from_utf8_lossy(&kept).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Ends when a program takes too long or writes too much.
async fn overrun(name: &str, wav: &Path) -> VoiceError {
    let mut looks = tokio::time::interval(LOOK);
    for _ in 0..TIME_LIMIT.as_millis() / LOOK.as_millis() {
        looks.tick().await;
        if std::fs::metadata(wav).is_ok_and(|file| file.len() > SIZE_LIMIT) {
            return VoiceError::TooMuch(name.to_owned());
        }
    }
    VoiceError::Slow(name.to_owned())
}

/// A program's path: itself when it has a slash, else the first of the folders that holds it, executable.
pub(super) fn find(name: &str, search: &OsStr) -> Option<PathBuf> {
    let executable = |path: &PathBuf| {
        std::fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    };
    if name.contains('/') {
        return Some(PathBuf::from(name)).filter(executable);
    }
    // An empty entry of PATH means the current folder: not ours.
    std::env::split_paths(search).filter(|folder| folder.is_absolute()).map(|folder| folder.join(name)).find(executable)
}

/// A folder only we can enter, gone when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(beneath: &Path) -> Result<Self, VoiceError> {
        let path = beneath.join(format!("clocher-voice-{:016x}", rand::random::<u64>()));
        // Fails when it is there already: nobody else's folder is ever used.
        DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(|source| VoiceError::Files { path: path.clone(), source })?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            warn!(folder = %self.0.display(), %error, "Voice's folder stays");
        }
    }
}

/// Puts a shell script where a program is looked for. Written by another process, so that no test that forks at this
/// moment holds it open and the kernel refuses to run it.
#[cfg(test)]
pub(super) fn install(path: &Path, script: &str) {
    let mut shell = std::process::Command::new("/bin/sh");
    shell.args(["-c", "printf '#!/bin/sh\\n%s\\n' \"$1\" > \"$0\" && chmod 755 \"$0\""]).arg(path).arg(script);
    assert!(shell.status().expect("a shell").success());
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    /// A machine with programs that are small shell scripts.
    struct Machine {
        bin: TempDir,
        work: TempDir,
    }

    impl Machine {
        fn with(programs: &[(&str, &str)]) -> Self {
            let machine = Self { bin: TempDir::new().expect("bin"), work: TempDir::new().expect("work") };
            for (name, script) in programs {
                install(&machine.bin.path().join(name), script);
            }
            machine
        }

        fn programs(&self, choice: &VoiceChoice, model: Option<&str>) -> Programs {
            let work = self.work.path().to_owned();
            Programs::new(choice, model.map(Path::new), self.bin.path().as_os_str().to_owned(), work)
        }

        async fn speak(&self, choice: &VoiceChoice, model: Option<&str>) -> Result<String, VoiceError> {
            let spoken = self.programs(choice, model).speak("-à 8h, $(id) `id`; \"x\"").await;
            assert_eq!(std::fs::read_dir(self.work.path()).expect("work").count(), 0, "nothing is left behind");
            spoken.map(|wav| String::from_utf8(wav).expect("text"))
        }
    }

    /// Writes its name, its last argument and its standard input into the file after `-w` or so.
    const ECHO: &str = r#"out=; last=
        for word; do case "$last" in -w|--output_file) out="$word";; esac; last="$word"; done
        { basename "$0"; printf '%s\n' "$last"; /bin/cat; } > "$out""#;

    #[tokio::test]
    async fn piper_is_preferred_then_pico2wave_then_espeak_ng() {
        let all = Machine::with(&[("piper", ECHO), ("pico2wave", ECHO), ("espeak-ng", ECHO)]);
        let said = all.speak(&VoiceChoice::Auto, Some("/voices/siwis.onnx")).await.expect("piper");
        assert!(said.starts_with("piper\n"), "{said}");
        let said = all.speak(&VoiceChoice::Auto, None).await.expect("pico2wave");
        assert!(said.starts_with("pico2wave\n"), "{said}");
        let said = Machine::with(&[("espeak-ng", ECHO)]).speak(&VoiceChoice::Auto, None).await.expect("espeak-ng");
        assert!(said.starts_with("espeak-ng\n"), "{said}");
        let said = all.speak(&VoiceChoice::Espeak, Some("/voices/siwis.onnx")).await.expect("espeak-ng");
        assert!(said.starts_with("espeak-ng\n"), "{said}");
    }

    #[tokio::test]
    async fn the_text_reaches_the_program_whole_and_no_shell_reads_it() {
        let machine = Machine::with(&[("piper", ECHO), ("pico2wave", ECHO)]);
        let words = "-à 8 heures, $(id) `id`; \"x\"\n";
        let said = machine.speak(&VoiceChoice::Piper, Some("/m.onnx")).await.expect("piper");
        assert!(said.ends_with(words), "on standard input: {said}");
        let said = machine.speak(&VoiceChoice::Pico, None).await.expect("pico2wave");
        assert!(said.starts_with(&format!("pico2wave\n{words}")), "as the last argument: {said}");
    }

    #[tokio::test]
    async fn a_program_of_the_operator_is_given_both_files() {
        let machine = Machine::with(&[("say", "/bin/cp \"$2\" \"${3#--out=}\"")]);
        let words = ["say", "--in", "{text_file}", "--out={wav}"].map(String::from).to_vec();
        let said = machine.speak(&VoiceChoice::Command(words), None).await.expect("said");
        assert_eq!(said, "-à 8 heures, $(id) `id`; \"x\"\n");
    }

    #[tokio::test]
    async fn a_voice_that_falls_gives_way_to_the_next() {
        let machine = Machine::with(&[("pico2wave", "echo no data >&2; exit 3"), ("espeak-ng", ECHO)]);
        let said = machine.speak(&VoiceChoice::Auto, None).await.expect("espeak-ng");
        assert!(said.starts_with("espeak-ng\n"), "{said}");
        let error = machine.speak(&VoiceChoice::Pico, None).await.expect_err("pico2wave fell");
        assert_eq!(error.to_string(), "pico2wave ended with exit status: 3: no data");
    }

    #[tokio::test]
    async fn a_program_that_writes_nothing_is_told_apart() {
        let machine = Machine::with(&[("espeak-ng", "echo what? >&2; exit 0")]);
        let error = machine.speak(&VoiceChoice::Auto, None).await.expect_err("nothing written");
        assert_eq!(error.to_string(), "espeak-ng wrote no sound: what?");
    }

    #[tokio::test]
    async fn nothing_installed_is_said_with_what_was_looked_for() {
        let machine = Machine::with(&[]);
        let error = machine.speak(&VoiceChoice::Auto, None).await.expect_err("nothing there");
        assert_eq!(error.to_string(), "no program that can speak is installed: pico2wave, espeak-ng");
        assert!(machine.programs(&VoiceChoice::Auto, None).ready().is_err());
    }

    #[tokio::test]
    async fn a_program_that_writes_without_end_is_stopped() {
        let machine = Machine::with(&[("espeak-ng", "exec /bin/cat /dev/zero > \"$8\"")]);
        let error = machine.speak(&VoiceChoice::Auto, None).await.expect_err("too much");
        assert!(matches!(error, VoiceError::TooMuch(_)), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_program_that_hangs_is_stopped_at_the_limit() {
        let machine = Machine::with(&[("espeak-ng", "exec /bin/sleep 600")]);
        let error = machine.speak(&VoiceChoice::Auto, None).await.expect_err("slow");
        assert!(matches!(error, VoiceError::Slow(_)), "{error}");
    }

    #[tokio::test]
    async fn a_program_dies_with_whoever_waits_for_it() {
        let machine = Machine::with(&[("espeak-ng", "echo $$ > \"$8\"; exec /bin/sleep 600")]);
        let programs = machine.programs(&VoiceChoice::Auto, None);
        let work = machine.work.path().to_owned();
        let pid = {
            let speaking = programs.speak("texte");
            tokio::pin!(speaking);
            loop {
                tokio::select! {
                    _ = &mut speaking => panic!("it never ends"),
                    () = tokio::time::sleep(Duration::from_millis(5)) => {}
                }
                let written = std::fs::read_dir(&work).expect("work").flatten().next();
                let pid = written.and_then(|folder| std::fs::read_to_string(folder.path().join("voice.wav")).ok());
                if let Some(pid) = pid.and_then(|pid| pid.trim().parse::<u32>().ok()) {
                    break pid;
                }
            }
        };
        assert_eq!(std::fs::read_dir(&work).expect("work").count(), 0, "its folder is gone");
        // Gone, or dead and not yet collected; a living one shows S or R.
        let state = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        while !(state().is_empty() || state().contains(") Z ")) {
            tokio::task::yield_now().await;
        }
    }
}
