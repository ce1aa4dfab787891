//! Who may come in and who must leave: places are counted by address until the handshake is done, by certificate after.
//!
//! A certificate costs an attacker what an address does not, so nobody without one can take a place from a peer that has
//! one, and no peer the places of another. Every arrival costs a handshake, the dearest thing a stranger can ask of a
//! small machine: they are paced too.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Limits;

/// A connection this old makes place for a newer one from its address.
const SETTLED: Duration = Duration::from_secs(10);
/// Arrivals of one address, and of all: so many at once, then so many a second. A handshake takes a Pi 3 about 2 ms.
const PACE_OF_ONE: Pace = Pace { at_once: 200.0, a_second: 50.0 };
const PACE_OF_ALL: Pace = Pace { at_once: 400.0, a_second: 200.0 };
/// Addresses of which the pace is remembered.
const PACED: usize = 1_024;

/// Whose a place is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Owner {
    Address(IpAddr),
    Certificate(Arc<[u8]>),
}

/// One connection, as the door sees it.
struct Seat {
    owner: Owner,
    since: Instant,
    /// Its handshake is done.
    greeted: bool,
    /// Asks it to end.
    end: CancellationToken,
}

/// Lets connections in, no more than the limits allow. Cheap to clone.
#[derive(Clone)]
pub(super) struct Door {
    limits: Limits,
    guests: Arc<Mutex<Guests>>,
}

struct Guests {
    next: u64,
    /// By number of arrival, so the oldest first.
    seats: BTreeMap<u64, Seat>,
    all: Arrivals,
    of_each: HashMap<IpAddr, Arrivals>,
}

/// A connection's place, free again when dropped.
pub(super) struct Place {
    guests: Arc<Mutex<Guests>>,
    number: u64,
    /// Fires when the connection must make place for another one.
    pub(super) end: CancellationToken,
}

impl Door {
    pub(super) fn new(limits: Limits) -> Self {
        let now = Instant::now();
        let guests =
            Guests { next: 0, seats: BTreeMap::new(), all: Arrivals::new(PACE_OF_ALL, now), of_each: HashMap::new() };
        Self { limits, guests: Arc::new(Mutex::new(guests)) }
    }

    /// A place for a handshake, unless this address has too many or comes too often.
    pub(super) fn arrive(&self, address: IpAddr) -> Option<Place> {
        let (origin, now) = (origin(address), Instant::now());
        let owner = Owner::Address(origin);
        let mut guests = locked(&self.guests);
        if !guests.is_in_pace(origin, now) {
            return None;
        }
        if guests.count(|seat| seat.owner == owner) >= self.limits.per_address {
            guests.end_oldest(|seat| seat.owner == owner, |seat| seat.since.elapsed() >= SETTLED)?;
        }
        if guests.count(|seat| !seat.greeted) >= self.limits.handshakes {
            guests.end_oldest(|seat| !seat.greeted, |_| true)?;
        }
        let (number, end) = (guests.next, CancellationToken::new());
        guests.next += 1;
        guests.seats.insert(number, Seat { owner, since: now, greeted: false, end: end.clone() });
        Some(Place { guests: Arc::clone(&self.guests), number, end })
    }

    /// The handshake is done. False when there is no place for this connection, which then must leave.
    pub(super) fn greet(&self, place: &Place, certificate: Option<&Arc<[u8]>>) -> bool {
        let mut guests = locked(&self.guests);
        let Some(seat) = guests.seats.get_mut(&place.number) else { return false };
        if let Some(certificate) = certificate {
            seat.owner = Owner::Certificate(Arc::clone(certificate));
        }
        let owner = seat.owner.clone();
        let of_owner = |seat: &Seat| seat.greeted && seat.owner == owner;
        if certificate.is_some() && guests.count(of_owner) >= self.limits.per_certificate {
            guests.end_oldest(of_owner, |_| true);
        }
        if guests.count(|seat| seat.greeted) >= self.limits.connections && !guests.end_one_of_the_fullest(&owner) {
            return false;
        }
        let Some(seat) = guests.seats.get_mut(&place.number) else { return false };
        seat.greeted = true;
        true
    }
}

