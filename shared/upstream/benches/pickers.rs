//! One choice among 10, 1,000 and 10,000 members, for each picker: `cargo bench -p standfast-balancer --bench pickers`.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use upstream::dice::{Dice, hash};
use upstream::pick::{Algorithm, Ask, Picker, Seat};
use upstream::vitals::Vitals;

const ALL: [Algorithm; 7] = [
    Algorithm::RoundRobin,
    Algorithm::Weighted,
    Algorithm::LeastConnections,
    Algorithm::IpHash,
    Algorithm::TwoChoices,
    Algorithm::Ewma,
    Algorithm::ConsistentHash,
];

fn seats(members: usize) -> Vec<Seat> {
    let seat = |name: usize| {
        let vitals = Arc::new(Vitals::new(clock::now()));
        let weight = 100 + u32::from(name == 0);
        Seat { vitals, weight, full_weight: weight, place: hash(&name.to_be_bytes()) }
    };
    (0..members).map(seat).collect()
}

/// A choice and what follows from it: the place is taken and given back.
fn pickers(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pick");
    for algorithm in ALL {
        for members in [10, 1_000, 10_000] {
            let seats = seats(members);
            let picker = Picker::new(algorithm, seats.clone(), Arc::default(), Some(1.25));
            let (mut dice, now) = (Dice::new(1), clock::now());
            let id = BenchmarkId::new(format!("{algorithm:?}"), members);
            group.bench_function(id, |bencher| {
                bencher.iter(|| {
                    let key = dice.next();
                    let chosen = picker.pick(&mut Ask { key, now, dice: &mut dice }, |_| true);
                    let seat = chosen.expect("all admit");
                    assert!(seats[seat].vitals.enter(u32::MAX));
                    picker.touch(seat);
                    seats[seat].vitals.leave();
                    picker.touch(seat);
                    black_box(seat)
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, pickers);
criterion_main!(benches);
