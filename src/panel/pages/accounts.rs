//! Who may enter: adding, changing, resetting and removing accounts.

use std::sync::Arc;

use askama::Template;
use warp::http::StatusCode;

use crate::{
    panel::{
        accounts::{self, Account, Act, Role},
        answer::{Answer, Problem},
        format,
        frame::Frame,
        language::Words,
        sessions,
        visit::Visit,
    },
    store::{Keep, StoreError},
};

#[derive(Template)]
#[template(path = "accounts.html", config = ".askama.toml")]
struct AccountsPage {
    frame: Frame,
    rows: Vec<Row>,
    /// Roles one may give to somebody new.
    roles: Vec<RoleChoice>,
    name: String,
    wrong: Option<String>,
    /// A one-time code, shown this once: for whom, and the code.
    code: Option<(String, String)>,
    /// Somebody about to be removed.
    leaving: Option<String>,
}

struct Row {
    name: String,
    role: String,
    added: String,
    is_self: bool,
    may_change: bool,
    must_choose: bool,
    roles: Vec<RoleChoice>,
}

struct RoleChoice {
    word: &'static str,
    label: String,
    about: String,
    is_chosen: bool,
}

/// A role as people call it.
pub(crate) fn role_word(role: Role, words: &Words) -> String {
    match role {
        Role::Mayor => words.say("role-mayor"),
        Role::Secretary => words.say("role-secretary"),
        Role::Technician => words.say("role-technician"),
        Role::Viewer => words.say("role-viewer"),
    }
}

fn role_about(role: Role, words: &Words) -> String {
    match role {
        Role::Mayor => words.say("role-mayor-about"),
        Role::Secretary => words.say("role-secretary-about"),
        Role::Technician => words.say("role-technician-about"),
        Role::Viewer => words.say("role-viewer-about"),
    }
}

/// What the page tells besides the accounts.
#[derive(Default)]
struct Told {
    wrong: Option<String>,
    code: Option<(String, String)>,
    leaving: Option<String>,
}

/// `/accounts`.
pub(crate) async fn show(visit: Arc<Visit>) -> Result<Answer, Problem> {
    visit.must(Act::ManageAccounts)?;
    if !visit.is_post() {
        return page(&visit, StatusCode::OK, Told::default()).await;
    }
    match visit.form.get("do") {
        "add" => add(&visit).await,
        "role" => change_role(&visit).await,
        "reset" => reset(&visit).await,
        "remove" => remove(&visit).await,
        _ => Err(Problem::Unreadable),
    }
}

async fn page(visit: &Visit, status: StatusCode, told: Told) -> Result<Answer, Problem> {
    let all = visit.site.keep(accounts::all).await?;
    let own = visit.person.as_ref().map_or(Role::Viewer, |person| person.role);
    let rows = all.iter().map(|account| row(visit, own, account)).collect();
    let frame = Frame::new(visit, &visit.words.say("accounts-title"), "/accounts");
    let name = if told.wrong.is_some() { visit.form.get("name").to_owned() } else { String::new() };
    let roles = choices(own, Role::Secretary, &visit.words);
    let Told { wrong, code, leaving } = told;
    Answer::page_with(status, &AccountsPage { frame, rows, roles, name, wrong, code, leaving })
}

fn row(visit: &Visit, own: Role, account: &Account) -> Row {
    let ground = &visit.site.ground;
    Row {
        name: account.name.clone(),
        role: role_word(account.role, &visit.words),
        added: format::moment(account.added, &ground.clock, &ground.time_zone, &visit.words),
        is_self: account.name == visit.name(),
        may_change: own.may_manage(account.role),
        must_choose: account.must_choose,
        roles: choices(own, account.role, &visit.words),
    }
}

fn choices(own: Role, chosen: Role, words: &Words) -> Vec<RoleChoice> {
    let may_give = Role::ALL.into_iter().filter(|role| own.may_manage(*role));
    may_give
        .map(|role| RoleChoice {
            word: role.as_str(),
            label: role_word(role, words),
            about: role_about(role, words),
            is_chosen: role == chosen,
        })
        .collect()
}

fn refused(visit: &Visit, key: &str) -> Told {
    Told { wrong: Some(visit.words.say(key)), ..Told::default() }
}

/// The role the form gives, if the visitor may give it.
fn given_role(visit: &Visit) -> Result<Role, Problem> {
    let role = Role::from_word(visit.form.get("role")).ok_or(Problem::Unreadable)?;
    let own = visit.person.as_ref().ok_or(Problem::Forbidden)?.role;
    if own.may_manage(role) { Ok(role) } else { Err(Problem::Forbidden) }
}

