//! What RESULTAT.txt says, in French: one thing after another, the most urgent first, in words a technician can act on.

use std::{collections::BTreeMap, fmt, net::IpAddr, path::PathBuf};

use jiff::Zoned;

use super::links::Link;
use crate::config::outcome::{Outcome, Used};

/// How the line begins that changes at each writing.
pub(super) const WRITTEN: &str = "Écrit le";

/// What was seen of the box.
#[derive(Debug, Clone)]
pub(super) struct Letter {
    /// Now, if anybody vouches for the clock.
    pub(super) date: Option<Zoned>,
    pub(super) commune: String,
    pub(super) building: String,
    /// What became of the file on the card; `None` where there was no provisioning.
    pub(super) outcome: Option<Outcome>,
    pub(super) gateway: Gateway,
    /// When and why it started, in one line.
    pub(super) last_start: Option<String>,
    pub(super) links: Vec<Link>,
    /// Serial adapters: the name to write, the device behind it.
    pub(super) adapters: BTreeMap<PathBuf, PathBuf>,
    /// Of the panel.
    pub(super) port: u16,
}

/// What the gateway's door says.
#[derive(Debug, Clone)]
pub(super) enum Gateway {
    /// It answers.
    Answers {
        /// Of the certificate it shows.
        fingerprint: String,
        /// The code that claims the box, while nobody has.
        code: Option<String>,
    },
    /// Nobody answers.
    Silent {
        /// What the system says of it.
        why: String,
    },
}

impl fmt::Display for Letter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "CLOCHER, {} - {}\n", self.commune, self.building)?;
        match &self.date {
            Some(date) => writeln!(f, "{WRITTEN} {}", date.strftime("%d/%m/%Y à %H:%M"))?,
            None => writeln!(f, "{WRITTEN} : l'heure n'est pas encore connue du boîtier")?,
        }
        writeln!(f, "Version {}", env!("CARGO_PKG_VERSION"))?;
        if let Some(line) = self.last_start.as_ref().filter(|line| !line.is_empty()) {
            writeln!(f, "{line}")?;
        }
        self.settings(f)?;
        self.panel(f)?;
        self.network(f)?;
        self.serial(f)?;
        self.to_do(f)
    }
}

impl Letter {
    fn settings(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        title(f, "RÉGLAGES")?;
        let Some(outcome) = &self.outcome else {
            return writeln!(f, "Les réglages n'ont pas pu être préparés : ceux de l'usine ou d'avant servent.");
        };
        let found = outcome.found.as_deref().unwrap_or("clocher.toml");
        let errors = match outcome.faults.len() {
            0 => None,
            1 => Some(format!("{found} a une erreur.")),
            many => Some(format!("{found} a {many} erreurs.")),
        };
        let away = outcome.found.is_none().then(|| "Il n'y a pas de fichier clocher.toml sur la carte.".to_owned());
        let state = match outcome.used {
            Used::Card => format!("{found} est en ordre : ses réglages servent."),
            Used::SoundParts => "Ce qui est juste sert ; ce qui est faux est laissé de côté.".to_owned(),
            Used::LastGood => "Les derniers réglages valables servent à la place.".to_owned(),
            Used::Default => "Les réglages d'usine servent à la place.".to_owned(),
        };
        for line in away.or(errors).into_iter().chain([state]).chain(outcome.notes.iter().cloned()) {
            writeln!(f, "{line}")?;
        }
        for fault in &outcome.faults {
            writeln!(f, "\nLigne {} : {}", fault.line, fault.french)?;
            for line in fault.shown.lines() {
                writeln!(f, "    {line}")?;
            }
        }
        Ok(())
    }

    fn panel(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        title(f, "PANNEAU")?;
        let (fingerprint, code) = match &self.gateway {
            Gateway::Answers { fingerprint, code } => (fingerprint, code),
            Gateway::Silent { why } => {
                return writeln!(f, "Le programme du boîtier ne répond pas. Voir À FAIRE. (Précision : {why}.)");
            }
        };
        writeln!(f, "Dans un navigateur, sur le même réseau :")?;
        writeln!(f, "    https://clocher.local{}", self.port())?;
        for ip in self.links.iter().flat_map(|link| &link.addresses) {
            writeln!(f, "    https://{}{}", in_url(ip), self.port())?;
        }
        match code {
            Some(code) => writeln!(f, "\nCode pour réclamer le boîtier, à la première visite : {code}")?,
            None => writeln!(f, "\nLe boîtier a déjà été réclamé : il n'y a plus de code.")?,
        }
        writeln!(
            f,
            "\nLe navigateur dit ne pas connaître le certificat : c'est normal, le boîtier l'a fait lui-même."
        )?;
        writeln!(f, "Son empreinte SHA-256 doit être :")?;
        // Two lines, to be compared without losing one's place.
        let half = fingerprint.len().min(48);
        let (first, second) = fingerprint.split_at_checked(half).unwrap_or((fingerprint, ""));
        writeln!(f, "    {first}\n    {second}")
    }

    fn network(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        title(f, "RÉSEAU")?;
        if self.links.is_empty() {
            return writeln!(f, "Aucune prise réseau n'a été trouvée.");
        }
        for link in &self.links {
            let device = link.device.as_ref().map(|device| format!(" ({device})")).unwrap_or_default();
            let addresses: Vec<String> = link.addresses.iter().map(ToString::to_string).collect();
            let addresses = if addresses.is_empty() { "pas d'adresse".to_owned() } else { addresses.join(", ") };
            writeln!(f, "{}{device} : {}, {addresses}", link.name, link.state)?;
        }
        Ok(())
    }

