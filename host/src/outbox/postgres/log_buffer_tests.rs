//! Each row of a log is settled once and in its order, wherever a relay ends.

use proptest::prelude::*;

use super::*;

fn row(id: i64, bytes: usize) -> OutboxRow {
    OutboxRow {
        at: RowRef(id, 1),
        placed: true,
        time_ms: 1,
        subject: String::new(),
        headers: None,
        payload: vec![b'x'; bytes].into(),
        odd: None,
    }
}

/// A log: transactions with so many rows, each transaction a hundred places long.
fn log(sizes: &[usize]) -> Vec<LogNews> {
    let (mut heard, mut id) = (Vec::new(), 0);
    for (at, size) in sizes.iter().enumerate() {
        let begin = 100 * (at as u64 + 1);
        heard.push(LogNews::Begin { commit: begin });
        for _ in 0..*size {
            id += 1;
            heard.push(LogNews::Row(row(id, 10)));
        }
        heard.push(LogNews::Commit { end: begin + 100 });
        heard.push(LogNews::Read { until: begin + 100 });
    }
    heard
}

fn ids(rows: &[OutboxRow]) -> Vec<i64> {
    rows.iter().map(|row| row.at.0).collect()
}

fn hear(buffer: &mut LogBuffer, sizes: &[usize]) {
    log(sizes).into_iter().for_each(|heard| buffer.hear(heard));
}

proptest! {
    #[test]
    fn each_row_of_a_log_is_settled_once_and_in_order_wherever_its_relay_ends(
        sizes in prop::collection::vec(0_usize..9, 1..12),
        steps in prop::collection::vec((1_usize..40, 1_usize..6, 0_u8..4), 1..60),
    ) {
        let total = i64::try_from(sizes.iter().sum::<usize>()).unwrap();
        let (mut stored, mut place) = (Vec::new(), LogPlace::default());
        let mut steps = steps.into_iter();
        for _ in 0..80 {
            // A relay begins. The server sends what is not confirmed, or more.
            let mut buffer = LogBuffer::new(place);
            let mut rest = log(&sizes).into_iter();
            loop {
                let (heard, rows_max, end) = steps.next().unwrap_or((40, 5, 3));
                rest.by_ref().take(heard).for_each(|one| buffer.hear(one));
                let batch = buffer.first(rows_max, 1 << 20);
                prop_assert!(batch.len() <= rows_max);
                if batch.is_empty() && rest.len() == 0 {
                    break;
                }
                // The stream stores it, unless the relay ends before.
                if end == 0 {
                    break;
                }
                stored.extend(ids(&batch));
                buffer.settle(&batch.iter().map(|row| row.at).collect::<Vec<_>>());
                place = buffer.place();
                if end == 1 {
                    break;
                }
            }
        }
        let wanted: Vec<i64> = (1..=total).collect();
        prop_assert_eq!(stored, wanted);
    }
}

#[test]
fn a_batch_has_whole_transactions_and_a_part_only_of_one_that_fits_into_none() {
    let mut buffer = LogBuffer::new(LogPlace::default());
    hear(&mut buffer, &[2, 2, 7, 1]);
    assert_eq!(ids(&buffer.first(5, 1 << 20)), [1, 2, 3, 4]);
    buffer.settle(&[RowRef(1, 1), RowRef(2, 1), RowRef(3, 1), RowRef(4, 1)]);
    assert_eq!(buffer.place(), LogPlace { lsn: 300, settled: 0 });
    assert_eq!(ids(&buffer.first(5, 1 << 20)), [5, 6, 7, 8, 9]);
    buffer.settle(&(5..=9).map(|id| RowRef(id, 1)).collect::<Vec<_>>());
    assert_eq!(buffer.place(), LogPlace { lsn: 300, settled: 5 });
    assert_eq!(ids(&buffer.first(5, 1 << 20)), [10, 11, 12]);
    // Bytes bound it as well, and one row is always there.
    assert_eq!(ids(&buffer.first(5, 1)), [10]);
}

#[test]
fn what_is_not_heard_whole_is_not_taken_for_whole() {
    let mut buffer = LogBuffer::new(LogPlace::default());
    hear(&mut buffer, &[1]);
    buffer.hear(LogNews::Begin { commit: 500 });
    buffer.hear(LogNews::Row(row(2, 1)));
    assert!(buffer.is_open());
    assert_eq!(ids(&buffer.first(5, 1 << 20)), [1]);
    buffer.settle(&[RowRef(1, 1)]);
    buffer.settle(&[RowRef(2, 1)]);
    assert_eq!(buffer.place(), LogPlace { lsn: 200, settled: 1 });
    buffer.hear(LogNews::Commit { end: 510 });
    assert_eq!(buffer.place(), LogPlace { lsn: 510, settled: 0 });
}

#[test]
fn rows_that_lie_in_the_stream_are_settled_when_they_are_heard_and_the_others_are_named() {
    let mut buffer = LogBuffer::new(LogPlace::default());
    hear(&mut buffer, &[2]);
    buffer.publish([1, 2, 3, 77, 9].map(|id| RowRef(id, 1)).to_vec());
    assert_eq!((buffer.count(), buffer.unheard()), (0, 3));
    assert_eq!(buffer.place().lsn, 200);
    buffer.hear(LogNews::Begin { commit: 300 });
    for id in [3, 4] {
        buffer.hear(LogNews::Row(row(id, 1)));
    }
    buffer.hear(LogNews::Commit { end: 310 });
    assert_eq!(ids(&buffer.first(5, 1 << 20)), [4]);
    assert_eq!(buffer.place(), LogPlace { lsn: 200, settled: 1 });
    assert_eq!(buffer.give_up(), [RowRef(9, 1), RowRef(77, 1)]);
    assert_eq!(buffer.unheard(), 0);
}

#[test]
fn a_log_without_rows_is_settled_as_far_as_it_is_read() {
    let mut buffer = LogBuffer::new(LogPlace { lsn: 150, settled: 0 });
    buffer.hear(LogNews::Read { until: 900 });
    assert_eq!(buffer.place().lsn, 900);
    // Not past a transaction of which a part is settled.
    let mut buffer = LogBuffer::new(LogPlace { lsn: 150, settled: 1 });
    buffer.hear(LogNews::Read { until: 900 });
    assert_eq!(buffer.place(), LogPlace { lsn: 150, settled: 1 });
    assert!(buffer.has_read(900) && !buffer.has_read(901));
}