impl Guests {
    fn is_in_pace(&mut self, origin: IpAddr, now: Instant) -> bool {
        if self.of_each.len() >= PACED && !self.of_each.contains_key(&origin) {
            self.of_each.retain(|_, arrivals| !arrivals.is_rested(now));
            if self.of_each.len() >= PACED {
                // A flood of more addresses than are remembered: the pace of all holds it.
                self.of_each.clear();
            }
        }
        let of_one = self.of_each.entry(origin).or_insert_with(|| Arrivals::new(PACE_OF_ONE, now));
        // One address out of pace must not use up the pace of all.
        of_one.take(now) && self.all.take(now)
    }

    fn count(&self, which: impl Fn(&Seat) -> bool) -> usize {
        self.seats.values().filter(|seat| which(seat)).count()
    }

    /// Ends the oldest of some, if it may be ended.
    fn end_oldest(&mut self, which: impl Fn(&Seat) -> bool, may_end: impl Fn(&Seat) -> bool) -> Option<()> {
        let (number, _) = self.seats.iter().find(|(_, seat)| which(seat)).filter(|(_, seat)| may_end(seat))?;
        let number = *number;
        self.seats.remove(&number)?.end.cancel();
        Some(())
    }

    /// Who has most places, the newcomer's counted, gives one up. False when nobody has more than one.
    fn end_one_of_the_fullest(&mut self, newcomer: &Owner) -> bool {
        let mut counts = HashMap::<&Owner, usize>::from([(newcomer, 1)]);
        for seat in self.seats.values().filter(|seat| seat.greeted) {
            *counts.entry(&seat.owner).or_default() += 1;
        }
        let fullest = counts.into_iter().max_by_key(|(_, count)| *count).filter(|(_, count)| *count > 1);
        let Some(fullest) = fullest.map(|(owner, _)| owner.clone()) else { return false };
        self.end_oldest(|seat| seat.greeted && seat.owner == fullest, |_| true).is_some()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.end.cancel();
        locked(&self.guests).seats.remove(&self.number);
    }
}

fn locked(guests: &Mutex<Guests>) -> MutexGuard<'_, Guests> {
    guests.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How often one may come.
#[derive(Debug, Clone, Copy)]
struct Pace {
    at_once: f64,
    a_second: f64,
}

/// How often somebody has come of late.
struct Arrivals {
    pace: Pace,
    left: f64,
    at: Instant,
}

impl Arrivals {
    fn new(pace: Pace, now: Instant) -> Self {
        Self { pace, left: pace.at_once, at: now }
    }

    fn left(&self, now: Instant) -> f64 {
        let rested = now.duration_since(self.at).as_secs_f64() * self.pace.a_second;
        (self.left + rested).min(self.pace.at_once)
    }

    fn is_rested(&self, now: Instant) -> bool {
        self.left(now) >= self.pace.at_once
    }

    fn take(&mut self, now: Instant) -> bool {
        let left = self.left(now);
        let may = left >= 1.0;
        (self.left, self.at) = (if may { left - 1.0 } else { left }, now);
        may
    }
}

