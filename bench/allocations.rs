//! That nothing is allocated for a packet: neither for one of a known connection, nor for one that begins a connection or is
//! handed over, nor when a connection ends.

use allocation_counter::measure;

use crate::count::cases::Case;

#[test]
fn no_packet_costs_an_allocation() {
    let mut wrong = Vec::new();
    for case in Case::all() {
        let mut prepared = case.prepare().unwrap();
        let mut allocations = 0;
        let mut bursts = 0;
        let done = prepared.run(&mut |bench, now, frames| {
            let mut sent = 0;
            let during = measure(|| sent = bench.round(now, frames));
            allocations += during.count_total;
            bursts += 1;
            sent
        });
        assert_eq!(done, Ok(()));
        assert!(bursts > 0);
        if allocations > 0 {
            wrong.push(format!("{}: {allocations}", case.name()));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn an_allocation_would_be_counted() {
    let during = measure(|| drop(std::hint::black_box(vec![1, 2, 3])));
    assert_eq!(during.count_total, 1);
}
