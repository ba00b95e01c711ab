#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::needless_for_each,
    reason = "ranks and errors of small samples, written as one reads them"
)]

use proptest::prelude::*;

use super::*;

fn latencies(values: &[u64]) -> LatencySketch {
    let mut sketch = LatencySketch::default();
    values.iter().for_each(|&value| sketch.insert(value));
    sketch
}

fn distinct(values: impl IntoIterator<Item = u64>) -> DistinctSketch {
    let mut sketch = DistinctSketch::default();
    values.into_iter().for_each(|value| sketch.insert(&value.to_le_bytes()));
    sketch
}

/// Latencies of every magnitude.
fn latency() -> impl Strategy<Value = u64> {
    (any::<u64>(), 0_u32..64).prop_map(|(value, shift)| value >> shift)
}

proptest! {
    #[test]
    fn a_latency_sketch_of_the_whole_is_that_of_its_parts_in_any_order(values in prop::collection::vec(latency(), 0..300), cut in 0_usize..300, other in 0_usize..300) {
        let (cut, other) = (cut.min(values.len()), other.min(values.len()));
        let (first, second) = (cut.min(other), cut.max(other));
        let parts = [latencies(&values[..first]), latencies(&values[first..second]), latencies(&values[second..])];
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
            let mut merged = LatencySketch::default();
            order.iter().for_each(|&part| merged.merge(&parts[part]));
            prop_assert_eq!(&merged, &latencies(&values));
            prop_assert_eq!(merged.to_bytes(), latencies(&values).to_bytes());
        }
    }

    #[test]
    fn quantiles_are_within_one_percent(mut values in prop::collection::vec(latency(), 1..300), q in 0.0_f64..=1.0) {
        let sketch = latencies(&values);
        values.sort_unstable();
        let rank = ((values.len() as f64 * q).ceil() as usize).max(1);
        let (exact, told) = (values[rank - 1] as f64, sketch.quantile(q).unwrap() as f64);
        prop_assert!((told - exact).abs() <= exact * 0.01, "{told} for {exact}");
    }

    #[test]
    fn latency_sketches_read_back_and_strange_bytes_are_refused_or_canonical(values in prop::collection::vec(latency(), 0..300), strange in prop::collection::vec(any::<u8>(), 0..40)) {
        let sketch = latencies(&values);
        prop_assert_eq!(LatencySketch::from_bytes(&sketch.to_bytes()), Ok(sketch));
        if let Ok(read) = LatencySketch::from_bytes(&strange) {
            prop_assert_eq!(LatencySketch::from_bytes(&read.to_bytes()), Ok(read));
        }
    }

    #[test]
    fn a_distinct_sketch_of_the_whole_is_that_of_its_parts_in_any_order(sizes in prop::array::uniform3(0_u64..1_500), overlap in 0_u64..200) {
        let starts = [0, sizes[0].saturating_sub(overlap), (sizes[0] + sizes[1]).saturating_sub(2 * overlap)];
        let ranges = [0, 1, 2].map(|at| starts[at]..starts[at] + sizes[at]);
        let whole = distinct(ranges.iter().cloned().flatten());
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
            let mut merged = DistinctSketch::default();
            order.iter().for_each(|&part| merged.merge(&distinct(ranges[part].clone())));
            prop_assert_eq!(&merged, &whole);
        }
        prop_assert_eq!(DistinctSketch::from_bytes(&whole.to_bytes()), Ok(whole));
    }

    #[test]
    fn strange_bytes_are_no_distinct_sketch_or_a_sound_one(mut strange in prop::collection::vec(any::<u8>(), 0..40)) {
        if let Some(first) = strange.first_mut() {
            *first = *first % 3 + 1;
        }
        if let Ok(read) = DistinctSketch::from_bytes(&strange) {
            prop_assert_eq!(DistinctSketch::from_bytes(&read.to_bytes()), Ok(read));
        }
    }

    #[test]
    fn varints_read_back(value in any::<u64>()) {
        let mut bytes = Vec::new();
        put_varint(&mut bytes, value);
        prop_assert_eq!(take_varint(&mut bytes.as_slice()), Some(value));
        prop_assert_eq!(take_varint(&mut &bytes[..bytes.len() - 1]), None);
    }
}

#[test]
fn small_latencies_and_the_ends_are_exact_enough() {
    for value in (0..128).chain([u64::MAX, u64::MAX - 1, 1 << 63]) {
        let told = latencies(&[value]).quantile(0.5).unwrap();
        assert!(
            if value < 128 {
                told == value
            } else {
                (told as f64 / value as f64 - 1.0).abs() < 0.01
            },
            "{told} for {value}"
        );
    }
    assert_eq!(LatencySketch::default().quantile(0.5), None);
}

#[test]
fn a_latency_sketch_of_ten_thousand_calls_takes_little() {
    let values: Vec<u64> = (0..10_000_u64).map(|at| 800 + at * at % 40_000).collect();
    assert!(latencies(&values).to_bytes().len() < 1_100);
    assert!(latencies(&[5_000; 10]).to_bytes().len() < 6);
}

#[test]
fn counts_of_distinct_values_are_exact_when_few_and_within_bounds_when_many() {
    for count in [0, 1, 2, 17, 50] {
        assert_eq!(distinct(0..count).estimate(), count);
    }
    // Standard error is 1.6 %; three of them, over sizes of every kind and twenty sets each.
    for count in [257_u64, 1_000, 1_100, 5_000, 12_000, 20_000, 100_000] {
        let mut squares = 0.0;
        for set in 0..20_u64 {
            let told = distinct((0..count).map(|value| value + (set << 32))).estimate();
            let off = told as f64 / count as f64 - 1.0;
            assert!(off.abs() < 0.06, "{told} for {count}");
            squares += off * off;
        }
        assert!(
            (squares / 20.0).sqrt() < 0.024,
            "deviation of {count}: {}",
            (squares / 20.0).sqrt()
        );
    }
}

#[test]
fn a_tuple_is_not_its_parts_joined() {
    let mut sketch = DistinctSketch::default();
    sketch.insert_tuple([b"ab".as_slice(), b"c"]);
    sketch.insert_tuple([b"a".as_slice(), b"bc"]);
    sketch.insert_tuple([b"ab".as_slice(), b"c"]);
    assert_eq!(sketch.estimate(), 2);
}

#[test]
fn a_set_that_outgrows_its_places_has_the_registers_it_would_have_had() {
    let (small, large) = (distinct(0..900), distinct(900..3_000));
    let mut merged = small.clone();
    merged.merge(&large);
    let mut read = small;
    read.merge_bytes(&large.to_bytes()).unwrap();
    assert_eq!((&merged, &read), (&distinct(0..3_000), &distinct(0..3_000)));
}

#[test]
fn a_set_of_few_takes_two_bytes_a_value() {
    let bytes = distinct(0..200).to_bytes().len();
    assert!(bytes < 520, "{bytes}");
}

#[test]
fn stored_bytes_never_change() {
    assert_eq!(
        latencies(&[0, 127, 128, 1_000]).to_bytes(),
        [1, 0, 1, 127, 1, 1, 1, 189, 1, 1]
    );
    assert_eq!(distinct([7]).to_bytes(), [3, 216, 67], "stored hashes must never change");
}
