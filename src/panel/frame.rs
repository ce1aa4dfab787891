//! What every page has around it: the commune's name, where one can go, who is signed in.

use super::{
    accounts::Act,
    icons,
    language::{Words, of_commune},
    visit::Visit,
};

/// A place one can go to.
pub(crate) struct Place {
    /// Its address.
    pub(crate) href: &'static str,
    /// Its drawing.
    pub(crate) icon: &'static str,
    /// Its word.
    pub(crate) word: String,
    /// Whether one is there.
    pub(crate) is_here: bool,
    /// How many things wait there.
    pub(crate) waiting: usize,
}

/// What is around a page.
pub(crate) struct Frame {
    /// The visitor's words.
    pub(crate) w: Words,
    /// What the page is for.
    pub(crate) title: String,
    /// `Mairie de X`.
    pub(crate) site_name: String,
    /// The name of the box.
    pub(crate) gateway: String,
    /// Where one can go.
    pub(crate) places: Vec<Place>,
    /// Who is signed in.
    pub(crate) person: Option<String>,
    /// The hidden field of each form.
    pub(crate) token: String,
    /// Addresses of the files.
    pub(crate) style: String,
    /// The script of live values.
    pub(crate) script: String,
    /// The icon of the tab.
    pub(crate) favicon: String,
    /// A sentence about what was just done.
    pub(crate) done: Option<String>,
}

impl Frame {
    /// The frame of a page; `here` is the address of the place it belongs to.
    pub(crate) fn new(visit: &Visit, title: &str, here: &str) -> Self {
        let (ground, assets) = (&visit.site.ground, &visit.site.assets);
        let commune = of_commune(&ground.commune, visit.words.language);
        Self {
            w: visit.words.clone(),
            title: title.to_owned(),
            site_name: visit.words.say_with("site-name", &[("commune", commune.into())]),
            gateway: ground.gateway.clone(),
            places: places(visit, here),
            person: visit.person.as_ref().map(|person| person.name.clone()),
            token: visit.token.form_token(),
            style: assets.address("panel.css"),
            script: assets.address("live.js"),
            favicon: assets.address("clocher.svg"),
            done: None,
        }
    }

    /// With a sentence about what was just done.
    pub(crate) fn having_done(mut self, done: Option<String>) -> Self {
        self.done = done;
        self
    }

    /// A drawing.
    pub(crate) fn icon(&self, name: &str) -> String {
        icons::icon(name)
    }

    /// How ages are said, for the script that lets them grow.
    pub(crate) fn age_words(&self, key: &str) -> String {
        self.w.say_with(key, &[("n", "{n}".into())])
    }
}

fn places(visit: &Visit, here: &str) -> Vec<Place> {
    if visit.person.as_ref().is_none_or(|person| person.must_choose) {
        return Vec::new();
    }
    let ground = &visit.site.ground;
    let waiting = super::pages::conditions::waiting(ground);
    let place = |href: &'static str, icon, key: &str, waiting| Place {
        href,
        icon,
        word: visit.words.say(key),
        is_here: href == here,
        waiting,
    };
    let mut places = vec![place("/", "home", "place-home", 0)];
    if ground.announcer.is_some() {
        places.push(place("/announcements", "speak", "place-announcements", 0));
    }
    places.push(place("/conditions", "look", "place-conditions", waiting));
    if ground.demonstration.is_some() {
        places.push(place("/demonstration", "link", "place-demonstration", 0));
    }
    places.push(place("/data", "share", "place-data", 0));
    if visit.may(Act::ManageAccounts) {
        places.push(place("/accounts", "people", "place-accounts", 0));
    }
    places
}
