//! `clocher pull`: the central operator's client. It follows one gateway and appends every line once to a file, or
//! writes them to standard output, whatever happens to the link, to itself or to the machine.
//!
//! A page is asked for, received whole, put on the disk, and only then counted by the cursor file; what is found beyond
//! the count at the next start is cut back. So nothing is lost and nothing is there twice.

mod link;
mod newest;
mod output;
mod page;
mod patience;

use std::{fmt, io::IsTerminal, path::PathBuf, time::Duration};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use self::{
    link::{Answer, Link},
    newest::Newest,
    output::{Output, Written},
    page::Page,
};
pub use self::{newest::NewestFirst, patience::Patience};
use super::Format;
use crate::{supervisor::chain, tls, tls::TlsError};

/// What to pull, with what, into what.
#[derive(Debug, Clone)]
pub struct PullOptions {
    /// The gateway: `https://mairie.example:8444`.
    pub url: String,
    /// This peer's certificate, PEM.
    pub certificate: PathBuf,
    /// Its key, PEM.
    pub key: PathBuf,
    /// The authority that issued the gateway's certificate, or that certificate itself, PEM.
    pub authority: PathBuf,
    /// Where the place reached is kept.
    pub cursor_file: PathBuf,
    /// The file to append to; `None` for standard output, where after a fall the last page may come a second time.
    pub output: Option<PathBuf>,
    /// How lines are laid out. Not to be changed halfway through a file.
    pub format: Format,
    /// Where the newest reading of each point goes before the backlog, at the start and after an outage.
    pub newest_first: Option<NewestFirst>,
    /// Ends once everything is pulled, rather than waiting for more.
    pub once: bool,
    /// How long a poll waits for news, 60 s at most. Not used with `once`.
    pub wait: Duration,
    /// Readings a page, at most.
    pub limit: usize,
    /// Shows a bar on a terminal's standard error.
    pub progress: bool,
    /// What is done when the link fails.
    pub patience: Patience,
}

/// What was pulled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Lines written, without the last line of each page.
    pub lines: u64,
    /// Pages written.
    pub pages: u64,
    /// Bytes received, as they came over the link.
    pub received: u64,
    /// Failures that were overcome.
    pub failures: u64,
    /// Times the gateway's store was found replaced.
    pub restarts: u64,
    /// Times the newest reading of each point was written.
    pub states: u64,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lines, pages, received, failures, .. } = self;
        write!(f, "{lines} lines in {pages} pages, {received} bytes received, {failures} failures overcome")
    }
}

/// The pull cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// The address is not one.
    #[error("{url:?} is not the address of a gateway: https://host:port is expected")]
    Url {
        /// As given.
        url: String,
    },
    /// Certificates, key.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A file cannot be used.
    #[error("{doing} {}", path.display())]
    File {
        /// What was being done.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why it could not be.
        #[source]
        source: std::io::Error,
    },
    /// Files that do not belong together. Nothing was changed.
    #[error("{0}")]
    Mismatch(String),
    /// The gateway refuses, and would again.
    #[error("the gateway refuses ({status} {code}): {message}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// The gateway's word for it.
        code: String,
        /// What it says should be done.
        message: String,
    },
    /// The gateway asks to come back much later, and `once` does not wait so long.
    #[error("the gateway asks to come back in {after:?} ({code})")]
    ComeBack {
        /// In how long.
        after: Duration,
        /// The gateway's word for it.
        code: String,
    },
    /// The link failed too often in a row.
    #[error("given up after {tries} failures in a row")]
    GaveUp {
        /// How many.
        tries: u32,
        /// The last one.
        #[source]
        source: LinkError,
    },
    /// One end does not accept the other's certificate; to try again would change nothing.
    #[error("the certificates do not suit")]
    Certificates(#[source] LinkError),
}