    fn serial(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        title(f, "ADAPTATEURS USB SÉRIE (à recopier dans port = \"...\")")?;
        if self.adapters.is_empty() {
            return writeln!(f, "Aucun n'est branché.");
        }
        for (name, device) in &self.adapters {
            writeln!(f, "    {}   ({})", name.display(), device.display())?;
        }
        Ok(())
    }

    fn to_do(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        title(f, "À FAIRE")?;
        let faults = self.outcome.as_ref().is_some_and(|outcome| !outcome.faults.is_empty());
        let away = self.outcome.as_ref().is_some_and(|outcome| outcome.found.is_none());
        let unreached = self.links.iter().all(|link| link.addresses.is_empty());
        let unclaimed = matches!(&self.gateway, Gateway::Answers { code: Some(_), .. });
        let mut steps = Vec::new();
        if faults {
            steps.push("Sur un PC, corrigez dans clocher.toml les lignes données plus haut, puis rallumez le boîtier.");
        }
        if away {
            steps.push("Remettez un fichier clocher.toml sur cette carte, puis rallumez le boîtier.");
        }
        if matches!(self.gateway, Gateway::Silent { .. }) {
            steps.push("Coupez le courant, attendez dix secondes, rallumez, et relisez ce fichier après deux minutes.");
            steps.push("Si le programme ne répond toujours pas, envoyez ce fichier à qui suit le boîtier ; avec un accès SSH, la commande « journalctl -u clocher » dit pourquoi.");
        }
        if unreached {
            steps.push("Aucune adresse : vérifiez le câble, ou le nom et le mot de passe du Wi-Fi dans clocher.toml.");
        }
        if unclaimed && !unreached {
            steps.push("Ouvrez le panneau à l'une des adresses ci-dessus et réclamez le boîtier avec son code.");
        }
        if steps.is_empty() {
            steps.push("Rien : tout est en ordre.");
        }
        steps.iter().try_for_each(|step| writeln!(f, "- {step}"))
    }

    fn port(&self) -> String {
        if self.port == 443 { String::new() } else { format!(":{}", self.port) }
    }
}

fn title(f: &mut fmt::Formatter<'_>, title: &str) -> fmt::Result {
    writeln!(f, "\n{title}\n{}", "-".repeat(title.chars().count()))
}

fn in_url(ip: &IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::outcome::Told;

    fn letter() -> Letter {
        let link = Link {
            name: "Câble".to_owned(),
            device: Some("eth0".to_owned()),
            state: "relié",
            addresses: vec!["192.168.1.20".parse().expect("ip"), "2001:db8::5".parse().expect("ip")],
        };
        Letter {
            date: Some("2026-11-22T07:05[Europe/Paris]".parse().expect("a date")),
            commune: "Montclar".to_owned(),
            building: "Salle des fêtes".to_owned(),
            outcome: Some(Outcome {
                used: Used::Card,
                found: Some("clocher.toml".to_owned()),
                faults: vec![],
                notes: vec![],
            }),
            gateway: Gateway::Answers { fingerprint: ["AB"; 32].join(":"), code: Some("ABCD-EFGH".to_owned()) },
            last_start: Some("Dernier démarrage : coupure de courant.".to_owned()),
            links: vec![link],
            adapters: BTreeMap::from([("/dev/serial/by-id/usb-TIC".into(), "/dev/ttyUSB0".into())]),
            port: 443,
        }
    }

    #[test]
    fn a_box_in_order_says_where_it_is_and_how_to_claim_it() {
        let text = letter().to_string();
        for told in [
            "Montclar - Salle des fêtes",
            "Écrit le 22/11/2026 à 07:05",
            "\nDernier démarrage : coupure de courant.\n",
            "est en ordre",
            "https://clocher.local\n",
            "https://192.168.1.20\n",
            "https://[2001:db8::5]\n",
            "première visite : ABCD-EFGH",
            "/dev/serial/by-id/usb-TIC",
            "réclamez le boîtier avec son code",
        ] {
            assert!(text.contains(told), "{told} in {text}");
        }
        assert_eq!(text.matches("AB").count(), 33, "{text}");
    }

    #[test]
    fn every_fault_is_told_with_its_line_and_its_caret() {
        let fault = Told {
            line: 7,
            english: "panel: `listen` is 3".to_owned(),
            french: "panel : `listen` vaut 3".to_owned(),
            shown: "listen = 3\n         ^".to_owned(),
        };
        let outcome = Outcome {
            used: Used::LastGood,
            found: Some("clocher.toml.txt".to_owned()),
            faults: vec![fault],
            notes: vec!["Une remarque.".to_owned()],
        };
        let text = Letter { outcome: Some(outcome), ..letter() }.to_string();
        for told in [
            "clocher.toml.txt a une erreur.\nLes derniers réglages valables servent à la place.\nUne remarque.\n",
            "Ligne 7 : panel : `listen` vaut 3\n    listen = 3\n             ^\n",
            "corrigez dans clocher.toml",
        ] {
            assert!(text.contains(told), "{told} in {text}");
        }
    }

    #[test]
    fn a_box_that_does_not_run_or_has_no_address_says_what_to_do() {
        let silent = Gateway::Silent { why: "Connection refused".to_owned() };
        let text = Letter { gateway: silent, links: vec![], date: None, ..letter() }.to_string();
        for told in ["ne répond pas", "journalctl -u clocher", "vérifiez le câble", "l'heure n'est pas encore connue"]
        {
            assert!(text.contains(told), "{told} in {text}");
        }
        let claimed = Gateway::Answers { fingerprint: String::new(), code: None };
        let text = Letter { gateway: claimed, ..letter() }.to_string();
        assert!(text.contains("déjà été réclamé") && text.contains("Rien : tout est en ordre."), "{text}");
    }
}
