//! Why the gateway started, judged from how the run before ended and what the kernel tells of its own start.

use serde::{Deserialize, Serialize};

use super::{Kernel, ended::Ended, said};
use crate::clock::Stamp;

/// Starts that are remembered.
pub(super) const KEPT: usize = 20;

/// Why a start was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// Nothing is known before it.
    First,
    /// The program was stopped and started by somebody, or brought up to date.
    Restarted,
    /// The machine was switched off or restarted in order.
    Rebooted,
    /// Everything ended at once. On a Raspberry Pi its watchdog and a fallen kernel look the same: the driver of its
    /// watchdog never sets `bootstatus`, and nothing of memory survives. Source: Linux, `drivers/watchdog/bcm2835_wdt.c`.
    PowerCut,
    /// The machine's own watchdog restarted it, on a machine whose driver tells.
    HardwareWatchdog,
    /// The program no longer answered and systemd restarted it.
    Watchdog,
    /// The program fell and was started again.
    Crash,
}

impl Reason {
    /// Every reason there is.
    pub const ALL: &[Self] = &[
        Self::First,
        Self::Restarted,
        Self::Rebooted,
        Self::PowerCut,
        Self::HardwareWatchdog,
        Self::Watchdog,
        Self::Crash,
    ];

    /// The word of the API, the metrics and the language files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Restarted => "restarted",
            Self::Rebooted => "rebooted",
            Self::PowerCut => "power-cut",
            Self::HardwareWatchdog => "hardware-watchdog",
            Self::Watchdog => "watchdog",
            Self::Crash => "crash",
        }
    }
}

/// A start of the gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begun {
    /// Which, counted from 1: the clock dates it.
    pub boot: u32,
    /// The kernel's name of that run of the machine.
    pub run: String,
    /// Why.
    pub reason: Reason,
    /// The particulars, for the technician.
    pub detail: String,
    /// How long the gateway had run before, at least: up to its last stored reading.
    pub ran_ms: Option<u64>,
}

impl Begun {
    /// When it was.
    pub fn stamp(&self) -> Stamp {
        Stamp { boot: self.boot, mono_ms: 0 }
    }
}

/// What the kernel tells of why the machine started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reset {
    /// The watchdog.
    Watchdog,
    /// Something else, or the driver does not tell.
    Untold,
}

/// `WDIOF_CARDRESET`; source: Linux, `include/uapi/linux/watchdog.h` and
/// `Documentation/ABI/testing/sysfs-class-watchdog`.
const CARD_RESET: u32 = 0x20;

/// Asks the first watchdog.
pub(super) fn reset(kernel: &Kernel) -> Reset {
    let status = said(&kernel.sys.join("class/watchdog/watchdog0/bootstatus")).and_then(|text| text.parse().ok());
    if status.unwrap_or(0) & CARD_RESET == 0 { Reset::Untold } else { Reset::Watchdog }
}

/// How long the run before lasted, at least.
pub(super) fn ran(before: Option<&Begun>, newest: Option<Stamp>) -> Option<u64> {
    newest.filter(|newest| before.is_some_and(|before| before.boot == newest.boot)).map(|newest| newest.mono_ms)
}

/// Judges start `boot`, in the run `run` of the machine.
pub(super) fn begun(before: Option<&Begun>, end: Option<&Ended>, run: &str, reset: Reset, boot: u32) -> Begun {
    let (reason, detail) = judged(before, end, run, reset);
    Begun { boot, run: run.to_owned(), reason, detail, ran_ms: None }
}

fn judged(before: Option<&Begun>, end: Option<&Ended>, run: &str, reset: Reset) -> (Reason, String) {
    let Some(before) = before else { return (Reason::First, String::new()) };
    let same = before.run == run;
    // An end of another run is older than the start before.
    let Some(end) = end.filter(|end| end.run == before.run) else {
        return match (same, reset) {
            (true, _) => (Reason::Crash, "it ended without a word".to_owned()),
            (false, Reset::Watchdog) => (Reason::HardwareWatchdog, "bootstatus of watchdog0".to_owned()),
            (false, Reset::Untold) => (Reason::PowerCut, "the machine ended without a word".to_owned()),
        };
    };
    let told = [end.result.as_str(), &end.code, &end.status].join(" ").trim_end().to_owned();
    match end.result.as_str() {
        "success" if same => (Reason::Restarted, String::new()),
        "success" => (Reason::Rebooted, String::new()),
        "watchdog" => (Reason::Watchdog, told),
        _ => (Reason::Crash, told),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn before() -> Begun {
        Begun { boot: 1, run: "a".into(), reason: Reason::First, detail: String::new(), ran_ms: None }
    }

    fn end(result: &str) -> Ended {
        Ended { run: "a".into(), result: result.into(), code: "killed".into(), status: "ABRT".into() }
    }

    fn reason(end: Option<&Ended>, run: &str, reset: Reset) -> Reason {
        begun(Some(&before()), end, run, reset, 2).reason
    }

    #[test]
    fn each_way_to_end_is_told_from_the_others() {
        use Reset::{Untold, Watchdog};
        assert_eq!(begun(None, None, "a", Untold, 1).reason, Reason::First);
        assert_eq!(reason(Some(&end("success")), "a", Untold), Reason::Restarted);
        assert_eq!(reason(Some(&end("success")), "b", Untold), Reason::Rebooted);
        assert_eq!(reason(None, "b", Untold), Reason::PowerCut);
        assert_eq!(reason(None, "b", Watchdog), Reason::HardwareWatchdog);
        assert_eq!(reason(Some(&end("success")), "b", Watchdog), Reason::Rebooted, "bootstatus of an orderly restart");
        assert_eq!(reason(Some(&end("watchdog")), "a", Untold), Reason::Watchdog);
        assert_eq!(reason(None, "a", Untold), Reason::Crash, "killed, and nobody said how");
        let fell = begun(Some(&before()), Some(&end("signal")), "a", Untold, 2);
        assert_eq!((fell.reason, fell.detail.as_str()), (Reason::Crash, "signal killed ABRT"));
    }

    #[test]
    fn an_end_that_came_back_from_an_older_run_counts_for_nothing() {
        let old = Ended { run: "older".into(), ..end("success") };
        assert_eq!(reason(Some(&old), "b", Reset::Untold), Reason::PowerCut);
    }

    #[test]
    fn how_long_it_ran_is_told_by_its_last_reading_alone() {
        let newest = |boot| Some(Stamp { boot, mono_ms: 90_000 });
        assert_eq!(ran(Some(&before()), newest(1)), Some(90_000));
        assert_eq!(ran(Some(&before()), newest(7)), None);
        assert_eq!(ran(None, newest(1)), None);
    }

    #[test]
    fn a_watchdog_that_tells_of_a_reset_is_heard() {
        let place = tempfile::tempdir().expect("a folder");
        let kernel = Kernel { sys: place.path().into(), proc: place.path().into() };
        assert_eq!(reset(&kernel), Reset::Untold, "no watchdog");
        let folder = place.path().join("class/watchdog/watchdog0");
        std::fs::create_dir_all(&folder).expect("made");
        for (text, told) in [("0\n", Reset::Untold), ("32\n", Reset::Watchdog), ("33\n", Reset::Watchdog)] {
            std::fs::write(folder.join("bootstatus"), text).expect("written");
            assert_eq!(reset(&kernel), told, "{text:?}");
        }
    }

    #[test]
    fn words_and_records_agree() {
        for reason in Reason::ALL {
            assert_eq!(serde_json::to_value(reason).expect("a word"), reason.as_str());
        }
    }
}