/// One failure of the link, or of what came over it.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// No connection.
    #[error("connect to {host}")]
    Connect {
        /// Where to.
        host: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A connection that ended before its time.
    #[error("talk to the gateway")]
    Http(#[from] hyper::Error),
    /// Nothing came for too long.
    #[error("the gateway was silent for {0:?}")]
    Silent(Duration),
    /// A page without its end.
    #[error("the page is not whole: {0}")]
    Page(String),
    /// The gateway asks to come back later.
    #[error("the gateway asks to come back later ({status} {code})")]
    Later {
        /// HTTP status.
        status: u16,
        /// The gateway's word for it.
        code: String,
        /// In how long, when it says.
        after: Option<Duration>,
    },
}

impl LinkError {
    /// Whether the gateway's certificate was refused here, or ours there.
    fn is_about_certificates(&self) -> bool {
        use rustls::{AlertDescription as Alert, Error as Tls};
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(error) = cause {
            // `source` of an I/O error passes over the error it wraps.
            let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
            match wrapped.and_then(|error| error.downcast_ref::<Tls>()) {
                Some(Tls::InvalidCertificate(_)) => return true,
                Some(Tls::AlertReceived(alert)) => {
                    return matches!(
                        alert,
                        Alert::BadCertificate
                            | Alert::UnsupportedCertificate
                            | Alert::CertificateRevoked
                            | Alert::CertificateExpired
                            | Alert::CertificateUnknown
                            | Alert::CertificateRequired
                            | Alert::UnknownCA
                            | Alert::DecryptError
                            | Alert::AccessDenied
                    );
                }
                _ => cause = error.source(),
            }
        }
        false
    }
}

/// Pulls until all is pulled (`once`), or until `stop`.
///
/// Writes block the thread they run on, as they must be on the disk before the next page is asked for.
///
/// # Errors
/// When it cannot go on, or with `once` when the link failed too often in a row. What was pulled until then is safe.
pub async fn run(options: PullOptions, stop: CancellationToken) -> Result<Summary, PullError> {
    let identity = tls::Identity::load(&options.certificate, &options.key)?;
    let tls = tls::client(Some(&identity), &options.authority)?;
    let link = Link::new(&options.url, tls, options.patience.silence)?;
    let output = Output::open(&options.cursor_file, options.output.as_deref())?;
    let bar = bar(options.progress);
    let newest = Newest::new(options.newest_first.clone());
    let mut puller = Puller { options, link, output, newest, bar, summary: Summary::default(), failures: 0 };
    while !puller.turn(&stop).await? {}
    puller.bar.finish_and_clear();
    info!(%puller.summary, "Pull ended");
    Ok(puller.summary)
}

struct Puller {
    options: PullOptions,
    link: Link,
    output: Output,
    newest: Newest,
    bar: ProgressBar,
    summary: Summary,
    /// In a row.
    failures: u32,
}

impl Puller {
    /// Asks for one page and writes it. True when there is no more to do.
    async fn turn(&mut self, stop: &CancellationToken) -> Result<bool, PullError> {
        let newest = self.newest.path(self.options.limit);
        let wait = if self.options.once || newest.is_some() { Duration::ZERO } else { self.options.wait };
        let path = newest.clone().unwrap_or_else(|| self.path());
        // Only the link is left in the middle, never a file.
        let Some(answer) = stop.run_until_cancelled(self.link.get(&path, wait)).await else { return Ok(true) };
        let asked = answer.as_ref().ok().and_then(|answer| answer.retry_after);
        let understood = answer.and_then(|answer| self.understand(answer, newest.is_some()));
        let failure = match understood {
            Ok(understood) => {
                self.newest.heard();
                return match understood {
                    Understood::Page(page) => Ok(self.write(page)? || self.rest(asked, stop).await),
                    Understood::Restart(restart) => self.restart(restart),
                    Understood::State(written) => self.state(written),
                    Understood::Refused(refused) if newest.is_some() => {
                        warn!(why = chain(&refused), "The gateway cannot tell the newest first; it is done without");
                        self.newest.give_up();
                        Ok(false)
                    }
                    Understood::Refused(refused) => Err(refused),
                };
            }
            Err(failure) => failure,
        };
        self.link.close();
        self.fail(failure, stop).await
    }

    /// The newest readings, or a part of them.
    fn state(&mut self, written: Result<bool, PullError>) -> Result<bool, PullError> {
        if written? {
            self.summary.states += 1;
        }
        Ok(false)
    }

    /// Waits as long as the gateway asks after a page. True when stopped meanwhile.
    async fn rest(&self, asked: Option<Duration>, stop: &CancellationToken) -> bool {
        let Some(asked) = asked.filter(|_| !self.options.once) else { return false };
        stop.run_until_cancelled(tokio::time::sleep(self.options.patience.obeyed(asked))).await.is_none()
    }

    fn path(&self) -> String {
        let mut path = format!("/v1/observations?limit={}&format={}", self.options.limit, self.options.format.word());
        if !self.options.once {
            path.push_str(&format!("&wait={}", self.options.wait.as_secs()));
        }
        if let Some(cursor) = self.output.cursor() {
            path.push_str(&format!("&after={cursor}"));
        }
        path
    }

    fn understand(&mut self, answer: Answer, newest: bool) -> Result<Understood, LinkError> {
        self.summary.received += answer.received;
        match answer.status {
            200 if newest => self.newest.take(&answer.body).map(Understood::State),
            200 => Page::read(answer.body).map(Understood::Page),
            410 => Ok(Understood::Restart(read_refusal(&answer)?)),
            // Too early, too many, and whatever is wrong on the gateway's side, may pass.
            status @ (408 | 425 | 429 | 500..) => {
                let told: Told = serde_json::from_slice(&answer.body).unwrap_or_default();
                Err(LinkError::Later { status, code: told.error, after: answer.retry_after })
            }
            status => {
                let told: Told = serde_json::from_slice(&answer.body).unwrap_or_default();
                Ok(Understood::Refused(PullError::Refused { status, code: told.error, message: told.message }))
            }
        }
    }

    fn write(&mut self, page: Page) -> Result<bool, PullError> {
        // Nothing else does: a state that always comes through must not hide a backlog that never does.
        self.failures = 0;
        let moved = self.output.cursor() != Some(page.end.next.as_str());
        if moved || page.lines > 0 {
            self.output.append(Written { lines: page.content(), cursor: &page.end.next })?;
        }
        self.summary.lines += page.lines;
        self.summary.pages += 1;
        self.bar.set_length(self.summary.lines + page.end.remaining);
        self.bar.set_position(self.summary.lines);
        Ok(self.options.once && page.end.complete)
    }

    /// The gateway's store was lost or replaced: a line of the file says so, and the new store is pulled from its
    /// beginning.
    fn restart(&mut self, told: Told) -> Result<bool, PullError> {
        let Some(cursor) = told.restart else {
            return Err(PullError::Refused { status: 410, code: told.error, message: told.message });
        };
        warn!(told.message, "The gateway's store is another one; pulled from its beginning");
        let line = serde_json::json!({"restart": {"cause": told.error, "oldestSeq": told.oldest_seq}});
        self.output.append(Written { lines: format!("{line}\n").as_bytes(), cursor: &cursor })?;
        self.summary.restarts += 1;
        self.summary.lines += 1;
        Ok(false)
    }

    /// Waits after a failure. True when stopped meanwhile.
    async fn fail(&mut self, failure: LinkError, stop: &CancellationToken) -> Result<bool, PullError> {
        self.failures += 1;
        self.summary.failures += 1;
        let patience = self.options.patience;
        if self.options.once && failure.is_about_certificates() {
            return Err(PullError::Certificates(failure));
        }
        if self.options.once && self.failures >= patience.tries {
            return Err(PullError::GaveUp { tries: self.failures, source: failure });
        }
        let pause = self.pause(&failure)?;
        // The first failure of a row is told; a link that is down for a week fills no log.
        if self.failures == 1 {
            warn!(why = chain(&failure), ?pause, "Link failed");
        } else {
            debug!(why = chain(&failure), ?pause, "Link failed");
        }
        Ok(stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none())
    }

    /// How long to wait after a failure.
    fn pause(&mut self, failure: &LinkError) -> Result<Duration, PullError> {
        self.newest.missed();
        let patience = self.options.patience;
        let pause = patience.pause(self.failures, failure);
        let LinkError::Later { code, after: Some(after), .. } = failure else { return Ok(pause) };
        if self.options.once && *after > patience.longest {
            return Err(PullError::ComeBack { after: *after, code: code.clone() });
        }
        if code == BUDGET_SPENT && self.options.newest_first.is_some() {
            // Alarms still leave the gateway: somebody must ask for them.
            self.newest.look_again();
            return Ok(pause.min(ALARMS_EVERY));
        }
        Ok(pause)
    }
}

/// The gateway's word for a month's budget that is spent, and how often its alarms are then asked for: 20 MB a month.
const BUDGET_SPENT: &str = "budget-spent";
const ALARMS_EVERY: Duration = Duration::from_secs(900);

enum Understood {
    State(Result<bool, PullError>),
    Page(Page),
    Restart(Told),
    Refused(PullError),
}

/// What the gateway says when it refuses.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Told {
    error: String,
    #[serde(rename = "detail")]
    message: String,
    restart: Option<String>,
    oldest_seq: Option<u64>,
}

fn read_refusal(answer: &Answer) -> Result<Told, LinkError> {
    serde_json::from_slice(&answer.body).map_err(|wrong| LinkError::Page(format!("{wrong} in a refusal")))
}

fn bar(wanted: bool) -> ProgressBar {
    if !wanted || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr_with_hz(5));
    let style = ProgressStyle::with_template("{bar:30} {human_pos}/{human_len} lines, {elapsed} gone, {eta} left");
    if let Ok(style) = style {
        bar.set_style(style);
    }
    bar
}
