//! Medians and spreads of a few measurements.

/// The middle value; 0 of none.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match (sorted.len(), sorted.get(sorted.len() / 2)) {
        (n, Some(middle)) if n % 2 == 1 => *middle,
        (n, Some(upper)) => (sorted[n / 2 - 1] + upper) / 2.0,
        (_, None) => 0.0,
    }
}

/// The least value: what a noisy neighbour disturbed least.
pub fn least(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}

/// The value that this part of some sorted ones does not exceed; 0 of none.
pub fn percentile(sorted: &[f64], part: f64) -> f64 {
    let at = (sorted.len() as f64 * part).ceil() as usize;
    sorted.get(at.saturating_sub(1)).copied().unwrap_or(0.0)
}

/// Half the distance between the quartiles: how far a typical measurement is from the median.
pub fn spread(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len();
    match n {
        0 | 1 => 0.0,
        _ => (sorted[(3 * (n - 1)).div_ceil(4)] - sorted[(n - 1) / 4]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_one_of_the_values() {
        let values: Vec<f64> = (1..=1000).map(f64::from).collect();
        let parts = [0.5, 0.99, 0.999, 1.0];
        let expected = [500.0, 990.0, 999.0, 1000.0];
        assert_eq!(parts.map(|part| percentile(&values, part)), expected);
        assert_eq!(percentile(&[], 0.5), 0.0);
    }

    #[test]
    fn one_outlier_moves_neither_median_nor_spread() {
        let calm = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0];
        let wild = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 700.0];
        assert_eq!((median(&calm), spread(&calm)), (4.0, 2.0));
        assert_eq!((median(&wild), spread(&wild)), (4.0, 2.0));
        assert_eq!(median(&[1.0, 2.0]), 1.5);
        assert_eq!((median(&[]), spread(&[3.0])), (0.0, 0.0));
    }
}