async fn add(visit: &Visit) -> Result<Answer, Problem> {
    let role = given_role(visit)?;
    let Some(name) = accounts::sound_name(visit.form.get("name")) else {
        return page(visit, StatusCode::UNPROCESSABLE_ENTITY, refused(visit, "name-wrong")).await;
    };
    let code = accounts::fresh_code();
    let account = Account {
        name: name.clone(),
        role,
        hash: visit.site.hasher.hash(accounts::plain_code(&code)).await?,
        must_choose: true,
        language: None,
        added: visit.site.ground.clock.now(),
    };
    let added = visit.site.books(move |keep| add_to(keep, &account)).await?;
    if let Err(key) = added {
        return page(visit, StatusCode::UNPROCESSABLE_ENTITY, refused(visit, key)).await;
    }
    tracing::info!(account = name, role = role.as_str(), by = visit.name(), "Account added");
    page(visit, StatusCode::OK, Told { code: Some((name, code)), ..Told::default() }).await
}

/// Why it was not done, as a message; the outer error is the store's.
type Done = Result<Result<(), &'static str>, StoreError>;

fn add_to(keep: &dyn Keep, account: &Account) -> Done {
    if accounts::find(keep, &account.name)?.is_some() {
        return Ok(Err("account-exists"));
    }
    if !accounts::has_room(&accounts::all(keep)?) {
        return Ok(Err("accounts-full"));
    }
    accounts::save(keep, account)?;
    Ok(Ok(()))
}

/// The account a form is about, if the visitor may touch it.
async fn subject(visit: &Visit) -> Result<Account, Problem> {
    let name = visit.form.get("name").to_owned();
    let account = visit.site.keep(move |keep| accounts::find(keep, &name)).await?.ok_or(Problem::NotFound)?;
    let own = visit.person.as_ref().ok_or(Problem::Forbidden)?.role;
    if own.may_manage(account.role) { Ok(account) } else { Err(Problem::Forbidden) }
}

/// Whether a mayor would remain without this one.
fn leaves_a_mayor(keep: &dyn Keep, without: &Account) -> Result<bool, StoreError> {
    let key = accounts::key_of(&without.name);
    let other_mayor = |a: &Account| a.role == Role::Mayor && accounts::key_of(&a.name) != key;
    Ok(without.role != Role::Mayor || accounts::all(keep)?.iter().any(other_mayor))
}

async fn change_role(visit: &Visit) -> Result<Answer, Problem> {
    let role = given_role(visit)?;
    let name = subject(visit).await?.name;
    let changed = visit
        .site
        .books(move |keep| {
            let Some(mut account) = accounts::find(keep, &name)? else { return Ok(Err("account-gone")) };
            if role != Role::Mayor && !leaves_a_mayor(keep, &account)? {
                return Ok(Err("last-mayor"));
            }
            account.role = role;
            accounts::save(keep, &account)?;
            Ok(Ok(()))
        })
        .await?;
    if let Err(key) = changed {
        return page(visit, StatusCode::CONFLICT, refused(visit, key)).await;
    }
    tracing::info!(account = visit.form.get("name"), role = role.as_str(), by = visit.name(), "Role changed");
    Ok(Answer::redirect("/accounts"))
}

async fn reset(visit: &Visit) -> Result<Answer, Problem> {
    let name = subject(visit).await?.name;
    let code = accounts::fresh_code();
    let hash = visit.site.hasher.hash(accounts::plain_code(&code)).await?;
    let changed = visit
        .site
        .change(&name, move |account| {
            account.hash = hash;
            account.must_choose = true;
        })
        .await?;
    changed.ok_or(Problem::NotFound)?;
    let whose = name.clone();
    visit.site.keep(move |keep| sessions::end_all(keep, &whose, None)).await?;
    tracing::info!(account = name, by = visit.name(), "Password reset");
    if name == visit.name() {
        return Ok(Answer::redirect("/sign-in"));
    }
    page(visit, StatusCode::OK, Told { code: Some((name, code)), ..Told::default() }).await
}

/// Asks first, and removes at the second form.
async fn remove(visit: &Visit) -> Result<Answer, Problem> {
    let account = subject(visit).await?;
    if visit.form.get("confirmed") != "yes" {
        return page(visit, StatusCode::OK, Told { leaving: Some(account.name), ..Told::default() }).await;
    }
    let name = account.name.clone();
    let removed = visit
        .site
        .books(move |keep| {
            if !leaves_a_mayor(keep, &account)? {
                return Ok(Err("last-mayor"));
            }
            accounts::remove(keep, &account.name)?;
            sessions::end_all(keep, &account.name, None)?;
            Ok(Ok(()))
        })
        .await?;
    if let Err(key) = removed {
        return page(visit, StatusCode::CONFLICT, refused(visit, key)).await;
    }
    tracing::info!(account = name, by = visit.name(), "Account removed");
    Ok(Answer::redirect("/accounts"))
}
