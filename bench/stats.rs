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
    fn one_outlier_moves_neither_median_nor_spread() {
        let calm = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0];
        let wild = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 700.0];
        assert_eq!((median(&calm), spread(&calm)), (4.0, 2.0));
        assert_eq!((median(&wild), spread(&wild)), (4.0, 2.0));
        assert_eq!(median(&[1.0, 2.0]), 1.5);
        assert_eq!((median(&[]), spread(&[3.0])), (0.0, 0.0));
    }
}
