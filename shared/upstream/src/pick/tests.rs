//! For each picker: whom it chooses how often, and what moves when members come and go.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use super::*;
use crate::dice::hash;

const ALL: [Algorithm; 7] = [
    Algorithm::RoundRobin,
    Algorithm::Weighted,
    Algorithm::LeastConnections,
    Algorithm::IpHash,
    Algorithm::TwoChoices,
    Algorithm::Ewma,
    Algorithm::ConsistentHash,
];

fn seat(name: usize, weight: u32) -> Seat {
    let place = hash(format!("member-{name}").as_bytes());
    Seat { vitals: Arc::new(Vitals::new(clock::now())), weight, full_weight: weight, place }
}

fn even(n: usize) -> Vec<Seat> {
    (0..n).map(|name| seat(name, 100)).collect()
}

fn picker(algorithm: Algorithm, seats: Vec<Seat>) -> Picker {
    Picker::new(algorithm, seats, Arc::default(), Some(1.25))
}

/// `requests` choices for as many keys, none of them in flight at the next.
fn spread(picker: &Picker, requests: usize) -> Vec<usize> {
    let (mut dice, now) = (Dice::new(1), clock::now());
    let mut chosen = vec![0; picker.len()];
    for n in 0..requests {
        let key = hash(&n.to_le_bytes());
        let seat = picker.pick(&mut Ask { key, now, dice: &mut dice }, |_| true).expect("all admit");
        chosen[seat] += 1;
    }
    chosen
}

fn owner(picker: &Picker, key: u64) -> u64 {
    let ask = &mut Ask { key, now: clock::now(), dice: &mut Dice::new(1) };
    picker.seats[picker.pick(ask, |_| true).expect("all admit")].place
}

#[test]
fn turns_are_exact() {
    let chosen = spread(&picker(Algorithm::RoundRobin, even(7)), 700);
    assert!(chosen.iter().all(|n| *n == 100), "{chosen:?}");
}

#[test]
fn weights_are_exact_over_a_round_and_nobody_gets_a_burst() {
    for weights in [vec![5, 1, 1], vec![100, 100, 100], vec![1, 2, 3, 4, 5, 90], vec![997, 13, 450]] {
        let seats: Vec<_> = weights.iter().enumerate().map(|(name, weight)| seat(name, *weight)).collect();
        let total: u32 = weights.iter().sum();
        let stride = Stride::new(&seats);
        let mut given = vec![0_u32; weights.len()];
        for turn in 0..u64::from(total) {
            given[stride.at(turn)] += 1;
            for (seat, weight) in weights.iter().enumerate() {
                let due = f64::from(*weight) * (turn + 1) as f64 / f64::from(total);
                let off = (f64::from(given[seat]) - due).abs();
                assert!(off < 3.0, "{weights:?}: seat {seat} is {off} off after {turn} turns");
            }
        }
        assert_eq!(given, weights, "a round gives each exactly its weight");
    }
}

#[test]
fn every_picker_is_even_over_even_members() {
    for algorithm in ALL {
        let chosen = spread(&picker(algorithm, even(10)), 100_000);
        // A ring's shares differ by its points, the others' by chance.
        let slack =
            if matches!(algorithm, Algorithm::IpHash | Algorithm::ConsistentHash) { 0.3 } else { 0.05 };
        for n in &chosen {
            assert!((*n as f64 / 10_000.0 - 1.0).abs() < slack, "{algorithm:?}: {chosen:?}");
        }
    }
}

/// The more a member can carry, the more it holds, when every request stays in flight.
#[test]
fn what_counts_load_fills_members_by_weight() {
    for algorithm in [Algorithm::LeastConnections, Algorithm::TwoChoices, Algorithm::Ewma] {
        let seats: Vec<_> = (0..10).map(|name| seat(name, if name == 0 { 300 } else { 100 })).collect();
        let picker = picker(algorithm, seats);
        let (mut dice, now) = (Dice::new(2), clock::now());
        for key in 0..12_000 {
            let seat = picker.pick(&mut Ask { key, now, dice: &mut dice }, |_| true).expect("all admit");
            assert!(picker.seats[seat].vitals.enter(u32::MAX));
            picker.touch(seat);
        }
        let held: Vec<_> = picker.seats.iter().map(|seat| seat.vitals.active()).collect();
        let slack = if algorithm == Algorithm::LeastConnections { 1 } else { 60 };
        assert!(held[0].abs_diff(3000) <= slack, "{algorithm:?}: {held:?}");
        assert!(held[1..].iter().all(|n| n.abs_diff(1000) <= slack), "{algorithm:?}: {held:?}");
    }
}

