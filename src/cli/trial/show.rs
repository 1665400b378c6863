//! Formats figures for people. Knows no page and no table.

use super::figures::Unit;

/// A figure for people.
pub(crate) fn shown(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Count if value.fract() == 0.0 => thousands(value),
        Unit::Count if value.abs() >= 100.0 => thousands(value.round()),
        Unit::Count if value.abs() >= 1.0 => format!("{value:.1}"),
        Unit::Count => format!("{value:.2}"),
        Unit::Share => format!("{:.1} %", value * 100.0),
        Unit::Score => format!("{value:.3}"),
        Unit::Ms if value.abs() >= 10_000.0 => format!("{:.1} s", value / 1_000.0),
        Unit::Ms => format!("{} ms", thousands(value.round())),
        // To a hundredth of a cent; more digits for amounts below a cent.
        Unit::Pico if value == 0.0 => "$0".to_owned(),
        Unit::Pico if value.abs() >= 1e10 => format!("{}${:.4}", sign(value), value.abs() / 1e12),
        Unit::Pico => format!("{}${:.6}", sign(value), value.abs() / 1e12),
    }
}

/// A difference for people: with its sign.
pub(crate) fn shown_difference(value: f64, unit: Unit) -> String {
    let text = match unit {
        // A difference that is rounded to zero has no sign.
        Unit::Share => format!("{:.1} points", (value * 1_000.0).round() / 10.0 + 0.0),
        _ => shown(value, unit),
    };
    if value > 0.0 { format!("+{text}") } else { text }
}

fn sign(value: f64) -> &'static str {
    if value < 0.0 { "-" } else { "" }
}

/// An integer with separated thousands.
fn thousands(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    format!("{}{out}", if value < 0.0 { "-" } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_shown_with_their_units() {
        for (value, unit, expected) in [
            (1_234_567.0, Unit::Count, "1,234,567"),
            (-1_234.0, Unit::Count, "-1,234"),
            (1_234.5, Unit::Count, "1,235"),
            (2.25, Unit::Count, "2.2"),
            (0.071, Unit::Count, "0.07"),
            (0.5, Unit::Share, "50.0 %"),
            (0.3125, Unit::Score, "0.312"),
            (420.4, Unit::Ms, "420 ms"),
            (12_340.0, Unit::Ms, "12.3 s"),
            (0.0, Unit::Pico, "$0"),
            (1_183_500_000.0, Unit::Pico, "$0.001184"),
            (-25e10, Unit::Pico, "-$0.2500"),
        ] {
            assert_eq!(shown(value, unit), expected);
        }
        assert_eq!(shown_difference(0.031, Unit::Share), "+3.1 points");
        assert_eq!(shown_difference(-0.0001, Unit::Share), "0.0 points");
        assert_eq!(shown_difference(-2.0, Unit::Count), "-2");
    }
}
