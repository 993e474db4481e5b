//! Intervals and tests for counts of successes.

/// The 97.5 % quantile of the normal distribution.
const Z: f64 = 1.959_963_984_540_054;

/// Wilson's score interval at 95 % for `successes` of `count` (Wilson 1927), from 0 to 1.
pub(crate) fn wilson(successes: usize, count: usize) -> [f64; 2] {
    if count == 0 {
        return [0.0, 1.0];
    }
    let (n, p) = (count as f64, successes as f64 / count as f64);
    let middle = p + Z * Z / (2.0 * n);
    let half = Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    let scale = 1.0 + Z * Z / n;
    [((middle - half) / scale).max(0.0), ((middle + half) / scale).min(1.0)]
}

/// Two-sided p-value of McNemar's exact test: of the pairs that differ, `only_a` succeeded in the first alone and `only_b` in the
/// second alone.
pub(crate) fn mcnemar(only_a: usize, only_b: usize) -> f64 {
    let n = only_a + only_b;
    let tail: f64 = (0..=only_a.min(only_b)).map(|k| (ln_choose(n, k) - n as f64 * 2.0_f64.ln()).exp()).sum();
    (2.0 * tail).min(1.0)
}

/// Two-sided p-value of Fisher's exact test for `a` of `of_a` and `b` of `of_b` successes: the probability of all tables with the same
/// margins that are no more likely.
pub(crate) fn fisher(a: usize, of_a: usize, b: usize, of_b: usize) -> f64 {
    let successes = a + b;
    let ln = |a: usize| ln_choose(of_a, a) + ln_choose(of_b, successes - a) - ln_choose(of_a + of_b, successes);
    let found = ln(a);
    let all = successes.saturating_sub(of_b)..=successes.min(of_a);
    all.map(ln).filter(|ln| *ln <= found + 1e-9).map(f64::exp).sum::<f64>().min(1.0)
}

/// Natural logarithm of `n` over `k`.
fn ln_choose(n: usize, k: usize) -> f64 {
    let k = k.min(n - k);
    (0..k).map(|i| ((n - i) as f64).ln() - ((i + 1) as f64).ln()).sum()
}

/// The value below which `share` of the values lie; `None` without values.
pub(crate) fn quantile(values: &mut [f64], share: f64) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let index = (share * values.len().saturating_sub(1) as f64).round() as usize;
    values.get(index).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() < 5e-4
    }

    /// Values of R's `binom.confint(…, methods = "wilson")`, `mcnemar.exact` and `fisher.test`.
    #[test]
    fn known_values() {
        let [low, high] = wilson(48, 50);
        assert!(close(low, 0.8654) && close(high, 0.9890), "{low} {high}");
        assert!(close(wilson(0, 10)[1], 0.2775) && close(wilson(0, 10)[0], 0.0));
        assert!(close(mcnemar(1, 9), 0.0215) && close(mcnemar(3, 3), 1.0) && close(mcnemar(0, 0), 1.0));
        assert!(close(fisher(3, 4, 1, 4), 0.4857) && close(fisher(10, 10, 2, 10), 0.0007));
        assert_eq!(quantile(&mut [3.0, 1.0, 2.0], 0.5), Some(2.0));
    }
}