#[test]
fn the_least_loaded_is_found_among_ten_thousand_and_equals_take_turns() {
    let picker = picker(Algorithm::LeastConnections, even(10_000));
    for (number, seat) in picker.seats.iter().enumerate() {
        for _ in 0..if (4_000..4_010).contains(&number) { 1 } else { 2 } {
            assert!(seat.vitals.enter(9));
        }
        picker.touch(number);
    }
    let (mut dice, now, mut seen) = (Dice::new(3), clock::now(), HashMap::new());
    for key in 0..1_000 {
        let seat = picker.pick(&mut Ask { key, now, dice: &mut dice }, |_| true).expect("all admit");
        *seen.entry(seat).or_insert(0) += 1;
    }
    assert_eq!(seen.len(), 10, "{seen:?}");
    assert!(seen.iter().all(|(seat, n)| (4_000..4_010).contains(seat) && (60..140).contains(n)), "{seen:?}");
}

/// Workers change leaves at the same time; when they are done the root is right.
#[test]
fn a_tournament_survives_races() {
    let seats = even(64);
    let tree = Tournament::new(&seats);
    std::thread::scope(|scope| {
        for worker in 0..4_u64 {
            let (tree, seats) = (&tree, &seats);
            scope.spawn(move || {
                let mut dice = Dice::new(worker);
                for _ in 0..20_000 {
                    let seat = dice.below(63); // never the last
                    assert!(seats[seat].vitals.enter(u32::MAX));
                    tree.touch(seat);
                    if dice.below(4) == 0 {
                        seats[seat].vitals.leave();
                        tree.touch(seat);
                    }
                }
            });
        }
    });
    assert_eq!(tree.least(&mut Dice::new(1)), 63);
}

#[test]
fn two_choices_avoid_the_loaded_and_never_compare_one_with_itself() {
    let picker = picker(Algorithm::TwoChoices, even(2));
    (0..5).for_each(|_| assert!(picker.seats[0].vitals.enter(9)));
    assert_eq!(spread(&picker, 100), [0, 100]);
}

#[test]
fn slow_and_failing_members_get_less_but_are_tried_again() {
    let picker = picker(Algorithm::Ewma, even(3));
    let ms = std::time::Duration::from_millis(1);
    let now = clock::now();
    picker.seats[0].vitals.failed(5000 * ms, now); // it answered 503 within a millisecond
    picker.seats[1].vitals.succeeded(50 * ms, now);
    picker.seats[2].vitals.succeeded(5 * ms, now);
    let pick = |at, dice: &mut Dice| picker.pick(&mut Ask { key: 0, now: at, dice }, |_| true);
    let mut dice = Dice::new(4);
    let mut chosen = [0; 3];
    (0..900).for_each(|_| chosen[pick(now, &mut dice).expect("all admit")] += 1);
    assert!(chosen[0] == 0 && (500..700).contains(&chosen[2]), "{chosen:?}");
    let later = now + 120_000 * ms;
    picker.seats[1].vitals.succeeded(50 * ms, later);
    picker.seats[2].vitals.succeeded(50 * ms, later);
    assert!((0..100).any(|_| pick(later, &mut dice) == Some(0)), "its penalty is forgotten in time");
}

/// Who leaves hands on his keys and no others; who joins takes only what becomes his.
#[test]
fn a_ring_moves_only_what_it_must() {
    for algorithm in [Algorithm::IpHash, Algorithm::ConsistentHash] {
        let keys: Vec<u64> = (0..20_000_u64).map(|n| hash(&n.to_be_bytes())).collect();
        let whole = picker(algorithm, even(20));
        let mut fewer = even(20);
        let gone = fewer.remove(7).place;
        let fewer = picker(algorithm, fewer);
        let mut moved = 0;
        for key in &keys {
            let (before, after) = (owner(&whole, *key), owner(&fewer, *key));
            assert!(before == after || before == gone, "a key moved between two that stayed");
            moved += u32::from(before != after);
        }
        assert!((700..1300).contains(&moved), "{moved} of 20,000 belonged to one of 20");
        let again = picker(algorithm, even(20));
        assert!(
            keys.iter().all(|key| owner(&again, *key) == owner(&whole, *key)),
            "it depends on names alone"
        );
    }
}