/// What counts as one address: an IPv6 host owns a whole /64.
fn origin(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn door(limits: Limits) -> Door {
        Door::new(limits)
    }

    fn arrive(door: &Door, ip: &str) -> Option<Place> {
        door.arrive(ip.parse().expect("address"))
    }

    fn certificate(name: &str) -> Arc<[u8]> {
        name.as_bytes().into()
    }

    /// Comes from an address of its own and shows a certificate.
    fn peer(door: &Door, last: u8, name: &str) -> Option<Place> {
        let place = door.arrive([198, 51, 100, last].into()).expect("a place for the handshake");
        door.greet(&place, Some(&certificate(name))).then_some(place)
    }

    #[tokio::test(start_paused = true)]
    async fn one_address_cannot_take_every_place_and_gives_its_own_back() {
        let door = door(Limits { connections: 10, per_address: 2, ..Limits::peers() });
        let (first, second) =
            (arrive(&door, "192.0.2.1").expect("first"), arrive(&door, "::ffff:192.0.2.1").expect("second"));
        assert!(arrive(&door, "192.0.2.1").is_none(), "a third of the same address");
        assert!(arrive(&door, "192.0.2.2").is_some(), "another address");
        drop(first);
        let third = arrive(&door, "192.0.2.1").expect("third");
        drop((second, third));
        assert!(locked(&door.guests).seats.is_empty(), "nothing is kept of those who left");
    }

    #[tokio::test(start_paused = true)]
    async fn an_old_connection_makes_place_for_a_newer_one_of_its_address() {
        let door = door(Limits { connections: 10, per_address: 2, ..Limits::peers() });
        let (first, second) = (arrive(&door, "192.0.2.1").expect("first"), arrive(&door, "192.0.2.1").expect("second"));
        tokio::time::advance(SETTLED).await;
        let third = arrive(&door, "192.0.2.1").expect("third");
        assert!(first.end.is_cancelled() && !second.end.is_cancelled() && !third.end.is_cancelled());
        drop(first);
        let fourth = arrive(&door, "192.0.2.1").expect("fourth");
        assert!(second.end.is_cancelled() && !fourth.end.is_cancelled());
        assert!(arrive(&door, "192.0.2.1").is_none(), "the others have only just come");
    }

    #[tokio::test(start_paused = true)]
    async fn handshakes_that_do_not_end_take_no_place_from_a_peer() {
        let door = door(Limits { connections: 4, handshakes: 8, per_address: 8, ..Limits::peers() });
        let agglo = peer(&door, 1, "agglo").expect("a place");
        let crowd: Vec<_> = (0..100).filter_map(|n| door.arrive([203, 0, 113, n].into())).collect();
        assert_eq!(crowd.iter().filter(|place| !place.end.is_cancelled()).count(), 8, "the newest");
        assert!(!agglo.end.is_cancelled());
        let dept = peer(&door, 2, "dept").expect("a place");
        assert!(!dept.end.is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn peers_behind_one_address_do_not_share_places_and_a_greedy_one_ends_its_own() {
        let door = door(Limits { connections: 64, per_address: 2, per_certificate: 3, ..Limits::peers() });
        let of = |name: &str| {
            let place = arrive(&door, "192.0.2.1").expect("those who showed a certificate no longer count here");
            assert!(door.greet(&place, Some(&certificate(name))));
            place
        };
        let quiet = of("quiet");
        let greedy: Vec<_> = (0..10).map(|_| of("greedy")).collect();
        let kept: Vec<_> = greedy.iter().map(|place| !place.end.is_cancelled()).collect();
        assert_eq!(kept, [false, false, false, false, false, false, false, true, true, true]);
        assert!(!quiet.end.is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn when_all_places_are_taken_who_has_most_gives_one_up() {
        let door = door(Limits { connections: 4, per_certificate: 3, ..Limits::peers() });
        let greedy: Vec<_> = (1..=3).map(|n| peer(&door, n, "greedy").expect("a place")).collect();
        let first = peer(&door, 4, "first").expect("a place");
        let second = peer(&door, 5, "second").expect("a place");
        let third = peer(&door, 6, "third").expect("a place");
        assert_eq!(greedy.iter().map(|place| place.end.is_cancelled()).collect::<Vec<_>>(), [true, true, false]);
        assert!(peer(&door, 7, "fourth").is_none(), "four peers have one place each");
        assert!([&first, &second, &third].iter().all(|place| !place.end.is_cancelled()));
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_too_often_is_sent_away_and_others_are_not() {
        let door = door(Limits::peers());
        let in_pace = (0..1_000).filter(|_| arrive(&door, "192.0.2.1").is_some()).count();
        assert_eq!(in_pace, 200);
        assert!(arrive(&door, "192.0.2.2").is_some());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!((0..1_000).filter(|_| arrive(&door, "192.0.2.1").is_some()).count(), 50);
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_from_everywhere_is_paced_and_remembered_in_bounds() {
        let door = door(Limits::peers());
        let mut in_pace = 0;
        for n in 0..10_000_u32 {
            in_pace += usize::from(door.arrive(std::net::Ipv4Addr::from_bits(0x0a00_0000 + n).into()).is_some());
        }
        assert_eq!(in_pace, 400);
        assert!(locked(&door.guests).of_each.len() <= PACED);
    }

    #[test]
    fn hosts_of_one_ipv6_network_count_as_one() {
        let of = |ip: &str| origin(ip.parse().expect("address"));
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
    }
}
