//! A count of tokens, digit by digit, however JSON may write it: `1000`, `1e3`, `1000.0`, `"1000"`.
//!
//! Whole tokens, rounded up. What is larger than the largest number counts as that. What is no number, or below zero, says nothing, so
//! that the answer is estimated unless another number speaks for it.

/// Powers of ten beyond which every number is zero or the largest.
const MAX_POWER: i32 = 9999;

/// The number so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Number {
    part: Part,
    /// Its first digits, as many as fit.
    digits: u64,
    /// Whether no more of them do.
    full: bool,
    /// Whether a digit other than zero came after them.
    more: bool,
    /// Ten to this power times `digits` is what came before the exponent.
    power: i32,
    exponent: i32,
    /// Whether the exponent is below zero.
    shrinks: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Part {
    /// No digit has come yet.
    #[default]
    Start,
    Whole,
    /// The point has come.
    Point,
    Fraction,
    /// `e` has come.
    Mark,
    /// And its sign.
    Sign,
    Exponent,
}

// === impl Number ===

impl Number {
    /// Takes the next character; false when no number goes on with it.
    pub(super) fn push(&mut self, byte: u8) -> bool {
        self.part = match (self.part, byte) {
            (Part::Start | Part::Whole, b'0'..=b'9') => {
                self.digit(byte, false);
                Part::Whole
            }
            (Part::Point | Part::Fraction, b'0'..=b'9') => {
                self.digit(byte, true);
                Part::Fraction
            }
            (Part::Mark | Part::Sign | Part::Exponent, b'0'..=b'9') => {
                self.exponent = (self.exponent * 10 + i32::from(byte - b'0')).min(MAX_POWER);
                Part::Exponent
            }
            (Part::Whole, b'.') => Part::Point,
            (Part::Whole | Part::Fraction, b'e' | b'E') => Part::Mark,
            (Part::Mark, b'+' | b'-') => {
                self.shrinks = byte == b'-';
                Part::Sign
            }
            _ => return false,
        };
        true
    }

    /// What it amounts to, if it may end here.
    pub(super) fn value(&self) -> Option<u64> {
        if matches!(self.part, Part::Start | Part::Point | Part::Mark | Part::Sign) {
            return None;
        }
        let power = self.power.saturating_add(if self.shrinks { -self.exponent } else { self.exponent });
        if self.full && power > 0 {
            return Some(u64::MAX);
        }
        let mut value = self.digits;
        let mut more = self.more;
        for _ in 0..power.unsigned_abs() {
            if value == 0 || value == u64::MAX {
                break;
            }
            if power > 0 {
                value = value.saturating_mul(10);
            } else {
                more |= !value.is_multiple_of(10);
                value /= 10;
            }
        }
        Some(value.saturating_add(u64::from(more)))
    }

    fn digit(&mut self, byte: u8, behind: bool) {
        let digit = u64::from(byte - b'0');
        let fits = self.digits.checked_mul(10).and_then(|tens| tens.checked_add(digit)).filter(|_| !self.full);
        match fits {
            Some(digits) => {
                self.digits = digits;
                self.power = self.power.saturating_sub(i32::from(behind));
            }
            None => {
                self.full = true;
                self.more |= digit != 0;
                self.power = self.power.saturating_add(i32::from(!behind));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Option<u64> {
        let mut number = Number::default();
        text.bytes().all(|byte| number.push(byte)).then(|| number.value()).flatten()
    }

    #[test]
    fn a_number_is_what_it_amounts_to() {
        let cases = [
            ("0", Some(0)),
            ("7", Some(7)),
            ("007", Some(7)),
            ("1000", Some(1000)),
            ("1e3", Some(1000)),
            ("1E3", Some(1000)),
            ("1e+3", Some(1000)),
            ("1.5e3", Some(1500)),
            ("1000.0", Some(1000)),
            ("1000.000000000000000000000000000000", Some(1000)),
            ("1000e-1", Some(100)),
            ("1005e-1", Some(101)),
            ("7.9", Some(8)),
            ("0.1", Some(1)),
            ("1e-9", Some(1)),
            ("1e-9999999999", Some(1)),
            ("0e9999999999", Some(0)),
            ("0.0e5", Some(0)),
            ("12345678901234567890.5", Some(12_345_678_901_234_567_891)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", Some(u64::MAX)),
            ("99999999999999999999999", Some(u64::MAX)),
            ("1e19", Some(10_000_000_000_000_000_000)),
            ("1e20", Some(u64::MAX)),
            ("1e9999999999", Some(u64::MAX)),
            ("", None),
            ("-3", None),
            ("+3", None),
            (".5", None),
            ("1.", None),
            ("1e", None),
            ("1e+", None),
            ("1e3.5", None),
            ("1.2.3", None),
            ("0x10", None),
            ("NaN", None),
            ("1 000", None),
            ("1,000", None),
        ];
        for (text, value) in cases {
            assert_eq!(read(text), value, "{text}");
        }
    }

    proptest! {
        #[test]
        fn whole_numbers_are_themselves(value in any::<u64>(), zeros in 0usize..30) {
            prop_assert_eq!(read(&value.to_string()), Some(value));
            prop_assert_eq!(read(&format!("{value}.{}", "0".repeat(zeros + 1))), Some(value));
        }

        #[test]
        fn others_are_rounded_up(value in 0.0f64..9e15) {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is in range")]
            let whole = value.ceil() as u64;
            for text in [format!("{value}"), format!("{value:e}")] {
                prop_assert_eq!(read(&text), Some(whole), "{}", text);
            }
        }
    }
}