/// What does not remember keys has nothing to move: whoever stays goes on with the counters that he had.
#[test]
fn the_others_keep_their_spread_over_a_change() {
    for algorithm in [
        Algorithm::RoundRobin,
        Algorithm::Weighted,
        Algorithm::LeastConnections,
        Algorithm::TwoChoices,
        Algorithm::Ewma,
    ] {
        let common = Arc::<Common>::default();
        let seats = even(10);
        let before = Picker::new(algorithm, seats.clone(), Arc::clone(&common), None);
        spread(&before, 1_003);
        (0..5).for_each(|_| assert!(seats[3].vitals.enter(9)));
        let after = Picker::new(algorithm, seats[..9].to_vec(), common, None);
        let chosen = spread(&after, 9_000);
        let counts_load = !matches!(algorithm, Algorithm::RoundRobin | Algorithm::Weighted);
        for (seat, n) in chosen.iter().enumerate() {
            let due = if counts_load && seat == 3 { 0..300 } else { 900..1_300 };
            assert!(due.contains(n), "{algorithm:?}: {chosen:?}");
        }
    }
}

#[test]
fn a_hot_key_spills_over_when_its_member_has_more_than_its_bounded_share() {
    let common = Arc::<Common>::default();
    let picker = Picker::new(Algorithm::ConsistentHash, even(10), Arc::clone(&common), Some(1.25));
    let (mut dice, now) = (Dice::new(5), clock::now());
    for _ in 0..1_000 {
        let seat = picker.pick(&mut Ask { key: 42, now, dice: &mut dice }, |_| true).expect("all admit");
        assert!(picker.seats[seat].vitals.enter(u32::MAX));
        common.entered();
    }
    let held: Vec<_> = picker.seats.iter().map(|seat| seat.vitals.active()).collect();
    assert!(held.iter().all(|n| *n <= 126), "none above 1.25 times the even share of 100: {held:?}");
    let unbounded = Picker::new(Algorithm::IpHash, even(10), common, None);
    assert_eq!(spread(&unbounded, 1_000).len(), 10);
}

#[test]
fn clients_are_spread_by_address_and_each_stays_where_it_is() {
    let picker = picker(Algorithm::IpHash, even(8));
    let address = |n: u32| hash(&Ipv4Addr::from(0x0a00_0000 + n).octets());
    let mut held = HashMap::new();
    for n in 0..8_000 {
        let first = owner(&picker, address(n));
        assert_eq!(first, owner(&picker, address(n)));
        *held.entry(first).or_insert(0) += 1;
    }
    assert!(held.len() == 8 && held.values().all(|n| (700..1_300).contains(n)), "{held:?}");
}

#[test]
fn what_is_not_admitted_is_never_chosen() {
    for algorithm in ALL {
        let picker = picker(algorithm, even(5));
        let (mut dice, now) = (Dice::new(6), clock::now());
        for key in 0..500 {
            let seat = picker.pick(&mut Ask { key: hash(&[key as u8]), now, dice: &mut dice }, |seat| {
                seat == 2 || seat == 4
            });
            assert!(matches!(seat, Some(2 | 4)), "{algorithm:?}: {seat:?}");
        }
        let ask = &mut Ask { key: 1, now, dice: &mut dice };
        assert_eq!(picker.pick(ask, |_| false), None, "{algorithm:?}");
        let nobody = Picker::new(algorithm, Vec::new(), Arc::default(), None);
        assert_eq!(nobody.pick(ask, |_| true), None, "{algorithm:?}");
    }
}

/// With 10,000 members no choice looks at more than a few of them.
#[test]
fn ten_thousand_members_cost_no_scan() {
    use std::cell::Cell;
    for algorithm in ALL {
        let picker = picker(algorithm, even(10_000));
        let (mut dice, now, looked_at) = (Dice::new(7), clock::now(), Cell::new(0));
        for n in 0..1_000_u32 {
            let ask = &mut Ask { key: hash(&n.to_be_bytes()), now, dice: &mut dice };
            let admits = |_| {
                looked_at.set(looked_at.get() + 1);
                true
            };
            assert!(picker.pick(ask, admits).is_some());
        }
        assert_eq!(looked_at.get(), 1_000, "{algorithm:?}");
    }
}
