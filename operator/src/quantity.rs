//! Amounts in Kubernetes' notation, compared by value: the API server writes `1000m` as `1`.

/// The amount in thousandths; `None` when the text is no amount.
pub fn parse(text: &str) -> Option<i128> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let factor: i128 = match suffix {
        "" => 1_000,
        "m" => 1,
        "k" => 1_000_000,
        "M" => 1_000_000_000,
        "G" => 1_000_000_000_000,
        "T" => 1_000_000_000_000_000,
        "P" => 1_000_000_000_000_000_000,
        "E" => 1_000_000_000_000_000_000_000,
        "Ki" => 1_000 << 10,
        "Mi" => 1_000 << 20,
        "Gi" => 1_000 << 30,
        "Ti" => 1_000 << 40,
        "Pi" => 1_000 << 50,
        "Ei" => 1_000 << 60,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    // Twelve digits on each side keep the product within its type.
    if whole.len() > 12 || fraction.len() > 12 || (whole.is_empty() && fraction.is_empty()) {
        return None;
    }
    let scale = 10_i128.pow(u32::try_from(fraction.len()).ok()?);
    let digits: i128 = format!("0{whole}{fraction}").parse().ok()?;
    digits.checked_mul(factor).map(|product| product / scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_amounts_are_equal_however_written() {
        for (left, right) in [
            ("1000m", "1"),
            ("0.5", "500m"),
            ("1Gi", "1024Mi"),
            ("1G", "1000M"),
            ("1.5Gi", "1536Mi"),
        ] {
            assert_eq!(parse(left).unwrap(), parse(right).unwrap(), "{left} {right}");
        }
        assert!(parse("256Mi") < parse("512Mi"));
        for bad in ["", "Mi", "1x", "-1", "1.2.3", "1e3", &"9".repeat(40)] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
