//! Every session: who holds it now, which outlive their connection, and which outlive a restart.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use serde::{Deserialize, Serialize};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{info, warn};

use super::{
    accounts::{Account, Accounts},
    exchange::{Exchange, Silent, Subscriber},
    keeper::{Keeper, Kept, Table},
    packet::Qos,
    session::{Key, Limits, MOST_FILTERS, Session},
};
use crate::{
    config::broker::Filter,
    store::{Keep, StoreError},
};

/// A connection that holds a session.
#[derive(Debug, Clone)]
struct Holder {
    number: u64,
    /// Asks it to go.
    leave: CancellationToken,
    /// It is gone, its will published.
    gone: CancellationToken,
}

struct Entry {
    session: Arc<Session>,
    holder: Option<Holder>,
    /// When it was last let go, in the order of such events.
    since: u64,
}

/// A session in the hands of a connection.
pub(super) struct Hold {
    pub(super) session: Arc<Session>,
    /// Whether it was there before.
    pub(super) present: bool,
    /// Another connection wants it.
    pub(super) leave: CancellationToken,
    number: u64,
    /// Fires when this is dropped, even by a panic.
    _gone: DropGuard,
}

/// What a session is after a restart.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    account: String,
    client: String,
    filters: Vec<(String, u8)>,
}

/// Every session.
pub(super) struct Sessions {
    entries: Mutex<HashMap<Key, Entry>>,
    exchange: Arc<Exchange>,
    keeper: Keeper,
    limits: Limits,
    most_absent: usize,
    events: AtomicU64,
    dropped: Arc<AtomicU64>,
}

impl Sessions {
    pub(super) fn new(
        exchange: Arc<Exchange>,
        keeper: Keeper,
        limits: Limits,
        most_absent: usize,
        dropped: Arc<AtomicU64>,
    ) -> Self {
        let (entries, events) = Default::default();
        Self { entries, exchange, keeper, limits, most_absent, events, dropped }
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<Key, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_event(&self) -> u64 {
        self.events.fetch_add(1, Ordering::Relaxed)
    }

    /// Takes up the sessions left before a restart, with the filters their accounts still allow.
    pub(super) async fn restore(&self, keep: &dyn Keep, accounts: &Accounts) -> Result<(), RestoreError> {
        for (key, bytes) in keep.list(Table::Sessions.name())? {
            let record = serde_json::from_slice::<Record>(&bytes).ok();
            let known = record.and_then(|record| Some((accounts.by_name(&record.account)?, record)));
            match known {
                Some((account, record)) if self.entries().len() < self.most_absent => {
                    self.restore_one(account, record).await?;
                }
                _ => drop(self.keeper.remove(Table::Sessions, &key).await),
            }
        }
        Ok(())
    }

    async fn restore_one(&self, account: Arc<Account>, record: Record) -> Result<(), Silent> {
        let key = Key { account: Arc::clone(&account.name), client: record.client.into() };
        // It came while the card could not be read: what it has now holds.
        if self.entries().contains_key(&key) {
            return Ok(());
        }
        let session = self.create(key.clone(), Arc::clone(&account), false);
        for (text, qos) in record.filters.into_iter().take(MOST_FILTERS) {
            let (Ok(filter), Some(qos)) = (text.parse::<Filter>(), Qos::from_u8(qos)) else { continue };
            if account.may_subscribe(&filter) {
                self.subscribe(&session, &filter, qos).await?;
            }
        }
        self.entries().insert(key, Entry { session, holder: None, since: self.next_event() });
        Ok(())
    }

    fn create(&self, key: Key, account: Arc<Account>, clean: bool) -> Arc<Session> {
        Arc::new(Session::new(key, account, clean, self.limits, Arc::clone(&self.dropped)))
    }

    /// Gives a client its session. Whoever holds it is asked to go first, and is waited for.
    pub(super) async fn take(&self, key: Key, account: &Arc<Account>, clean: bool) -> Hold {
        loop {
            let holder = match self.try_take(&key, account, clean) {
                Ok((hold, old)) => {
                    if let Some(old) = old {
                        self.end(&old).await;
                    }
                    return hold;
                }
                Err(holder) => holder,
            };
            holder.leave.cancel();
            holder.gone.cancelled().await;
        }
    }

    /// The session, and an old one that is not to go on; or who holds it.
    fn try_take(&self, key: &Key, account: &Arc<Account>, clean: bool) -> Result<(Hold, Option<Arc<Session>>), Holder> {
        let mut entries = self.entries();
        let mut old = None;
        if let Some(entry) = entries.get(key) {
            if let Some(holder) = entry.holder.as_ref().filter(|holder| !holder.gone.is_cancelled()) {
                return Err(holder.clone());
            }
            if clean || entry.session.has_overflowed() {
                old = entries.remove(key).map(|entry| entry.session);
            }
        }
        let present = entries.contains_key(key);
        let entry = entries.entry(key.clone()).or_insert_with(|| Entry {
            session: self.create(key.clone(), Arc::clone(account), clean),
            holder: None,
            since: 0,
        });
        let holder =
            Holder { number: self.next_event(), leave: CancellationToken::new(), gone: CancellationToken::new() };
        let Holder { number, leave, gone } = holder.clone();
        entry.holder = Some(holder);
        Ok((Hold { session: Arc::clone(&entry.session), present, leave, number, _gone: gone.drop_guard() }, old))
    }

    /// The connection is over, its will published.
    pub(super) async fn release(&self, hold: Hold) {
        hold.session.detach();
        let ends = hold.session.clean || hold.session.has_overflowed();
        {
            let mut entries = self.entries();
            if ends {
                entries.remove(&hold.session.key);
            } else if let Some(entry) = entries.get_mut(&hold.session.key)
                && entry.holder.as_ref().is_some_and(|holder| holder.number == hold.number)
            {
                entry.holder = None;
                entry.since = self.next_event();
            }
        }
        if ends {
            self.end(&hold.session).await;
        }
        drop(hold);
        self.make_room().await;
    }

    /// Ends a session that is no longer among the entries.
    async fn end(&self, session: &Arc<Session>) {
        self.exchange.leave(session.line()).await;
        if !session.clean {
            drop(self.keeper.remove(Table::Sessions, &record_key(&session.key)).await);
        }
    }

    /// Too many absent: the longest away of the account with the most goes.
    async fn make_room(&self) {
        let Some(surplus) = self.take_surplus() else { return };
        info!(account = %surplus.key.account, client = %surplus.key.client, "Session of a long absent client ended");
        self.end(&surplus).await;
    }

    fn take_surplus(&self) -> Option<Arc<Session>> {
        let mut entries = self.entries();
        let absent = || entries.iter().filter(|(_, entry)| entry.holder.is_none());
        if absent().count() <= self.most_absent {
            return None;
        }
        let mut by_account = HashMap::<&str, usize>::new();
        absent().for_each(|(key, _)| *by_account.entry(&key.account).or_default() += 1);
        let worst = by_account.into_iter().max_by_key(|(_, count)| *count)?.0;
        let oldest = absent().filter(|(key, _)| &*key.account == worst).min_by_key(|(_, entry)| entry.since)?.0.clone();
        entries.remove(&oldest).map(|entry| entry.session)
    }

    /// Adds or changes a subscription. False when the session has too many.
    pub(super) async fn subscribe(&self, session: &Arc<Session>, filter: &Filter, qos: Qos) -> Result<bool, Silent> {
        let Some((number, new)) = session.add_subscription(filter, qos) else { return Ok(false) };
        if new {
            let subscriber: Arc<dyn Subscriber> = Arc::<Session>::clone(session);
            self.exchange.subscribe(&subscriber, number, filter).await?;
            session.subscribed(number);
        }
        Ok(true)
    }

    /// Removes a subscription; one that is not there is no fault.
    pub(super) async fn unsubscribe(&self, session: &Session, filter: &str) -> Result<(), Silent> {
        match session.remove_subscription(filter) {
            Some(number) => self.exchange.unsubscribe(session.line(), number).await,
            None => Ok(()),
        }
    }

    /// Keeps the subscriptions of a session that outlives its connection.
    pub(super) async fn keep(&self, session: &Session) -> Option<Kept> {
        if session.clean {
            return None;
        }
        let filters = session.filters().into_iter().map(|(filter, qos)| (filter.to_string(), qos as u8)).collect();
        let (account, client) = (session.key.account.to_string(), session.key.client.to_string());
        let record = serde_json::to_vec(&Record { account, client, filters }).ok()?;
        Some(self.keeper.put(Table::Sessions, &record_key(&session.key), record).await)
    }

    /// Subscribes every session again at a new router.
    pub(super) async fn renew(&self) -> Result<(), Silent> {
        let subscribers: Vec<Arc<dyn Subscriber>> =
            self.entries().values().map(|entry| Arc::clone(&entry.session) as Arc<dyn Subscriber>).collect();
        self.exchange.replace(&subscribers).await
    }

    /// Asks every connected client to go.
    pub(super) fn dismiss(&self) {
        let entries = self.entries();
        let connected = entries.values().filter_map(|entry| entry.holder.as_ref());
        let count = connected.map(|holder| holder.leave.cancel()).count();
        if count > 0 {
            warn!(count, "Every client dropped, they will connect again");
        }
    }
}

/// Account and client id in one key. A name has no control character.
fn record_key(key: &Key) -> Vec<u8> {
    format!("{}\0{}", key.account, key.client).into_bytes()
}

/// Sessions could not be taken up again.
#[derive(Debug, thiserror::Error)]
pub(super) enum RestoreError {
    #[error("read the sessions kept for absent clients")]
    Store(#[from] StoreError),
    #[error("subscribe again for absent clients")]
    Router(#[from] Silent),
}
